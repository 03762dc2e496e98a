//! A receive queue that many senders, in many processes, take from: a shared receive queue, or a datagram queue pair's own.
//!
//! The slots are those of [`receive`](super::receive). A sender claims the next posted receive by one compare-and-swap on the
//! slot's claim word, which also says who claimed it: a process that dies holding a claim leaves its name on it, and the
//! owner takes the receive back. The common counter is only a hint where to look; anybody may move it past a claimed slot.

use super::receive::{Posting, ReceiveRing};
use crate::sync::{AtomicU64, Ordering};

/// Word of the slot that holds the claim.
const CLAIM: usize = 3;
/// Word of the slot that holds the message's number within its receiving queue pair.
const ORDER: usize = 4;

/// Rounds of a claim for each slot of the ring, and besides.
const ROUNDS_PER_SLOT: u32 = 4;
const MIN_ROUNDS: u32 = 1000;

/// Word of the slot in which the owner says that it has left a number out.
const LEFT_OUT: usize = 5;

/// Who claims: the number by which the owner of the queue knows the sender's process, plus one (zero is nobody).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Claimer(pub(crate) u32);

/// A view of a queue with many senders.
#[derive(Clone, Copy)]
pub(crate) struct SharedReceiveRing<'a> {
    ring: ReceiveRing<'a>,
    next: &'a AtomicU64,
}

impl<'a> SharedReceiveRing<'a> {
    /// A view over a ring and the senders' counter.
    pub(crate) fn new(ring: ReceiveRing<'a>, next: &'a AtomicU64) -> Self {
        Self { ring, next }
    }

    /// The slots.
    pub(crate) fn ring(&self) -> ReceiveRing<'a> {
        self.ring
    }

    /// Sender: takes the oldest unclaimed receive, or nothing if none is posted.
    pub(crate) fn claim(&self, claimer: Claimer) -> Option<(u32, Posting<'a>)> {
        let mut number = self.next.load(Ordering::Acquire);
        // Every round that finds nothing is another sender's success; so many in a row are not the work of honest ones.
        for _ in 0..self.ring.depth().saturating_mul(ROUNDS_PER_SLOT).saturating_add(MIN_ROUNDS) {
            let receive = number as u32;
            let slot = self.ring.slot(receive);
            // The claim is read before the posting: if the slot has gone round since, the exchange below fails.
            let seen = slot[CLAIM].load(Ordering::Acquire);
            let mine = u64::from(receive.wrapping_add(1)) | u64::from(claimer.0) << 32;
            if seen as u32 == mine as u32 {
                // Somebody has it; help the counter on.
                self.move_on(number);
            } else if let Some(posting) = self.ring.posted(receive) {
                if slot[CLAIM].compare_exchange(seen, mine, Ordering::AcqRel, Ordering::Relaxed).is_ok() {
                    self.move_on(number);
                    return Some((receive, posting));
                }
            } else if slot[LEFT_OUT].load(Ordering::Acquire) == u64::from(receive) + 1 {
                self.move_on(number);
            } else if self.next.load(Ordering::Acquire) == number {
                return None;
            }
            number = self.next.load(Ordering::Acquire);
        }
        None
    }

    /// Helps the counter past a number that is not to be had; whoever was faster has done it.
    fn move_on(&self, number: u64) {
        let _ =
            self.next.compare_exchange(number, number.wrapping_add(1), Ordering::AcqRel, Ordering::Relaxed);
    }

    /// Sender, before delivering into a claimed slot: the message's number within its receiving queue pair.
    pub(crate) fn set_order(&self, number: u32, order: u32) {
        self.ring.slot(number)[ORDER].store(u64::from(order), Ordering::Relaxed);
    }

    /// Owner: that number, of a delivered slot.
    pub(crate) fn order(&self, number: u32) -> u32 {
        self.ring.slot(number)[ORDER].load(Ordering::Relaxed) as u32
    }

    /// Owner: number `number` is never posted, because a sender still holds what has its slot; senders go on to the next one.
    pub(crate) fn leave_out(&self, number: u32) {
        self.ring.slot(number)[LEFT_OUT].store(u64::from(number) + 1, Ordering::Release);
    }

    /// Owner: who has claimed receive `number`, if anyone has.
    pub(crate) fn claimer(&self, number: u32) -> Option<Claimer> {
        let word = self.ring.slot(number)[CLAIM].load(Ordering::Acquire);
        (word as u32 == number.wrapping_add(1)).then_some(Claimer((word >> 32) as u32))
    }

    /// Owner: receives up to here, exclusive, may have been claimed.
    pub(crate) fn claimed_until(&self) -> u32 {
        self.next.load(Ordering::Acquire) as u32
    }
}
