//! The result of a stress run as a value. The JSON is a contract: `harness/schema/tbrdma-stress-1.json`.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::drive::{Found, Sample};
use super::judge::{Judged, Outcome, judge};
use super::plan::{Plan, status_name};
use super::world::Place;
use crate::environment::Environment;
use crate::error::{Context, Result};
use crate::histogram::{Latencies, Measures, Summary};
use crate::plan::Op;
use crate::timeline::Stretch;

/// Name and version of the contract.
pub const SCHEMA: &str = "tbrdma-stress/1";

/// About as many stretches are told of a run, however long it is.
const STRETCHES: u32 = 128;
/// So many messages in a row, on each queue pair, that are as usual: it has recovered.
const IN_A_ROW: usize = 20;

/// The result of a plan.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StressReport {
    /// [`SCHEMA`].
    pub schema: String,
    /// What the plan is called.
    pub plan: String,
    /// What it is about.
    pub about: String,
    /// Whether what the plan expects came about.
    pub verdict: Outcome,
    /// The device of both sides.
    pub device: String,
    /// What it pretends to be.
    pub profile: String,
    /// Whether its time is virtual.
    pub is_virtual: bool,
    /// Where the dice started.
    pub seed: u64,
    /// Which verb, over a reliable connection.
    pub op: Op,
    /// Bytes in a message.
    pub size_bytes: u32,
    /// Most messages outstanding on a queue pair.
    pub depth: u32,
    /// Queue pairs.
    pub queue_pairs: u32,
    /// `open`: messages are due by the clock; `closed`: the next is sent when there is room.
    #[serde(rename = "loop")]
    pub kind_of_loop: String,
    /// Messages a second that were due; null in a closed loop.
    pub rate_per_s: Option<f64>,
    /// How fast the link was made, all the time.
    pub link: Option<String>,
    /// What a latency is.
    pub measures: String,
    /// How the two sides were run.
    pub sides: String,
    /// How long it took until nothing was on its way any more.
    pub lasted_s: f64,
    /// Messages that were answered.
    pub samples: u64,
    /// That failed with their queue pair.
    pub failed: u64,
    /// That were due and never sent.
    pub unsent: u64,
    /// Messages that were not what they should be.
    pub errors: u64,
    /// The first of these.
    pub first_error: Option<String>,
    /// Messages of which every byte was checked.
    pub messages_checked: u64,
    /// Whether every message that was answered was checked, and none was wrong.
    pub verified: bool,
    /// What was checked, and how.
    pub verification: String,
    /// Each part of the run.
    pub phases: Vec<PhaseReport>,
    /// The queue pairs that died, in that order.
    pub deaths: Vec<DeathReport>,
    /// What was expected, and what became of it.
    pub expectations: Vec<Judged>,
    /// The run in the course of time, by when messages were due.
    pub timeline: Vec<Stretch>,
    /// What both devices counted from the first message until the end.
    pub counters: Counted,
    /// Where it was measured; null in virtual time, which has no machine below it.
    pub environment: Option<Environment>,
}

/// A part of a run. Messages belong to the phase in which they were due.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PhaseReport {
    /// What it is called.
    pub name: String,
    /// When it began.
    pub at_s: f64,
    /// How long it lasted.
    pub lasts_s: f64,
    /// What went wrong in it; null if nothing did.
    pub wrong: Option<String>,
    /// Messages that were answered.
    pub samples: u64,
    /// That failed with their queue pair.
    pub failed: u64,
    /// That were never sent.
    pub unsent: u64,
    /// From when a message was due to its completion; null in a closed loop.
    pub response_ns: Option<Summary>,
    /// From when it was sent.
    pub service_ns: Option<Summary>,
    /// All responses, or services in a closed loop: values in nanoseconds, each with how many had it.
    pub distribution: Vec<(f64, u64)>,
    /// Payload that was acknowledged in this phase.
    pub goodput_bits_per_s: f64,
    /// Queue pairs that died in it.
    pub deaths: u64,
    /// From its beginning until the program was told of the first.
    pub told_after_s: Option<f64>,
    /// From its end until latencies were as usual again, and stayed so for a while; null if nothing went wrong in it, or that never came.
    pub recovered_after_s: Option<f64>,
    /// For how long the machine kept the run from its core, at most; null in virtual time.
    pub away_s: Option<f64>,
    /// What both devices counted in it.
    pub counters: Counted,
}

/// A queue pair that died.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DeathReport {
    /// Which queue pair, from 0.
    pub queue_pair: u64,
    /// In which phase.
    pub phase: String,
    /// When the program was told.
    pub at_s: f64,
    /// The status of the completion.
    pub status: String,
    /// When a message got through on the queue pair that took its place.
    pub back_after_s: Option<f64>,
}

/// What was counted, where it is not nothing.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Counted {
    /// By the side that sends.
    pub initiator: BTreeMap<String, u64>,
    /// By the side that answers.
    pub responder: BTreeMap<String, u64>,
}

impl Counted {
    fn between(before: &[BTreeMap<&'static str, u64>; 2], after: &[BTreeMap<&'static str, u64>; 2]) -> Self {
        let [initiator, responder] = [0, 1].map(|side| {
            let (Some(before), Some(after)) = (before.get(side), after.get(side)) else {
                return BTreeMap::new();
            };
            let more = |(name, count): (&&str, &u64)| {
                let more = count.saturating_sub(before.get(*name).copied().unwrap_or_default());
                (more > 0).then(|| ((*name).to_owned(), more))
            };
            after.iter().filter_map(more).collect()
        });
        Self { initiator, responder }
    }

    /// Both sides' together.
    #[must_use]
    pub fn both(&self, name: &str) -> u64 {
        [&self.initiator, &self.responder].into_iter().filter_map(|side| side.get(name)).sum()
    }
}

impl StressReport {
    /// Puts together what was found of a plan.
    ///
    /// # Errors
    /// Never in practice.
    pub fn new(plan: &Plan, place: &Place, profile: String, is_virtual: bool, found: &Found) -> Result<Self> {
        let is_open = plan.run.rate.is_some();
        let phases = phases(plan, found, is_virtual)?;
        let expectations = judge(plan, found, &phases);
        let samples = found.samples.len() as u64;
        let verified = found.account.errors == 0 && found.account.checked >= samples;
        let verdict = match verified {
            false => Outcome::Missed,
            true => expectations.iter().map(|judged| judged.outcome).max().unwrap_or(Outcome::Met),
        };
        let (first, last) = (found.counters.first(), found.counters.last());
        Ok(Self {
            schema: SCHEMA.into(),
            plan: plan.name.clone(),
            about: plan.about.clone(),
            verdict,
            device: place.device.clone(),
            profile,
            is_virtual,
            seed: place.seed,
            op: plan.run.op,
            size_bytes: plan.run.size,
            depth: plan.run.depth,
            queue_pairs: plan.run.queue_pairs,
            kind_of_loop: if is_open { "open" } else { "closed" }.into(),
            rate_per_s: plan.run.rate,
            link: plan.run.link.clone(),
            measures: if is_open {
                "from when a message was due to its completion"
            } else {
                Measures::WholeOperation.name()
            }
            .into(),
            sides: "both in one thread, which polls one after the other".into(),
            lasted_s: found.ended.as_secs_f64(),
            samples,
            failed: found.failed.len() as u64,
            unsent: found.unsent.len() as u64,
            errors: found.account.errors,
            first_error: found.account.first_error.clone(),
            messages_checked: found.account.checked,
            verified,
            verification: match plan.run.op {
                Op::Read => "every byte that each read brought",
                Op::Write => "every byte of each write, at the target, when it was acknowledged",
                _ => "every byte of each message, once and in order, by the side that got it",
            }
            .into(),
            phases,
            deaths: found
                .deaths
                .iter()
                .map(|death| DeathReport {
                    queue_pair: death.flow as u64,
                    phase: plan
                        .phases
                        .get(death.phase)
                        .map_or("after the last", |phase| &phase.name)
                        .to_owned(),
                    at_s: death.at.as_secs_f64(),
                    status: status_name(death.status),
                    back_after_s: death.back_at.map(|at| at.saturating_sub(death.at).as_secs_f64()),
                })
                .collect(),
            expectations,
            timeline: timeline(plan, found),
            counters: match (first, last) {
                (Some(first), Some(last)) => Counted::between(first, last),
                _ => Counted::default(),
            },
            environment: None,
        })
    }

    /// The result as JSON, with a newline at its end.
    ///
    /// # Errors
    /// Never in practice.
    pub fn to_json(&self) -> Result<String> {
        let mut text = serde_json::to_string_pretty(self).context(|| "encode the result".into())?;
        text.push('\n');
        Ok(text)
    }
}

fn response(sample: &Sample) -> Duration {
    sample.done.saturating_sub(sample.due)
}

fn phases(plan: &Plan, found: &Found, is_virtual: bool) -> Result<Vec<PhaseReport>> {
    let bounds = plan.bounds();
    let is_open = plan.run.rate.is_some();
    let usual = usual(plan, found)?;
    let mut reports = Vec::new();
    for (index, (phase, begin)) in plan.phases.iter().zip(&bounds).enumerate() {
        let begin = *begin;
        let end = begin.saturating_add(phase.lasts.0);
        let within = |at: Duration| at >= begin && at < end;
        let count = |all: &[Duration]| all.iter().filter(|due| within(**due)).count() as u64;
        let mut latencies =
            [Latencies::new(Measures::WholeOperation)?, Latencies::new(Measures::WholeOperation)?];
        let [responses, services] = &mut latencies;
        for sample in found.samples.iter().filter(|sample| within(sample.due)) {
            responses.record(response(sample));
            services.record(sample.done.saturating_sub(sample.posted));
        }
        let deaths = || found.deaths.iter().filter(|death| death.phase == index);
        let arrived = found.samples.iter().filter(|sample| within(sample.done)).count();
        let bits = arrived as f64 * f64::from(plan.run.size) * 8.0;
        let counters = match (found.counters.get(index), found.counters.get(index + 1)) {
            (Some(before), Some(after)) => Counted::between(before, after),
            _ => Counted::default(),
        };
        let recovered = phase.has_faults().then(|| {
            let more = plan.phases.iter().zip(&bounds).skip(index + 1);
            let until = more.filter(|(phase, _)| phase.has_faults()).map(|(_, begin)| *begin).next();
            let factor = plan.usual(phase);
            recovery(plan, found, end, until.unwrap_or(Duration::MAX), usual? * factor)
        });
        reports.push(PhaseReport {
            name: phase.name.clone(),
            at_s: begin.as_secs_f64(),
            lasts_s: phase.lasts.0.as_secs_f64(),
            wrong: phase.wrong(),
            samples: responses.count(),
            failed: count(&found.failed),
            unsent: count(&found.unsent),
            response_ns: if is_open { responses.summary() } else { None },
            service_ns: services.summary(),
            distribution: responses.distribution(),
            goodput_bits_per_s: bits / phase.lasts.0.as_secs_f64(),
            deaths: deaths().count() as u64,
            told_after_s: deaths().map(|death| death.at.saturating_sub(begin).as_secs_f64()).next(),
            recovered_after_s: recovered.flatten().map(|time| time.as_secs_f64()),
            away_s: found.away.get(index).filter(|_| !is_virtual).map(Duration::as_secs_f64),
            counters,
        });
    }
    Ok(reports)
}

/// The p99 of the first phase, in nanoseconds.
fn usual(plan: &Plan, found: &Found) -> Result<Option<f64>> {
    let end = plan.phases.first().map_or(Duration::ZERO, |phase| phase.lasts.0);
    let mut latencies = Latencies::new(Measures::WholeOperation)?;
    found
        .samples
        .iter()
        .filter(|sample| sample.due < end)
        .for_each(|sample| latencies.record(response(sample)));
    Ok(latencies.quantile_ns(0.99))
}

/// How long after `end` it took until each queue pair had a few messages in a row, completed before `until`, that took no longer than `most`.
fn recovery(plan: &Plan, found: &Found, end: Duration, until: Duration, most: f64) -> Option<Duration> {
    let mut longest = Duration::ZERO;
    for flow in 0..plan.run.queue_pairs as usize {
        let after = found
            .samples
            .iter()
            .filter(|sample| sample.flow == flow && sample.done >= end && sample.done < until);
        let after: Vec<_> = after.collect();
        let is_usual = |sample: &&Sample| response(sample).as_nanos() as f64 <= most;
        let run = after.windows(IN_A_ROW).find(|run| run.iter().all(is_usual))?;
        longest = longest.max(run.first()?.done.saturating_sub(end));
    }
    Some(longest)
}

fn timeline(plan: &Plan, found: &Found) -> Vec<Stretch> {
    let whole = (plan.lasts() / STRETCHES).max(Duration::from_nanos(1));
    let mut stretches: BTreeMap<u128, Vec<u64>> = BTreeMap::new();
    for sample in &found.samples {
        let stretch = stretches.entry(sample.due.as_nanos() / whole.as_nanos()).or_default();
        stretch.push(response(sample).as_nanos() as u64);
    }
    let told = stretches.into_iter().map(|(index, mut all)| {
        all.sort_unstable();
        let at = |part: f64| {
            let rank = (all.len() as f64 * part).ceil() as usize;
            all.get(rank.clamp(1, all.len()) - 1).map(|ns| *ns as f64)
        };
        Stretch {
            at_s: whole.as_secs_f64() * index as f64,
            lasted_s: whole.as_secs_f64(),
            samples: all.len() as u64,
            p50: at(0.5),
            p99: at(0.99),
            max: at(1.0),
            bytes_per_s: None,
            floor: None,
        }
    });
    told.collect()
}
