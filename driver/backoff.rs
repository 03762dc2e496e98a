//! What an empty poll does: spin while the answer is a cache line away, step aside when somebody else needs the core.
//!
//! The rule. The first polls of an empty spell cost nothing. Every 64 of them the clock is read (no system
//! call): if 20 us have passed since the first look, or if 64 polls took so long that this thread must have been off its core, then every
//! further 16th poll gives the core away (`sched_yield`) until something arrives. So a pair that answers within microseconds
//! makes no system call, and two spinners that share a core, or a spinner beside a busy machine, do not starve anyone.
//!
//! What ended one spell will probably end the next. If it ended while the core was being given away, then 2 us are enough before the next one does the
//! same: two pollers that the scheduler has put on one core would else spin 20 us for each message, each in the other's way.

use std::time::{Duration, Instant};

/// An empty spell this long starts to yield.
const PATIENCE: Duration = Duration::from_micros(20);
/// The same after one that ended while yielding.
const SHORT_PATIENCE: Duration = Duration::from_micros(2);
/// Polls between two looks at the clock.
const POLLS_PER_LOOK: u32 = 64;
/// Polls between two yields once yielding.
const POLLS_PER_YIELD: u32 = 16;

/// The state of one poller's empty spell.
#[derive(Debug, Default)]
pub(crate) struct Backoff {
    polls: u32,
    since: Option<Instant>,
    yielding: bool,
    /// The last spell ended while yielding.
    yielded: bool,
}

impl Backoff {
    /// Something arrived: the spell is over.
    #[inline]
    pub(crate) fn reset(&mut self) {
        // A spell of fewer polls did not yield: then the mark is of an earlier one.
        self.yielded = self.yielding && self.polls >= POLLS_PER_YIELD;
        self.polls = 0;
    }

    /// One more empty poll. Must the poller give its core away now? It asks under whatever lock it holds, and does it without.
    #[inline]
    #[must_use]
    pub(crate) fn idle(&mut self) -> bool {
        self.polls = self.polls.wrapping_add(1);
        self.polls.is_multiple_of(POLLS_PER_YIELD) && self.look()
    }

    #[cold]
    fn look(&mut self) -> bool {
        if self.polls <= POLLS_PER_YIELD {
            self.yielding = false;
            self.since = None;
        }
        let was_yielding = self.yielding;
        if !was_yielding && self.polls.is_multiple_of(POLLS_PER_LOOK) {
            let now = Instant::now();
            let since = *self.since.get_or_insert(now);
            self.yielding = now.duration_since(since) > if self.yielded { SHORT_PATIENCE } else { PATIENCE };
        }
        was_yielding
    }
}

thread_local! {
    static RELAX: std::cell::RefCell<Backoff> = std::cell::RefCell::new(Backoff::default());
}

/// For loops that wait on memory rather than on a completion queue: call it with the number of looks so far (0 when a new wait
/// begins). It spins at first and gives the core away once the wait is long, by the same rule as an empty
/// [`CompletionQueue::poll`](crate::CompletionQueue::poll).
#[inline]
pub fn relax(spins: u32) {
    // The first looks follow each other at once: what comes within a cache line's way or two should be seen when it comes.
    if spins >= POLLS_PER_YIELD {
        relax_longer(spins);
    }
}

#[cold]
fn relax_longer(spins: u32) {
    std::hint::spin_loop();
    RELAX.with_borrow_mut(|backoff| {
        if spins == POLLS_PER_YIELD {
            backoff.reset();
        }
        if backoff.idle() {
            crate::sys::process::yield_now();
        }
    });
}
