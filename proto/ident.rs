//! Names of things on a fabric: packet sequence numbers, queue pair numbers, LIDs, GUIDs and GIDs.

use core::fmt;
use core::str::FromStr;
use std::net::{Ipv4Addr, Ipv6Addr};

/// All 24 bits of a PSN or queue pair number.
const MASK_24: u32 = (1 << 24) - 1;

/// A packet sequence number: 24 bits, counted modulo 2^24 (IBTA volume 1, section 9.7.1).
///
/// It has no `Ord`, because numbers on a circle have none. Compare with [`precedes`](Self::precedes) or
/// [`distance_from`](Self::distance_from).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Psn(u32);

impl Psn {
    /// The PSN `value`, or `None` if `value` needs more than 24 bits.
    #[inline]
    pub const fn new(value: u32) -> Option<Self> {
        if value <= MASK_24 { Some(Self(value)) } else { None }
    }

    /// The low 24 bits of `value`, as hardware and libibverbs providers read a PSN attribute.
    #[inline]
    pub const fn masked(value: u32) -> Self {
        Self(value & MASK_24)
    }

    /// The number, in `0..2^24`.
    #[inline]
    pub const fn get(self) -> u32 {
        self.0
    }

    /// The PSN after this one; `0xffffff` is followed by `0`.
    #[inline]
    #[must_use]
    pub const fn next(self) -> Self {
        self.add(1)
    }

    /// The PSN `count` packets later, modulo 2^24.
    // Not `core::ops::Add`: adding a count of packets is not adding two PSNs.
    #[inline]
    #[must_use]
    #[allow(clippy::should_implement_trait)]
    pub const fn add(self, count: u32) -> Self {
        Self::masked(self.0.wrapping_add(count))
    }

    /// How many packets `self` is after `origin`: negative if it is before, in `-2^23 ..= 2^23 - 1`.
    ///
    /// The circle is cut opposite `origin`. A number exactly 2^23 away counts as before, so that to a
    /// responder expecting `origin` it is a duplicate and not a gap.
    #[inline]
    pub const fn distance_from(self, origin: Self) -> i32 {
        // Move bit 23 to the sign bit, then let the arithmetic shift extend it.
        (self.0.wrapping_sub(origin.0) << 8).cast_signed() >> 8
    }

    /// Whether `self` lies in the 2^23 numbers before `other`.
    #[inline]
    pub const fn precedes(self, other: Self) -> bool {
        self.distance_from(other) < 0
    }
}

impl fmt::Display for Psn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "0x{:06x}", self.0)
    }
}

/// A queue pair number: 24 bits, unique within one device (IBTA volume 1, section 10.2.4).
///
/// 0 and 1 are the management queue pairs of InfiniBand; the default, 0, stands for "none".
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(transparent)]
pub struct Qpn(u32);

impl Qpn {
    /// The queue pair number `value`, or `None` if it needs more than 24 bits.
    #[inline]
    pub const fn new(value: u32) -> Option<Self> {
        if value <= MASK_24 { Some(Self(value)) } else { None }
    }

    /// The low 24 bits of `value`, as a header has them.
    #[inline]
    pub const fn masked(value: u32) -> Self {
        Self(value & MASK_24)
    }

    /// The number, in `0..2^24`.
    #[inline]
    pub const fn get(self) -> u32 {
        self.0
    }
}

impl fmt::Display for Qpn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "0x{:06x}", self.0)
    }
}

/// A local identifier: the 16-bit address of a port within an InfiniBand subnet; 0 on RoCE.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Lid(pub u16);

impl fmt::Display for Lid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "0x{:04x}", self.0)
    }
}

/// A 64-bit globally unique identifier of a device, port or system image, in host byte order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Guid(pub u64);

impl fmt::Display for Guid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g, h, i] = self.0.to_be_bytes();
        write!(f, "{a:02x}{b:02x}:{c:02x}{d:02x}:{e:02x}{g:02x}:{h:02x}{i:02x}")
    }
}

/// A global identifier: 128 bits with the shape of an IPv6 address (IBTA volume 1, section 4.1.1).
///
/// The bytes are in network order. On RoCEv2 a GID *is* an IP address, an IPv4 one being mapped
/// (`::ffff:a.b.c.d`).
///
/// ```
/// use tbrdma_proto::Gid;
/// let gid: Gid = "fe80::2".parse()?;
/// assert_eq!(gid, Gid::from_prefix_and_interface_id(0xfe80_0000_0000_0000, 2));
/// assert_eq!(gid.to_string(), "fe80::2");
/// # Ok::<(), tbrdma_proto::GidParseError>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Gid(pub [u8; 16]);

impl Gid {
    /// The GID made of a 64-bit subnet prefix and a 64-bit interface identifier, both in host order.
    pub const fn from_prefix_and_interface_id(subnet_prefix: u64, interface_id: u64) -> Self {
        Self((((subnet_prefix as u128) << 64) | interface_id as u128).to_be_bytes())
    }

    /// The IPv4-mapped GID of `address`: `::ffff:a.b.c.d`.
    pub const fn from_ipv4_mapped(address: Ipv4Addr) -> Self {
        Self(address.to_ipv6_mapped().octets())
    }

    /// The upper 64 bits, in host order.
    pub const fn subnet_prefix(&self) -> u64 {
        (u128::from_be_bytes(self.0) >> 64) as u64
    }

    /// The lower 64 bits, in host order.
    pub const fn interface_id(&self) -> u64 {
        u128::from_be_bytes(self.0) as u64
    }

    /// Whether every byte is zero, as in an unused entry of a GID table.
    pub const fn is_zero(&self) -> bool {
        u128::from_be_bytes(self.0) == 0
    }
}

impl From<Ipv6Addr> for Gid {
    fn from(address: Ipv6Addr) -> Self {
        Self(address.octets())
    }
}

impl From<Gid> for Ipv6Addr {
    fn from(gid: Gid) -> Self {
        Self::from(gid.0)
    }
}

impl fmt::Display for Gid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Through `Display` of the address itself, so width and alignment are honoured.
        fmt::Display::fmt(&Ipv6Addr::from(self.0), f)
    }
}

/// Text that is not a [`Gid`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{text:?} is not a GID: it must be an IPv6 address such as \"fe80::1\" or \"::ffff:192.0.2.1\" \
     (write an IPv4 address a.b.c.d as ::ffff:a.b.c.d)"
)]
pub struct GidParseError {
    /// The text that was refused.
    pub text: String,
}

impl FromStr for Gid {
    type Err = GidParseError;

    fn from_str(text: &str) -> Result<Self, GidParseError> {
        text.parse::<Ipv6Addr>().map(Self::from).map_err(|_| GidParseError { text: text.to_owned() })
    }
}
