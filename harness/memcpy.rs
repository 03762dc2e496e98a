//! The floor of many messages in memory: how fast this core copies them with no library at all.

use std::hint::black_box;
use std::time::{Duration, Instant};

use tbrdma::floor::Shared;

use crate::error::{Context, Result};
use crate::plan::Plan;
use crate::signals;

/// How long a round lasts.
const ROUND_TIME: Duration = Duration::from_millis(40);

/// Two sets of buffers that lie as those of the stream do.
pub struct Memcpy {
    from: Vec<u8>,
    to: Target,
    size: usize,
    stride: usize,
    depth: usize,
    target_slots: usize,
    rates: Vec<f64>,
}

/// Where copies go.
enum Target {
    /// Memory of this process alone.
    Private(Vec<u8>),
    /// Memory that others may map, as a window in a file is.
    Shared(Shared),
}

impl Target {
    fn copy(&mut self, at: usize, bytes: &[u8]) {
        match self {
            Self::Private(memory) => {
                if let Some(to) = memory.get_mut(at..at + bytes.len()) {
                    black_box(to).copy_from_slice(black_box(bytes));
                }
            }
            Self::Shared(memory) => {
                memory.write(at, black_box(bytes));
            }
        }
    }
}

impl Memcpy {
    /// Private buffers for a plan, all of them touched.
    #[must_use]
    pub fn new(plan: &Plan) -> Self {
        let room = plan.stride() as usize * plan.target_slots() as usize;
        Self::into(plan, Target::Private(vec![1; room]))
    }

    /// The same with a target in shared memory, as a window is.
    ///
    /// # Errors
    /// The system has no shared memory to give.
    pub fn into_window(plan: &Plan) -> Result<Self> {
        let room = plan.stride() as usize * plan.target_slots() as usize;
        let shared = Shared::create(room).context(|| "make shared memory for the floor".into())?;
        shared.write(0, &vec![1; room]);
        Ok(Self::into(plan, Target::Shared(shared)))
    }

    fn into(plan: &Plan, to: Target) -> Self {
        let (depth, target_slots) = (plan.depth as usize, plan.target_slots() as usize);
        let stride = plan.stride() as usize;
        Self {
            from: vec![0x5a; stride * depth],
            to,
            size: plan.size as usize,
            stride,
            depth,
            target_slots,
            rates: Vec::new(),
        }
    }

    /// Does it copy into shared memory?
    #[must_use]
    pub fn is_into_window(&self) -> bool {
        matches!(self.to, Target::Shared(_))
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
                if let Some(from) = self.from.get(from..from + self.size) {
                    self.to.copy(to, from);
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
