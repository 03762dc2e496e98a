//! `Segment`: the memory of a device, mapped. Where it is a memory file, other processes can map it too.

use super::backing::Backing;
use super::place::Place;
use memmap2::MmapRaw;
use std::io::{self, ErrorKind};
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

/// Mapped memory that devices work on. It is unmapped on drop, and nobody can shrink it before.
#[derive(Debug)]
pub(crate) struct Segment {
    /// The mapping, as a raw pointer and a length: it is never a slice.
    pub(super) map: MmapRaw,
    /// What the bytes are.
    pub(super) backing: Backing,
}

impl Segment {
    /// Makes and maps `len` zero bytes.
    ///
    /// No memory is set aside: pages come into being when first written, so a segment may be far larger than the machine.
    pub(crate) fn create(name: &str, len: u64) -> io::Result<Self> {
        let (map, backing) = Backing::create(name, len)?;
        Ok(Self { map, backing })
    }

    /// How many bytes.
    pub(crate) fn len(&self) -> u64 {
        self.map.len() as u64
    }

    /// Where it is mapped here.
    pub(crate) fn base(&self) -> *mut u8 {
        self.map.as_mut_ptr()
    }

    /// Are the `len` bytes from `offset` on inside?
    pub(crate) fn contains(&self, offset: u64, len: u64) -> bool {
        offset.checked_add(len).is_some_and(|end| end <= self.len())
    }

    /// Gives the pages of a range back; it reads as zero afterwards, for everybody who has it mapped. Only the creator can.
    pub(crate) fn punch(&self, offset: u64, len: u64) -> io::Result<()> {
        if !self.contains(offset, len) {
            return Err(io::Error::new(ErrorKind::InvalidInput, "a hole outside the segment"));
        }
        // The kernel refuses an empty hole.
        if len == 0 { Ok(()) } else { self.backing.punch(&self.map, offset, len) }
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

/// The length of a mapping, if there can be one of so many bytes.
pub(super) fn mappable(len: u64) -> io::Result<usize> {
    let fitting = usize::try_from(len).ok().filter(|&len| len > 0 && isize::try_from(len).is_ok());
    fitting.ok_or_else(|| io::Error::new(ErrorKind::InvalidInput, "a segment of no or too many bytes"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::Ordering;

    #[test]
    fn nothing_outside_or_crooked_is_reachable() {
        let segment = Segment::create("tbrdma-test", 4096).unwrap();
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
    fn punched_bytes_are_zero_and_their_neighbours_are_not() {
        let len = 40 * 4096;
        let segment = Segment::create("tbrdma-test", len).unwrap();
        let words = segment.array::<AtomicU64>(0, len as usize / 8).unwrap();
        for (from, to) in [(4096, 8192), (0, len), (8, 24), (4096, 33 * 4096), (3 * 4096, 3 * 4096)] {
            words.iter().for_each(|word| word.store(5, Ordering::SeqCst));
            segment.punch(from, to - from).unwrap();
            for (at, word) in (0..).step_by(8).zip(words) {
                let expected = if (from..to).contains(&at) { 0 } else { 5 };
                assert_eq!(word.load(Ordering::SeqCst), expected, "{at} of {from}..{to}");
            }
        }
        assert_eq!(segment.punch(len - 4096, 4097).unwrap_err().kind(), ErrorKind::InvalidInput);
    }

    #[test]
    fn a_segment_may_be_larger_than_memory() {
        let len = 64 << 30;
        let segment = Segment::create("tbrdma-test", len).unwrap();
        segment.get::<AtomicU64>(len - 8).unwrap().store(1, Ordering::SeqCst);
        assert_eq!(segment.get::<AtomicU64>(len - 16).unwrap().load(Ordering::SeqCst), 0);
    }

    #[test]
    fn bad_sizes_are_errors() {
        for len in [0, 1 << 62, u64::MAX] {
            assert!(Segment::create("tbrdma-test", len).is_err(), "{len}");
        }
    }
}
