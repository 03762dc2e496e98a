//! What a child process may do with its parent's objects: nothing. They stay the parent's, as its threads do.
//!
//! A program that forks and ends its child in an orderly way destroys, in the child, what the parent goes on to use. So a child's calls on
//! objects from before the fork do nothing, and say that it worked. What the child opens itself is its own.

use std::sync::Once;
use std::sync::atomic::{AtomicU32, Ordering};

/// How many forks lie between this process and the one that loaded the library.
static GENERATION: AtomicU32 = AtomicU32::new(0);

extern "C" fn in_child() {
    GENERATION.fetch_add(1, Ordering::Relaxed);
}

/// The generation of this process.
pub(crate) fn generation() -> u32 {
    static WATCH: Once = Once::new();
    WATCH.call_once(|| {
        // SAFETY: the function only counts, which is allowed in a child; the library is never unloaded. Without memory for it nothing is lost
        // but the care for children.
        let _ = unsafe { libc::pthread_atfork(None, None, Some(in_child)) };
    });
    GENERATION.load(Ordering::Relaxed)
}
