//! Completion channels and asynchronous events. Programs keep their descriptors in sets of their own, so these are ours: they outlive what they
//! tell of.

use super::gate::Gate;
use crate::device::{DeviceChannel, DeviceEvents};
use crate::error::{Error, Result};
use crate::verbs::event::AsyncEvent;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::Instant;

/// A descriptor of our own for what another one is.
fn duplicate(fd: BorrowedFd<'_>, call: &'static str) -> Result<OwnedFd> {
    fd.try_clone_to_owned().map_err(Error::os(call, "duplicate a descriptor"))
}

/// The events of a device.
pub(super) struct OrderlyEvents {
    fd: OwnedFd,
    inner: Gate<dyn DeviceEvents>,
}

impl OrderlyEvents {
    pub(super) fn new(inner: &Arc<dyn DeviceEvents>) -> Result<Self> {
        Ok(Self { fd: duplicate(inner.fd(), "open_device")?, inner: Gate::new(inner) })
    }

    pub(super) fn end(&self, deadline: Instant) {
        self.inner.close(deadline);
    }
}

impl DeviceEvents for OrderlyEvents {
    fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    fn take(&self) -> Option<AsyncEvent> {
        self.inner.with(|events| events.take())
    }
}

/// A completion channel.
pub(super) struct OrderlyChannel {
    fd: OwnedFd,
    slot: u32,
    inner: Gate<dyn DeviceChannel>,
}

impl OrderlyChannel {
    pub(super) fn new(inner: &Arc<dyn DeviceChannel>) -> Result<Self> {
        let fd = duplicate(inner.fd(), "create_comp_channel")?;
        Ok(Self { fd, slot: inner.slot(), inner: Gate::new(inner) })
    }

    pub(super) fn end(&self, deadline: Instant) {
        self.inner.close(deadline);
    }
}

impl DeviceChannel for OrderlyChannel {
    fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    fn take(&self) -> Option<u32> {
        self.inner.with(|channel| channel.take())
    }

    fn slot(&self) -> u32 {
        self.slot
    }
}
