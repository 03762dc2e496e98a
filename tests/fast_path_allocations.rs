//! Posting and polling allocate nothing once everything has been used before.

#[path = "../proto/tests/counting/mod.rs"]
mod counting;
#[path = "common/duo.rs"]
mod duo;
#[path = "common/foreign.rs"]
mod foreign;
#[path = "common/pattern.rs"]
mod pattern;
#[path = "common/process.rs"]
mod process;
#[path = "common/puppet.rs"]
mod puppet;
#[path = "common/seccomp.rs"]
mod seccomp;

use counting::calls;
use duo::{Duo, Lender};

/// Messages of a stretch, which is counted as one.
const STRETCH: usize = 1000;

/// A device without packets is quick, and never has a reason; with packets most of the time is theirs.
fn stretches() -> usize {
    if process::device() == "shm" { 100 } else { 20 }
}

fn counted(act: impl FnOnce()) -> u64 {
    let before = calls();
    act();
    calls() - before
}

/// Does `act`, which is so many messages, many times, and fails if that allocates. Processes that share a network's address tell each other at times who has which place there; what
/// messages allocate, they do in each stretch.
fn allocates_nothing(mut act: impl FnMut(), messages: usize) {
    let counts: Vec<u64> =
        (0..stretches()).map(|_| counted(|| (0..STRETCH / messages).for_each(|_| act()))).collect();
    let (none, all) = (counts.contains(&0), counts.iter().all(|count| *count == 0));
    assert!(if process::device() == "shm" { all } else { none }, "{counts:?}");
}

#[test]
fn the_count_sees_an_allocation() {
    assert_eq!(counted(|| drop(std::hint::black_box(Box::new(1)))), 2);
}

#[test]
fn thousands_of_operations_allocate_nothing() {
    for contexts in [1, 2] {
        let mut duo = Duo::new(contexts);
        let (mut each, mut number) = (0, 0);
        for _ in 0..200 {
            each = duo.round(number);
            number += 1;
        }
        let round = || {
            duo.round(number);
            number += 1;
        };
        allocates_nothing(round, each);
    }
}

#[test]
fn lending_buffers_allocates_nothing() {
    let mut lender = Lender::new();
    let mut number = 0;
    let mut round = || {
        lender.round(number);
        number += 1;
    };
    (0..200).for_each(|_| round());
    // A round takes as long as some messages.
    allocates_nothing(round, 10);
}
