//! Forks: a child gets adopted memory as a child gets any other, as a copy of its own.
//!
//! Adopted pages are shared mappings, which a child would share with its parent. So each child makes them private again before `fork`
//! returns in it. It has what is in them at that moment; real adapters have the kernel copy registered pages at a fork as well. Children that
//! are made past the C library share the pages until they execute another program.

use super::{Entered, Registry, enter, swap};
use crate::sys::mapping::Mappings;
use nix::libc;
use std::cell::RefCell;
use std::mem;
use std::sync::OnceLock;

thread_local! {
    /// The table, while its thread forks: so that the child gets it whole.
    static HELD: RefCell<Option<Entered>> = const { RefCell::new(None) };
}

/// Sees to forks from now on. `None` if that cannot be.
pub(super) fn watch() -> Option<()> {
    static WATCHED: OnceLock<bool> = OnceLock::new();
    // SAFETY: the functions are there for as long as this code, and do only what may be done around a fork.
    let watched = WATCHED
        .get_or_init(|| unsafe { libc::pthread_atfork(Some(before), Some(in_parent), Some(in_child)) } == 0);
    watched.then_some(())
}

extern "C" fn before() {
    // A thread that is ending has no place to keep it: then the child does without.
    let _ = HELD.try_with(|held| *held.borrow_mut() = Some(enter()));
}

extern "C" fn in_parent() {
    let _ = HELD.try_with(|held| held.borrow_mut().take());
}

extern "C" fn in_child() {
    let _ = HELD.try_with(|held| {
        if let Some(mut entered) = held.borrow_mut().take() {
            entered.registry.become_child();
        }
    });
}

impl Registry {
    /// Makes everything adopted private to this process. What is in the segments is the parent's.
    fn become_child(&mut self) {
        let (runs, leaving) = (mem::take(&mut self.runs), mem::take(&mut self.leaving));
        if let Ok(mappings) = Mappings::read() {
            let runs = runs.values().map(|run| (run.span, run.room.segment()));
            let leaving =
                leaving.iter().filter_map(|leaving| Some((leaving.span, leaving.segment.as_ref()?)));
            for (span, segment) in runs.chain(leaving) {
                // SAFETY: moved in by the parent. Peers may write the segment, as they may write what the parent forks; this
                // thread is the only one of the child.
                let _ = unsafe { swap::move_out(span, segment, &mappings, true) };
            }
        }
        // Contexts are the parent's too: nothing of them may end with these.
        mem::forget((runs, leaving));
    }
}
