//! A way to an object, which can be closed for good.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError};
use std::time::{Duration, Instant};

/// How often a lock is tried that somebody has.
const PAUSE: Duration = Duration::from_micros(200);

/// Takes a lock, also after a panic elsewhere: who panicked with one of ours held has only made calls.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The same until a moment; `None` if somebody has it until then.
pub(super) fn lock_until<T>(mutex: &Mutex<T>, deadline: Instant) -> Option<MutexGuard<'_, T>> {
    loop {
        match mutex.try_lock() {
            Ok(guard) => return Some(guard),
            Err(TryLockError::Poisoned(poisoned)) => return Some(poisoned.into_inner()),
            Err(TryLockError::WouldBlock) if Instant::now() >= deadline => return None,
            Err(TryLockError::WouldBlock) => std::thread::sleep(PAUSE),
        }
    }
}

/// A way to an object. One thread at a time uses it.
pub(super) struct Gate<T: ?Sized>(Mutex<Option<Arc<T>>>);

impl<T: ?Sized> Gate<T> {
    pub(super) fn new(object: &Arc<T>) -> Self {
        Self(Mutex::new(Some(Arc::clone(object))))
    }

    /// Uses the object. Once the gate is closed this never returns.
    #[inline]
    pub(super) fn with<R>(&self, use_object: impl FnOnce(&T) -> R) -> R {
        match &*lock(&self.0) {
            Some(object) => use_object(object),
            None => loop {
                std::thread::park();
            },
        }
    }

    /// Takes the object out, for its owner who is being dropped.
    pub(super) fn open(&mut self) -> Option<Arc<T>> {
        self.0.get_mut().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Closes the gate for good, and takes the object out. `None` where a thread is inside until the deadline.
    pub(super) fn close(&self, deadline: Instant) -> Option<Arc<T>> {
        let mut guard = lock_until(&self.0, deadline)?;
        let object = guard.take();
        // Who waits for it waits until the process ends.
        std::mem::forget(guard);
        object
    }
}
