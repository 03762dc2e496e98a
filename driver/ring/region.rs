//! A registered memory region as other processes read it: published whole, withdrawn by its key.
//!
//! The key is the validity: zero while the entry changes, and a key is not used again soon, so a reader that finds its key
//! before and after reading the rest has read one whole registration.

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

/// One entry: eight words, one cache line, written by its owner only.
#[repr(C, align(64))]
pub(crate) struct RegionEntry {
    /// Key (low), 1 for memory of the process (high). Zero: nothing here.
    key: AtomicU64,
    /// Protection domain (low), access flags (high).
    rights: AtomicU64,
    iova: AtomicU64,
    length: AtomicU64,
    base: AtomicU64,
    spare: [AtomicU64; 3],
}

impl RegionEntry {
    /// An entry of these words, for models and tests; in a segment, zeroed memory is an empty one.
    #[cfg(test)]
    pub(crate) fn from_words(words: [u64; 8]) -> Self {
        let [key, rights, iova, length, base, spare @ ..] = words.map(AtomicU64::new);
        Self { key, rights, iova, length, base, spare }
    }

    /// Owner: publishes a registration.
    pub(crate) fn publish(&self, region: &Region, backing: Backing) {
        self.key.store(0, Ordering::Relaxed);
        // The fields below must not be seen before the key is gone.
        fence(Ordering::SeqCst);
        let (base, kind) = match backing {
            Backing::Segment(offset) => (offset, 0),
            Backing::Process(address) => (address, 1_u64 << 32),
        };
        self.rights.store(u64::from(region.pd.0) | u64::from(region.access.bits()) << 32, Ordering::Relaxed);
        self.iova.store(region.iova, Ordering::Relaxed);
        self.length.store(region.length, Ordering::Relaxed);
        self.base.store(base, Ordering::Relaxed);
        self.key.store(u64::from(region.key) | kind, Ordering::Release);
    }

    /// Owner: withdraws the registration. Those already using it are waited for through their busy words.
    pub(crate) fn withdraw(&self) {
        self.key.store(0, Ordering::SeqCst);
    }

    /// Anyone: the registration with this key, if it is there.
    #[inline]
    pub(crate) fn read(&self, key: u32) -> Option<(Region, Backing)> {
        let before = self.key.load(Ordering::Acquire);
        if before as u32 != key || key == 0 {
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
        if self.key.load(Ordering::Relaxed) != before {
            return None;
        }
        let backing = if before >> 32 == 0 { Backing::Segment(base) } else { Backing::Process(base) };
        Some((region, backing))
    }
}
