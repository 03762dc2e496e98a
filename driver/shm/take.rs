//! A peer's receives as a sender takes them: one by one from a connected queue pair's own queue, by a claim from a shared one.

use super::core::{qp_words, srq_words};
use super::qp::ShmQp;
use super::send::{Progress, Remote, Step, Wait};
use super::transfer::RemoteSpan;
use crate::mem::Segment;
use crate::ring::arm::TellMe;
use crate::ring::layout::QpWords;
use crate::ring::receive::{Delivery, Posting, ReceiveRing, ReceiveShape};
use crate::ring::shared_receive::SharedReceiveRing;
use crate::sync::{AtomicU64, Ordering};
use std::time::Duration;
use tbrdma_proto::{AsyncEventKind, FlowMode, PdHandle, QpType, limits, rnr_timer};

/// A receive that is ours to fill and end.
pub(crate) struct TakenReceive<'a> {
    posting: Posting<'a>,
    number: u32,
    pub(crate) pd: PdHandle,
    queue: Queue<'a>,
}

enum Queue<'a> {
    Own { ring: ReceiveRing<'a>, next: &'a AtomicU64, qpn: u32 },
    Shared { ring: SharedReceiveRing<'a>, qpn: u32, order: Option<&'a AtomicU64> },
}

impl<'a> TakenReceive<'a> {
    /// Bytes it can take, by its scatter list.
    pub(crate) fn room(&self) -> u64 {
        self.posting.sges().map(|sge| u64::from(sge.length)).sum()
    }

    /// Where the bytes go.
    pub(crate) fn spans(&self) -> impl Iterator<Item = RemoteSpan> + Clone + 'a {
        self.posting
            .sges()
            .map(|sge| RemoteSpan { key: sge.lkey, addr: sge.addr, len: u64::from(sge.length) })
    }

    /// Ends it.
    pub(crate) fn finish(&self, delivery: &Delivery) {
        match &self.queue {
            Queue::Own { ring, next, qpn } => {
                ring.deliver(self.number, delivery, *qpn);
                next.store(u64::from(self.number.wrapping_add(1)), Ordering::Relaxed);
            }
            Queue::Shared { ring, qpn, order } => {
                if let Some(order) = order {
                    let number = order.load(Ordering::Relaxed);
                    ring.set_order(self.number, number as u32);
                    order.store(number.wrapping_add(1), Ordering::Relaxed);
                }
                ring.ring().deliver(self.number, delivery, *qpn);
            }
        }
    }

    /// Leaves it to others.
    pub(crate) fn put_back(&self, progress: &mut Progress) {
        if let Queue::Shared { ring, .. } = &self.queue {
            progress.claimed = None;
            ring.ring().give_back(self.number);
        }
    }
}

/// A ring whose place and shape another process wrote: believed only as far as it lies within the segment.
pub(crate) fn ring_of<'a>(segment: &'a Segment, at: &AtomicU64, shape: &AtomicU64) -> Option<ReceiveRing<'a>> {
    let word = shape.load(Ordering::Relaxed);
    let shape = ReceiveShape { depth: word as u32, max_sge: (word >> 32) as u32 };
    let deepest = limits::MAX_QP_WR.max(limits::MAX_SRQ_WR);
    if !shape.depth.is_power_of_two() || shape.depth > deepest || !(1..=limits::MAX_SGE).contains(&shape.max_sge) {
        return None;
    }
    ReceiveRing::new(segment.array(at.load(Ordering::Relaxed), shape.words())?, shape)
}

/// The slot of the shared receive queue that a queue pair's words name.
pub(crate) fn shared_slot(words: &QpWords) -> Option<u32> {
    ((words.receive_to.load(Ordering::Relaxed) >> 32) as u32).checked_sub(1)
}

impl ShmQp {
    /// The step that waits for a receive, as the transport has it.
    fn no_receive(&self, words: &QpWords, length: u32) -> Step {
        match self.qp_type {
            QpType::Rc => {
                let timer = rnr_timer((words.receive_to.load(Ordering::Relaxed) >> 16) as u8 & 0x1f);
                Step::Wait(Wait::Receive(timer))
            }
            // No timer ends this: a device that holds a message holds it until it can be taken.
            QpType::Uc if self.core.profile.flow == FlowMode::HoldUc => Step::Wait(Wait::Receive(Duration::MAX)),
            _ => Step::Done(length),
        }
    }

    /// The peer's next receive, ours from now on.
    pub(crate) fn next_receive<'a>(
        &self,
        remote: &'a Remote,
        length: u32,
        progress: &mut Progress,
    ) -> Result<TakenReceive<'a>, Step> {
        let segment = &remote.peer.segment;
        let words = qp_words(segment, remote.slot);
        let broken = || Step::Failed(tbrdma_proto::WcStatus::RemOpErr);
        let pd = PdHandle(words.rights.load(Ordering::Relaxed) as u32);
        if let Some(slot) = shared_slot(words) {
            let srq = srq_words(segment, slot);
            let pd = PdHandle((srq.identity.load(Ordering::Relaxed) as u32).wrapping_sub(1));
            let ring = ring_of(segment, &srq.receive_at, &srq.receive_shape).ok_or_else(broken)?;
            let ring = SharedReceiveRing::new(ring, &srq.next_receive);
            let claimed = match progress.claimed {
                Some(number) => ring.ring().posted(number).map(|posting| (number, posting)),
                None => ring.claim(remote.peer.claimer).or_else(|| {
                    TellMe(&srq.waiting).set(0);
                    ring.claim(remote.peer.claimer)
                }),
            };
            let (number, posting) = claimed.ok_or_else(|| self.no_receive(words, length))?;
            if progress.claimed.is_none() {
                progress.claimed = Some(number);
                let left = srq.posted.load(Ordering::Relaxed).wrapping_sub(srq.next_receive.load(Ordering::Relaxed));
                if left < srq.limit.load(Ordering::Relaxed) && srq.limit.swap(0, Ordering::AcqRel) != 0 {
                    words.fault.store(AsyncEventKind::SrqLimitReached as u64 + 1, Ordering::Release);
                    super::agent::ring(&remote.peer, remote.slot);
                }
            }
            let queue = Queue::Shared { ring, qpn: remote.qpn, order: Some(&words.next_receive) };
            return Ok(TakenReceive { posting, number, pd, queue });
        }
        let ring = ring_of(segment, &words.receive_at, &words.receive_shape).ok_or_else(broken)?;
        let number = words.next_receive.load(Ordering::Relaxed) as u32;
        let posting = ring
            .posted(number)
            .or_else(|| {
                TellMe(&words.waiting).set(0);
                ring.posted(number)
            })
            .ok_or_else(|| self.no_receive(words, length))?;
        Ok(TakenReceive { posting, number, pd, queue: Queue::Own { ring, next: &words.next_receive, qpn: remote.qpn } })
    }
}
