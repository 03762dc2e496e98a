//! The `shm` device: verbs between processes of one user on one host, with no help from the target's CPU.
//!
//! Each open context owns one *segment* (a sealed memory file) which peers map: its region table, queue pairs, receive queues
//! and the memory the library allocates. The initiator's CPU is the DMA engine: it checks the peer's keys by proto's rules and
//! stores into, or loads from, the peer's memory. ARCHITECTURE.md tells the whole story; here is where to find its parts:
//!
//! - `core`: a context: its segment, tables, identity, slots
//! - `memory`: registering, deregistering, and finding the bytes behind a key
//! - `hello`: the messages by which two contexts meet; `cable`: which two may; `peer`: a context as its peers see it
//! - `service`: the one thread a context has: introductions, deaths, deadlines, the agent
//! - `qp`: a queue pair's life; `connect`: what becomes of its connection; `post`: lists as they are posted; `send`: its send queue;
//!   `execute`: its operations; `direct`: the common ones, in short; `datagram`: messages without a connection; `transfer`: the bytes
//! - `landing`: datagrams that their receiver copies itself
//! - `agent`: copies made by the target's service thread where the kernel forbids the initiator's
//! - `wire`: a rate and a latency, and captures, where they are asked for
//! - `take`: receives as their sender takes them; `receive`: as their owner posts and polls them; `srq`: shared ones; `cq`: completion queues

use crate::device::Device;
use crate::error::Result;
use crate::verbs::context::DeviceInfo;
use std::path::Path;
use tbrdma_proto::fault::LinkModel;
use tbrdma_proto::{CableEnd, Profile};

pub(crate) mod agent;
pub(crate) mod cable;
pub(crate) mod connect;
pub(crate) mod core;
pub(crate) mod cq;
pub(crate) mod datagram;
pub(crate) mod device;
pub(crate) mod direct;
mod execute;
pub(crate) mod hello;
pub(crate) mod landing;
pub(crate) mod memory;
pub(crate) mod peer;
mod post;
pub(crate) mod qp;
pub(crate) mod receive;
pub(crate) mod remote;
pub(crate) mod send;
pub(crate) mod service;
pub(crate) mod srq;
pub(crate) mod take;
pub(crate) mod transfer;
pub(crate) mod wire;

/// What it is, in a sentence.
pub(crate) const DESCRIPTION: &str = "processes of this user on this host, through shared memory";

/// The devices of this host: one.
pub(crate) fn devices() -> Vec<DeviceInfo> {
    vec![DeviceInfo { name: device::NAME.to_owned(), description: DESCRIPTION.to_owned() }]
}

/// A context: at the end of this cable, on a wire that has this rate and latency or is recorded, if that is asked for.
pub(crate) fn open(
    profile: Profile,
    cable: Option<&CableEnd>,
    link: Option<LinkModel>,
    capture: Option<&Path>,
) -> Result<Box<dyn Device>> {
    let wire = wire::Wire::new(link, capture)?;
    Ok(Box::new(device::ShmDevice::open(profile, cable, wire)?))
}
