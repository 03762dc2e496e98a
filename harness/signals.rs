//! Ctrl-C and termination: both processes of a run end, and nothing is left behind.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::error::{Error, Result};

static INTERRUPTED: AtomicBool = AtomicBool::new(false);

/// How long a run may take to leave by itself before the handler ends the process.
const GRACE: Duration = Duration::from_millis(1500);

/// Exit code after Ctrl-C, as shells have it.
const EXIT_INTERRUPTED: i32 = 130;

/// Has the user asked for the end?
#[inline]
#[must_use]
pub fn interrupted() -> bool {
    INTERRUPTED.load(Ordering::Relaxed)
}

/// The end which the user asked for, as an error.
///
/// # Errors
/// [`Error::Interrupted`] once a signal has come.
pub fn check() -> Result<()> {
    if interrupted() { Err(Error::Interrupted) } else { Ok(()) }
}

/// Installs the handler of the process that the user started: its run notices the flag and cleans up. Should it be stuck
/// somewhere, the process ends all the same, and its child ends when the control pipe closes.
///
/// # Errors
/// The handler could not be installed.
pub fn install() -> Result<()> {
    set(|| {
        INTERRUPTED.store(true, Ordering::Relaxed);
        std::thread::sleep(GRACE);
        std::process::exit(EXIT_INTERRUPTED);
    })
}

/// Installs the handler of the second process: a Ctrl-C reaches both processes at once, and this one leaves the first word to
/// its parent, whose end closes the control pipe.
///
/// # Errors
/// The handler could not be installed.
pub fn install_in_child() -> Result<()> {
    set(|| {
        std::thread::sleep(GRACE);
        std::process::exit(EXIT_INTERRUPTED);
    })
}

fn set(handler: impl FnMut() + Send + 'static) -> Result<()> {
    ctrlc::set_handler(handler).map_err(|error| Error::Run(format!("install the Ctrl-C handler: {error}")))
}
