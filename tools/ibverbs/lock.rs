//! The lock of a queue: two threads of a program may post to one queue at a time, and each holds it for less than a microsecond.
//!
//! It also stays locked from one call of the program's to another (`ibv_wr_start` to `ibv_wr_complete`), which no lock of the standard
//! library would.

use core::cell::UnsafeCell;
use core::hint::spin_loop;
use core::ops::{Deref, DerefMut};
use core::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

/// Looks at a held lock before the core is given away: its holder may need it.
const SPINS: u32 = 64;

/// A value that one thread at a time uses.
pub(crate) struct Lock<T> {
    held: AtomicBool,
    /// The thread that keeps it from one call to another, for its other calls; zero if none does.
    keeper: AtomicUsize,
    value: UnsafeCell<T>,
}

// SAFETY: the value is reached through a `Held` only, of which there is one at a time: so this is what a mutex asks for.
unsafe impl<T: Send> Sync for Lock<T> {}

impl<T> Lock<T> {
    pub(crate) const fn new(value: T) -> Self {
        Self { held: AtomicBool::new(false), keeper: AtomicUsize::new(0), value: UnsafeCell::new(value) }
    }

    /// Waits for the lock.
    #[inline(always)]
    pub(crate) fn lock(&self) -> Held<'_, T> {
        if self.held.swap(true, Ordering::Acquire) {
            self.wait();
        }
        Held { lock: self, stays: false }
    }

    /// Waits for the lock, unless this thread [keeps](Held::keep_for_this_thread) it: then it may use the value, and goes on keeping it.
    pub(crate) fn lock_or_kept(&self) -> Held<'_, T> {
        // Only this thread writes what it finds there of itself.
        if self.keeper.load(Ordering::Relaxed) == this_thread() {
            return Held { lock: self, stays: true };
        }
        self.lock()
    }

    /// Takes the lock if nobody has it.
    pub(crate) fn try_lock(&self) -> Option<Held<'_, T>> {
        (!self.held.swap(true, Ordering::Acquire)).then(|| Held { lock: self, stays: false })
    }

    #[cold]
    fn wait(&self) {
        let mut spins = 0;
        loop {
            while self.held.load(Ordering::Relaxed) {
                spins += 1;
                if spins < SPINS {
                    spin_loop();
                } else {
                    let _ = nix::sched::sched_yield();
                }
            }
            if !self.held.swap(true, Ordering::Acquire) {
                return;
            }
        }
    }

    /// The lock that an earlier call of this thread's took and [kept](Held::keep).
    ///
    /// # Safety
    /// It did, and nobody else has resumed it.
    #[inline(always)]
    pub(crate) unsafe fn resume(&self) -> Held<'_, T> {
        Held { lock: self, stays: false }
    }
}

/// A number of this thread's, which no other has at the same time.
#[inline(always)]
fn this_thread() -> usize {
    thread_local!(static MARK: u8 = const { 0 });
    MARK.with(|mark| core::ptr::from_ref(mark).addr())
}

/// The lock, held.
pub(crate) struct Held<'a, T> {
    lock: &'a Lock<T>,
    /// It is held for longer than this value lives.
    stays: bool,
}

impl<T> Held<'_, T> {
    /// Keeps the lock after this call has returned, and this thread's other calls know.
    #[inline(always)]
    pub(crate) fn keep_for_this_thread(self) {
        self.lock.keeper.store(this_thread(), Ordering::Relaxed);
        self.keep();
    }

    /// Nobody keeps it any more: it is free when this value is dropped.
    #[inline(always)]
    pub(crate) fn keeps_no_longer(&self) {
        self.lock.keeper.store(0, Ordering::Relaxed);
    }

    /// Stays locked after this call has returned, until somebody [resumes](Lock::resume).
    #[inline(always)]
    pub(crate) fn keep(self) {
        core::mem::forget(self);
    }
}

impl<T> Deref for Held<'_, T> {
    type Target = T;

    #[inline(always)]
    fn deref(&self) -> &T {
        // SAFETY: whoever has a `Held` is the one user of the value.
        unsafe { &*self.lock.value.get() }
    }
}

impl<T> DerefMut for Held<'_, T> {
    #[inline(always)]
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: as above, and `self` is borrowed uniquely.
        unsafe { &mut *self.lock.value.get() }
    }
}

impl<T> Drop for Held<'_, T> {
    #[inline(always)]
    fn drop(&mut self) {
        if !self.stays {
            self.lock.held.store(false, Ordering::Release);
        }
    }
}
