//! Memory regions: allocated in the segment, or the application's own registered in place; and letting go of them.

use super::core::{Core, header, lock, qp_words};
use super::peer::ForeignPath;
use super::wire::Wire;
use crate::device::{DeviceMemory, MemoryPath};
use crate::error::{Error, Result};
use crate::keys::Keys;
use crate::mem::{Adopted, Claim, ForeignMemory, Held, Place, RegionBytes, Room, Segment, pages};
use crate::ring::busy::{Busy, withdraw_fence};
use crate::ring::layout::{QPS, region_at};
use crate::ring::region::{Backing, RegionEntry};
use crate::sync::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tbrdma_proto::{Access, PdHandle, Region, RegionTable};

/// How long a deregistration waits for a peer that is in the middle of a copy. A running one is done in microseconds.
const PATIENCE: Duration = Duration::from_secs(1);

/// A registered memory region.
pub(crate) struct ShmMemory {
    core: Arc<Core>,
    region: Region,
    bytes: RegionBytes,
    /// Its address here, for as long as it is registered.
    address: usize,
    /// Of memory of the application's own, for as long as it is registered.
    claim: Mutex<Option<Claim>>,
    /// Where that is in the segment, if it is.
    adopted: Option<Adopted>,
    withdrawn: AtomicBool,
}

impl ShmMemory {
    /// Allocates and registers.
    pub(crate) fn allocate(core: &Arc<Core>, pd: PdHandle, len: usize, access: Access) -> Result<Arc<Self>> {
        const CALL: &str = "alloc memory";
        let length = len as u64;
        let offset = core.allocate_pages(CALL, length)?;
        let address = core.segment.base() as usize + offset as usize;
        let iova = if access.contains(Access::ZERO_BASED) { 0 } else { address as u64 };
        let region =
            core.insert_region(pd, access, iova, length).inspect_err(|_| core.free_pages(offset, length))?;
        core.regions.publish_segment(&region, offset);
        entry(core, region.key).publish(&region, Backing::Segment(offset));
        Ok(Arc::new(Self {
            core: Arc::clone(core),
            region,
            bytes: RegionBytes::Segment { offset },
            address,
            claim: Mutex::new(None),
            adopted: None,
            withdrawn: AtomicBool::new(false),
        }))
    }

    /// Registers the application's memory, to be named from `iova` on.
    pub(crate) fn register(
        core: &Arc<Core>,
        pd: PdHandle,
        memory: ForeignMemory,
        access: Access,
        iova: u64,
    ) -> Result<Arc<Self>> {
        let address = memory.address();
        let region = core.insert_region(pd, access, iova, memory.len() as u64)?;
        // Nobody else touches what is only sent from.
        let is_worth_it = !access.is_empty() && core.adopts && memory.wants_adoption();
        let claim = if is_worth_it {
            Claim::adopting(&memory, &(Arc::clone(core) as Arc<dyn Room>))
        } else {
            Claim::of(&memory)
        };
        let adopted = claim.adopted();
        core.regions.publish_foreign(&region, &memory);
        entry(core, region.key).publish(&region, backing(address as u64, adopted));
        Ok(Arc::new(Self {
            core: Arc::clone(core),
            region,
            bytes: RegionBytes::foreign(memory),
            address,
            claim: Mutex::new(Some(claim)),
            adopted,
            withdrawn: AtomicBool::new(false),
        }))
    }

    /// Waits for those who found it before it was withdrawn or changed.
    fn await_untouched(&self, call: &'static str) -> Result<()> {
        // The agent may be copying: it holds this lock while it does.
        drop(lock(&self.core.serving));
        let Some(pid) = self.core.await_untouched(PATIENCE) else { return Ok(()) };
        let reason = format!(
            "process {pid} has been in the middle of an access to region {:#010x} ({} bytes at {:#x}) for {PATIENCE:?}; \
             is it stopped? Continue or end it, then try again",
            self.region.key, self.region.length, self.address
        );
        Err(Error::Busy { call, reason })
    }
}

impl DeviceMemory for ShmMemory {
    fn region(&self) -> &Region {
        &self.region
    }

    fn with_place(&self, use_place: &mut dyn FnMut(Place<'_>)) {
        self.bytes.with_place(&self.core.segment, self.region.length, use_place);
    }

    fn segment_place(&self) -> Option<Place<'_>> {
        self.bytes.segment_place(&self.core.segment, self.region.length)
    }

    fn words(&self) -> Option<Held<[AtomicU64]>> {
        match &self.bytes {
            RegionBytes::Segment { offset } => {
                Held::many(&self.core.segment, *offset, self.region.length as usize / size_of::<u64>())
            }
            RegionBytes::Foreign(_) => None,
        }
    }

    fn wants_looks(&self) -> bool {
        self.core.wire.as_ref().is_some_and(Wire::has_latency)
    }

    fn is_looked_at(&self) {
        // Who waits for an answer in memory may have sent the question only so far.
        if let Some(wire) = &self.core.wire {
            self.core.bring_what_is_back(wire);
        }
    }

    fn path(&self) -> MemoryPath {
        match self.bytes {
            RegionBytes::Segment { .. } => MemoryPath::Mapped,
            RegionBytes::Foreign(_) => match self.adopted {
                Some(Adopted { front: 0, back: 0, .. }) => MemoryPath::Mapped,
                Some(_) => MemoryPath::Partly,
                None => self.core.foreign_path(),
            },
        }
    }

    fn change_rights(&self, pd: PdHandle, access: Access) -> Result<()> {
        self.core.change_region(self.region.key, pd, access)?;
        self.await_untouched("rereg_mr")
    }

    fn deregister(&self) -> Result<()> {
        if self.withdrawn.load(Ordering::Acquire) {
            return Ok(());
        }
        self.core.revoke_region("dereg_mr", self.region.key)?;
        self.core.withdraw_key(self.region.key);
        self.await_untouched("dereg_mr")?;
        if !self.withdrawn.swap(true, Ordering::AcqRel) {
            lock(&self.core.table).remove(self.region.key);
            drop(lock(&self.claim).take());
        }
        Ok(())
    }

    fn give_back_foreign(&self) -> Result<Option<ForeignMemory>> {
        self.deregister()?;
        Ok(self.bytes.take_foreign())
    }
}

impl Drop for ShmMemory {
    fn drop(&mut self) {
        self.core.end_region(self.region.key);
        let let_go = self.deregister().is_ok();
        match &self.bytes {
            // A peer that does not let go may still write: then the bytes are never used for anything else again.
            RegionBytes::Segment { offset } => {
                if let_go {
                    self.core.free_pages(*offset, pages(self.region.length));
                }
            }
            RegionBytes::Foreign(_) => {
                if let (false, Some(memory)) = (let_go, self.bytes.take_foreign()) {
                    memory.leak();
                    std::mem::forget(lock(&self.claim).take());
                }
            }
        }
    }
}

/// Where a region of memory of the application's own is.
fn backing(address: u64, adopted: Option<Adopted>) -> Backing {
    match adopted {
        None => Backing::Process(address),
        Some(Adopted { offset, front: 0, back: 0 }) => Backing::Segment(offset),
        Some(Adopted { offset, front, back }) => Backing::Partly { address, offset, front, back },
    }
}

impl Room for Core {
    fn segment(&self) -> &Arc<Segment> {
        &self.segment
    }

    fn take(&self, bytes: u64, align: u64) -> Option<u64> {
        // A context that a child has from its parent is its parent's.
        let is_ours = self.header().process.load(Ordering::Relaxed) == crate::sys::process::process_token();
        lock(&self.heap).allocate(pages(bytes), align).filter(|_| is_ours)
    }

    fn give_back(&self, offset: u64, bytes: u64) {
        self.free_pages(offset, bytes);
    }
}

/// What peers read of the region with this key.
pub(crate) fn entry(core: &Core, key: u32) -> &RegionEntry {
    let index = RegionTable::<()>::key_index(key) as u32;
    core.segment.get(region_at(index)).expect("the layout lies within every segment")
}

impl Core {
    /// Waits until no send queue, ours or a peer's, that was busy with this context still is. The process that does not let go, if one
    /// does not.
    pub(crate) fn await_untouched(&self, patience: Duration) -> Option<i32> {
        withdraw_fence();
        let mut peers = self.peers.all();
        peers.retain(|peer| peer.context != self.context && peer.is_alive());
        let own = std::iter::once((&self.segment, None));
        let others = peers.iter().map(|peer| (&peer.segment, Some(peer)));
        let mut since = None;
        for (segment, peer) in own.chain(others) {
            let slots = (header(segment).qp_slots.load(Ordering::Acquire) as u32).min(QPS);
            for slot in 0..slots {
                let busy = Busy(&qp_words(segment, slot).busy);
                let is_at_it = || match peer {
                    Some(peer) => peer.is_alive() && busy.may_touch(self.context),
                    // Our own queues say whom they touch; whoever it is, they do it with memory of ours.
                    None => !busy.is_idle(),
                };
                while is_at_it() {
                    let since = *since.get_or_insert_with(Instant::now);
                    if since.elapsed() > patience {
                        return Some(peer.map_or_else(crate::sys::process::process_id, |peer| peer.pid));
                    }
                    crate::sys::process::yield_now();
                }
            }
        }
        None
    }

    /// How peers in other processes reach memory of the application's own: the slowest way that one of them needs. Before there are any,
    /// the way we expect.
    fn foreign_path(&self) -> MemoryPath {
        let peers = self.peers.all();
        let used = |path| peers.iter().any(|peer| peer.is_alive() && peer.reaches_us.get() == Some(path));
        if used(ForeignPath::Agent) { MemoryPath::Agent } else { MemoryPath::ProcessVm }
    }
}
