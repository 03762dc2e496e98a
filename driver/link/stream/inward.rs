//! Packets from the device to itself: an adapter hands them round without a wire, and so no stream sees them.

use crate::link::Train;

/// More than this waits for who is to take them.
const MOST_BYTES: usize = 1 << 20;

/// What is in front of each: length, traffic class, hop limit.
const LEAD: usize = 4;

/// Packets that have not been taken yet.
#[derive(Debug, Default)]
pub(super) struct Inward {
    bytes: Vec<u8>,
    count: usize,
}

impl Inward {
    /// Takes what is left of a train; false if there is no room for all of it.
    pub(super) fn put(&mut self, train: &mut Train) -> bool {
        while train.sent < train.len() {
            if self.bytes.len() >= MOST_BYTES {
                return false;
            }
            let packet = train.packet(train.sent);
            let [l0, l1] = (packet.len() as u16).to_be_bytes();
            self.bytes.extend_from_slice(&[l0, l1, train.traffic_class(), train.hop_limit()]);
            self.bytes.extend_from_slice(packet);
            self.count += 1;
            train.sent += 1;
        }
        true
    }

    /// Hands out all of them, with traffic class and hop limit; how many.
    pub(super) fn packets(&mut self, mut deliver: impl FnMut(&[u8], u8, u8)) -> usize {
        let mut rest = self.bytes.as_slice();
        while let Some((&[l0, l1, class, hops], behind)) = rest.split_first_chunk::<LEAD>() {
            let len = usize::from(u16::from_be_bytes([l0, l1]));
            let Some((packet, behind)) = behind.split_at_checked(len) else { break };
            deliver(packet, class, hops);
            rest = behind;
        }
        self.bytes.clear();
        std::mem::take(&mut self.count)
    }
}
