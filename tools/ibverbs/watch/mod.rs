//! Watching a program: each call and completion written to a file (`--trace`), a report at the end (`--explain`), and faults that a program meets in
//! verbs (`--fault`). Without any of them a call costs one look at a flag more, and posting and polling one more.

mod faults;
mod report;
mod show;
mod signal;
mod trace;

use faults::Faults;
pub(crate) use faults::{breaks, delays, delays_completions, fails, hides, hides_receives, loses, opened};
use report::Report;
pub(crate) use report::Use;
pub(crate) use show::{Attributes, Entries, Pointed, Request, Show};
use trace::Trace;

use crate::context::lock;
use crate::errno::Errno;
use core::fmt::Write as _;
use std::io::Write;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, OnceLock};
use tbrdma_proto::{WcStatus, WorkCompletion};
use tbrdma_settings::Settings;

/// What watches.
struct Watch {
    trace: Option<Trace>,
    report: Option<Mutex<Report>>,
    faults: Option<Faults>,
}

static ON: AtomicBool = AtomicBool::new(false);
static WATCH: OnceLock<Watch> = OnceLock::new();

/// Begins to watch, if the settings ask for it.
pub(crate) fn begin(settings: &Settings) {
    let faults = Faults::new(&settings.faults.verbs, settings.seed.unwrap_or_default());
    let trace = Trace::new(settings);
    let report = settings.explain.then(Mutex::default);
    if trace.is_none() && report.is_none() && faults.is_none() {
        return;
    }
    if report.is_some() {
        // SAFETY: a function without arguments, of a library that is never unloaded.
        unsafe { libc::atexit(explain) };
    }
    let watch = WATCH.get_or_init(|| Watch { trace, report, faults });
    ON.store(true, Ordering::Release);
    if watch.trace.as_ref().is_some_and(Trace::keeps)
        && let Some(signal) = settings.trace_signal.number()
    {
        signal::listen(signal);
    }
    if let Some(faults) = &watch.faults {
        faults.begin();
    }
}

/// Whether anybody watches.
#[inline(always)]
pub(crate) fn is_on() -> bool {
    ON.load(Ordering::Relaxed)
}

fn watch() -> Option<&'static Watch> {
    if is_on() { WATCH.get() } else { None }
}

fn trace() -> Option<&'static Trace> {
    watch().and_then(|watch| watch.trace.as_ref())
}

/// Whether somebody reads details of calls.
pub(crate) fn is_traced() -> bool {
    trace().is_some()
}

/// Arguments by their names; of room that the call fills there is nothing to show.
type Arguments<'a> = [(&'a str, Option<&'a dyn Show>)];

/// Makes a call, watched.
#[cold]
pub(crate) fn around<T: Show>(
    name: &'static str,
    arguments: &Arguments<'_>,
    body: impl FnOnce() -> Result<T, Errno>,
) -> Result<T, Errno> {
    // Before the call: it may destroy what its arguments name.
    let shown = trace().map(|trace| {
        let shown = call(name, arguments);
        trace.enter(&shown);
        shown
    });
    let outcome = faults::admit(name).and_then(|()| body());
    let result = outcome.as_ref().map_err(|errno| *errno).map(|value| {
        let mut text = String::new();
        let _ = value.show(&mut text);
        text
    });
    called(name, shown.as_deref(), &result);
    outcome
}

fn call(name: &str, arguments: &Arguments<'_>) -> String {
    let mut text = format!("{name}(");
    for (position, (argument, value)) in arguments.iter().enumerate() {
        let separator = if position == 0 { "" } else { ", " };
        let _ = write!(text, "{separator}{argument}");
        if let Some(value) = value {
            text.push('=');
            let _ = value.show(&mut text);
        }
    }
    text.push(')');
    text
}

/// A call has ended.
fn called(name: &'static str, shown: Option<&str>, outcome: &Result<String, Errno>) {
    let Some(watch) = watch() else { return };
    let found_nothing = match outcome {
        Ok(result) => result == "0" && name == "poll_cq",
        Err(errno) => *errno == Errno::ENOENT && (name == "start_poll" || name == "next_poll"),
    };
    if let Some(report) = &watch.report {
        let failure = outcome.as_ref().err().filter(|_| !found_nothing);
        lock(report).called(name, failure.map(|errno| errno.0));
    }
    let (Some(trace), Some(shown)) = (&watch.trace, shown) else { return };
    // Reading the parts of a completion is told with the completion.
    if found_nothing || name.starts_with("read_") {
        return trace.leave(None);
    }
    match outcome {
        Ok(result) => trace.leave(Some(format_args!("{shown} = {result}"))),
        Err(errno) => {
            trace.leave(Some(format_args!("{shown} failed: {}", nix::errno::Errno::from_raw(errno.0))));
        }
    }
}

/// Something about the call that is being made, for who reads the trace.
pub(crate) fn detail(what: core::fmt::Arguments<'_>) {
    if let Some(trace) = trace() {
        trace.detail(what);
    }
}

/// Whether somebody will read what the program used.
pub(crate) fn is_explained() -> bool {
    watch().is_some_and(|watch| watch.report.is_some())
}

/// So much of something is used, of so much that there is. `whose` names what has the limit.
pub(crate) fn uses(what: Use, count: usize, limit: u32, whose: core::fmt::Arguments<'_>) {
    if let Some(report) = watch().and_then(|watch| watch.report.as_ref()) {
        lock(report).uses(what, count as u64, limit.into(), whose);
    }
}

/// The report, when the program ends.
extern "C" fn explain() {
    if let Some(report) = watch().and_then(|watch| watch.report.as_ref()) {
        let _ = writeln!(std::io::stderr(), "{}", lock(report).told());
    }
}

/// Tells what is kept of the trace.
fn tell_trace() {
    if let Some(trace) = trace() {
        // One write: what others say does not come in between. A program without stderr is not told.
        let _ = std::io::stderr().write_all(trace.told().as_bytes());
    }
}

/// A sentence on why something failed.
pub(crate) fn explained(what: core::fmt::Arguments<'_>) {
    let Some(watch) = watch() else { return };
    detail(what);
    if let Some(report) = &watch.report {
        lock(report).explained(what);
    }
}

/// A completion is handed to the program.
pub(crate) fn completed(wc: &WorkCompletion) {
    let Some(watch) = watch() else { return };
    if is_traced() {
        let flags = if wc.wc_flags.is_empty() {
            String::new()
        } else {
            format!(", {} {:#x}", wc.wc_flags, wc.imm_data)
        };
        let why = if wc.status == WcStatus::Success {
            String::new()
        } else {
            format!(": {}", wc.status.description())
        };
        detail(format_args!(
            "completion on QP {}: {:?} {:?}, wr_id {}, {} bytes{flags}{why}",
            wc.qp_num, wc.opcode, wc.status, wc.wr_id, wc.byte_len
        ));
    }
    if let Some(report) = &watch.report {
        lock(report).completed(wc.status);
    }
}
