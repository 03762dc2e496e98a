//! The `udp` link: RoCEv2 over UDP sockets, on any network interface, without a kernel module or a privilege.

mod astray;
mod counters;
mod interfaces;
mod link;
mod receiving;
mod slot;
mod socket;
mod state;
mod steering;

use super::Link;
use crate::error::Result;
use crate::verbs::context::DeviceInfo;
use interfaces::Interface;

/// What the names of these devices begin with; the rest is the interface's name.
pub(crate) const PREFIX: &str = "udp:";

/// The devices of this host: one for each interface. A host that does not say which it has has none.
pub(crate) fn devices() -> Vec<DeviceInfo> {
    let described = |interface: Interface| DeviceInfo {
        name: format!("{PREFIX}{}", interface.name),
        description: format!("RoCEv2 over UDP on {}, path MTU {}", interface.name, interface.mtu),
    };
    Interface::all().unwrap_or_default().into_iter().map(described).collect()
}

/// The link of an interface.
///
/// # Errors
/// There is no such interface that is up and has an address, or the system refuses what the link needs.
pub(crate) fn open(interface: &str) -> Result<Box<dyn Link>> {
    Ok(Box::new(link::UdpLink::open(interface)?))
}

#[cfg(test)]
mod tests;
