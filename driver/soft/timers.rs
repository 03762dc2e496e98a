//! Deadlines of a device's queue pairs: a heap with at most one entry a queue pair that is never later than its true deadline.
//!
//! A queue pair's deadline moves with every packet, mostly to later. So an entry is left where it is when the deadline moves back, and
//! looked at again when its time has come; a connection that is busy all the time touches the heap once per timeout.

use super::core::lock;
use crate::sync::{AtomicU64, Ordering};
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::Mutex;
use tbrdma_proto::Time;

/// The deadlines of one device.
pub(crate) struct Timers {
    heap: Mutex<BinaryHeap<Reverse<(Time, u32)>>>,
    /// The earliest of them, to look at without the lock.
    next: AtomicU64,
}

impl Timers {
    pub(crate) fn new() -> Self {
        Self { heap: Mutex::new(BinaryHeap::new()), next: AtomicU64::new(Time::NEVER.0) }
    }

    /// The earliest deadline.
    #[inline]
    pub(crate) fn next(&self) -> Time {
        Time(self.next.load(Ordering::SeqCst))
    }

    /// Looks at the queue pair with this number at `deadline`.
    pub(crate) fn add(&self, deadline: Time, qpn: u32) {
        let mut heap = lock(&self.heap);
        heap.push(Reverse((deadline, qpn)));
        self.publish(&heap);
    }

    /// Takes one queue pair whose time has come, with the time of its entry.
    pub(crate) fn expired(&self, now: Time) -> Option<(Time, u32)> {
        if self.next() > now {
            return None;
        }
        let mut heap = lock(&self.heap);
        let due = heap.peek().is_some_and(|Reverse((deadline, _))| *deadline <= now);
        let taken = if due { heap.pop() } else { None };
        self.publish(&heap);
        taken.map(|Reverse(entry)| entry)
    }

    fn publish(&self, heap: &BinaryHeap<Reverse<(Time, u32)>>) {
        let next = heap.peek().map_or(Time::NEVER, |Reverse((deadline, _))| *deadline);
        self.next.store(next.0, Ordering::SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_earliest_deadline_comes_first_and_none_before_its_time() {
        let timers = Timers::new();
        assert_eq!(timers.next(), Time::NEVER);
        timers.add(Time(30), 3);
        timers.add(Time(10), 1);
        timers.add(Time(20), 2);
        assert_eq!(timers.next(), Time(10));
        assert_eq!(timers.expired(Time(9)), None);
        assert_eq!(timers.expired(Time(20)), Some((Time(10), 1)));
        assert_eq!(timers.expired(Time(20)), Some((Time(20), 2)));
        assert_eq!(timers.expired(Time(20)), None);
        assert_eq!(timers.next(), Time(30));
    }
}
