//! What the transport asks while it decides.

use super::core::Core;
use super::srq::SoftSrq;
use crate::keys::Keys;
use tbrdma_proto::transport::{Host, Receive};
use tbrdma_proto::{Access, BindError, MwBind, PdHandle, Qpn, RegionError};

/// The answers for one queue pair.
pub(crate) struct SoftHost<'a> {
    pub(crate) core: &'a Core,
    pub(crate) qpn: Qpn,
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

    #[inline]
    fn check_remote(
        &self,
        pd: PdHandle,
        key: u32,
        needed: Access,
        addr: u64,
        len: u64,
    ) -> Result<(), RegionError> {
        let (region, _) = self.core.regions.find(key).ok_or(RegionError::KeyMismatch { key })?;
        region.check_remote(pd, self.qpn, needed, addr, len).map(|_| ())
    }

    fn bind(&mut self, pd: PdHandle, bind: &MwBind) -> Result<(), BindError> {
        self.core.bind(pd, self.qpn, bind)
    }

    fn invalidate(&mut self, pd: PdHandle, key: u32) -> Result<(), RegionError> {
        self.core.invalidate(pd, self.qpn, key)
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
