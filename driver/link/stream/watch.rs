//! The one descriptor that stands for all that a link waits for: a set in the kernel.

use crate::sys::epoll::Epoll;
use crate::sys::eventfd::EventFd;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

/// How often somebody must look who waits for the descriptor: it says everything.
pub(super) const TICK: Option<Duration> = None;

/// A descriptor, readable when one of those in it is, and a bell.
#[derive(Debug)]
pub(super) struct Watch {
    set: Epoll,
    bell: EventFd,
}

impl Watch {
    /// One that nothing is in but its bell.
    pub(super) fn new() -> io::Result<Self> {
        let (set, bell) = (Epoll::new()?, EventFd::new()?);
        set.add(&bell, 0)?;
        Ok(Self { set, bell })
    }

    /// Waits for something to read too.
    pub(super) fn add_input(&self, fd: BorrowedFd<'_>) {
        // One that is refused is looked at when something else happens.
        let _ = self.set.add(fd, 0);
    }

    /// Waits for room to write too.
    pub(super) fn add_output(&self, fd: BorrowedFd<'_>) {
        let _ = self.set.add_output(fd, 0);
    }

    /// Waits for that no more.
    pub(super) fn remove(&self, fd: BorrowedFd<'_>) {
        // It may not be there.
        let _ = self.set.delete(fd);
    }

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
        self.set.as_fd()
    }
}
