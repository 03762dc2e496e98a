//! Recording of latencies, their summary, and their picture in a terminal.

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};
use std::fmt::Write as _;
use std::time::Duration;

/// Longest latency that is told apart from longer ones: a minute.
const HIGHEST_NS: u64 = 60_000_000_000;
/// Decimal digits to which a recorded value is true.
const DIGITS: u8 = 3;
/// Values of a bucket that are told apart: the power of two that holds 2 x 10^[`DIGITS`].
const SUB_BUCKETS: u32 = 2048;

/// What a sample stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Measures {
    /// Half of the time from posting a message to seeing the answer to it.
    HalfRoundTrip,
    /// The time from posting an operation to seeing its completion.
    WholeOperation,
    /// The time that a rank takes for an operation in which all ranks have a part.
    Collective,
}

impl Measures {
    /// The words for it in reports.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::HalfRoundTrip => "half round trip",
            Self::WholeOperation => "round trip of one operation",
            Self::Collective => "one operation of all ranks",
        }
    }

    fn divisor(self) -> f64 {
        match self {
            Self::HalfRoundTrip => 2.0,
            Self::WholeOperation | Self::Collective => 1.0,
        }
    }
}

/// The latencies of a run: round trips are recorded, what is told is their half where that is what was measured.
#[derive(Debug, Clone)]
pub struct Latencies {
    round_trips: Histogram<u64>,
    measures: Measures,
}

impl Latencies {
    /// Nothing recorded yet.
    ///
    /// # Errors
    /// Never with the bounds used here; the recorder's own words otherwise.
    pub fn new(measures: Measures) -> crate::Result<Self> {
        Ok(Self { round_trips: recorder()?, measures })
    }

    /// What a sample stands for.
    #[must_use]
    pub fn measures(&self) -> Measures {
        self.measures
    }

    /// Records the time between two reads of the clock.
    #[inline]
    pub fn record(&mut self, elapsed: Duration) {
        self.round_trips.saturating_record((elapsed.as_nanos() as u64).max(1));
    }

    /// Records what another process recorded and told as a [`distribution`](Self::distribution).
    pub fn record_all(&mut self, distribution: &[(f64, u64)]) {
        for (value, count) in distribution {
            let value = (value * self.measures.divisor()) as u64;
            self.round_trips.saturating_record_n(value.max(1), *count);
        }
    }

    /// Records the same time for many samples.
    pub fn record_many(&mut self, elapsed: Duration, count: u64) {
        self.round_trips.saturating_record_n((elapsed.as_nanos() as u64).max(1), count);
    }

    /// Adds what another recorded.
    pub fn add(&mut self, other: &Self) {
        // Equal bounds always fit; what did not would be missing from the count.
        let _ = self.round_trips.add(&other.round_trips);
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        self.round_trips.reset();
    }

    /// How many were recorded.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.round_trips.len()
    }

    /// A quantile in nanoseconds, `0.5` being the median; `None` when nothing was recorded.
    #[must_use]
    pub fn quantile_ns(&self, quantile: f64) -> Option<f64> {
        (self.count() > 0)
            .then(|| self.round_trips.value_at_quantile(quantile) as f64 / self.measures.divisor())
    }

    /// The summary; `None` when nothing was recorded.
    #[must_use]
    pub fn summary(&self) -> Option<Summary> {
        let divisor = self.measures.divisor();
        let at = |quantile| self.quantile_ns(quantile);
        Some(Summary {
            min: (self.count() > 0).then(|| self.round_trips.min() as f64 / divisor)?,
            mean: self.round_trips.mean() / divisor,
            p50: at(0.5)?,
            p90: at(0.9)?,
            p99: at(0.99)?,
            p99_9: at(0.999)?,
            p99_99: at(0.9999)?,
            max: self.round_trips.max() as f64 / divisor,
        })
    }

    /// The whole distribution: values in nanoseconds, each with how many samples had it, in order. A value stands for those that the recorder does not
    /// tell from it, within a thousandth.
    #[must_use]
    pub fn distribution(&self) -> Vec<(f64, u64)> {
        let divisor = self.measures.divisor();
        self.round_trips
            .iter_recorded()
            .map(|value| (value.value_iterated_to() as f64 / divisor, value.count_since_last_iteration()))
            .collect()
    }

    /// The percentiles as HdrHistogram prints them: value, quantile, how many up to there, and 1/(1-quantile), five for each halving of
    /// the rest, with a tail of figures behind #.
    #[must_use]
    pub fn percentiles(&self) -> String {
        let divisor = self.measures.divisor();
        let mut text = format!(
            "{:>12} {:>14} {:>10} {:>14}\n\n",
            "Value", "Percentile", "TotalCount", "1/(1-Percentile)"
        );
        let mut count = 0;
        for step in self.round_trips.iter_quantiles(5) {
            count += step.count_since_last_iteration();
            let value = step.value_iterated_to() as f64 / divisor;
            let quantile = step.quantile_iterated_to();
            let _ = write!(text, "{value:12.3} {quantile:14.12} {count:10}");
            let rest = 1.0 - quantile;
            let _ = if rest > 0.0 { writeln!(text, " {:14.2}", 1.0 / rest) } else { writeln!(text) };
        }
        let (mean, deviation) = (self.round_trips.mean() / divisor, self.round_trips.stdev() / divisor);
        let (max, total) = (self.round_trips.max() as f64 / divisor, self.count());
        let _ = writeln!(text, "#[Mean    = {mean:12.3}, StdDeviation   = {deviation:12.3}]");
        let _ = writeln!(text, "#[Max     = {max:12.3}, Total count    = {total:12}]");
        let buckets = self.round_trips.buckets();
        let _ = writeln!(text, "#[Buckets = {buckets:12}, SubBuckets     = {SUB_BUCKETS:12}]");
        text
    }

    /// Draws the distribution, `width` columns wide.
    #[must_use]
    pub fn draw(&self, width: usize) -> String {
        let bars = self.bars();
        let most = bars.iter().map(|(_, count)| *count).max().unwrap_or(0).max(1);
        let total = self.count().max(1) as f64;
        let room = width.saturating_sub(2 + 9 + 1 + 1 + 10).max(10);
        let mut text = String::new();
        let mut lower: Option<f64> = None;
        for (upper, count) in &bars {
            // A logarithm would hide the shape; a bar that is there at all is never drawn as nothing.
            let length = (count * room as u64).div_ceil(most) as usize;
            let share = *count as f64 * 100.0 / total;
            let share = match *count {
                0 => String::new(),
                _ if share < 0.0001 => "<0.0001 %".into(),
                _ if share < 0.1 => format!("{share:.4} %"),
                _ => format!("{share:.2} %"),
            };
            // The last line's range is as wide as the tail is long.
            let mark = if lower.is_some_and(|lower| *upper > lower * 2.0) { '>' } else { ' ' };
            let edge = if mark == '>' { lower.unwrap_or_default() } else { *upper };
            let _ =
                writeln!(text, " {mark}{:>9} |{:<room$} {share:>9}", nanoseconds(edge), "#".repeat(length));
            lower = Some(*upper);
        }
        text
    }

    /// Buckets with logarithmic edges, as (upper edge in ns, count), fine enough to show the bulk's shape: the fastest of a
    /// thousand are in the first one, and the slowest of a thousand are one bucket, whose edge is the maximum.
    fn bars(&self) -> Vec<(f64, u64)> {
        const MOST_BARS: i64 = 20;
        // Finer than this, and the steps of the clock would be drawn as gaps.
        const A_DECADE: [f64; 5] = [20.0, 10.0, 5.0, 2.0, 1.0];
        let divisor = self.measures.divisor();
        let (Some(bulk_end), true) = (self.quantile_ns(0.999), self.count() > 0) else { return Vec::new() };
        let bucket = |ns: f64, a_decade: f64| (ns.max(0.5).log10() * a_decade).floor() as i64;
        let lowest = self.quantile_ns(0.001).unwrap_or(bulk_end);
        let span = |a_decade: &f64| bucket(bulk_end, *a_decade) - bucket(lowest, *a_decade) + 1;
        let a_decade = A_DECADE.into_iter().find(|a_decade| span(a_decade) <= MOST_BARS).unwrap_or(1.0);
        let first = bucket(lowest, a_decade);
        let count = span(&a_decade).clamp(1, MOST_BARS) as usize;
        let edge = |index: usize| 10_f64.powf((first + index as i64 + 1) as f64 / a_decade);
        let mut bars: Vec<(f64, u64)> = (0..count).map(|index| (edge(index), 0)).collect();
        let mut slowest = 0;
        for value in self.round_trips.iter_recorded() {
            let index = bucket(value.value_iterated_to() as f64 / divisor, a_decade) - first;
            match bars.get_mut(index.max(0) as usize) {
                Some((_, bar)) => *bar += value.count_since_last_iteration(),
                None => slowest += value.count_since_last_iteration(),
            }
        }
        if slowest > 0 {
            bars.push((self.round_trips.max() as f64 / divisor, slowest));
        }
        bars
    }
}

/// A recorder of nanoseconds.
///
/// # Errors
/// Never with the bounds used here; its own words otherwise.
pub fn recorder() -> crate::Result<Histogram<u64>> {
    Histogram::new_with_bounds(1, HIGHEST_NS, DIGITS)
        .map_err(|error| crate::Error::Run(format!("make a histogram: {error}")))
}

/// The figures of a distribution, in nanoseconds.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Summary {
    /// The least.
    pub min: f64,
    /// The arithmetic mean.
    pub mean: f64,
    /// The median.
    pub p50: f64,
    /// Nine of ten are no slower.
    pub p90: f64,
    /// All but one in a hundred.
    pub p99: f64,
    /// All but one in a thousand.
    pub p99_9: f64,
    /// All but one in ten thousand.
    pub p99_99: f64,
    /// The most.
    pub max: f64,
}

/// A time as a reader likes it: `83.5 ns`, `1.42 us`, `12.0 ms`.
#[must_use]
pub fn nanoseconds(ns: f64) -> String {
    let (value, unit) = match ns {
        _ if ns < 999.95 => (ns, "ns"),
        _ if ns < 999_950.0 => (ns / 1e3, "us"),
        _ if ns < 999_950_000.0 => (ns / 1e6, "ms"),
        _ => (ns / 1e9, "s"),
    };
    match value {
        _ if value < 9.995 && unit != "ns" => format!("{value:.2} {unit}"),
        _ => format!("{value:.1} {unit}"),
    }
}

#[cfg(test)]
mod tests {
    use super::{Latencies, Measures, nanoseconds};
    use std::time::Duration;

    fn recorded(values: impl IntoIterator<Item = u64>, measures: Measures) -> Latencies {
        let mut latencies = Latencies::new(measures).unwrap();
        values.into_iter().for_each(|ns| latencies.record(Duration::from_nanos(ns)));
        latencies
    }

    #[test]
    fn half_round_trips_are_halves() {
        let latencies = recorded((1..=1000).map(|n| n * 2), Measures::HalfRoundTrip);
        let summary = latencies.summary().unwrap();
        assert_eq!((summary.min, summary.max), (1.0, 1000.0));
        assert_eq!((summary.p50, summary.p90, summary.p99), (500.0, 900.0, 990.0));
        let whole = recorded((1..=1000).map(|n| n * 2), Measures::WholeOperation).summary().unwrap();
        assert_eq!((whole.min, whole.p50), (2.0, 1000.0));
    }

    #[test]
    fn nothing_recorded_gives_no_figures() {
        let empty = recorded([], Measures::HalfRoundTrip);
        assert!(empty.summary().is_none());
        assert_eq!(empty.draw(80), "");
    }

    #[test]
    fn the_picture_fits_eighty_columns_and_counts_everything() {
        let spread = (0..10_000_u64).map(|n| 300 + n % 97).chain([50_000, 9_000_000, 70_000_000_000]);
        let latencies = recorded(spread, Measures::HalfRoundTrip);
        let picture = latencies.draw(80);
        assert!(picture.lines().count() <= 24, "{picture}");
        assert!(picture.lines().all(|line| line.chars().count() <= 80), "{picture}");
        assert_eq!(latencies.bars().iter().map(|(_, count)| count).sum::<u64>(), 10_003);
        assert!(picture.is_ascii());
    }

    #[test]
    fn percentiles_are_in_the_form_that_plotters_read() {
        let text = recorded((1..=1000).map(|n| n * 2), Measures::HalfRoundTrip).percentiles();
        let rows: Vec<Vec<f64>> = text
            .lines()
            .filter(|line| !line.starts_with('#') && !line.contains("Value") && !line.is_empty())
            .map(|line| line.split_whitespace().map(|word| word.parse().unwrap()).collect())
            .collect();
        assert_eq!((rows[0][0], rows[0][1]), (1.0, 0.0));
        assert_eq!(rows.last().unwrap(), &[1000.0, 1.0, 1000.0], "the last has no fourth column");
        assert!(rows.iter().rev().skip(1).all(|row| row.len() == 4), "{text}");
        assert!(rows.windows(2).all(|pair| pair[0][..3].iter().zip(&pair[1]).all(|(a, b)| a <= b)), "{text}");
        let median = rows.iter().find(|row| row[1] == 0.5).unwrap();
        assert_eq!((median[0], median[2], median[3]), (500.0, 500.0, 2.0));
        assert!(text.contains("Total count    =         1000]"), "{text}");
    }

    #[test]
    fn times_have_fitting_units() {
        assert_eq!(nanoseconds(83.54), "83.5 ns");
        assert_eq!(nanoseconds(999.99), "1.00 us");
        assert_eq!(nanoseconds(12_345.0), "12.3 us");
        assert_eq!(nanoseconds(999_960.0), "1.00 ms");
        assert_eq!(nanoseconds(2.5e9), "2.50 s");
    }
}
