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

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc::channel;

    #[test]
    fn closing_waits_for_who_is_inside_and_not_for_ever() {
        let object = Arc::new(7);
        let gate = Arc::new(Gate::new(&object));
        let (entered, is_inside) = channel();
        let (leave, may_leave) = channel::<()>();
        let inside = {
            let gate = Arc::clone(&gate);
            std::thread::spawn(move || {
                gate.with(|_| {
                    entered.send(()).unwrap();
                    may_leave.recv().unwrap();
                });
            })
        };
        is_inside.recv().unwrap();
        assert!(gate.close(Instant::now() + Duration::from_millis(5)).is_none(), "somebody is inside");
        leave.send(()).unwrap();
        inside.join().unwrap();
        assert_eq!(gate.close(Instant::now() + Duration::from_secs(20)), Some(object));
    }

    #[test]
    fn nobody_comes_through_a_closed_gate() {
        let gate = Arc::new(Gate::new(&Arc::new(7)));
        gate.close(Instant::now() + Duration::from_secs(20)).unwrap();
        let (passed, has_passed) = channel();
        let late = Arc::clone(&gate);
        // It waits until the process ends.
        std::thread::spawn(move || passed.send(late.with(|value| *value)));
        assert!(has_passed.recv_timeout(Duration::from_millis(50)).is_err());
        assert!(gate.close(Instant::now()).is_none(), "it is closed for good");
    }

    #[test]
    fn an_owner_takes_its_object_out() {
        let mut gate = Gate::new(&Arc::new(7));
        assert_eq!(gate.with(|value| *value), 7);
        assert_eq!(gate.open().as_deref(), Some(&7));
        assert!(gate.open().is_none());
    }
}
