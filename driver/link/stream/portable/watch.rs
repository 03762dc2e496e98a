//! The one descriptor that stands for all that a link waits for: a bell, and for the rest a look now and then.

use crate::sys::eventfd::EventFd;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

/// How often somebody must look who waits for the descriptor.
pub(super) const TICK: Option<Duration> = Some(Duration::from_millis(1));

/// A bell.
#[derive(Debug)]
pub(super) struct Watch {
    bell: EventFd,
}

impl Watch {
    /// One that has not been rung.
    pub(super) fn new() -> io::Result<Self> {
        Ok(Self { bell: EventFd::new()? })
    }

    /// Looked at now and then.
    pub(super) fn add_input(&self, _fd: BorrowedFd<'_>) {}

    /// Looked at now and then.
    pub(super) fn add_output(&self, _fd: BorrowedFd<'_>) {}

    /// Looked at no more.
    pub(super) fn remove(&self, _fd: BorrowedFd<'_>) {}

    /// Makes it readable until somebody [hears](Self::hear) it.
    pub(super) fn ring(&self) {
        // Fails only if it was rung already.
        let _ = self.bell.signal();
    }

    /// The bell has been heard.
    pub(super) fn hear(&self) {
        let _ = self.bell.drain();
    }

    /// The descriptor.
    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        self.bell.as_fd()
    }
}
