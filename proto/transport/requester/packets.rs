//! The packets of work requests.

use super::{Requester, is_reliable};
use crate::flags::SendFlags;
use crate::qp::QpType;
use crate::transport::congestion::Congestion;
use crate::transport::shared::Shared;
use crate::transport::{Payload, To, Transmit};
use crate::wire::{AtomicEth, Deth, Headers, PacketOpcode, Reth};
use crate::work::Opcode;

/// With this bit in a datagram's Q_Key, the sender's own is used (IBTA volume 1, section 10.2.5).
const OWN_QKEY: u32 = 1 << 31;

impl Requester {
    /// The packet with number `next`, of the work request at the cursor, and moves `next` behind what it asks for.
    #[inline]
    pub(super) fn build(&mut self, ctx: &Shared) -> Transmit {
        match self.queue.at(self.queue.cursor).opcode {
            Opcode::RdmaRead => self.read_request(ctx),
            Opcode::AtomicCmpAndSwp | Opcode::AtomicFetchAndAdd => self.atomic_request(ctx),
            _ => self.message_packet(ctx),
        }
    }

    /// Which bytes of its message the next packet is about.
    #[inline]
    pub(super) fn part(&self, number: u32, ctx: &Shared) -> (u32, u32) {
        let wqe = self.queue.at(number);
        // A message has at most 2^31 bytes, and no more packets than it needs.
        let offset = ((self.next - wqe.first) as u32).saturating_mul(ctx.mtu);
        (offset, wqe.length.saturating_sub(offset).min(ctx.mtu))
    }

    /// A packet of a SEND or WRITE.
    #[inline]
    fn message_packet(&mut self, ctx: &Shared) -> Transmit {
        let number = self.queue.cursor;
        let (offset, len) = self.part(number, ctx);
        let wqe = self.queue.at(number);
        let (first, last) = (self.next == wqe.first, self.next + 1 == wqe.end());
        let apart = wqe.is_apart(ctx);
        let opcode = PacketOpcode::of_message(ctx.qp_type, wqe.opcode, first || apart, last || apart);
        let mut headers = Headers::new(ctx.bth(opcode, Self::psn(ctx, self.next)));
        headers.bth.pad = (len.wrapping_neg() & 3) as u8;
        headers.bth.solicited = last && wqe.flags.contains(SendFlags::SOLICITED);
        if opcode.has_reth() {
            // The length of all that is still to come: so that the responder refuses a WRITE before its first byte, not in the middle.
            let ahead = if apart { offset } else { 0 };
            let addr = wqe.remote.addr.wrapping_add(ahead.into());
            headers.reth = Some(Reth { addr, rkey: wqe.remote.rkey, length: wqe.length - ahead });
        }
        if opcode.has_imm() {
            headers.imm = Some(wqe.imm_data);
        }
        if opcode.has_ieth() {
            headers.ieth = Some(wqe.imm_data);
        }
        let mut to = To::Peer;
        if ctx.qp_type == QpType::Ud {
            headers.bth.dest_qpn = wqe.ud.qpn;
            let qkey = if wqe.ud.qkey & OWN_QKEY != 0 { ctx.attr.qkey } else { wqe.ud.qkey };
            headers.deth = Some(Deth { qkey, src_qpn: ctx.qpn });
            to = To::Handle(wqe.ud.ah);
        }
        // Nobody waits for the end of an unsignaled request: the responder says when it suits it.
        let awaited = last && wqe.flags.contains(SendFlags::SIGNALED);
        headers.bth.ack_req = is_reliable(ctx) && (awaited || self.wants_ack());
        self.next += 1;
        let payload =
            if len == 0 { Payload::Empty } else { Payload::Message { wq_index: number, offset, len } };
        Transmit { headers, payload, to }
    }

    /// Whether an acknowledgement in the middle of a message is needed: a quarter of the window went without, or
    /// nothing more may be sent before one comes, or it is found out what of the packets after this one the peer has.
    #[inline]
    fn wants_ack(&self) -> bool {
        let window = self.congestion.window();
        self.unasked + 1 >= window / 4
            || self.in_flight() + 1 >= window
            || (self.next == self.unacked && self.next < self.sent)
    }

    /// A request for the next part of a READ: up to the end of the part that one request asks for, whatever the
    /// window, also if the beginning of its answer has come already. So every request for a part ends with it: if the
    /// first is lost the second stands for it, and a responder that knows the first finds all of the second in it.
    fn read_request(&mut self, ctx: &Shared) -> Transmit {
        let wqe = self.queue.at(self.queue.cursor);
        let index = (self.next - wqe.first) as u32;
        let end = (index / self.read_chunk + 1).saturating_mul(self.read_chunk).min(wqe.packets);
        let offset = index.saturating_mul(ctx.mtu);
        let length = end.saturating_mul(ctx.mtu).min(wqe.length).saturating_sub(offset);
        let mut headers = Headers::new(ctx.bth(PacketOpcode::RcReadRequest, Self::psn(ctx, self.next)));
        headers.bth.ack_req = true;
        headers.bth.solicited = end == wqe.packets && wqe.flags.contains(SendFlags::SOLICITED);
        headers.reth = Some(Reth {
            addr: wqe.remote.addr.wrapping_add(u64::from(offset)),
            rkey: wqe.remote.rkey,
            length,
        });
        self.next += u64::from(end - index);
        self.answers_due.push_back(self.next);
        Transmit { headers, payload: Payload::Empty, to: To::Peer }
    }

    fn atomic_request(&mut self, ctx: &Shared) -> Transmit {
        let wqe = self.queue.at(self.queue.cursor);
        let (opcode, swap_add, compare) = match wqe.opcode {
            Opcode::AtomicCmpAndSwp => (PacketOpcode::RcCompareSwap, wqe.swap, wqe.compare_add),
            _ => (PacketOpcode::RcFetchAdd, wqe.compare_add, 0),
        };
        let mut headers = Headers::new(ctx.bth(opcode, Self::psn(ctx, self.next)));
        headers.bth.ack_req = true;
        headers.atomic_eth =
            Some(AtomicEth { addr: wqe.remote.addr, rkey: wqe.remote.rkey, swap_add, compare });
        self.next += 1;
        self.answers_due.push_back(self.next);
        Transmit { headers, payload: Payload::Empty, to: To::Peer }
    }
}
