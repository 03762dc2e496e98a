//! The agent: a context's service thread, copying for a peer that may not touch this process' own memory itself.
//!
//! The requester stages the bytes in a bounce buffer of its own segment, writes its request beside its queue pair, and
//! rings. The agent checks the request by the same rules, in its own table, copies, and answers beside the same queue pair.
//! One request a queue pair is outstanding at a time; the requester's work requests behind it wait, in order. How the words of
//! a request and its answer are exchanged is `ring::mailbox`'s; what they mean is here.

use super::core::{Core, header, lock, qp_words, ready_set, slot_of};
use super::peer::Peer;
use super::qp::ShmQp;
use super::send::Progress;
use crate::keys::Keys;
use crate::mem::Place;
use crate::ring::layout::QpWords;
use crate::ring::mailbox::{Mailbox, Operands};
use crate::sync::Ordering;
use crate::sys::mapping;
use std::sync::Mutex;
use tbrdma_proto::{Access, PdHandle, QpState};

/// Bytes moved by one request.
pub(crate) const BOUNCE_BYTES: u64 = 64 << 10;

/// What is asked of an agent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Job {
    /// From the bounce buffer to the named memory.
    Put,
    /// From the named memory to the bounce buffer.
    Get,
    /// Compare and swap.
    CompareSwap,
    /// Fetch and add.
    FetchAdd,
    /// Take the key out of use.
    Invalidate,
}

impl Job {
    const ALL: [Self; 5] = [Self::Put, Self::Get, Self::CompareSwap, Self::FetchAdd, Self::Invalidate];
}

/// A request.
pub(crate) struct Request {
    pub(crate) job: Job,
    pub(crate) pd: PdHandle,
    pub(crate) needed: Access,
    pub(crate) key: u32,
    pub(crate) addr: u64,
    pub(crate) len: u32,
    /// Offset of the bounce buffer in the requester's segment.
    pub(crate) bounce: u64,
    pub(crate) compare_add: u64,
    pub(crate) swap: u64,
}

impl Request {
    /// Requester: puts the request beside its queue pair; its number. `None` while the agent may still be at an abandoned one.
    pub(crate) fn send(&self, words: &QpWords) -> Option<u64> {
        mailbox(words).ask(&self.operands())
    }

    fn operands(&self) -> Operands {
        [
            self.job as u64 | u64::from(self.pd.0) << 8,
            u64::from(self.key) | u64::from(self.len) << 32,
            self.addr,
            self.bounce,
            self.compare_add,
            self.swap,
            u64::from(self.needed.bits()),
        ]
    }

    /// Agent: what the words of a request say, if they say anything.
    fn from_operands(operands: &Operands) -> Option<Self> {
        let [job, key, addr, bounce, compare_add, swap, needed] = *operands;
        Some(Self {
            job: *Job::ALL.get(job as usize & 0xff)?,
            pd: PdHandle((job >> 8) as u32),
            needed: Access::from_bits_truncate(needed as u32),
            key: key as u32,
            len: (key >> 32) as u32,
            addr,
            bounce,
            compare_add,
            swap,
        })
    }
}

/// The mailbox beside a queue pair: its requests, and the answers of its peer's agent.
fn mailbox(words: &QpWords) -> Mailbox<'_> {
    Mailbox::new(&words.request, &words.reply)
}

/// Requester: the answer to request `number`, once it is there: the old value (of an atomic) if the request was met.
pub(crate) fn answer(words: &QpWords, number: u64) -> Option<Option<u64>> {
    mailbox(words).answer(number)
}

/// Requester: makes a peer's agent look at the queue pair in `slot` there.
pub(crate) fn ring(peer: &Peer, slot: u32) {
    ready_set(&header(&peer.segment).attention).insert(slot);
    peer.wake();
}

/// A bounce buffer in the requester's segment.
pub(crate) struct Bounce {
    offset: u64,
    /// Whose agent uses it.
    peer: u64,
    /// The queue pair it belongs to: offset of its words in the requester's segment.
    words_at: u64,
}

impl Bounce {
    pub(crate) fn offset(&self) -> u64 {
        self.offset
    }

    fn mailbox<'a>(&self, core: &'a Core) -> Option<Mailbox<'a>> {
        core.segment.get(self.words_at).map(mailbox)
    }
}

/// Bounce buffers of work requests that ended before the agent had answered: it may still be copying. With the number of the request.
#[derive(Default)]
pub(crate) struct Abandoned(Mutex<Vec<(Bounce, u64)>>);

/// Requester: the bounce buffer of a work request, made when first needed.
pub(crate) fn bounce<'a>(
    core: &'a Core,
    peer: &Peer,
    words: &QpWords,
    progress: &mut Progress,
) -> Option<Place<'a>> {
    if progress.bounce.is_none() {
        release_answered(core);
        let offset = core.allocate_lines("post_send", BOUNCE_BYTES).ok()?;
        let words_at = (std::ptr::from_ref(words).addr() - core.segment.base().addr()) as u64;
        progress.bounce = Some(Bounce { offset, peer: peer.context, words_at });
    }
    core.segment.place(progress.bounce.as_ref()?.offset, BOUNCE_BYTES)
}

/// Requester: gives it back, at once or when the agent is certainly done with it.
pub(crate) fn release_bounce(core: &Core, progress: &mut Progress) {
    let Some(bounce) = progress.bounce.take() else { return };
    if !progress.asked || bounce.mailbox(core).is_some_and(|mailbox| mailbox.withdraw()) {
        core.free_lines(bounce.offset, BOUNCE_BYTES);
    } else {
        lock(&core.watches.abandoned.0).push((bounce, progress.number));
    }
}

/// Requester: gives back what no agent uses any more.
fn release_answered(core: &Core) {
    let mut abandoned = lock(&core.watches.abandoned.0);
    if abandoned.is_empty() {
        return;
    }
    abandoned.retain(|(bounce, number)| {
        let serving = bounce.mailbox(core).is_none_or(|mailbox| mailbox.is_serving(*number));
        let in_use = serving && core.peers.by_context(bounce.peer).is_some_and(|peer| peer.is_alive());
        if !in_use {
            core.free_lines(bounce.offset, BOUNCE_BYTES);
        }
        in_use
    });
}

/// An 8-byte atomic on memory we can address; `None` if it is not aligned.
pub(crate) fn atomic(place: Place<'_>, job: Job, compare_add: u64, swap: u64) -> Option<u64> {
    let word = place.atomic_u64()?;
    Some(match job {
        Job::FetchAdd => word.fetch_add(compare_add, Ordering::SeqCst),
        _ => match word.compare_exchange(compare_add, swap, Ordering::SeqCst, Ordering::SeqCst) {
            Ok(old) | Err(old) => old,
        },
    })
}

/// Agent: serves the request of the peer that our queue pair is connected to, if it has one.
pub(crate) fn serve(core: &Core, qp: &ShmQp) {
    let ours = qp.words();
    let Some(peer) = core.peers.by_context(ours.peer_context.load(Ordering::Relaxed)) else { return };
    let qpn = ours.peer_qp.load(Ordering::Relaxed) as u32;
    let theirs = qp_words(&peer.segment, slot_of(qpn));
    // The slot may have passed to another queue pair, or this one to another peer: then its requests are not for us.
    if theirs.identity.load(Ordering::Acquire) as u32 != qpn
        || theirs.peer_context.load(Ordering::Relaxed) != core.context
        || theirs.peer_qp.load(Ordering::Relaxed) as u32 != qp.qpn.get()
    {
        return;
    }
    let mailbox = mailbox(theirs);
    let Some((number, operands)) = mailbox.take() else { return };
    let outcome = Request::from_operands(&operands).and_then(|request| perform(core, qp, &peer, &request));
    mailbox.reply(number, outcome);
    peer.wake();
}

fn perform(core: &Core, qp: &ShmQp, peer: &Peer, request: &Request) -> Option<u64> {
    if !matches!(qp.state(), QpState::Rtr | QpState::Rts | QpState::Sqd | QpState::Sqe) {
        return None;
    }
    if request.job == Job::Invalidate {
        return core.invalidate(qp.pd, qp.qpn, request.key).ok().map(|()| 0);
    }
    // Held so that a deregistration waits for this copy as it waits for those of initiators.
    let _serving = lock(&core.serving);
    let pd = if request.pd == qp.pd { qp.pd } else { qp.receive_pd(request.pd)? };
    let place = core
        .regions
        .place_for_peer((pd, qp.qpn), request.key, request.needed, request.addr, u64::from(request.len))
        .ok()?;
    // An application that has unmapped what it registered is told by its peer's error, not by a fault in our thread.
    mapping::touch(place.addr(), place.len(), request.job != Job::Get).ok()?;
    match request.job {
        Job::CompareSwap | Job::FetchAdd => atomic(place, request.job, request.compare_add, request.swap),
        Job::Put | Job::Get | Job::Invalidate => {
            let bounce = peer.segment.place(request.bounce, u64::from(request.len))?;
            if request.job == Job::Put {
                place.copy_from(bounce)
            } else {
                bounce.copy_from(place)
            };
            Some(0)
        }
    }
}
