//! Trains: packets to one destination that leave in one system call.

use super::ROCE_PORT;
use crate::sys::udp::DEFAULT_HOP_LIMIT;
use std::ops::Range;
use tbrdma_proto::Gid;

/// The most packets of one train: older kernels split no more.
const MAX_TRAIN: usize = 64;

/// The most bytes of one train: what fits in one IPv4 datagram.
const MAX_TRAIN_BYTES: usize = 65_507;

/// What a link asks of trains.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TrainRules {
    /// Bytes left free in front of each packet, for the link to fill.
    pub(crate) lead: usize,
    /// All packets are as long as the first, but for the last, which may be shorter.
    pub(crate) uniform: bool,
    /// The most packets.
    pub(crate) packets: usize,
    /// The most bytes, with what is left free. One packet may be longer.
    pub(crate) bytes: usize,
}

impl TrainRules {
    /// Those of datagrams that the kernel cuts apart.
    pub(crate) const DATAGRAMS: Self =
        Self { lead: 0, uniform: true, packets: MAX_TRAIN, bytes: MAX_TRAIN_BYTES };
}

/// Packets to one destination, by the [rules](TrainRules) of the link. Over IPv4 the packet at position `i` bears the
/// identification `i` and the flag "don't fragment": its iCRC is to be computed so.
///
/// A packet is put together in the train's own storage, [`next_packet`](Self::next_packet), and counts from
/// [`end_packet`](Self::end_packet) on. The storage is reused: after [`restart`](Self::restart) nothing allocates.
#[derive(Debug)]
pub(crate) struct Train {
    rules: TrainRules,
    from: u8,
    to: Gid,
    source_port: u16,
    traffic_class: u8,
    hop_limit: u8,
    /// The packets, one behind the other; as much of it as they are counts.
    bytes: Vec<u8>,
    /// Where each ends.
    ends: Vec<usize>,
    /// Where the one being built ends.
    open_end: usize,
    /// Packets that have been sent already: only a link that cannot send a train whole sends it in parts.
    pub(crate) sent: usize,
}

impl Train {
    /// An empty train that leads nowhere yet: [`restart`](Self::restart) it.
    pub(crate) fn new() -> Self {
        Self {
            rules: TrainRules::DATAGRAMS,
            from: 0,
            to: Gid::default(),
            source_port: ROCE_PORT,
            traffic_class: 0,
            hop_limit: DEFAULT_HOP_LIMIT,
            bytes: Vec::new(),
            ends: Vec::with_capacity(MAX_TRAIN),
            open_end: 0,
            sent: 0,
        }
    }

    /// Empties it, for packets from our GID with that index to `to`.
    pub(crate) fn restart(&mut self, from: u8, to: Gid) {
        self.from = from;
        self.to = to;
        self.source_port = ROCE_PORT;
        self.traffic_class = 0;
        self.hop_limit = DEFAULT_HOP_LIMIT;
        self.ends.clear();
        self.open_end = 0;
        self.sent = 0;
    }

    /// Empties it, for packets by the rules of another link.
    pub(crate) fn restart_by(&mut self, rules: TrainRules, from: u8, to: Gid) {
        self.rules = rules;
        self.restart(from, to);
    }

    /// Sets the port that its packets leave from: one that [`Link::source_port`](super::Link::source_port) has told.
    pub(crate) fn set_source_port(&mut self, source_port: u16) {
        self.source_port = source_port;
    }

    /// Sets the traffic class, ECN bits included, and the hop limit (0 stands for the usual 64) of every packet.
    pub(crate) fn set_class(&mut self, traffic_class: u8, hop_limit: u8) {
        self.traffic_class = traffic_class;
        self.hop_limit = if hop_limit == 0 { DEFAULT_HOP_LIMIT } else { hop_limit };
    }

    /// Whether a packet of `len` bytes, from the base transport header to the iCRC, may be the next.
    pub(crate) fn can_take(&self, len: usize) -> bool {
        let Some(&first) = self.ends.first() else { return true };
        let TrainRules { lead, uniform, packets, bytes } = self.rules;
        // A shorter one was the end.
        let fits = !uniform || self.end() == first * self.ends.len() && lead + len <= first;
        fits && self.ends.len() < packets && self.end() + lead + len <= bytes
    }

    /// Room for the next packet, of `len` bytes. What is in it now says nothing.
    pub(crate) fn next_packet(&mut self, len: usize) -> &mut [u8] {
        let start = self.end() + self.rules.lead;
        self.open_end = start + len;
        if self.bytes.len() < self.open_end {
            self.bytes.resize(self.open_end.max(self.rules.bytes), 0);
        }
        &mut self.bytes[start..self.open_end]
    }

    /// Adds the packet that was put together. Without this it is left out, and the next takes its room.
    pub(crate) fn end_packet(&mut self) {
        self.ends.push(self.open_end);
    }

    /// How many packets it has.
    pub(crate) fn len(&self) -> usize {
        self.ends.len()
    }

    /// Whether it has no packet.
    pub(crate) fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// The IPv4 identification of the packet being built.
    pub(crate) fn next_ident(&self) -> u16 {
        self.ends.len() as u16
    }

    /// The index of our GID that it leaves from.
    pub(crate) fn from(&self) -> u8 {
        self.from
    }

    /// Where it goes.
    pub(crate) fn to(&self) -> Gid {
        self.to
    }

    /// The port that its packets leave from.
    pub(crate) fn source_port(&self) -> u16 {
        self.source_port
    }

    /// The traffic class, ECN bits included.
    pub(crate) fn traffic_class(&self) -> u8 {
        self.traffic_class
    }

    /// The hop limit.
    pub(crate) fn hop_limit(&self) -> u8 {
        self.hop_limit
    }

    /// The packet at a position; empty if there is none.
    pub(crate) fn packet(&self, index: usize) -> &[u8] {
        self.packets(index..index + 1).get(self.rules.lead..).unwrap_or_default()
    }

    /// What is left free in front of the packet at a position. `None` if there is no packet, or if that is not what the rules say.
    pub(super) fn lead_of<const N: usize>(&mut self, index: usize) -> Option<&mut [u8; N]> {
        let start = index.checked_sub(1).map_or(Some(0), |before| self.ends.get(before).copied())?;
        let end = *self.ends.get(index)?;
        let lead = self.bytes.get_mut(start..end)?.get_mut(..self.rules.lead)?;
        lead.try_into().ok()
    }

    /// The packets of a range, one behind the other, each with what is left free in front of it; empty if there are not so many.
    pub(super) fn packets(&self, range: Range<usize>) -> &[u8] {
        let end_of = |count: usize| count.checked_sub(1).map_or(Some(0), |last| self.ends.get(last).copied());
        let bytes =
            end_of(range.start).zip(end_of(range.end)).and_then(|(start, end)| self.bytes.get(start..end));
        bytes.unwrap_or_default()
    }

    /// Where the last packet ends.
    fn end(&self) -> usize {
        self.ends.last().copied().unwrap_or(0)
    }
}
