//! What arrives: one packet, and what the network layer says of it.

use crate::sys::udp::ReceiveBatch;
use std::fmt;
use tbrdma_proto::Gid;

/// One packet as it arrived.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Datagram<'a> {
    /// The UDP payload: base transport header to iCRC. Nothing of it has been checked.
    pub(crate) payload: &'a [u8],
    /// Who sent it.
    pub(crate) source: Gid,
    /// From which port.
    pub(crate) source_port: u16,
    /// At which of our GIDs it arrived.
    pub(crate) gid_index: u8,
    /// Its IPv4 identification, if the sender is one of ours: its place in its train. A foreign sender chooses freely, and the kernel does
    /// not tell what it chose.
    pub(crate) ident_hint: u16,
    /// The IPv4 type of service or the IPv6 traffic class, ECN bits included.
    pub(crate) traffic_class: u8,
    /// The IPv4 time to live or the IPv6 hop limit.
    pub(crate) hop_limit: u8,
}

impl Datagram<'_> {
    /// Whether the network marked it as having met congestion (ECN "CE").
    pub(crate) fn congestion(&self) -> bool {
        self.traffic_class & 3 == 3
    }
}

/// Room for what one call of [`Link::receive`](super::Link::receive) takes from the kernel; made once for each thread that receives.
#[derive(Default)]
pub(crate) struct ReceiveScratch {
    pub(super) batch: ReceiveBatch,
    /// Whether the last call found something: then more may wait already.
    pub(super) streak: bool,
    /// How many packets came singly since there was none.
    pub(super) in_a_row: u32,
}

impl fmt::Debug for ReceiveScratch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReceiveScratch").finish_non_exhaustive()
    }
}
