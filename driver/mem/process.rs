//! Bytes between a place here and the memory of another process, by the kernel's cross-memory calls.

use super::Place;
use crate::sys::remote_memory::{read_process, write_process};
use std::io;

/// Copies a place's bytes to address `to` of process `pid`.
pub(crate) fn write_to_process(from: Place<'_>, pid: i32, to: u64) -> io::Result<()> {
    // SAFETY: the place is readable for its length; what is written is the other process' memory, which its library vouched
    // for when it published the region.
    unsafe { write_process(pid, to, from.as_ptr(), from.len()) }
}

/// Copies bytes of ours to address `to` of process `pid`.
pub(crate) fn write_bytes_to_process(from: &[u8], pid: i32, to: u64) -> io::Result<()> {
    // SAFETY: as above; the slice is readable for its length.
    unsafe { write_process(pid, to, from.as_ptr(), from.len()) }
}

/// Fills a place from address `from` of process `pid`.
pub(crate) fn read_from_process(to: Place<'_>, pid: i32, from: u64) -> io::Result<()> {
    // SAFETY: the place is writable for its length.
    unsafe { read_process(pid, from, to.as_ptr(), to.len()) }
}
