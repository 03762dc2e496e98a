//! The peer's end of a connection, as far as it can be worked out once.

use super::peer::Peer;
use super::take::ring_shape;
use crate::mem::Held;
use crate::ring::layout::{self, CqWords, QpWords, SrqWords};
use crate::ring::receive::{ReceiveRing, ReceiveShape};
use crate::sync::{AtomicBool, AtomicU64, Ordering};
use crate::sys::eventfd::EventFd;
use std::sync::Arc;
use tbrdma_proto::{Access, AsyncEventKind, PdHandle, QpState, QpType};

/// The peer's queue pair.
pub(crate) struct Remote {
    pub(crate) peer: Arc<Peer>,
    pub(crate) qpn: u32,
    pub(crate) slot: u32,
    pub(crate) words: Held<QpWords>,
    /// What `words.identity` says while it is still the queue pair we connected to.
    identity: u64,
    /// What `words.peer_context` and `words.peer_qp` say once it is connected to us and expects our PSN.
    our_context: u64,
    our_qp: u64,
    /// Where its receives are; found when the queue pair is first seen.
    queue: Option<RemoteQueue>,
    /// It has been told that somebody sends.
    has_greeted: AtomicBool,
    /// Wakes the channel on which it waits for our messages.
    pub(crate) wake: Option<Arc<EventFd>>,
}

/// A peer's receive queue. It stays where it is for as long as its queue pair lives.
pub(crate) struct RemoteQueue {
    words: Held<[AtomicU64]>,
    shape: ReceiveShape,
    pub(crate) srq: Option<Held<SrqWords>>,
    pub(crate) cq: Held<CqWords>,
    pub(crate) cq_slot: u32,
    /// Protection domain of its receives.
    pub(crate) pd: PdHandle,
}

impl RemoteQueue {
    /// The ring itself.
    #[inline(always)]
    pub(crate) fn ring(&self) -> ReceiveRing<'_> {
        ReceiveRing::again(&self.words, self.shape)
    }
}

/// Tells the owner of a queue pair what we found there.
pub(crate) fn note(peer: &Peer, words: &QpWords, slot: u32, kind: AsyncEventKind) {
    words.fault.fetch_or(1 << kind.raw(), Ordering::Release);
    super::agent::ring(peer, slot);
}

/// May we send to it?
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Readiness {
    Ready,
    /// Not yet: it may become ready.
    NotYet,
    /// Never again.
    Gone,
}

impl Remote {
    pub(crate) fn new(
        peer: &Arc<Peer>,
        qp_type: QpType,
        qpn: u32,
        wake: Option<Arc<EventFd>>,
    ) -> Option<Self> {
        let slot = super::core::slot_of(qpn);
        Some(Self {
            peer: Arc::clone(peer),
            qpn,
            slot,
            words: Held::one(&peer.segment, layout::qp_at(slot))?,
            identity: u64::from(qpn) | u64::from(qp_type as u8) << 32,
            our_context: 0,
            our_qp: 0,
            queue: None,
            has_greeted: AtomicBool::new(false),
            wake,
        })
    }

    /// Says who we are: what the peer must have been told before we may send.
    pub(crate) fn expect(&mut self, context: u64, qpn: u32, sq_psn: u32) {
        self.our_context = context;
        self.our_qp = u64::from(qpn) | u64::from(sq_psn) << 32;
    }

    /// Looks at the peer's words. One line, which only its owner writes, and seldom.
    #[inline]
    pub(crate) fn readiness(&self) -> Readiness {
        let words = &*self.words;
        let state = words.state.load(Ordering::SeqCst) as u32;
        let known = words.identity.load(Ordering::Acquire) == self.identity;
        let expects_us = words.peer_context.load(Ordering::Relaxed) == self.our_context
            && words.peer_qp.load(Ordering::Relaxed) == self.our_qp;
        if !known || state >= QpState::Err as u32 || !self.peer.is_alive() {
            Readiness::Gone
        } else if state < QpState::Rtr as u32 || !expects_us {
            Readiness::NotYet
        } else {
            if state == QpState::Rtr as u32 {
                self.greet();
            }
            Readiness::Ready
        }
    }

    /// A message is about to come to a queue pair that cannot send yet: its owner hears of it, once.
    #[cold]
    fn greet(&self) {
        if !self.has_greeted.swap(true, Ordering::Relaxed) {
            self.note(AsyncEventKind::CommEst);
        }
    }

    /// Tells the owner of the queue pair what we found there.
    pub(crate) fn note(&self, kind: AsyncEventKind) {
        note(&self.peer, &self.words, self.slot, kind);
    }

    /// The protection domain in which requests that need these rights are carried out, if the queue pair grants them.
    #[inline(always)]
    pub(crate) fn grants(&self, needed: Access) -> Option<PdHandle> {
        let rights = self.words.rights.load(Ordering::Relaxed);
        let granted = Access::from_bits_truncate((rights >> 32) as u32);
        granted.contains(needed).then_some(PdHandle(rights as u32))
    }

    /// Its receive queue.
    #[inline]
    pub(crate) fn queue(&self) -> Option<&RemoteQueue> {
        self.queue.as_ref()
    }

    /// Finds the receive queue, if it has not been found yet and the queue pair is there.
    #[inline]
    pub(crate) fn find_queue(&mut self) {
        if self.queue.is_none() && self.words.identity.load(Ordering::Acquire) == self.identity {
            self.queue = self.look_for_queue();
        }
    }

    #[cold]
    fn look_for_queue(&self) -> Option<RemoteQueue> {
        let segment = &self.peer.segment;
        let to = self.words.receive_to.load(Ordering::Relaxed);
        let cq_slot = to as u32 & 0xffff;
        let srq = ((to >> 32) as u32).checked_sub(1);
        let srq = match srq {
            Some(slot) => Some(Held::<SrqWords>::one(segment, layout::srq_at(slot))?),
            None => None,
        };
        let (at, shape, pd) = match &srq {
            Some(words) => {
                let pd = PdHandle((words.identity.load(Ordering::Acquire) as u32).checked_sub(1)?);
                (&words.receive_at, &words.receive_shape, pd)
            }
            None => {
                let pd = PdHandle(self.words.rights.load(Ordering::Relaxed) as u32);
                (&self.words.receive_at, &self.words.receive_shape, pd)
            }
        };
        let shape = ring_shape(shape)?;
        let words = Held::many(segment, at.load(Ordering::Relaxed), shape.words())?;
        ReceiveRing::new(&words, shape)?;
        Some(RemoteQueue { words, shape, srq, cq: Held::one(segment, layout::cq_at(cq_slot))?, cq_slot, pd })
    }
}
