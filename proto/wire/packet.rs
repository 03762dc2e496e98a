//! A whole packet, which is the payload of one UDP datagram: headers, payload, padding, iCRC.

use core::fmt;

use super::icrc::ICRC_BYTES;
use super::{Headers, PacketOpcode};

/// Why bytes are no packet. Whoever carries packets drops and counts these; nobody answers them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    /// It ends within its headers or its iCRC.
    #[error("the packet has {len} bytes; with its headers and iCRC it has at least {need}")]
    TooShort {
        /// Bytes there are.
        len: usize,
        /// Bytes there must be.
        need: usize,
    },
    /// Its length is not a multiple of 4.
    #[error("the packet has {len} bytes, which is not a multiple of 4: the sender left out the padding")]
    Unaligned {
        /// Bytes there are.
        len: usize,
    },
    /// An opcode that tbrdma does not speak, or nobody.
    #[error("opcode 0x{opcode:02x} is none that tbrdma speaks")]
    Opcode {
        /// The number.
        opcode: u8,
    },
    /// A transport header version other than 0.
    #[error("transport header version {version}; there is only version 0")]
    TransportVersion {
        /// The number.
        version: u8,
    },
    /// More padding than there are bytes for payload and padding, or padding that is no packet's of its opcode.
    #[error("{pad} bytes of padding, but only {room} bytes between headers and iCRC")]
    Pad {
        /// Bytes of padding by the header.
        pad: u8,
        /// Bytes between headers and iCRC.
        room: usize,
    },
    /// An acknowledgement that says something reserved.
    #[error("acknowledgement syndrome 0x{syndrome:02x} is a reserved one")]
    Syndrome {
        /// The number.
        syndrome: u8,
    },
}

/// A packet whose bytes have been checked for shape: known opcode, headers whole, padding inside, payload apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Packet<'a> {
    /// The headers.
    pub headers: Headers,
    /// The payload, without padding and iCRC.
    pub payload: &'a [u8],
}

impl<'a> Packet<'a> {
    /// Finds the parts of a UDP payload. Reserved bits may have any value, and so may the padding; the iCRC is not looked at, see
    /// [`icrc::verify`](super::icrc::verify). Whether the opcode may have a payload, and of this length, is left to the transport, which
    /// has an answer for each case.
    ///
    /// # Errors
    /// [`WireError`] says what is wrong.
    #[inline]
    pub fn parse(udp_payload: &'a [u8]) -> Result<Self, WireError> {
        let len = udp_payload.len();
        let Some((body, _icrc)) = udp_payload.split_last_chunk::<ICRC_BYTES>() else {
            return Err(WireError::TooShort { len, need: SHORTEST });
        };
        let (headers, rest) = match Headers::parse(body) {
            // Its lengths are without the iCRC.
            Err(WireError::TooShort { need, .. }) => {
                return Err(WireError::TooShort { len, need: need + ICRC_BYTES });
            }
            parsed => parsed?,
        };
        if !len.is_multiple_of(4) {
            return Err(WireError::Unaligned { len });
        }
        let pad = headers.bth.pad;
        match rest.len().checked_sub(pad.into()).and_then(|payload| rest.split_at_checked(payload)) {
            Some((payload, _pad)) => Ok(Self { headers, payload }),
            None => Err(WireError::Pad { pad, room: rest.len() }),
        }
    }
}

/// Bytes of the shortest packet: a base transport header and an iCRC.
const SHORTEST: usize = PacketOpcode::RcSendOnly.header_bytes() + ICRC_BYTES;

/// One line: the headers, and the payload's length if there is any.
impl fmt::Display for Packet<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.headers)?;
        if self.payload.is_empty() { Ok(()) } else { write!(f, " len {}", self.payload.len()) }
    }
}
