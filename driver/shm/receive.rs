//! A connected queue pair's own receive queue, as its owner posts to it and polls it.

use super::core::Core;
use super::qp::ShmQp;
use crate::device::{ReceiveBatch, Refused};
use crate::error::{PostRefusal, Result};
use crate::mem::Held;
use crate::ring::arm::{TellMe, publish_fence};
use crate::ring::receive::{ReceiveRing, ReceiveShape};
use crate::sync::{AtomicU32, AtomicU64, Ordering};
use tbrdma_proto::{PostErrorKind, QpState, Qpn, WcFlags, WcOpcode, WcStatus, WorkCompletion};

/// The owner's side of the queue.
pub(crate) struct OwnReceives {
    /// Where the ring is in our segment.
    pub(crate) at: u64,
    /// It has twice as many slots as there can be receives. So the slot of the next receive was last read by a sender a whole queue ago, and
    /// can be fetched for writing before it is needed: else each post would wait for the peer to let go of the line it has just read.
    pub(crate) shape: ReceiveShape,
    /// How many receives there can be; a power of two.
    depth: u32,
    words: Held<[AtomicU64]>,
    /// What the caller named each receive.
    wr_ids: Box<[AtomicU64]>,
    /// Written by the one thread that posts.
    posted: AtomicU32,
    /// Written by the one that polls.
    polled: AtomicU32,
}

impl OwnReceives {
    pub(crate) fn create(core: &Core, max_wr: u32, max_sge: u32) -> Result<Self> {
        let depth = max_wr.max(1).next_power_of_two();
        let shape = ReceiveShape::new(2 * depth, max_sge);
        let at = core.allocate_lines("create_qp", shape.bytes())?;
        let words = Held::many(&core.segment, at, shape.words())
            .filter(|words| ReceiveRing::new(words, shape).is_some())
            .expect("the heap hands out parts of the segment, as many words as the shape says");
        let receives = Self {
            at,
            shape,
            depth,
            words,
            wr_ids: (0..depth).map(|_| AtomicU64::new(0)).collect(),
            posted: AtomicU32::new(0),
            polled: AtomicU32::new(0),
        };
        receives.ring().clear();
        Ok(receives)
    }

    pub(crate) fn release(&self, core: &Core) {
        core.free_lines(self.at, self.shape.bytes());
    }

    #[inline]
    fn ring(&self) -> ReceiveRing<'_> {
        ReceiveRing::again(&self.words, self.shape)
    }

    pub(crate) fn polled(&self) -> u32 {
        self.polled.load(Ordering::Acquire)
    }

    /// Back to an empty queue; nobody sends.
    pub(crate) fn reset(&self) {
        self.ring().clear();
        self.posted.store(0, Ordering::Release);
        self.polled.store(0, Ordering::Release);
    }

    #[inline]
    fn wr_id(&self, number: u32) -> &AtomicU64 {
        &self.wr_ids[(number & (self.depth - 1)) as usize]
    }
}

/// Checks one receive work request; `Ok` if its list fits.
pub(crate) fn check_receive(sges: usize, max_sge: u32) -> std::result::Result<(), PostRefusal> {
    if sges > max_sge as usize {
        return Err(PostRefusal::WorkRequest(PostErrorKind::TooManySges {
            count: sges as u32,
            max: max_sge,
        }));
    }
    Ok(())
}

impl ShmQp {
    pub(crate) fn post_own(&self, own: &OwnReceives, batch: &ReceiveBatch) -> (u32, Option<Refused>) {
        let ring = own.ring();
        let first = own.posted.load(Ordering::Relaxed);
        let mut posted = first;
        let mut refused = None;
        for (index, wr) in batch.wrs.iter().enumerate() {
            let sges = batch.sges_of(wr);
            if posted.wrapping_sub(own.polled()) >= own.depth {
                refused = Some((index, PostRefusal::QueueFull { depth: own.depth }));
                break;
            }
            if let Err(reason) = check_receive(sges.len(), self.cap.max_recv_sge) {
                refused = Some((index, reason));
                break;
            }
            own.wr_id(posted).store(wr.wr_id, Ordering::Relaxed);
            ring.post(posted, sges.iter().copied());
            posted = posted.wrapping_add(1);
        }
        own.posted.store(posted, Ordering::Release);
        publish_fence();
        ring.prefetch_to_post(posted);
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

    /// Has nothing been delivered, and is there nothing to flush?
    #[inline(always)]
    pub(crate) fn is_own_empty(&self, own: &OwnReceives) -> bool {
        !own.ring().is_delivered(own.polled.load(Ordering::Relaxed)) && self.state() != QpState::Err
    }

    /// How many completions a poll would find.
    pub(crate) fn unpolled_own(&self, own: &OwnReceives) -> usize {
        let (ring, first) = (own.ring(), own.polled());
        let posted = own.posted.load(Ordering::Acquire).wrapping_sub(first);
        let is_flushed = self.state() == QpState::Err;
        let ended = (0..posted).take_while(|&at| is_flushed || ring.is_delivered(first.wrapping_add(at)));
        ended.count()
    }

    /// Polls our own receive queue. Called by its completion queue, one thread at a time.
    #[inline(never)]
    pub(crate) fn poll_own(&self, own: &OwnReceives, out: &mut [WorkCompletion]) -> usize {
        let ring = own.ring();
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
        }
        if count < out.len() && self.state() == QpState::Err {
            count += self.flush_own(own, &mut out[count..]);
        }
        count
    }

    /// In the error state: what is posted and was not delivered comes back flushed, once the peer has let go.
    #[cold]
    fn flush_own(&self, own: &OwnReceives, out: &mut [WorkCompletion]) -> usize {
        let mut number = own.polled.load(Ordering::Relaxed);
        if number == own.posted.load(Ordering::Acquire) {
            return 0;
        }
        if !self.is_untouched() {
            self.announce_received();
            return 0;
        }
        let ring = own.ring();
        let mut count = 0;
        for wc in out.iter_mut() {
            if number == own.posted.load(Ordering::Acquire) || ring.is_delivered(number) {
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
}
