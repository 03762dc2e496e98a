//! The order of a whole mix: warm-up, then batch after batch until the extent is measured.

use std::time::Duration;

use super::{Mixed, Order, slots};
use crate::cli::Extent;
use crate::clock;
use crate::control::{Account, Channel};
use crate::error::Result;
use crate::histogram::{Latencies, Measures};
use crate::lanes::Crew;
use crate::plan::Plan;
use crate::progress::Progress;
use crate::timeline::{Stretch, Timeline};

/// How long the warm-up lasts when the user gives no number.
const WARMUP_TIME: Duration = Duration::from_millis(100);

/// What a mix found.
#[derive(Debug)]
pub struct Outcome {
    /// Of all classes.
    pub latencies: Latencies,
    /// Of each class.
    pub classes: Vec<Latencies>,
    /// Of each thread.
    pub per_thread: Vec<Latencies>,
    /// Bytes of the recorded messages.
    pub bytes: u64,
    /// How long the batches lasted.
    pub elapsed: Duration,
    /// Bytes per second of each batch.
    pub batches: Vec<f64>,
    /// The batches in the course of time.
    pub timeline: Vec<Stretch>,
    /// Unrecorded messages before.
    pub warmup: u64,
    /// All messages that left.
    pub messages: u64,
    /// What both sides checked.
    pub account: Account,
}

/// The initiator's whole run.
///
/// # Errors
/// A verbs call or a completion failed, the peer went away, or the user interrupted.
pub fn measure(
    crew: &mut Crew<Mixed>,
    plan: &Plan,
    channel: &mut Channel,
    extent: Extent,
    warmup: Option<u64>,
    progress: &Progress,
) -> Result<Outcome> {
    let nothing = Latencies::new(Measures::WholeOperation)?;
    let mut outcome = Outcome {
        latencies: nothing.clone(),
        classes: vec![nothing.clone(); plan.mix.len()],
        per_thread: vec![nothing.clone(); crew.threads()],
        bytes: 0,
        elapsed: Duration::ZERO,
        batches: Vec::new(),
        timeline: Vec::new(),
        warmup: 0,
        messages: 0,
        account: Account::default(),
    };
    let most = u64::from(slots(plan)) * crew.threads() as u64;
    progress.stage("warming up");
    let begun = clock::now();
    while warmup.map_or_else(
        || outcome.warmup == 0 || clock::now().duration_since(begun) < WARMUP_TIME,
        |count| outcome.warmup < count,
    ) {
        let messages = warmup.map_or(most, |count| most.min(count - outcome.warmup));
        for found in crew.all(channel, &Order { messages })? {
            outcome.account.add(&found.account);
        }
        outcome.warmup += messages;
    }
    let per_message =
        clock::now().duration_since(begun) / u32::try_from(outcome.warmup).unwrap_or(u32::MAX).max(1);

    progress.stage("measuring");
    let clock = clock::chosen();
    let mut timeline = Timeline::new(extent, per_message);
    loop {
        let left = match extent {
            Extent::Messages(messages) => messages - outcome.latencies.count(),
            Extent::Time(time) if outcome.elapsed < time => most,
            Extent::Time(_) => 0,
        };
        if left == 0 {
            break;
        }
        let messages = most.min(left);
        let found = crew.all(channel, &Order { messages })?;
        let since = found.iter().map(|found| found.since).min();
        let until = found.iter().map(|found| found.until).max();
        let elapsed = since.zip(until).map_or(Duration::ZERO, |(since, until)| clock.between(since, until));
        let mut batch = nothing.clone();
        let mut bytes = 0;
        for (found, thread) in found.iter().zip(&mut outcome.per_thread) {
            for (of_class, all) in found.latencies.iter().zip(&mut outcome.classes) {
                all.add(of_class);
                thread.add(of_class);
                batch.add(of_class);
            }
            bytes += found.bytes;
            outcome.account.add(&found.account);
        }
        timeline.batch(clock::now(), elapsed, messages, None).latencies(&batch);
        outcome.latencies.add(&batch);
        outcome.bytes += bytes;
        outcome.elapsed += elapsed;
        outcome.batches.push(bytes as f64 / elapsed.as_secs_f64().max(1e-9));
        progress.done(match extent {
            Extent::Messages(messages) => outcome.latencies.count() as f64 / messages as f64,
            Extent::Time(time) => outcome.elapsed.as_secs_f64() / time.as_secs_f64(),
        });
    }
    outcome.messages = outcome.warmup + outcome.latencies.count();
    outcome.timeline = timeline.finish();
    Ok(outcome)
}
