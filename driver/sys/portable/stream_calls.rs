//! What streams do without what is Linux's own.

use nix::errno::Errno;
use nix::sys::socket::{AddressFamily, SockaddrLike, UnixAddr};
use nix::unistd::{read, write};
use std::io::{self, ErrorKind};
use std::os::fd::{BorrowedFd, OwnedFd};

/// read(2): the descriptor does not wait.
#[inline]
pub(super) fn receive(fd: BorrowedFd<'_>, into: &mut [u8]) -> Result<usize, Errno> {
    read(fd, into)
}

/// write(2). If nobody reads, that is an error in a program of Rust's, which ignores the signal.
#[inline]
pub(super) fn send(fd: BorrowedFd<'_>, from: &[u8]) -> Result<usize, Errno> {
    write(fd, from)
}

/// There are no abstract names.
pub(super) fn abstract_address(_name: &str) -> io::Result<UnixAddr> {
    Err(io::Error::new(
        ErrorKind::Unsupported,
        "only Linux has names of sockets outside the file system: give a path",
    ))
}

/// There is no such address.
pub(super) fn vsock_address(_cid: u32, _port: u32) -> io::Result<Box<dyn SockaddrLike>> {
    Err(no_vsock())
}

/// There is no such family.
pub(super) fn vsock_family() -> io::Result<AddressFamily> {
    Err(no_vsock())
}

fn no_vsock() -> io::Error {
    io::Error::new(ErrorKind::Unsupported, "only Linux has vsock here")
}

/// Whether what passes such sockets is never on a wire.
pub(super) fn stays_on_the_machine(family: AddressFamily) -> bool {
    family == AddressFamily::Unix
}

/// Whoever may open the path may be at the other end.
pub(super) fn is_ours(_fd: BorrowedFd<'_>) -> bool {
    true
}

/// The system's own keep-alive has to do.
pub(super) fn notice_silence(_fd: &OwnedFd) {}
