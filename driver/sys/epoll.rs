//! Standing interest in descriptors, through epoll.

use nix::errno::Errno;
use nix::poll::PollTimeout;
use nix::sys::epoll::{Epoll as Raw, EpollCreateFlags, EpollEvent, EpollFlags};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

/// A standing set of descriptors, each known by a token.
#[derive(Debug)]
pub(crate) struct Epoll(Raw);

impl Epoll {
    /// An empty set.
    pub(crate) fn new() -> io::Result<Self> {
        Ok(Self(Raw::new(EpollCreateFlags::EPOLL_CLOEXEC)?))
    }

    /// Adds `fd`: `token` is reported while it is readable, hung up or has failed.
    pub(crate) fn add(&self, fd: impl AsFd, token: u64) -> io::Result<()> {
        Ok(self.0.add(fd, EpollEvent::new(EpollFlags::EPOLLIN | EpollFlags::EPOLLRDHUP, token))?)
    }

    /// Adds `fd`: `token` is reported while there is room to write, or it is hung up or has failed.
    pub(crate) fn add_output(&self, fd: impl AsFd, token: u64) -> io::Result<()> {
        Ok(self.0.add(fd, EpollEvent::new(EpollFlags::EPOLLOUT, token))?)
    }

    /// Takes `fd` out. Do it before the descriptor is closed: a duplicate would keep the old one reported.
    pub(crate) fn delete(&self, fd: impl AsFd) -> io::Result<()> {
        Ok(self.0.delete(fd)?)
    }

    /// Replaces `ready` by the tokens that are ready, at most 64 a call; it stays empty when the time has passed or a
    /// signal came. `None` waits for ever.
    pub(crate) fn wait(&self, ready: &mut Vec<u64>, timeout: Option<Duration>) -> io::Result<()> {
        ready.clear();
        let mut events = [EpollEvent::empty(); 64];
        let count = match self.0.wait(&mut events, timeout.map(whole_milliseconds)) {
            Ok(count) => count,
            Err(Errno::EINTR) => 0,
            Err(error) => return Err(error.into()),
        };
        ready.extend(events.iter().take(count).map(EpollEvent::data));
        Ok(())
    }
}

impl AsFd for Epoll {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.0.as_fd()
    }
}

/// Rounds up: a timer that wakes a little early would make its owner spin through the rest of the millisecond.
fn whole_milliseconds(timeout: Duration) -> PollTimeout {
    let milliseconds = timeout.as_nanos().div_ceil(1_000_000);
    PollTimeout::try_from(milliseconds).unwrap_or(PollTimeout::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::unistd::pipe;

    #[test]
    fn epoll_reports_tokens_until_deleted() {
        let epoll = Epoll::new().unwrap();
        let (reader, writer) = pipe().unwrap();
        let mut ready = vec![1, 2, 3];
        epoll.add(&reader, u64::MAX).unwrap();
        epoll.wait(&mut ready, Some(Duration::from_micros(1))).unwrap();
        assert!(ready.is_empty());
        drop(writer);
        epoll.wait(&mut ready, None).unwrap();
        assert_eq!(ready, [u64::MAX]);
        epoll.delete(&reader).unwrap();
        epoll.wait(&mut ready, Some(Duration::ZERO)).unwrap();
        assert!(ready.is_empty());
    }

    #[test]
    fn timeouts_round_up() {
        assert_eq!(whole_milliseconds(Duration::ZERO), PollTimeout::ZERO);
        assert_eq!(whole_milliseconds(Duration::from_nanos(1)), PollTimeout::from(1u8));
        assert_eq!(whole_milliseconds(Duration::from_micros(2001)), PollTimeout::from(3u8));
        assert_eq!(whole_milliseconds(Duration::MAX), PollTimeout::MAX);
    }
}
