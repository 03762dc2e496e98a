//! A set of small numbers that many threads and processes add to and one takes from: which sources have something to poll.
//!
//! Each addition is two atomic OR instructions, leaf first: a process killed between them leaves a leaf bit without its
//! summary bit, which the next addition to that leaf, or the sweep after a peer's death, repairs.

use crate::sync::{AtomicU64, Ordering, fence_after_rmw};

/// Leaf words of a set.
pub(crate) const LEAVES: usize = 64;
/// Words of a set in shared memory: the summary, then the leaves.
pub(crate) const READY_WORDS: usize = 1 + LEAVES;
/// Numbers a set tells apart; larger ones share a bit with `number % SLOTS`.
pub(crate) const SLOTS: u32 = (LEAVES * 64) as u32;

/// A view of a set's words.
#[derive(Clone, Copy)]
pub(crate) struct ReadySet<'a>(&'a [AtomicU64]);

impl<'a> ReadySet<'a> {
    /// A view over `READY_WORDS` words, or nothing if there are fewer.
    #[inline]
    pub(crate) fn new(words: &'a [AtomicU64]) -> Option<Self> {
        (words.len() >= READY_WORDS).then(|| Self(&words[..READY_WORDS]))
    }

    /// Adds `number % SLOTS`. A full barrier: whoever asks next whether the other side sleeps (`arm`) asks after the addition is
    /// visible.
    #[inline]
    pub(crate) fn insert(&self, number: u32) {
        let slot = number % SLOTS;
        let leaf = (slot / 64) as usize;
        self.0[1 + leaf].fetch_or(1 << (slot % 64), Ordering::AcqRel);
        // Always, even if the leaf was not empty: only this makes a half-done addition of a dead process harmless.
        self.0[0].fetch_or(1 << leaf, Ordering::SeqCst);
        fence_after_rmw();
    }

    /// Is there anything to take?
    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.0[0].load(Ordering::Relaxed) == 0
    }

    /// Takes every member and hands each slot number to `visit`.
    pub(crate) fn drain(&self, mut visit: impl FnMut(u32)) {
        if self.is_empty() {
            return;
        }
        let mut summary = self.0[0].swap(0, Ordering::AcqRel);
        while summary != 0 {
            let leaf = summary.trailing_zeros();
            summary &= summary - 1;
            let mut bits = self.0[1 + leaf as usize].swap(0, Ordering::AcqRel);
            while bits != 0 {
                visit(leaf * 64 + bits.trailing_zeros());
                bits &= bits - 1;
            }
        }
    }
}
