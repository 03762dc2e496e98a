//! Two ends of a Thunderbolt cable in one process: devices that pretend to be a Mac's.
#![allow(dead_code, reason = "each test file uses its own part")]

use super::{Node, join};
use std::sync::atomic::{AtomicU32, Ordering};
use tbrdma::{Context, OpenOptions, QpInit, QpType};

/// What stands behind devices: shared memory, and packets on loopback.
pub(crate) const BACKENDS: [&str; 2] = ["shm", "udp:lo"];

/// Opens a device with this profile and a name of its own, so that no other test of this process has to do with its limits.
pub(crate) fn open(backend: &str, profile: &str) -> Context {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let name = format!("rdma_en{}", NEXT.fetch_add(1, Ordering::Relaxed));
    again(&name, backend, profile)
}

/// Opens the device of this name, perhaps once more.
pub(crate) fn again(name: &str, backend: &str, profile: &str) -> Context {
    OpenOptions::new().profile(profile).open(&format!("{name}={backend}")).unwrap()
}

/// The profile with these switches.
pub(crate) fn apple(switches: &str) -> String {
    if switches.is_empty() { "apple-tb5".to_owned() } else { format!("apple-tb5,{switches}") }
}

/// Two connected nodes, each a device of its own.
pub(crate) fn pair(backend: &str, switches: &str) -> (Node, Node) {
    pair_shaped(backend, switches, |init| init)
}

/// The same, their queue pairs made to measure.
pub(crate) fn pair_shaped(
    backend: &str,
    switches: &str,
    shape: impl Fn(QpInit<'_>) -> QpInit<'_>,
) -> (Node, Node) {
    let node = || Node::of(&open(backend, &apple(switches)), QpType::Uc, &shape);
    let (mut a, mut b) = (node(), node());
    join(&mut a, &mut b, &super::patient());
    (a, b)
}
