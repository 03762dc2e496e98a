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
use std::time::{Duration, Instant};

const OPERATIONS: usize = 100_000;

/// None; but processes that share an address tell each other now and then who has which place there, the more often the longer it takes.
fn allowed(time: Duration) -> u64 {
    if process::device() == "shm" { 0 } else { 200 + 40 * time.as_secs() }
}

/// How often memory was asked for, and how long it took.
fn counted(act: impl FnOnce()) -> (u64, Duration) {
    let (before, begun) = (calls(), Instant::now());
    act();
    (calls() - before, begun.elapsed())
}

#[test]
fn the_count_sees_an_allocation() {
    assert_eq!(counted(|| drop(std::hint::black_box(Box::new(1)))).0, 2);
}

#[test]
fn a_hundred_thousand_operations_allocate_nothing() {
    for contexts in [1, 2] {
        let mut duo = Duo::new(contexts);
        for round in 0..200 {
            duo.round(round);
        }
        let (allocations, time) = counted(|| {
            let (mut done, mut round) = (0, 1000);
            while done < OPERATIONS {
                done += duo.round(round);
                round += 1;
            }
        });
        assert!(allocations <= allowed(time), "{allocations} with {contexts} contexts in {time:?}");
    }
}

#[test]
fn lending_buffers_allocates_nothing() {
    let mut lender = Lender::new();
    for round in 0..200 {
        lender.round(round);
    }
    let (allocations, time) = counted(|| {
        for round in 0..10_000 {
            lender.round(round);
        }
    });
    assert!(allocations <= allowed(time), "{allocations} in {time:?}");
}
