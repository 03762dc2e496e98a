//! Watching a program: each call and completion written to a file (`--trace`), a report at the end (`--explain`), and faults that a program meets in
//! verbs (`--fault`). Without any of them a call costs one look at a flag more.

mod faults;
mod show;
mod signal;
mod trace;

use faults::Faults;
pub(crate) use faults::{breaks, delays, delays_completions, fails, hides, hides_receives, loses, opened};
pub(crate) use show::{Attributes, Entries, Pointed, Request, Show};
use trace::Trace;

use crate::errno::Errno;
use core::ffi::c_int;
use core::fmt::Write as _;
use std::collections::BTreeMap;
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

/// What the report tells.
#[derive(Default)]
struct Report {
    /// How often each call was made.
    calls: BTreeMap<&'static str, u64>,
    /// How often a call failed with an errno.
    failures: BTreeMap<(&'static str, c_int), u64>,
    /// Why, in words: the last of each sentence's kind.
    reasons: BTreeMap<String, u64>,
    /// Completions by status.
    completions: BTreeMap<WcStatus, u64>,
}

static ON: AtomicBool = AtomicBool::new(false);
static WATCH: OnceLock<Watch> = OnceLock::new();

/// Sentences that are kept.
const REASONS: usize = 64;

/// What makes an object, and what takes it away.
const PAIRS: [(&[&str], &str); 8] = [
    (&["ibv_open_device", "ibv_import_device"], "ibv_close_device"),
    (&["ibv_alloc_pd", "alloc_parent_domain"], "ibv_dealloc_pd"),
    (&["ibv_reg_mr", "ibv_reg_mr_iova", "ibv_reg_mr_iova2"], "ibv_dereg_mr"),
    (&["ibv_create_comp_channel"], "ibv_destroy_comp_channel"),
    (&["ibv_create_cq", "create_cq_ex"], "ibv_destroy_cq"),
    (&["ibv_create_srq", "create_srq_ex"], "ibv_destroy_srq"),
    (&["ibv_create_qp", "create_qp_ex"], "ibv_destroy_qp"),
    (&["ibv_create_ah", "ibv_create_ah_from_wc"], "ibv_destroy_ah"),
];

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
        let mut report = crate::context::lock(report);
        *report.calls.entry(name).or_default() += 1;
        if let (Err(errno), false) = (outcome, found_nothing) {
            *report.failures.entry((name, errno.0)).or_default() += 1;
        }
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
        let mut report = crate::context::lock(report);
        if report.reasons.len() < REASONS {
            *report.reasons.entry(what.to_string()).or_default() += 1;
        }
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
        *crate::context::lock(report).completions.entry(wc.status).or_default() += 1;
    }
}

/// The report, when the program ends.
extern "C" fn explain() {
    let Some(report) = watch().and_then(|watch| watch.report.as_ref()) else { return };
    let report = crate::context::lock(report);
    let mut text = format!("tbrdma: process {} made these calls:", std::process::id());
    for (name, count) in &report.calls {
        let _ = write!(text, " {name} {count},");
    }
    text.truncate(text.trim_end_matches(',').len());
    for ((name, errno), count) in &report.failures {
        let _ = write!(text, "\n  {name} failed {count} times: {}", nix::errno::Errno::from_raw(*errno));
    }
    for (reason, count) in &report.reasons {
        let _ = write!(text, "\n  why ({count} times): {reason}");
    }
    for (status, count) in &report.completions {
        let _ = write!(text, "\n  {count} completions: {status:?}");
        if *status != WcStatus::Success {
            let _ = write!(text, " ({})", status.description());
        }
    }
    let made = |name: &str| {
        let failed = report.failures.iter().filter(|((known, _), _)| *known == name).map(|(_, count)| count);
        report.calls.get(name).copied().unwrap_or_default().saturating_sub(failed.sum())
    };
    for (makers, taker) in PAIRS {
        let left = makers.iter().map(|name| made(name)).sum::<u64>().saturating_sub(made(taker));
        if left > 0 {
            let _ = write!(text, "\n  {left} not given back: {taker} was not called");
        }
    }
    let _ = writeln!(std::io::stderr(), "{text}");
}
