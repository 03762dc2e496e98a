//! An allocator that shows the use of memory after it was given back, as far as that can be shown without a sanitizer, which needs nightly: what is given
//! back is overwritten, and lies idle for a while, so that who still reads it reads nonsense and who writes it is found out.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::{Mutex, PoisonError};

/// Pieces that lie idle.
const PIECES: usize = 2048;
/// Pieces longer than this are given back at once.
const LONGEST: usize = 1 << 16;
/// What they are overwritten with: as an address it leads nowhere, as a number it is odd and negative.
const NONSENSE: u8 = 0xdb;

pub(super) struct Quarantine(Mutex<Idle>);

struct Idle {
    pieces: [Option<Piece>; PIECES],
    next: usize,
}

#[derive(Clone, Copy)]
struct Piece {
    at: *mut u8,
    layout: Layout,
}

// SAFETY: memory that nobody has.
unsafe impl Send for Piece {}

impl Quarantine {
    pub(super) const fn new() -> Self {
        Self(Mutex::new(Idle { pieces: [None; PIECES], next: 0 }))
    }
}

// SAFETY: memory is the system's, and is given back to it as it was taken.
unsafe impl GlobalAlloc for Quarantine {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: our caller's promise is the system's.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        let mut out = Some(Piece { at, layout });
        if layout.size() <= LONGEST {
            // SAFETY: given back, and of this size.
            unsafe { at.write_bytes(NONSENSE, layout.size()) };
            let mut idle = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            let next = idle.next;
            idle.next = (next + 1) % PIECES;
            out = std::mem::replace(&mut idle.pieces[next], out);
        }
        let Some(Piece { at, layout }) = out else { return };
        if layout.size() <= LONGEST {
            // SAFETY: it has lain idle since it was overwritten.
            let bytes = unsafe { std::slice::from_raw_parts(at, layout.size()) };
            if bytes.iter().any(|byte| *byte != NONSENSE) {
                eprintln!("{} bytes at {at:p} were written after they were given back", layout.size());
                std::process::abort();
            }
        }
        // SAFETY: taken from it with this layout.
        unsafe { System.dealloc(at, layout) };
    }
}
