//! Sleeping until a descriptor has something to say.

use super::poll::poll;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags};
use std::io::{self, ErrorKind};
use std::os::fd::BorrowedFd;
use std::time::{Duration, Instant};

/// Waits until one of at most 64 descriptors is readable, was hung up or has failed.
///
/// Bit `i` of the answer is set when `fds[i]` is ready; 0 means that the time has passed. `None` waits for ever.
/// A signal handler does not lengthen the wait.
pub(crate) fn wait_readable(fds: &[BorrowedFd<'_>], timeout: Option<Duration>) -> io::Result<u64> {
    wait_for(fds, PollFlags::POLLIN, timeout)
}

/// [`wait_readable`] for one descriptor, at most once around: true if it is readable, was hung up or has failed, false when the time has passed
/// or a signal came. As sharply as the system can wait, and without an allocation.
pub(crate) fn wait_one(fd: BorrowedFd<'_>, timeout: Option<Duration>) -> io::Result<bool> {
    match poll(&mut [PollFd::new(fd, PollFlags::POLLIN)], timeout) {
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
        match poll(&mut polled, left) {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::poll::AnyOf;
    use nix::unistd::{pipe, write};
    use std::os::fd::AsFd;

    #[test]
    fn a_wait_ends_at_its_deadline() {
        let (reader, _writer) = pipe().unwrap();
        let start = Instant::now();
        assert_eq!(wait_readable(&[reader.as_fd()], Some(Duration::from_millis(20))).unwrap(), 0);
        assert!(start.elapsed() >= Duration::from_millis(20));
        assert_eq!(wait_readable(&[reader.as_fd()], Some(Duration::ZERO)).unwrap(), 0);
    }

    #[test]
    fn one_descriptor_is_waited_for_no_shorter_than_asked() {
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
    fn any_of_several_ends_the_wait() {
        let (first, _open) = pipe().unwrap();
        let (second, writer) = pipe().unwrap();
        let both = AnyOf::new(&[first.as_fd(), second.as_fd()]).unwrap();
        assert!(!both.wait(Some(Duration::from_micros(300))).unwrap());
        write(&writer, b"x").unwrap();
        assert!(both.wait(None).unwrap());
        nix::unistd::read(&second, &mut [0; 8]).unwrap();
        assert!(!both.wait(Some(Duration::ZERO)).unwrap());
    }
}
