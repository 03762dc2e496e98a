//! Two locks for the data path: one for many equal takers, one that its owner takes for almost nothing.

use super::busy::Busy;
use crate::sync::{AtomicU32, Ordering, UnsafeCell, fence, spin_hint};
use std::ops::{Deref, DerefMut};

/// A lock for a few instructions. Taking it is one atomic exchange, giving it back a plain store; a thread that has to wait steps aside, so
/// that it does not keep the holder from its core.
pub(crate) struct SpinLock<T> {
    held: AtomicU32,
    value: UnsafeCell<T>,
}

// SAFETY: the value is only reached through a guard, and `held` lets one guard exist at a time.
unsafe impl<T: Send> Sync for SpinLock<T> {}

impl<T> SpinLock<T> {
    /// An open lock.
    pub(crate) fn new(value: T) -> Self {
        Self { held: AtomicU32::new(0), value: UnsafeCell::new(value) }
    }

    /// Takes the lock.
    #[inline]
    pub(crate) fn lock(&self) -> SpinGuard<'_, T> {
        while self.held.compare_exchange(0, 1, Ordering::Acquire, Ordering::Relaxed).is_err() {
            step_aside();
        }
        SpinGuard { lock: self }
    }
}

/// The right to the value of a [`SpinLock`].
pub(crate) struct SpinGuard<'a, T> {
    lock: &'a SpinLock<T>,
}

impl<T> Deref for SpinGuard<'_, T> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        // SAFETY: this guard is the only one, and it is borrowed for as long as the reference lives.
        self.lock.value.with(|value| unsafe { &*value })
    }
}

impl<T> DerefMut for SpinGuard<'_, T> {
    #[inline]
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: this guard is the only one, and it is borrowed exclusively for as long as the reference lives.
        self.lock.value.with_mut(|value| unsafe { &mut *value })
    }
}

impl<T> Drop for SpinGuard<'_, T> {
    #[inline]
    fn drop(&mut self) {
        self.lock.held.store(0, Ordering::Release);
    }
}

/// A lock with one owner and occasional intruders.
///
/// The owner says that it is inside, makes a full barrier (which it needs anyway, for its busy word), and looks whether an intruder is at the door.
/// An intruder says that it is at the door, makes a full barrier, and waits until the owner is outside. Whatever the order, one of
/// them sees the other.
pub(crate) struct OwnedLock<T> {
    number: u64,
    owner_inside: AtomicU32,
    /// Intruders at the door or inside; they exclude each other by `turn`.
    intruders: AtomicU32,
    turn: AtomicU32,
    value: UnsafeCell<T>,
}

/// The right to enter one [`OwnedLock`] as its owner. There is one, it is not copied, and entering borrows it.
#[derive(Debug)]
pub(crate) struct OwnerToken(u64);

/// Tells locks apart, so that a token opens its own only.
static NEXT_LOCK: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(0);

// SAFETY: the value is only reached through a guard. Guards exclude each other: two owners by the borrow of the only token, two
// intruders by `turn`, owner and intruder by the agreement above.
unsafe impl<T: Send> Sync for OwnedLock<T> {}

impl<T> OwnedLock<T> {
    /// An open lock, and the token of its owner.
    pub(crate) fn new(value: T) -> (Self, OwnerToken) {
        let number = NEXT_LOCK.fetch_add(1, Ordering::Relaxed);
        let lock = Self {
            number,
            owner_inside: AtomicU32::new(0),
            intruders: AtomicU32::new(0),
            turn: AtomicU32::new(0),
            value: UnsafeCell::new(value),
        };
        (lock, OwnerToken(number))
    }

    /// Enters as the owner, and marks `busy` with `context`: one full barrier serves both.
    ///
    /// # Panics
    /// The token is another lock's.
    #[inline]
    pub(crate) fn enter<'a>(
        &'a self,
        token: &'a mut OwnerToken,
        busy: Busy<'_>,
        context: u64,
    ) -> OwnerGuard<'a, T> {
        assert_eq!(token.0, self.number, "a token opens its own lock only");
        loop {
            self.owner_inside.store(1, Ordering::Relaxed);
            busy.enter(context);
            if self.intruders.load(Ordering::Acquire) == 0 {
                return OwnerGuard { lock: self, _token: token };
            }
            // `busy` stays: an intruder that is inside may have marked it too, and is still touching what it marks. At worst others
            // wait for us a little longer than they must.
            self.owner_inside.store(0, Ordering::Release);
            while self.intruders.load(Ordering::Acquire) != 0 {
                step_aside();
            }
        }
    }

    /// Enters as an intruder, after waiting for the owner and for other intruders.
    pub(crate) fn intrude(&self) -> IntruderGuard<'_, T> {
        self.intruders.fetch_add(1, Ordering::SeqCst);
        while self.turn.compare_exchange(0, 1, Ordering::Acquire, Ordering::Relaxed).is_err() {
            step_aside();
        }
        self.wait_for_owner();
        IntruderGuard { lock: self }
    }

    /// Enters as an intruder unless another one is inside.
    pub(crate) fn try_intrude(&self) -> Option<IntruderGuard<'_, T>> {
        self.intruders.fetch_add(1, Ordering::SeqCst);
        if self.turn.compare_exchange(0, 1, Ordering::Acquire, Ordering::Relaxed).is_err() {
            self.intruders.fetch_sub(1, Ordering::Release);
            return None;
        }
        self.wait_for_owner();
        Some(IntruderGuard { lock: self })
    }

    fn wait_for_owner(&self) {
        fence(Ordering::SeqCst);
        while self.owner_inside.load(Ordering::Acquire) != 0 {
            step_aside();
        }
    }
}

/// The owner, inside.
pub(crate) struct OwnerGuard<'a, T> {
    lock: &'a OwnedLock<T>,
    _token: &'a mut OwnerToken,
}

/// An intruder, inside.
pub(crate) struct IntruderGuard<'a, T> {
    lock: &'a OwnedLock<T>,
}

macro_rules! reach {
    ($guard:ident) => {
        impl<T> Deref for $guard<'_, T> {
            type Target = T;

            #[inline]
            fn deref(&self) -> &T {
                // SAFETY: this guard excludes all others, and it is borrowed for as long as the reference lives.
                self.lock.value.with(|value| unsafe { &*value })
            }
        }

        impl<T> DerefMut for $guard<'_, T> {
            #[inline]
            fn deref_mut(&mut self) -> &mut T {
                // SAFETY: this guard excludes all others, and it is borrowed exclusively for as long as the reference lives.
                self.lock.value.with_mut(|value| unsafe { &mut *value })
            }
        }
    };
}

reach!(OwnerGuard);
reach!(IntruderGuard);

impl<T> Drop for OwnerGuard<'_, T> {
    #[inline]
    fn drop(&mut self) {
        self.lock.owner_inside.store(0, Ordering::Release);
    }
}

impl<T> Drop for IntruderGuard<'_, T> {
    fn drop(&mut self) {
        self.lock.turn.store(0, Ordering::Release);
        self.lock.intruders.fetch_sub(1, Ordering::Release);
    }
}

/// The holder may be off its core: the waiter must not spin it out.
#[cold]
fn step_aside() {
    #[cfg(not(loom))]
    crate::sys::process::yield_now();
    spin_hint();
}
