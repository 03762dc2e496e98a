//! `tbrdma-bench idle`: the latency of a message after a silence.
//!
//! Links save power, cores clock down and caches forget while nobody speaks, so the first message after a pause is slower than those that follow each other.
//! Each gap of a list has its own distribution, and beside it what the machine itself needs after the same silence. During a gap both sides wait
//! as `--wait` says: awake, or asleep.

use std::time::Duration;

use clap::Args;
use serde::{Deserialize, Serialize};

use crate::cli::{self, Extent};
use crate::clock;
use crate::control::{Account, Channel};
use crate::error::{Error, Result};
use crate::floor::Floor;
use crate::grid::Grid;
use crate::histogram::{Latencies, Summary, nanoseconds};
use crate::lanes::Crew;
use crate::pingpong::{Order, Pingpong, in_time, warm_up};
use crate::plan::{Benchmark, Op, Plan};
use crate::progress::Progress;
use crate::timeline::{Stretch, Timeline};
use crate::watch::Watch;

/// The gaps, when the flags say none.
const GAPS: &str = "10us,100us,1ms,10ms,100ms";
/// How long all of them are measured, when the flags do not say so.
const DURATION: Duration = Duration::from_secs(10);
/// Bounds of a gap.
const LEAST: Duration = Duration::from_micros(1);
const MOST: Duration = Duration::from_secs(10);
/// Most gaps of a run.
const MOST_GAPS: usize = 32;

/// The examples of the help text.
pub const EXAMPLES: &str = "\
Examples:
  tbrdma-bench idle                  silences of 10 us to 100 ms, both sides awake
  tbrdma-bench idle --wait event     the same, both sides asleep
  tbrdma-bench idle --gaps 1ms,1s --duration 60s --op write
  tbrdma-bench idle --device udp:lo --json idle.json
  tbrdma-bench report idle.json -o idle.html

Exit codes: 0 measured and every byte was right; 1 something failed;
2 wrong flags.";

/// The flags.
#[derive(Debug, Clone, Default, Args)]
pub struct IdleFlags {
    /// Those of every measurement; --duration is of all gaps together [default: 10s], --iters of each.
    #[command(flatten)]
    pub flags: cli::Flags,
    /// The silences before messages, with commas: 1us to 10s [default: 10us,100us,1ms,10ms,100ms]
    #[arg(long, value_name = "LIST", value_parser = parse_gaps)]
    pub gaps: Option<Gaps>,
}

/// Silences.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Gaps(Vec<Duration>);

impl IdleFlags {
    /// What is measured.
    ///
    /// # Errors
    /// The flags contradict each other.
    pub fn plan(&self) -> Result<Plan> {
        let mut plan = self.flags.plan(Benchmark::Idle, Op::Send)?;
        plan.depth = Plan::pingpong_depth(plan.size);
        plan.signal_every = plan.depth / 2;
        let gaps = match &self.gaps {
            Some(gaps) => gaps.clone(),
            None => parse_gaps(GAPS).map_err(Error::Usage)?,
        };
        if let Some(longest) = gaps.0.iter().max().filter(|longest| **longest * 2 > self.flags.timeout()) {
            return Err(Error::Usage(format!(
                "a gap of {longest:?} is more than half of --timeout {:?}, and a silence so long could be a dead peer: raise --timeout",
                self.flags.timeout()
            )));
        }
        plan.gaps_ns = gaps.0.iter().map(|gap| gap.as_nanos() as u64).collect();
        plan.validate().map(|()| plan)
    }
}

/// Does what the flags ask; the exit code.
///
/// # Errors
/// The flags contradict each other, or the measurement failed.
pub fn run(flags: &IdleFlags) -> Result<u8> {
    if flags.flags.server.is_some() {
        return crate::run::serve(&flags.flags, flags.gaps.as_ref().map(|_| "--gaps"));
    }
    let mut timed = flags.flags.clone();
    if timed.iters.is_none() {
        timed.duration.get_or_insert(DURATION);
    }
    crate::run::measure(&timed, flags.plan()?, None)
}

fn parse_gaps(text: &str) -> Result<Gaps, String> {
    let mut gaps = text.split(',').map(parse_gap).collect::<Result<Vec<_>, _>>()?;
    gaps.sort();
    gaps.dedup();
    if gaps.len() > MOST_GAPS {
        return Err(format!("{} gaps are more than {MOST_GAPS}", gaps.len()));
    }
    Ok(Gaps(gaps))
}

fn parse_gap(text: &str) -> Result<Duration, String> {
    let text = text.trim();
    let digits = text.trim_end_matches(|letter: char| letter.is_ascii_alphabetic());
    let number: f64 = digits.parse().map_err(|_| "give times with commas, as 10us,1ms,1s".to_owned())?;
    let seconds = match text.get(digits.len()..).unwrap_or_default() {
        "us" => number / 1e6,
        "ms" => number / 1e3,
        "s" => number,
        unit => return Err(format!("{unit:?} is no unit of a gap: use us, ms or s")),
    };
    if !(LEAST.as_secs_f64()..=MOST.as_secs_f64()).contains(&seconds) {
        return Err(format!("a gap of {text} is outside 1us to 10s"));
    }
    Ok(Duration::from_nanos((seconds * 1e9).round() as u64))
}

/// Latencies after one gap.
#[derive(Debug)]
pub struct Gap {
    /// The silence.
    pub gap: Duration,
    /// Of the messages after it.
    pub latencies: Latencies,
    /// Of the floor's bounces after it.
    pub floor: Option<Latencies>,
}

/// What an idle run found.
#[derive(Debug)]
pub struct Outcome {
    /// Gap by gap, the longest last.
    pub gaps: Vec<Gap>,
    /// The gaps in the course of time.
    pub timeline: Vec<Stretch>,
    /// Unrecorded messages before.
    pub warmup: u64,
    /// All messages that left the initiator.
    pub messages: u64,
    /// What both sides checked.
    pub account: Account,
}

/// The initiator's whole run: warm-up, then gap after gap, each as long as the others, or as many messages.
///
/// # Errors
/// A verbs call or a completion failed, the peer went away, or the user interrupted.
pub fn measure(
    crew: &mut Crew<Pingpong>,
    plan: &Plan,
    channel: &mut Channel,
    extent: Extent,
    warmup: Option<u64>,
    progress: &Progress,
    floor: &mut Floor,
    watch: &Watch,
) -> Result<Outcome> {
    let mut account = Account::default();
    progress.stage("warming up");
    let (per_message, warmup) = warm_up(crew, channel, warmup, &mut account)?;
    let timeout = Duration::from_millis(plan.timeout_ms);
    let count = plan.gaps_ns.len();
    let mut timeline = Timeline::new(extent, per_message);
    let mut gaps = Vec::with_capacity(count);
    for (number, gap) in plan.gaps_ns.iter().enumerate() {
        let gap = Duration::from_nanos(*gap);
        progress.stage("measuring");
        let recorded = match extent {
            Extent::Messages(messages) => messages,
            // The other half is for the floor.
            Extent::Time(time) => in_time(time / (2 * count.max(1) as u32), gap + per_message * 2),
        };
        let mut latencies: Option<Latencies> = None;
        let begun = clock::now();
        for found in crew.all(channel, &Order::Batch { lead: 1, recorded, gap: Some(gap) })? {
            account.add(&found.account);
            match &mut latencies {
                Some(all) => all.add(&found.latencies),
                none => *none = Some(found.latencies),
            }
        }
        let ended = clock::now();
        progress.stage("measuring the floor");
        let beside = floor.after(gap, recorded, channel, watch, timeout)?;
        let Some(latencies) = latencies else { continue };
        let median = beside.as_ref().and_then(|floor| floor.quantile_ns(0.5));
        timeline.batch(ended, ended - begun, recorded, median).latencies(&latencies);
        gaps.push(Gap { gap, latencies, floor: beside });
        progress.done((number + 1) as f64 / count as f64);
    }
    let mut messages = 0;
    for found in crew.all(channel, &Order::End)? {
        account.add(&found.account);
        messages += found.messages;
    }
    Ok(Outcome { gaps, timeline: timeline.finish(), warmup, messages, account })
}

/// What is told of one gap.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct GapReport {
    /// The silence before each message, in nanoseconds.
    pub gap_ns: u64,
    /// Recorded messages.
    pub samples: u64,
    /// The latencies.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub one_way_ns: Option<Summary>,
    /// All of them: values in nanoseconds, each with the number of samples that had it, in order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub distribution: Vec<(f64, u64)>,
    /// The machine's own latencies after the same silence, where they could be measured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub floor_one_way_ns: Option<Summary>,
}

impl From<&Gap> for GapReport {
    fn from(gap: &Gap) -> Self {
        Self {
            gap_ns: gap.gap.as_nanos() as u64,
            samples: gap.latencies.count(),
            one_way_ns: gap.latencies.summary(),
            distribution: gap.latencies.distribution(),
            floor_one_way_ns: gap.floor.as_ref().and_then(Latencies::summary),
        }
    }
}

/// The silences of a result in a line.
#[must_use]
pub fn listed(gaps: &[GapReport]) -> String {
    let one = |gap: &GapReport| nanoseconds(gap.gap_ns as f64);
    if gaps.is_empty() { "none".into() } else { gaps.iter().map(one).collect::<Vec<_>>().join(", ") }
}

/// The silences of a result, one below the other; `None` of another kind of result.
#[must_use]
pub fn grid(gaps: &[GapReport]) -> Option<Grid> {
    let has_floor = gaps.iter().any(|gap| gap.floor_one_way_ns.is_some());
    let row = |gap: &GapReport| {
        let figures = gap.one_way_ns.map(|ns| [ns.p50, ns.p99, ns.p99_9, ns.max].map(nanoseconds));
        let floor = gap.floor_one_way_ns.map(|ns| [ns.p50, ns.p99].map(nanoseconds));
        let head = [nanoseconds(gap.gap_ns as f64), gap.samples.to_string()];
        head.into_iter().chain(figures.into_iter().flatten()).chain(floor.into_iter().flatten()).collect()
    };
    let columns = ["after", "samples", "p50", "p99", "p99.9", "max", "floor p50", "floor p99"];
    let shown = if has_floor { columns.len() } else { columns.len() - 2 };
    (!gaps.is_empty()).then(|| Grid {
        caption: "Latencies after each silence".into(),
        columns: columns.iter().take(shown).map(|name| (*name).to_owned()).collect(),
        rows: gaps.iter().map(row).collect(),
    })
}

#[cfg(test)]
mod tests {
    use super::{Gaps, parse_gaps};
    use std::time::Duration;

    #[test]
    fn gaps_have_units_bounds_and_an_order() {
        let gaps = [1, 50, 2_000_000].map(Duration::from_micros);
        assert_eq!(parse_gaps("2s").map(|gaps| gaps.0), Ok(vec![gaps[2]]).map_err(|(): ()| String::new()));
        assert_eq!(parse_gaps("50us, 2s,1us,50us"), Ok(Gaps(gaps.to_vec())));
        for wrong in ["", "1", "1h", "0us", "11s", "1ms,,2ms", "nanms"] {
            assert!(parse_gaps(wrong).is_err(), "{wrong}");
        }
    }
}
