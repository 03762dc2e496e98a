//! The threads of this process: which of them are the library's own, and whether there are any others.

use super::process::{process_id, yield_now};
use nix::sys::signal::{SigSet, SigmaskHow};
use nix::unistd::gettid;
use std::sync::atomic::{AtomicI32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// How long a thread that has ended may still be listed, on a machine that has other things to do.
const LINGERING: Duration = Duration::from_millis(100);

/// How long one that has been announced may take to begin.
const BEGINNING: Duration = Duration::from_secs(1);

/// The library's own threads: the process and the id of each, 0 until it has begun. And when one ended last.
struct Own {
    ids: Vec<(i32, Arc<AtomicI32>)>,
    last_end: Option<Instant>,
}

static OWN: Mutex<Own> = Mutex::new(Own { ids: Vec::new(), last_end: None });

fn own() -> MutexGuard<'static, Own> {
    OWN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The kernel ends waits of the calling thread when they are over, not up to 50 us later to save a wake-up.
pub(crate) fn wake_sharply() {
    // Where it is refused, waits are a little longer.
    let _ = nix::sys::prctl::set_timerslack(1);
}

/// One of the library's own threads: made by who starts it, [begun](Self::begin) by the thread, and dropped by it at its end.
pub(crate) struct OwnThread(Arc<AtomicI32>);

impl OwnThread {
    /// A thread that is about to be started.
    pub(crate) fn announce() -> Self {
        let id = Arc::new(AtomicI32::new(0));
        own().ids.push((process_id(), Arc::clone(&id)));
        Self(id)
    }

    /// Says that it is the calling thread.
    pub(crate) fn begin(&self) {
        self.0.store(gettid().as_raw(), Ordering::Release);
    }
}

impl Drop for OwnThread {
    fn drop(&mut self) {
        let mut own = own();
        own.ids.retain(|(_, id)| !Arc::ptr_eq(id, &self.0));
        own.last_end = Some(Instant::now());
    }
}

/// Is the calling thread the only one of this process, but for the library's own? False also where that cannot be found out.
pub(crate) fn alone() -> bool {
    let asked = Instant::now();
    let process = process_id();
    loop {
        let Some(listed) = listed() else { return false };
        let own = own();
        // A child of fork has the list of its parent, and none of its threads.
        let here = own.ids.iter().filter(|(of, _)| *of == process);
        let ours: Vec<i32> = here.map(|(_, id)| id.load(Ordering::Acquire)).collect();
        let recent = own.last_end.is_some_and(|end| end.elapsed() < LINGERING);
        drop(own);
        let me = gettid().as_raw();
        if listed.iter().all(|id| *id == me || ours.contains(id)) {
            return true;
        }
        // One that is not known may be one of ours: about to begin, or just ended.
        if !ours.contains(&0) && !recent || asked.elapsed() > BEGINNING {
            return false;
        }
        yield_now();
    }
}

/// The threads that the kernel lists.
fn listed() -> Option<Vec<i32>> {
    let entries = std::fs::read_dir("/proc/self/task").ok()?;
    entries.map(|entry| entry.ok()?.file_name().to_str()?.parse().ok()).collect()
}

/// Keeps signal handlers from running in the calling thread until it is dropped.
pub(crate) struct SignalsBlocked(Option<SigSet>);

impl SignalsBlocked {
    pub(crate) fn now() -> Self {
        Self(SigSet::all().thread_swap_mask(SigmaskHow::SIG_BLOCK).ok())
    }
}

impl Drop for SignalsBlocked {
    fn drop(&mut self) {
        if let Some(before) = &self.0 {
            // Fails for no set that the kernel has given.
            let _ = before.thread_set_mask();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc::channel;

    #[test]
    fn a_thread_of_somebody_else_is_noticed() {
        // The test runner has a thread of its own, so this one is never alone.
        let (stop, stopped) = channel::<()>();
        let thread = std::thread::spawn(move || stopped.recv());
        assert!(!alone());
        drop(stop);
        let _ = thread.join();
    }

    #[test]
    fn signals_come_when_the_block_is_over() {
        let before = SigSet::thread_get_mask().unwrap();
        let blocked = SignalsBlocked::now();
        assert!(SigSet::thread_get_mask().unwrap().contains(nix::sys::signal::Signal::SIGUSR1));
        drop(blocked);
        assert_eq!(SigSet::thread_get_mask().unwrap(), before);
    }
}
