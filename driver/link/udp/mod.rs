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

pub(crate) use interfaces::Interface;
pub(crate) use link::UdpLink;
pub(crate) use state::LinkState;

/// What the names of these devices begin with; the rest is the interface's name.
pub(crate) const PREFIX: &str = "udp:";

#[cfg(test)]
mod tests;
