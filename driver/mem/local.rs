//! A process' own registered regions by key, for the data path: no lock, and the only place where a key becomes a pointer.

use super::{ForeignMemory, Place, Segment};
use crate::ring::layout::REGIONS;
use crate::ring::region::{Backing, RegionEntry};
use std::io;
use std::sync::Arc;
use tbrdma_proto::{Access, PdHandle, Region, RegionError, RegionTable};

/// The regions of one context. The entries are a private mirror of those in the segment: peers cannot write them, so what they
/// say about this process' addresses can be believed.
pub(crate) struct LocalRegions {
    entries: Segment,
    segment: Arc<Segment>,
}

impl LocalRegions {
    /// No regions yet.
    pub(crate) fn new(segment: Arc<Segment>) -> io::Result<Self> {
        let bytes = u64::from(REGIONS) * size_of::<RegionEntry>() as u64;
        let (entries, _fd) = Segment::create("tbrdma-regions", bytes)?;
        Ok(Self { entries, segment })
    }

    fn entry(&self, key: u32) -> Option<&RegionEntry> {
        let index = RegionTable::<()>::key_index(key) as u64;
        self.entries.get(index * size_of::<RegionEntry>() as u64)
    }

    /// Makes a region of segment memory usable.
    pub(crate) fn publish_segment(&self, region: &Region, offset: u64) {
        debug_assert!(offset < self.segment.len());
        if let Some(entry) = self.entry(region.key) {
            entry.publish(region, Backing::Segment(offset));
        }
    }

    /// Makes a region of the application's memory usable. The caller keeps `memory` until after [`withdraw`](Self::withdraw) and until no
    /// send queue of this context is busy at all, nor one of a peer's with this context.
    pub(crate) fn publish_foreign(&self, region: &Region, memory: &ForeignMemory) {
        if let Some(entry) = self.entry(region.key) {
            entry.publish(region, Backing::Process(memory.address() as u64));
        }
    }

    /// Takes a region back.
    pub(crate) fn withdraw(&self, key: u32) {
        if let Some(entry) = self.entry(key) {
            entry.withdraw();
        }
    }

    /// A region with all of its bytes, of which the caller checks what it uses. As for [`place`](Self::place), the caller is busy, and
    /// uses neither when it no longer is.
    #[inline]
    pub(crate) fn find(&self, key: u32) -> Option<(Region, Place<'_>)> {
        let (region, backing) = self.entry(key)?.read(key)?;
        Some((region, self.bytes(backing, region.length)?))
    }

    /// The bytes of an access, checked. The caller has marked its send queue busy, or is the agent.
    pub(crate) fn place(
        &self,
        pd: PdHandle,
        key: u32,
        needed: Access,
        addr: u64,
        len: u64,
    ) -> Result<Place<'_>, RegionError> {
        let (region, bytes) = self.find(key).ok_or(RegionError::KeyMismatch { key })?;
        let offset = region.check(pd, needed, addr, len)?;
        bytes.sub(offset as usize, len as usize).ok_or(RegionError::KeyMismatch { key })
    }

    #[inline]
    fn bytes(&self, backing: Backing, length: u64) -> Option<Place<'_>> {
        match backing {
            Backing::Segment(base) => self.segment.place(base, length),
            Backing::Process(base) => {
                let ptr = std::ptr::with_exposed_provenance_mut(base as usize);
                // SAFETY: the entry is private to this process and was published from a `ForeignMemory` of this length, whose bytes stay
                // valid until the entry is withdrawn and nobody is busy.
                Some(unsafe { Place::new(ptr, length as usize) })
            }
        }
    }
}
