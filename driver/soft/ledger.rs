//! What the application has been told: which work requests of a queue pair have completed and been polled. A place in a work
//! queue becomes free, and a lent buffer comes back, only then.

use super::srq::SoftSrq;
use crate::sync::{AtomicU32, Ordering};
use std::sync::Arc;
use tbrdma_proto::transport::Half;

/// The account of one queue pair's two queues, in running numbers.
pub(crate) struct Ledger {
    /// Sends with smaller numbers have been polled, or precede one that has.
    sends: AtomicU32,
    /// Receives of its own with smaller numbers have been polled.
    receives: AtomicU32,
    srq: Option<Arc<SoftSrq>>,
}

impl Ledger {
    /// Nothing polled yet.
    pub(crate) const fn new(srq: Option<Arc<SoftSrq>>) -> Self {
        Self { sends: AtomicU32::new(0), receives: AtomicU32::new(0), srq }
    }

    /// The queue pair was reset, and these are the numbers that its queues go on with: nothing is outstanding.
    pub(crate) fn restart(&self, next_send: u32, next_receive: u32) {
        self.sends.store(next_send, Ordering::Release);
        self.receives.store(next_receive, Ordering::Release);
    }

    /// The completion with this number was polled.
    #[inline]
    pub(crate) fn retire(&self, half: Half, number: u32) {
        match (half, &self.srq) {
            (Half::Send, _) => self.sends.store(number.wrapping_add(1), Ordering::Release),
            (Half::Receive, None) => self.receives.store(number.wrapping_add(1), Ordering::Release),
            (Half::Receive, Some(srq)) => srq.retire(number),
        }
    }

    /// The completion with this number will never be polled. A shared queue gets the place back; in a queue of the queue pair's own a later
    /// completion, or a reset, does that.
    pub(crate) fn forget(&self, half: Half, number: u32) {
        if let (Half::Receive, Some(srq)) = (half, &self.srq) {
            srq.retire(number);
        }
    }

    pub(crate) fn sends_retired(&self) -> u32 {
        self.sends.load(Ordering::Acquire)
    }

    pub(crate) fn receives_retired(&self) -> u32 {
        self.receives.load(Ordering::Acquire)
    }
}
