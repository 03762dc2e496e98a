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

const OPERATIONS: usize = 100_000;

fn counted(act: impl FnOnce()) -> u64 {
    let before = calls();
    act();
    calls() - before
}

/// Does `act` many times, and fails if that allocates. Processes that share a network's address tell each other at times who has which place there; what
/// messages allocate, they do in each stretch.
fn allocates_nothing(act: impl FnMut(), times: usize) {
    const STRETCHES: usize = 100;
    let mut act = act;
    let counts: Vec<u64> =
        (0..STRETCHES).map(|_| counted(|| (0..times / STRETCHES).for_each(|_| act()))).collect();
    let (none, all) = (counts.contains(&0), counts.iter().all(|count| *count == 0));
    assert!(if process::device() == "shm" { all } else { none }, "{counts:?}");
}

#[test]
fn the_count_sees_an_allocation() {
    assert_eq!(counted(|| drop(std::hint::black_box(Box::new(1)))), 2);
}

#[test]
fn a_hundred_thousand_operations_allocate_nothing() {
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
        allocates_nothing(round, OPERATIONS / each);
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
    allocates_nothing(round, 10_000);
}
