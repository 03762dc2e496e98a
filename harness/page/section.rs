//! What the page says of one result, as words and figures; and where results come from.

use super::chart::Chart;
use super::draw;
use crate::environment::Environment;
use crate::grid::Grid;
use crate::histogram::nanoseconds;
use crate::ranks::text;
use crate::report::{bytes, grids, messages, title, warnings};
use crate::result::{FloorReport, Ratio, Report, ThreadReport};

/// A name and what is said of it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Fact {
    pub(super) name: &'static str,
    pub(super) value: String,
}

/// One result.
pub(super) struct Section {
    pub(super) number: u32,
    pub(super) name: String,
    pub(super) title: String,
    pub(super) device: String,
    pub(super) samples: u64,
    /// What is wrong with it, if anything.
    pub(super) fault: Option<String>,
    /// What a reader must know before believing it.
    pub(super) warnings: Vec<String>,
    pub(super) latency: Option<Latency>,
    pub(super) throughput: Option<Throughput>,
    /// How many times the floor it is, or which part of it.
    pub(super) ratio: String,
    pub(super) facts: Vec<Fact>,
    pub(super) distribution: Option<Chart>,
    /// The figures of that chart.
    pub(super) shares: Vec<[String; 3]>,
    pub(super) course: Option<Chart>,
    /// The figures of that chart, under these names.
    pub(super) course_names: Vec<&'static str>,
    pub(super) course_rows: Vec<Vec<String>>,
    /// What parts of the run had.
    pub(super) grids: Vec<Grid>,
    /// What went from whom to whom, under these names.
    pub(super) pair_names: &'static [&'static str],
    pub(super) pairs: Vec<[String; 7]>,
}

/// Latencies, as a row of the table.
pub(super) struct Latency {
    pub(super) figures: [String; 8],
}

/// Throughput, likewise.
pub(super) struct Throughput {
    pub(super) figures: [String; 5],
}

impl Section {
    pub(super) fn new(number: u32, name: &str, report: &Report) -> Self {
        let (shares, slower) = draw::shares(&report.distribution);
        let distribution = draw::bars(number, report, &shares, slower);
        let shares = shares
            .iter()
            .map(|share| [nanoseconds(share.from), nanoseconds(share.to), share.samples.to_string()])
            .collect();
        let (course_names, course_rows) = course(report);
        Self {
            number,
            name: name.to_owned(),
            title: title(report),
            device: report.device.clone(),
            samples: report.samples,
            fault: fault(report),
            warnings: warnings(report),
            latency: report.one_way_ns.map(|ns| Latency {
                figures: [ns.min, ns.mean, ns.p50, ns.p90, ns.p99, ns.p99_9, ns.p99_99, ns.max]
                    .map(nanoseconds),
            }),
            throughput: report.bandwidth.map(|bandwidth| {
                let spread = bandwidth.section_bytes_per_s;
                Throughput {
                    figures: [
                        bytes(bandwidth.bytes_per_s),
                        messages(bandwidth.messages_per_s),
                        bytes(spread.min),
                        bytes(spread.median),
                        bytes(spread.max),
                    ],
                }
            }),
            ratio: ratio(report),
            facts: facts(report),
            distribution,
            shares,
            course: draw::course(number, report),
            course_names,
            course_rows,
            grids: grids(report),
            pair_names: &text::COLUMNS,
            pairs: report.group.as_ref().map(text::rows).unwrap_or_default(),
        }
    }
}

fn fault(report: &Report) -> Option<String> {
    if report.verified {
        return None;
    }
    let first =
        report.first_error.as_deref().map(|error| format!("; the first: {error}")).unwrap_or_default();
    Some(format!("{} of {} checked messages were wrong{first}", report.errors, report.messages_checked))
}

fn ratio(report: &Report) -> String {
    match report.ratio_to_floor {
        Some(Ratio::Latency { p50, p50_batch_by_batch, .. }) => {
            format!("{:.2} ×", p50_batch_by_batch.unwrap_or(p50))
        }
        Some(Ratio::Bytes { bytes_per_s, section_by_section }) => {
            format!("{:.2} ×", section_by_section.unwrap_or(bytes_per_s))
        }
        None => "none".to_owned(),
    }
}

/// What was measured, and how.
fn facts(report: &Report) -> Vec<Fact> {
    let mut facts = Vec::new();
    let mut say = |name, value: String| facts.push(Fact { name, value });
    say("device", format!("{}, profile {}", report.device, report.profile));
    if let Some(measures) = report.measures.as_deref() {
        let measures = report.group.as_ref().map_or_else(|| measures.to_owned(), |_| text::measures(report));
        say("a sample is", measures);
    }
    if let Some(group) = &report.group {
        say("ranks", text::ranks(group));
        if let Some(fairness) = text::fairness(group) {
            say("fairness", fairness);
        }
        if let Some(allreduce) = &group.allreduce {
            say("algorithm", text::algorithm(group, allreduce));
        }
    }
    match (&report.open_loop, report.kind_of_loop.as_deref()) {
        (Some(open), _) => {
            let kept = if open.kept { "kept" } else { "NOT kept" };
            say(
                "loop",
                format!(
                    "open: {} messages/s asked for, {:.0} came about, the schedule was {kept}",
                    open.rate_per_s, open.achieved_per_s
                ),
            );
            let (response, service) = (&open.response_ns, &open.service_ns);
            say(
                "response",
                format!(
                    "from due to answered: p50 {}, p99 {}, p99.9 {}, max {}",
                    nanoseconds(response.p50),
                    nanoseconds(response.p99),
                    nanoseconds(response.p99_9),
                    nanoseconds(response.max)
                ),
            );
            say(
                "service",
                format!(
                    "from posted to answered: p50 {}, p99 {}, p99.9 {}, max {}",
                    nanoseconds(service.p50),
                    nanoseconds(service.p99),
                    nanoseconds(service.p99_9),
                    nanoseconds(service.max)
                ),
            );
        }
        (None, Some(_)) if report.group.is_some() => say("loop", text::kind_of_loop(report).to_owned()),
        (None, Some(kind)) => {
            say("loop", format!("{kind}: the next message is posted when the last was answered"));
        }
        (None, None) => {}
    }
    say(
        "floor",
        match (&report.floor, &report.floor_missing) {
            (Some(FloorReport::Bounce { one_way_ns, samples, carrier }), _) => format!(
                "{carrier}: p50 {}, p99 {}, of {samples} samples in the same run",
                nanoseconds(one_way_ns.p50),
                nanoseconds(one_way_ns.p99)
            ),
            (Some(FloorReport::Sockets { sockets_bytes_per_s }), _) => {
                format!("plain UDP sockets: {} in the same run", bytes(*sockets_bytes_per_s))
            }
            (Some(FloorReport::Carried { carried_bytes_per_s, carrier }), _) => {
                format!("{carrier}: {} in the same run", bytes(*carried_bytes_per_s))
            }
            (Some(FloorReport::Memcpy { memcpy_bytes_per_s }), _) => {
                format!("memcpy: {} in the same run", bytes(*memcpy_bytes_per_s))
            }
            (None, Some(reason)) => format!("none: {reason}"),
            (None, None) => "none".to_owned(),
        },
    );
    say("checked", report.verification.clone());
    say("samples", format!("{} after {} of warm-up", report.samples, report.warmup));
    say(
        "queues",
        format!(
            "depth {}, {} work requests a doorbell, 1 of {} signaled",
            report.depth, report.post_list, report.signal_every
        ),
    );
    if report.threads > 1 || report.qps > 1 {
        say("threads", format!("{} on each side, {} queue pairs each", report.threads, report.qps));
    }
    let of_thread = |thread: &ThreadReport| match (&thread.one_way_ns, thread.bytes_per_s) {
        (Some(ns), _) => format!("p50 {}, p99 {}", nanoseconds(ns.p50), nanoseconds(ns.p99)),
        (None, Some(rate)) => bytes(rate),
        (None, None) => "no messages".to_owned(),
    };
    if !report.per_thread.is_empty() {
        say("thread by thread", report.per_thread.iter().map(of_thread).collect::<Vec<_>>().join("; "));
    }
    if let Some(like) = report.like {
        say("measured like", format!("{like}: samples are whole turns of the loop"));
    }
    say("memory", report.memory.to_string());
    say("sides", report.sides.to_string());
    if let Some(link) = &report.link {
        say("link", link.clone());
    }
    if let (Some(plan), Some(seed)) = (&report.fault, report.seed) {
        say("faults", format!("{plan}; seed {seed}"));
    }
    let counted: Vec<_> = report.counters.iter().filter(|(_, count)| **count > 0).collect();
    if !counted.is_empty() {
        let counted: Vec<_> = counted.into_iter().map(|(name, count)| format!("{name} {count}")).collect();
        say("counters", counted.join(", "));
    }
    let switches = report.environment.involuntary_context_switches;
    say(
        "interrupted",
        format!(
            "{} and {} times by the scheduler, {} ms by a hypervisor",
            switches.initiator, switches.responder, report.environment.steal_ms
        ),
    );
    facts
}

/// The figures of the course of time.
fn course(report: &Report) -> (Vec<&'static str>, Vec<Vec<String>>) {
    let is_latency = report.one_way_ns.is_some();
    let unit: fn(f64) -> String = if is_latency { nanoseconds } else { bytes };
    let names = if is_latency {
        vec!["began", "samples", "median", "p99", "slowest", "floor"]
    } else {
        vec!["began", "samples", "throughput", "floor"]
    };
    let rows = report.timeline.iter().map(|stretch| {
        let figures: &[Option<f64>] = if is_latency {
            &[stretch.p50, stretch.p99, stretch.max, stretch.floor]
        } else {
            &[stretch.bytes_per_s, stretch.floor]
        };
        [format!("{:.3} s", stretch.at_s), stretch.samples.to_string()]
            .into_iter()
            .chain(figures.iter().map(|figure| figure.map(unit).unwrap_or_default()))
            .collect()
    });
    (names, rows.collect())
}

/// Where a result comes from, without what is different in each run.
pub(super) fn place(environment: &Environment) -> Vec<Fact> {
    let clock = &environment.clock;
    let core = |core: Option<usize>| core.map_or_else(|| "any".to_owned(), |core| core.to_string());
    let pinned = environment.pinned;
    let facts = [
        ("processor", format!("{}, {}", environment.cpu_model, environment.architecture)),
        (
            "cores",
            format!(
                "{} and {} of {}",
                core(pinned.initiator),
                core(pinned.responder),
                environment.cores_allowed
            ),
        ),
        ("kernel", environment.kernel.clone()),
        ("hypervisor", if environment.virtual_machine { "yes" } else { "no" }.to_owned()),
        ("governor", environment.governor.clone().unwrap_or_else(|| "not told".to_owned())),
        (
            "clock",
            match &clock.hardware {
                Some(hardware) => format!("{} ({hardware})", clock.source),
                None => clock.source.clone(),
            },
        ),
        (
            "harness",
            format!(
                "{}{}",
                environment.release,
                if environment.optimised { "" } else { ", built without optimisation" }
            ),
        ),
    ];
    facts.into_iter().map(|(name, value)| Fact { name, value }).collect()
}
