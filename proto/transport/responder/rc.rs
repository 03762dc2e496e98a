//! Requests on a reliable connection (IBTA volume 1, section 9.7.4 and 9.7.5).

use std::collections::VecDeque;

use super::{Kind, Refusal, Responder, UNASKED};
use crate::flags::Access;
use crate::ident::Psn;
use crate::limits::ATOMIC_BYTES;
use crate::planted::{self, Bug};
use crate::time::Time;
use crate::transport::shared::{Fatal, Shared};
use crate::transport::{Action, AtomicOp, Host, Incoming};
use crate::wire::{AtomicEth, Headers, NakCode, Operation, PacketOpcode, Reth, Syndrome};
use crate::work::{WcStatus, WorkCompletion};

/// PSNs before the expected one that are repeated requests; the others are of the future.
const PSN_WINDOW: u32 = 1 << 23;

impl Responder {
    /// Takes in a request of the reliable service.
    pub(super) fn handle_reliable(
        &mut self,
        now: Time,
        incoming: &Incoming<'_>,
        ctx: &Shared,
        host: &mut impl Host,
        actions: &mut VecDeque<Action>,
    ) -> Result<(), Fatal> {
        let headers = &incoming.packet.headers;
        let psn = headers.bth.psn;
        let mut distance = psn.distance_from(self.expected);
        if planted::is(Bug::PlainPsn) {
            distance = psn.get().cast_signed() - self.expected.get().cast_signed();
        }
        if distance < 0 {
            if planted::is(Bug::SendTwice) && headers.bth.opcode == PacketOpcode::RcSendOnly {
                _ = self.send_packet(incoming, ctx, host, actions);
            }
            self.handle_repeated(headers, distance.unsigned_abs(), ctx, actions);
            return Ok(());
        }
        if distance > 0 {
            self.counters.out_of_seq_request += 1;
            if !self.told {
                self.told = true;
                self.counters.send_seq_err += 1;
                self.answers.refuse(self.expected, self.msn, Syndrome::Nak(NakCode::PsnSequenceError));
            }
            return Ok(());
        }
        self.told = false;
        self.answers.withdraw_refusal();
        match self.carry_out(incoming, ctx, host, actions) {
            Ok(packets) => {
                self.expected = psn.add(packets);
                self.behind = self.behind.saturating_add(packets).min(PSN_WINDOW);
                self.answers.prune(self.expected);
                if headers.bth.opcode.is_last() && !headers.bth.ack_req {
                    self.owed.get_or_insert(now + UNASKED);
                }
                Ok(())
            }
            Err(Refusal::NoReceive) => {
                self.told = true;
                self.counters.send_rnr_err += 1;
                self.answers.refuse(psn, self.msn, Syndrome::RnrNak { timer: ctx.attr.min_rnr_timer });
                Ok(())
            }
            Err(refusal) => {
                let failed = match refusal {
                    Refusal::TooLong => Some(WcStatus::LocLenErr),
                    Refusal::Protection => Some(WcStatus::LocProtErr),
                    Refusal::NoReceive | Refusal::Invalid | Refusal::Access => None,
                };
                if let Some(status) = failed {
                    self.complete(ctx, actions, status, true, WorkCompletion::default());
                }
                Err(self.refuse(psn, refusal))
            }
        }
    }

    /// Carries out the request that is expected, and answers how many PSNs it takes.
    fn carry_out(
        &mut self,
        incoming: &Incoming<'_>,
        ctx: &Shared,
        host: &mut impl Host,
        actions: &mut VecDeque<Action>,
    ) -> Result<u32, Refusal> {
        let headers = &incoming.packet.headers;
        let opcode = headers.bth.opcode;
        if !self.message.fits(headers) {
            return Err(Refusal::Invalid);
        }
        match opcode.operation() {
            Operation::Send => self.send_packet(incoming, ctx, host, actions)?,
            Operation::Write => self.write_packet(incoming, ctx, host, actions)?,
            Operation::ReadRequest => {
                let reth = headers.reth.ok_or(Refusal::Invalid)?;
                return self.read_request(incoming, reth, ctx, host);
            }
            Operation::CompareSwap | Operation::FetchAdd => {
                let request = headers.atomic_eth.ok_or(Refusal::Invalid)?;
                return self.atomic_request(incoming, request, ctx, host, actions).map(|()| 1);
            }
            Operation::ReadResponse
            | Operation::Acknowledge
            | Operation::AtomicAcknowledge
            | Operation::Congestion
            | Operation::CreditRequest
            | Operation::Credit => return Err(Refusal::Invalid),
        }
        if opcode.is_last() {
            self.count_message();
        }
        if self.answers.done(headers.bth.psn, self.msn, headers.bth.ack_req) {
            self.counters.ack_deferred += 1;
        }
        Ok(1)
    }

    fn read_request(
        &mut self,
        incoming: &Incoming<'_>,
        reth: Reth,
        ctx: &Shared,
        host: &impl Host,
    ) -> Result<u32, Refusal> {
        let Reth { addr, rkey, length } = reth;
        if !ctx.attr.qp_access_flags.contains(Access::REMOTE_READ)
            || !incoming.packet.payload.is_empty()
            || u64::from(length) > ctx.max_msg_size
            || !self.answers.make_room(ctx.attr.max_dest_rd_atomic)
        {
            return Err(Refusal::Invalid);
        }
        // Without bytes no key is looked at (IBTA volume 1, C9-88).
        if length > 0 {
            let needed = Access::REMOTE_READ;
            host.check_remote(ctx.pd, rkey, needed, addr, u64::from(length)).map_err(|_| Refusal::Access)?;
        }
        let packets = length.div_ceil(ctx.mtu.max(1)).max(1);
        self.count_message();
        self.answers.read(incoming.packet.headers.bth.psn, packets, self.msn, reth);
        Ok(packets)
    }

    fn atomic_request(
        &mut self,
        incoming: &Incoming<'_>,
        request: AtomicEth,
        ctx: &Shared,
        host: &impl Host,
        actions: &mut VecDeque<Action>,
    ) -> Result<(), Refusal> {
        let AtomicEth { addr, rkey, .. } = request;
        let bth = &incoming.packet.headers.bth;
        if !ctx.attr.qp_access_flags.contains(Access::REMOTE_ATOMIC)
            || !incoming.packet.payload.is_empty()
            || !addr.is_multiple_of(u64::from(ATOMIC_BYTES))
            || !self.answers.make_room(ctx.attr.max_dest_rd_atomic)
        {
            return Err(Refusal::Invalid);
        }
        let len = u64::from(ATOMIC_BYTES);
        host.check_remote(ctx.pd, rkey, Access::REMOTE_ATOMIC, addr, len).map_err(|_| Refusal::Access)?;
        actions.push_back(atomic_action(bth.opcode, &request));
        self.count_message();
        self.answers.atomic(bth.psn, self.msn, bth.opcode, request);
        Ok(())
    }

    /// A request that lies `back` PSNs before the expected one: it was carried out already, and only its answer is given again (IBTA
    /// volume 1, section 9.7.5.1.4 and C9-105 to C9-110). What cannot be a repetition is dropped.
    fn handle_repeated(
        &mut self,
        headers: &Headers,
        back: u32,
        ctx: &Shared,
        actions: &mut VecDeque<Action>,
    ) {
        if back > self.behind {
            // From before this connection: to acknowledge it would be to say that it was carried out.
            self.counters.dropped_pkts += 1;
            return;
        }
        self.counters.duplicate_request += 1;
        let psn = headers.bth.psn;
        let resource = self.answers.find(psn).copied();
        match (headers.bth.opcode.operation(), resource.map(|resource| resource.kind)) {
            (Operation::Send | Operation::Write, None) => {
                self.answers.done_already(psn, self.expected, self.msn);
            }
            (Operation::ReadRequest, Some(Kind::Read(whole))) => {
                if let (Some(resource), Some(part)) = (resource, headers.reth)
                    && !planted::is(Bug::LostReadReplay)
                    && is_part(&part, &whole, resource.first, psn, ctx.mtu)
                {
                    self.answers.read_again(&resource, psn, &part, self.expected);
                }
            }
            (Operation::CompareSwap | Operation::FetchAdd, Some(Kind::Atomic { opcode, request, .. })) => {
                if let Some(resource) = resource
                    && opcode == headers.bth.opcode
                    && headers.atomic_eth == Some(request)
                {
                    if planted::is(Bug::AtomicTwice) {
                        actions.push_back(atomic_action(opcode, &request));
                    }
                    self.answers.atomic_again(&resource, self.expected);
                }
            }
            _ => {}
        }
    }
}

/// What the owner does for an atomic.
const fn atomic_action(opcode: PacketOpcode, request: &AtomicEth) -> Action {
    let &AtomicEth { addr, rkey: key, swap_add, compare } = request;
    let op = match opcode {
        PacketOpcode::RcCompareSwap => AtomicOp::CompareSwap { compare, swap: swap_add },
        _ => AtomicOp::FetchAdd { add: swap_add },
    };
    Action::Atomic { key, addr, op }
}

/// Whether `part`, asked for at `psn`, is the `whole` READ that began at `first`, or what follows some of its packets.
fn is_part(part: &Reth, whole: &Reth, first: Psn, psn: Psn, mtu: u32) -> bool {
    let skipped = u64::from(psn.distance_from(first).unsigned_abs()) * u64::from(mtu);
    let Some(left) = u64::from(whole.length).checked_sub(skipped) else { return false };
    part.rkey == whole.rkey
        && part.addr == whole.addr.wrapping_add(skipped)
        && u64::from(part.length) <= left
        && (part.length > 0 || whole.length == 0)
}
