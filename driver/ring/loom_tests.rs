//! The models: every protocol of this room run under the model checker, on the very code that runs over shared memory.
//!
//! `RUSTFLAGS="--cfg loom" cargo test -p tbrdma --lib --release`. `LOOM_MAX_PREEMPTIONS` overrides the bound below.

mod arm;
mod busy;
mod completion;
mod guard;
mod mailbox;
mod ready;
mod receive;
mod region;
mod shared_receive;

use crate::sync::{AtomicU64, UnsafeCell};
use std::cell::Cell;

thread_local! {
    static EAGER: Cell<bool> = const { Cell::new(false) };
}

/// Runs a model over all interleavings with at most `preemptions` involuntary switches, and once more with new threads running
/// first: the checker forgets a thread's access to a word once another has read it, and with it some orders worth trying.
fn check(preemptions: usize, model: impl Fn() + Send + Sync + 'static) {
    let model = std::sync::Arc::new(model);
    for eager in [false, true] {
        // The checker runs all threads of a model on this one.
        EAGER.set(eager);
        let mut builder = loom::model::Builder::new();
        builder.preemption_bound = builder.preemption_bound.or(Some(preemptions));
        let model = std::sync::Arc::clone(&model);
        builder.check(move || model());
    }
}

mod thread {
    //! The checker's threads, started as the run wants them.

    pub(super) use loom::thread::JoinHandle;

    pub(super) fn spawn<T: 'static>(work: impl FnOnce() -> T + 'static) -> JoinHandle<T> {
        let handle = loom::thread::spawn(work);
        if super::EAGER.get() {
            loom::thread::yield_now();
        }
        handle
    }
}

/// Words as zeroed memory has them.
fn words(count: usize) -> Vec<AtomicU64> {
    (0..count).map(|_| AtomicU64::new(0)).collect()
}

/// Memory that is not atomic: the checker fails a model in which two threads reach it without one knowing of the other.
struct Bytes(UnsafeCell<u64>);

// SAFETY: the checker tracks every access and refuses those that race.
unsafe impl Sync for Bytes {}
// SAFETY: as above.
unsafe impl Send for Bytes {}

impl Bytes {
    fn new() -> Self {
        Self(UnsafeCell::new(0))
    }

    fn write(&self, value: u64) {
        // SAFETY: the checker refuses a model in which this races.
        self.0.with_mut(|bytes| unsafe { *bytes = value });
    }

    fn read(&self) -> u64 {
        // SAFETY: the checker refuses a model in which this races.
        self.0.with(|bytes| unsafe { *bytes })
    }
}

/// Looks until there is something. Two threads at once must not: the checker would let them wait for each other's sake for ever.
fn until<T>(mut look: impl FnMut() -> Option<T>) -> T {
    loop {
        if let Some(found) = look() {
            return found;
        }
        loom::thread::yield_now();
    }
}

/// Looks a few times, letting others go on in between.
fn glance<T>(looks: usize, mut look: impl FnMut() -> Option<T>) -> Option<T> {
    for left in (0..looks).rev() {
        let found = look();
        if found.is_some() {
            return found;
        }
        if left > 0 {
            loom::thread::yield_now();
        }
    }
    None
}
