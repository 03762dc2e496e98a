//! The invariant CRC of RoCEv2 (annex A17.3.3): a CRC-32 over everything that no router changes.
//!
//! It covers eight bytes of ones, the IP header, the UDP header, and the packet up to its padding, with ones in place of what may
//! change on the way: of IPv4 type of service, time to live and header checksum; of IPv6 traffic class, flow label and hop limit; the UDP
//! checksum; byte 4 of the base transport header, which has the congestion marks. All else counts as sent, also IPv4's identification
//! and its "don't fragment" flag. The CRC is stored with its *low* byte first, unlike any other number of a packet.
//!
//! **The identification** is a problem to those who receive through a UDP socket, which does not tell it. What was it, if the CRC is
//! right? The CRC is affine, so that is 32 equations for 16 unknown bits: [`verify`] solves them. What remains is a check of 16 bits,
//! not of 32, so one corrupted packet in 65536 passes it; the UDP checksum, if the sender had one, is there too.

use core::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use crc32fast::Hasher;

use super::bytes::join;
use super::gf2::{self, Field};
use super::ip::{DONT_FRAGMENT, PROTOCOL_UDP};
use super::{Bth, WireError};

/// Bytes of an iCRC.
pub const ICRC_BYTES: usize = 4;

/// What stands in the IP and UDP headers around each packet from one UDP port to another and counts in the iCRC.
///
/// It holds the part of the CRC that does not change from packet to packet: keep it where packets are sent or received.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Flow {
    addresses: Addresses,
    source_port: u16,
    destination_port: u16,
    dont_fragment: bool,
    /// CRC of all that is before the base transport header, with zero lengths and a zero identification.
    crc: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Addresses {
    V4 { source: Ipv4Addr, destination: Ipv4Addr },
    V6 { source: Ipv6Addr, destination: Ipv6Addr },
}

/// Two addresses of different families, between which no packet goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "no packet goes from {from} to {to}: one is an IPv4 address, the other an IPv6 address; use two of one family"
)]
pub struct MixedFamilies {
    /// Where from.
    pub from: IpAddr,
    /// Where to.
    pub to: IpAddr,
}

// What the fields that differ between packets of a flow add, by the bytes from their end to the base transport header.
static V4_TOTAL_LENGTH: Field = Field::followed_by(24);
static V4_IDENT: Field = Field::followed_by(22);
static V4_FLAGS: Field = Field::followed_by(20);
static V6_PAYLOAD_LENGTH: Field = Field::followed_by(42);
static UDP_LENGTH: Field = Field::followed_by(2);

impl Flow {
    /// The flow from one address and port to another, with IPv4's "don't fragment" flag, as RoCEv2 is sent. IPv4-mapped addresses,
    /// which GIDs have, mean IPv4.
    ///
    /// # Errors
    /// [`MixedFamilies`].
    pub fn new(from: SocketAddr, to: SocketAddr) -> Result<Self, MixedFamilies> {
        let addresses = match (from.ip().to_canonical(), to.ip().to_canonical()) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => Addresses::V4 { source, destination },
            (IpAddr::V6(source), IpAddr::V6(destination)) => Addresses::V6 { source, destination },
            (from, to) => return Err(MixedFamilies { from, to }),
        };
        Ok(Self::with(addresses, from.port(), to.port()))
    }

    /// The same flow with IPv4's "don't fragment" flag so; nothing changes for IPv6.
    #[must_use]
    pub fn with_dont_fragment(mut self, set: bool) -> Self {
        if self.is_ipv4() && self.dont_fragment != set {
            self.crc ^= V4_FLAGS.holding(DONT_FRAGMENT);
            self.dont_fragment = set;
        }
        self
    }

    fn with(addresses: Addresses, source_port: u16, destination_port: u16) -> Self {
        let ports = [source_port.to_be_bytes(), destination_port.to_be_bytes()];
        let (ports, length, checksum): (&[u8], &[u8], &[u8]) = (ports.as_flattened(), &[0; 2], &[0xff; 2]);
        let crc = match addresses {
            Addresses::V4 { source, destination } => {
                let flags = DONT_FRAGMENT.to_be_bytes();
                let (from, to) = (source.octets(), destination.octets());
                let ip = [0x45, 0xff, 0, 0, 0, 0, flags[0], flags[1], 0xff, PROTOCOL_UDP, 0xff, 0xff];
                let all: [u8; 8 + 20 + 8] = join([&[0xff; 8], &ip, &from, &to, ports, length, checksum]);
                crc32fast::hash(&all)
            }
            Addresses::V6 { source, destination } => {
                let (from, to) = (source.octets(), destination.octets());
                let ip = [0x6f, 0xff, 0xff, 0xff, 0, 0, PROTOCOL_UDP, 0xff];
                let all: [u8; 8 + 40 + 8] = join([&[0xff; 8], &ip, &from, &to, ports, length, checksum]);
                crc32fast::hash(&all)
            }
        };
        Self { addresses, source_port, destination_port, dont_fragment: true, crc }
    }

    /// Where packets come from.
    pub fn source(&self) -> SocketAddr {
        let ip = match self.addresses {
            Addresses::V4 { source, .. } => source.into(),
            Addresses::V6 { source, .. } => source.into(),
        };
        SocketAddr::new(ip, self.source_port)
    }

    /// Where they go.
    pub fn destination(&self) -> SocketAddr {
        let ip = match self.addresses {
            Addresses::V4 { destination, .. } => destination.into(),
            Addresses::V6 { destination, .. } => destination.into(),
        };
        SocketAddr::new(ip, self.destination_port)
    }

    /// Whether IPv4's "don't fragment" flag is set.
    #[inline]
    pub const fn has_dont_fragment(&self) -> bool {
        self.dont_fragment
    }

    /// Whether it is a flow over IPv4, whose packets have an identification.
    #[inline]
    pub const fn is_ipv4(&self) -> bool {
        matches!(self.addresses, Addresses::V4 { .. })
    }

    /// The CRC of all that is before the base transport header of one packet.
    #[inline]
    fn prefix(&self, ident: u16, udp_payload_len: usize) -> u32 {
        // Longer ones than a UDP datagram can be do not exist; they only must not panic.
        let udp_length = (udp_payload_len as u16).wrapping_add(8);
        let ip = match self.addresses {
            Addresses::V4 { .. } => {
                V4_TOTAL_LENGTH.holding(udp_length.wrapping_add(20)) ^ V4_IDENT.holding(ident)
            }
            Addresses::V6 { .. } => V6_PAYLOAD_LENGTH.holding(udp_length),
        };
        self.crc ^ ip ^ UDP_LENGTH.holding(udp_length)
    }
}

/// Computes the iCRC of a packet from its parts, in the order of the wire, wherever each may be.
#[derive(Clone, Debug)]
pub struct IcrcHasher {
    crc: Hasher,
    /// That of all that was taken, if somebody else has computed the last part.
    told: Option<u32>,
    /// Bytes taken, as far as it matters: up to those of a base transport header.
    taken: u8,
}

/// The byte of the base transport header that counts as ones.
const MARKS: usize = 4;

impl IcrcHasher {
    /// For one packet of `flow`, of `udp_payload_len` bytes from its base transport header to its iCRC, including both. `ident` is the
    /// identification of its IPv4 header; IPv6 has none.
    #[inline]
    pub fn new(flow: &Flow, ident: u16, udp_payload_len: usize) -> Self {
        Self { crc: Hasher::new_with_initial(flow.prefix(ident, udp_payload_len)), told: None, taken: 0 }
    }

    /// Takes the next bytes: headers, payload, padding.
    #[inline]
    pub fn update(&mut self, bytes: &[u8]) {
        if usize::from(self.taken) > MARKS {
            if let Some(told) = self.told.take() {
                self.crc = Hasher::new_with_initial(told);
            }
            self.crc.update(bytes);
        } else {
            self.update_marks(bytes);
        }
    }

    /// Takes bytes of which one may be the byte that counts as ones.
    #[inline]
    fn update_marks(&mut self, bytes: &[u8]) {
        if self.taken == 0
            && let Some((header, rest)) = bytes.split_first_chunk()
        {
            // What all senders bring: a whole base transport header.
            let mut front: [u8; Bth::BYTES] = *header;
            front[MARKS] = 0xff;
            self.crc.update(&front);
            self.taken = Bth::BYTES as u8;
            self.crc.update(rest);
        } else {
            self.update_marks_of_pieces(bytes);
        }
    }

    #[cold]
    fn update_marks_of_pieces(&mut self, bytes: &[u8]) {
        // Not more than a base transport header: payloads are multiples of 16 more often than not, and CRCs of such pieces are twice as fast.
        let mut front = [0; Bth::BYTES];
        let (masked, rest) = bytes.split_at(bytes.len().min(front.len()));
        for (to, from) in front.iter_mut().zip(masked) {
            *to = *from;
        }
        if let Some(marks) = front.get_mut(MARKS - usize::from(self.taken)) {
            *marks = 0xff;
        }
        self.crc.update(front.get(..masked.len()).unwrap_or_default());
        self.taken = self.taken.saturating_add(masked.len() as u8);
        self.crc.update(rest);
    }

    /// Takes bytes behind the base transport header whose CRC somebody else computes, who copies them for instance: `compute` is told the
    /// CRC-32 of what was taken so far, and answers that of all with these bytes. `None` takes nothing.
    #[inline]
    pub fn update_by(&mut self, compute: impl FnOnce(u32) -> Option<u32>) -> Option<()> {
        self.told = Some(compute(self.so_far())?);
        Some(())
    }

    /// The iCRC. It is stored as `to_le_bytes`.
    #[inline]
    pub fn finish(self) -> u32 {
        self.so_far()
    }

    #[inline]
    fn so_far(&self) -> u32 {
        // A hasher is made for many bytes and looks at the processor first: not for nothing.
        self.told.unwrap_or_else(|| self.crc.clone().finalize())
    }
}

/// Computes the iCRC of a packet that is in one piece and writes it to its last 4 bytes. `ident` as for [`IcrcHasher::new`].
///
/// # Errors
/// [`WireError::TooShort`] if there is no room for a base transport header and an iCRC.
#[inline]
pub fn seal(flow: &Flow, ident: u16, udp_payload: &mut [u8]) -> Result<(), WireError> {
    let len = udp_payload.len();
    match udp_payload.split_last_chunk_mut() {
        Some((body, icrc)) if body.len() >= Bth::BYTES => {
            let mut hasher = IcrcHasher::new(flow, ident, len);
            hasher.update(body);
            *icrc = hasher.finish().to_le_bytes();
            Ok(())
        }
        _ => Err(WireError::TooShort { len, need: Bth::BYTES + ICRC_BYTES }),
    }
}

/// What a receiver knows of the identification in a packet's IPv4 header. Over IPv6 it does not matter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IdentHint {
    /// It was this: a check of all 32 bits.
    Known(u16),
    /// It was anything: a check of 16 bits, see the [module](self).
    Unknown,
}

/// A packet that was damaged on its way, or not meant for this flow. It is dropped without an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BadIcrc {
    /// Too short to have an iCRC, or not a multiple of 4 bytes.
    Shape {
        /// Bytes of the packet.
        len: usize,
    },
    /// The iCRC is another.
    Mismatch {
        /// What the packet says.
        stored: u32,
        /// What it should say, for the known identification or else 0.
        computed: u32,
    },
}

impl core::error::Error for BadIcrc {}

impl fmt::Display for BadIcrc {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Shape { len } => write!(f, "a packet of {len} bytes has no place for an iCRC"),
            Self::Mismatch { stored, computed } => {
                write!(
                    f,
                    "the packet says iCRC 0x{stored:08x}, its bytes say 0x{computed:08x}: it was damaged on its way"
                )
            }
        }
    }
}

/// Checks the iCRC of a packet, and tells the identification that its IPv4 header had; `None` over IPv6.
///
/// # Errors
/// [`BadIcrc`].
#[inline]
pub fn verify(flow: &Flow, hint: IdentHint, udp_payload: &[u8]) -> Result<Option<u16>, BadIcrc> {
    verify_by(flow, hint, udp_payload, |crc, bytes| {
        let mut hasher = Hasher::new_with_initial(crc);
        hasher.update(bytes);
        hasher.finalize()
    })
}

/// [`verify`] with a CRC of the caller's: `compute` is told a CRC-32 and bytes, and answers that of what had the first with these bytes behind it.
///
/// # Errors
/// [`BadIcrc`].
#[inline]
pub fn verify_by(
    flow: &Flow,
    hint: IdentHint,
    udp_payload: &[u8],
    compute: impl FnOnce(u32, &[u8]) -> u32,
) -> Result<Option<u16>, BadIcrc> {
    let len = udp_payload.len();
    let Some((body, stored)) = udp_payload.split_last_chunk() else {
        return Err(BadIcrc::Shape { len });
    };
    if body.len() < Bth::BYTES || !len.is_multiple_of(4) {
        return Err(BadIcrc::Shape { len });
    }
    let stored = u32::from_le_bytes(*stored);
    let ident = match hint {
        IdentHint::Known(ident) => ident,
        IdentHint::Unknown => 0,
    };
    let (front, rest) = body.split_at(Bth::BYTES);
    let mut hasher = IcrcHasher::new(flow, ident, len);
    hasher.update(front);
    hasher.update_by(|crc| Some(compute(crc, rest)));
    let computed = hasher.finish();
    if computed == stored {
        return Ok(flow.is_ipv4().then_some(ident));
    }
    match hint {
        IdentHint::Unknown if flow.is_ipv4() => {
            gf2::field_from_sum(computed ^ stored, ident_to_icrc_words(len))
        }
        _ => None,
    }
    .map(Some)
    .ok_or(BadIcrc::Mismatch { stored, computed })
}

/// Bytes from the end of IPv4's identification to the iCRC, in words; two bytes remain.
#[inline]
const fn ident_to_icrc_words(udp_payload_len: usize) -> usize {
    // 2 of flags, 8 more before the addresses... 22 in all; then the packet up to its iCRC.
    (udp_payload_len - ICRC_BYTES + 22) / 4
}
