//! The datagram extended transport header: queue key (4 bytes), a reserved byte, the sender's queue pair (3).

use core::fmt;

use super::bytes::{be32, join};
use crate::ident::Qpn;

/// The datagram extended transport header (IBTA volume 1, section 9.3.1).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Deth {
    /// The queue key the receiver must have.
    pub qkey: u32,
    /// The sender's queue pair.
    pub src_qpn: Qpn,
}

impl Deth {
    /// Bytes on the wire.
    pub const BYTES: usize = 8;

    /// Reads the header; the reserved byte may have any value.
    #[inline]
    pub fn from_bytes(bytes: &[u8; Self::BYTES]) -> Self {
        Self { qkey: be32(bytes, 0), src_qpn: Qpn::masked(be32(bytes, 4)) }
    }

    /// The header's bytes.
    #[inline]
    pub fn to_bytes(&self) -> [u8; Self::BYTES] {
        join([&self.qkey.to_be_bytes(), &self.src_qpn.get().to_be_bytes()])
    }
}

impl fmt::Display for Deth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "qkey 0x{:08x} srcqp {}", self.qkey, self.src_qpn)
    }
}
