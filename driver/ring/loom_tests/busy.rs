//! An owner that takes memory away: once it has found everybody quiet, nobody touches it any more.

use super::{Bytes, check, thread, until};
use crate::ring::busy::{ANYONE, Busy, withdraw_fence};
use crate::ring::region::{Backing, RegionEntry};
use crate::sync::AtomicU64;
use loom::sync::Arc;
use tbrdma_proto::{Access, PdHandle, Region};

const OURS: u64 = 5;
const OTHER: u64 = 6;
const KEY: u32 = 0x1_0001;

struct Shared {
    entry: RegionEntry,
    busy: [AtomicU64; 2],
    bytes: Bytes,
}

impl Shared {
    fn new() -> Arc<Self> {
        let shared = Self {
            entry: RegionEntry::from_words([0; 8]),
            busy: [AtomicU64::new(0), AtomicU64::new(0)],
            bytes: Bytes::new(),
        };
        let region =
            Region { key: KEY, pd: PdHandle(1), access: Access::REMOTE_WRITE, iova: 0x1000, length: 8 };
        shared.entry.publish(&region, Backing::Segment(64));
        Arc::new(shared)
    }

    /// An initiator's doorbell.
    fn access(&self, which: usize, context: u64) -> bool {
        let busy = Busy(&self.busy[which]);
        busy.enter(context);
        let allowed = self.entry.read(KEY).is_some();
        if allowed {
            self.bytes.write(1);
        }
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
        self.bytes.write(2);
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
            assert_eq!(shared.bytes.read(), 2);
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
        assert_eq!(shared.bytes.read(), 2);
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
        assert_eq!(shared.bytes.read(), 2);
    });
}
