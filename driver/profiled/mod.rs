//! A device as its profile lets it be: a thin device around another, for what a profile refuses, counts or does with what is created and
//! posted. What becomes of a message is not decided here: that is for the devices themselves, by `Switches::habits`.
//!
//! Nothing stands around a device whose profile is `plain` and whose name is its own. Around others stands [`ProfiledDevice`]; its queue
//! pairs, completion queues and regions are those of the device within, unless a switch is about them.
//!
//! - `device`: what is created: kinds, sizes, how many
//! - `qp`: what is posted: depth in frames, opcodes, addresses; `frames` keeps the count
//! - `memory`: regions and completion queues that are counted, or have no remote key
//! - `account`: how many objects of a device this process holds; `ledger`: how many all programs do, or did when they were killed

mod account;
mod device;
mod frames;
pub mod ledger;
mod memory;
mod qp;

use crate::device::Device;
use crate::error::Result;
use std::sync::Arc;
use tbrdma_proto::Switches;

/// `device` under this name, as its profile lets it be.
///
/// # Errors
/// The profile has a ledger, and it cannot be read.
pub(crate) fn around(device: Box<dyn Device>, name: Option<&str>) -> Result<Arc<dyn Device>> {
    let name = name.unwrap_or_else(|| device.name()).to_owned();
    let profile = device.profile();
    if name == device.name() && profile.name == "plain" && profile.switches == Switches::default() {
        return Ok(Arc::from(device));
    }
    Ok(Arc::new(device::ProfiledDevice::new(device, name)?))
}
