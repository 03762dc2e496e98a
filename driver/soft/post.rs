//! Doorbells: posting work, and what follows from any change to a queue pair.

use super::core::{Core, lock};
use super::qp::{Inner, SoftQp};
use super::transmit::{Left, transmit};
use crate::device::{ReceiveBatch, Refused, SendBatch};
use crate::error::PostRefusal;
use tbrdma_proto::transport::{Pending, PostFault};
use tbrdma_proto::{PostErrorKind, Time};

impl SoftQp {
    /// Posts a list and sends what may be sent of it.
    pub(crate) fn post_sends(&self, batch: &SendBatch) -> (u32, Option<Refused>) {
        let now = self.core.now();
        let mut guard = lock(&self.inner);
        let inner = &mut *guard;
        let first = inner.next_send;
        let retired = self.ledger.sends_retired();
        let mut refused = None;
        for (position, wr) in batch.wrs.iter().enumerate() {
            let depth = self.cap.max_send_wr;
            // A place is free again when the application has been told, and not before.
            if inner.next_send.wrapping_sub(retired) >= depth {
                refused = Some((position, PostRefusal::QueueFull { depth }));
                break;
            }
            let (sges, inline) = batch.operands(wr);
            match inner.qp.post_send(now, wr, sges, inline) {
                Ok(number) => inner.next_send = number.wrapping_add(1),
                Err(fault) => {
                    refused = Some((position, fault.into()));
                    break;
                }
            }
        }
        self.settle(inner, now);
        (first, refused)
    }

    /// Posts a list of receives.
    pub(crate) fn post_receives(&self, batch: &ReceiveBatch) -> (u32, Option<Refused>) {
        // Nothing that happens here depends on the time, and looking at a clock between a message and its answer costs.
        let now = Time::ZERO;
        let mut guard = lock(&self.inner);
        let inner = &mut *guard;
        let first = inner.next_receive;
        let retired = self.ledger.receives_retired();
        let before = inner.qp.pending(now);
        let mut refused = None;
        for (position, wr) in batch.wrs.iter().enumerate() {
            let depth = self.cap.max_recv_wr;
            if self.srq.is_none() && inner.next_receive.wrapping_sub(retired) >= depth {
                refused = Some((position, PostRefusal::QueueFull { depth }));
                break;
            }
            match inner.qp.post_recv(now, wr.wr_id, batch.sges_of(wr)) {
                Ok(number) => inner.next_receive = number.wrapping_add(1),
                Err(fault) => {
                    refused = Some((position, fault.into()));
                    break;
                }
            }
        }
        if before == Pending::Nothing && inner.qp.pending(now) != Pending::Nothing {
            // A peer that had no receives left waits to hear of these.
            self.settle(inner, self.core.now());
        } else {
            // In the error state receives complete at once.
            self.carry_out(inner, &[]);
            self.core.stir();
        }
        (first, refused)
    }

    /// Does what follows from a change: actions, packets, the timer. An acknowledgement that waited goes along.
    pub(crate) fn settle(&self, inner: &mut Inner, now: Time) {
        self.carry_out(inner, &[]);
        let left = transmit(self, inner, now);
        self.carry_out(inner, &[]);
        self.core.keep_timer(self.qpn.get(), inner);
        match left {
            Left::Nothing => {}
            Left::More => self.core.send_more(self.qpn.get()),
            Left::NoRoom => self.core.waits_for_room(self.qpn.get(), inner),
        }
        self.core.stir();
    }
}

impl Core {
    /// Makes sure that the queue pair is looked at by its deadline.
    #[inline]
    pub(crate) fn keep_timer(&self, qpn: u32, inner: &mut Inner) {
        if let Some(deadline) = inner.qp.poll_timeout()
            && deadline < inner.timer
        {
            inner.timer = deadline;
            self.timers.set(deadline, qpn);
            self.deadline_moved(deadline);
        }
    }
}

impl From<PostFault> for PostRefusal {
    fn from(fault: PostFault) -> Self {
        match fault {
            PostFault::State { state } => Self::State(state),
            PostFault::Full { depth } => Self::QueueFull { depth },
            PostFault::Request(kind) => Self::WorkRequest(kind),
            PostFault::TooManySges { count, max } => {
                Self::WorkRequest(PostErrorKind::TooManySges { count, max })
            }
            PostFault::SharedReceives => Self::UsesSharedReceiveQueue,
        }
    }
}
