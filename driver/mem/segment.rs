//! `Segment`: a sealed memory file, mapped and shared with other processes.

use super::place::Place;
use crate::sys::memfd;
use memmap2::{Advice, MmapOptions, MmapRaw};
use std::io::{self, ErrorKind};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicU8, AtomicU16, AtomicU32, AtomicU64};

/// A type that may lie in memory which other processes change.
///
/// # Safety
/// It must be made of atomics only (and padding nobody reads): any bit pattern is valid, and another process may change
/// it at any time. Its layout must be fixed (`repr(C)` or `repr(transparent)`), because both sides must agree on it.
pub(crate) unsafe trait Shared {}

// SAFETY: an atomic, of a fixed layout, valid with any bits.
unsafe impl Shared for AtomicU8 {}
// SAFETY: as above.
unsafe impl Shared for AtomicU16 {}
// SAFETY: as above.
unsafe impl Shared for AtomicU32 {}
// SAFETY: as above.
unsafe impl Shared for AtomicU64 {}
// SAFETY: elements that are all `Shared`, without gaps.
unsafe impl<T: Shared, const N: usize> Shared for [T; N] {}

/// A mapped memory file. It is unmapped on drop, and nobody can shrink it before.
#[derive(Debug)]
pub(crate) struct Segment {
    /// The mapping, as a raw pointer and a length: it is never a slice.
    map: MmapRaw,
    /// The file, kept by its creator to give pages back and to show them elsewhere.
    file: Option<OwnedFd>,
    /// Device and inode of that file, as the kernel lists them with a mapping.
    identity: Option<Identity>,
}

/// Major and minor number of a device, and an inode on it.
pub(crate) type Identity = ((u32, u32), u64);

impl Segment {
    /// Creates and maps a file of `len` zero bytes; the descriptor is for the peers.
    ///
    /// No memory is set aside: pages come into being when first written, so a segment may be far larger than the machine.
    pub(crate) fn create(name: &str, len: u64) -> io::Result<(Self, OwnedFd)> {
        let fd = memfd::create(name, len)?;
        let map = map(&fd, len)?;
        let file = Some(fd.try_clone()?);
        let identity = Some(memfd::identity(&fd)?);
        Ok((Self { map, file, identity }, fd))
    }

    /// Maps a received file, after making sure that it is `len` bytes long and cannot shrink; the descriptor is closed.
    pub(crate) fn map(fd: OwnedFd, len: u64) -> io::Result<Self> {
        memfd::verify(&fd, len)?;
        Ok(Self { map: map(&fd, len)?, file: None, identity: None })
    }

    /// How many bytes.
    pub(crate) fn len(&self) -> u64 {
        self.map.len() as u64
    }

    /// Where it is mapped here.
    pub(crate) fn base(&self) -> *mut u8 {
        self.map.as_mut_ptr()
    }

    /// The file, at its creator.
    pub(crate) fn file(&self) -> Option<BorrowedFd<'_>> {
        self.file.as_ref().map(AsFd::as_fd)
    }

    /// How the kernel names the file, at its creator.
    pub(crate) fn identity(&self) -> Option<Identity> {
        self.identity
    }

    /// Are the `len` bytes from `offset` on inside?
    pub(crate) fn contains(&self, offset: u64, len: u64) -> bool {
        offset.checked_add(len).is_some_and(|end| end <= self.len())
    }

    /// Gives the pages of a range back; it reads as zero afterwards, in every process. Only the creator can.
    pub(crate) fn punch(&self, offset: u64, len: u64) -> io::Result<()> {
        if !self.contains(offset, len) {
            return Err(io::Error::new(ErrorKind::InvalidInput, "a hole outside the segment"));
        }
        match &self.file {
            // The kernel refuses an empty hole.
            Some(_) if len == 0 => Ok(()),
            Some(file) => memfd::punch(file, offset, len),
            None => {
                Err(io::Error::new(ErrorKind::Unsupported, "only the creator of a segment gives pages back"))
            }
        }
    }

    /// The `T` at `offset`, when it is inside and aligned.
    pub(crate) fn get<T: Shared>(&self, offset: u64) -> Option<&T> {
        self.array(offset, 1)?.first()
    }

    /// The `count` values from `offset` on, when all are inside and aligned.
    pub(crate) fn array<T: Shared>(&self, offset: u64, count: usize) -> Option<&[T]> {
        let bytes = count.checked_mul(size_of::<T>())?;
        let first = self.at(offset, bytes as u64)?.cast::<T>();
        if !first.is_aligned() {
            return None;
        }
        // SAFETY: in bounds and aligned, mapped for as long as `self` is borrowed. `Shared` says that these bytes are
        // valid whatever they are, and that only atomics look at them, which others may change meanwhile.
        Some(unsafe { std::slice::from_raw_parts(first, count) })
    }

    /// The `len` bytes from `offset` on, to copy from and to.
    pub(crate) fn place(&self, offset: u64, len: u64) -> Option<Place<'_>> {
        let ptr = self.at(offset, len)?;
        // SAFETY: in bounds of the mapping, which lives as long as the borrow; the only Rust references into a segment
        // are those to atomics that `array` makes.
        Some(unsafe { Place::new(ptr, usize::try_from(len).ok()?) })
    }

    /// The address of `offset`, when the `len` bytes there are inside.
    fn at(&self, offset: u64, len: u64) -> Option<*mut u8> {
        if !self.contains(offset, len) {
            return None;
        }
        Some(self.base().wrapping_add(usize::try_from(offset).ok()?))
    }
}

/// Maps all `len` bytes of `fd`, shared.
fn map(fd: &OwnedFd, len: u64) -> io::Result<MmapRaw> {
    let len = usize::try_from(len).ok().filter(|&len| len > 0 && isize::try_from(len).is_ok());
    let len =
        len.ok_or_else(|| io::Error::new(ErrorKind::InvalidInput, "a segment of no or too many bytes"))?;
    // Nothing is reserved: a sparse file may be larger than memory and swap together.
    let map = MmapOptions::new()
        .len(len)
        .no_reserve_swap()
        .map_raw(fd.as_raw_fd())
        .map_err(|error| io::Error::new(error.kind(), format!("cannot map {len} bytes: {error}")))?;
    // Buffers would make core dumps huge. A kernel that does not know this keeps dumping them, nothing else.
    let _ = map.advise(Advice::DontDump);
    Ok(map)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::Ordering;

    /// A segment and another mapping of it.
    fn twice(len: u64) -> (Segment, Segment) {
        let (ours, fd) = Segment::create("tbrdma-test", len).unwrap();
        (ours, Segment::map(fd, len).unwrap())
    }

    #[test]
    fn both_mappings_are_the_same_memory() {
        let (ours, theirs) = twice(8192);
        assert_ne!(ours.base(), theirs.base());
        ours.get::<AtomicU64>(8184).unwrap().store(77, Ordering::Release);
        assert_eq!(theirs.get::<AtomicU64>(8184).unwrap().load(Ordering::Acquire), 77);
        ours.place(100, 5).unwrap().write_from(b"hello");
        let mut bytes = [0; 5];
        theirs.place(100, 5).unwrap().read_into(&mut bytes);
        assert_eq!(&bytes, b"hello");
    }

    #[test]
    fn nothing_outside_or_crooked_is_reachable() {
        let (segment, _) = twice(4096);
        assert!(segment.contains(4096, 0) && segment.contains(0, 4096));
        assert!(!segment.contains(4097, 0) && !segment.contains(1, 4096));
        assert!(!segment.contains(u64::MAX, 2) && !segment.contains(2, u64::MAX));
        assert!(segment.get::<AtomicU64>(4089).is_none());
        assert!(segment.get::<AtomicU64>(4096).is_none());
        assert!(segment.get::<AtomicU64>(4).is_none());
        assert!(segment.get::<AtomicU32>(4).is_some());
        assert_eq!(segment.array::<AtomicU64>(4080, 2).map(<[_]>::len), Some(2));
        assert!(segment.array::<AtomicU64>(4080, 3).is_none());
        assert!(segment.array::<AtomicU64>(0, usize::MAX).is_none());
        assert!(segment.place(1, 4096).is_none());
    }

    #[test]
    fn punching_zeroes_for_everybody() {
        let (ours, theirs) = twice(3 * 4096);
        let (ours_word, theirs_word) =
            (ours.get::<AtomicU64>(4096).unwrap(), theirs.get::<AtomicU64>(4096).unwrap());
        ours_word.store(5, Ordering::SeqCst);
        ours.punch(4096, 4096).unwrap();
        assert_eq!(theirs_word.load(Ordering::SeqCst), 0);
        ours.punch(0, 0).unwrap();
        assert_eq!(ours.punch(8192, 4097).unwrap_err().kind(), ErrorKind::InvalidInput);
        assert_eq!(theirs.punch(0, 4096).unwrap_err().kind(), ErrorKind::Unsupported);
    }

    #[test]
    fn a_sparse_segment_may_be_larger_than_memory() {
        let len = 64 << 30;
        let (ours, theirs) = twice(len);
        ours.get::<AtomicU64>(len - 8).unwrap().store(1, Ordering::SeqCst);
        assert_eq!(theirs.get::<AtomicU64>(len - 8).unwrap().load(Ordering::SeqCst), 1);
    }

    #[test]
    fn bad_sizes_are_errors() {
        for len in [0, 1 << 62, u64::MAX] {
            assert!(Segment::create("tbrdma-test", len).is_err(), "{len}");
        }
        let (_, fd) = Segment::create("tbrdma-test", 4096).unwrap();
        assert_eq!(Segment::map(fd, 8192).unwrap_err().kind(), ErrorKind::InvalidData);
    }
}
