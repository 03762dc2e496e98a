//! In place of bare shared memory where there is none in the form that is measured: the harness then reports no floor, and why.

use crate::sync::AtomicU64;
use std::io;
use std::os::fd::BorrowedFd;

/// Words that two processes share: there is no such thing here.
pub enum Shared {}

impl Shared {
    /// Fails: see the error.
    ///
    /// # Errors
    /// Always.
    pub fn create(_len: usize) -> io::Result<Self> {
        Err(absent())
    }

    /// Fails: see the error.
    ///
    /// # Errors
    /// Always.
    pub fn open(_pid: u32, _fd: i32, _len: usize) -> io::Result<Self> {
        Err(absent())
    }

    /// The descriptor of the memory file, in the process that made it.
    pub fn as_fd(&self) -> Option<BorrowedFd<'_>> {
        match *self {}
    }

    /// Copies bytes into it; false if they do not fit.
    pub fn write(&self, _at: usize, _bytes: &[u8]) -> bool {
        match *self {}
    }

    /// The words.
    pub fn words(&self) -> &[AtomicU64] {
        match *self {}
    }
}

fn absent() -> io::Error {
    io::Error::new(io::ErrorKind::Unsupported, "bare shared memory is measured on Linux only")
}
