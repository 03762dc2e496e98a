//! The open loop: messages that are due by the clock, whether the last one has been answered or not.
//!
//! A closed loop posts the next message when the answer to the last is there. When the other side stops for ten milliseconds, it records one slow
//! message, and leaves out the hundreds that a program would have wanted to send meanwhile (coordinated omission). Here each message has a
//! moment when it is due. Its *service time* runs from being posted to its answer, as in a closed loop; its *response time* from being due to its
//! answer, so what it waited because its predecessors were slow is in it. One message is under way at a time: who is due waits for its turn.

use std::time::Duration;

use clap::{Args, ValueEnum};
use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::histogram::{Latencies, Measures, Summary};

/// A schedule was kept if at least this part of the messages asked for came about.
const KEPT: f64 = 0.99;
/// The timeout of a wait is at least so many times the mean distance of two messages, so that a long gap of chance is no failure.
const GAPS_IN_TIMEOUT: f64 = 20.0;
/// Messages a second that nothing reaches.
const MOST_RATE: f64 = 1e9;

/// The distances between messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Arrivals {
    /// All the same
    #[default]
    Fixed,
    /// Of chance, as those of many independent users are (exponentially distributed)
    Poisson,
    /// As a trace has them; no flag asks for it.
    #[value(skip)]
    Trace,
}

/// The flags.
#[derive(Debug, Clone, Default, Args)]
pub struct PaceFlags {
    /// Open loop: messages a second, as 500, 20k or 1.5M, due by the clock whether the last was answered or not
    #[arg(long, value_name = "RATE", value_parser = parse_rate)]
    pub rate: Option<f64>,
    /// Distances of the messages of --rate [default: fixed]
    #[arg(long, value_enum, requires = "rate")]
    pub arrivals: Option<Arrivals>,
}

/// What the flags ask for.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Pace {
    /// Messages a second.
    pub rate: f64,
    /// Their distances.
    pub arrivals: Arrivals,
    /// Where the dice of [`Arrivals::Poisson`] start.
    pub seed: u64,
}

impl Pace {
    /// How many messages are due in a time; at least one.
    #[must_use]
    pub fn due_in(&self, time: Duration) -> u64 {
        ((time.as_secs_f64() * self.rate).round() as u64).max(1)
    }
}

impl PaceFlags {
    /// The pace, if one was asked for.
    ///
    /// # Errors
    /// Messages are so far apart that waiting for one could be taken for a dead peer.
    pub fn pace(&self, timeout: Duration, seed: u64) -> Result<Option<Pace>> {
        let Some(rate) = self.rate else { return Ok(None) };
        let least = GAPS_IN_TIMEOUT / timeout.as_secs_f64();
        if rate < least {
            return Err(Error::Usage(format!(
                "--rate {rate} is under {least:.3} messages/s, where a wait of --timeout {} s would be none for a message: raise --timeout",
                timeout.as_secs_f64()
            )));
        }
        Ok(Some(Pace { rate, arrivals: self.arrivals.unwrap_or_default(), seed }))
    }
}

fn parse_rate(text: &str) -> Result<f64, String> {
    let digits = text.trim_end_matches(|letter: char| letter.is_ascii_alphabetic());
    let number: f64 = digits.parse().map_err(|_| "give messages a second, as 500, 20k or 1.5M".to_owned())?;
    let rate = match text.get(digits.len()..).unwrap_or_default() {
        "" => number,
        "k" | "K" => number * 1e3,
        "M" => number * 1e6,
        unit => return Err(format!("{unit} is no unit of a rate: use k or M")),
    };
    if !(0.001..=MOST_RATE).contains(&rate) {
        return Err("is outside 0.001 to 1000M messages a second".to_owned());
    }
    Ok(rate)
}

/// A run of messages that are due by the clock.
#[derive(Debug, Clone)]
pub struct OpenLoop {
    pace: Pace,
    dice: fastrand::Rng,
    /// When the last message was due, in nanoseconds from the begin of this stretch.
    due_ns: f64,
    services: Latencies,
    responses: Latencies,
    waits: Histogram<u64>,
    late: u64,
    scheduled: Duration,
    took: Duration,
}

impl OpenLoop {
    /// Nothing is due yet.
    ///
    /// # Errors
    /// Never with the bounds used here; the recorder's own words otherwise.
    pub fn new(pace: Pace) -> Result<Self> {
        let latencies = Latencies::new(Measures::WholeOperation)?;
        Ok(Self {
            pace,
            dice: fastrand::Rng::with_seed(pace.seed),
            due_ns: 0.0,
            services: latencies.clone(),
            responses: latencies,
            waits: crate::histogram::recorder()?,
            late: 0,
            scheduled: Duration::ZERO,
            took: Duration::ZERO,
        })
    }

    /// The pace.
    #[must_use]
    pub fn pace(&self) -> Pace {
        self.pace
    }

    /// Adds what another thread found, whose messages were due beside these.
    pub fn add(&mut self, other: &Self) {
        self.pace.rate += other.pace.rate;
        self.services.add(&other.services);
        self.responses.add(&other.responses);
        // Equal bounds always fit.
        let _ = self.waits.add(&other.waits);
        self.late += other.late;
        self.scheduled += other.scheduled;
        self.took += other.took;
    }

    /// A stretch of messages begins now.
    pub fn begin(&mut self) {
        self.due_ns = 0.0;
    }

    /// When the next message is due, from the begin of the stretch.
    #[inline]
    pub fn next_due(&mut self) -> Duration {
        let mean = 1e9 / self.pace.rate;
        self.due_ns += match self.pace.arrivals {
            Arrivals::Fixed | Arrivals::Trace => mean,
            // 1 - f64() is above 0, so its logarithm is a number.
            Arrivals::Poisson => -(1.0 - self.dice.f64()).ln() * mean,
        };
        Duration::from_nanos(self.due_ns as u64)
    }

    /// A message was posted so long after it was due, and answered so long after it was posted.
    #[inline]
    pub fn record(&mut self, waited: Duration, service: Duration) {
        self.services.record(service);
        self.responses.record(waited + service);
        self.waits.saturating_record(waited.as_nanos() as u64);
        // Later than its successor was due.
        self.late += u64::from(waited.as_secs_f64() * self.pace.rate > 1.0);
    }

    /// The last message of a stretch was answered so long after its begin.
    pub fn end(&mut self, took: Duration) {
        self.scheduled += Duration::from_nanos(self.due_ns as u64);
        self.took += took;
    }

    /// The responses.
    #[must_use]
    pub fn responses(&self) -> &Latencies {
        &self.responses
    }

    /// What is to be told of the run; `None` if nothing was recorded.
    #[must_use]
    pub fn report(&self) -> Option<OpenLoopReport> {
        let count = self.responses.count();
        // The last message of each stretch may end after its time by as long as it is served: that is not for the schedule.
        let service = Duration::from_nanos(self.services.quantile_ns(0.5)? as u64);
        let took = self.took.saturating_sub(service).max(self.scheduled);
        let achieved = self.pace.rate * self.scheduled.as_secs_f64() / took.as_secs_f64().max(1e-9);
        Some(OpenLoopReport {
            rate_per_s: self.pace.rate,
            arrivals: self.pace.arrivals,
            seed: (self.pace.arrivals == Arrivals::Poisson).then_some(self.pace.seed),
            achieved_per_s: achieved,
            kept: achieved >= KEPT * self.pace.rate,
            late: self.late,
            messages: count,
            most_behind_ns: self.waits.max(),
            service_ns: self.services.summary()?,
            response_ns: self.responses.summary()?,
        })
    }
}

/// What is told of an open loop. Times are whole ones: to the answer, not halves.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct OpenLoopReport {
    /// Messages a second that were asked for.
    pub rate_per_s: f64,
    /// Their distances.
    pub arrivals: Arrivals,
    /// Where the dice of the distances started.
    pub seed: Option<u64>,
    /// Messages a second that came about.
    pub achieved_per_s: f64,
    /// Was the schedule kept, all in all?
    pub kept: bool,
    /// Messages that were posted after their successor was due.
    pub late: u64,
    /// Of so many.
    pub messages: u64,
    /// The longest that a message waited to be posted.
    pub most_behind_ns: u64,
    /// From being posted to the answer.
    pub service_ns: Summary,
    /// From being due to the answer.
    pub response_ns: Summary,
}

#[cfg(test)]
mod tests {
    use super::{Arrivals, OpenLoop, OpenLoopReport, Pace, PaceFlags, parse_rate};
    use std::time::Duration;

    /// A server that takes 10 us a message, and stops for `stall` before message `at`: in virtual time.
    fn served(pace: Pace, count: u64, at: u64, stall: Duration) -> OpenLoopReport {
        let mut open = OpenLoop::new(pace).unwrap();
        open.begin();
        let mut now = Duration::ZERO;
        for message in 0..count {
            let due = open.next_due();
            let posted = now.max(due);
            let stalled = if message == at { stall } else { Duration::ZERO };
            let service = Duration::from_micros(10) + stalled;
            open.record(posted - due, service);
            now = posted + service;
        }
        open.end(now);
        open.report().unwrap()
    }

    fn pace(rate: f64, arrivals: Arrivals) -> Pace {
        Pace { rate, arrivals, seed: 7 }
    }

    #[test]
    fn a_stall_hidden_from_the_closed_loop_is_in_the_responses() {
        let report = served(pace(10e3, Arrivals::Fixed), 10_000, 5_000, Duration::from_millis(10));
        // One message of ten thousand was slow to be served ...
        assert!(report.service_ns.p99_9 < 11e3, "{report:?}");
        // ... and a hundred were due meanwhile, with waits that fall from 10 ms to nothing.
        assert!(report.response_ns.p99_9 > 8e6, "{report:?}");
        assert!(report.response_ns.p50 < 11e3, "{report:?}");
        assert!((100..=112).contains(&report.late), "{report:?}");
        assert!(report.most_behind_ns > 9_000_000, "{report:?}");
        assert!(report.kept, "all of them were sent in time in the end: {report:?}");
    }

    #[test]
    fn a_rate_that_cannot_be_is_not_kept() {
        let report = served(pace(200e3, Arrivals::Fixed), 20_000, 0, Duration::ZERO);
        assert!(!report.kept, "{report:?}");
        assert!((report.achieved_per_s - 100e3).abs() < 1e3, "{report:?}");
        assert!(report.response_ns.max > 90e6, "the queue grew to the end: {report:?}");
        assert!(served(pace(99e3, Arrivals::Fixed), 20_000, 0, Duration::ZERO).kept);
    }

    #[test]
    fn distances_of_chance_have_their_mean_and_repeat_with_their_seed() {
        let report = served(pace(1e3, Arrivals::Poisson), 100_000, 0, Duration::ZERO);
        assert!(report.kept && report.seed == Some(7), "{report:?}");
        // One in a hundred comes within 10 us of the last, and waits.
        let waits = report.response_ns.p99_9 - report.service_ns.p99_9;
        assert!(waits > 1e3, "{report:?}");
        assert_eq!(report, served(pace(1e3, Arrivals::Poisson), 100_000, 0, Duration::ZERO));
        let mut open = OpenLoop::new(pace(1e6, Arrivals::Poisson)).unwrap();
        open.begin();
        let last = (0..100_000).map(|_| open.next_due()).last().unwrap();
        let mean_ns = last.as_nanos() as f64 / 1e5;
        assert!((980.0..1020.0).contains(&mean_ns), "{mean_ns}");
    }

    #[test]
    fn rates_have_units_and_bounds() {
        assert_eq!(parse_rate("20k"), Ok(20e3));
        assert_eq!(parse_rate("1.5M"), Ok(1.5e6));
        assert!(["0", "-1", "nan", "2G", "k", "9999M"].iter().all(|text| parse_rate(text).is_err()));
        let slow = PaceFlags { rate: Some(1.0), arrivals: None };
        assert!(slow.pace(Duration::from_secs(10), 0).is_err());
        assert!(slow.pace(Duration::from_secs(20), 0).is_ok());
    }
}
