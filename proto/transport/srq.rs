//! A shared receive queue as a value: the owner of several queue pairs keeps one and answers
//! [`Host::take_shared_receive`](super::Host::take_shared_receive) from it.

use super::receive_queue::ReceiveQueue;
use super::{PostFault, Receive};
use crate::event::AsyncEventKind;
use crate::region::PdHandle;
use crate::work::Sge;

/// A shared receive queue (IBTA volume 1, section 10.2.9).
///
/// Whoever takes from it must look at [`poll_event`](Self::poll_event) afterwards.
#[derive(Debug)]
pub struct Srq {
    queue: ReceiveQueue,
    /// Zero when no event is wanted.
    limit: u32,
    reached: bool,
}

impl Srq {
    /// A queue for `max_wr` receives of up to `max_sge` scatter entries, whose keys are of domain `pd`, which need not be that of the
    /// queue pairs that take from it.
    pub fn new(pd: PdHandle, max_wr: u32, max_sge: u32) -> Self {
        Self { queue: ReceiveQueue::new(pd, max_wr, max_sge), limit: 0, reached: false }
    }

    /// Adds a receive behind the others and answers its running number.
    ///
    /// # Errors
    /// [`PostFault::Full`] or [`PostFault::TooManySges`]; nothing was queued.
    pub fn post(&mut self, wr_id: u64, sges: &[Sge]) -> Result<u32, PostFault> {
        self.queue.post(wr_id, sges)
    }

    /// Moves the oldest receive into `receive`, replacing what it held; false if there is none.
    pub fn take(&mut self, receive: &mut Receive) -> bool {
        let taken = self.queue.take(receive);
        if taken && self.queue.len() < self.limit {
            self.limit = 0;
            self.reached = true;
        }
        taken
    }

    /// Asks for one [`SrqLimitReached`](AsyncEventKind::SrqLimitReached) when a receive is taken and fewer than `limit` are left; 0 asks
    /// for none.
    pub const fn set_limit(&mut self, limit: u32) {
        self.limit = limit;
    }

    /// The limit that is armed; 0 when it has been reached.
    pub const fn limit(&self) -> u32 {
        self.limit
    }

    /// The event to raise for this queue, once. Call again after [`take`](Self::take).
    pub fn poll_event(&mut self) -> Option<AsyncEventKind> {
        core::mem::take(&mut self.reached).then_some(AsyncEventKind::SrqLimitReached)
    }

    /// Receives waiting to be taken.
    pub const fn len(&self) -> u32 {
        self.queue.len()
    }

    /// Whether there are none.
    pub const fn is_empty(&self) -> bool {
        self.len() == 0
    }
}
