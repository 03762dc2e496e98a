//! Registered bytes that, while nobody has lent them to a work request, belong to one Rust owner and read like any slice.

use crate::device::DeviceMemory;
use std::sync::Arc;
use tbrdma_proto::Access;

/// Memory without remote access rights, owned by one value.
pub(crate) struct ExclusiveBytes {
    memory: Arc<dyn DeviceMemory>,
}

impl ExclusiveBytes {
    /// Takes the only handle of a region the library allocated; `None` if peers could reach it by its key or somebody else holds it.
    pub(crate) fn new(memory: Arc<dyn DeviceMemory>) -> Option<Self> {
        let remote = Access::REMOTE_WRITE | Access::REMOTE_READ | Access::REMOTE_ATOMIC | Access::MW_BIND;
        let sole = Arc::strong_count(&memory) == 1 && Arc::weak_count(&memory) == 0;
        let ours = memory.segment_place().is_some();
        (ours && sole && !memory.region().access.intersects(remote)).then_some(Self { memory })
    }

    /// The region.
    pub(crate) fn memory(&self) -> &Arc<dyn DeviceMemory> {
        &self.memory
    }

    /// The bytes.
    pub(crate) fn bytes(&self) -> &[u8] {
        let Some(place) = self.memory.segment_place() else { return &[] };
        // SAFETY: the place is valid for as long as the region lives. Nobody else writes it: the region has no remote rights, the
        // only safe way to name it in a work request moves this value away until the work request has completed, and naming
        // its key by hand is an unsafe call.
        unsafe { std::slice::from_raw_parts(place.as_ptr(), place.len()) }
    }

    /// The bytes, to change.
    #[allow(
        clippy::needless_pass_by_ref_mut,
        reason = "the exclusive borrow is what makes the slice exclusive"
    )]
    pub(crate) fn bytes_mut(&mut self) -> &mut [u8] {
        let Some(place) = self.memory.segment_place() else { return &mut [] };
        // SAFETY: as in `bytes`, and `self` is borrowed exclusively.
        unsafe { std::slice::from_raw_parts_mut(place.as_ptr(), place.len()) }
    }
}
