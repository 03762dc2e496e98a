//! Posting and polling allocate nothing once everything has been used before.

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

use duo::{Duo, Lender};
use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

const OPERATIONS: usize = 100_000;

/// The system's allocator, which counts what each thread asks of it.
struct Counting;

thread_local! {
    static COUNT: Cell<u64> = const { Cell::new(0) };
}

fn count() {
    // A thread that is ending has nothing left to count.
    let _ = COUNT.try_with(|count| count.set(count.get() + 1));
}

// SAFETY: every call goes to the system's allocator as it is; counting allocates nothing.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: the caller's promise, passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        count();
        // SAFETY: the caller's promise, passed on.
        unsafe { System.dealloc(ptr, layout) }
    }

    unsafe fn realloc(&self, ptr: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count();
        // SAFETY: the caller's promise, passed on.
        unsafe { System.realloc(ptr, layout, size) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

/// None; but processes that share an address tell each other now and then who has which place there.
fn allowed() -> u64 {
    if process::device() == "shm" { 0 } else { 200 }
}

fn counted(act: impl FnOnce()) -> u64 {
    let before = COUNT.get();
    act();
    COUNT.get() - before
}

#[test]
fn the_count_sees_an_allocation() {
    assert_eq!(counted(|| drop(std::hint::black_box(Box::new(1)))), 2);
}

#[test]
fn a_hundred_thousand_operations_allocate_nothing() {
    for contexts in [1, 2] {
        let mut duo = Duo::new(contexts);
        for round in 0..200 {
            duo.round(round);
        }
        let allocations = counted(|| {
            let (mut done, mut round) = (0, 1000);
            while done < OPERATIONS {
                done += duo.round(round);
                round += 1;
            }
        });
        assert!(allocations <= allowed(), "{allocations} with {contexts} contexts");
    }
}

#[test]
fn lending_buffers_allocates_nothing() {
    let mut lender = Lender::new();
    for round in 0..200 {
        lender.round(round);
    }
    let allocations = counted(|| {
        for round in 0..10_000 {
            lender.round(round);
        }
    });
    assert!(allocations <= allowed(), "{allocations}");
}
