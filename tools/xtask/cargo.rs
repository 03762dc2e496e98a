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

/// What the checks against other people's software use of ours: `tbrdma-run` with the drop-in library beside it, and the programs that measure and judge. All of
/// them for each of the checks, though one alone would do with less: what is built together shares its parts, and other parts would be built for other sets.
const OURS: [&str; 5] =
    ["tbrdma-run", "tbrdma-ibverbs", "tbrdma-preload", "tbrdma-bench", "tbrdma-conformance"];

/// Builds them as a user would, and says the folder of what was built. Cargo says what is wrong if it cannot.
pub(crate) fn build() -> Option<PathBuf> {
    let mut words = vec!["build", "--quiet", "--release"];
    for package in OURS {
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
