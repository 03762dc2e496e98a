//! What is done before a connection so that it does not fail for want of a neighbour.
//!
//! On Ethernet and Thunderbolt a GID is an IP address, and the way to it needs the peer's hardware address, which the system learns by asking on the
//! wire (ARP, neighbour discovery). Linux asks when a queue pair goes to RTR, and waits; a Mac does not, and RTR fails until something else has
//! asked. So a datagram goes to the peer first: to the port that throws everything away, where nobody listens.

use super::device::Core;
use super::gid::{Kind, kind};
use super::platform::RESOLVES_NEIGHBOURS;
use std::io;
use std::net::{IpAddr, Ipv6Addr, SocketAddr, SocketAddrV6, UdpSocket};
use std::time::Duration;
use tbrdma_proto::{AddressVector, Gid, LinkLayer, QpAttr, QpAttrMask};

/// The port of RFC 863.
const DISCARD: u16 = 9;
/// How long the first answer is waited for where the system does not wait itself; each time is twice the last.
const FIRST_WAIT: Duration = Duration::from_millis(10);
/// How often it is tried there: half a second in all.
const TRIES: u32 = 6;

/// Has the system look for the peer. Whether it finds it shows when the queue pair is modified, so nothing is said here.
pub(super) fn greet(core: &Core, to: &AddressVector) {
    let is_ip = core.profile.port.link_layer != LinkLayer::InfiniBand;
    if !is_ip || !to.is_global || to.dgid.is_zero() {
        return;
    }
    let Ok(own) = core.handle.query_gid(to.sgid_index.into()) else { return };
    if own == to.dgid || kind(&own) != kind(&to.dgid) {
        return;
    }
    let interface = match kind(&own) {
        Kind::LinkLocal => core.interface_of(to.sgid_index),
        Kind::Ipv4Mapped | Kind::Global => 0,
    };
    let _ = send(address(&own, 0, interface), address(&to.dgid, DISCARD, interface));
}

fn send(from: SocketAddr, to: SocketAddr) -> io::Result<usize> {
    let socket = UdpSocket::bind(from)?;
    socket.set_nonblocking(true)?;
    socket.send_to(&[], to)
}

fn address(gid: &Gid, port: u16, interface: u32) -> SocketAddr {
    let v6 = Ipv6Addr::from(*gid);
    match v6.to_ipv4_mapped() {
        Some(v4) => SocketAddr::new(IpAddr::V4(v4), port),
        None => SocketAddr::V6(SocketAddrV6::new(v6, port, 0, interface)),
    }
}

/// Whether an error means that the peer's hardware address is not known.
pub(super) fn is_unresolved(error: &io::Error) -> bool {
    use nix::libc;
    matches!(error.raw_os_error(), Some(libc::ETIMEDOUT | libc::EHOSTUNREACH | libc::ENETUNREACH))
}

/// Modifies a queue pair, again for a while where the system does not wait for a neighbour; the error that was left.
pub(super) fn patiently(
    core: &Core,
    attr: &QpAttr,
    mask: QpAttrMask,
    mut modify: impl FnMut() -> Option<io::Error>,
) -> Option<io::Error> {
    let mut wait = FIRST_WAIT;
    for _ in 1..TRIES {
        match modify() {
            Some(error) if !RESOLVES_NEIGHBOURS && mask.contains(QpAttrMask::AV) && is_unresolved(&error) => {
                greet(core, &attr.ah_attr);
                std::thread::sleep(wait);
                wait *= 2;
            }
            outcome => return outcome,
        }
    }
    modify()
}
