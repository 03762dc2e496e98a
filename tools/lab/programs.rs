//! Our own programs, as anybody builds them: the guest gets them into its file system, and some run here against it.

use anyhow::Result;
use std::path::PathBuf;
use tbrdma_kit::Skip;

/// The folder of the programs. `cargo xtask lab` builds them and says it.
const FOLDER: &str = "TBRDMA_LAB_PROGRAMS";

/// Those that the guest gets.
pub(crate) const IN_GUEST: [&str; 1] = ["tbrdma-bench"];

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
}
