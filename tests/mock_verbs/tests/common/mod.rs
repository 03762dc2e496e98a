//! A test in a process of its own: which verbs library native devices are of holds for a whole process.

use std::path::PathBuf;
use std::process::Command;

const VARIABLE: &str = "TBRDMA_VERBS_LIBRARY";

/// Whether this is the process in which the test runs. If not, it has run there, with this library.
pub(crate) fn with_library(test: &str, library: &str) -> bool {
    if std::env::var_os(VARIABLE).is_some() {
        return true;
    }
    let binary = std::env::current_exe().unwrap();
    let beside = binary.parent().unwrap();
    // Cargo puts a library beside the tests, an example one folder up, and a name that the loader knows is none of ours.
    let places = [beside.join(library), beside.join("../examples").join(library), PathBuf::from(library)];
    let found = places.iter().find(|place| place.exists()).unwrap_or(&places[2]);
    let status = Command::new(&binary)
        .args([test, "--exact", "--nocapture"])
        .env(VARIABLE, found)
        .env_remove("TBRDMA_DEVICES")
        .status()
        .unwrap();
    assert!(status.success(), "{test} with {}: {status}", found.display());
    false
}
