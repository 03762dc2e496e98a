//! In place of the `udp` link where there is none.

use super::Link;
use crate::error::{Error, Result};
use crate::verbs::context::DeviceInfo;

/// What the names of these devices begin with; the rest is the interface's name.
pub(crate) const PREFIX: &str = "udp:";

/// No device.
pub(crate) fn devices() -> Vec<DeviceInfo> {
    Vec::new()
}

/// Says why there is none.
pub(crate) fn open(interface: &str) -> Result<Box<dyn Link>> {
    Err(Error::NotSupported {
        call: "open_device",
        device: format!("{PREFIX}{interface}"),
        what: "this operating system: its packets need socket options of Linux's; use sim, within one process, or an adapter of this machine",
    })
}
