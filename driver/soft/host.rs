//! What the transport asks while it decides.

use super::core::Core;
use super::srq::SoftSrq;
use tbrdma_proto::transport::{Host, Receive};
use tbrdma_proto::{Access, PdHandle, RegionError};

/// The answers for one queue pair.
pub(crate) struct SoftHost<'a> {
    pub(crate) core: &'a Core,
    pub(crate) srq: Option<&'a SoftSrq>,
    /// The shared receive that the queue pair has taken and not completed yet.
    pub(crate) taken: &'a mut Option<u32>,
}

impl Host for SoftHost<'_> {
    #[inline]
    fn check(&self, pd: PdHandle, key: u32, needed: Access, addr: u64, len: u64) -> Result<(), RegionError> {
        let (region, _) = self.core.regions.find(key).ok_or(RegionError::KeyMismatch { key })?;
        region.check(pd, needed, addr, len).map(|_| ())
    }

    fn invalidate(&mut self, pd: PdHandle, key: u32) -> Result<(), RegionError> {
        let (region, _) = self.core.regions.find(key).ok_or(RegionError::KeyMismatch { key })?;
        if region.pd != pd {
            return Err(RegionError::WrongPd { key, pd, region_pd: region.pd });
        }
        // Only what was given to a peer can be taken back by one. The region keeps its place in the table until its owner lets go.
        let remote = Access::REMOTE_WRITE | Access::REMOTE_READ | Access::REMOTE_ATOMIC;
        if !region.access.intersects(remote) {
            return Err(RegionError::AccessDenied { key, needed: remote, granted: region.access });
        }
        self.core.regions.withdraw(key);
        Ok(())
    }

    fn take_shared_receive(&mut self, receive: &mut Receive) -> bool {
        let Some(srq) = self.srq else { return false };
        let found = srq.take(receive);
        if found {
            *self.taken = Some(receive.wq_index);
        }
        found
    }
}
