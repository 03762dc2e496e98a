//! Sleeping until a descriptor has something to say: one-shot waits through ppoll, standing interest through epoll.

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, ppoll};
use nix::sys::epoll::{Epoll as Raw, EpollCreateFlags, EpollEvent, EpollFlags};
use nix::sys::time::TimeSpec;
use std::io::{self, ErrorKind};
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

/// Waits until one of at most 64 descriptors is readable, was hung up or has failed.
///
/// Bit `i` of the answer is set when `fds[i]` is ready; 0 means that the time has passed. `None` waits for ever.
/// A signal handler does not lengthen the wait.
pub(crate) fn wait_readable(fds: &[BorrowedFd<'_>], timeout: Option<Duration>) -> io::Result<u64> {
    wait_for(fds, PollFlags::POLLIN, timeout)
}

/// [`wait_readable`] for one descriptor, at most once around: true if it is readable, was hung up or has failed, false when the time has passed
/// or a signal came. To the nanosecond, and without an allocation.
pub(crate) fn wait_one(fd: BorrowedFd<'_>, timeout: Option<Duration>) -> io::Result<bool> {
    match ppoll(&mut [PollFd::new(fd, PollFlags::POLLIN)], timeout.map(TimeSpec::from), None) {
        Ok(count) => Ok(count > 0),
        Err(Errno::EINTR) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// [`wait_readable`] for any one kind of readiness.
fn wait_for(fds: &[BorrowedFd<'_>], interest: PollFlags, timeout: Option<Duration>) -> io::Result<u64> {
    if fds.len() > 64 {
        return Err(io::Error::new(ErrorKind::InvalidInput, "a wait on more than 64 descriptors"));
    }
    let deadline = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
    let mut polled: Vec<_> = fds.iter().map(|&fd| PollFd::new(fd, interest)).collect();
    loop {
        let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
        match ppoll(&mut polled, left.map(TimeSpec::from), None) {
            Ok(_) => break,
            Err(Errno::EINTR) => continue,
            Err(error) => return Err(error.into()),
        }
    }
    // Unknown event bits make `any` say nothing: they are news too.
    let ready = polled.iter().map(|fd| u64::from(fd.any().unwrap_or(true)));
    Ok(ready.enumerate().fold(0, |bits, (index, ready)| bits | ready << index))
}

/// What `look` finds, looked for now and each time `fd` becomes readable, for at most `timeout` (for ever if `None`).
pub(crate) fn wait_until_found<T>(
    fd: BorrowedFd<'_>,
    timeout: Option<Duration>,
    mut look: impl FnMut() -> Option<T>,
) -> io::Result<Option<T>> {
    let deadline = timeout.map(|timeout| Instant::now() + timeout);
    loop {
        if let Some(found) = look() {
            return Ok(Some(found));
        }
        let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
        let ready = wait_readable(&[fd], left)?;
        if ready == 0 && deadline.is_some_and(|deadline| Instant::now() >= deadline) {
            return Ok(None);
        }
    }
}

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
    use nix::unistd::{pipe, write};

    #[test]
    fn a_wait_ends_at_its_deadline() {
        let (reader, _writer) = pipe().unwrap();
        let start = Instant::now();
        assert_eq!(wait_readable(&[reader.as_fd()], Some(Duration::from_millis(20))).unwrap(), 0);
        assert!(start.elapsed() >= Duration::from_millis(20));
        assert_eq!(wait_readable(&[reader.as_fd()], Some(Duration::ZERO)).unwrap(), 0);
    }

    #[test]
    fn one_descriptor_is_waited_for_to_the_nanosecond() {
        let (reader, writer) = pipe().unwrap();
        let start = Instant::now();
        assert!(!wait_one(reader.as_fd(), Some(Duration::from_micros(300))).unwrap());
        assert!(start.elapsed() >= Duration::from_micros(300));
        drop(writer);
        assert!(wait_one(reader.as_fd(), None).unwrap());
    }

    #[test]
    fn readable_and_hung_up_are_both_ready() {
        let (quiet, _writer) = pipe().unwrap();
        let (reader, writer) = pipe().unwrap();
        let both = [quiet.as_fd(), reader.as_fd()];
        write(&writer, b"x").unwrap();
        assert_eq!(wait_readable(&both, None).unwrap(), 0b10);
        nix::unistd::read(&reader, &mut [0; 8]).unwrap();
        drop(writer);
        assert_eq!(wait_readable(&both, None).unwrap(), 0b10);
    }

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
