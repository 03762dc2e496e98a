//! The errors of the harness: each one is a single line that says what failed, on what, why and what to do.

/// Why a run ended without a result.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The flags contradict each other, or ask for what the operation cannot do. Exit code 2.
    #[error("{0}")]
    Usage(String),
    /// Something failed while setting up or measuring. Exit code 1.
    #[error("{0}")]
    Run(String),
    /// The other process said why it gave up. Exit code 1.
    #[error("{peer} gave up: {reason}")]
    PeerFailed {
        /// Who: its role, process number and address.
        peer: String,
        /// Its own line.
        reason: String,
    },
    /// The other process ended, or closed the control channel, before the run was over. Exit code 1.
    #[error("{peer} ended before the run was over{detail}")]
    PeerGone {
        /// Who: its role, process number and address.
        peer: String,
        /// What more is known: an exit status, or the error by which it was first noticed.
        detail: String,
    },
    /// The control channel asks for attention; [`crate::control::Channel::explain`] finds out why.
    #[error("the other process asks for attention")]
    Alarm,
    /// Ctrl-C, or a termination signal. Exit code 130.
    #[error("interrupted")]
    Interrupted,
}

impl Error {
    /// The exit code of the program for this error.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Usage(_) => 2,
            Self::Interrupted => 130,
            _ => 1,
        }
    }
}

/// The result of everything in this crate that can fail.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Puts what was being done in front of a failure's own words.
pub trait Context<T> {
    /// `what` reads as the subject of "… failed": `open device shm`.
    ///
    /// # Errors
    /// The same failure, as [`Error::Run`], in one line.
    fn context(self, what: impl FnOnce() -> String) -> Result<T>;
}

impl<T, E: std::fmt::Display> Context<T> for std::result::Result<T, E> {
    fn context(self, what: impl FnOnce() -> String) -> Result<T> {
        self.map_err(|error| Error::Run(one_line(&format!("{}: {error}", what()))))
    }
}

/// Folds a text of several lines into one, so that every error stays one line.
#[must_use]
pub fn one_line(text: &str) -> String {
    text.split(['\n', '\r']).map(str::trim).filter(|line| !line.is_empty()).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::{Context, Error, one_line};

    #[test]
    fn a_failure_of_many_lines_becomes_one() {
        assert_eq!(one_line("a\n  b\r\n\nc"), "a b c");
        let failed: Result<(), _> = Err("no\nway");
        assert_eq!(
            failed.context(|| "open device x".into()),
            Err(Error::Run("open device x: no way".into()))
        );
    }

    #[test]
    fn exit_codes_tell_usage_from_failure() {
        assert_eq!(Error::Usage(String::new()).exit_code(), 2);
        assert_eq!(Error::Run(String::new()).exit_code(), 1);
        assert_eq!(Error::Interrupted.exit_code(), 130);
    }
}
