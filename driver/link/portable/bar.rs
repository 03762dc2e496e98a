//! In place of the `bar` link where there is none.

use super::Link;
use crate::error::{Error, Result};
use crate::verbs::context::DeviceInfo;

/// What the names of these devices begin with; the rest says which window.
pub(crate) const PREFIX: &str = "bar:";

/// There are none.
pub(crate) fn devices() -> Vec<DeviceInfo> {
    Vec::new()
}

/// Says why there is none.
pub(crate) fn open(place: &str) -> Result<Box<dyn Link>> {
    Err(Error::NotSupported {
        call: "open_device",
        device: format!("{PREFIX}{place}"),
        what: "this operating system: windows are locked, rung and reached by means of Linux's; use sim, within one process, or an adapter of this machine",
    })
}
