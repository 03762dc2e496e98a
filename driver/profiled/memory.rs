//! Regions and completion queues that are counted; regions without a remote key.

use super::account::Held as Counted;
use crate::device::{DeviceCq, DeviceMemory, ForeignMemory, bytes_of_inner};
use crate::error::{Error, Result};
use std::sync::Arc;
use tbrdma_proto::{Access, PdHandle, Region, Rkey, WorkCompletion};

/// A region of a device, as its profile has it.
pub(super) struct ProfiledMemory {
    pub(super) inner: Arc<dyn DeviceMemory>,
    pub(super) rkey: Rkey,
    pub(super) _counted: Option<Counted>,
    /// Tells the device that the region is gone.
    pub(super) _known: Option<super::device::Known>,
}

impl DeviceMemory for ProfiledMemory {
    fn region(&self) -> &Region {
        self.inner.region()
    }

    fn rkey(&self) -> u32 {
        match self.rkey {
            Rkey::Real => self.inner.rkey(),
            Rkey::Zero => 0,
        }
    }

    bytes_of_inner!();

    fn change_rights(&self, pd: PdHandle, access: Access) -> Result<()> {
        self.inner.change_rights(pd, access)
    }

    fn deregister(&self) -> Result<()> {
        self.inner.deregister()
    }

    fn give_back_foreign(&self) -> Result<Option<ForeignMemory>> {
        self.inner.give_back_foreign()
    }
}

/// A completion queue that is counted.
pub(super) struct ProfiledCq {
    pub(super) inner: Arc<dyn DeviceCq>,
    /// The largest it may become.
    pub(super) most: u32,
    pub(super) _counted: Counted,
}

impl DeviceCq for ProfiledCq {
    fn cqe(&self) -> u32 {
        self.inner.cqe()
    }

    fn poll(&self, out: &mut [WorkCompletion]) -> usize {
        self.inner.poll(out)
    }

    fn arm(&self, solicited_only: bool) -> Result<()> {
        self.inner.arm(solicited_only)
    }

    fn event_order(&self) -> Option<u64> {
        self.inner.event_order()
    }

    fn take_event(&self) -> bool {
        self.inner.take_event()
    }

    fn unpolled(&self) -> usize {
        self.inner.unpolled()
    }

    fn resize(&self, cqe: u32) -> Result<()> {
        if cqe > self.most {
            let reason = format!("cqe = {cqe}, the device takes up to {}", self.most);
            return Err(Error::InvalidArgument { call: "resize_cq", reason });
        }
        self.inner.resize(cqe)
    }

    fn index(&self) -> u32 {
        self.inner.index()
    }

    fn context(&self) -> u64 {
        self.inner.context()
    }
}
