//! Events that the program has read and must acknowledge: an object is not destroyed before it has.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// How long a destroy waits before it says for what.
const SILENCE: Duration = Duration::from_secs(5);

/// The events of one object.
#[derive(Default)]
pub(crate) struct Acks {
    /// Read and not acknowledged. Negative after more acknowledgements than events: some programs acknowledge each completion.
    open: Mutex<i64>,
    changed: Condvar,
}

impl Acks {
    fn open(&self) -> MutexGuard<'_, i64> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The program reads an event.
    pub(crate) fn read(&self) {
        *self.open() += 1;
    }

    /// The program acknowledges events.
    pub(crate) fn acknowledge(&self, count: u32) {
        *self.open() -= i64::from(count);
        self.changed.notify_all();
    }

    /// Waits until all that were read are acknowledged. `what` is what is being destroyed.
    pub(crate) fn wait(&self, what: &str) {
        let mut open = self.open();
        while *open > 0 {
            let (guard, waited) =
                self.changed.wait_timeout(open, SILENCE).unwrap_or_else(PoisonError::into_inner);
            open = guard;
            if waited.timed_out() && *open > 0 {
                crate::log::tell(&format_args!(
                    "destroying {what} waits for the acknowledgement of {} events that were read",
                    *open
                ));
            }
        }
    }
}
