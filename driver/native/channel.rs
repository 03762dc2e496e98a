//! Completion channels: the library's own, with the library's descriptor.

use super::device::Core;
use super::fault;
use super::lock;
use crate::device::DeviceChannel;
use crate::error::{Error, Result};
use core::ffi::{c_uint, c_void};
use core::ptr::{NonNull, null_mut};
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use std::os::fd::BorrowedFd;
use std::sync::Arc;
use tbrdma_abi::*;

/// A completion channel.
pub(super) struct NativeChannel {
    channel: NonNull<ibv_comp_channel>,
    get: unsafe extern "C" fn(*mut ibv_comp_channel, *mut *mut ibv_cq, *mut *mut c_void) -> core::ffi::c_int,
    ack: unsafe extern "C" fn(*mut ibv_cq, c_uint),
    destroy: unsafe extern "C" fn(*mut ibv_comp_channel) -> core::ffi::c_int,
    /// So that it can be found again behind the trait.
    slot: u32,
    core: Arc<Core>,
}

// SAFETY: libibverbs lets several threads use a channel.
unsafe impl Send for NativeChannel {}
// SAFETY: as above.
unsafe impl Sync for NativeChannel {}

/// Makes reads of a descriptor return at once.
pub(super) fn never_block(fd: BorrowedFd<'_>) -> nix::Result<()> {
    let flags = OFlag::from_bits_retain(fcntl(fd, FcntlArg::F_GETFL)?);
    fcntl(fd, FcntlArg::F_SETFL(flags | OFlag::O_NONBLOCK)).map(drop)
}

impl NativeChannel {
    pub(super) fn create(core: &Arc<Core>) -> Result<Arc<Self>> {
        let call = "create_comp_channel";
        let handle = &core.handle;
        let library = &handle.library;
        let what = "completion channels";
        let create = handle.needs(library.ibv_create_comp_channel, call, what)?;
        let destroy = handle.needs(library.ibv_destroy_comp_channel, call, what)?;
        let get = handle.needs(library.ibv_get_cq_event, call, what)?;
        let ack = handle.needs(library.ibv_ack_cq_events, call, what)?;
        let (slot, _) = lock(&core.channels).claim(call, what)?;
        // SAFETY: an open context.
        let channel = unsafe { create(handle.context()) };
        let channel = fault::object(call, &handle.name, channel).inspect_err(|_| {
            lock(&core.channels).release(slot);
        })?;
        let channel = Arc::new(Self { channel, get, ack, destroy, slot, core: Arc::clone(core) });
        lock(&core.channels).fill(slot, Arc::downgrade(&channel));
        never_block(channel.fd()).map_err(|error| Error::Os {
            call,
            what: "make the descriptor nonblocking",
            source: error.into(),
        })?;
        Ok(channel)
    }

    pub(super) fn as_ptr(&self) -> *mut ibv_comp_channel {
        self.channel.as_ptr()
    }
}

impl DeviceChannel for NativeChannel {
    fn fd(&self) -> BorrowedFd<'_> {
        // SAFETY: a live channel.
        let fd = unsafe { (*self.as_ptr()).fd };
        // SAFETY: the channel's descriptor, open for as long as the channel is.
        unsafe { BorrowedFd::borrow_raw(fd) }
    }

    fn take(&self) -> Option<u32> {
        let (mut cq, mut place) = (null_mut(), null_mut());
        // SAFETY: a live channel, and room for the answer. It does not block.
        let got = unsafe { (self.get)(self.as_ptr(), &raw mut cq, &raw mut place) };
        if got != 0 || cq.is_null() {
            return None;
        }
        // SAFETY: the queue of an event that has not been acknowledged is alive: who destroys it waits for that.
        unsafe { (self.ack)(cq, 1) };
        u32::try_from(place.addr()).ok()
    }

    fn slot(&self) -> u32 {
        self.slot
    }
}

impl Drop for NativeChannel {
    fn drop(&mut self) {
        // SAFETY: ours, destroyed once; its completion queues are gone, since they held it.
        unsafe { (self.destroy)(self.as_ptr()) };
        lock(&self.core.channels).release(self.slot);
    }
}
