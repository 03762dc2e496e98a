//! Where threads sleep that have nothing to do until something is posted, time goes on, or a turn comes.

use crate::sync::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::Duration;

/// A count of everything that may interest a sleeper.
#[derive(Default)]
pub(super) struct Gate {
    count: AtomicU64,
    sleepers: AtomicU32,
    lock: Mutex<()>,
    opened: Condvar,
}

impl Gate {
    /// What has happened so far. A sleeper takes this before it looks for what it wants.
    pub(super) fn count(&self) -> u64 {
        self.count.load(Ordering::SeqCst)
    }

    /// Something has happened.
    pub(super) fn open(&self) {
        self.count.fetch_add(1, Ordering::SeqCst);
        if self.sleepers.load(Ordering::SeqCst) > 0 {
            // Who saw the old count holds this until it sleeps.
            drop(self.lock.lock().unwrap_or_else(PoisonError::into_inner));
            self.opened.notify_all();
        }
    }

    /// Sleeps until something has happened since `seen`, at most so long; for ever if `None`.
    pub(super) fn sleep(&self, seen: u64, timeout: Option<Duration>) {
        self.sleepers.fetch_add(1, Ordering::SeqCst);
        let guard = self.lock.lock().unwrap_or_else(PoisonError::into_inner);
        let nothing = |(): &mut ()| self.count() == seen;
        match timeout {
            None => drop(self.opened.wait_while(guard, nothing).unwrap_or_else(PoisonError::into_inner)),
            Some(timeout) => {
                let woken = self.opened.wait_timeout_while(guard, timeout, nothing);
                drop(woken.unwrap_or_else(PoisonError::into_inner));
            }
        }
        self.sleepers.fetch_sub(1, Ordering::SeqCst);
    }
}
