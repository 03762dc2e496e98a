//! Runs cases: one by one with a bound in time for the program, or as the tests of a binary of `cargo test`.

use crate::case::Case;
use crate::common::{doubt, place};
use crate::target::Target;
use libtest_mimic::{Arguments, Failed, Trial};
use serde::{Deserialize, Serialize};
use std::any::Any;
use std::cell::RefCell;
use std::panic::{self, AssertUnwindSafe};
use std::process::ExitCode;
use std::sync::{Once, mpsc};
use std::time::{Duration, Instant};

/// How a case ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// The device does as the statement says.
    Passed,
    /// It does not.
    Failed,
    /// It does not, and that is declared.
    Deviates,
    /// The device says that it lacks what the case needs.
    Cannot,
}

/// What became of a case on a device: one line of the program's results.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Report {
    /// The device.
    pub device: String,
    /// The case, as [`Case::name`].
    pub case: String,
    /// Its area.
    pub area: String,
    /// Its statement.
    pub statement: String,
    /// Where that is said.
    pub source: String,
    /// How it ended.
    pub outcome: Outcome,
    /// Why: what failed, what is lacking, or what was declared.
    pub why: String,
    /// How long it took, in milliseconds.
    pub ms: u64,
}

thread_local! {
    /// What the case that runs in this thread has panicked with, and where; `None` in other threads.
    static PANIC: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// Has the panics of cases remembered for their reports; those of other threads are printed, as always.
fn remember_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let print = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            let of_a_case =
                PANIC.with_borrow_mut(|panic| panic.as_mut().map(|text| *text = info.to_string()).is_some());
            if !of_a_case {
                print(info);
            }
        }));
    });
}

/// Runs one case, to the end or for so long. What takes longer fails, and is left behind. The report names the device so.
pub fn run(target: &Target, label: &str, case: &'static Case, bound: Duration) -> Report {
    let report = |outcome, why: String, since: Instant| Report {
        device: label.to_owned(),
        case: case.name(),
        area: case.area.to_string(),
        statement: case.statement.to_owned(),
        source: case.source.to_owned(),
        outcome,
        why,
        ms: u64::try_from(since.elapsed().as_millis()).unwrap_or(u64::MAX),
    };
    let begun = Instant::now();
    if let Some(why) = target.cannot(case) {
        return report(Outcome::Cannot, why, begun);
    }
    let deviates = target.deviates(case);
    doubt(matches!(deviates, Some((_, true))));
    let (outcome, why) = match (bounded(case.run, bound), deviates) {
        (Ok(()), None | Some((_, false))) => (Outcome::Passed, String::new()),
        (Ok(()), Some((why, true))) => {
            (Outcome::Failed, format!("declared to deviate, but it does as the statement says: {why}"))
        }
        (Err(_), Some((why, _))) => (Outcome::Deviates, why.to_owned()),
        (Err(why), None) => (Outcome::Failed, why),
    };
    report(outcome, why, begun)
}

/// Calls it in a thread of its own; what it panicked with, or that it did not end.
fn bounded(call: fn(), bound: Duration) -> Result<(), String> {
    let (done, ended) = mpsc::channel();
    std::thread::spawn(move || _ = done.send(caught(call)));
    ended.recv_timeout(bound).unwrap_or_else(|_| Err(format!("did not end within {bound:?}")))
}

/// Calls it; what it panicked with.
fn caught(call: fn()) -> Result<(), String> {
    remember_panics();
    PANIC.set(Some(String::new()));
    let result = panic::catch_unwind(AssertUnwindSafe(call));
    place::leave();
    let said = PANIC.take().unwrap_or_default();
    result.map_err(|payload| if said.is_empty() { text(payload.as_ref()) } else { said })
}

/// What a panic was given to say.
fn text(payload: &(dyn Any + Send)) -> String {
    let text = payload.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| payload.downcast_ref::<String>().cloned()).unwrap_or_else(|| "it panicked".to_owned())
}

/// Runs the suite on a device as the tests of a binary: those whose messages nobody sends again after all others, because while these open and close
/// devices at an address, the kernel loses some.
pub fn test(device: &str) -> ExitCode {
    test_some(device, |_| true)
}

/// The same for those cases that are about messages of connected queue pairs and fit a few seconds together: what links differ in. The whole suite on such
/// devices is `cargo xtask conformance`'s.
pub fn test_connections(device: &str) -> ExitCode {
    const FILES: [&str; 8] = [
        "atomics",
        "ordering",
        "raw_posting",
        "rc_send_recv",
        "rdma_read",
        "rdma_write",
        "uc",
        "write_lists",
    ];
    // These take longest: they wait for acknowledgements of a side that does not poll.
    const LONG: [&str; 4] = ["thousands", "queue_pairs_do_not_wait", "is_there_when", "additions_of_several"];
    test_some(device, |name| {
        FILES.iter().any(|file| name.split("::").next() == Some(file))
            && !LONG.iter().any(|long| name.contains(long))
    })
}

/// The same for those cases alone whose names are wanted.
fn test_some(device: &str, wanted: impl Fn(&str) -> bool) -> ExitCode {
    let target = match Target::choose(device, None) {
        Ok(target) => target,
        Err(error) => {
            eprintln!("{error:#}");
            return ExitCode::FAILURE;
        }
    };
    let mut arguments = Arguments::from_args();
    if device.starts_with("sim") {
        // All cases are on one network, where time goes on for all when it does for one.
        arguments.test_threads = Some(1);
    }
    for unacknowledged in [false, true] {
        let cases = crate::all().filter(|case| case.unacknowledged == unacknowledged && wanted(&case.name()));
        let conclusion = libtest_mimic::run(&arguments, cases.map(|case| trial(target, case)).collect());
        if conclusion.has_failed() {
            return conclusion.exit_code();
        }
    }
    ExitCode::SUCCESS
}

/// A case as a test; ignored, and marked, where the device cannot.
fn trial(target: &'static Target, case: &'static Case) -> Trial {
    let trial = Trial::test(case.name(), move || match (caught(case.run), target.deviates(case)) {
        (Ok(()), None | Some((_, false))) | (Err(_), Some(_)) => Ok(()),
        (Ok(()), Some((why, true))) => {
            Err(Failed::from(format!("declared to deviate, but it does as the statement says: {why}")))
        }
        (Err(why), None) => Err(Failed::from(format!("{}\n  ({})\n{why}", case.statement, case.source))),
    });
    match target.cannot(case) {
        None => trial,
        Some(_) => trial.with_kind("cannot").with_ignored_flag(true),
    }
}
