//! A work request as the packets that an adapter makes of it: which, how long, how many.

use std::ops::Range;
use tbrdma_proto::wire::PacketOpcode;
use tbrdma_proto::wire::icrc::ICRC_BYTES;
use tbrdma_proto::{Opcode, QpType};

/// The packets of one work request.
#[derive(Clone, Copy, Debug)]
pub(super) struct Packets {
    qp_type: QpType,
    opcode: Opcode,
    length: u64,
    mtu: u64,
}

impl Packets {
    /// Those of a message of `length` bytes on a path of this MTU.
    pub(super) fn new(qp_type: QpType, opcode: Opcode, length: u64, mtu: u32) -> Self {
        Self { qp_type, opcode, length, mtu: u64::from(mtu.max(1)) }
    }

    /// Does nothing of it leave? So it is with what only concerns keys of our own.
    pub(super) fn is_local(&self) -> bool {
        matches!(self.opcode, Opcode::LocalInv | Opcode::BindMw)
    }

    /// Does its answer bring what it asked for?
    pub(super) fn fetches(&self) -> bool {
        self.opcode == Opcode::RdmaRead || self.opcode.is_atomic()
    }

    /// How many its payload is in, which is how many sequence numbers it takes: those of a READ are its answer's.
    pub(super) fn count(&self) -> u32 {
        if self.opcode.is_atomic() {
            return 1;
        }
        u32::try_from(self.length.div_ceil(self.mtu)).unwrap_or(u32::MAX).max(1)
    }

    /// The part of the payload in one of them.
    pub(super) fn part(&self, index: u32) -> Range<usize> {
        let at = |index: u32| (u64::from(index) * self.mtu).min(self.length) as usize;
        at(index)..at(index.saturating_add(1))
    }

    /// The opcode of one of the request's.
    pub(super) fn request(&self, index: u32) -> PacketOpcode {
        match self.opcode {
            Opcode::RdmaRead => PacketOpcode::RcReadRequest,
            Opcode::AtomicCmpAndSwp => PacketOpcode::RcCompareSwap,
            Opcode::AtomicFetchAndAdd => PacketOpcode::RcFetchAdd,
            opcode => PacketOpcode::of_message(
                self.qp_type,
                opcode,
                index == 0,
                index.saturating_add(1) == self.count(),
            ),
        }
    }

    /// The opcode of one of the answer's.
    pub(super) fn answer(&self, index: u32) -> PacketOpcode {
        match self.opcode {
            Opcode::RdmaRead => {
                PacketOpcode::of_read_response(index == 0, index.saturating_add(1) == self.count())
            }
            opcode if opcode.is_atomic() => PacketOpcode::RcAtomicAcknowledge,
            _ => PacketOpcode::RcAcknowledge,
        }
    }

    /// Bytes of the whole request, from its first transport header to its last iCRC.
    pub(super) fn request_bytes(&self) -> u64 {
        if self.is_local() {
            0
        } else if self.fetches() {
            bytes(1, 0, |index| self.request(index))
        } else {
            bytes(self.count(), self.length, |index| self.request(index))
        }
    }

    /// Bytes of the whole answer.
    pub(super) fn answer_bytes(&self) -> u64 {
        match self.opcode {
            Opcode::RdmaRead => bytes(self.count(), self.length, |index| self.answer(index)),
            _ => bytes(1, 0, |index| self.answer(index)),
        }
    }
}

/// Bytes of so many packets with so much payload; those in the middle are alike.
fn bytes(count: u32, payload: u64, opcode: impl Fn(u32) -> PacketOpcode) -> u64 {
    let headers = |index| opcode(index).header_bytes() as u64;
    let last = count.saturating_sub(1);
    let outer = if last == 0 { headers(0) } else { headers(0) + headers(last) };
    let inner = if last > 1 { headers(1) * u64::from(last - 1) } else { 0 };
    outer + inner + payload.next_multiple_of(4) + u64::from(count) * ICRC_BYTES as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packets_are_cut_at_the_path_mtu() {
        let write = Packets::new(QpType::Rc, Opcode::RdmaWriteWithImm, 2050, 1024);
        assert_eq!(write.count(), 3);
        let parts: Vec<_> = (0..3).map(|index| (write.request(index), write.part(index))).collect();
        assert_eq!(
            parts,
            [
                (PacketOpcode::RcWriteFirst, 0..1024),
                (PacketOpcode::RcWriteMiddle, 1024..2048),
                (PacketOpcode::RcWriteLastWithImm, 2048..2050),
            ]
        );
        // Three base headers and iCRCs, one RDMA header, the immediate data, and two bytes of padding.
        assert_eq!(write.request_bytes(), 3 * 16 + 16 + 4 + 2052);
        assert_eq!(write.answer_bytes(), 20);
    }

    #[test]
    fn nothing_is_a_packet_too() {
        let empty = Packets::new(QpType::Uc, Opcode::Send, 0, 4096);
        assert_eq!((empty.count(), empty.request(0), empty.part(0)), (1, PacketOpcode::UcSendOnly, 0..0));
        assert_eq!(empty.request_bytes(), 16);
        let read = Packets::new(QpType::Rc, Opcode::RdmaRead, 0, 4096);
        assert_eq!((read.count(), read.answer(0)), (1, PacketOpcode::RcReadResponseOnly));
        let local = Packets::new(QpType::Rc, Opcode::LocalInv, 0, 4096);
        assert_eq!(local.request_bytes(), 0);
    }

    #[test]
    fn a_read_is_one_request_and_many_answers() {
        let read = Packets::new(QpType::Rc, Opcode::RdmaRead, 5000, 4096);
        assert_eq!((read.count(), read.request_bytes()), (2, 32));
        assert_eq!(read.answer(0), PacketOpcode::RcReadResponseFirst);
        assert_eq!(read.answer(1), PacketOpcode::RcReadResponseLast);
        assert_eq!(read.answer_bytes(), 2 * 20 + 5000);
        let atomic = Packets::new(QpType::Rc, Opcode::AtomicFetchAndAdd, 8, 256);
        assert_eq!((atomic.count(), atomic.answer_bytes()), (1, 12 + 4 + 8 + 4));
    }
}
