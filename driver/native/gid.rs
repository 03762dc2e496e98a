//! The addresses of a port, and which of them to use.
//!
//! On Ethernet a port has several: for each IP address of its interface one that RoCE v2 uses, and one for RoCE v1, which is not routed and which few
//! peers speak. A peer can be reached from an address of its own kind only. On a Mac entry 0 is made of the hardware's address and leads
//! nowhere; entry 1 is the IPv4 address, while the interface has one.

use super::handle::Handle;
use super::platform;
use std::fs;
use std::net::Ipv6Addr;
use tbrdma_abi::ibv_gid_entry;
use tbrdma_proto::{Gid, LinkLayer};

/// Entries that are looked at: adapters have up to 256.
const MOST: usize = 256;

/// For what protocol an entry is (`enum ibv_gid_type_sysfs`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum GidType {
    /// InfiniBand, or RoCE v1: on Ethernet the same words mean this.
    IbOrRoceV1,
    /// RoCE v2.
    RoceV2,
    /// The system does not say.
    Unknown,
}

/// A used entry of the GID table.
#[derive(Clone, Copy, Debug)]
pub(super) struct Entry {
    pub(super) index: u32,
    pub(super) gid: Gid,
    pub(super) gid_type: GidType,
    /// The network interface, as the system numbers them; 0 if it does not say.
    pub(super) interface: u32,
}

/// What kind of address a GID is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Ipv4Mapped,
    LinkLocal,
    Global,
}

/// What kind of address a GID is.
pub(super) fn kind(gid: &Gid) -> Kind {
    let address = Ipv6Addr::from(*gid);
    if address.to_ipv4_mapped().is_some() {
        Kind::Ipv4Mapped
    } else if address.is_unicast_link_local() {
        Kind::LinkLocal
    } else {
        Kind::Global
    }
}

impl Handle {
    /// The used entries of the port's GID table.
    pub(super) fn gids(&self) -> Vec<Entry> {
        self.gid_table().unwrap_or_else(|| self.gids_one_by_one())
    }

    /// All at once, from a library that can.
    fn gid_table(&self) -> Option<Vec<Entry>> {
        let table = self.library._ibv_query_gid_table?;
        let mut entries = vec![ibv_gid_entry::default(); MOST];
        let size = size_of::<ibv_gid_entry>();
        // SAFETY: an open context, and room for so many entries of this size.
        let count = unsafe { table(self.context(), entries.as_mut_ptr(), MOST, 0, size) };
        let count = usize::try_from(count).ok()?;
        let entry = |entry: &ibv_gid_entry| {
            let gid_type = if entry.gid_type == 2 { GidType::RoceV2 } else { GidType::IbOrRoceV1 };
            Entry { index: entry.gid_index, gid: Gid(entry.gid.raw), gid_type, interface: entry.ndev_ifindex }
        };
        let ours = entries.iter().take(count).filter(|entry| entry.port_num == u32::from(tbrdma_proto::PORT));
        Some(ours.map(entry).filter(|entry| !entry.gid.is_zero()).collect())
    }

    fn gids_one_by_one(&self) -> Vec<Entry> {
        let len = self.query_port().map_or(0, |port| port.gid_tbl_len).min(MOST as u32);
        let folder = platform::folder(&self.name).map(|folder| folder.join("ports/1/gid_attrs/types"));
        let entry = |index: u32| {
            let gid = self.query_gid(index).ok().filter(|gid| !gid.is_zero())?;
            let said =
                folder.as_ref().and_then(|folder| fs::read_to_string(folder.join(index.to_string())).ok());
            let gid_type = match said.as_deref().map(str::trim) {
                Some("RoCE v2") => GidType::RoceV2,
                Some(_) => GidType::IbOrRoceV1,
                None => GidType::Unknown,
            };
            Some(Entry { index, gid, gid_type, interface: 0 })
        };
        (0..len).filter_map(entry).collect()
    }
}

/// Leading bits that two GIDs share.
fn common_bits(one: &Gid, other: &Gid) -> u32 {
    (u128::from_be_bytes(one.0) ^ u128::from_be_bytes(other.0)).leading_zeros()
}

/// The entry by which a peer at this GID is reached; without one, the entry that peers are told.
pub(super) fn choose(entries: &[Entry], link: LinkLayer, peer: Option<&Gid>) -> u32 {
    if link == LinkLayer::InfiniBand {
        return entries.first().map_or(0, |entry| entry.index);
    }
    let worth = |entry: &Entry| {
        let is_v1 = entry.gid_type == GidType::IbOrRoceV1;
        let rank = match kind(&entry.gid) {
            Kind::Ipv4Mapped => 2,
            Kind::Global => 1,
            Kind::LinkLocal => 0,
        };
        let towards =
            peer.map_or((false, 0), |peer| (kind(peer) == kind(&entry.gid), common_bits(peer, &entry.gid)));
        // What is routed before what is not; the peer's kind; the nearest; the kind that most peers have; the first.
        (!is_v1, towards.0, towards.1, rank, std::cmp::Reverse(entry.index))
    };
    entries.iter().max_by_key(|entry| worth(entry)).map_or(0, |entry| entry.index)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(index: u32, gid: &str, gid_type: GidType) -> Entry {
        Entry { index, gid: gid.parse::<Ipv6Addr>().unwrap().into(), gid_type, interface: 0 }
    }

    fn gid(text: &str) -> Gid {
        text.parse::<Ipv6Addr>().unwrap().into()
    }

    #[test]
    fn a_peer_is_reached_from_an_address_of_its_kind_and_network() {
        use GidType::{IbOrRoceV1, RoceV2};
        let table = [
            entry(0, "fe80::1", IbOrRoceV1),
            entry(1, "fe80::1", RoceV2),
            entry(2, "::ffff:10.0.0.1", IbOrRoceV1),
            entry(3, "::ffff:10.0.0.1", RoceV2),
            entry(4, "::ffff:192.168.7.1", RoceV2),
            entry(5, "2001:db8::1", RoceV2),
        ];
        let choose = |peer: Option<&str>| choose(&table, LinkLayer::Ethernet, peer.map(gid).as_ref());
        assert_eq!(choose(Some("::ffff:192.168.7.2")), 4);
        assert_eq!(choose(Some("::ffff:10.0.0.2")), 3);
        assert_eq!(choose(Some("fe80::2")), 1);
        assert_eq!(choose(Some("2001:db8::2")), 5);
        assert_eq!(choose(None), 3, "the address that most peers can reach");
    }

    #[test]
    fn a_mac_uses_its_ipv4_address_wherever_it_is() {
        let table = [entry(0, "fe80::1", GidType::Unknown), entry(2, "::ffff:169.254.1.2", GidType::Unknown)];
        assert_eq!(choose(&table, LinkLayer::Thunderbolt, None), 2);
        assert_eq!(choose(&table[..1], LinkLayer::Thunderbolt, None), 0);
        assert_eq!(choose(&[], LinkLayer::Thunderbolt, None), 0);
    }

    #[test]
    fn infiniband_has_one_address() {
        let table = [entry(0, "fe80::1", GidType::IbOrRoceV1), entry(1, "fd00::1", GidType::IbOrRoceV1)];
        assert_eq!(choose(&table, LinkLayer::InfiniBand, Some(&gid("fd00::2"))), 0);
    }
}
