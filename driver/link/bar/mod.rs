//! The `bar` link: packets through a memory window with doorbells, to the one peer at its other side.

mod link;
mod loopback;
mod meeting;
#[cfg(test)]
mod tests;

pub(crate) use link::BarLink;

use super::Link;
use crate::bar::file::FileWindow;
use crate::bar::shared::SharedWindow;
use crate::bar::slot;
use crate::error::{Error, Result};
use crate::sys::random::random_u64;
use crate::verbs::context::DeviceInfo;

/// What the names of these devices begin with.
pub(crate) const PREFIX: &str = "bar:";

/// The windows that this host has whether or not anybody asks: PCI functions that no driver of the kernel's uses.
pub(crate) fn devices() -> Vec<DeviceInfo> {
    let described = |(name, what)| DeviceInfo {
        name: format!("{PREFIX}{name}"),
        description: format!("RoCEv2 through the {what}"),
    };
    slot::functions().into_iter().map(described).collect()
}

/// The link of a window: `file:PATH`, `paired:PATH`, or a device's name.
///
/// # Errors
/// There is no such window, it is too small, or both its sides are taken.
pub(crate) fn open(place: &str) -> Result<Box<dyn Link>> {
    let incarnation = random_u64().map_err(Error::os("open_device", "random numbers"))?.max(1);
    let name = format!("{PREFIX}{place}");
    Ok(match place.split_once(':') {
        Some(("file", path)) => {
            Box::new(BarLink::open(name, FileWindow::shared(path.as_ref())?, incarnation)?)
        }
        Some(("paired", path)) => {
            Box::new(BarLink::open(name, FileWindow::paired(path.as_ref())?, incarnation)?)
        }
        _ => {
            let slot = slot::open(place, SharedWindow::least_bytes())?;
            Box::new(BarLink::open(name, SharedWindow::claim(slot, incarnation)?, incarnation)?)
        }
    })
}
