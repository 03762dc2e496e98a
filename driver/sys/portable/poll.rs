//! The call that waits for descriptors: poll, to the millisecond.

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

/// Waits until one of the descriptors is as it should be; how many are. 0 means that the time has passed; `None` waits for ever.
pub(super) fn poll(fds: &mut [PollFd<'_>], timeout: Option<Duration>) -> nix::Result<i32> {
    // Rounded up: who is woken a little early would spin through the rest of the millisecond. A wait that is cut short is repeated by its caller.
    let whole = |timeout: Duration| PollTimeout::try_from(timeout.as_nanos().div_ceil(1_000_000));
    let timeout = timeout.map_or(PollTimeout::NONE, |timeout| whole(timeout).unwrap_or(PollTimeout::MAX));
    nix::poll::poll(fds, timeout)
}

/// Several descriptors that are waited for as one.
#[derive(Debug)]
pub(crate) struct AnyOf(Vec<OwnedFd>);

impl AnyOf {
    /// These, kept as descriptors of our own.
    pub(crate) fn new(fds: &[BorrowedFd<'_>]) -> io::Result<Self> {
        fds.iter().map(BorrowedFd::try_clone_to_owned).collect::<io::Result<_>>().map(Self)
    }

    /// As [`wait_one`](super::wait::wait_one), for any of them. It allocates: it is for threads that are about to sleep.
    pub(crate) fn wait(&self, timeout: Option<Duration>) -> io::Result<bool> {
        let mut polled: Vec<_> = self.0.iter().map(|fd| PollFd::new(fd.as_fd(), PollFlags::POLLIN)).collect();
        match poll(&mut polled, timeout) {
            Ok(count) => Ok(count > 0),
            Err(Errno::EINTR) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }
}
