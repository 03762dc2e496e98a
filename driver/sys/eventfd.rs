//! Event counters: one side signals, the other sleeps in poll or epoll until it does.

use nix::errno::Errno;
use nix::sys::eventfd::{EfdFlags, EventFd as Raw};
use nix::unistd::{read, write};
use std::io::{self, ErrorKind};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// A nonblocking event counter, readable while its count is not zero.
#[derive(Debug)]
pub(crate) struct EventFd(OwnedFd);

impl EventFd {
    /// A counter at zero; [`EventFd::drain`] takes the whole count.
    pub(crate) fn new() -> io::Result<Self> {
        Self::with(EfdFlags::empty())
    }

    /// A counter with the flags all of ours have, and `extra`.
    fn with(extra: EfdFlags) -> io::Result<Self> {
        let flags = EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK | extra;
        Ok(Self(Raw::from_flags(flags)?.into()))
    }

    /// Takes a descriptor that a peer sent. Nothing is believed of it: if it is no event counter, or a blocking one,
    /// the calls below fail or block, and that is the worst it can do.
    pub(crate) fn from_fd(fd: OwnedFd) -> Self {
        Self(fd)
    }

    /// Adds one to the count and wakes who waits.
    pub(crate) fn signal(&self) -> io::Result<()> {
        signal_fd(self.0.as_fd())
    }

    /// Takes what was counted since the last call; 0 when nothing was.
    pub(crate) fn drain(&self) -> io::Result<u64> {
        let mut count = [0; 8];
        loop {
            return match read(&self.0, &mut count) {
                Ok(8) => Ok(u64::from_ne_bytes(count)),
                Ok(_) => {
                    Err(io::Error::new(ErrorKind::InvalidData, "the descriptor is not an event counter"))
                }
                Err(Errno::EINTR) => continue,
                Err(Errno::EAGAIN) => Ok(0),
                Err(error) => Err(error.into()),
            };
        }
    }
}

impl AsFd for EventFd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl From<EventFd> for OwnedFd {
    fn from(event: EventFd) -> Self {
        event.0
    }
}

/// Adds one to the count of the event counter `fd`.
///
/// A counter that is full has been signalled already, so `EAGAIN` is success.
pub(crate) fn signal_fd(fd: BorrowedFd<'_>) -> io::Result<()> {
    loop {
        return match write(fd, &1u64.to_ne_bytes()) {
            Ok(_) | Err(Errno::EAGAIN) => Ok(()),
            Err(Errno::EINTR) => continue,
            Err(error) => Err(error.into()),
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals_add_up_and_drain_empties() {
        let event = EventFd::new().unwrap();
        assert_eq!(event.drain().unwrap(), 0);
        event.signal().unwrap();
        event.signal().unwrap();
        signal_fd(event.as_fd()).unwrap();
        assert_eq!(event.drain().unwrap(), 3);
        assert_eq!(event.drain().unwrap(), 0);
    }

    #[test]
    fn a_full_counter_is_still_signalled() {
        let event = EventFd::new().unwrap();
        write(&event.0, &(u64::MAX - 1).to_ne_bytes()).unwrap();
        event.signal().unwrap();
        assert_eq!(event.drain().unwrap(), u64::MAX - 1);
    }

    #[test]
    fn another_kind_of_descriptor_is_an_error() {
        let event = EventFd::from_fd(std::fs::File::open("/dev/null").unwrap().into());
        assert_eq!(event.drain().unwrap_err().kind(), ErrorKind::InvalidData);
    }
}
