//! Protection domains: what may be used together.

use super::address::{AddressHandle, QpAddress};
use super::buffer::Buffer;
use super::context::Context;
use super::memory::MemoryRegion;
use super::qp::{QpInit, QueuePair};
use super::srq::SharedReceiveQueue;
use super::window::MemoryWindow;
use crate::device::ForeignMemory;
use crate::error::{Error, Result};
use std::sync::Arc;
use tbrdma_proto::{Access, AddressVector, MwType, PdHandle, limits};

/// A protection domain (`ibv_alloc_pd(3)`): memory, queue pairs and address handles of different domains cannot be used
/// together. Cheap to clone.
#[derive(Clone)]
pub struct ProtectionDomain {
    inner: Arc<Inner>,
}

struct Inner {
    context: Context,
    handle: PdHandle,
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.context.device.dealloc_pd(self.handle);
    }
}

impl std::fmt::Debug for ProtectionDomain {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "ProtectionDomain({})", self.inner.handle.0)
    }
}

impl ProtectionDomain {
    pub(crate) fn new(context: &Context) -> Result<Self> {
        let handle = context.device.alloc_pd()?;
        Ok(Self { inner: Arc::new(Inner { context: context.clone(), handle }) })
    }

    /// The context it belongs to.
    pub fn context(&self) -> &Context {
        &self.inner.context
    }

    pub(crate) fn handle(&self) -> PdHandle {
        self.inner.handle
    }

    /// The rights of a region of `len` bytes, without the bits that a device may ignore and that mean nothing here.
    fn check(len: usize, access: Access) -> Result<Access> {
        let call = "reg_mr";
        access.validate().map_err(|error| Error::InvalidArgument { call, reason: error.to_string() })?;
        if len == 0 || len as u64 > limits::MAX_MR_SIZE {
            let reason = format!("a region of {len} bytes; it must have 1 to {}", limits::MAX_MR_SIZE);
            return Err(Error::InvalidArgument { call, reason });
        }
        Ok(access & Access::all())
    }

    /// Allocates `len` zeroed bytes, page aligned, and registers them. This is the memory peers reach fastest: they map it.
    ///
    /// # Errors
    /// The length is zero or too large, the access flags contradict each other, or the device has no more regions.
    pub fn alloc(&self, len: usize, access: Access) -> Result<MemoryRegion> {
        let access = Self::check(len, access)?;
        let memory = self.context().device.alloc_memory(self.handle(), len, access)?;
        Ok(MemoryRegion::new(self, memory))
    }

    /// Allocates `len` zeroed bytes for local use, to fill, lend to a work request and get back with its completion.
    ///
    /// # Errors
    /// As for [`alloc`](Self::alloc).
    pub fn alloc_buffer(&self, len: usize) -> Result<Buffer> {
        Self::check(len, Access::LOCAL_WRITE)?;
        let memory = self.context().device.alloc_memory(self.handle(), len, Access::LOCAL_WRITE)?;
        Ok(Buffer::new(self, memory))
    }

    /// Registers the bytes where they are and takes them over until [`MemoryRegion::into_bytes`] gives them back. Nothing is copied.
    ///
    /// # Errors
    /// As for [`alloc`](Self::alloc).
    pub fn register(&self, bytes: impl Into<Box<[u8]>>, access: Access) -> Result<MemoryRegion> {
        let memory = ForeignMemory::from_bytes(bytes);
        let access = Self::check(memory.len(), access)?;
        let iova = memory.address() as u64;
        self.register_at(memory, access, iova)
    }

    /// Registers memory of the caller's in place (`ibv_reg_mr(3)`): heap, stack, mapped files, at any alignment. The promise that this needs is made
    /// by [`ForeignMemory::from_raw`].
    ///
    /// # Errors
    /// As for [`alloc`](Self::alloc); also if the memory is not mapped, or is read-only and the flags let somebody write.
    pub fn register_foreign(&self, memory: ForeignMemory, access: Access) -> Result<MemoryRegion> {
        let iova = memory.address() as u64;
        self.register_foreign_at(memory, access, iova)
    }

    /// Registers memory of the caller's in place under addresses of the caller's choice (`ibv_reg_mr_iova2(3)`): work requests, the peers' as
    /// our own, name its first byte by `iova`. With [`Access::ZERO_BASED`] they name it by 0, whatever `iova` says.
    ///
    /// # Errors
    /// As for [`register_foreign`](Self::register_foreign), or the addresses would go beyond the end of the 64-bit address space.
    pub fn register_foreign_at(
        &self,
        memory: ForeignMemory,
        access: Access,
        iova: u64,
    ) -> Result<MemoryRegion> {
        let access = Self::check(memory.len(), access)?;
        crate::sys::mapping::check(memory.address(), memory.len(), access.contains(Access::LOCAL_WRITE))
            .map_err(Error::os(
                "reg_mr",
                "all of the memory must be mapped, and writable if the access flags say so",
            ))?;
        self.register_at(memory, access, iova)
    }

    fn register_at(&self, memory: ForeignMemory, access: Access, iova: u64) -> Result<MemoryRegion> {
        let iova = if access.contains(Access::ZERO_BASED) { 0 } else { iova };
        let memory = self.context().device.register_memory(self.handle(), memory, access, iova)?;
        Ok(MemoryRegion::new(self, memory))
    }

    /// A memory window (`ibv_alloc_mw(3)`), not bound to anything.
    ///
    /// # Errors
    /// The device has no more.
    pub fn alloc_mw(&self, mw_type: MwType) -> Result<MemoryWindow> {
        let rkey = self.context().device.alloc_mw(self.handle(), mw_type)?;
        Ok(MemoryWindow::new(self, mw_type, rkey))
    }

    /// A queue pair (`ibv_create_qp(3)`), in state RESET.
    ///
    /// # Errors
    /// A size is beyond the device's limits, the completion queues belong to another context, or the device has no more.
    pub fn create_qp(&self, init: QpInit<'_>) -> Result<QueuePair> {
        QueuePair::create(self, init)
    }

    /// A shared receive queue for at least `max_wr` receives of at most `max_sge` entries (`ibv_create_srq(3)`).
    ///
    /// # Errors
    /// A size is beyond the device's limits, or the device has no more.
    pub fn create_srq(&self, max_wr: u32, max_sge: u32) -> Result<SharedReceiveQueue> {
        let srq = self.context().device.create_srq(self.handle(), max_wr, max_sge)?;
        Ok(SharedReceiveQueue::new(self, srq))
    }

    /// A datagram destination: the port of this queue pair, from the entry of our GID table that suits it.
    ///
    /// # Errors
    /// As for [`create_ah`](Self::create_ah).
    pub fn create_ah_to(&self, peer: &QpAddress) -> Result<AddressHandle> {
        let sgid_index = self.context().device.gid_index_towards(Some(&peer.gid));
        self.create_ah(&AddressVector { sgid_index, ..peer.address_vector() })
    }

    /// A datagram destination (`ibv_create_ah(3)`).
    ///
    /// # Errors
    /// The address makes no sense, or leads nowhere.
    pub fn create_ah(&self, attr: &AddressVector) -> Result<AddressHandle> {
        let number = self.context().device.create_ah(self.handle(), attr)?;
        Ok(AddressHandle::new(self, number))
    }
}
