//! The IP and UDP headers around a packet, for those who write or read whole IP packets: captures, and a datagram receive's routing
//! header. A UDP socket does this work itself.

use core::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::bytes::{be16, be32, field, join};
use super::headers::GRH_BYTES;
use super::icrc::{Flow, MixedFamilies};
use crate::ident::Gid;

/// The protocol number of UDP.
pub const PROTOCOL_UDP: u8 = 17;
/// The time to live, or hop limit, that Linux gives a packet.
pub const DEFAULT_HOP_LIMIT: u8 = 64;

/// Why bytes are no IP packet with UDP in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IpError {
    /// It ends within its headers, or before its own length.
    #[error("the IP packet has {len} bytes and needs {need}")]
    TooShort {
        /// Bytes there are.
        len: usize,
        /// Bytes there must be.
        need: usize,
    },
    /// Neither IPv4 nor IPv6.
    #[error("IP version {version}")]
    Version {
        /// The number.
        version: u8,
    },
    /// IPv4 options, or a header length that cannot be.
    #[error("an IPv4 header of {words} words: RoCEv2 has no options, so it must be 5")]
    Options {
        /// The header's length in words.
        words: u8,
    },
    /// A part of a larger packet.
    #[error("a fragment of an IPv4 packet: RoCEv2 packets come whole")]
    Fragment,
    /// The header's sum is wrong.
    #[error("the IPv4 header's checksum is wrong")]
    Checksum,
    /// Not UDP.
    #[error("protocol {protocol} is not UDP")]
    Protocol {
        /// The number.
        protocol: u8,
    },
    /// A UDP length that does not fit in the IP packet.
    #[error("the UDP header says {udp} bytes, the IP header has {ip} for it")]
    Length {
        /// By the UDP header.
        udp: u16,
        /// By the IP header.
        ip: usize,
    },
}

/// An IPv4 header without options, of a packet that is not fragmented.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ipv4Header {
    /// Differentiated services and congestion marks; the low two bits are ECN.
    pub tos: u8,
    /// Bytes of the packet, this header included.
    pub total_length: u16,
    /// Identification.
    pub ident: u16,
    /// The "don't fragment" flag.
    pub dont_fragment: bool,
    /// Time to live.
    pub ttl: u8,
    /// Protocol of what follows.
    pub protocol: u8,
    /// Where from.
    pub source: Ipv4Addr,
    /// Where to.
    pub destination: Ipv4Addr,
}

impl Ipv4Header {
    /// Bytes on the wire.
    pub const BYTES: usize = 20;

    /// Reads the header.
    ///
    /// # Errors
    /// [`IpError::Version`], [`IpError::Options`], [`IpError::Checksum`], [`IpError::Fragment`].
    pub fn from_bytes(bytes: &[u8; Self::BYTES]) -> Result<Self, IpError> {
        let [version, tos] = field(bytes, 0);
        if version >> 4 != 4 {
            return Err(IpError::Version { version: version >> 4 });
        }
        if version & 15 != 5 {
            return Err(IpError::Options { words: version & 15 });
        }
        if internet_sum(0, bytes) != 0xffff {
            return Err(IpError::Checksum);
        }
        let fragment = be16(bytes, 6);
        if fragment & !DONT_FRAGMENT != 0 {
            return Err(IpError::Fragment);
        }
        let [ttl, protocol] = field(bytes, 8);
        Ok(Self {
            tos,
            total_length: be16(bytes, 2),
            ident: be16(bytes, 4),
            dont_fragment: fragment & DONT_FRAGMENT != 0,
            ttl,
            protocol,
            source: be32(bytes, 12).into(),
            destination: be32(bytes, 16).into(),
        })
    }

    /// The header's bytes, with its checksum.
    pub fn to_bytes(&self) -> [u8; Self::BYTES] {
        let bytes = |checksum: u16| {
            join([
                &[0x45, self.tos],
                &self.total_length.to_be_bytes(),
                &self.ident.to_be_bytes(),
                &(if self.dont_fragment { DONT_FRAGMENT } else { 0 }).to_be_bytes(),
                &[self.ttl, self.protocol],
                &checksum.to_be_bytes(),
                &self.source.octets(),
                &self.destination.octets(),
            ])
        };
        bytes(!internet_sum(0, &bytes(0)))
    }
}

/// The flag beside a fragment's offset.
pub(super) const DONT_FRAGMENT: u16 = 0x4000;

/// An IPv6 header, which is also an InfiniBand global routing header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ipv6Header {
    /// Differentiated services and congestion marks; the low two bits are ECN.
    pub traffic_class: u8,
    /// Flow label, 20 bits.
    pub flow_label: u32,
    /// Bytes after this header.
    pub payload_length: u16,
    /// Protocol of what follows.
    pub next_header: u8,
    /// Hop limit.
    pub hop_limit: u8,
    /// Where from.
    pub source: Ipv6Addr,
    /// Where to.
    pub destination: Ipv6Addr,
}

impl Ipv6Header {
    /// Bytes on the wire.
    pub const BYTES: usize = 40;

    /// Reads the header.
    ///
    /// # Errors
    /// [`IpError::Version`].
    pub fn from_bytes(bytes: &[u8; Self::BYTES]) -> Result<Self, IpError> {
        let first = be32(bytes, 0);
        let version = (first >> 28) as u8;
        if version != 6 {
            return Err(IpError::Version { version });
        }
        let [next_header, hop_limit] = field(bytes, 6);
        Ok(Self {
            traffic_class: (first >> 20) as u8,
            flow_label: first & FLOW_LABEL,
            payload_length: be16(bytes, 4),
            next_header,
            hop_limit,
            source: field::<_, 16>(bytes, 8).into(),
            destination: field::<_, 16>(bytes, 24).into(),
        })
    }

    /// The header's bytes. Only the low 20 bits of `flow_label` count.
    pub fn to_bytes(&self) -> [u8; Self::BYTES] {
        let first = 6 << 28 | u32::from(self.traffic_class) << 20 | self.flow_label & FLOW_LABEL;
        join([
            &first.to_be_bytes(),
            &self.payload_length.to_be_bytes(),
            &[self.next_header, self.hop_limit],
            &self.source.octets(),
            &self.destination.octets(),
        ])
    }
}

/// The bits of a flow label.
const FLOW_LABEL: u32 = crate::limits::MAX_FLOW_LABEL;

/// An IP header of either kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IpHeader {
    /// IPv4.
    V4(Ipv4Header),
    /// IPv6.
    V6(Ipv6Header),
}

impl IpHeader {
    /// The header of a packet of `flow` with a UDP payload of `udp_payload_len` bytes and, over IPv4, this identification; class, label
    /// and hop limit as a host sets them that does not care.
    pub fn of_flow(flow: &Flow, ident: u16, udp_payload_len: u16) -> Self {
        let udp_length = udp_payload_len.wrapping_add(UdpHeader::BYTES as u16);
        match (flow.source().ip(), flow.destination().ip()) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => Self::V4(Ipv4Header {
                tos: 0,
                total_length: udp_length.wrapping_add(Ipv4Header::BYTES as u16),
                ident,
                dont_fragment: flow.has_dont_fragment(),
                ttl: DEFAULT_HOP_LIMIT,
                protocol: PROTOCOL_UDP,
                source,
                destination,
            }),
            (source, destination) => Self::V6(Ipv6Header {
                traffic_class: 0,
                flow_label: 0,
                payload_length: udp_length,
                next_header: PROTOCOL_UDP,
                hop_limit: DEFAULT_HOP_LIMIT,
                source: Gid::from(source).into(),
                destination: Gid::from(destination).into(),
            }),
        }
    }

    /// Where the packet comes from.
    pub const fn source(&self) -> IpAddr {
        match self {
            Self::V4(header) => IpAddr::V4(header.source),
            Self::V6(header) => IpAddr::V6(header.source),
        }
    }

    /// Where it goes.
    pub const fn destination(&self) -> IpAddr {
        match self {
            Self::V4(header) => IpAddr::V4(header.destination),
            Self::V6(header) => IpAddr::V6(header.destination),
        }
    }

    /// Whether the network marked the packet as having met congestion: ECN is "CE".
    pub const fn congestion(&self) -> bool {
        let class = match self {
            Self::V4(header) => header.tos,
            Self::V6(header) => header.traffic_class,
        };
        class & 3 == 3
    }

    /// What a datagram's receiver gets in front of the payload: an IPv6 header as it is, an IPv4 header after 20 zero bytes (RoCEv2
    /// annex A17.4.5).
    pub fn grh(&self) -> [u8; GRH_BYTES] {
        match self {
            Self::V4(header) => join([&[0; GRH_BYTES - Ipv4Header::BYTES], &header.to_bytes()]),
            Self::V6(header) => header.to_bytes(),
        }
    }
}

/// A UDP header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UdpHeader {
    /// Port from.
    pub source: u16,
    /// Port to.
    pub destination: u16,
    /// Bytes, this header included.
    pub length: u16,
    /// Checksum; 0 if the sender made none.
    pub checksum: u16,
}

impl UdpHeader {
    /// Bytes on the wire.
    pub const BYTES: usize = 8;

    /// Reads the header; any bytes are one.
    pub fn from_bytes(bytes: &[u8; Self::BYTES]) -> Self {
        Self {
            source: be16(bytes, 0),
            destination: be16(bytes, 2),
            length: be16(bytes, 4),
            checksum: be16(bytes, 6),
        }
    }

    /// The header's bytes.
    pub fn to_bytes(&self) -> [u8; Self::BYTES] {
        join([
            &self.source.to_be_bytes(),
            &self.destination.to_be_bytes(),
            &self.length.to_be_bytes(),
            &self.checksum.to_be_bytes(),
        ])
    }

    /// The header with its checksum, over the addresses of `ip` and the payload.
    #[must_use]
    pub fn with_checksum(self, ip: &IpHeader, payload: &[u8]) -> Self {
        let unsummed = Self { checksum: 0, ..self };
        let sum = match ip {
            IpHeader::V4(ip) => internet_sum(internet_sum(0, &ip.source.octets()), &ip.destination.octets()),
            IpHeader::V6(ip) => internet_sum(internet_sum(0, &ip.source.octets()), &ip.destination.octets()),
        };
        let sum = internet_sum(sum, &[0, PROTOCOL_UDP]);
        let sum = internet_sum(sum, &self.length.to_be_bytes());
        let sum = internet_sum(internet_sum(sum, &unsummed.to_bytes()), payload);
        // Zero would say that there is none.
        Self { checksum: if sum == 0xffff { 0xffff } else { !sum }, ..self }
    }
}

/// Adds bytes, an even number of them or the last ones, to a sum in ones' complement (RFC 1071).
fn internet_sum(sum: u16, bytes: &[u8]) -> u16 {
    let (pairs, last) = bytes.as_chunks();
    let pairs: u64 = pairs.iter().map(|&pair| u64::from(u16::from_be_bytes(pair))).sum();
    let last = last.first().map_or(0, |&last| u64::from(last) << 8);
    let mut sum = u64::from(sum) + pairs + last;
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}

/// Bytes of the headers around a packet at most: IPv6 and UDP.
pub const MAX_DATAGRAM_HEADER_BYTES: usize = Ipv6Header::BYTES + UdpHeader::BYTES;

/// A whole IP packet: its headers and the UDP payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Datagram<'a> {
    /// The IP header.
    pub ip: IpHeader,
    /// The UDP header.
    pub udp: UdpHeader,
    /// What UDP carries.
    pub payload: &'a [u8],
}

impl<'a> Datagram<'a> {
    /// Puts headers around the payload of a packet of `flow`, with a UDP checksum. A `payload` longer than a datagram can be is none.
    pub fn of_flow(flow: &Flow, ident: u16, payload: &'a [u8]) -> Self {
        let payload = payload.get(..MAX_UDP_PAYLOAD.min(payload.len())).unwrap_or_default();
        let ip = IpHeader::of_flow(flow, ident, payload.len() as u16);
        let udp = UdpHeader {
            source: flow.source().port(),
            destination: flow.destination().port(),
            length: (payload.len() + UdpHeader::BYTES) as u16,
            checksum: 0,
        };
        Self { ip, udp: udp.with_checksum(&ip, payload), payload }
    }

    /// Finds the parts of an IP packet. What follows it, as Ethernet's padding, is left out. The UDP checksum is not looked at.
    ///
    /// # Errors
    /// [`IpError`].
    pub fn parse(bytes: &'a [u8]) -> Result<Self, IpError> {
        let cut = |need| IpError::TooShort { len: bytes.len(), need };
        let (ip, ip_bytes, len) = match bytes.first().ok_or_else(|| cut(1))? >> 4 {
            4 => {
                let header = bytes.first_chunk().ok_or_else(|| cut(Ipv4Header::BYTES))?;
                let header = Ipv4Header::from_bytes(header)?;
                protocol(header.protocol)?;
                (IpHeader::V4(header), Ipv4Header::BYTES, header.total_length.into())
            }
            6 => {
                let header = bytes.first_chunk().ok_or_else(|| cut(Ipv6Header::BYTES))?;
                let header = Ipv6Header::from_bytes(header)?;
                protocol(header.next_header)?;
                (
                    IpHeader::V6(header),
                    Ipv6Header::BYTES,
                    Ipv6Header::BYTES + usize::from(header.payload_length),
                )
            }
            version => return Err(IpError::Version { version }),
        };
        let whole = bytes.get(..len).ok_or_else(|| cut(len))?;
        let short = || IpError::TooShort { len, need: ip_bytes + UdpHeader::BYTES };
        let inside = whole.get(ip_bytes..).ok_or_else(short)?;
        let (udp, payload) = inside.split_first_chunk().ok_or_else(short)?;
        let udp = UdpHeader::from_bytes(udp);
        let length = IpError::Length { udp: udp.length, ip: inside.len() };
        let payload_len = usize::from(udp.length).checked_sub(UdpHeader::BYTES).ok_or(length)?;
        Ok(Self { ip, udp, payload: payload.get(..payload_len).ok_or(length)? })
    }

    /// Writes the IP and UDP headers to the front of `out` and returns how many bytes they are.
    pub fn encode_headers(&self, out: &mut [u8; MAX_DATAGRAM_HEADER_BYTES]) -> usize {
        let udp = self.udp.to_bytes();
        match self.ip {
            IpHeader::V4(ip) => {
                *out = join([&ip.to_bytes(), &udp]);
                Ipv4Header::BYTES + UdpHeader::BYTES
            }
            IpHeader::V6(ip) => {
                *out = join([&ip.to_bytes(), &udp]);
                Ipv6Header::BYTES + UdpHeader::BYTES
            }
        }
    }

    /// The flow that the iCRC of the payload belongs to.
    ///
    /// # Errors
    /// [`MixedFamilies`] if an IPv6 packet goes from or to an IPv4-mapped address, but not both, which no host sends.
    pub fn flow(&self) -> Result<Flow, MixedFamilies> {
        let from = SocketAddr::new(self.ip.source(), self.udp.source);
        let flow = Flow::new(from, SocketAddr::new(self.ip.destination(), self.udp.destination))?;
        Ok(match self.ip {
            IpHeader::V4(ip) if !ip.dont_fragment => flow.with_dont_fragment(false),
            _ => flow,
        })
    }

    /// The identification of IPv4; `None` for IPv6.
    pub const fn ident(&self) -> Option<u16> {
        match self.ip {
            IpHeader::V4(ip) => Some(ip.ident),
            IpHeader::V6(_) => None,
        }
    }
}

/// Bytes that UDP carries at most, so that IPv4's total length can say it.
const MAX_UDP_PAYLOAD: usize = u16::MAX as usize - Ipv4Header::BYTES - UdpHeader::BYTES;

/// Refuses all but UDP.
fn protocol(protocol: u8) -> Result<(), IpError> {
    if protocol == PROTOCOL_UDP { Ok(()) } else { Err(IpError::Protocol { protocol }) }
}

/// `10.0.0.1.49152 > 10.0.0.2.4791 ident 0x0000 df`; congestion as `ce`.
impl fmt::Display for Datagram<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (source, destination) = (self.ip.source(), self.ip.destination());
        write!(f, "{source}.{} > {destination}.{}", self.udp.source, self.udp.destination)?;
        if let IpHeader::V4(ip) = self.ip {
            write!(f, " ident 0x{:04x}", ip.ident)?;
            if ip.dont_fragment {
                f.write_str(" df")?;
            }
        }
        if self.ip.congestion() { f.write_str(" ce") } else { Ok(()) }
    }
}

/// The IP address that a RoCEv2 GID is.
impl From<Gid> for IpAddr {
    fn from(gid: Gid) -> Self {
        Ipv6Addr::from(gid).to_canonical()
    }
}

/// The RoCEv2 GID of an IP address.
impl From<IpAddr> for Gid {
    fn from(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(address) => Self::from_ipv4_mapped(address),
            IpAddr::V6(address) => address.into(),
        }
    }
}
