//! Memory regions: allocated in the context's own segment, or the application's memory registered in place.

use super::core::{Core, lock};
use crate::device::{DeviceMemory, MemoryPath};
use crate::error::{Error, Result};
use crate::keys::Keys;
use crate::mem::{Claim, ForeignMemory, PAGE, Place, RegionBytes, pages};
use crate::sync::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use tbrdma_proto::{Access, PdHandle, Region};

/// Looks at memory between two looks at the network.
const LOOKS_PER_PASS: u32 = 8;

/// A registered memory region.
pub(crate) struct SoftMemory {
    core: Arc<Core>,
    region: Region,
    bytes: RegionBytes,
    /// Of memory of the application's own, for as long as it is registered.
    claim: Mutex<Option<Claim>>,
    withdrawn: AtomicBool,
    looks: AtomicU32,
}

impl SoftMemory {
    /// Allocates and registers.
    pub(crate) fn allocate(core: &Arc<Core>, pd: PdHandle, len: usize, access: Access) -> Result<Arc<Self>> {
        let length = len as u64;
        let offset = core.allocate_pages(length)?;
        let iova = if access.contains(Access::ZERO_BASED) { 0 } else { core.address_of(offset) };
        let region =
            core.insert_region(pd, access, iova, length).inspect_err(|_| core.free_pages(offset, length))?;
        core.regions.publish_segment(&region, offset);
        Ok(Arc::new(Self::new(core, region, RegionBytes::Segment { offset }, None)))
    }

    /// Registers the application's memory, to be named from `iova` on.
    pub(crate) fn register(
        core: &Arc<Core>,
        pd: PdHandle,
        memory: ForeignMemory,
        access: Access,
        iova: u64,
    ) -> Result<Arc<Self>> {
        let region = core.insert_region(pd, access, iova, memory.len() as u64)?;
        let claim = Claim::of(&memory);
        core.regions.publish_foreign(&region, &memory);
        Ok(Arc::new(Self::new(core, region, RegionBytes::foreign(memory), Some(claim))))
    }

    fn new(core: &Arc<Core>, region: Region, bytes: RegionBytes, claim: Option<Claim>) -> Self {
        Self {
            core: Arc::clone(core),
            region,
            bytes,
            claim: Mutex::new(claim),
            withdrawn: AtomicBool::new(false),
            looks: AtomicU32::new(0),
        }
    }

    fn withdraw(&self) {
        if self.withdrawn.swap(true, Ordering::AcqRel) {
            return;
        }
        self.core.regions.withdraw(self.region.key);
        self.core.await_untouched();
        lock(&self.core.table).remove(self.region.key);
        drop(lock(&self.claim).take());
    }
}

impl DeviceMemory for SoftMemory {
    fn region(&self) -> &Region {
        &self.region
    }

    fn with_place(&self, use_place: &mut dyn FnMut(Place<'_>)) {
        self.bytes.with_place(&self.core.segment, self.region.length, use_place);
    }

    fn segment_place(&self) -> Option<Place<'_>> {
        self.bytes.segment_place(&self.core.segment, self.region.length)
    }

    fn path(&self) -> MemoryPath {
        MemoryPath::Packets
    }

    fn wants_looks(&self) -> bool {
        true
    }

    fn is_looked_at(&self) {
        // Whether one look more or less is counted does not matter.
        let looks = self.looks.load(Ordering::Relaxed).wrapping_add(1);
        self.looks.store(looks, Ordering::Relaxed);
        if looks.is_multiple_of(LOOKS_PER_PASS) {
            self.core.poll_once();
        }
    }

    fn change_rights(&self, pd: PdHandle, access: Access) -> Result<()> {
        self.core.change_region(self.region.key, pd, access)?;
        self.core.await_untouched();
        Ok(())
    }

    fn deregister(&self) -> Result<()> {
        self.core.revoke_region("dereg_mr", self.region.key)?;
        self.withdraw();
        Ok(())
    }

    fn give_back_foreign(&self) -> Result<Option<ForeignMemory>> {
        self.deregister()?;
        Ok(self.bytes.take_foreign())
    }
}

impl Drop for SoftMemory {
    fn drop(&mut self) {
        self.core.end_region(self.region.key);
        self.withdraw();
        if let RegionBytes::Segment { offset } = self.bytes {
            self.core.free_pages(offset, self.region.length);
        }
    }
}

impl Core {
    /// Whole zeroed pages of the segment.
    fn allocate_pages(&self, bytes: u64) -> Result<u64> {
        lock(&self.heap).allocate(pages(bytes), PAGE).ok_or_else(|| Error::LimitReached {
            call: "alloc memory",
            what: "bytes in the context's segment",
            limit: self.segment.len(),
        })
    }

    /// Gives pages back, to the heap and to the system; they read as zero afterwards.
    fn free_pages(&self, offset: u64, bytes: u64) {
        let _ = self.segment.punch(offset, pages(bytes));
        let freed = lock(&self.heap).free(offset, pages(bytes));
        debug_assert!(freed.is_ok(), "heap: {freed:?}");
    }

    /// A region under a new key.
    fn insert_region(&self, pd: PdHandle, access: Access, iova: u64, length: u64) -> Result<Region> {
        let entropy = self.random_u32().map_err(Error::os("register memory", "random numbers"))?;
        let key = lock(&self.table).insert(entropy, pd, access, iova, length, ())?;
        Ok(Region { key, pd, access, iova, length })
    }

    /// Waits until nobody who may have found a key before it was withdrawn still uses its memory. Memory is used with the lock of some
    /// queue pair held, so it is enough to have had each of them once.
    pub(crate) fn await_untouched(&self) {
        for qp in self.queue_pairs() {
            drop(lock(&qp.inner));
        }
    }
}
