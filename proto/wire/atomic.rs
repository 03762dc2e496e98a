//! The headers of atomics: the request's address (8 bytes), key (4), swap or add (8), compare (8); the answer's old value (8).

use core::fmt;

use super::bytes::{be32, be64, join};

/// The atomic extended transport header (IBTA volume 1, section 9.3.6).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AtomicEth {
    /// Address.
    pub addr: u64,
    /// The key.
    pub rkey: u32,
    /// What to store, or to add.
    pub swap_add: u64,
    /// What must be there; only for compare and swap.
    pub compare: u64,
}

impl AtomicEth {
    /// Bytes on the wire.
    pub const BYTES: usize = 28;

    /// Reads the header; any bytes are one.
    #[inline]
    pub fn from_bytes(bytes: &[u8; Self::BYTES]) -> Self {
        Self {
            addr: be64(bytes, 0),
            rkey: be32(bytes, 8),
            swap_add: be64(bytes, 12),
            compare: be64(bytes, 20),
        }
    }

    /// The header's bytes.
    #[inline]
    pub fn to_bytes(&self) -> [u8; Self::BYTES] {
        join([
            &self.addr.to_be_bytes(),
            &self.rkey.to_be_bytes(),
            &self.swap_add.to_be_bytes(),
            &self.compare.to_be_bytes(),
        ])
    }
}

impl fmt::Display for AtomicEth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "va 0x{:x} rkey 0x{:08x} swapadd {} compare {}",
            self.addr, self.rkey, self.swap_add, self.compare
        )
    }
}

/// The atomic acknowledgement extended transport header (IBTA volume 1, section 9.5.3): what the 8 bytes held before.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AtomicAckEth(pub u64);

impl AtomicAckEth {
    /// Bytes on the wire.
    pub const BYTES: usize = 8;

    /// Reads the header; any bytes are one.
    #[inline]
    pub const fn from_bytes(bytes: &[u8; Self::BYTES]) -> Self {
        Self(u64::from_be_bytes(*bytes))
    }

    /// The header's bytes.
    #[inline]
    pub const fn to_bytes(&self) -> [u8; Self::BYTES] {
        self.0.to_be_bytes()
    }
}

impl fmt::Display for AtomicAckEth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "old {}", self.0)
    }
}
