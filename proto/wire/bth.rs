//! The base transport header, which every packet begins with.
//!
//! ```text
//!  byte 0        1                 2 3     4                5 6 7     8             9 10 11
//!      +--------+-----------------+-------+----------------+---------+-------------+---------+
//!      | opcode | SE M pad(2) ver4| P_Key | F B reserved(6)| dest QP | A reserved7 |   PSN   |
//!      +--------+-----------------+-------+----------------+---------+-------------+---------+
//! ```

use core::fmt;

use super::WireError;
use super::opcode::PacketOpcode;
use crate::ident::{Psn, Qpn};
use crate::limits::DEFAULT_PKEY;

/// The base transport header (IBTA volume 1, section 9.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bth {
    /// What the packet is.
    pub opcode: PacketOpcode,
    /// The receiver's completion is a solicited one.
    pub solicited: bool,
    /// The path migration state; `true` is "migrated", what those who know no alternate paths send.
    pub migrated: bool,
    /// Zero bytes after the payload, `0..=3`, that make the packet a multiple of 4.
    pub pad: u8,
    /// The partition key.
    pub pkey: u16,
    /// The packet met congestion on its way.
    pub fecn: bool,
    /// The sender got a notice of congestion on the way there.
    pub becn: bool,
    /// The queue pair it is for.
    pub dest_qpn: Qpn,
    /// The requester wants an acknowledgement of this packet.
    pub ack_req: bool,
    /// Its number.
    pub psn: Psn,
}

/// SE, the solicited event bit, in byte 1.
const SOLICITED: u8 = 0x80;
/// M, the migration state, in byte 1.
const MIGRATED: u8 = 0x40;
/// The transport header version, in byte 1. There is only version 0.
const VERSION: u8 = 0x0f;
/// FECN, in byte 4.
const FECN: u8 = 0x80;
/// BECN, in byte 4.
const BECN: u8 = 0x40;
/// A, the acknowledge request bit, in byte 8.
const ACK_REQ: u8 = 0x80;

impl Bth {
    /// Bytes on the wire.
    pub const BYTES: usize = 12;

    /// A header that says nothing out of the ordinary: migrated, of the default partition, with no bits set and no padding.
    #[inline]
    pub const fn new(opcode: PacketOpcode, dest_qpn: Qpn, psn: Psn) -> Self {
        Self {
            opcode,
            solicited: false,
            migrated: true,
            pad: 0,
            pkey: DEFAULT_PKEY,
            fecn: false,
            becn: false,
            dest_qpn,
            ack_req: false,
            psn,
        }
    }

    /// Reads the header. Reserved bits may have any value.
    ///
    /// # Errors
    /// [`WireError::Opcode`], [`WireError::TransportVersion`]. Whether `pad` is possible only the whole packet tells.
    #[inline]
    pub const fn from_bytes(bytes: &[u8; Self::BYTES]) -> Result<Self, WireError> {
        let &[opcode, flags, p1, p0, marks, q2, q1, q0, ack, n2, n1, n0] = bytes;
        let Some(opcode) = PacketOpcode::from_raw(opcode) else {
            return Err(WireError::Opcode { opcode });
        };
        if flags & VERSION != 0 {
            return Err(WireError::TransportVersion { version: flags & VERSION });
        }
        Ok(Self {
            opcode,
            solicited: flags & SOLICITED != 0,
            migrated: flags & MIGRATED != 0,
            pad: flags >> 4 & 3,
            pkey: u16::from_be_bytes([p1, p0]),
            fecn: marks & FECN != 0,
            becn: marks & BECN != 0,
            dest_qpn: Qpn::masked(u32::from_be_bytes([0, q2, q1, q0])),
            ack_req: ack & ACK_REQ != 0,
            psn: Psn::masked(u32::from_be_bytes([0, n2, n1, n0])),
        })
    }

    /// The header's bytes. Only the low two bits of `pad` count.
    #[inline]
    pub const fn to_bytes(&self) -> [u8; Self::BYTES] {
        const fn bit(set: bool, mask: u8) -> u8 {
            if set { mask } else { 0 }
        }
        let flags = bit(self.solicited, SOLICITED) | bit(self.migrated, MIGRATED) | (self.pad & 3) << 4;
        let [p1, p0] = self.pkey.to_be_bytes();
        let [_, q2, q1, q0] = self.dest_qpn.get().to_be_bytes();
        let [_, n2, n1, n0] = self.psn.get().to_be_bytes();
        let marks = bit(self.fecn, FECN) | bit(self.becn, BECN);
        [self.opcode.raw(), flags, p1, p0, marks, q2, q1, q0, bit(self.ack_req, ACK_REQ), n2, n1, n0]
    }
}

/// `RC SEND_ONLY qp 0x000011 psn 0x00abcd ackreq`: flags that are not set, a default partition and no padding are left out.
impl fmt::Display for Bth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} qp {} psn {}", self.opcode, self.dest_qpn, self.psn)?;
        for (set, word) in [
            (self.ack_req, " ackreq"),
            (self.solicited, " solicited"),
            (self.migrated, " migrated"),
            (self.fecn, " fecn"),
            (self.becn, " becn"),
        ] {
            if set {
                f.write_str(word)?;
            }
        }
        if self.pkey != DEFAULT_PKEY {
            write!(f, " pkey 0x{:04x}", self.pkey)?;
        }
        if self.pad != 0 {
            write!(f, " pad {}", self.pad)?;
        }
        Ok(())
    }
}
