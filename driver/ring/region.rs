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
/// From this bit of the first word on: how many registrations the entry has held.
const COUNT_SHIFT: u32 = 33;

impl Default for Registration {
    fn default() -> Self {
        let region = Region { key: 0, pd: PdHandle(0), access: Access::empty(), iova: 0, length: 0 };
        Self { word: u64::MAX, region, backing: Backing::Segment(0) }
    }
}

/// One entry: eight words, one cache line, written by its owner only.
#[repr(C, align(64))]
pub(crate) struct RegionEntry {
    /// Key (low), [`OF_PROCESS`], the registration's number (above). Zero: nothing here.
    word: AtomicU64,
    /// Protection domain (low), access flags (high).
    rights: AtomicU64,
    iova: AtomicU64,
    length: AtomicU64,
    base: AtomicU64,
    /// Registrations so far; its owner's business only.
    count: AtomicU64,
    spare: [AtomicU64; 2],
}

impl RegionEntry {
    /// An entry of these words, for models and tests; in a segment, zeroed memory is an empty one.
    #[cfg(test)]
    pub(crate) fn from_words(words: [u64; 8]) -> Self {
        let [word, rights, iova, length, base, count, spare @ ..] = words.map(AtomicU64::new);
        Self { word, rights, iova, length, base, count, spare }
    }

    /// Owner: publishes a registration.
    pub(crate) fn publish(&self, region: &Region, backing: Backing) {
        self.word.store(0, Ordering::Relaxed);
        // The fields below must not be seen before the word is gone.
        fence(Ordering::SeqCst);
        let (base, kind) = match backing {
            Backing::Segment(offset) => (offset, 0),
            Backing::Process(address) => (address, OF_PROCESS),
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
            self.publish(
                part,
                match whole.backing {
                    Backing::Segment(base) => Backing::Segment(base.wrapping_add(offset)),
                    Backing::Process(base) => Backing::Process(base.wrapping_add(offset)),
                },
            );
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
        fence(Ordering::Acquire);
        if self.word.load(Ordering::Relaxed) != word {
            return None;
        }
        let backing = if word & OF_PROCESS == 0 { Backing::Segment(base) } else { Backing::Process(base) };
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
