//! Sentences for people: an `errno` says little, so with `TBRDMA_LOG=1` each failure is explained on stderr.

use std::fmt::Display;
use std::io::Write;
use std::sync::OnceLock;

/// Explains a failure, if anyone wants to know.
pub(crate) fn say(what: &dyn Display) {
    if crate::watch::is_on() {
        crate::watch::explained(format_args!("{what}"));
    }
    static WANTED: OnceLock<bool> = OnceLock::new();
    if *WANTED.get_or_init(|| std::env::var_os("TBRDMA_LOG").is_some_and(|wish| wish == "1")) {
        tell(what);
    }
}

/// Tells what a person has to know, whether they asked or not.
pub(crate) fn tell(what: &dyn Display) {
    // A program without stderr is not told.
    let _ = writeln!(std::io::stderr(), "tbrdma: {what}");
}
