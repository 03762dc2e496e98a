//! The report of a run: what was measured, put together with where and how.

use std::time::Duration;

use super::initiate::{Beside, Found, Measured, Raw};
use crate::control::Account;
use crate::environment::{BothSides, Environment};
use crate::floor::Floor;
use crate::histogram::Latencies;
use crate::idle::{self, GapReport};
use crate::lanes::Tallies;
use crate::memcpy::median;
use crate::mixed::{self, ClassReport};
use crate::open_loop::OpenLoop;
use crate::plan::Plan;
use crate::result::{Bandwidth, FloorLatency, FloorReport, Ratio, Report, Spread, ThreadReport};
use crate::session::OpenDevice;
use crate::{pingpong, stream};

/// A report that says what was measured, where and how, and holds no figure yet.
#[must_use]
pub fn begun(
    plan: &Plan,
    open: &OpenDevice,
    environment: Environment,
    memory: &'static str,
    sides: &'static str,
) -> Report {
    Report {
        op: plan.op,
        transport: plan.transport,
        device: open.name.clone(),
        profile: open.profile.clone(),
        size_bytes: plan.size,
        wait: plan.wait,
        inline: plan.inline,
        depth: plan.depth,
        post_list: plan.post_list,
        signal_every: plan.signal_every,
        threads: plan.threads,
        qps: plan.qps,
        memory: memory.into(),
        sides: sides.into(),
        like: plan.like,
        link: plan.link.clone(),
        fault: plan.fault.clone(),
        seed: plan.seed,
        counters: open.device.counters().into_iter().map(|(name, count)| (name.into(), count)).collect(),
        ..Report::empty(plan.benchmark, environment)
    }
}

pub(super) fn assemble(plan: &Plan, open: &OpenDevice, raw: Raw, sides: &'static str) -> Measured {
    let Raw { found, environment, memory, cores, tallies } = raw;
    let mut report = begun(plan, open, environment, memory, sides);
    report.per_thread = per_thread(plan, &found, &cores, &tallies);
    match found {
        Found::Pingpong(outcome, floor) => {
            let picture = outcome.latencies.draw(crate::words::WIDTH);
            pingpong_report(&mut report, plan, &outcome, &floor);
            let responses = outcome.open_loop.as_ref().map(|open| open.responses().clone());
            Measured { report, latencies: Some(responses.unwrap_or(outcome.latencies)), picture }
        }
        Found::Idle(outcome, floor) => {
            idle_report(&mut report, plan, &outcome, &floor);
            let longest = outcome.gaps.into_iter().next_back().map(|gap| gap.latencies);
            let picture = longest.as_ref().map(|longest| longest.draw(crate::words::WIDTH));
            Measured { report, latencies: longest, picture: picture.unwrap_or_default() }
        }
        Found::Mixed(outcome) => {
            let picture = outcome.latencies.draw(crate::words::WIDTH);
            mixed_report(&mut report, plan, &outcome);
            Measured { report, latencies: Some(outcome.latencies), picture }
        }
        Found::Stream(outcome, beside) => {
            stream_report(&mut report, outcome, &beside);
            Measured { report, latencies: None, picture: String::new() }
        }
    }
}

/// What each thread found, where there are several.
fn per_thread(plan: &Plan, found: &Found, cores: &[Option<usize>], tallies: &[Tallies]) -> Vec<ThreadReport> {
    let threads = tallies.iter().zip(cores).map(|(tally, core)| ThreadReport {
        core: *core,
        samples: 0,
        one_way_ns: None,
        bytes_per_s: None,
        messages_per_s: None,
        involuntary_context_switches: BothSides {
            initiator: tally.initiator.involuntary,
            responder: tally.responder.involuntary,
        },
    });
    let latencies = |of_each: &[Latencies]| {
        let told = threads.clone().zip(of_each).map(|(thread, latencies)| ThreadReport {
            samples: latencies.count(),
            one_way_ns: latencies.summary(),
            ..thread
        });
        told.collect()
    };
    match found {
        Found::Pingpong(outcome, _) => latencies(&outcome.per_thread),
        Found::Mixed(outcome) => latencies(&outcome.per_thread),
        Found::Idle(..) => Vec::new(),
        Found::Stream(outcome, _) => threads
            .clone()
            .zip(&outcome.per_thread)
            .map(|(thread, (messages, took))| {
                let per_s = *messages as f64 / took.as_secs_f64().max(1e-9);
                ThreadReport {
                    samples: *messages,
                    bytes_per_s: Some(per_s * plan.size as f64),
                    messages_per_s: Some(per_s),
                    ..thread
                }
            })
            .collect(),
    }
}

fn idle_report(report: &mut Report, plan: &Plan, outcome: &idle::Outcome, floor: &Floor) {
    account(report, &outcome.account);
    let Some(longest) = outcome.gaps.last() else { return };
    report.samples = longest.latencies.count();
    exchanged(report, plan, outcome.messages);
    report.warmup = outcome.warmup;
    report.lead_in = outcome.gaps.len() as u64;
    report.one_way_ns = longest.latencies.summary();
    report.kind_of_loop = Some("closed".into());
    report.distribution = longest.latencies.distribution();
    report.timeline.clone_from(&outcome.timeline);
    report.measures = Some(longest.latencies.measures().name().into());
    report.floor_missing.clone_from(&floor.missing);
    if let Some(bounces) = &longest.floor {
        beside_floor(report, floor, bounces, None);
    }
    report.gaps = outcome.gaps.iter().map(GapReport::from).collect();
}

fn mixed_report(report: &mut Report, plan: &Plan, outcome: &mixed::Outcome) {
    account(report, &outcome.account);
    report.samples = outcome.latencies.count();
    report.verified = report.errors == 0 && report.messages_checked == outcome.messages;
    report.verification = format!(
        "every byte that each of {} messages sent, wrote or brought, each in a buffer of its own until it was checked",
        outcome.messages
    );
    report.warmup = outcome.warmup;
    report.seed = plan.seed;
    report.one_way_ns = outcome.latencies.summary();
    report.distribution = outcome.latencies.distribution();
    report.measures = Some(outcome.latencies.measures().name().into());
    report.kind_of_loop = Some("closed".into());
    report.timeline.clone_from(&outcome.timeline);
    report.floor_missing = Some("a mix has none: pingpong and bw measure it for one kind of message".into());
    report.bandwidth =
        Some(bandwidth(outcome.bytes as f64, report.samples, outcome.elapsed, &outcome.batches));
    let classes = plan.mix.iter().zip(&outcome.classes);
    report.classes = classes
        .map(|(class, latencies)| ClassReport {
            op: class.op,
            size_bytes: class.size,
            weight: class.weight,
            samples: latencies.count(),
            ns: latencies.summary(),
            distribution: latencies.distribution(),
        })
        .collect();
}

/// What so many bytes and messages in such a time are, of which each section had its rate.
fn bandwidth(bytes: f64, messages: u64, elapsed: Duration, sections: &[f64]) -> Bandwidth {
    let seconds = elapsed.as_secs_f64().max(1e-9);
    Bandwidth {
        bytes_per_s: bytes / seconds,
        messages_per_s: messages as f64 / seconds,
        elapsed_s: seconds,
        sections: sections.len(),
        section_bytes_per_s: Spread {
            min: sections.iter().copied().fold(f64::INFINITY, f64::min),
            median: median(sections).unwrap_or_default(),
            max: sections.iter().copied().fold(0.0, f64::max),
        },
    }
}

fn account(report: &mut Report, account: &Account) {
    report.errors = account.errors;
    report.first_error.clone_from(&account.first_error);
    report.messages_checked = account.checked;
}

fn pingpong_report(report: &mut Report, plan: &Plan, outcome: &pingpong::Outcome, floor: &Floor) {
    account(report, &outcome.account);
    report.samples = outcome.latencies.count();
    exchanged(report, plan, outcome.messages);
    report.warmup = outcome.warmup;
    report.lead_in = outcome.lead_in;
    report.one_way_ns = outcome.latencies.summary();
    report.kind_of_loop = Some(if outcome.open_loop.is_some() { "open" } else { "closed" }.into());
    report.open_loop = outcome.open_loop.as_ref().and_then(OpenLoop::report);
    report.distribution = outcome.latencies.distribution();
    report.timeline.clone_from(&outcome.timeline);
    report.measures = Some(outcome.latencies.measures().name().into());
    report.floor_missing.clone_from(&floor.missing);
    if let Some(bounces) = floor.latencies() {
        beside_floor(report, floor, bounces, median(&outcome.ratios));
    }
}

/// What was checked of so many messages there and back.
fn exchanged(report: &mut Report, plan: &Plan, messages: u64) {
    let answered = !plan.op.is_one_sided();
    let looked_at = match plan.like {
        Some(_) => messages.min(u64::from(plan.depth) * plan.flows()),
        None => messages,
    };
    let expected = looked_at * if answered { 2 } else { 1 };
    report.verified = report.errors == 0 && report.messages_checked == expected;
    if let Some(like) = plan.like {
        report.verification = format!(
            "every byte of the first {expected} messages in both directions; the others carry the same, and as with {like} nobody looks"
        );
        return;
    }
    report.verification = match (answered, plan.op.is_atomic()) {
        (true, _) => {
            format!("every byte of all {expected} messages in both directions, by the side that got them")
        }
        (false, false) => format!("every byte that each of {expected} reads brought"),
        (false, true) => {
            format!("the value that each of {expected} atomics returned, and the target's word after them")
        }
    };
}

/// The floor of a pingpong, and how many times that it took.
fn beside_floor(report: &mut Report, floor: &Floor, bounces: &Latencies, p50_batch_by_batch: Option<f64>) {
    if let (Some(p50), Some(p99)) = (bounces.quantile_ns(0.5), bounces.quantile_ns(0.99)) {
        report.floor = Some(FloorReport::Bounce {
            one_way_ns: FloorLatency { p50, p99 },
            samples: bounces.count(),
            carrier: floor.carrier().described().into(),
        });
        report.ratio_to_floor = report.one_way_ns.map(|summary| Ratio::Latency {
            p50: summary.p50 / p50,
            p99: summary.p99 / p99,
            p50_batch_by_batch,
        });
    }
}

fn stream_report(report: &mut Report, outcome: stream::Outcome, beside: &Beside) {
    account(report, &outcome.account);
    report.samples = outcome.messages;
    report.verified = report.errors == 0 && report.messages_checked == outcome.to_check;
    report.verification = outcome.verification;
    report.warmup = outcome.warmup;
    report.timeline = outcome.timeline;
    let bytes = outcome.messages as f64 * report.size_bytes as f64;
    let bandwidth = bandwidth(bytes, outcome.messages, outcome.elapsed, &outcome.batches);
    let bytes_per_s = bandwidth.bytes_per_s;
    report.bandwidth = Some(bandwidth);
    let (rate, floor) = match beside {
        Beside::Memcpy(memcpy) if memcpy.is_into_window() => {
            let carried = memcpy.median().unwrap_or_default();
            let carrier = "copies into shared memory as a window's".into();
            (memcpy.median(), FloorReport::Carried { carried_bytes_per_s: carried, carrier })
        }
        Beside::Memcpy(memcpy) => {
            (memcpy.median(), FloorReport::Memcpy { memcpy_bytes_per_s: memcpy.median().unwrap_or_default() })
        }
        Beside::Sockets(flood) => {
            report.floor_missing.clone_from(&flood.floods.missing);
            let rate = flood.floods.median();
            (rate, FloorReport::Sockets { sockets_bytes_per_s: rate.unwrap_or_default() })
        }
        Beside::Stream(flood) => {
            report.floor_missing.clone_from(&flood.floods.missing);
            let rate = flood.floods.median();
            let (carried, carrier) = (rate.unwrap_or_default(), flood.described().into());
            (rate, FloorReport::Carried { carried_bytes_per_s: carried, carrier })
        }
        Beside::Nothing(reason) => {
            report.floor_missing = Some(reason.clone());
            return;
        }
    };
    if let Some(rate) = rate.filter(|rate| *rate > 0.0) {
        report.floor = Some(floor);
        report.ratio_to_floor = Some(Ratio::Bytes {
            bytes_per_s: bytes_per_s / rate,
            section_by_section: median(&outcome.ratios),
        });
    } else if report.size_bytes == 0 {
        report.floor_missing = Some("messages without a byte have no bytes a second".into());
    }
}
