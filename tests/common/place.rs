//! Where devices of one peer meet: each case has a place of its own, since at one place there is room for two. Of windows in files, and of streams, there are
//! two kinds, which take turns if the name is `bar:either:*` or `stream:either:*`.

use super::clock::patience;
use std::cell::{Cell, RefCell};
use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};
use tbrdma::{AsyncEvent, AsyncEventKind, Context, Error};

thread_local! {
    static HERE: Cell<Option<&'static str>> = const { Cell::new(None) };
    static CONTEXTS: RefCell<Vec<Context>> = const { RefCell::new(Vec::new()) };
}

/// The device of that name; if there is an asterisk in it, the one at this thread's place, for which that stands.
pub(crate) fn here(name: &'static str) -> &'static str {
    let Some((before, after)) = name.split_once('*') else { return name };
    HERE.get().unwrap_or_else(|| {
        static PLACES: AtomicU32 = AtomicU32::new(0);
        let folder = if Path::new("/dev/shm").is_dir() { "/dev/shm" } else { "/tmp" };
        let number = PLACES.fetch_add(1, Ordering::Relaxed);
        let path = format!("{folder}/tbrdma-test-{}-{number}", std::process::id());
        let kinds = if before.starts_with("bar:") { ["file", "paired"] } else { ["unix", "standin"] };
        let before = before.replace("either", kinds[number as usize % 2]);
        let here: &'static str = Box::leak(format!("{before}{path}{after}").into_boxed_str());
        HERE.set(Some(here));
        here
    })
}

/// Another context of this device. At a place for two, the two share it who come later; and the first thing that either hears is that they have met.
pub(crate) fn open(name: &str) -> Result<Context, Error> {
    if HERE.get() != Some(name) {
        let begun = std::time::Instant::now();
        return loop {
            match tbrdma::open(name) {
                // Who played the far party of the last case is about to close.
                Err(Error::Busy { .. }) if begun.elapsed() < patience() => std::thread::yield_now(),
                result => break result,
            }
        };
    }
    CONTEXTS.with_borrow_mut(|contexts| {
        if contexts.len() >= 2 {
            contexts.rotate_left(1);
            return Ok(contexts[1].clone());
        }
        let new = tbrdma::open(name)?;
        contexts.push(new.clone());
        if contexts.len() == 2 {
            for context in &*contexts {
                let event = context.async_events().next(Some(patience()))?;
                assert_eq!(event.map(|event| event.kind), Some(AsyncEventKind::PortActive));
            }
        }
        Ok(new)
    })
}

/// Whether an event says no more than that two sides have met who are in two processes: then nobody knows when.
pub(crate) fn is_of_meeting(event: &AsyncEvent) -> bool {
    let name = super::chosen();
    event.kind == AsyncEventKind::PortActive && name.starts_with("bar:") && !name.contains('*')
}

/// The case of this thread has ended: the next one has another place, and nothing is left at this one.
pub(crate) fn leave() {
    CONTEXTS.take();
    let Some(here) = HERE.take() else { return };
    let Some(start) = here.find("/dev/shm/").or_else(|| here.find("/tmp/")) else { return };
    for end in ["", ".a", ".b"] {
        let _ = std::fs::remove_file(format!("{}{end}", &here[start..]));
    }
}
