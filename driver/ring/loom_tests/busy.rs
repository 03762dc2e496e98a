//! An owner that takes memory away: once it has found everybody quiet, nobody touches it any more.

use super::{Bytes, check, thread, until};
use crate::ring::busy::{ANYONE, Busy, withdraw_fence};
use crate::ring::region::{Backing, RegionEntry, Registration};
use crate::sync::AtomicU64;
use loom::sync::Arc;
use tbrdma_proto::{Access, PdHandle, Region};

const OURS: u64 = 5;
const OTHER: u64 = 6;
const KEY: u32 = 0x1_0001;

/// Where the region is at first, and where it is when its key has come back.
const PLACES: [Backing; 2] = [Backing::Segment(64), Backing::Segment(128)];

struct Shared {
    entry: RegionEntry,
    busy: [AtomicU64; 2],
    /// The bytes at either place.
    bytes: [Bytes; 2],
}

impl Shared {
    fn new() -> Arc<Self> {
        let shared = Self {
            entry: RegionEntry::from_words([0; 8]),
            busy: [AtomicU64::new(0), AtomicU64::new(0)],
            bytes: [Bytes::new(), Bytes::new()],
        };
        shared.publish(PLACES[0]);
        Arc::new(shared)
    }

    fn publish(&self, place: Backing) {
        let region =
            Region { key: KEY, pd: PdHandle(1), access: Access::REMOTE_WRITE, iova: 0x1000, length: 8 };
        self.entry.publish(&region, place);
    }

    /// An initiator's doorbell.
    fn access(&self, which: usize, context: u64) -> bool {
        self.access_again(which, context, &mut Registration::default())
    }

    /// A doorbell of one that remembers what it used last.
    fn access_again(&self, which: usize, context: u64, known: &mut Registration) -> bool {
        let busy = Busy(&self.busy[which]);
        busy.enter(context);
        let found = self.entry.find(KEY, known);
        if let Some(found) = found {
            self.bytes[usize::from(found.backing == PLACES[1])].write(1);
        }
        let allowed = found.is_some();
        busy.leave();
        allowed
    }

    /// The owner takes the region back and uses its bytes for something else.
    fn take_away(&self) {
        self.entry.withdraw();
        withdraw_fence();
        for busy in &self.busy {
            until(|| (!Busy(busy).may_touch(OURS)).then_some(()));
        }
        // A race if anybody is still at it.
        self.bytes[0].write(2);
    }
}

#[test]
fn an_owner_that_finds_its_peer_quiet_has_its_memory_for_itself() {
    for context in [OURS, ANYONE] {
        check(3, move || {
            let shared = Shared::new();
            let initiator = Arc::clone(&shared);
            let initiator = thread::spawn(move || initiator.access(0, context));
            shared.take_away();
            initiator.join().unwrap();
            assert_eq!(shared.bytes[0].read(), 2);
        });
    }
}

#[test]
fn an_initiator_that_went_on_to_somebody_else_is_quiet() {
    check(3, || {
        let shared = Shared::new();
        let initiator = Arc::clone(&shared);
        let initiator = thread::spawn(move || {
            initiator.access(0, OURS);
            // Stays with the other for as long as the model lasts: the owner must not wait for that.
            Busy(&initiator.busy[0]).enter(OTHER);
        });
        shared.take_away();
        initiator.join().unwrap();
        assert!(!Busy(&shared.busy[0]).may_touch(OURS));
        assert_eq!(shared.bytes[0].read(), 2);
    });
}

#[test]
fn a_second_attempt_after_the_withdrawal_is_refused() {
    check(3, || {
        let shared = Shared::new();
        let initiator = Arc::clone(&shared);
        let initiator = thread::spawn(move || {
            let allowed = [initiator.access(0, OURS), initiator.access(0, OURS)];
            assert_ne!(allowed, [false, true], "a withdrawn region came back");
        });
        shared.take_away();
        initiator.join().unwrap();
        assert!(!shared.access(0, OURS));
        assert_eq!(shared.bytes[0].read(), 2);
    });
}

#[test]
fn what_an_initiator_remembers_of_a_region_ends_with_it_even_if_the_key_comes_back() {
    check(3, || {
        let shared = Shared::new();
        let initiator = Arc::clone(&shared);
        let initiator = thread::spawn(move || {
            let mut known = Registration::default();
            for _ in 0..2 {
                initiator.access_again(0, OURS, &mut known);
            }
        });
        shared.take_away();
        // The same key for other bytes. The old ones stay with their owner.
        shared.publish(PLACES[1]);
        shared.bytes[0].write(3);
        initiator.join().unwrap();
        assert_eq!(shared.bytes[0].read(), 3);
    });
}
