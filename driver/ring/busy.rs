//! "I am touching your memory": one word a send queue, by which an owner that takes something away knows when it is gone.
//!
//! The initiator writes the identity of the context it is about to touch, then reads what it may touch (region entries, queue
//! pair state), then copies, then clears the word. The owner withdraws the permission, then reads the word. Either the
//! initiator sees the permission withdrawn, or the owner sees the initiator busy and waits: a hazard pointer for a whole peer.

use crate::sync::{AtomicU64, Ordering, fence, fence_after_rmw};

/// Touching nobody.
const IDLE: u64 = 0;
/// Touching an unknown number of contexts (datagrams go to many).
pub(crate) const ANYONE: u64 = u64::MAX;

/// The word of one send queue, in the segment of the queue's owner.
#[derive(Clone, Copy)]
pub(crate) struct Busy<'a>(pub(crate) &'a AtomicU64);

impl Busy<'_> {
    /// Initiator, holding its send queue's lock: about to touch `context`.
    #[inline]
    pub(crate) fn enter(&self, context: u64) {
        self.0.swap(context, Ordering::SeqCst);
        fence_after_rmw();
    }

    /// Initiator: done.
    #[inline]
    pub(crate) fn leave(&self) {
        self.0.store(IDLE, Ordering::Release);
    }

    /// Owner of the queue itself, after withdrawing something of its own: may it still be at anything? Whoever it touches, it is with memory of ours.
    pub(crate) fn is_idle(&self) -> bool {
        self.0.load(Ordering::Acquire) == IDLE
    }

    /// Owner, after withdrawing a permission and [`withdraw_fence`]: may this queue still be touching `context`?
    #[inline]
    pub(crate) fn may_touch(&self, context: u64) -> bool {
        let word = self.0.load(Ordering::Acquire);
        word == context || word == ANYONE
    }
}

/// The fence between withdrawing a permission and reading busy words.
#[inline]
pub(crate) fn withdraw_fence() {
    fence(Ordering::SeqCst);
}
