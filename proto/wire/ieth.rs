//! The invalidate extended transport header: the key that a SEND withdraws at the receiver.

use core::fmt;

/// The invalidate extended transport header (IBTA volume 1, section 9.3.8).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ieth(pub u32);

impl Ieth {
    /// Bytes on the wire.
    pub const BYTES: usize = 4;

    /// Reads the header; any bytes are one.
    #[inline]
    pub const fn from_bytes(bytes: &[u8; Self::BYTES]) -> Self {
        Self(u32::from_be_bytes(*bytes))
    }

    /// The header's bytes.
    #[inline]
    pub const fn to_bytes(&self) -> [u8; Self::BYTES] {
        self.0.to_be_bytes()
    }
}

impl fmt::Display for Ieth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "inv rkey 0x{:08x}", self.0)
    }
}
