//! The agent: a context's service thread, copying for a peer that may not touch this process' own memory itself.
//!
//! The requester stages the bytes in a bounce buffer of its own segment, writes its request beside its queue pair, and
//! rings. The agent checks the request by the same rules, in its own table, copies, and answers beside the same queue pair.
//! One request a queue pair is outstanding at a time; the requester's work requests behind it wait, in order.

use super::core::{Core, header, lock, qp_words, ready_set, slot_of};
use super::peer::Peer;
use super::qp::ShmQp;
use super::send::Progress;
use crate::mem::Place;
use crate::ring::layout::QpWords;
use crate::sync::Ordering;
use tbrdma_proto::{Access, PdHandle, QpState};

/// Bytes moved by one request.
pub(crate) const BOUNCE_BYTES: u64 = 64 << 10;

const GRANTED: u64 = 1;
const REFUSED: u64 = 2;

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
}

impl Job {
    const ALL: [Self; 4] = [Self::Put, Self::Get, Self::CompareSwap, Self::FetchAdd];
}

/// A request, as it lies in `QpWords::request`.
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
    /// Requester: puts the request beside its queue pair; its number.
    pub(crate) fn send(&self, words: &QpWords) -> u64 {
        let request = &words.request;
        let number = request[0].load(Ordering::Relaxed).wrapping_add(1);
        request[1].store(self.job as u64 | u64::from(self.pd.0) << 8, Ordering::Relaxed);
        request[2].store(u64::from(self.key) | u64::from(self.len) << 32, Ordering::Relaxed);
        request[3].store(self.addr, Ordering::Relaxed);
        request[4].store(self.bounce, Ordering::Relaxed);
        request[5].store(self.compare_add, Ordering::Relaxed);
        request[6].store(self.swap, Ordering::Relaxed);
        request[7].store(u64::from(self.needed.bits()), Ordering::Relaxed);
        request[0].store(number, Ordering::Release);
        number
    }

    /// Agent: the request, if it has not been answered yet, and its number.
    fn pending(words: &QpWords) -> Option<(u64, Self)> {
        let request = &words.request;
        let number = request[0].load(Ordering::Acquire);
        if number == words.reply[0].load(Ordering::Relaxed) {
            return None;
        }
        let [job, key, addr, bounce, compare_add, swap, needed] =
            [1, 2, 3, 4, 5, 6, 7].map(|at: usize| request[at].load(Ordering::Relaxed));
        let request = Self {
            job: *Job::ALL.get(job as usize & 0xff)?,
            pd: PdHandle((job >> 8) as u32),
            needed: Access::from_bits_truncate(needed as u32),
            key: key as u32,
            len: (key >> 32) as u32,
            addr,
            bounce,
            compare_add,
            swap,
        };
        Some((number, request))
    }
}

/// An answer, as it lies in `QpWords::reply`.
pub(crate) struct Answer {
    granted: bool,
    old: u64,
}

impl Answer {
    /// Requester: the answer to request `number`, once it is there.
    pub(crate) fn read(words: &QpWords, number: u64) -> Option<Self> {
        if words.reply[0].load(Ordering::Acquire) != number {
            return None;
        }
        Some(Self {
            granted: words.reply[1].load(Ordering::Relaxed) == GRANTED,
            old: words.reply[2].load(Ordering::Relaxed),
        })
    }

    /// The old value (of an atomic), if the request was met.
    pub(crate) fn ok(&self) -> Option<u64> {
        self.granted.then_some(self.old)
    }
}

/// Requester: makes a peer's agent look at the queue pair in `slot` there.
pub(crate) fn ring(peer: &Peer, slot: u32) {
    ready_set(&header(&peer.segment).attention).insert(slot);
    peer.wake();
}

/// Requester: the bounce buffer of a work request, made when first needed.
pub(crate) fn bounce<'a>(core: &'a Core, progress: &mut Progress) -> Option<Place<'a>> {
    if progress.bounce.is_none() {
        progress.bounce = core.allocate_lines("post_send", BOUNCE_BYTES).ok();
    }
    core.segment.place(progress.bounce?, BOUNCE_BYTES)
}

/// Requester: gives it back.
pub(crate) fn release_bounce(core: &Core, progress: &mut Progress) {
    if let Some(offset) = progress.bounce.take() {
        core.free_lines(offset, BOUNCE_BYTES);
    }
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
    let theirs = qp_words(&peer.segment, slot_of(ours.peer_qp.load(Ordering::Relaxed) as u32));
    let Some((number, request)) = Request::pending(theirs) else { return };
    let outcome = perform(core, qp, &peer, &request);
    theirs.reply[1].store(if outcome.is_some() { GRANTED } else { REFUSED }, Ordering::Relaxed);
    theirs.reply[2].store(outcome.unwrap_or(0), Ordering::Relaxed);
    theirs.reply[0].store(number, Ordering::Release);
    peer.wake();
}

fn perform(core: &Core, qp: &ShmQp, peer: &Peer, request: &Request) -> Option<u64> {
    if !matches!(qp.state(), QpState::Rtr | QpState::Rts | QpState::Sqd | QpState::Sqe) {
        return None;
    }
    // Held so that a deregistration waits for this copy as it waits for those of initiators.
    let _serving = lock(&core.serving);
    let pd = if request.pd == qp.pd { qp.pd } else { qp.receive_pd(request.pd)? };
    let place = core.regions.place(pd, request.key, request.needed, request.addr, u64::from(request.len)).ok()?;
    match request.job {
        Job::CompareSwap | Job::FetchAdd => atomic(place, request.job, request.compare_add, request.swap),
        Job::Put | Job::Get => {
            let bounce = peer.segment.place(request.bounce, u64::from(request.len))?;
            if request.job == Job::Put { place.copy_from(bounce) } else { bounce.copy_from(place) };
            Some(0)
        }
    }
}
