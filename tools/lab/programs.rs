//! Our own programs, as anybody builds them: the guest gets them into its file system, and some run here against it.

use crate::cache::Cache;
use anyhow::Result;
use std::path::PathBuf;
use std::process::Command;
use tbrdma_kit::{Process, Skip};

/// The folder of the programs. `cargo xtask lab` builds them and says it.
const FOLDER: &str = "TBRDMA_LAB_PROGRAMS";

/// Those that the guest gets.
pub(crate) const IN_GUEST: [&str; 2] = ["tbrdma-bench", "tbrdma-conformance"];

/// The programs that were built.
pub(crate) struct Programs(Option<PathBuf>);

impl Programs {
    /// Those in the folder that the environment names, if it does.
    pub(crate) fn find() -> Self {
        Self(std::env::var_os(FOLDER).map(Into::into))
    }

    /// Whether there are any.
    pub(crate) const fn are_there(&self) -> bool {
        self.0.is_some()
    }

    /// One of them.
    ///
    /// # Errors
    /// [`Skip`] if nobody says where they are.
    pub(crate) fn path(&self, name: &str) -> Result<PathBuf> {
        let said = || Skip::new(format!("{FOLDER} does not say where {name} is; `cargo xtask lab` does"));
        Ok(self.0.as_ref().ok_or_else(said)?.join(name))
    }

    /// Starts one of them here, with words between which there are spaces.
    pub(crate) fn start(&self, cache: &Cache, command: &str) -> Result<Process> {
        let mut words = command.split(' ').filter(|word| !word.is_empty());
        let mut child = Command::new(self.path(words.next().unwrap_or_default())?);
        child.args(words);
        Process::start(child, command.to_owned(), cache.scratch("own"), false)
    }
}
