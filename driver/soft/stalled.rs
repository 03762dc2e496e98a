//! Trains that wait for room on a link that loses nothing. The queue pair they are of sends nothing else before them; whoever makes a pass tries again.

use super::core::{Core, lock};
use super::qp::Inner;
use crate::link::Train;
use crate::sync::{AtomicU32, Ordering};
use std::collections::VecDeque;
use std::io::ErrorKind;
use std::sync::Mutex;
use tbrdma_proto::Time;

/// What waits, on one device.
#[derive(Default)]
pub(crate) struct Stalled {
    list: Mutex<List>,
    /// Whether anything is in the list.
    any: AtomicU32,
}

#[derive(Default)]
struct List {
    /// Queue pairs with trains that wait, each once.
    qpns: Vec<u32>,
    /// Trains of queue pairs that are no more: their last words.
    left_behind: VecDeque<Train>,
    /// Storage of trains that have left.
    spare: Vec<Train>,
}

impl Stalled {
    /// Whether anything waits, as far as a look without the lock tells.
    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.any.load(Ordering::Relaxed) == 0
    }

    /// Takes the queue pairs that wait. Those that still do after that are told again.
    #[cold]
    pub(crate) fn take(&self, into: &mut Vec<u32>) {
        let mut list = lock(&self.list);
        self.any.store(u32::from(!list.left_behind.is_empty()), Ordering::Relaxed);
        into.append(&mut list.qpns);
    }
}

impl Core {
    /// Puts the train aside, and an empty one in its place.
    #[cold]
    pub(super) fn put_aside(&self, train: &mut Train, aside: &mut Vec<Train>) {
        let spare = lock(&self.stalled.list).spare.pop().unwrap_or_else(Train::new);
        aside.push(std::mem::replace(train, spare));
    }

    /// The queue pair's trains are to be tried again.
    #[cold]
    pub(super) fn waits_for_room(&self, qpn: u32, inner: &mut Inner) {
        if !std::mem::replace(&mut inner.is_stalled, true) {
            lock(&self.stalled.list).qpns.push(qpn);
            self.stalled.any.store(1, Ordering::Relaxed);
        }
    }

    /// Sends trains that wait, in order. False if there is still no room for all of them.
    #[cold]
    pub(super) fn send_waiting(&self, trains: &mut VecDeque<Train>, now: Time) -> bool {
        while let Some(mut train) = trains.pop_front() {
            if self.link.send(now, &mut train).is_err_and(|error| error.kind() == ErrorKind::WouldBlock) {
                trains.push_front(train);
                return false;
            }
            lock(&self.stalled.list).spare.push(train);
        }
        true
    }

    /// The queue pair ends, or begins anew: what it has said is still to be heard.
    pub(super) fn leave_behind(&self, inner: &mut Inner) {
        if !inner.waiting.is_empty() {
            lock(&self.stalled.list).left_behind.append(&mut inner.waiting);
            self.stalled.any.store(1, Ordering::Relaxed);
        }
    }

    /// Tries the trains that were left behind.
    #[cold]
    pub(super) fn send_left_behind(&self, now: Time) {
        let mut trains = std::mem::take(&mut lock(&self.stalled.list).left_behind);
        if !self.send_waiting(&mut trains, now) {
            let mut list = lock(&self.stalled.list);
            trains.append(&mut list.left_behind);
            list.left_behind = trains;
        }
    }
}
