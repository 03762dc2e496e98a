//! What is to be done later, by a thread of ours: it is started when there is something for the first time, which only faults have.

use crate::context::lock;
use crate::fork;
use nix::sys::signal::{SigSet, SigmaskHow};
use std::collections::BTreeMap;
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::Instant;

type Task = Box<dyn FnOnce() + Send>;

struct Clock {
    /// By time, and then in the order in which they came.
    tasks: BTreeMap<(Instant, u64), Task>,
    next: u64,
    /// The process that has the thread: a child of it has none.
    thread_of: Option<u32>,
}

static CLOCK: Mutex<Clock> = Mutex::new(Clock { tasks: BTreeMap::new(), next: 0, thread_of: None });
static CHANGED: Condvar = Condvar::new();

/// Does this at that time, or soon after. Without a thread for it, which the system may refuse, it is not done, and that is told.
pub(crate) fn at(due: Instant, task: impl FnOnce() + Send + 'static) {
    let mut clock = lock(&CLOCK);
    let generation = fork::generation();
    if clock.thread_of != Some(generation) {
        // What a parent had to do is the parent's.
        clock.tasks.clear();
        if !start("tbrdma-clock", run) {
            return;
        }
        clock.thread_of = Some(generation);
    }
    let number = clock.next;
    clock.next += 1;
    clock.tasks.insert((due, number), Box::new(task));
    drop(clock);
    CHANGED.notify_one();
}

/// Starts a thread that takes none of the program's signals.
pub(crate) fn start(name: &str, body: impl FnOnce() + Send + 'static) -> bool {
    let mut before = SigSet::empty();
    let blocked =
        nix::sys::signal::pthread_sigmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::all()), Some(&mut before));
    let started = std::thread::Builder::new().name(name.to_owned()).spawn(body);
    if blocked.is_ok() {
        let _ = before.thread_set_mask();
    }
    started.map_err(|error| crate::log::tell(&format_args!("no thread for {name}: {error}"))).is_ok()
}

fn run() {
    let mut clock = lock(&CLOCK);
    loop {
        let now = Instant::now();
        match clock.tasks.first_key_value().map(|((due, _), _)| *due) {
            Some(due) if due <= now => {
                let task = clock.tasks.pop_first();
                drop(clock);
                if let Some((_, task)) = task {
                    task();
                }
                clock = lock(&CLOCK);
            }
            Some(due) => {
                let waited = CHANGED.wait_timeout(clock, due - now);
                clock = waited.unwrap_or_else(PoisonError::into_inner).0;
            }
            None => clock = CHANGED.wait(clock).unwrap_or_else(PoisonError::into_inner),
        }
    }
}
