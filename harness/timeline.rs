//! What became of a run in the course of time: its batches, one behind the other, or several as one stretch where a run has very many.

use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::cli::Extent;
use crate::clock;
use crate::histogram::Latencies;

/// About as many stretches are told of a run, however long it is.
const STRETCHES: u32 = 128;

/// A part of a run.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Stretch {
    /// When it began, in seconds since the first one did.
    pub at_s: f64,
    /// How long it took, in seconds; less than the time to the next one, which floors and checks take a part of.
    pub lasted_s: f64,
    /// Recorded messages.
    pub samples: u64,
    /// Their median, in nanoseconds, where latencies were measured; so for the next two.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub p50: Option<f64>,
    /// All but one in a hundred.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub p99: Option<f64>,
    /// The most.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max: Option<f64>,
    /// Payload bytes per second, where throughput was measured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes_per_s: Option<f64>,
    /// The floor right before and after it, in the same unit: of latencies their median.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub floor: Option<f64>,
}

/// Puts the batches of a run together.
#[derive(Debug)]
pub struct Timeline {
    begun: Instant,
    /// How long a stretch is at least.
    whole: Duration,
    open: Option<Open>,
    done: Vec<Stretch>,
}

/// A stretch that may still grow.
#[derive(Debug)]
struct Open {
    at: Duration,
    lasted: Duration,
    samples: u64,
    latencies: Option<Latencies>,
    bytes: f64,
    floors: Vec<f64>,
}

impl Timeline {
    /// Of a run that begins now, is to last that long, and whose messages take about `per_message` each.
    #[must_use]
    pub fn new(extent: Extent, per_message: Duration) -> Self {
        let expected = match extent {
            Extent::Time(time) => time,
            Extent::Messages(messages) => {
                per_message.saturating_mul(u32::try_from(messages).unwrap_or(u32::MAX))
            }
        };
        Self { begun: clock::now(), whole: expected / STRETCHES, open: None, done: Vec::new() }
    }

    /// A batch that took `lasted` until `ended`; `floor` is what the machine itself does beside it.
    pub fn batch(&mut self, ended: Instant, lasted: Duration, samples: u64, floor: Option<f64>) -> Batch<'_> {
        let at = ended.saturating_duration_since(self.begun).saturating_sub(lasted);
        let open = self.open.get_or_insert_with(|| Open {
            at,
            lasted: Duration::ZERO,
            samples: 0,
            latencies: None,
            bytes: 0.0,
            floors: Vec::new(),
        });
        open.lasted += lasted;
        open.samples += samples;
        open.floors.extend(floor);
        Batch { timeline: self }
    }

    /// All stretches, in order.
    #[must_use]
    pub fn finish(mut self) -> Vec<Stretch> {
        self.close();
        self.done
    }

    fn close(&mut self) {
        let Some(open) = self.open.take() else { return };
        let at = |quantile| open.latencies.as_ref()?.quantile_ns(quantile);
        let floors = open.floors.len();
        self.done.push(Stretch {
            at_s: open.at.as_secs_f64(),
            lasted_s: open.lasted.as_secs_f64(),
            samples: open.samples,
            p50: at(0.5),
            p99: at(0.99),
            max: at(1.0),
            bytes_per_s: open.latencies.is_none().then(|| open.bytes / open.lasted.as_secs_f64().max(1e-9)),
            floor: (floors > 0).then(|| open.floors.iter().sum::<f64>() / floors as f64),
        });
    }
}

/// What was measured in a batch.
#[derive(Debug)]
pub struct Batch<'t> {
    timeline: &'t mut Timeline,
}

impl Batch<'_> {
    /// Latencies.
    pub fn latencies(self, latencies: &Latencies) {
        if let Some(open) = &mut self.timeline.open {
            match &mut open.latencies {
                Some(all) => all.add(latencies),
                none => *none = Some(latencies.clone()),
            }
        }
        self.end();
    }

    /// A number of bytes that were moved.
    pub fn bytes(self, bytes: f64) {
        if let Some(open) = &mut self.timeline.open {
            open.bytes += bytes;
        }
        self.end();
    }

    fn end(self) {
        if self.timeline.open.as_ref().is_some_and(|open| open.lasted >= self.timeline.whole) {
            self.timeline.close();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Timeline;
    use crate::cli::Extent;
    use crate::histogram::{Latencies, Measures};
    use std::time::{Duration, Instant};

    const BATCH: Duration = Duration::from_millis(100);

    fn batch_of(ns: u64) -> Latencies {
        let mut latencies = Latencies::new(Measures::WholeOperation).unwrap();
        (0..10).for_each(|_| latencies.record(Duration::from_nanos(ns)));
        latencies
    }

    #[test]
    fn a_short_run_is_told_batch_by_batch() {
        let mut timeline = Timeline::new(Extent::Time(Duration::from_secs(1)), BATCH);
        for ns in 1..=10 {
            timeline.batch(Instant::now(), BATCH, 10, Some(5.0)).latencies(&batch_of(100 * ns));
        }
        let stretches = timeline.finish();
        assert_eq!(stretches.len(), 10);
        let medians: Vec<_> = stretches.iter().map(|stretch| stretch.p50.unwrap()).collect();
        assert!(medians.is_sorted() && medians[0] == 100.0 && medians[9] == 1000.0, "{medians:?}");
        assert_eq!(
            (stretches[3].samples, stretches[3].floor, stretches[3].bytes_per_s),
            (10, Some(5.0), None)
        );
    }

    #[test]
    fn a_long_run_is_told_in_about_as_many_stretches_and_nothing_is_left_out() {
        let mut timeline = Timeline::new(Extent::Messages(6000), Duration::from_millis(10));
        for _ in 0..600 {
            timeline.batch(Instant::now(), BATCH, 10, None).latencies(&batch_of(100));
        }
        // One message that was slow.
        timeline.batch(Instant::now(), BATCH, 10, None).latencies(&batch_of(9000));
        let stretches = timeline.finish();
        assert!((100..=129).contains(&stretches.len()), "{}", stretches.len());
        assert_eq!(stretches.iter().map(|stretch| stretch.samples).sum::<u64>(), 6010);
        let slowest = stretches.last().unwrap().max.unwrap();
        assert!((9000.0..9009.0).contains(&slowest), "{slowest}");
    }

    #[test]
    fn bytes_are_a_rate() {
        let mut timeline = Timeline::new(Extent::Time(Duration::from_secs(1)), BATCH);
        timeline.batch(Instant::now(), BATCH, 2, Some(1e9)).bytes(1e6);
        let stretches = timeline.finish();
        assert_eq!((stretches[0].bytes_per_s, stretches[0].p50), (Some(1e7), None));
    }
}
