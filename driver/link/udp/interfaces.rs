//! Which network interfaces make a device, with which GIDs and which MTU.

use crate::sys::udp;
use nix::ifaddrs::getifaddrs;
use nix::net::if_::{InterfaceFlags, if_nametoindex};
use std::io;
use std::net::Ipv6Addr;
use tbrdma_proto::{Gid, Mtu};

/// What IPv6, UDP, the longest transport headers and the iCRC take of the network's MTU, as the kernel's RoCE drivers count.
const HEADROOM: u32 = 80;

/// The most GIDs of one interface.
const MAX_GIDS: usize = 256;

/// A network interface that can carry RoCE.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Interface {
    /// Its name, such as `eth0`.
    pub(crate) name: String,
    /// Its number.
    pub(crate) index: u32,
    /// Whether it is the loopback interface, on which no router marks packets.
    pub(crate) is_loopback: bool,
    /// The largest path MTU whose packets fit.
    pub(crate) mtu: Mtu,
    /// Its GID table; an entry that is not used is all zero.
    pub(crate) gids: Vec<Gid>,
}

impl Interface {
    /// The interfaces that are up, have an address, and a MTU of at least 336.
    pub(crate) fn all() -> io::Result<Vec<Self>> {
        let mut found: Vec<(String, bool, Vec<Ipv6Addr>)> = Vec::new();
        for entry in getifaddrs()? {
            if !entry.flags.contains(InterfaceFlags::IFF_UP) {
                continue;
            }
            let Some(address) = entry.address else { continue };
            let address = if let Some(v4) = address.as_sockaddr_in() {
                v4.ip().to_ipv6_mapped()
            } else if let Some(v6) = address.as_sockaddr_in6() {
                v6.ip()
            } else {
                continue;
            };
            // A second IPv4 address may bear a label, `eth0:1`; it is the same interface.
            let name = entry.interface_name.split(':').next().unwrap_or_default().to_owned();
            let is_loopback = entry.flags.contains(InterfaceFlags::IFF_LOOPBACK);
            match found.iter_mut().find(|(known, ..)| *known == name) {
                Some((.., addresses)) => addresses.push(address),
                None => found.push((name, is_loopback, vec![address])),
            }
        }
        let usable = found.into_iter().filter_map(|(name, is_loopback, addresses)| {
            // One that has gone since it was listed is no interface.
            let index = if_nametoindex(name.as_str()).ok()?;
            let mtu = path_mtu(udp::interface_mtu(&name).ok()?)?;
            Some(Self { name, index, is_loopback, mtu, gids: gid_table(&addresses) })
        });
        Ok(usable.collect())
    }
}

/// The largest path MTU for a network MTU; `None` if even the smallest does not fit.
fn path_mtu(network: u32) -> Option<Mtu> {
    let sizes = [Mtu::B4096, Mtu::B2048, Mtu::B1024, Mtu::B512, Mtu::B256];
    sizes.into_iter().find(|mtu| mtu.bytes() + HEADROOM <= network)
}

/// The GID table for the addresses of an interface, which come IPv4-mapped where they are IPv4.
///
/// Programs find their way by habit: index 0 is the link-local address and index 1 the IPv4 one, as on a NIC whose port has one of each. A place
/// for which there is no such address holds another IPv6 address, or is not used.
fn gid_table(addresses: &[Ipv6Addr]) -> Vec<Gid> {
    let mut rest = addresses.to_vec();
    rest.dedup();
    let mut take = |wanted: &dyn Fn(&Ipv6Addr) -> bool| {
        let at = rest.iter().position(wanted)?;
        Some(rest.remove(at))
    };
    let is_v4 = |address: &Ipv6Addr| address.to_ipv4_mapped().is_some();
    let is_v6 = |address: &Ipv6Addr| !is_v4(address);
    let first = take(&Ipv6Addr::is_unicast_link_local).or_else(|| take(&is_v6));
    let second = take(&is_v4).or_else(|| take(&is_v6));
    let mut table = vec![first.map_or_else(Gid::default, Gid::from)];
    table.extend(second.map(Gid::from));
    table.extend(rest.into_iter().map(Gid::from));
    table.truncate(MAX_GIDS);
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(addresses: &[&str]) -> Vec<String> {
        let addresses: Vec<Ipv6Addr> = addresses.iter().map(|text| text.parse().unwrap()).collect();
        gid_table(&addresses).iter().map(Gid::to_string).collect()
    }

    #[test]
    fn link_local_first_and_ipv4_second() {
        let given = ["::ffff:192.0.2.2", "::ffff:192.0.2.3", "2001:db8::2", "fe80::1"];
        assert_eq!(table(&given), ["fe80::1", "::ffff:192.0.2.2", "::ffff:192.0.2.3", "2001:db8::2"]);
        assert_eq!(table(&["::ffff:127.0.0.1", "::1"]), ["::1", "::ffff:127.0.0.1"]);
        assert_eq!(table(&["::ffff:192.0.2.2"]), ["::", "::ffff:192.0.2.2"]);
        assert_eq!(table(&["fe80::1", "2001:db8::2"]), ["fe80::1", "2001:db8::2"]);
        assert_eq!(table(&["2001:db8::2"]), ["2001:db8::2"]);
    }

    #[test]
    fn the_largest_mtu_that_fits() {
        for (network, expected) in [
            (335, None),
            (336, Some(256)),
            (1500, Some(1024)),
            (4175, Some(2048)),
            (4176, Some(4096)),
            (65_536, Some(4096)),
        ] {
            assert_eq!(path_mtu(network).map(|mtu| mtu.bytes()), expected, "{network}");
        }
    }

    #[test]
    fn loopback_is_a_device_where_it_is_up() {
        let all = Interface::all().unwrap();
        let Some(lo) = all.iter().find(|interface| interface.name == "lo") else {
            return crate::skip::skip("loopback is down");
        };
        assert!(lo.index > 0);
        assert_eq!(lo.gids[1].to_string(), "::ffff:127.0.0.1");
    }
}
