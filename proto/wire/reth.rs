//! The RDMA extended transport header: address (8 bytes), key (4), length (4).

use core::fmt;

use super::bytes::{be32, be64, join};

/// The RDMA extended transport header: what to read or write (IBTA volume 1, section 9.3.3).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reth {
    /// First address.
    pub addr: u64,
    /// The key.
    pub rkey: u32,
    /// Bytes of the whole message.
    pub length: u32,
}

impl Reth {
    /// Bytes on the wire.
    pub const BYTES: usize = 16;

    /// Reads the header; any bytes are one.
    #[inline]
    pub fn from_bytes(bytes: &[u8; Self::BYTES]) -> Self {
        Self { addr: be64(bytes, 0), rkey: be32(bytes, 8), length: be32(bytes, 12) }
    }

    /// The header's bytes.
    #[inline]
    pub fn to_bytes(&self) -> [u8; Self::BYTES] {
        join([&self.addr.to_be_bytes(), &self.rkey.to_be_bytes(), &self.length.to_be_bytes()])
    }
}

impl fmt::Display for Reth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "va 0x{:x} rkey 0x{:08x} dmalen {}", self.addr, self.rkey, self.length)
    }
}
