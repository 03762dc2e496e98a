//! Deadlines of a device's queue pairs: for each one moment at which it is looked at, never later than its true deadline.
//!
//! A queue pair's deadline moves with every packet, mostly to later. Then its moment is left where it is, and found to be too early when it has
//! come; a connection that is busy all the time comes here once per timeout. When a deadline moves to earlier, the entry of the later moment
//! stays in the heap as a dead one. Dead entries are swept out before there are as many as live ones.

use super::core::{Spread, lock};
use crate::sync::{AtomicU64, Ordering};
use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::hash::BuildHasherDefault;
use std::sync::Mutex;
use tbrdma_proto::Time;

/// Dead entries that are not worth a sweep.
const SLACK: usize = 64;

#[derive(Default)]
struct Table {
    heap: BinaryHeap<Reverse<(Time, u32)>>,
    /// The moment of each queue pair, `NEVER` for none. An entry of the heap that says otherwise is dead.
    moments: HashMap<u32, Time, BuildHasherDefault<Spread>>,
}

impl Table {
    fn is_live(&self, entry: &Reverse<(Time, u32)>) -> bool {
        self.moments.get(&entry.0.1) == Some(&entry.0.0)
    }

    fn bound(&self) -> usize {
        2 * self.moments.len() + SLACK
    }
}

/// The deadlines of one device.
pub(crate) struct Timers {
    table: Mutex<Table>,
    /// The earliest moment, to look at without the lock.
    next: AtomicU64,
}

impl Timers {
    pub(crate) fn new() -> Self {
        Self { table: Mutex::new(Table::default()), next: AtomicU64::new(Time::NEVER.0) }
    }

    /// The earliest moment.
    #[inline]
    pub(crate) fn next(&self) -> Time {
        Time(self.next.load(Ordering::SeqCst))
    }

    /// A queue pair comes, without a moment. All the room it will ever need is made now.
    pub(crate) fn welcome(&self, qpn: u32) {
        let mut table = lock(&self.table);
        table.moments.insert(qpn, Time::NEVER);
        let room = (table.bound() + 1).saturating_sub(table.heap.len());
        table.heap.reserve(room);
    }

    /// A queue pair goes.
    pub(crate) fn forget(&self, qpn: u32) {
        lock(&self.table).moments.remove(&qpn);
    }

    /// The queue pair is to be looked at then, and not at the later moment that was set before.
    pub(crate) fn set(&self, moment: Time, qpn: u32) {
        let mut guard = lock(&self.table);
        let table = &mut *guard;
        // A queue pair that has gone has no moments.
        let Some(known) = table.moments.get_mut(&qpn) else { return };
        *known = moment;
        table.heap.push(Reverse((moment, qpn)));
        if table.heap.len() > table.bound() {
            let moments = &table.moments;
            table.heap.retain(|Reverse((moment, qpn))| moments.get(qpn) == Some(moment));
        }
        self.publish(table);
    }

    /// Takes one queue pair whose moment has come. It has none then.
    pub(crate) fn expired(&self, now: Time) -> Option<u32> {
        if self.next() > now {
            return None;
        }
        let mut guard = lock(&self.table);
        let table = &mut *guard;
        let mut due = None;
        while due.is_none()
            && let Some(entry) = table.heap.peek()
        {
            let live = table.is_live(entry);
            if live && entry.0.0 > now {
                break;
            }
            let Some(Reverse((_, qpn))) = table.heap.pop() else { break };
            if live && let Some(moment) = table.moments.get_mut(&qpn) {
                *moment = Time::NEVER;
                due = Some(qpn);
            }
        }
        self.publish(table);
        due
    }

    fn publish(&self, table: &Table) {
        let next = table.heap.peek().map_or(Time::NEVER, |Reverse((moment, _))| *moment);
        self.next.store(next.0, Ordering::SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn timers(count: u32) -> Timers {
        let timers = Timers::new();
        (0..count).for_each(|qpn| timers.welcome(qpn));
        timers
    }

    #[test]
    fn the_earliest_moment_comes_first_and_none_before_its_time() {
        let timers = timers(4);
        assert_eq!(timers.next(), Time::NEVER);
        timers.set(Time(30), 3);
        timers.set(Time(10), 1);
        timers.set(Time(20), 2);
        assert_eq!(timers.next(), Time(10));
        assert_eq!(timers.expired(Time(9)), None);
        assert_eq!(timers.expired(Time(20)), Some(1));
        assert_eq!(timers.expired(Time(20)), Some(2));
        assert_eq!(timers.expired(Time(20)), None);
        assert_eq!(timers.next(), Time(30));
    }

    #[test]
    fn an_earlier_moment_replaces_a_later_one() {
        let timers = timers(1);
        timers.set(Time(50), 0);
        timers.set(Time(20), 0);
        assert_eq!(timers.expired(Time(20)), Some(0));
        assert_eq!(timers.expired(Time(60)), None);
        assert_eq!(timers.next(), Time::NEVER);
    }

    #[test]
    fn who_has_gone_is_not_looked_at() {
        let timers = timers(2);
        timers.set(Time(5), 0);
        timers.set(Time(6), 1);
        timers.forget(0);
        timers.set(Time(1), 0);
        assert_eq!(timers.expired(Time(9)), Some(1));
        assert_eq!(timers.expired(Time(9)), None);
    }

    #[test]
    fn dead_entries_do_not_pile_up() {
        let timers = timers(3);
        let room = lock(&timers.table).heap.capacity();
        for round in (1..100_000).rev() {
            timers.set(Time(round), (round % 3) as u32);
        }
        assert_eq!(lock(&timers.table).heap.capacity(), room);
        assert!((0..3).all(|_| timers.expired(Time(9)).is_some()));
        assert_eq!(timers.expired(Time(200_000)), None);
    }
}
