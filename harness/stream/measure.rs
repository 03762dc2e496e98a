//! The order of a whole stream: warm-up, timed sections until the extent is measured, checks.

use std::time::Duration;

use super::{Found, Order, Stream};
use crate::cli::Extent;
use crate::clock;
use crate::control::{Account, Channel};
use crate::error::Result;
use crate::lanes::Crew;
use crate::pingpong::{beside, in_time};
use crate::plan::Plan;
use crate::progress::Progress;
use crate::timeline::{Stretch, Timeline};

/// How long a batch lasts.
const BATCH_TIME: Duration = Duration::from_millis(150);
/// How long the warm-up lasts when the user gives no number.
const WARMUP_TIME: Duration = Duration::from_millis(100);

/// What a stream found.
#[derive(Debug)]
pub struct Outcome {
    /// Messages in the timed sections.
    pub messages: u64,
    /// How long these lasted.
    pub elapsed: Duration,
    /// Bytes per second of each timed section.
    pub batches: Vec<f64>,
    /// Unrecorded messages before.
    pub warmup: u64,
    /// The stream's rate divided by memcpy's right before and after, section by section.
    pub ratios: Vec<f64>,
    /// The sections in the course of time.
    pub timeline: Vec<Stretch>,
    /// What both sides checked.
    pub account: Account,
    /// How many messages that should be.
    pub to_check: u64,
    /// What exactly that was.
    pub verification: String,
    /// Messages of each thread in the timed sections, and how long it took for them.
    pub per_thread: Vec<(u64, Duration)>,
}

/// The initiator's whole run. `machine` measures the machine's own speed, before and after each timed section: what else
/// happens on the machine then happens to both.
///
/// # Errors
/// A verbs call or a completion failed, the peer went away, or the user interrupted.
pub fn measure(
    crew: &mut Crew<Stream>,
    plan: &Plan,
    channel: &mut Channel,
    extent: Extent,
    warmup: Option<u64>,
    progress: &Progress,
    mut machine: impl FnMut(&mut Channel) -> Result<Option<f64>>,
) -> Result<Outcome> {
    progress.stage("warming up");
    let mut account = Account::default();
    let (per_message, warmup) = warm_up(crew, plan, channel, warmup, &mut account)?;
    let mut machine_before = machine(channel)?;
    progress.stage("measuring");
    let mut outcome = Outcome {
        messages: 0,
        elapsed: Duration::ZERO,
        batches: Vec::new(),
        ratios: Vec::new(),
        timeline: Vec::new(),
        warmup,
        account,
        to_check: 0,
        verification: String::new(),
        per_thread: vec![(0, Duration::ZERO); crew.threads()],
    };
    let mut size = in_time(BATCH_TIME, per_message);
    let mut timeline = Timeline::new(extent, per_message);
    loop {
        let left = match extent {
            Extent::Messages(messages) => messages - outcome.messages,
            Extent::Time(time) if outcome.elapsed < time => size,
            Extent::Time(_) => 0,
        };
        if left == 0 {
            break;
        }
        let count = size.min(left);
        let found = crew.all(channel, &Order::Batch(count))?;
        for (one, (messages, took)) in found.iter().zip(&mut outcome.per_thread) {
            *messages += one.messages;
            *took += one.until - one.since;
            outcome.account.add(&one.account);
        }
        let elapsed = spanned(&found);
        outcome.messages += count;
        outcome.elapsed += elapsed;
        let bytes = count as f64 * plan.size as f64;
        let rate = bytes / elapsed.as_secs_f64().max(1e-9);
        let ended = clock::now();
        let machine_after = machine(channel)?;
        let beside = beside(machine_before, machine_after);
        timeline.batch(ended, elapsed, count, beside).bytes(bytes);
        outcome.batches.push(rate);
        outcome.ratios.extend(beside.map(|beside| rate / beside));
        machine_before = machine_after;
        size = in_time(BATCH_TIME, elapsed / u32::try_from(count).unwrap_or(u32::MAX).max(1));
        progress.done(match extent {
            Extent::Messages(messages) => outcome.messages as f64 / messages as f64,
            Extent::Time(time) => outcome.elapsed.as_secs_f64() / time.as_secs_f64(),
        });
    }
    outcome.timeline = timeline.finish();
    progress.stage("checking");
    for found in crew.all(channel, &Order::Verify)? {
        outcome.account.add(&found.account);
        outcome.to_check += found.to_check;
        outcome.verification = found.verification;
    }
    if plan.flows() > 1 {
        outcome.verification = format!("on each of {} queue pairs: {}", plan.flows(), outcome.verification);
    }
    Ok(outcome)
}

/// From when the first thread began to when the last one ended.
fn spanned(found: &[Found]) -> Duration {
    let since = found.iter().map(|found| found.since).min();
    let until = found.iter().map(|found| found.until).max();
    since.zip(until).map_or(Duration::ZERO, |(since, until)| until - since)
}

/// Messages without recording; how long one takes, and how many there were.
fn warm_up(
    crew: &mut Crew<Stream>,
    plan: &Plan,
    channel: &mut Channel,
    count: Option<u64>,
    account: &mut Account,
) -> Result<(Duration, u64)> {
    const UNKNOWN: Duration = Duration::from_micros(100);
    let mut left = count.unwrap_or(u64::MAX);
    let mut spent = Duration::ZERO;
    let mut size = u64::from(plan.depth) * plan.flows();
    let mut per_message = UNKNOWN;
    let mut done = 0;
    while left > 0 && (count.is_some() || spent < WARMUP_TIME) {
        let size_now = size.min(left);
        let found = crew.all(channel, &Order::Batch(size_now))?;
        found.iter().for_each(|found| account.add(&found.account));
        let elapsed = spanned(&found);
        spent += elapsed;
        left -= size_now;
        done += size_now;
        per_message = elapsed / u32::try_from(size_now).unwrap_or(u32::MAX).max(1);
        size = (size * 4).min(in_time(BATCH_TIME, per_message));
    }
    Ok((per_message, done))
}
