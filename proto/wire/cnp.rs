//! The congestion notification packet: a base transport header and 16 reserved bytes (RoCEv2 annex A17.9.3).

use super::{Bth, Headers, PacketOpcode};
use crate::ident::{Psn, Qpn};

/// Reserved bytes of a congestion notification, after its base transport header.
pub const CNP_RESERVED_BYTES: usize = 16;

impl Headers {
    /// The notice to queue pair `dest_qpn` that its packets meet congestion.
    pub const fn cnp(dest_qpn: Qpn) -> Self {
        Self::new(Bth { becn: true, ..Bth::new(PacketOpcode::Cnp, dest_qpn, Psn::masked(0)) })
    }
}
