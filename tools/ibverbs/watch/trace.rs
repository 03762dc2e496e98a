//! The trace: calls, what they were given, and completions, in a file and the last of them in memory. These are told on stderr when the program gets a
//! signal, with the calls that have not returned: so a program that hangs can be asked why.
//!
//! A line begins with the time at which it was written, in seconds from the first call on, and the thread; a call's ends with how long the call took, in
//! angle brackets. What a call was given in lists, and the completions that it found, are indented below it. `tbrdma-bench replay` reads such files: who
//! changes what is said of queue pairs, requests and completions changes `harness/replay/trace.rs` too.

use crate::context::lock;
use core::fmt::Arguments;
use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::fmt::Write as _;
use std::fs::File;
use std::io::Write as _;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;
use tbrdma_settings::{Settings, for_process};

/// Where calls are written.
pub(super) struct Trace {
    begun: Instant,
    file: Option<Mutex<File>>,
    /// Lines that are kept.
    last: usize,
    lines: Mutex<Lines>,
    /// Calls that have not returned, by thread.
    open: Mutex<BTreeMap<i32, (String, Instant)>>,
    /// Looks for completions that have found nothing since the last line.
    idle: AtomicU64,
}

#[derive(Default)]
struct Lines {
    kept: VecDeque<String>,
    written: u64,
}

thread_local! {
    /// The call that this thread is in: since when, and what is to be said of it once it is told.
    static CALL: RefCell<Option<(Instant, Vec<String>)>> = const { RefCell::new(None) };
}

impl Trace {
    /// `None` where nobody wants one.
    pub(super) fn new(settings: &Settings) -> Option<Self> {
        let file = settings.trace.as_ref().and_then(|path| {
            let path = for_process(path, std::process::id());
            File::create(&path)
                .map_err(|error| crate::log::tell(&format_args!("no trace in {}: {error}", path.display())))
                .ok()
                .map(Mutex::new)
        });
        let last = settings.kept_calls() as usize;
        (file.is_some() || last > 0).then(|| Self {
            begun: Instant::now(),
            file,
            last,
            lines: Mutex::default(),
            open: Mutex::default(),
            idle: AtomicU64::new(0),
        })
    }

    /// Whether lines are kept, to be told.
    pub(super) const fn keeps(&self) -> bool {
        self.last > 0
    }

    /// A call begins.
    pub(super) fn enter(&self, call: &str) {
        if self.keeps() {
            lock(&self.open).insert(nix::unistd::gettid().as_raw(), (call.to_owned(), Instant::now()));
        }
        let _ = CALL.try_with(|current| current.replace(Some((Instant::now(), Vec::new()))));
    }

    /// It has ended so. `None`: there is nothing to be told of it.
    pub(super) fn leave(&self, line: Option<Arguments<'_>>) {
        let current = CALL.try_with(|current| current.take()).ok().flatten();
        let (took, details) = current.map(|(since, details)| (since.elapsed(), details)).unwrap_or_default();
        if self.keeps() {
            lock(&self.open).remove(&nix::unistd::gettid().as_raw());
        }
        match line {
            Some(line) => self.write(format_args!("{line} <{:.9}>", took.as_secs_f64())),
            None => {
                self.idle.fetch_add(1, Ordering::Relaxed);
            }
        }
        for detail in details {
            self.write(format_args!("    {detail}"));
        }
    }

    /// Something about the call that this thread is in, or something else if it is in none.
    pub(super) fn detail(&self, what: Arguments<'_>) {
        let taken = CALL.try_with(|current| match current.borrow_mut().as_mut() {
            Some((_, details)) => {
                details.push(what.to_string());
                true
            }
            None => false,
        });
        if !taken.unwrap_or_default() {
            self.write(format_args!("    {what}"));
        }
    }

    fn write(&self, line: Arguments<'_>) {
        let seconds = self.begun.elapsed().as_secs_f64();
        let thread = nix::unistd::gettid();
        let line = format!("{seconds:.9} [{thread}] {line}\n");
        self.idle.store(0, Ordering::Relaxed);
        if let Some(file) = &self.file {
            // One write a line: it is in the file even if the program is killed now. A full disk is no reason to fail.
            let _ = lock(file).write_all(line.as_bytes());
        }
        if self.keeps() {
            let mut lines = lock(&self.lines);
            lines.written += 1;
            if lines.kept.len() == self.last {
                lines.kept.pop_front();
            }
            lines.kept.push_back(line);
        }
    }

    /// All that is kept, as text.
    pub(super) fn told(&self) -> String {
        let process = std::process::id();
        let lines = lock(&self.lines);
        let mut text = format!(
            "tbrdma: process {process}, the last {} of {} lines of trace:\n",
            lines.kept.len(),
            lines.written
        );
        lines.kept.iter().for_each(|line| text.push_str(line));
        drop(lines);
        for (thread, (call, since)) in lock(&self.open).iter() {
            let seconds = since.elapsed().as_secs_f64();
            let _ = writeln!(text, "tbrdma: [{thread}] has been in {call} for {seconds:.3} s");
        }
        let idle = self.idle.load(Ordering::Relaxed);
        if idle > 0 {
            let _ = writeln!(text, "tbrdma: since then {idle} looks for completions found nothing");
        }
        let _ = writeln!(text, "tbrdma: end of trace of process {process}");
        text
    }
}
