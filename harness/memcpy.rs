//! The floor of a stream: how fast this core copies such messages with no library at all.

use std::hint::black_box;
use std::time::{Duration, Instant};

use crate::error::Result;
use crate::plan::Plan;
use crate::signals;

/// How long a round lasts.
const ROUND_TIME: Duration = Duration::from_millis(40);

/// Two private sets of buffers that lie as those of the stream do.
pub struct Memcpy {
    from: Vec<u8>,
    to: Vec<u8>,
    size: usize,
    stride: usize,
    depth: usize,
    target_slots: usize,
    rates: Vec<f64>,
}

impl Memcpy {
    /// Buffers for a plan, all of them touched.
    #[must_use]
    pub fn new(plan: &Plan) -> Self {
        let (depth, target_slots) = (plan.depth as usize, plan.target_slots() as usize);
        let stride = plan.stride() as usize;
        Self {
            from: vec![0x5a; stride * depth],
            to: vec![1; stride * target_slots],
            size: plan.size as usize,
            stride,
            depth,
            target_slots,
            rates: Vec::new(),
        }
    }

    /// Measures one round more; its rate in bytes per second.
    ///
    /// # Errors
    /// The user interrupted.
    pub fn measure(&mut self) -> Result<f64> {
        signals::check()?;
        let rate = self.round();
        self.rates.push(rate);
        Ok(rate)
    }

    fn round(&mut self) -> f64 {
        let laps = ((64 << 10) / self.size.max(1)).clamp(1, 4096);
        let (mut from_slot, mut to_slot) = (0, 0);
        let mut copied = 0_u64;
        let start = Instant::now();
        let elapsed = loop {
            for _ in 0..laps {
                let (from, to) = (from_slot * self.stride, to_slot * self.stride);
                if let (Some(from), Some(to)) =
                    (self.from.get(from..from + self.size), self.to.get_mut(to..to + self.size))
                {
                    black_box(to).copy_from_slice(black_box(from));
                }
                from_slot = if from_slot + 1 == self.depth { 0 } else { from_slot + 1 };
                to_slot = if to_slot + 1 == self.target_slots { 0 } else { to_slot + 1 };
            }
            copied += laps as u64;
            let elapsed = start.elapsed();
            if elapsed >= ROUND_TIME {
                break elapsed;
            }
        };
        copied as f64 * self.size as f64 / elapsed.as_secs_f64()
    }

    /// The median of all rounds, in bytes per second; `None` before the first.
    #[must_use]
    pub fn median(&self) -> Option<f64> {
        median(&self.rates)
    }
}

/// The middle value; `None` of nothing.
#[must_use]
pub fn median(values: &[f64]) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied()
}

#[cfg(test)]
mod tests {
    use super::median;

    #[test]
    fn the_median_is_the_middle() {
        assert_eq!(median(&[3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(&[]), None);
    }
}
