//! How many frames the outstanding work requests of a queue take.

use std::collections::VecDeque;
use tbrdma_proto::FRAME_BYTES;

/// The frames of a queue, by running number of the work requests.
pub(super) struct Frames {
    depth: u64,
    taken: u64,
    /// Number of the oldest that is counted; means nothing while there is none.
    first: u32,
    each: VecDeque<u32>,
}

impl Frames {
    /// A queue of so many frames.
    pub(super) fn new(depth: u32) -> Self {
        Self { depth: depth.into(), taken: 0, first: 0, each: VecDeque::with_capacity(depth as usize) }
    }

    /// How many a work request with so many bytes takes.
    pub(super) const fn of(bytes: u64) -> u64 {
        if bytes == 0 { 1 } else { bytes.div_ceil(FRAME_BYTES as u64) }
    }

    /// Frees what `is_retired` says of the oldest.
    pub(super) fn retire(&mut self, is_retired: impl Fn(u32) -> bool) {
        while let Some(&frames) = self.each.front() {
            if !is_retired(self.first) {
                return;
            }
            self.each.pop_front();
            self.taken -= u64::from(frames);
            self.first = self.first.wrapping_add(1);
        }
    }

    /// How many of the work requests to come fit, given the bytes of each.
    pub(super) fn room_for(&self, lengths: impl Iterator<Item = u64>) -> usize {
        let mut taken = self.taken;
        lengths
            .take_while(|bytes| {
                taken = taken.saturating_add(Self::of(*bytes));
                taken <= self.depth
            })
            .count()
    }

    /// Counts work requests that were posted, the first of them with number `first`. They fit.
    pub(super) fn add(&mut self, first: u32, lengths: impl Iterator<Item = u64>) {
        if self.each.is_empty() {
            self.first = first;
        }
        for bytes in lengths {
            let frames = Self::of(bytes);
            self.taken += frames;
            self.each.push_back(frames as u32);
        }
    }

    /// Everything posted is gone.
    pub(super) fn clear(&mut self) {
        self.each.clear();
        self.taken = 0;
    }
}
