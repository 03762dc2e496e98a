//! A peer's receives as a sender takes them: one by one from a connected queue pair's own queue, by a claim from a shared one.

use super::peer::Peer;
use super::qp::{ShmQp, announce_remote};
use super::remote::Remote;
use super::send::{Doorbell, Progress, Step, Wait};
use super::transfer::RemoteSpan;
use crate::mem::Segment;
use crate::ring::arm::{TellMe, publish_fence};
use crate::ring::layout::{QpWords, SrqWords};
use crate::ring::receive::{Delivery, Posting, ReceiveRing, ReceiveShape};
use crate::ring::shared_receive::SharedReceiveRing;
use crate::sync::{AtomicU64, Ordering};
use std::time::Duration;
use tbrdma_proto::{AsyncEventKind, Habits, PdHandle, QpType, limits, rnr_timer};

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
    /// Where the bytes go, if that is one place.
    #[inline]
    pub(crate) fn only(&self) -> Option<RemoteSpan> {
        self.posting.only().map(|sge| RemoteSpan {
            key: sge.lkey,
            addr: sge.addr,
            len: u64::from(sge.length),
        })
    }

    /// Bytes it can take, by its scatter list.
    #[inline]
    pub(crate) fn room(&self) -> u64 {
        self.posting.sges().map(|sge| u64::from(sge.length)).sum()
    }

    /// Where the bytes go.
    pub(crate) fn spans(&self) -> impl Iterator<Item = RemoteSpan> + Clone + 'a {
        self.posting.sges().map(|sge| RemoteSpan {
            key: sge.lkey,
            addr: sge.addr,
            len: u64::from(sge.length),
        })
    }

    /// Ends it.
    #[inline(always)]
    pub(crate) fn finish(&self, delivery: &Delivery) {
        match &self.queue {
            Queue::Own { ring, next, qpn } => {
                ring.deliver(self.number, delivery, *qpn);
                let following = self.number.wrapping_add(1);
                next.store(u64::from(following), Ordering::Relaxed);
                ring.prefetch(following);
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

    /// Leaves it to others; its owner must look, to post it again.
    pub(crate) fn put_back(&self, progress: &mut Progress, doorbell: &mut Doorbell<'_>) {
        if let Queue::Shared { ring, .. } = &self.queue {
            progress.claimed = None;
            doorbell.received = true;
            ring.ring().give_back(self.number);
        }
    }
}

/// A ring's shape as another process wrote it, if it is one that a ring can have.
pub(crate) fn ring_shape(word: &AtomicU64) -> Option<ReceiveShape> {
    let word = word.load(Ordering::Relaxed);
    let (depth, max_sge) = (word as u32, (word >> 32) as u32);
    // A queue with many senders has twice as many slots as receives.
    let deepest = 2 * limits::MAX_QP_WR.max(limits::MAX_SRQ_WR);
    let fits = depth.is_power_of_two() && depth <= deepest && (1..=limits::MAX_SGE).contains(&max_sge);
    fits.then(|| ReceiveShape::new(depth, max_sge))
}

/// A ring whose place and shape another process wrote: believed only as far as it lies within the segment.
pub(crate) fn ring_of<'a>(
    segment: &'a Segment,
    at: &AtomicU64,
    shape: &AtomicU64,
) -> Option<ReceiveRing<'a>> {
    let shape = ring_shape(shape)?;
    ReceiveRing::new(segment.array(at.load(Ordering::Relaxed), shape.words())?, shape)
}

/// The slot of the shared receive queue that a queue pair's words name.
pub(crate) fn shared_slot(words: &QpWords) -> Option<u32> {
    ((words.receive_to.load(Ordering::Relaxed) >> 32) as u32).checked_sub(1)
}

/// A receive of a shared queue has been claimed: does its owner want to know how few are left?
pub(crate) fn watch_limit(srq: &SrqWords, words: &QpWords, peer: &Peer, slot: u32) {
    // The owner counts in 32 bits, and so must the difference.
    let (posted, taken) = (srq.posted.load(Ordering::Relaxed), srq.next_receive.load(Ordering::Relaxed));
    let left = u64::from((posted as u32).wrapping_sub(taken as u32));
    if left < srq.limit.load(Ordering::Relaxed) && srq.limit.swap(0, Ordering::AcqRel) != 0 {
        super::remote::note(peer, words, slot, AsyncEventKind::SrqLimitReached);
    }
}

/// A work request ends without having used the receive it claimed: the living owner of a shared queue gets it back.
pub(crate) fn give_back_claim(remote: Option<&Remote>, progress: &mut Progress) {
    let Some(number) = progress.claimed.take() else { return };
    let Some((remote, queue)) = remote.and_then(|remote| Some((remote, remote.queue()?))) else { return };
    queue.ring().give_back(number);
    publish_fence();
    let cq = (&*queue.cq, queue.cq_slot);
    announce_remote(&remote.peer, cq, TellMe(&remote.words.tell).wanted(), remote.wake.as_deref(), false);
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
            QpType::Uc if self.rules.habits.contains(Habits::HOLDS_UC) => {
                Step::Wait(Wait::Receive(Duration::MAX))
            }
            _ => Step::Done(length),
        }
    }

    /// The peer's next receive, ours from now on.
    #[inline(always)]
    pub(crate) fn next_receive<'a>(
        &self,
        remote: &'a Remote,
        length: u32,
        progress: &mut Progress,
    ) -> Result<TakenReceive<'a>, Step> {
        let words = &*remote.words;
        let broken = || Step::Failed(tbrdma_proto::WcStatus::RemOpErr);
        let queue = remote.queue().ok_or_else(broken)?;
        let pd = queue.pd;
        let ring = queue.ring();
        let Some(srq) = &queue.srq else {
            let number = words.next_receive.load(Ordering::Relaxed) as u32;
            let posting = ring
                .posted(number)
                .or_else(|| {
                    TellMe(&words.waiting).set(0);
                    ring.posted(number)
                })
                .ok_or_else(|| self.no_receive(words, length))?;
            let queue = Queue::Own { ring, next: &words.next_receive, qpn: remote.qpn };
            return Ok(TakenReceive { posting, number, pd, queue });
        };
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
            watch_limit(srq, words, &remote.peer, remote.slot);
        }
        let queue = Queue::Shared { ring, qpn: remote.qpn, order: Some(&words.next_receive) };
        Ok(TakenReceive { posting, number, pd, queue })
    }
}
