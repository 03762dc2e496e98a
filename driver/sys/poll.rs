//! The call that waits for descriptors: ppoll, to the nanosecond.

use super::epoll::Epoll;
use super::wait::wait_one;
use nix::poll::{PollFd, ppoll};
use nix::sys::time::TimeSpec;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

/// Waits until one of the descriptors is as it should be; how many are. 0 means that the time has passed; `None` waits for ever.
pub(super) fn poll(fds: &mut [PollFd<'_>], timeout: Option<Duration>) -> nix::Result<i32> {
    ppoll(fds, timeout.map(TimeSpec::from), None)
}

/// Several descriptors that are waited for as one.
#[derive(Debug)]
pub(crate) struct AnyOf(Epoll);

impl AnyOf {
    /// These; they stay open for as long as it is used.
    pub(crate) fn new(fds: &[BorrowedFd<'_>]) -> io::Result<Self> {
        let epoll = Epoll::new()?;
        for (index, fd) in fds.iter().enumerate() {
            epoll.add(fd, index as u64)?;
        }
        Ok(Self(epoll))
    }

    /// As [`wait_one`], for any of them.
    pub(crate) fn wait(&self, timeout: Option<Duration>) -> io::Result<bool> {
        wait_one(self.0.as_fd(), timeout)
    }
}
