//! A registered memory region as other processes read it: published whole, withdrawn by its key.
//!
//! The first word is the validity: zero while the entry changes, and never the same for two registrations (it counts them, beside the
//! key), so a reader that finds the same word before and after reading the rest has read one whole registration. For the same reason
//! one who has read it needs only that word to know that it still holds.

use crate::sync::{AtomicU64, Ordering, fence};
use tbrdma_proto::{Access, PdHandle, Region};

/// Where a region's bytes are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Backing {
    /// At this offset of the owner's segment, which peers map.
    Segment(u64),
    /// At this address of the owner's process, memory of the application's own.
    Process(u64),
    /// At this address of the owner's process, and all of it but the ends in the owner's segment too.
    Partly {
        address: u64,
        /// Where in the segment the region's first byte would be, if it were there.
        offset: u64,
        /// Bytes before the first one that is there: less than a page.
        front: u32,
        /// Bytes after the last one that is there: less than a page.
        back: u32,
    },
}

impl Backing {
    /// Where in the owner's segment the `len` bytes from `at` on of a region of `length` bytes are, if they are there.
    #[inline(always)]
    pub(crate) fn in_segment(self, at: u64, len: u64, length: u64) -> Option<u64> {
        match self {
            Self::Segment(offset) => Some(offset.wrapping_add(at)),
            Self::Partly { offset, front, back, .. } => {
                let end = at.checked_add(len)?.checked_add(u64::from(back))?;
                (at >= u64::from(front) && end <= length).then(|| offset.wrapping_add(at))
            }
            Self::Process(_) => None,
        }
    }

    /// The backing of the `len` bytes from `at` on, all of them inside, of a region of `length` bytes.
    fn part(self, length: u64, at: u64, len: u64) -> Self {
        match self {
            Self::Segment(offset) => Self::Segment(offset.wrapping_add(at)),
            Self::Process(address) => Self::Process(address.wrapping_add(at)),
            Self::Partly { address, offset, front, back } => Self::Partly {
                address: address.wrapping_add(at),
                offset: offset.wrapping_add(at),
                // No longer than they were.
                front: u64::from(front).saturating_sub(at) as u32,
                back: u64::from(back).saturating_sub(length - at - len) as u32,
            },
        }
    }

    /// Where in the owner's process its first byte is, if it is memory of the application's own.
    pub(crate) fn in_process(self) -> Option<u64> {
        match self {
            Self::Segment(_) => None,
            Self::Process(address) | Self::Partly { address, .. } => Some(address),
        }
    }
}

/// One registration, as an entry has it or had it. The default has no bytes and a word that is in no entry, unless a peer writes it there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Registration {
    /// The entry's first word for as long as this is what it holds.
    word: u64,
    pub(crate) region: Region,
    pub(crate) backing: Backing,
}

/// Bit of the first word: memory of the process.
const OF_PROCESS: u64 = 1 << 32;
/// Bit of the first word: memory of the process of which the whole pages are in the segment as well.
const IN_BOTH: u64 = 1 << 33;
/// From this bit of the first word on: how many registrations the entry has held.
const COUNT_SHIFT: u32 = 34;

impl Default for Registration {
    fn default() -> Self {
        let region = Region { key: 0, pd: PdHandle(0), access: Access::empty(), iova: 0, length: 0 };
        Self { word: u64::MAX, region, backing: Backing::Segment(0) }
    }
}

/// One entry: eight words, one cache line, written by its owner only.
#[repr(C, align(64))]
pub(crate) struct RegionEntry {
    /// Key (low), [`OF_PROCESS`] or [`IN_BOTH`], the registration's number (above). Zero: nothing here.
    word: AtomicU64,
    /// Protection domain (low), access flags (high).
    rights: AtomicU64,
    iova: AtomicU64,
    length: AtomicU64,
    base: AtomicU64,
    /// Registrations so far; its owner's business only.
    count: AtomicU64,
    /// Of memory that is in the segment but for its ends: where its first byte would be, and how long the ends are (front low, back high).
    offset: AtomicU64,
    ends: AtomicU64,
}

impl RegionEntry {
    /// An entry of these words, for models and tests; in a segment, zeroed memory is an empty one.
    #[cfg(test)]
    pub(crate) fn from_words(words: [u64; 8]) -> Self {
        let [word, rights, iova, length, base, count, offset, ends] = words.map(AtomicU64::new);
        Self { word, rights, iova, length, base, count, offset, ends }
    }

    /// Owner: publishes a registration.
    pub(crate) fn publish(&self, region: &Region, backing: Backing) {
        self.word.store(0, Ordering::Relaxed);
        // The fields below must not be seen before the word is gone.
        fence(Ordering::SeqCst);
        let (base, kind) = match backing {
            Backing::Segment(offset) => (offset, 0),
            Backing::Process(address) => (address, OF_PROCESS),
            Backing::Partly { address, offset, front, back } => {
                self.offset.store(offset, Ordering::Relaxed);
                self.ends.store(u64::from(front) | u64::from(back) << 32, Ordering::Relaxed);
                (address, IN_BOTH)
            }
        };
        let count = self.count.load(Ordering::Relaxed).wrapping_add(1);
        self.count.store(count, Ordering::Relaxed);
        self.rights.store(u64::from(region.pd.0) | u64::from(region.access.bits()) << 32, Ordering::Relaxed);
        self.iova.store(region.iova, Ordering::Relaxed);
        self.length.store(region.length, Ordering::Relaxed);
        self.base.store(base, Ordering::Relaxed);
        self.word.store(u64::from(region.key) | kind | count << COUNT_SHIFT, Ordering::Release);
    }

    /// Owner: publishes a part of what the entry `of` holds under key `key`, from `offset` on; false if it does not hold all of that.
    pub(crate) fn publish_part(&self, of: &Self, key: u32, part: &Region, offset: u64) -> bool {
        let Some(whole) = of.read(key) else { return false };
        let inside = offset.checked_add(part.length).is_some_and(|end| end <= whole.region.length);
        if inside {
            self.publish(part, whole.backing.part(whole.region.length, offset, part.length));
        }
        inside
    }

    /// Owner: publishes the region that the entry holds with other rights, or of another domain; false if it does not hold it.
    pub(crate) fn publish_change(&self, region: &Region) -> bool {
        let held = self.read(region.key);
        if let Some(held) = held {
            self.publish(region, held.backing);
        }
        held.is_some()
    }

    /// Owner: withdraws the registration. Those already using it are waited for through their busy words.
    pub(crate) fn withdraw(&self) {
        self.word.store(0, Ordering::SeqCst);
    }

    /// Anyone: the registration with this key, if it is there.
    pub(crate) fn read(&self, key: u32) -> Option<Registration> {
        let word = self.word.load(Ordering::Acquire);
        if word as u32 != key || key == 0 {
            return None;
        }
        let rights = self.rights.load(Ordering::Relaxed);
        let region = Region {
            key,
            pd: PdHandle(rights as u32),
            access: Access::from_bits_truncate((rights >> 32) as u32),
            iova: self.iova.load(Ordering::Relaxed),
            length: self.length.load(Ordering::Relaxed),
        };
        let base = self.base.load(Ordering::Relaxed);
        let backing = match word & (OF_PROCESS | IN_BOTH) {
            0 => Backing::Segment(base),
            IN_BOTH => {
                let ends = self.ends.load(Ordering::Relaxed);
                Backing::Partly {
                    address: base,
                    offset: self.offset.load(Ordering::Relaxed),
                    front: ends as u32,
                    back: (ends >> 32) as u32,
                }
            }
            _ => Backing::Process(base),
        };
        fence(Ordering::Acquire);
        if self.word.load(Ordering::Relaxed) != word {
            return None;
        }
        Some(Registration { word, region, backing })
    }

    /// Anyone: the registration with this key, if it is there. `known` is what this returned for the same table the last time; if that is
    /// the one and still holds, a look at one word is all.
    #[inline(always)]
    pub(crate) fn find<'r>(&self, key: u32, known: &'r mut Registration) -> Option<&'r Registration> {
        let holds = known.word == self.word.load(Ordering::Acquire) && known.word as u32 == key;
        (holds || self.look_up(key, known)).then_some(known)
    }

    #[cold]
    fn look_up(&self, key: u32, known: &mut Registration) -> bool {
        let found = self.read(key);
        *known = found.unwrap_or_default();
        found.is_some()
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn a_part_is_in_the_segment_where_the_whole_is() {
        const LENGTH: u64 = 12;
        let whole = Backing::Partly { address: 1000, offset: 5000, front: 3, back: 2 };
        let ranges = |length| (0..=length).flat_map(move |at| (1..=length - at).map(move |len| (at, len)));
        for (begin, length) in ranges(LENGTH) {
            let part = whole.part(LENGTH, begin, length);
            assert_eq!(part.in_process(), Some(1000 + begin));
            for (at, len) in ranges(length) {
                let found = whole.in_segment(begin + at, len, LENGTH);
                let inside = begin + at >= 3 && begin + at + len <= 10;
                assert_eq!(found, inside.then_some(5000 + begin + at));
                assert_eq!(part.in_segment(at, len, length), found, "{at}+{len} of {begin}+{length}");
            }
        }
        assert_eq!(whole.in_segment(u64::MAX, 2, LENGTH), None);
        assert_eq!(Backing::Process(7).in_segment(0, 1, 1), None);
        assert_eq!(Backing::Segment(7).in_segment(2, 1, 3), Some(9));
    }
}
