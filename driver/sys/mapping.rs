//! What of this process' address space is mapped, and how.

use nix::errno::Errno;
use nix::libc;
use std::io;

/// Is every byte of the range mapped and readable (and writable, if asked)? Read from `/proc/self/maps`; where that is not to be
/// had, the range is believed.
pub(crate) fn check(address: usize, len: usize, writable: bool) -> io::Result<()> {
    let Ok(maps) = std::fs::read_to_string("/proc/self/maps") else { return Ok(()) };
    let end = address.checked_add(len).ok_or(io::ErrorKind::InvalidInput)?;
    let mut reached = address;
    for line in maps.lines() {
        let Some((from, to, rights)) = parse(line) else { continue };
        if to <= reached {
            continue;
        }
        let fit = rights.starts_with('r') && (!writable || rights.as_bytes().get(1) == Some(&b'w'));
        if from > reached || !fit {
            break;
        }
        reached = to;
        if reached >= end {
            return Ok(());
        }
    }
    Err(io::Error::from_raw_os_error(libc::EFAULT))
}

/// Brings the pages of a range in, as a read or a write would, but with an error in place of a fault if that cannot be. Where the
/// kernel is too old to say (before 5.14) the range is believed.
pub(crate) fn touch(address: usize, len: usize, writable: bool) -> io::Result<()> {
    const PAGE: usize = 4096;
    let from = address & !(PAGE - 1);
    let whole = address.checked_add(len).ok_or(io::ErrorKind::InvalidInput)? - from;
    let advice = if writable { libc::MADV_POPULATE_WRITE } else { libc::MADV_POPULATE_READ };
    let at = std::ptr::with_exposed_provenance_mut(from);
    let advise = |len| {
        // SAFETY: the advice changes nothing that the program can see: pages come in as an access would bring them in.
        Errno::result(unsafe { libc::madvise(at, len, advice) })
    };
    loop {
        return match advise(whole) {
            Ok(_) => Ok(()),
            Err(Errno::EINTR | Errno::EAGAIN) => continue,
            // Said of a mapping that may not be written as well as of advice that is not known; known advice about nothing succeeds.
            Err(Errno::EINVAL) if advise(0).is_err() => Ok(()),
            Err(Errno::EINVAL) => Err(io::Error::from_raw_os_error(libc::EFAULT)),
            Err(error) => Err(error.into()),
        };
    }
}

/// First address, end and rights of a line.
fn parse(line: &str) -> Option<(usize, usize, &str)> {
    let (range, rest) = line.split_once(' ')?;
    let (from, to) = range.split_once('-')?;
    let hex = |text| usize::from_str_radix(text, 16).ok();
    Some((hex(from)?, hex(to)?, rest.split(' ').next()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mapped_memory_is_told_from_unmapped_and_read_only() {
        let heap = vec![0_u8; 100_000];
        assert!(check(heap.as_ptr() as usize, heap.len(), true).is_ok());
        static CONSTANT: [u8; 64] = [7; 64];
        assert!(check(CONSTANT.as_ptr() as usize, CONSTANT.len(), false).is_ok());
        assert!(check(CONSTANT.as_ptr() as usize, CONSTANT.len(), true).is_err());
        assert!(check(8, 8, false).is_err());
        assert!(check(usize::MAX - 3, 8, false).is_err());
        assert!(check(heap.as_ptr() as usize, 1 << 46, false).is_err());
    }

    #[test]
    fn touching_what_is_not_mapped_is_an_error() {
        let heap = vec![0_u8; 100_000];
        touch(heap.as_ptr() as usize + 1, heap.len() - 1, true).unwrap();
        static CONSTANT: [u8; 64] = [7; 64];
        assert!(touch(CONSTANT.as_ptr() as usize, CONSTANT.len(), false).is_ok());
        // Kernels before 5.14 do not know; this one does if it sees the difference.
        if touch(8, 8, false).is_err() {
            assert!(touch(CONSTANT.as_ptr() as usize, CONSTANT.len(), true).is_err());
            assert!(touch(usize::MAX - 3, 8, false).is_err());
        }
    }
}
