//! What of this process' address space is mapped, and how.

use nix::errno::Errno;
use nix::libc;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

/// Is every byte of the range mapped and readable (and writable, if asked)? Read from `/proc/self/maps`; where that is not to be
/// had, the range is believed.
pub(crate) fn check(address: usize, len: usize, writable: bool) -> io::Result<()> {
    let Ok(mappings) = Mappings::read() else { return Ok(()) };
    let end = end_of(address, len)?;
    let mut reached = address;
    for mapping in mappings.of(address, end) {
        let rights = mapping.rights;
        let fit = rights.starts_with('r') && (!writable || rights.as_bytes().get(1) == Some(&b'w'));
        if mapping.from > reached || !fit {
            break;
        }
        reached = mapping.to;
        if reached >= end {
            return Ok(());
        }
    }
    Err(io::Error::from_raw_os_error(libc::EFAULT))
}

/// Where a range ends. One that goes beyond all addresses is refused as the kernel refuses it.
fn end_of(address: usize, len: usize) -> io::Result<usize> {
    address.checked_add(len).ok_or_else(|| io::Error::from_raw_os_error(libc::EINVAL))
}

/// Brings the pages of a range in, as a read or a write would, but with an error in place of a fault if that cannot be. Where the
/// kernel is too old to say (before 5.14) the range is believed.
pub(crate) fn touch(address: usize, len: usize, writable: bool) -> io::Result<()> {
    const PAGE: usize = 4096;
    let from = address & !(PAGE - 1);
    let whole = end_of(address, len)? - from;
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

/// A line of `/proc/self/maps`: a run of pages that are mapped alike.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Mapping<'a> {
    pub(crate) from: usize,
    pub(crate) to: usize,
    /// `rwx`, each or `-`, and `s` (shared) or `p` (private).
    pub(crate) rights: &'a str,
    /// Where in the file it begins.
    pub(crate) offset: u64,
    /// Major and minor number of the file's device; zeroes without a file.
    pub(crate) device: (u32, u32),
    /// Zero without a file.
    pub(crate) inode: u64,
    pub(crate) name: &'a str,
}

impl<'a> Mapping<'a> {
    fn parse(line: &'a str) -> Option<Self> {
        let mut fields = line.splitn(6, ' ');
        let mut next = || fields.next();
        let (from, to) = next()?.split_once('-')?;
        let rights = next()?;
        let offset = u64::from_str_radix(next()?, 16).ok()?;
        let (major, minor) = next()?.split_once(':')?;
        let number = |text| u32::from_str_radix(text, 16).ok();
        let inode = next()?.parse().ok()?;
        Some(Self {
            from: usize::from_str_radix(from, 16).ok()?,
            to: usize::from_str_radix(to, 16).ok()?,
            rights,
            offset,
            device: (number(major)?, number(minor)?),
            inode,
            name: next().unwrap_or_default().trim_start(),
        })
    }
}

/// What is mapped where, lowest first.
pub(crate) struct Mappings(String);

impl Mappings {
    pub(crate) fn read() -> io::Result<Self> {
        std::fs::read_to_string("/proc/self/maps").map(Self)
    }

    pub(crate) fn all(&self) -> impl Iterator<Item = Mapping<'_>> {
        self.0.lines().filter_map(Mapping::parse)
    }

    /// Those that have a part of the range.
    pub(crate) fn of(&self, from: usize, to: usize) -> impl Iterator<Item = Mapping<'_>> {
        self.all().skip_while(move |mapping| mapping.to <= from).take_while(move |mapping| mapping.from < to)
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
pub(crate) enum Show<'a> {
    /// The file from this offset on, and changes are changes of the file.
    Shared(BorrowedFd<'a>, u64),
    /// The file from this offset on, but each page that is changed becomes the process' own.
    Private(BorrowedFd<'a>, u64),
    /// Zeroes, the process' own.
    Zeroes,
}

/// Puts other pages, readable and writable, in the place of those of a range of whole pages, at once for whoever looks.
///
/// # Safety
/// What was in the range is gone afterwards, whoever it belonged to: the caller owns it, and is content with what is there then.
pub(crate) unsafe fn replace(address: usize, len: usize, show: Show<'_>) -> io::Result<()> {
    let (flags, fd, offset) = match show {
        Show::Shared(fd, offset) => (libc::MAP_SHARED, fd.as_raw_fd(), offset),
        Show::Private(fd, offset) => (libc::MAP_PRIVATE, fd.as_raw_fd(), offset),
        Show::Zeroes => (libc::MAP_PRIVATE | libc::MAP_ANONYMOUS, -1, 0),
    };
    let offset = libc::off_t::try_from(offset).map_err(|_| io::ErrorKind::InvalidInput)?;
    let at = std::ptr::with_exposed_provenance_mut(address);
    let rights = libc::PROT_READ | libc::PROT_WRITE;
    // SAFETY: the caller owns what is replaced; a descriptor is open for as long as it is borrowed.
    let done = unsafe { libc::mmap(at, len, rights, flags | libc::MAP_FIXED, fd, offset) };
    if done == libc::MAP_FAILED { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Gives a range of whole pages the rights that a line of the table says.
///
/// # Safety
/// The range is the caller's, and it has no rights that somebody still counts on.
pub(crate) unsafe fn protect(address: usize, len: usize, rights: &str) -> io::Result<()> {
    let bit = |letter, bit| if rights.contains(letter) { bit } else { 0 };
    let bits = bit('r', libc::PROT_READ) | bit('w', libc::PROT_WRITE) | bit('x', libc::PROT_EXEC);
    let at = std::ptr::with_exposed_provenance_mut(address);
    // SAFETY: the caller answers for the range.
    Errno::result(unsafe { libc::mprotect(at, len, bits) })?;
    Ok(())
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
    fn a_line_of_the_table_says_all() {
        let line = "7f00-8f00 rw-s 0001f000 00:01 2054                       /memfd:tbrdma shm (deleted)";
        let said = Mapping {
            from: 0x7f00,
            to: 0x8f00,
            rights: "rw-s",
            offset: 0x1f000,
            device: (0, 1),
            inode: 2054,
            name: "/memfd:tbrdma shm (deleted)",
        };
        assert_eq!(Mapping::parse(line), Some(said));
        let bare = Mapping::parse("7f00-8f00 ---p 00000000 00:00 0 ").unwrap();
        assert_eq!((bare.rights, bare.inode, bare.name), ("---p", 0, ""));
        assert_eq!(Mapping::parse("nonsense"), None);
        let here = Mappings::read().unwrap();
        let local = 0;
        let at = (&raw const local).addr();
        let stack: Vec<_> = here.of(at, at + 1).collect();
        assert!(stack.len() == 1 && stack[0].from <= at && at < stack[0].to, "{stack:?}");
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
