//! Sending, receiving, acknowledging and completing allocate nothing once everything has been used before; not with
//! losses either.

mod requester_common;

use requester_common::duplex::Duplex;
use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use tbrdma_proto::Opcode;

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

#[test]
fn no_packet_allocates() {
    for loss in [0, 50] {
        for opcode in [
            Opcode::Send,
            Opcode::SendWithImm,
            Opcode::RdmaWrite,
            Opcode::RdmaWriteWithImm,
            Opcode::RdmaRead,
            Opcode::AtomicFetchAndAdd,
        ] {
            for length in [8, 100_000] {
                let length = if opcode.is_atomic() { 8 } else { length };
                let mut duplex = Duplex::new(loss);
                // Twice what is measured: rare paths, and the deepest queues, have been seen then.
                duplex.run(opcode, length, 2000);
                let before = COUNT.get();
                duplex.run(opcode, length, 1000);
                assert_eq!(
                    COUNT.get() - before,
                    0,
                    "{opcode:?} of {length} bytes, one packet of {loss} lost"
                );
            }
        }
    }
}
