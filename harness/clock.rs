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

#[cfg(test)]
mod tests {
    #[test]
    fn a_read_costs_something_but_not_much() {
        let cost = super::overhead_ns();
        assert!(cost > 0.0 && cost < 1e6, "{cost}");
    }
}
