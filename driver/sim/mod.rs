//! Simulated networks: the `sim` device's adapters stand in a network inside this process, in virtual time.
//!
//! An adapter here is the `soft` device, as it is over UDP: the same transport, engine and memory, over a link that carries its packets in this
//! process. What differs is the clock. It stands still while there is anything to do, and goes on at once, from event to event, when everybody who
//! takes part waits; so nothing ever sleeps, and what a program does, and when, follows from its calls and one seed.
//!
//! - `network`: the adapters on a network, their clock, and doing what is due
//! - `turns`: when time may go on: who takes part, and what they wait for
//! - `gate`: where threads sleep that have nothing to do
//! - `link`: what carries packets; `ports`: who is reached at which address
//! - `pump`: the thread that is there for programs that sleep in descriptors
//!
//! # Locks, in the order in which they are taken
//! The network's drive, then whatever a pass of the engine takes, then one of: ports, a port's packets, the gate.

mod gate;
mod link;
mod network;
mod ports;
mod pump;
mod turns;

use crate::verbs::context::DeviceInfo;
use tbrdma_proto::Backend;

pub(crate) use link::SimLink;
pub(crate) use network::{Network, Node};
pub(crate) use turns::Turn;

/// What such a device is, in a sentence.
pub(crate) const DESCRIPTION: &str =
    "contexts of this process, through a simulated RoCEv2 network in virtual time";

/// The device that is always there. Networks of other names begin when they are opened.
pub(crate) fn device() -> DeviceInfo {
    DeviceInfo { name: Backend::Sim(String::new()).to_string(), description: DESCRIPTION.to_owned() }
}
