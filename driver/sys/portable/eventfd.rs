//! Event counters made of a pipe: one side signals, the other sleeps in poll until it does.

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, FdFlag, OFlag, fcntl};
use nix::unistd::{pipe, read, write};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// A nonblocking event counter, readable while its count is not zero. A byte in the pipe is one signal.
#[derive(Debug)]
pub(crate) struct EventFd {
    readable: OwnedFd,
    writable: OwnedFd,
}

impl EventFd {
    /// A counter at zero; [`EventFd::drain`] takes the whole count.
    pub(crate) fn new() -> io::Result<Self> {
        let (readable, writable) = pipe()?;
        for end in [&readable, &writable] {
            // There is no pipe2 on every system: a child that is started between these calls inherits both ends, to no harm.
            fcntl(end, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC))?;
            fcntl(end, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
        }
        Ok(Self { readable, writable })
    }

    /// Adds one to the count and wakes who waits. A pipe that is full has been signalled already, so `EAGAIN` is success.
    pub(crate) fn signal(&self) -> io::Result<()> {
        loop {
            return match write(&self.writable, &[1]) {
                Ok(_) | Err(Errno::EAGAIN) => Ok(()),
                Err(Errno::EINTR) => continue,
                Err(error) => Err(error.into()),
            };
        }
    }

    /// Takes what was counted since the last call; 0 when nothing was.
    pub(crate) fn drain(&self) -> io::Result<u64> {
        let mut bytes = [0; 512];
        let mut count = 0;
        loop {
            match read(&self.readable, &mut bytes) {
                // What is left was signalled meanwhile, or is taken by the next read.
                Ok(got) if got < bytes.len() => return Ok(count + got as u64),
                Ok(got) => count += got as u64,
                Err(Errno::EINTR) => {}
                Err(Errno::EAGAIN) => return Ok(count),
                Err(error) => return Err(error.into()),
            }
        }
    }
}

impl AsFd for EventFd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.readable.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::wait::wait_readable;
    use std::time::Duration;

    #[test]
    fn signals_add_up_and_drain_empties() {
        let event = EventFd::new().unwrap();
        assert_eq!(event.drain().unwrap(), 0);
        for count in [1, 3, 512, 700] {
            (0..count).for_each(|_| event.signal().unwrap());
            assert_eq!(wait_readable(&[event.as_fd()], None).unwrap(), 1);
            assert_eq!(event.drain().unwrap(), count);
            assert_eq!(wait_readable(&[event.as_fd()], Some(Duration::ZERO)).unwrap(), 0);
        }
    }

    #[test]
    fn a_full_pipe_is_still_signalled() {
        let event = EventFd::new().unwrap();
        (0..200_000).for_each(|_| event.signal().unwrap());
        assert!(event.drain().unwrap() > 0);
        assert_eq!(event.drain().unwrap(), 0);
    }

    #[test]
    fn descriptors_close_on_exec() {
        let event = EventFd::new().unwrap();
        for end in [&event.readable, &event.writable] {
            assert_eq!(fcntl(end, FcntlArg::F_GETFD), Ok(FdFlag::FD_CLOEXEC.bits()));
        }
    }
}
