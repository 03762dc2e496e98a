//! Reads and writes of another process's memory, for regions that live outside any shared mapping.
//!
//! # The contract of both directions
//!
//! The local range must stay mapped (writable for reads) during the call, and no Rust reference to it may be live
//! that the access would break: like a device, the kernel may read or write every byte of it at any moment of the
//! call. The caller must also be entitled to change the remote range by whatever rule the two processes agreed on; the
//! kernel only checks that it is mapped and that one process may trace the other. An error means that an unknown
//! prefix of the range was transferred.

use nix::errno::Errno;
use nix::libc::{self, c_void, iovec};
use std::io::{self, ErrorKind};

/// Copies `len` bytes at `remote` of process `pid` to `local`.
///
/// # Safety
/// See the contract of this module.
pub(crate) unsafe fn read_process(pid: i32, remote: u64, local: *mut u8, len: usize) -> io::Result<()> {
    transfer(pid, remote, local, len, |pid, local, remote| {
        // SAFETY: `local` describes what is left of the caller's range, which the contract lets the kernel write;
        // both lists are live for the call and their lengths are right.
        unsafe { libc::process_vm_readv(pid, local, 1, remote.as_ptr(), remote.len() as libc::c_ulong, 0) }
    })
}

/// Copies `len` bytes at `local` to `remote` of process `pid`. The last bytes are written after all others.
///
/// # Safety
/// See the contract of this module.
pub(crate) unsafe fn write_process(pid: i32, remote: u64, local: *const u8, len: usize) -> io::Result<()> {
    transfer(pid, remote, local.cast_mut(), len, |pid, local, remote| {
        // SAFETY: `local` describes what is left of the caller's range, which the contract lets the kernel read;
        // both lists are live for the call and their lengths are right.
        unsafe { libc::process_vm_writev(pid, local, 1, remote.as_ptr(), remote.len() as libc::c_ulong, 0) }
    })
}

/// Can we read the memory of process `pid`, and do the 8 bytes at `remote_addr` say `expected`?
pub(crate) fn probe(pid: i32, remote_addr: u64, expected: u64) -> bool {
    let mut found = 0u64;
    // SAFETY: the local range is a variable of ours that nobody else knows; nothing remote is changed.
    let read = unsafe { read_process(pid, remote_addr, (&raw mut found).cast(), 8) };
    read.is_ok() && found == expected
}

/// Calls `step` until `len` bytes were moved; the kernel may move fewer a call, at most 2 GiB.
///
/// The remote range is given as two: up to its last aligned word, and that word. The kernel finishes one range before
/// it starts the next, and programs poll on the last byte of a message to learn that the rest is there.
fn transfer(
    pid: i32,
    remote: u64,
    local: *mut u8,
    len: usize,
    step: impl Fn(i32, *const iovec, &[iovec]) -> isize,
) -> io::Result<()> {
    let address = |at: u64| usize::try_from(at).map(|at| at as *mut c_void);
    let end = remote.checked_add(len as u64);
    let (Some(end), true) = (end, pid > 0) else {
        return Err(io::Error::new(ErrorKind::InvalidInput, "no such process or range"));
    };
    let mut done = 0;
    while done < len {
        let at = remote + done as u64;
        let last = ((end - 1) & !7).max(at);
        let bad = |_| io::Error::from(ErrorKind::InvalidInput);
        let ranges = [
            iovec { iov_base: address(at).map_err(bad)?, iov_len: (last - at) as usize },
            iovec { iov_base: address(last).map_err(bad)?, iov_len: (end - last) as usize },
        ];
        let ranges = if last == at { &ranges[1..] } else { &ranges[..] };
        let here = iovec { iov_base: local.wrapping_add(done).cast(), iov_len: len - done };
        match step(pid, &raw const here, ranges) {
            moved if moved > 0 => done += moved.unsigned_abs(),
            0 => return Err(io::Error::new(ErrorKind::WriteZero, "the other process's memory ends early")),
            _ => match Errno::last() {
                Errno::EINTR => continue,
                error => return Err(error.into()),
            },
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::process::process_id;

    #[test]
    fn bytes_go_both_ways_at_every_small_length() {
        let source: Vec<u8> = (1..=100).collect();
        for len in 0..=90 {
            for offset in [0, 1, 7] {
                let mut target = vec![0u8; 100];
                let remote = target.as_mut_ptr().addr() as u64 + offset as u64;
                // SAFETY: "remote" and local are two live buffers of this test, both longer than `offset + len`.
                unsafe { write_process(process_id(), remote, source.as_ptr(), len) }.unwrap();
                let mut back = vec![0u8; 100];
                // SAFETY: as above.
                unsafe { read_process(process_id(), remote, back.as_mut_ptr(), len) }.unwrap();
                assert_eq!(back[..len], source[..len]);
                assert!(back[len..].iter().all(|&byte| byte == 0));
                assert_eq!(std::hint::black_box(&target)[offset..][..len], source[..len]);
            }
        }
    }

    #[test]
    fn unmapped_memory_and_bad_ids_are_errors() {
        let mut byte = 0u8;
        for (pid, remote) in [(process_id(), 8), (process_id(), u64::MAX), (0, 4096), (-1, 4096)] {
            // SAFETY: one byte of ours; reading fails or not, nothing else is touched.
            let result = unsafe { read_process(pid, remote, &raw mut byte, 1) };
            assert!(result.is_err(), "{pid} {remote}");
        }
    }

    #[test]
    fn a_probe_compares_the_word() {
        let word = 0x1234_5678_9abc_def0u64;
        let at = (&raw const word).addr() as u64;
        assert!(probe(process_id(), at, word));
        assert!(!probe(process_id(), at, 1));
        assert!(!probe(process_id(), 8, 0));
    }
}
