//! The locks of the data path: one at a time inside, and each sees what the one before it did.

use super::{check, thread};
use crate::ring::busy::Busy;
use crate::ring::guard::{OwnedLock, SpinLock};
use crate::sync::AtomicU64;
use loom::sync::Arc;

// Two threads at a time: three that wait in turn are more than the checker can follow.

#[test]
fn a_spin_lock_lets_one_in() {
    check(3, || {
        let lock = Arc::new(SpinLock::new(0));
        let other = Arc::clone(&lock);
        let other = thread::spawn(move || {
            *other.lock() += 1;
            *other.lock() += 10;
        });
        *lock.lock() += 100;
        *lock.lock() += 1000;
        other.join().unwrap();
        assert_eq!(*lock.lock(), 1111);
    });
}

#[test]
fn an_owner_and_an_intruder_exclude_each_other() {
    check(3, || {
        let (lock, mut token) = OwnedLock::new(0);
        let shared = Arc::new((lock, AtomicU64::new(0)));
        let intruder = Arc::clone(&shared);
        let intruder = thread::spawn(move || *intruder.0.intrude() += 10);
        for _ in 0..2 {
            let busy = Busy(&shared.1);
            *shared.0.enter(&mut token, busy, 5) += 1;
            busy.leave();
        }
        intruder.join().unwrap();
        assert_eq!(*shared.0.intrude(), 12);
    });
}

#[test]
fn an_intruder_that_only_tries_waits_for_the_owner_too() {
    check(3, || {
        let (lock, mut token) = OwnedLock::new(0);
        let shared = Arc::new((lock, AtomicU64::new(0)));
        let intruder = Arc::clone(&shared);
        let intruder = thread::spawn(move || {
            *intruder.0.try_intrude().expect("there is no other intruder") += 10;
        });
        let busy = Busy(&shared.1);
        *shared.0.enter(&mut token, busy, 5) += 1;
        busy.leave();
        intruder.join().unwrap();
        assert_eq!(*shared.0.intrude(), 11);
    });
}

#[test]
fn two_intruders_exclude_each_other() {
    check(3, || {
        let (lock, _token) = OwnedLock::new(0);
        let lock = Arc::new(lock);
        let one = Arc::clone(&lock);
        let one = thread::spawn(move || {
            *one.intrude() += 1;
            one.try_intrude().map(|mut value| *value += 10).is_some()
        });
        *lock.intrude() += 100;
        let expected = if one.join().unwrap() { 111 } else { 101 };
        assert_eq!(*lock.intrude(), expected);
    });
}
