//! What is wrong with a setting.

use std::path::PathBuf;

/// A setting that makes no sense, or a file of settings that cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    /// A value that is refused.
    #[error("{origin}: {value:?}: {reason}")]
    Value {
        /// Where it comes from: a flag, a variable, or a file and the name in it.
        origin: String,
        /// What was given.
        value: String,
        /// What is wrong, and what would be right.
        reason: String,
    },
    /// A file that cannot be read.
    #[error("{origin}: cannot read {}: {source}", path.display())]
    Unreadable {
        /// The flag or variable that names it.
        origin: String,
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// A file that is no TOML of ours.
    #[error("{}: {reason}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong, and where.
        reason: String,
    },
}
