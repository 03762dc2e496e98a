//! Where packets go: address vectors checked against our GIDs.

use super::core::{Core, read, write};
use crate::error::{Error, Result};
use crate::slots::Slots;
use std::net::{Ipv6Addr, SocketAddr};
use tbrdma_proto::wire::ROCE_UDP_PORT;
use tbrdma_proto::wire::icrc::Flow;
use tbrdma_proto::{AddressVector, Gid, Lids, check_address_vector, limits};

/// Hops that a packet may make whose sender names its peer by LID, and so says nothing of them.
const HOPS: u8 = 64;

/// A way to a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Path {
    /// Index of the GID it leaves from.
    pub(crate) from: u8,
    /// Our address.
    pub(crate) source: Gid,
    /// The peer's.
    pub(crate) to: Gid,
    pub(crate) traffic_class: u8,
    pub(crate) hop_limit: u8,
    /// What the iCRC of packets on this way begins with.
    pub(crate) flow: Flow,
}

/// Datagram destinations by number.
pub(crate) struct Handles {
    numbers: Slots<()>,
    paths: Vec<Path>,
}

impl Handles {
    pub(crate) const fn new() -> Self {
        Self { numbers: Slots::new(limits::MAX_AH), paths: Vec::new() }
    }
}

/// The flow of packets from one GID and port to another's RoCEv2 port. `None` if one is an IPv4 address and the other is not.
pub(crate) fn flow(from: Gid, port: u16, to: Gid) -> Option<Flow> {
    let address = |gid: Gid, port| SocketAddr::new(Ipv6Addr::from(gid).into(), port);
    Flow::new(address(from, port), address(to, ROCE_UDP_PORT)).ok()
}

/// Whether a GID stands for an IPv4 address.
pub(crate) fn is_ipv4(gid: &Gid) -> bool {
    gid.0[..12] == [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff]
}

fn first_ipv4(gids: &[Gid]) -> Option<(u8, Gid)> {
    let mut gids = gids.iter().zip(0..=u8::MAX);
    gids.find(|(gid, _)| is_ipv4(gid)).map(|(gid, index)| (index, *gid))
}

/// The LID of a port with these GIDs, where the profile wants one: the end of its first IPv4 address, or 0.
pub(super) fn lid_of(gids: &[Gid]) -> u16 {
    first_ipv4(gids).map_or(0, |(_, gid)| u16::from_be_bytes([gid.0[14], gid.0[15]]))
}

impl Core {
    /// The way that an address vector describes. To a connected peer, which will get many packets, the link may have a shorter one.
    pub(crate) fn path_to(&self, call: &'static str, av: &AddressVector, connected: bool) -> Result<Path> {
        let wrong = |reason: String| Error::InvalidArgument { call, reason };
        check_address_vector(av, &self.profile.device, &self.profile.port)
            .map_err(|error| wrong(error.to_string()))?;
        let device = self.link.name();
        let by_lid = if av.is_global { None } else { self.address_of_lid(av) };
        let av = by_lid.as_ref().unwrap_or(av);
        if !av.is_global || av.dgid.is_zero() {
            return Err(wrong(match self.profile.switches.lids {
                Lids::None => format!(
                    "{device} is Ethernet, where peers are named by GID: set is_global and dgid to the peer's GID, or give ports \
                     LIDs by the profile's switch lids=ipv4"
                ),
                Lids::Ipv4 => format!(
                    "dlid {} leads nowhere from {device}: there must be an IPv4 address on either side, and LIDs of their last \
                     two bytes",
                    av.dlid
                ),
            }));
        }
        let source = self.gid(av.sgid_index);
        if source.is_zero() {
            return Err(wrong(format!(
                "sgid_index {} of {device} holds no GID; there are {}",
                av.sgid_index,
                self.known_gids()
            )));
        }
        let Some(mut way) = flow(source, ROCE_UDP_PORT, av.dgid) else {
            let family = |gid| if is_ipv4(gid) { "IPv4" } else { "IPv6" };
            return Err(wrong(format!(
                "GID {source} at sgid_index {} is {} and the peer's {} is {}: choose a sgid_index of the peer's \
                 kind among {}",
                av.sgid_index,
                family(&source),
                av.dgid,
                family(&av.dgid),
                self.known_gids()
            )));
        };
        self.link.open_gid(av.sgid_index)?;
        if connected {
            self.link.reach(av.dgid)?;
            let port = self.link.source_port(av.sgid_index, av.dgid);
            way = flow(source, port, av.dgid).unwrap_or(way);
        }
        Ok(Path {
            from: av.sgid_index,
            source,
            to: av.dgid,
            traffic_class: av.traffic_class,
            hop_limit: av.hop_limit,
            flow: way,
        })
    }

    /// The address vector with the GID that a LID stands for; `None` if LIDs stand for nothing.
    fn address_of_lid(&self, av: &AddressVector) -> Option<AddressVector> {
        if self.profile.port.lid == 0 || av.dlid == 0 {
            return None;
        }
        let (sgid_index, own) = first_ipv4(self.link.gids())?;
        let mut dgid = own;
        dgid.0[14..].copy_from_slice(&av.dlid.to_be_bytes());
        Some(AddressVector { is_global: true, dgid, sgid_index, hop_limit: HOPS, ..*av })
    }

    /// An entry of the GID table; zero if it is not used.
    pub(crate) fn gid(&self, index: u8) -> Gid {
        self.link.gids().get(usize::from(index)).copied().unwrap_or_default()
    }

    /// The GID by which peers are told to find us: an IPv4 one where there is one, at index 1 if that is one. On loopback it is `::1`: over
    /// IPv6 the iCRC is checked whole, and sending is quicker.
    pub(crate) fn default_gid_index(&self) -> u8 {
        let gids = self.link.gids();
        if self.network().is_some() {
            // All are as good, and who says nothing of indices means the first.
            return 0;
        }
        if let Some(index) = gids.iter().position(|gid| *gid == Gid::from(Ipv6Addr::LOCALHOST)) {
            return index as u8;
        }
        let usable = |wanted: &dyn Fn(&Gid) -> bool| {
            let preferred = [1, 0].into_iter().chain(2..gids.len());
            preferred.into_iter().find(|&index| gids.get(index).is_some_and(wanted)).map(|index| index as u8)
        };
        usable(&is_ipv4).or_else(|| usable(&|gid| !gid.is_zero())).unwrap_or(0)
    }

    /// The entry of our GID table from which a peer at this GID is reached: the default one if it is of the same kind.
    pub(crate) fn gid_index_towards(&self, peer: &Gid) -> u8 {
        let default = self.default_gid_index();
        if is_ipv4(&self.gid(default)) == is_ipv4(peer) {
            return default;
        }
        let same = |gid: &Gid| !gid.is_zero() && is_ipv4(gid) == is_ipv4(peer);
        self.link.gids().iter().position(same).map_or(default, |index| index as u8)
    }

    /// Listens at all our GIDs, for datagrams, which may come to any.
    pub(crate) fn listen_everywhere(&self) -> Result<()> {
        let mut first_error = None;
        let mut heard = false;
        for (index, gid) in self.link.gids().iter().enumerate().take(256) {
            if !gid.is_zero() {
                match self.link.open_gid(index as u8) {
                    Ok(()) => heard = true,
                    Err(error) => first_error = first_error.or(Some(error)),
                }
            }
        }
        match first_error {
            Some(error) if !heard => Err(error),
            _ => Ok(()),
        }
    }

    fn known_gids(&self) -> String {
        let gids = self.link.gids().iter().enumerate().filter(|(_, gid)| !gid.is_zero());
        gids.map(|(index, gid)| format!("{index}: {gid}")).collect::<Vec<_>>().join(", ")
    }

    /// A number for a datagram destination.
    pub(crate) fn add_handle(&self, path: Path) -> Result<u32> {
        let mut ahs = write(&self.ahs);
        let (number, _) = ahs.numbers.claim("create_ah", "address handles")?;
        match ahs.paths.get_mut(number as usize) {
            Some(place) => *place = path,
            // New numbers come in order.
            None => ahs.paths.push(path),
        }
        Ok(number)
    }

    /// The handle is not used for new work. Its number is the last to be given out again, and until then it leads where it did: what was posted
    /// and has not been sent yet still finds its way.
    pub(crate) fn remove_handle(&self, ah: u32) {
        write(&self.ahs).numbers.release(ah);
    }

    /// Where the handle with this number leads, if there is one.
    pub(crate) fn path_of(&self, ah: u32) -> Option<Path> {
        read(&self.ahs).paths.get(ah as usize).copied()
    }
}
