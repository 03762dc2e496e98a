//! A process' own registered regions by key, for the data path: no lock, and the only place where a key becomes a pointer.

use super::{ForeignMemory, Held, Place, Segment};
use crate::ring::layout::REGIONS;
use crate::ring::region::{Backing, RegionEntry, Registration};
use std::io;
use std::sync::Arc;
use tbrdma_proto::{Access, PdHandle, Qpn, Region, RegionError, RegionTable};

/// A region table's entries.
pub(crate) type RegionEntries = [RegionEntry; REGIONS as usize];

/// The entry of a key: there is one for every index that a key can have.
#[inline(always)]
pub(crate) fn entry_of(entries: &RegionEntries, key: u32) -> &RegionEntry {
    &entries[RegionTable::<()>::key_index(key) % REGIONS as usize]
}

/// The regions of one context. The entries are a private mirror of those in the segment: peers cannot write them, so what they
/// say about this process' addresses can be believed.
pub(crate) struct LocalRegions {
    entries: Held<RegionEntries>,
    segment: Arc<Segment>,
}

/// A region of this process that was found by its key, to be found again for less. Made here only: what it says has been in the table.
#[derive(Clone, Copy, Default)]
pub(crate) struct LocalRegion(Registration);

impl LocalRegions {
    /// No regions yet.
    pub(crate) fn new(segment: Arc<Segment>) -> io::Result<Self> {
        let entries = Segment::create("tbrdma-regions", size_of::<RegionEntries>() as u64)?;
        let entries = Held::one(&Arc::new(entries), 0).expect("made for these");
        Ok(Self { entries, segment })
    }

    #[inline(always)]
    fn entry(&self, key: u32) -> &RegionEntry {
        entry_of(&self.entries, key)
    }

    /// Makes a region of segment memory usable.
    pub(crate) fn publish_segment(&self, region: &Region, offset: u64) {
        debug_assert!(offset < self.segment.len());
        self.entry(region.key).publish(region, Backing::Segment(offset));
    }

    /// Makes a region of the application's memory usable. The caller keeps `memory` until after [`withdraw`](Self::withdraw) and until no
    /// send queue of this context is busy at all, nor one of a peer's with this context.
    pub(crate) fn publish_foreign(&self, region: &Region, memory: &ForeignMemory) {
        self.entry(region.key).publish(region, Backing::Process(memory.address() as u64));
    }

    /// Makes a part of a usable region usable under another key, until it is withdrawn or the region is; false if there is no such part.
    pub(crate) fn publish_part(&self, of: u32, part: &Region, offset: u64) -> bool {
        self.entry(part.key).publish_part(self.entry(of), of, part, offset)
    }

    /// Gives a usable region other rights, or another domain; false if there is no such region.
    pub(crate) fn publish_change(&self, region: &Region) -> bool {
        self.entry(region.key).publish_change(region)
    }

    /// Takes a region back.
    pub(crate) fn withdraw(&self, key: u32) {
        self.entry(key).withdraw();
    }

    /// A region with all of its bytes, of which the caller checks what it uses. As for [`place`](Self::place), the caller is busy, and
    /// uses neither when it no longer is.
    #[inline]
    pub(crate) fn find(&self, key: u32) -> Option<(Region, Place<'_>)> {
        let found = self.entry(key).read(key)?;
        Some((found.region, self.bytes(&found, 0, found.region.length)?))
    }

    /// The bytes of an access, checked. The caller has marked its send queue busy, or is the agent, and uses them no longer than that.
    /// `known` is what this context's table was last asked for.
    #[inline(always)]
    pub(crate) fn place(
        &self,
        known: &mut LocalRegion,
        pd: PdHandle,
        key: u32,
        needed: Access,
        addr: u64,
        len: u64,
    ) -> Result<Place<'_>, RegionError> {
        let missing = RegionError::KeyMismatch { key };
        let found = self.entry(key).find(key, &mut known.0).ok_or(missing)?;
        let offset = found.region.check(pd, needed, addr, len)?;
        self.bytes(found, offset, len).ok_or(missing)
    }

    /// [`place`](Self::place) for a request of a peer's, to queue pair `qpn` of domain `pd`: it may name a window too.
    #[cold]
    pub(crate) fn place_for_peer(
        &self,
        (pd, qpn): (PdHandle, Qpn),
        key: u32,
        needed: Access,
        addr: u64,
        len: u64,
    ) -> Result<Place<'_>, RegionError> {
        let missing = RegionError::KeyMismatch { key };
        let found = self.entry(key).read(key).ok_or(missing)?;
        let offset = found.region.check_remote(pd, qpn, needed, addr, len)?;
        self.bytes(&found, offset, len).ok_or(missing)
    }

    /// A part of a region that an entry has just been found to hold.
    #[inline(always)]
    fn bytes(&self, found: &Registration, offset: u64, len: u64) -> Option<Place<'_>> {
        match found.backing {
            Backing::Segment(base) => self.segment.place(base.wrapping_add(offset), len),
            Backing::Process(base) | Backing::Partly { address: base, .. } => {
                let ptr = std::ptr::with_exposed_provenance_mut(base.wrapping_add(offset) as usize);
                // SAFETY: the entry is private to this process and was published from a `ForeignMemory` of the region's length, whose bytes
                // stay valid until the entry is withdrawn and nobody is busy; the callers pass parts that are inside.
                Some(unsafe { Place::new(ptr, len as usize) })
            }
        }
    }
}
