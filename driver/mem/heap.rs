//! `Extents`: hands out line-granular ranges of an address space of offsets.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, ErrorKind};

/// Every range starts and ends on a multiple of this: a cache line, so that no two ranges share one.
pub(crate) const GRANULE: u64 = 64;

/// Pages as segments count them. Where the system's are larger, giving back a part of one frees nothing.
pub(crate) const PAGE: u64 = 4096;

/// Bytes of the whole pages that hold `bytes`.
pub(crate) const fn pages(bytes: u64) -> u64 {
    if bytes == 0 { PAGE } else { bytes.next_multiple_of(PAGE) }
}

/// A best-fit allocator of offsets: it takes the smallest free range that fits, the lowest of equal ones.
#[derive(Debug, Default)]
pub(crate) struct Extents {
    /// Free ranges, start to length; never two that touch.
    free: BTreeMap<u64, u64>,
    /// The same ranges as (length, start), to find the smallest that fits.
    by_len: BTreeSet<(u64, u64)>,
    /// Ranges handed out, start to length.
    taken: BTreeMap<u64, u64>,
    /// Sum of `taken`.
    taken_bytes: u64,
}

impl Extents {
    /// Manages `[start, end)`, shrunk to whole granules.
    pub(crate) fn new(start: u64, end: u64) -> Self {
        let mut extents = Self::default();
        let end = end - end % GRANULE;
        if let Some(start) = start.checked_next_multiple_of(GRANULE).filter(|&start| start < end) {
            extents.insert_free(start, end - start);
        }
        extents
    }

    /// Takes `len` bytes (rounded up to granules) at a multiple of `align`, a power of two. `None` when there is no
    /// such room, or for no bytes at all.
    pub(crate) fn allocate(&mut self, len: u64, align: u64) -> Option<u64> {
        let len = len.checked_next_multiple_of(GRANULE).filter(|&len| len > 0)?;
        let align = align.max(GRANULE);
        if !align.is_power_of_two() {
            return None;
        }
        let (start, room, at) = self.by_len.range((len, 0)..).find_map(|&(room, start)| {
            let at = start.checked_next_multiple_of(align)?;
            let end = at.checked_add(len)?;
            (end - start <= room).then_some((start, room, at))
        })?;
        self.remove_free(start, room);
        self.insert_free(start, at - start);
        self.insert_free(at + len, start + room - (at + len));
        self.taken.insert(at, len);
        self.taken_bytes += len;
        Some(at)
    }

    /// Gives back what [`Extents::allocate`] returned for the same length; anything else is refused and changes nothing.
    pub(crate) fn free(&mut self, offset: u64, len: u64) -> io::Result<()> {
        let rounded = len.checked_next_multiple_of(GRANULE);
        let (Some(&known), Some(rounded)) = (self.taken.get(&offset), rounded) else {
            return Err(io::Error::new(ErrorKind::InvalidInput, "a range that was not handed out"));
        };
        if known != rounded {
            return Err(io::Error::new(ErrorKind::InvalidInput, "a range handed out with another length"));
        }
        self.taken.remove(&offset);
        self.taken_bytes -= known;
        let (mut start, mut end) = (offset, offset + known);
        if let Some((&before, &room)) = self.free.range(..start).next_back()
            && before + room == start
        {
            self.remove_free(before, room);
            start = before;
        }
        if let Some(&room) = self.free.get(&end) {
            self.remove_free(end, room);
            end += room;
        }
        self.insert_free(start, end - start);
        Ok(())
    }

    /// Bytes handed out now, with their rounding.
    #[cfg(test)]
    pub(crate) fn allocated_bytes(&self) -> u64 {
        self.taken_bytes
    }

    /// Notes a free range in both indexes; an empty one is nothing.
    fn insert_free(&mut self, start: u64, len: u64) {
        if len > 0 {
            self.free.insert(start, len);
            self.by_len.insert((len, start));
        }
    }

    /// Takes a free range out of both indexes.
    fn remove_free(&mut self, start: u64, len: u64) {
        self.free.remove(&start);
        self.by_len.remove(&(len, start));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Granules under test.
    const COUNT: usize = 64;

    /// The naive oracle: one flag a granule.
    fn run_exists(taken: &[bool], base: u64, len: usize, align: u64) -> bool {
        (0..COUNT.saturating_sub(len - 1)).any(|at| {
            (base + at as u64 * GRANULE).is_multiple_of(align)
                && taken[at..at + len].iter().all(|taken| !taken)
        })
    }

    proptest! {
        #[test]
        fn agrees_with_a_bitmap(
            base in 0u64..9,
            steps in prop::collection::vec((any::<bool>(), 1usize..12, 0u32..4, any::<prop::sample::Index>()), 1..200),
        ) {
            let base = base * GRANULE;
            let mut extents = Extents::new(base, base + COUNT as u64 * GRANULE);
            let mut taken = [false; COUNT];
            let mut held: Vec<(u64, u64)> = Vec::new();
            for (allocate, granules, shift, pick) in steps {
                if allocate {
                    let (len, align) = (granules as u64 * GRANULE - 5, GRANULE << shift);
                    let expected = run_exists(&taken, base, granules, align);
                    let got = extents.allocate(len, align);
                    prop_assert_eq!(got.is_some(), expected);
                    if let Some(at) = got {
                        prop_assert!(at.is_multiple_of(align) && at >= base);
                        let first = ((at - base) / GRANULE) as usize;
                        let run = &mut taken[first..first + granules];
                        prop_assert!(run.iter().all(|taken| !taken));
                        run.fill(true);
                        held.push((at, len));
                    }
                } else if !held.is_empty() {
                    let (at, len) = held.swap_remove(pick.index(held.len()));
                    prop_assert!(extents.free(at, len + 2 * GRANULE).is_err());
                    extents.free(at, len).unwrap();
                    prop_assert!(extents.free(at, len).is_err());
                    let first = ((at - base) / GRANULE) as usize;
                    taken[first..first + len.div_ceil(GRANULE) as usize].fill(false);
                }
                let count = taken.iter().filter(|&&taken| taken).count() as u64;
                prop_assert_eq!(extents.allocated_bytes(), count * GRANULE);
            }
            for (at, len) in held {
                extents.free(at, len).unwrap();
            }
            // Everything has grown together again.
            prop_assert_eq!(extents.allocate(COUNT as u64 * GRANULE, 1), Some(base));
        }
    }

    #[test]
    fn edges() {
        let mut extents = Extents::new(1, 3 * GRANULE + 1);
        assert_eq!(extents.allocate(0, 1), None);
        assert_eq!(extents.allocate(GRANULE, 3 * GRANULE), None);
        assert_eq!(extents.allocate(u64::MAX, 1), None);
        assert_eq!(extents.allocate(1, 1 << 63), None);
        assert_eq!(extents.allocate(2 * GRANULE, 0), Some(GRANULE));
        assert!(extents.free(0, GRANULE).is_err());
        assert!(extents.free(GRANULE, u64::MAX).is_err());
        assert_eq!(Extents::new(5, 5).allocate(1, 1), None);
        assert_eq!(Extents::new(u64::MAX, u64::MAX).allocate(1, 1), None);
    }
}
