//! Sending: what may go now, and what it changes.

use super::{Requester, is_reliable, sends_in, sent_slot};
use crate::flags::{Access, SendFlags};
use crate::planted::{self, Bug};
use crate::qp::QpState;
use crate::time::Time;
use crate::transport::congestion::Congestion;
use crate::transport::shared::Shared;
use crate::transport::{Host, Transmit};
use crate::work::{MwBind, Opcode, WcStatus};

impl Requester {
    /// Whether [`poll_transmit`](Self::poll_transmit) would find something to do.
    #[inline]
    pub(in crate::transport) fn is_ready(&self, ctx: &Shared) -> bool {
        let cursor = self.queue.cursor;
        if cursor == self.queue.posted || !sends_in(ctx.state) {
            return false;
        }
        let fresh = cursor == self.queue.begun;
        if fresh && ctx.state != QpState::Rts {
            return false;
        }
        let wqe = self.queue.at(cursor);
        if !fresh && wqe.status != WcStatus::Success {
            // It fails when all before it are finished.
            return false;
        }
        if is_reliable(ctx) { self.may_send(ctx, fresh) } else { !self.is_held(ctx) }
    }

    /// The rules of a reliable connection: window, receiver not ready, answers on their way, fence, credits.
    #[inline]
    fn may_send(&self, ctx: &Shared, fresh: bool) -> bool {
        let wqe = self.queue.at(self.queue.cursor);
        let in_flight = self.in_flight();
        if self.timers.rnr.is_some() || in_flight >= self.congestion.window() {
            return false;
        }
        let begins = fresh || self.next == wqe.first;
        let fenced = wqe.flags.contains(SendFlags::FENCE) && !planted::is(Bug::FenceIgnored);
        if begins && fenced && !self.answers_due.is_empty() {
            return false;
        }
        let too_many = usize::from(planted::is(Bug::OneReadTooMany));
        let depth = usize::from(ctx.attr.max_rd_atomic) + too_many;
        if wqe.is_answered() && depth > 0 && self.answers_due.len() >= depth {
            return false;
        }
        if begins && wqe.opcode.consumes_receive() {
            let ssn = if fresh { self.ssn.wrapping_add(1) } else { wqe.ssn };
            // Without credit one message goes alone, to find out.
            return in_flight == 0 || self.credits.allow(ssn);
        }
        true
    }

    /// The next packet. Work requests that need none are carried out on the way, and those that cannot be sent fail.
    #[inline]
    pub(in crate::transport) fn poll_transmit(
        &mut self,
        now: Time,
        ctx: &Shared,
        host: &mut impl Host,
    ) -> Option<Transmit> {
        // Asked after every packet that comes and goes, most often in vain.
        let is_idle = self.queue.cursor == self.queue.posted && !self.owes_probe;
        if is_idle { None } else { self.next_transmit(now, ctx, host) }
    }

    fn next_transmit(&mut self, now: Time, ctx: &Shared, host: &mut impl Host) -> Option<Transmit> {
        while self.is_ready(ctx) {
            let number = self.queue.cursor;
            if number == self.queue.begun {
                self.begin(ctx, host);
                if self.queue.at(number).packets == 0 {
                    // Nothing to send: carried out, or failed.
                    self.advance_head();
                    continue;
                }
            } else if self.queue.at(number).packets == 0 {
                self.queue.cursor = number.wrapping_add(1);
                continue;
            } else if !self.may_access(ctx, host) {
                self.queue.at_mut(number).status = WcStatus::LocProtErr;
                self.counters.send_err += 1;
                self.advance_head();
                continue;
            }
            return Some(self.packet(now, ctx));
        }
        if self.owes_probe { self.probe(now, ctx, host) } else { self.ask(now, ctx) }
    }

    /// The last request once more. Who has carried it out, and all before it, acknowledges it again; who lacks something says what.
    ///
    /// The oldest one would not do: its acknowledgement may be that of its first copy, and says nothing of what was sent after it.
    #[cold]
    fn probe(&mut self, now: Time, ctx: &Shared, host: &mut impl Host) -> Option<Transmit> {
        self.owes_probe = false;
        if self.unacked == self.sent {
            return None;
        }
        let mut number = self.queue.begun;
        while number != self.queue.head {
            number = number.wrapping_sub(1);
            if self.queue.at(number).packets > 0 {
                break;
            }
        }
        let wqe = self.queue.at(number);
        let last = self.sent - 1;
        let first = match wqe.opcode {
            Opcode::RdmaRead => {
                let index = last - wqe.first;
                last - index % u64::from(self.read_chunk)
            }
            _ => last,
        };
        let (cursor, next) = (self.queue.cursor, self.next);
        (self.queue.cursor, self.next) = (number, first.max(self.unacked));
        if !self.may_access(ctx, host) {
            // It will be found out in its turn.
            self.go_back();
            return self.next_transmit(now, ctx, host);
        }
        let answers = self.answers_due.len();
        let mut transmit = self.build(ctx);
        self.answers_due.truncate(answers);
        (self.queue.cursor, self.next) = (cursor, next);
        transmit.headers.bth.ack_req = true;
        self.counters.sent_pkts += 1;
        self.counters.retransmitted_pkts += 1;
        self.asked = self.sent;
        self.sample = None;
        Some(transmit)
    }

    /// Begins the next work request: numbers its packets, and checks what can be checked. One that needs no packets,
    /// or cannot be sent, takes no numbers.
    fn begin(&mut self, ctx: &Shared, host: &mut impl Host) {
        let number = self.queue.begun;
        self.queue.begun = number.wrapping_add(1);
        let status = self.check(number, ctx, host);
        let first = self.sent;
        let chunk = self.read_chunk;
        let wqe = self.queue.at_mut(number);
        wqe.first = first;
        wqe.status = status;
        let local = matches!(wqe.opcode, Opcode::LocalInv | Opcode::BindMw);
        if status != WcStatus::Success || local || ctx.habits.loses(wqe.opcode, wqe.length.into()) {
            wqe.packets = 0;
            if status != WcStatus::Success {
                self.counters.send_err += 1;
            } else {
                self.queue.cursor = self.queue.begun;
            }
            return;
        }
        wqe.packets = if wqe.opcode.is_atomic() { 1 } else { wqe.length.div_ceil(ctx.mtu.max(1)).max(1) };
        let requests = match wqe.opcode {
            Opcode::RdmaRead => wqe.packets.div_ceil(chunk),
            _ if wqe.is_apart(ctx) => wqe.packets,
            _ => 1,
        };
        if wqe.opcode.consumes_receive() {
            self.allowance.spend();
        }
        self.ssn = self.ssn.wrapping_add(requests);
        wqe.ssn = self.ssn;
    }

    /// Whether a work request can be sent; a local one is carried out.
    fn check(&self, number: u32, ctx: &Shared, host: &mut impl Host) -> WcStatus {
        let wqe = self.queue.at(number);
        if wqe.status != WcStatus::Success {
            return wqe.status;
        }
        match wqe.opcode {
            Opcode::LocalInv => {
                return match host.invalidate(ctx.pd, wqe.imm_data) {
                    Ok(()) => WcStatus::Success,
                    Err(_) => WcStatus::LocQpOpErr,
                };
            }
            Opcode::BindMw => {
                let bind = MwBind::of(&wqe.remote, wqe.imm_data, wqe.compare_add, wqe.swap);
                return host.bind(ctx.pd, &bind).map_or_else(|error| error.status(), |()| WcStatus::Success);
            }
            _ => {}
        }
        if wqe.is_answered() && ctx.attr.max_rd_atomic == 0 {
            // It may have none outstanding, so this one could never be sent.
            return WcStatus::LocQpOpErr;
        }
        let needed = wqe.opcode.local_access_needed();
        for sge in self.queue.list(number) {
            if sge.length > 0 && host.check(ctx.pd, sge.lkey, needed, sge.addr, sge.length.into()).is_err() {
                return WcStatus::LocProtErr;
            }
        }
        WcStatus::Success
    }

    /// Whether the bytes of the next packet, which is not the first of its kind, may still be read.
    fn may_access(&self, ctx: &Shared, host: &impl Host) -> bool {
        let number = self.queue.cursor;
        let wqe = self.queue.at(number);
        if wqe.is_answered() {
            // Checked when the answer comes.
            return true;
        }
        let (offset, len) = self.part(number, ctx);
        self.queue
            .list_spans(number, offset, len)
            .all(|sge| host.check(ctx.pd, sge.lkey, Access::empty(), sge.addr, sge.length.into()).is_ok())
    }

    /// Makes the next packet, and counts it as sent.
    #[inline]
    fn packet(&mut self, now: Time, ctx: &Shared) -> Transmit {
        let (number, at) = (self.queue.cursor, self.next);
        let transmit = self.build(ctx);
        self.counters.sent_pkts += 1;
        if self.queue.at(number).end() == self.next {
            self.queue.cursor = number.wrapping_add(1);
        }
        if !is_reliable(ctx) {
            self.sent = self.next;
            self.unacked = self.next;
            self.advance_head();
            return transmit;
        }
        self.sent_at[sent_slot(at)] = now;
        let asked = transmit.headers.bth.ack_req;
        if at < self.sent {
            self.counters.retransmitted_pkts += 1;
            if self.waited == Some(at) {
                self.waited = None;
            }
        }
        if asked && self.sample.is_none() && at >= self.unmeasurable {
            self.sample = Some((at, now));
        }
        self.unasked = if asked { 0 } else { self.unasked + 1 };
        if asked {
            self.asked = self.asked.max(self.next);
            self.owes_probe = false;
        }
        self.sent = self.sent.max(self.next);
        self.start_silence(now, ctx);
        transmit
    }
}
