//! What of this process' address space is mapped: the part that every Unix has.

use nix::libc;
use std::io;

/// Is every byte of the range mapped and readable (and writable, if asked)? There is no table to read that from, so a range that is one is
/// believed.
pub(crate) fn check(address: usize, len: usize, _writable: bool) -> io::Result<()> {
    match address.checked_add(len) {
        Some(_) => Ok(()),
        None => Err(io::Error::from_raw_os_error(libc::EINVAL)),
    }
}

/// Bytes of a page.
pub(crate) fn page_size() -> usize {
    // SAFETY: asks for a number.
    let size = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    usize::try_from(size).unwrap_or(4096)
}

/// What a range is to show.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Show {
    /// Zeroes, the process' own.
    Zeroes,
}

/// Puts other pages, readable and writable, in the place of those of a range of whole pages, at once for whoever looks.
///
/// # Safety
/// What was in the range is gone afterwards, whoever it belonged to: the caller owns it, and is content with what is there then.
pub(crate) unsafe fn replace(address: usize, len: usize, Show::Zeroes: Show) -> io::Result<()> {
    let flags = libc::MAP_PRIVATE | libc::MAP_ANON | libc::MAP_NORESERVE | libc::MAP_FIXED;
    let at = std::ptr::with_exposed_provenance_mut(address);
    // SAFETY: the caller owns what is replaced.
    let done = unsafe { libc::mmap(at, len, libc::PROT_READ | libc::PROT_WRITE, flags, -1, 0) };
    if done == libc::MAP_FAILED { Err(io::Error::last_os_error()) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_beyond_all_addresses_are_refused() {
        assert!(check(8, 8, true).is_ok());
        assert!(check(usize::MAX - 3, 8, false).is_err());
        assert!(page_size().is_power_of_two() && page_size() >= 4096);
    }
}
