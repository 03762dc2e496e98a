//! Chores that are programs of their own, which cargo builds and runs.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

/// Runs cargo with these words and those, and with a variable.
pub(crate) fn chore(words: &[&str], more: &[impl AsRef<OsStr>], variable: Option<(&str, &Path)>) -> ExitCode {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    match Command::new(cargo).args(words).args(more).envs(variable).status() {
        Ok(status) if status.success() => ExitCode::SUCCESS,
        Ok(_) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("xtask: cannot start cargo for {}: {error}", words.join(" "));
            ExitCode::FAILURE
        }
    }
}

/// What unmodified programs need: `tbrdma-run`, and beside it the drop-in library.
pub(crate) const RUN: [&str; 3] = ["tbrdma-run", "tbrdma-ibverbs", "tbrdma-preload"];

/// Builds packages as a user would, and says the folder of what was built. Cargo says what is wrong if it cannot.
pub(crate) fn build(packages: &[&str]) -> Option<PathBuf> {
    let mut words = vec!["build", "--quiet", "--release"];
    for package in packages {
        words.extend(["--package", package]);
    }
    let built = chore(&words, &[] as &[&str], None) == ExitCode::SUCCESS;
    // They are beside us: xtask is built for release too.
    built.then(|| std::env::current_exe().unwrap_or_default().with_file_name(""))
}

/// The repository.
pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}
