//! A connected queue pair's own receive queue, as its owner posts to it and polls it.

use super::core::{Core, lock};
use super::qp::ShmQp;
use crate::device::{ReceiveBatch, Refused};
use crate::error::{PostRefusal, Result};
use crate::ring::arm::{TellMe, publish_fence};
use crate::ring::receive::{ReceiveRing, ReceiveShape};
use crate::sync::{AtomicU32, AtomicU64, Ordering};
use std::sync::Mutex;
use tbrdma_proto::{PostErrorKind, QpState, Qpn, WcFlags, WcOpcode, WcStatus, WorkCompletion};

/// The owner's side of the queue.
pub(crate) struct OwnReceives {
    /// Where the ring is in our segment.
    pub(crate) at: u64,
    pub(crate) shape: ReceiveShape,
    /// What the caller named each receive, by slot.
    wr_ids: Box<[AtomicU64]>,
    posted: Mutex<u32>,
    polled: AtomicU32,
    /// What `posted` guards, for the poller.
    visible: AtomicU32,
}

impl OwnReceives {
    pub(crate) fn create(core: &Core, max_wr: u32, max_sge: u32) -> Result<Self> {
        let shape = ReceiveShape::new(max_wr, max_sge);
        let at = core.allocate_lines("create_qp", shape.bytes())?;
        let receives = Self {
            at,
            shape,
            wr_ids: (0..shape.depth).map(|_| AtomicU64::new(0)).collect(),
            posted: Mutex::new(0),
            polled: AtomicU32::new(0),
            visible: AtomicU32::new(0),
        };
        receives.ring(core).clear();
        Ok(receives)
    }

    pub(crate) fn release(&self, core: &Core) {
        core.free_lines(self.at, self.shape.bytes());
    }

    #[inline]
    fn ring<'a>(&self, core: &'a Core) -> ReceiveRing<'a> {
        core.segment
            .array(self.at, self.shape.words())
            .and_then(|words| ReceiveRing::new(words, self.shape))
            .expect("the ring lies where the heap put it")
    }

    pub(crate) fn polled(&self) -> u32 {
        self.polled.load(Ordering::Acquire)
    }

    /// Back to an empty queue; nobody sends.
    pub(crate) fn reset(&self, core: &Core) {
        let mut posted = lock(&self.posted);
        self.ring(core).clear();
        *posted = 0;
        self.visible.store(0, Ordering::Release);
        self.polled.store(0, Ordering::Release);
    }

    #[inline]
    fn wr_id(&self, number: u32) -> &AtomicU64 {
        &self.wr_ids[(number & (self.shape.depth - 1)) as usize]
    }
}

/// Checks one receive work request; `Ok` if its list fits.
pub(crate) fn check_receive(sges: usize, max_sge: u32) -> std::result::Result<(), PostRefusal> {
    if sges > max_sge as usize {
        return Err(PostRefusal::WorkRequest(PostErrorKind::TooManySges { count: sges as u32, max: max_sge }));
    }
    Ok(())
}

impl ShmQp {
    pub(crate) fn post_own(&self, own: &OwnReceives, batch: &ReceiveBatch) -> (u32, Option<Refused>) {
        let ring = own.ring(&self.core);
        let mut posted = lock(&own.posted);
        let first = *posted;
        let mut refused = None;
        for (index, wr) in batch.wrs.iter().enumerate() {
            let sges = batch.sges_of(wr);
            if posted.wrapping_sub(own.polled()) >= own.shape.depth {
                refused = Some((index, PostRefusal::QueueFull { depth: own.shape.depth }));
                break;
            }
            if let Err(reason) = check_receive(sges.len(), self.cap.max_recv_sge) {
                refused = Some((index, reason));
                break;
            }
            own.wr_id(*posted).store(wr.wr_id, Ordering::Relaxed);
            ring.post(*posted, sges.iter().copied());
            *posted = posted.wrapping_add(1);
        }
        own.visible.store(*posted, Ordering::Release);
        drop(posted);
        publish_fence();
        let words = self.words();
        if TellMe(&words.waiting).take()
            && let Some(peer) = self.core.peers.by_context(words.peer_context.load(Ordering::Relaxed))
        {
            peer.wake();
        }
        if self.state() == QpState::Err {
            self.announce_received();
        }
        (first, refused)
    }

    /// Polls our own receive queue. Called by its completion queue, one thread at a time.
    #[inline]
    pub(crate) fn poll_own(&self, own: &OwnReceives, out: &mut [WorkCompletion]) -> usize {
        let ring = own.ring(&self.core);
        let mut number = own.polled.load(Ordering::Relaxed);
        let mut count = 0;
        for wc in out.iter_mut() {
            let Some(delivery) = ring.delivered(number) else { break };
            *wc = WorkCompletion {
                wr_id: own.wr_id(number).load(Ordering::Relaxed),
                status: delivery.status,
                opcode: delivery.opcode,
                vendor_err: 0,
                byte_len: delivery.byte_len,
                imm_data: delivery.imm_data,
                qp_num: self.qpn,
                src_qp: Qpn::new(delivery.src_qp).unwrap_or_default(),
                wc_flags: delivery.flags,
                wq_index: number,
                ..WorkCompletion::default()
            };
            number = number.wrapping_add(1);
            count += 1;
        }
        if count > 0 {
            own.polled.store(number, Ordering::Release);
        } else if !out.is_empty() && self.state() == QpState::Err {
            return self.flush_own(own, out);
        }
        count
    }

    /// In the error state: what is posted and was not delivered comes back flushed, once the peer has let go.
    #[cold]
    fn flush_own(&self, own: &OwnReceives, out: &mut [WorkCompletion]) -> usize {
        let mut number = own.polled.load(Ordering::Relaxed);
        if number == own.visible.load(Ordering::Acquire) {
            return 0;
        }
        if !self.is_untouched() {
            self.announce_received();
            return 0;
        }
        let ring = own.ring(&self.core);
        let mut count = 0;
        for wc in out.iter_mut() {
            if number == own.visible.load(Ordering::Acquire) || ring.is_delivered(number) {
                break;
            }
            *wc = WorkCompletion {
                wr_id: own.wr_id(number).load(Ordering::Relaxed),
                status: WcStatus::WrFlushErr,
                opcode: WcOpcode::Recv,
                qp_num: self.qpn,
                wc_flags: WcFlags::empty(),
                wq_index: number,
                ..WorkCompletion::default()
            };
            number = number.wrapping_add(1);
            count += 1;
        }
        own.polled.store(number, Ordering::Release);
        count
    }

    /// Is there anything that a poll of our own receive queue would return, or may return soon?
    pub(crate) fn has_received(&self, own: &OwnReceives) -> bool {
        let number = own.polled.load(Ordering::Relaxed);
        own.ring(&self.core).is_delivered(number)
            || (self.state() == QpState::Err && number != own.visible.load(Ordering::Acquire))
    }

}
