//! The report for people: at most eighty columns, no colour, nothing that moves.

use std::fmt::Write as _;

use crate::affinity;
use crate::environment::ClockReport;
use crate::grid::Grid;
use crate::histogram::nanoseconds;
use crate::interference::Interference;
use crate::open_loop::{Arrivals, OpenLoopReport};
use crate::plan::{Benchmark, Wait};
use crate::ranks::text;
use crate::result::{FloorReport, Ratio, Report};
use crate::words::fold;
use crate::{idle, mixed};

/// Involuntary context switches in so many messages are worth a warning.
const SWITCHES_WORTH_A_WORD: u64 = 100;
/// The system's clock is steered by up to 500 ppm (adjtimex); more apart than that, one of two clocks is wrong.
const DRIFT_WORTH_A_WORD_PPM: f64 = 600.0;
/// A core that became faster or slower by so much during a run is worth a warning.
const SPEED_WORTH_A_WORD: f64 = 1.1;

/// The whole report; `picture` is the drawn distribution.
#[must_use]
pub fn full(report: &Report, picture: &str) -> String {
    let mut text = String::new();
    head(&mut text, report);
    latencies(&mut text, report, picture);
    throughput(&mut text, report);
    parts(&mut text, report);
    threads(&mut text, report);
    if let Some(group) = &report.group {
        text::group(&mut text, group);
    }
    floor(&mut text, report);
    checked(&mut text, report);
    environment(&mut text, report);
    text
}

/// The report in one line, for `--quiet`.
#[must_use]
pub fn line(report: &Report) -> String {
    let mut text = title(report);
    if let Some(ns) = &report.one_way_ns {
        let _ = write!(text, ": p50 {}, p99 {}", nanoseconds(ns.p50), nanoseconds(ns.p99));
    }
    if let Some(open) = &report.open_loop {
        let _ = write!(
            text,
            "; response at {:.0}/s p50 {}, p99 {}, p99.9 {}{}",
            open.rate_per_s,
            nanoseconds(open.response_ns.p50),
            nanoseconds(open.response_ns.p99),
            nanoseconds(open.response_ns.p99_9),
            if open.kept { "" } else { " (SCHEDULE NOT KEPT)" }
        );
    }
    if let Some(bandwidth) = &report.bandwidth {
        let _ = write!(
            text,
            ": {}, {}",
            bytes(bandwidth.bytes_per_s),
            rate(report.benchmark, bandwidth.messages_per_s)
        );
    }
    match report.ratio_to_floor {
        Some(Ratio::Latency { p50, p99, p50_batch_by_batch }) => {
            let paired =
                p50_batch_by_batch.map(|ratio| format!(", batch by batch {ratio:.2} x")).unwrap_or_default();
            let _ = write!(text, ", {p50:.2} x the floor (p99 {p99:.2} x{paired})");
        }
        Some(Ratio::Bytes { bytes_per_s, .. }) => {
            let floor = match &report.floor {
                Some(FloorReport::Sockets { .. }) => "plain UDP sockets",
                Some(FloorReport::Carried { carrier, .. }) => carrier,
                _ => "memcpy",
            };
            let _ = write!(text, ", {bytes_per_s:.2} x {floor}");
        }
        None => {}
    }
    let _ = writeln!(text, ", {} samples, {} errors", report.samples, report.errors);
    text
}

/// What was measured, in a few words.
#[must_use]
pub fn title(report: &Report) -> String {
    if !report.classes.is_empty() {
        let most = report.depth;
        return format!("mixed, {} classes over {}, depth {most}", report.classes.len(), report.transport);
    }
    format!(
        "{} {} over {}, {} bytes{}",
        report.benchmark,
        report.op,
        report.transport,
        report.size_bytes,
        if report.inline { " inline" } else { "" }
    )
}

/// One line of the report: a name, and its value broken at blanks where it is too long.
pub(crate) fn entry(text: &mut String, name: &str, value: &str) {
    const NAME: usize = 12;
    let _ = write!(text, "{name:<NAME$}");
    fold(text, NAME, value);
}

fn head(text: &mut String, report: &Report) {
    let _ = writeln!(text, "{}", title(report));
    entry(
        text,
        "device",
        &format!("{}, profile {}; memory {}", report.device, report.profile, report.memory),
    );
    if report.group.is_some() {
        entry(text, "measures", &text::measures(report));
    } else if let Some(measures) = report.measures.as_deref() {
        let explained = match measures {
            _ if !report.classes.is_empty() => {
                "round trip of one operation, from post to completion, with what it waits behind others"
            }
            "half round trip" if report.like.is_some() => {
                "as perftest: half of each whole turn of the loop, from one post to the next"
            }
            "half round trip" => "one way: half of each round trip, from post to answer seen",
            _ if report.benchmark == Benchmark::Replay => "one operation, from post to completion",
            _ => "round trip of one operation, from post to completion; the target's CPU does nothing",
        };
        entry(text, "measures", explained);
    } else {
        entry(
            text,
            "measures",
            &format!(
                "one direction, depth {}, {} per doorbell, 1 of {} signaled",
                report.depth, report.post_list, report.signal_every
            ),
        );
    }
    let waited = match (report.wait, report.benchmark, report.op) {
        (Wait::Event, ..) => "asleep on the completion channel",
        (Wait::Poll, Benchmark::Pingpong, crate::plan::Op::Write) => "both sides poll their own memory",
        (Wait::Poll, ..) => "polls the completion queue",
    };
    entry(text, "waits", waited);
    match (&report.open_loop, report.kind_of_loop.as_deref()) {
        (Some(open), _) => entry(text, "loop", &schedule(open)),
        (None, Some(_)) if !report.classes.is_empty() => {
            entry(
                text,
                "loop",
                "closed: the next message is posted when one of those under way has completed",
            );
        }
        (None, Some(_)) if !report.gaps.is_empty() => entry(
            text,
            "loop",
            "closed: each message is posted after a silence, which begins when the last was answered; figures and picture \
             are those of the longest",
        ),
        (None, Some(_)) if report.group.is_some() => entry(text, "loop", text::kind_of_loop(report)),
        (None, Some(_)) => entry(
            text,
            "loop",
            "closed: the next message is posted when the last was answered, so a pause of the other side is one slow \
             message; --rate opens it",
        ),
        (None, None) => {}
    }
    entry(text, "clock", &clock(&report.environment.clock));
    let lead_in = match report.lead_in {
        0 => String::new(),
        some => format!(" and {some} between batches"),
    };
    if let Some(link) = &report.link {
        entry(text, "link", link);
    }
    if let (Some(seed), false) = (report.seed, report.classes.is_empty()) {
        entry(text, "dice", &format!("--seed {seed} throws the same classes again"));
    }
    if let (Some(fault), Some(seed)) = (&report.fault, report.seed) {
        entry(text, "fault", &format!("{fault}; --seed {seed}"));
    }
    let told: Vec<_> = report
        .counters
        .iter()
        .filter(|(_, count)| **count > 0)
        .map(|(name, count)| format!("{name} {count}"))
        .collect();
    if !told.is_empty() {
        entry(text, "counters", &told.join(", "));
    }
    if report.threads > 1 || report.qps > 1 {
        let each = if report.qps == 1 { String::new() } else { format!(", {} queue pairs each", report.qps) };
        let what = if report.one_way_ns.is_some() { "all of them together" } else { "their sum" };
        let threads = report.threads;
        entry(text, "threads", &format!("{threads} on each side{each}; what follows is of {what}"));
    }
    entry(text, "samples", &format!("{} after {} of warm-up{lead_in}", report.samples, report.warmup));
}

fn latencies(text: &mut String, report: &Report, picture: &str) {
    let Some(ns) = &report.one_way_ns else { return };
    let _ = writeln!(text);
    let figures = [
        ("min", ns.min),
        ("mean", ns.mean),
        ("p50", ns.p50),
        ("p90", ns.p90),
        ("p99", ns.p99),
        ("p99.9", ns.p99_9),
        ("p99.99", ns.p99_99),
        ("max", ns.max),
    ];
    for row in figures.chunks(4) {
        for (name, value) in row {
            let _ = write!(text, "  {name:>6} {:>9}", nanoseconds(*value));
        }
        let _ = writeln!(text);
    }
    let _ = write!(text, "\n{picture}\n");
    if let Some(open) = &report.open_loop {
        responses(text, open);
    }
}

/// The clock, and why it may be believed.
fn clock(clock: &ClockReport) -> String {
    let mut told = clock.source.clone();
    let mut add = |part: String| told.push_str(&part);
    match (clock.frequency_hz, &clock.hardware) {
        (Some(hz), _) => add(format!(", invariant by processor and kernel, {:.3} GHz", hz / 1e9)),
        (None, Some(name)) => add(format!(" ({name})")),
        (None, None) => {}
    }
    add(format!(", {:.1} ns a read, not subtracted", clock.overhead_ns));
    if let Some(step) = clock.step_ns {
        add(format!("; steps of {step} ns"));
    }
    if let Some(ppm) = clock.drift_ppm {
        add(format!("; {ppm:+.1} ppm beside CLOCK_MONOTONIC over the run"));
    }
    if let Some(why) = &clock.why_not_tsc {
        add(format!("; not the processor's counter: {why}"));
    }
    told
}

/// When messages of an open loop were due.
fn schedule(open: &OpenLoopReport) -> String {
    let distances = match (open.arrivals, open.seed) {
        (Arrivals::Fixed, _) => "at equal distances".to_owned(),
        (Arrivals::Trace, _) => "as a trace has it".to_owned(),
        (Arrivals::Poisson, seed) => {
            format!("at distances of chance (Poisson; --seed {})", seed.unwrap_or_default())
        }
    };
    format!(
        "open: messages are due {distances}, {:.0} a second, whether the last was answered or not",
        open.rate_per_s
    )
}

fn responses(text: &mut String, open: &OpenLoopReport) {
    let _ = write!(text, "{:12}", "");
    for name in ["p50", "p90", "p99", "p99.9", "p99.99", "max"] {
        let _ = write!(text, " {name:>10}");
    }
    text.push('\n');
    for (name, ns) in [("service", &open.service_ns), ("response", &open.response_ns)] {
        let _ = write!(text, "{name:12}");
        for value in [ns.p50, ns.p90, ns.p99, ns.p99_9, ns.p99_99, ns.max] {
            let _ = write!(text, " {:>10}", nanoseconds(value));
        }
        text.push('\n');
    }
    entry(
        text,
        "",
        "both to the answer: service from posting a message, response from the moment it was due, so with what it waited \
         behind slow ones",
    );
    entry(
        text,
        "schedule",
        &format!(
            "{}: {:.0} of {:.0} messages/s came about; {} of {} were posted after the next was due, at most {} behind",
            if open.kept { "kept" } else { "NOT KEPT" },
            open.achieved_per_s,
            open.rate_per_s,
            open.late,
            open.messages,
            nanoseconds(open.most_behind_ns as f64)
        ),
    );
    text.push('\n');
}

fn throughput(text: &mut String, report: &Report) {
    let Some(bandwidth) = &report.bandwidth else { return };
    let _ = writeln!(
        text,
        "\n  {}   {}   in {:.2} s",
        bytes(bandwidth.bytes_per_s),
        rate(report.benchmark, bandwidth.messages_per_s),
        bandwidth.elapsed_s
    );
    let spread = bandwidth.section_bytes_per_s;
    if report.group.is_some() {
        return text.push('\n');
    }
    let _ = writeln!(
        text,
        "  of {} sections: slowest {}, middle {}, fastest {}\n",
        bandwidth.sections,
        bytes(spread.min),
        bytes(spread.median),
        bytes(spread.max)
    );
}

/// What the parts of a run had, one below the other.
fn parts(text: &mut String, report: &Report) {
    for grid in grids(report) {
        let widths: Vec<usize> = (0..grid.columns.len())
            .map(|at| {
                grid.rows.iter().chain([&grid.columns]).filter_map(|row| Some(row.get(at)?.len())).max()
            })
            .map(Option::unwrap_or_default)
            .collect();
        for row in [&grid.columns].into_iter().chain(&grid.rows) {
            let mut line = String::new();
            for (at, (cell, width)) in row.iter().zip(&widths).enumerate() {
                let _ =
                    if at == 0 { write!(line, "{cell:width$}") } else { write!(line, "  {cell:>width$}") };
            }
            let _ = writeln!(text, "{}", line.trim_end());
        }
        text.push('\n');
    }
}

/// The same as tables: of the classes of a mix, and of the silences of an idle run.
#[must_use]
pub fn grids(report: &Report) -> Vec<Grid> {
    [mixed::grid(&report.classes), idle::grid(&report.gaps)].into_iter().flatten().collect()
}

/// The threads, one below the other.
fn threads(text: &mut String, report: &Report) {
    for (number, thread) in report.per_thread.iter().enumerate() {
        let core = thread.core.map_or_else(|| "not pinned".to_owned(), |core| format!("core {core}"));
        let figures = match (&thread.one_way_ns, thread.bytes_per_s, thread.messages_per_s) {
            (Some(ns), ..) => format!(
                "p50 {}, p99 {}, max {}; {} samples",
                nanoseconds(ns.p50),
                nanoseconds(ns.p99),
                nanoseconds(ns.max),
                thread.samples
            ),
            (None, Some(per_s), Some(count)) => format!("{}, {}", bytes(per_s), messages(count)),
            _ => "no samples".into(),
        };
        entry(text, if number == 0 { "per thread" } else { "" }, &format!("{figures}; {core}"));
    }
    if !report.per_thread.is_empty() {
        text.push('\n');
    }
}

fn floor(text: &mut String, report: &Report) {
    let value = match &report.floor {
        Some(FloorReport::Bounce { one_way_ns, samples, carrier }) => format!(
            "p50 {}, p99 {} one way; {carrier}, same cores, between the batches, {samples} samples",
            nanoseconds(one_way_ns.p50),
            nanoseconds(one_way_ns.p99)
        ),
        Some(FloorReport::Sockets { sockets_bytes_per_s }) => format!(
            "{} arrive over plain UDP sockets in long trains; same cores, between the sections",
            bytes(*sockets_bytes_per_s)
        ),
        Some(FloorReport::Carried { carried_bytes_per_s, carrier }) => format!(
            "{} by {carrier}, messages of the same size; same cores, between the sections",
            bytes(*carried_bytes_per_s)
        ),
        Some(FloorReport::Memcpy { memcpy_bytes_per_s }) => format!(
            "{} by memcpy between private buffers; initiator's core, between the sections",
            bytes(*memcpy_bytes_per_s)
        ),
        None => format!("none: {}", report.floor_missing.as_deref().unwrap_or("not measured")),
    };
    entry(text, "floor", &value);
    let value = match report.ratio_to_floor {
        Some(Ratio::Latency { p50, p99, p50_batch_by_batch }) => {
            let compared = match report.measures.as_deref() {
                Some("half round trip") => "",
                _ => " (a whole operation by the floor's one way)",
            };
            let paired = p50_batch_by_batch
                .map(|ratio| format!(", p50 batch by batch {ratio:.2} x"))
                .unwrap_or_default();
            format!("p50 {p50:.2} x, p99 {p99:.2} x the floor{paired}{compared}")
        }
        Some(Ratio::Bytes { bytes_per_s, section_by_section }) => {
            let paired = section_by_section
                .map(|ratio| format!(", section by section {ratio:.2} x"))
                .unwrap_or_default();
            format!("{bytes_per_s:.2} x the floor{paired}")
        }
        None => return,
    };
    entry(text, "ratio", &value);
}

fn checked(text: &mut String, report: &Report) {
    let verdict = if report.verified { "right" } else { "WRONG" };
    entry(text, "checked", &format!("{verdict}, {} errors: {}", report.errors, report.verification));
    if let Some(first) = &report.first_error {
        entry(text, "", first);
    }
}

fn environment(text: &mut String, report: &Report) {
    let environment = &report.environment;
    let core =
        |core: Option<usize>| core.map_or_else(|| "not pinned".to_owned(), |core| format!("core {core}"));
    entry(
        text,
        "cpu",
        &format!(
            "{} ({}{}), cores {} allowed, governor {}",
            environment.cpu_model,
            environment.architecture,
            if environment.virtual_machine { ", virtual machine" } else { "" },
            environment.cores_allowed,
            environment.governor.as_deref().unwrap_or("unknown")
        ),
    );
    entry(
        text,
        "sides",
        &match &report.group {
            Some(group) => format!("{}; {}", text::seats(group), report.sides),
            None => format!(
                "initiator {}, responder {}; {}",
                core(environment.pinned.initiator),
                core(environment.pinned.responder),
                report.sides
            ),
        },
    );
    entry(
        text,
        "system",
        &format!(
            "{}, load {}, {} ms stolen, involuntary context switches {} + {}",
            environment.kernel,
            environment.load_average.map_or_else(|| "unknown".to_owned(), |load| format!("{load:.2}")),
            environment.steal_ms,
            environment.involuntary_context_switches.initiator,
            environment.involuntary_context_switches.responder
        ),
    );
    if let Some(interference) = &environment.interference {
        entry(text, "meanwhile", &disturbed(interference));
    }
    for warning in warnings(report) {
        entry(text, "WARNING", &warning);
    }
}

/// What the system did during the run, beside what it took.
fn disturbed(interference: &Interference) -> String {
    let Interference { initiator, responder, frequency_mhz, fixed_work_ns } = interference;
    let frequency = frequency_mhz
        .map(|mhz| format!("core at {:.0} MHz before and {:.0} after; ", mhz.before, mhz.after))
        .unwrap_or_default();
    format!(
        "page faults {} + {}, of them from disk {} + {}; {frequency}the same work takes {:.2} x as long after the run \
         as before",
        initiator.minor_faults + initiator.major_faults,
        responder.minor_faults + responder.major_faults,
        initiator.major_faults,
        responder.major_faults,
        fixed_work_ns.change()
    )
}

/// What a reader must know before believing the figures.
#[must_use]
pub fn warnings(report: &Report) -> Vec<String> {
    let environment = &report.environment;
    let mut warnings: Vec<String> = report.group.as_ref().and_then(text::warning).into_iter().collect();
    let switches = environment.involuntary_context_switches;
    let total = switches.initiator + switches.responder;
    // Virtual time stands still while a side is interrupted.
    let who = if report.group.is_some() { "the ranks" } else { "the two sides" };
    let crowded = report.group.as_ref().is_some_and(|group| group.crowded);
    if report.sides != crate::run::IN_TURNS
        && !crowded
        && total > SWITCHES_WORTH_A_WORD.max(report.samples / 10_000)
    {
        warnings.push(format!(
            "the scheduler interrupted {who} {total} times: others want these cores, and the tail shows it"
        ));
    }
    if let Some(open) = report.open_loop.filter(|open| !open.kept) {
        warnings.push(format!(
            "the schedule could not be kept: {:.0} messages/s were asked for and {:.0} came about. Responses grow with \
             the length of such a run, and say only that it was too much",
            open.rate_per_s, open.achieved_per_s
        ));
    }
    if let Some(ppm) = environment.clock.drift_ppm.filter(|ppm| ppm.abs() > DRIFT_WORTH_A_WORD_PPM) {
        warnings.push(format!(
            "the processor's counter went {ppm:+.0} ppm beside the system's clock: one of them is wrong, and --clock os \
             measures by the other"
        ));
    }
    if environment.steal_ms > 100 {
        warnings.push(format!(
            "the hypervisor took {} ms of this host's time during the run",
            environment.steal_ms
        ));
    }
    if let Some(interference) = environment.interference {
        let change = interference.fixed_work_ns.change();
        if !(1.0 / SPEED_WORTH_A_WORD..=SPEED_WORTH_A_WORD).contains(&change) {
            warnings.push(format!(
                "the same work takes {change:.2} x as long after the run as before: the core's frequency changed, or \
                 others use it too, and figures of the run are of both"
            ));
        }
        let from_disk = interference.initiator.major_faults + interference.responder.major_faults;
        if from_disk > 0 {
            warnings.push(format!("{from_disk} page faults waited for a disk, and the tail shows it"));
        }
    }
    let one_core = !environment.cores_allowed.contains(['-', ','])
        && report.sides == crate::run::BY_THE_HARNESS
        && !crowded;
    if one_core {
        warnings.push(
            "only one core is allowed: the two sides take turns on it, and this is no figure of the link"
                .into(),
        );
    }
    let on_this_host = if report.sides == crate::run::BY_THE_HARNESS { 2 } else { 1 };
    let (threads, cores) =
        (report.threads as usize * on_this_host, affinity::counted(&environment.cores_allowed));
    if report.threads > 1 && threads > cores && report.sides != crate::run::IN_TURNS {
        warnings.push(format!(
            "{threads} threads want a core each and {cores} are allowed: they take turns on them, and latencies are those of \
             the scheduler"
        ));
    }
    if !environment.optimised {
        warnings.push("built without optimisation: use cargo run --release".into());
    }
    warnings
}

/// Bytes per second as a reader likes them.
#[must_use]
pub fn bytes(per_second: f64) -> String {
    match per_second {
        _ if per_second >= 1e9 => format!("{:.2} GB/s", per_second / 1e9),
        _ if per_second >= 1e6 => format!("{:.2} MB/s", per_second / 1e6),
        _ => format!("{:.2} kB/s", per_second / 1e3),
    }
}

/// The same of whatever a measurement does so many of in a second.
fn rate(benchmark: Benchmark, per_second: f64) -> String {
    let text = messages(per_second);
    if benchmark == Benchmark::Allreduce { text.replace("messages", "operations") } else { text }
}

/// Messages per second as a reader likes them.
#[must_use]
pub fn messages(per_second: f64) -> String {
    match per_second {
        _ if per_second >= 1e6 => format!("{:.3} million messages/s", per_second / 1e6),
        _ => format!("{per_second:.0} messages/s"),
    }
}
