//! Local datagram sockets in the abstract namespace: a name that is ours while we live, and messages whose sender the kernel names.

use nix::errno::Errno;
use nix::sys::socket::{
    self as raw, AddressFamily, ControlMessageOwned, MsgFlags, SockFlag, SockType, UnixAddr, UnixCredentials,
    sockopt,
};
use std::cell::RefCell;
use std::io::{self, IoSlice, IoSliceMut};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

/// A nonblocking socket with a name.
#[derive(Debug)]
pub(crate) struct DatagramSocket(OwnedFd);

/// Send and receive buffers hold at least this much: a few of the largest messages.
const QUEUE_BYTES: usize = 4 << 20;

impl DatagramSocket {
    /// Takes `name`; `AddrInUse` while somebody has it.
    pub(crate) fn bind(name: &[u8]) -> io::Result<Self> {
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let fd = raw::socket(AddressFamily::Unix, SockType::Datagram, flags, None)?;
        raw::setsockopt(&fd, sockopt::PassCred, &true)?;
        raw::setsockopt(&fd, sockopt::SndBuf, &QUEUE_BYTES)?;
        raw::bind(fd.as_raw_fd(), &UnixAddr::new_abstract(name)?)?;
        Ok(Self(fd))
    }

    /// Sends one message to who has `name`. `ConnectionRefused` when nobody does, `WouldBlock` when its queue is full.
    pub(crate) fn send_to(&self, name: &[u8], parts: &[&[u8]]) -> io::Result<()> {
        let to = UnixAddr::new_abstract(name)?;
        let parts: Vec<_> = parts.iter().map(|part| IoSlice::new(part)).collect();
        let flags = MsgFlags::MSG_NOSIGNAL | MsgFlags::MSG_DONTWAIT;
        loop {
            match raw::sendmsg(self.0.as_raw_fd(), &parts, &[], flags, Some(&to)) {
                Ok(_) => return Ok(()),
                Err(Errno::EINTR) => continue,
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Takes the next message: its length, or `None` when there is none. A message from another user, or too long for `buf`, has length 0.
    pub(crate) fn receive_from(&self, buf: &mut [u8], user: u32) -> io::Result<Option<usize>> {
        // Looked at again and again, mostly for nothing: that must not allocate.
        thread_local! {
            static CONTROL: RefCell<Vec<u8>> = RefCell::new(nix::cmsg_space!(UnixCredentials));
        }
        CONTROL.with_borrow_mut(|control| self.receive_with(buf, user, control))
    }

    fn receive_with(&self, buf: &mut [u8], user: u32, control: &mut [u8]) -> io::Result<Option<usize>> {
        loop {
            let mut parts = [IoSliceMut::new(buf)];
            match raw::recvmsg::<()>(self.0.as_raw_fd(), &mut parts, Some(control), MsgFlags::MSG_DONTWAIT) {
                Ok(message) => {
                    let trusted = message.cmsgs()?.any(|control| {
                        matches!(control, ControlMessageOwned::ScmCredentials(sender) if sender.uid() == user)
                    });
                    let whole = !message.flags.intersects(MsgFlags::MSG_TRUNC | MsgFlags::MSG_CTRUNC);
                    return Ok(Some(if trusted && whole { message.bytes } else { 0 }));
                }
                Err(Errno::EINTR) => continue,
                Err(Errno::EAGAIN) => return Ok(None),
                Err(error) => return Err(error.into()),
            }
        }
    }
}

impl AsFd for DatagramSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::{process::effective_user_id, random::random_u64};
    use std::io::ErrorKind;

    #[test]
    fn messages_reach_the_name_and_strangers_are_not_heard() {
        let name = |end: &str| format!("tbrdma-test-{:x}-{end}", random_u64().unwrap()).into_bytes();
        let (a, b) = (name("a"), name("b"));
        let (first, second) = (DatagramSocket::bind(&a).unwrap(), DatagramSocket::bind(&b).unwrap());
        assert_eq!(DatagramSocket::bind(&a).unwrap_err().kind(), ErrorKind::AddrInUse);
        let mut buf = [0; 8];
        let user = effective_user_id();
        assert_eq!(second.receive_from(&mut buf, user).unwrap(), None);
        first.send_to(&b, &[b"he", b"llo"]).unwrap();
        first.send_to(&b, &[b"much too long"]).unwrap();
        first.send_to(&b, &[b"again"]).unwrap();
        assert_eq!(second.receive_from(&mut buf, user).unwrap(), Some(5));
        assert_eq!(&buf[..5], b"hello");
        assert_eq!(second.receive_from(&mut buf, user).unwrap(), Some(0));
        assert_eq!(second.receive_from(&mut buf, user + 1).unwrap(), Some(0));
        drop(second);
        assert_eq!(first.send_to(&b, &[b"x"]).unwrap_err().kind(), ErrorKind::ConnectionRefused);
    }
}
