//! The clock of every measurement, and what reading it costs.

use std::hint::black_box;
use std::time::Instant;

/// What the clock is called in reports.
pub const SOURCE: &str = "CLOCK_MONOTONIC";

/// Measures one read of the clock: the median over many short bursts of back-to-back reads, in nanoseconds.
///
/// A sample is the difference of two reads, so it holds about one such read. Nothing subtracts it: a report shows it.
#[must_use]
pub fn overhead_ns() -> f64 {
    const BURSTS: usize = 201;
    const READS: u32 = 200;
    let mut bursts: Vec<f64> = (0..BURSTS)
        .map(|_| {
            let start = Instant::now();
            for _ in 0..READS {
                black_box(Instant::now());
            }
            start.elapsed().as_nanos() as f64 / f64::from(READS)
        })
        .collect();
    bursts.sort_by(f64::total_cmp);
    bursts.get(BURSTS / 2).copied().unwrap_or_default()
}

/// The step in which the clock advances, in nanoseconds, as far as consecutive reads show it: the least distance between
/// the intervals that are common among them. `None` if they show no step, as when the clock is finer than its own reading.
#[must_use]
pub fn step_ns() -> Option<u64> {
    const READS: usize = 20_000;
    let reads: Vec<Instant> = (0..READS).map(|_| Instant::now()).collect();
    let intervals =
        reads.iter().zip(reads.iter().skip(1)).map(|(a, b)| b.duration_since(*a).as_nanos() as u64);
    step_of(intervals)
}

fn step_of(intervals: impl Iterator<Item = u64>) -> Option<u64> {
    let mut counts = std::collections::BTreeMap::<u64, usize>::new();
    let mut total = 0;
    for interval in intervals {
        *counts.entry(interval).or_default() += 1;
        total += 1;
    }
    let mut common: Vec<(u64, usize)> = Vec::new();
    for (interval, count) in counts.into_iter().filter(|(_, count)| count * 100 >= total) {
        match common.last_mut() {
            // Rounding to nanoseconds makes two of one.
            Some((last, most)) if interval - *last <= 1 => {
                if count > *most {
                    (*last, *most) = (interval, count);
                }
            }
            _ => common.push((interval, count)),
        }
    }
    common.iter().zip(common.iter().skip(1)).map(|((a, _), (b, _))| b - a).min()
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_step_is_seen_through_rounding_and_rare_interruptions() {
        let step = |counts: &[(u64, usize)]| {
            super::step_of(counts.iter().flat_map(|(interval, count)| std::iter::repeat_n(*interval, *count)))
        };
        assert_eq!(step(&[(20, 730), (21, 20), (30, 230), (31, 15), (1282, 3)]), Some(10));
        assert_eq!(step(&[(20, 1000)]), None);
        assert_eq!(step(&[]), None);
    }

    #[test]
    fn a_read_costs_something_but_not_much() {
        let cost = super::overhead_ns();
        assert!(cost > 0.0 && cost < 1e6, "{cost}");
    }
}
