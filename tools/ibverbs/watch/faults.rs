//! Faults that a program meets in verbs: the plan is asked here, at each call, work request and completion.

use super::{Watch, watch};
use crate::clock;
use crate::context::lock;
use crate::errno::Errno;
use crate::happen;
use std::sync::{Mutex, Once};
use std::time::{Duration, Instant};
use tbrdma_proto::fault::{VerbsCall, VerbsFaults, VerbsPlan};
use tbrdma_proto::{Opcode, WcStatus};

/// The plan, in action.
pub(super) struct Faults {
    dice: Mutex<VerbsFaults>,
    hides_receives: bool,
    delays_completions: bool,
}

impl Faults {
    /// `None` for a plan of nothing.
    pub(super) fn new(plan: &VerbsPlan, seed: u64) -> Option<Self> {
        (!plan.is_none()).then(|| Self {
            dice: Mutex::new(VerbsFaults::new(plan, seed)),
            hides_receives: !plan.absences.is_empty(),
            delays_completions: !plan.delays.is_empty(),
        })
    }

    /// The call that the watch begins in is the first.
    pub(super) fn begin(&self) {
        let due = lock(&self.dice).called();
        due.for_each(happen::happen);
    }
}

/// A device has been opened. What happens after a time is counted from the first.
pub(crate) fn opened() {
    static ONCE: Once = Once::new();
    let Some(faults) = faults() else { return };
    ONCE.call_once(|| {
        let now = Instant::now();
        for (after, what) in lock(&faults.dice).timed() {
            clock::at(now + after, move || happen::happen(what));
        }
    });
}

fn faults() -> Option<&'static Faults> {
    watch().and_then(|Watch { faults, .. }| faults.as_ref())
}

/// Asks the dice.
fn ask<T>(what: impl FnOnce(&mut VerbsFaults) -> T) -> Option<T> {
    faults().map(|faults| what(&mut lock(&faults.dice)))
}

/// How often a program looks for completions depends on time, so that is not counted.
fn counts(name: &str) -> bool {
    !matches!(name, "poll_cq" | "start_poll" | "next_poll" | "end_poll") && !name.starts_with("read_")
}

/// Whether a call is refused, because the fault plan wants it, or because there is no device any more.
pub(super) fn admit(name: &str) -> Result<(), Errno> {
    let Some(faults) = faults() else { return Ok(()) };
    let name = name.trim_start_matches('_');
    let name = name.strip_prefix("ibv_").unwrap_or(name);
    if counts(name) {
        let due = lock(&faults.dice).called();
        due.for_each(happen::happen);
    }
    happen::admit(name)?;
    let call = VerbsCall::ALL.into_iter().find(|call| match name.strip_prefix(call.name()) {
        Some(rest) => matches!(rest, "" | "_ex" | "_iova" | "_iova2" | "_from_wc"),
        None => false,
    });
    match call.and_then(|call| lock(&faults.dice).refuse(call)) {
        Some(errno) => Err(Errno(errno as i32)),
        None => Ok(()),
    }
}

/// A send request is posted. Whether its queue pair breaks.
pub(crate) fn breaks() -> bool {
    ask(VerbsFaults::breaks).unwrap_or_default()
}

/// A send request is posted. Whether it never reaches the peer.
pub(crate) fn loses(opcode: Opcode) -> bool {
    let leaves = !matches!(opcode, Opcode::BindMw | Opcode::LocalInv);
    leaves && ask(VerbsFaults::loses).unwrap_or_default()
}

/// Whether receives may have to be kept from the device.
pub(crate) fn hides_receives() -> bool {
    faults().is_some_and(|faults| faults.hides_receives)
}

/// A receive is posted. For how long it and its followers are not there, if they are not.
pub(crate) fn hides() -> Option<Duration> {
    ask(VerbsFaults::hides).flatten()
}

/// Whether completions may have to be kept from the program.
pub(crate) fn delays_completions() -> bool {
    faults().is_some_and(|faults| faults.delays_completions)
}

/// The device has a completion. How late it is, if it is.
pub(crate) fn delays() -> Option<Duration> {
    ask(VerbsFaults::delays).flatten()
}

/// A completion of success. The status that it has instead.
pub(crate) fn fails() -> Option<WcStatus> {
    ask(VerbsFaults::fail).flatten()
}
