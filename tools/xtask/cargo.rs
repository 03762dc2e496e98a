//! Chores that are programs of their own, which cargo builds and runs.

use std::ffi::OsStr;
use std::process::{Command, ExitCode};

/// Runs cargo with these words and those.
pub(crate) fn chore(words: &[&str], more: &[impl AsRef<OsStr>]) -> ExitCode {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    match Command::new(cargo).args(words).args(more).status() {
        Ok(status) if status.success() => ExitCode::SUCCESS,
        Ok(_) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("xtask: cannot start cargo for {}: {error}", words.join(" "));
            ExitCode::FAILURE
        }
    }
}
