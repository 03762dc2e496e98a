//! What of this process' address space is mapped, and how.

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
    Err(io::Error::from_raw_os_error(nix::libc::EFAULT))
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
}
