//! In place of the stand-in for a `/dev/tbstreamX`: it is made of sockets of messages that have abstract names, which only Linux has.

use std::io::{self, ErrorKind};
use std::os::fd::BorrowedFd;

/// A device that there is not.
#[derive(Debug)]
pub(super) enum StandIn {}

impl StandIn {
    /// Says that there is none.
    pub(super) fn open(_name: &str) -> io::Result<Self> {
        Err(io::Error::new(
            ErrorKind::Unsupported,
            "the stand-in for /dev/tbstreamX needs Linux; use unix:/PATH",
        ))
    }

    /// There is none.
    pub(super) fn read(&self, _into: &mut [u8]) -> io::Result<usize> {
        match *self {}
    }

    /// There is none.
    pub(super) fn write(&self, _from: &[u8]) -> io::Result<usize> {
        match *self {}
    }

    /// There is none.
    pub(super) fn input(&self) -> BorrowedFd<'_> {
        match *self {}
    }

    /// There is none.
    pub(super) fn output(&self) -> BorrowedFd<'_> {
        match *self {}
    }
}
