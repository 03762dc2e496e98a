//! When what arrives, on a link with a rate and a latency.
//!
//! It is the link that `udp` devices have under [`FaultPlan`](tbrdma_proto::fault::FaultPlan)s with `rate` and `delay`, by the same code: what one
//! context sends leaves byte after byte, all its queue pairs share the rate, and each byte is on the way for the latency. Answers
//! come back on the link's other direction, which is as fast. Sizes are those of the packets, from transport header to iCRC.

use super::packets::Packets;
use std::sync::{Mutex, PoisonError};
use tbrdma_proto::Time;
use tbrdma_proto::fault::{Fate, Faults, LinkModel};

/// A link.
pub(super) struct Model {
    pub(super) link: LinkModel,
    ways: Mutex<Ways>,
}

/// Its two directions.
struct Ways {
    there: Faults,
    back: Faults,
}

/// The times of one message.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Trip {
    /// Its last byte has left, and another of its queue pair may begin.
    pub(super) leaves: Time,
    /// It is there and takes effect; what fetches something has come back with it.
    pub(super) ends: Time,
}

impl Model {
    pub(super) fn new(link: LinkModel) -> Self {
        let way = || Faults::new(link.plan(), 0);
        Self { link, ways: Mutex::new(Ways { there: way(), back: way() }) }
    }

    /// Sends a message that was ready at `ready`.
    pub(super) fn send(&self, ready: Time, packets: &Packets) -> Trip {
        let mut ways = self.ways.lock().unwrap_or_else(PoisonError::into_inner);
        let there = arrival(&mut ways.there, ready, packets.request_bytes());
        let leaves = Time(there.0.saturating_sub(self.link.latency.as_nanos() as u64));
        let ends =
            if packets.fetches() { arrival(&mut ways.back, there, packets.answer_bytes()) } else { there };
        Trip { leaves, ends }
    }

    /// When an answer that leaves the peer at `now` is back.
    pub(super) fn answer(&self, now: Time, packets: &Packets) -> Time {
        let mut ways = self.ways.lock().unwrap_or_else(PoisonError::into_inner);
        arrival(&mut ways.back, now, packets.answer_bytes())
    }
}

/// When the last of so many bytes has arrived.
fn arrival(way: &mut Faults, ready: Time, bytes: u64) -> Time {
    match way.apply(ready, usize::try_from(bytes).unwrap_or(usize::MAX)) {
        Fate::Delivered { first, .. } => first.at,
        // A plan without faults loses nothing.
        Fate::Dropped(_) => ready,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tbrdma_proto::{Opcode, QpType};

    /// A model, and the messages of 1000 bytes of payload each at a path MTU of 4096.
    fn model(text: &str) -> (Model, Packets, Packets) {
        let packets = |opcode| Packets::new(QpType::Rc, opcode, 1000, 4096);
        (Model::new(text.parse().unwrap()), packets(Opcode::Send), packets(Opcode::RdmaRead))
    }

    #[test]
    fn a_message_takes_its_bytes_and_the_latency() {
        // A bit in a nanosecond; 12 + 1000 + 4 bytes.
        let (link, send, _) = model("1Gbps,5us");
        let trip = link.send(Time(100), &send);
        assert_eq!(trip, Trip { leaves: Time(100 + 8 * 1016), ends: Time(100 + 8 * 1016 + 5000) });
        // An acknowledgement has 12 + 4 + 4.
        assert_eq!(link.answer(Time(20_000), &send), Time(20_000 + 8 * 20 + 5000));
    }

    #[test]
    fn messages_follow_each_other() {
        let (link, send, _) = model("1Gbps,5us");
        let first = link.send(Time(100), &send);
        // Also one that was ready before, of another queue pair.
        let second = link.send(Time(0), &send);
        assert_eq!(second.leaves.since(first.leaves).as_nanos(), 8 * 1016);
        assert_eq!(second.ends.since(first.ends).as_nanos(), 8 * 1016);
        let (late, _, _) = model("5us");
        assert_eq!(late.send(Time(7), &send), Trip { leaves: Time(7), ends: Time(5007) });
        assert_eq!(late.send(Time(8), &send), Trip { leaves: Time(8), ends: Time(5008) });
    }

    #[test]
    fn what_is_fetched_goes_there_and_comes_back() {
        let (link, send, read) = model("1Gbps,5us");
        let trip = link.send(Time(0), &read);
        // A request of 12 + 16 + 4 bytes, an answer of 12 + 4 + 1000 + 4.
        assert_eq!(trip.leaves, Time(8 * 32));
        assert_eq!(trip.ends, Time(8 * 32 + 5000 + 8 * 1020 + 5000));
        // The directions do not share the rate.
        assert_eq!(link.send(Time(0), &send).leaves, Time(8 * (32 + 1016)));
    }
}
