//! What streams use of Linux's own.

use super::process::effective_user_id;
use super::socket::peer_credentials;
use nix::errno::Errno;
use nix::sys::socket::{self as raw, AddressFamily, MsgFlags, SockaddrLike, UnixAddr, VsockAddr, sockopt};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};

/// After so many seconds of silence a TCP peer is asked whether it is still there, and so often again, before it counts as gone.
const SILENCE: u32 = 5;
const ASKED: u32 = 3;

/// recv(2), without waiting.
#[inline]
pub(super) fn receive(fd: BorrowedFd<'_>, into: &mut [u8]) -> Result<usize, Errno> {
    raw::recv(fd.as_raw_fd(), into, MsgFlags::MSG_DONTWAIT)
}

/// send(2), without waiting, and without a signal if nobody reads.
#[inline]
pub(super) fn send(fd: BorrowedFd<'_>, from: &[u8]) -> Result<usize, Errno> {
    raw::send(fd.as_raw_fd(), from, MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL)
}

/// A name that is in no file system.
pub(super) fn abstract_address(name: &str) -> io::Result<UnixAddr> {
    Ok(UnixAddr::new_abstract(name.as_bytes())?)
}

/// Another machine under the same roof.
pub(super) fn vsock_address(cid: u32, port: u32) -> io::Result<Box<dyn SockaddrLike>> {
    Ok(Box::new(VsockAddr::new(cid, port)))
}

/// Its sockets' family.
pub(super) fn vsock_family() -> io::Result<AddressFamily> {
    Ok(AddressFamily::Vsock)
}

/// Whether what passes such sockets is never on a wire.
pub(super) fn stays_on_the_machine(family: AddressFamily) -> bool {
    matches!(family, AddressFamily::Unix | AddressFamily::Vsock)
}

/// Whether our own user, or the superuser, is at the other end.
pub(super) fn is_ours(fd: BorrowedFd<'_>) -> bool {
    peer_credentials(fd).is_ok_and(|peer| peer.uid == effective_user_id() || peer.uid == 0)
}

/// Has a TCP peer that is gone without a word be noticed.
pub(super) fn notice_silence(fd: &OwnedFd) {
    let _ = raw::setsockopt(fd, sockopt::TcpKeepIdle, &SILENCE);
    let _ = raw::setsockopt(fd, sockopt::TcpKeepInterval, &SILENCE);
    let _ = raw::setsockopt(fd, sockopt::TcpKeepCount, &ASKED);
    let _ = raw::setsockopt(fd, sockopt::TcpUserTimeout, &(SILENCE * ASKED * 1000));
}
