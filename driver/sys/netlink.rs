//! Changes of network interfaces, as the kernel announces them (`rtnetlink(7)`): that there was one, not which. Who wants to know looks.

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, socket,
};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

/// `RTMGRP_LINK`: interfaces come, go, and change their flags.
const LINKS: u32 = 1;

/// Announcements of one [`drain`](InterfaceChanges::drain): where more come, they are not over yet.
const MOST: usize = 1024;

/// A socket that is readable when a network interface of this namespace has changed.
#[derive(Debug)]
pub(crate) struct InterfaceChanges(OwnedFd);

impl InterfaceChanges {
    /// Announcements from now on.
    pub(crate) fn new() -> io::Result<Self> {
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let socket = socket(AddressFamily::Netlink, SockType::Raw, flags, SockProtocol::NetlinkRoute)?;
        // The kernel chooses the socket's number.
        bind(socket.as_raw_fd(), &NetlinkAddr::new(0, LINKS))?;
        Ok(Self(socket))
    }

    /// Takes all announcements; whether there were any, or some were lost.
    pub(crate) fn drain(&self) -> bool {
        let mut any = false;
        for _ in 0..MOST {
            // What does not fit is cut off: nobody reads it.
            match recv(self.0.as_raw_fd(), &mut [0; 16], MsgFlags::MSG_DONTWAIT) {
                Ok(_) | Err(Errno::ENOBUFS) => any = true,
                Err(Errno::EINTR) => {}
                Err(_) => break,
            }
        }
        any
    }
}

impl AsFd for InterfaceChanges {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_announced_unless_something_changes() {
        let changes = match InterfaceChanges::new() {
            Ok(changes) => changes,
            Err(error) => return crate::skip::skip(format!("netlink: {error}")),
        };
        // Others may change something meanwhile, but not all the time.
        assert!((0..1000).any(|_| !changes.drain()));
    }
}
