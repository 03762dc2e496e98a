//! Immediate data: four bytes that a SEND or WRITE brings to the receiver's completion.

use core::fmt;

/// The immediate data header (IBTA volume 1, section 9.3.7), in host order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ImmDt(pub u32);

impl ImmDt {
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

impl fmt::Display for ImmDt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "imm 0x{:08x}", self.0)
    }
}
