//! The report of a run: what was measured, put together with where and how.

use super::initiate::{Beside, Found, Measured, Raw};
use crate::control::Account;
use crate::environment::{BothSides, Environment};
use crate::floor::Floor;
use crate::lanes::Tallies;
use crate::memcpy::median;
use crate::open_loop::OpenLoop;
use crate::plan::Plan;
use crate::result::{Bandwidth, FloorLatency, FloorReport, Ratio, Report, SCHEMA, Spread, ThreadReport};
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
        schema: SCHEMA.into(),
        benchmark: plan.benchmark,
        op: plan.op,
        transport: plan.transport,
        device: open.name.clone(),
        profile: open.profile.clone(),
        size_bytes: plan.size,
        wait: plan.wait,
        inline: plan.inline,
        samples: 0,
        errors: 0,
        first_error: None,
        verified: false,
        verification: String::new(),
        messages_checked: 0,
        measures: None,
        one_way_ns: None,
        kind_of_loop: None,
        open_loop: None,
        distribution: Vec::new(),
        timeline: Vec::new(),
        floor: None,
        floor_missing: None,
        ratio_to_floor: None,
        bandwidth: None,
        warmup: 0,
        lead_in: 0,
        depth: plan.depth,
        post_list: plan.post_list,
        signal_every: plan.signal_every,
        threads: plan.threads,
        qps: plan.qps,
        per_thread: Vec::new(),
        memory: memory.into(),
        sides: sides.into(),
        link: plan.link.clone(),
        fault: plan.fault.clone(),
        seed: plan.seed,
        counters: open.device.counters().into_iter().map(|(name, count)| (name.into(), count)).collect(),
        environment,
        group: None,
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
    match found {
        Found::Pingpong(outcome, _) => threads
            .zip(&outcome.per_thread)
            .map(|(thread, latencies)| ThreadReport {
                samples: latencies.count(),
                one_way_ns: latencies.summary(),
                ..thread
            })
            .collect(),
        Found::Stream(outcome, _) => threads
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

fn account(report: &mut Report, account: &Account) {
    report.errors = account.errors;
    report.first_error.clone_from(&account.first_error);
    report.messages_checked = account.checked;
}

fn pingpong_report(report: &mut Report, plan: &Plan, outcome: &pingpong::Outcome, floor: &Floor) {
    account(report, &outcome.account);
    let answered = !plan.op.is_one_sided();
    let expected = outcome.messages * if answered { 2 } else { 1 };
    report.samples = outcome.latencies.count();
    report.verified = report.errors == 0 && report.messages_checked == expected;
    report.verification = match (answered, plan.op.is_atomic()) {
        (true, _) => {
            format!("every byte of all {expected} messages in both directions, by the side that got them")
        }
        (false, false) => format!("every byte that each of {expected} reads brought"),
        (false, true) => {
            format!("the value that each of {expected} atomics returned, and the target's word after them")
        }
    };
    report.warmup = outcome.warmup;
    report.lead_in = outcome.lead_in;
    report.one_way_ns = outcome.latencies.summary();
    report.kind_of_loop = Some(if outcome.open_loop.is_some() { "open" } else { "closed" }.into());
    report.open_loop = outcome.open_loop.as_ref().and_then(OpenLoop::report);
    report.distribution = outcome.latencies.distribution();
    report.timeline.clone_from(&outcome.timeline);
    report.measures = Some(outcome.latencies.measures().name().into());
    report.floor_missing.clone_from(&floor.missing);
    if let Some(bounces) = floor.latencies()
        && let (Some(p50), Some(p99)) = (bounces.quantile_ns(0.5), bounces.quantile_ns(0.99))
    {
        report.floor = Some(FloorReport::Bounce {
            one_way_ns: FloorLatency { p50, p99 },
            samples: bounces.count(),
            carrier: floor.carrier().described().into(),
        });
        report.ratio_to_floor = report.one_way_ns.map(|summary| Ratio::Latency {
            p50: summary.p50 / p50,
            p99: summary.p99 / p99,
            p50_batch_by_batch: median(&outcome.ratios),
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
    let seconds = outcome.elapsed.as_secs_f64().max(1e-9);
    let bytes_per_s = outcome.messages as f64 * report.size_bytes as f64 / seconds;
    report.bandwidth = Some(Bandwidth {
        bytes_per_s,
        messages_per_s: outcome.messages as f64 / seconds,
        elapsed_s: seconds,
        sections: outcome.batches.len(),
        section_bytes_per_s: Spread {
            min: outcome.batches.iter().copied().fold(f64::INFINITY, f64::min),
            median: median(&outcome.batches).unwrap_or_default(),
            max: outcome.batches.iter().copied().fold(0.0, f64::max),
        },
    });
    let (rate, floor) = match beside {
        Beside::Memcpy(memcpy) => {
            (memcpy.median(), FloorReport::Memcpy { memcpy_bytes_per_s: memcpy.median().unwrap_or_default() })
        }
        Beside::Sockets(flood) => {
            report.floor_missing.clone_from(&flood.missing);
            (flood.median(), FloorReport::Sockets { sockets_bytes_per_s: flood.median().unwrap_or_default() })
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
