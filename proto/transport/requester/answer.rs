//! Answers: acknowledgements, data that was read, old values of atomics, refusals.
//!
//! An answer counts only if its number is one that is outstanding. One before is stale: a duplicate, or late. One
//! beyond what was ever sent is a ghost (IBTA volume 1, section 9.7.5.1.2). Both are ignored.

use super::timers::FOR_EVER;
use super::{Requester, is_reliable, sent_slot};
use crate::flags::Access;
use crate::planted::{self, Bug};
use crate::qp::rnr_timer;
use crate::time::Time;
use crate::transport::congestion::Congestion;
use crate::transport::recovery::Recovery;
use crate::transport::shared::Shared;
use crate::transport::{Action, Host, Incoming};
use crate::wire::{Aeth, NakCode, Operation, PacketOpcode, Syndrome};
use crate::work::{Opcode, WcStatus};
use core::time::Duration;
use std::collections::VecDeque;

/// What is done before an answer: the requests before it count as acknowledged, unless one of them still lacks its
/// own answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Before {
    Acknowledged,
    AnswerMissing,
}

impl Requester {
    /// Handles a packet that is no request.
    #[inline]
    pub(in crate::transport) fn handle_response(
        &mut self,
        now: Time,
        incoming: &Incoming<'_>,
        ctx: &Shared,
        host: &impl Host,
        actions: &mut VecDeque<Action>,
    ) {
        let headers = &incoming.packet.headers;
        if !is_reliable(ctx) {
            // Nothing else is said to an unreliable requester.
            self.handle_credit(now, headers);
            return;
        }
        let mut distance = headers.bth.psn.distance_from(Self::psn(ctx, self.unacked));
        let outstanding = (self.sent - self.unacked) as u32;
        if planted::is(Bug::GhostAck) && distance.unsigned_abs() >= outstanding && outstanding > 0 {
            distance = outstanding as i32 - 1;
        }
        if distance < 0 {
            self.handle_stale(distance, headers.aeth);
            return;
        }
        if distance.unsigned_abs() >= outstanding {
            return;
        }
        let number = self.unacked + u64::from(distance.unsigned_abs());
        match headers.bth.opcode.operation() {
            Operation::Acknowledge => {
                let Some(aeth) = headers.aeth else { return };
                match aeth.syndrome {
                    Syndrome::Ack { credits } => self.handle_ack(now, number, aeth.msn, credits, ctx),
                    Syndrome::RnrNak { timer } => self.handle_rnr(now, number, timer, ctx),
                    Syndrome::Nak(code) => self.handle_nak(now, number, code, ctx),
                }
            }
            Operation::ReadResponse => self.handle_read(now, number, incoming, ctx, host, actions),
            Operation::AtomicAcknowledge => self.handle_atomic(now, number, incoming, ctx, host, actions),
            _ => {}
        }
    }

    /// An acknowledgement of what has been acknowledged. The last one may come again to grant credits. One that
    /// follows a try after a silence shows that both the first packet and its repetition arrived.
    #[cold]
    fn handle_stale(&mut self, distance: i32, aeth: Option<Aeth>) {
        let Some(Aeth { syndrome: Syndrome::Ack { credits }, msn }) = aeth else { return };
        if distance == -1 {
            self.credits.grant(msn, credits);
        }
        if core::mem::take(&mut self.tried) {
            self.recovery.on_needless();
        }
    }

    fn handle_ack(&mut self, now: Time, number: u64, msn: u32, credits: u8, ctx: &Shared) {
        self.credits.grant(msn, credits);
        if self.acknowledge(now, number + 1, ctx) == Before::AnswerMissing {
            self.handle_gap(now, number);
        }
    }

    /// Everything before number `end` is acknowledged, except requests whose answer has not come.
    #[inline]
    fn acknowledge(&mut self, now: Time, end: u64, ctx: &Shared) -> Before {
        let before = self.unacked;
        let mut outcome = Before::Acknowledged;
        // Work requests that are finished by this are left behind one by one, each once.
        while self.unacked < end && self.queue.head != self.queue.begun {
            let wqe = self.queue.at(self.queue.head);
            if wqe.is_answered() && wqe.packets > 0 && !planted::is(Bug::AckOvertakesRead) {
                outcome = Before::AnswerMissing;
                break;
            }
            self.unacked = end.min(wqe.end()).max(self.unacked);
            if self.unacked < wqe.end() {
                break;
            }
            self.advance_head();
            if self.failed {
                break;
            }
        }
        if self.unacked > before {
            self.progress(now, (self.unacked - before) as u32, ctx);
        }
        outcome
    }

    /// The oldest unacknowledged packet has become another.
    #[inline]
    fn progress(&mut self, now: Time, packets: u32, ctx: &Shared) {
        let round_trip = match self.sample {
            Some((number, since)) if number < self.unacked => {
                self.sample = None;
                Some(now.since(since))
            }
            _ => None,
        };
        self.congestion.on_ack(packets, round_trip);
        if let Some((cursor, next)) = self.presumed_lost.take() {
            if self.next >= self.unacked {
                // It was lost indeed; what has not been sent again yet can be measured again.
                self.unmeasurable = self.next;
                self.tried = true;
            } else {
                self.recovery.on_needless();
                // More is acknowledged than was sent again: what was first sent has arrived, so sending goes on from
                // where it was.
                self.congestion.on_spurious_timeout();
                if next > self.unacked {
                    self.queue.cursor = cursor;
                    self.next = next;
                }
            }
        }
        self.recovery.on_progress();
        self.recovery.on_round_trip(round_trip);
        if self.next < self.unacked {
            // It was only thought lost. The cursor has moved with the head.
            self.next = self.unacked;
        }
        self.timers.retries_left = ctx.attr.retry_cnt;
        self.timers.rnr_retries_left = ctx.attr.rnr_retry;
        self.timers.rnr = None;
        self.astray = None;
        self.waited = None;
        self.restart_silence(now, ctx);
    }

    /// Answer `number` came, but one before it is missing. Of the first answers that are still on their way, each has
    /// a higher number than the one before; one that has not is of the repetition, which then has lost its beginning
    /// as well.
    #[cold]
    fn handle_gap(&mut self, now: Time, number: u64) {
        let is_echo = self.astray.is_some_and(|highest| number > highest);
        self.astray = Some(number);
        if !is_echo {
            self.handle_loss(now, None);
        }
    }

    /// The oldest unacknowledged packet, or its answer, was lost; this was noticed `after` it was sent.
    #[cold]
    fn handle_loss(&mut self, now: Time, after: Option<Duration>) {
        if self.failed || self.timers.rnr.is_some() || !self.recovery.on_loss(now, self.unacked) {
            return;
        }
        if self.spend_retry() {
            self.congestion.on_loss(self.unacked, self.sent, after);
            self.go_back();
        }
    }

    #[cold]
    fn handle_rnr(&mut self, now: Time, number: u64, timer: u8, ctx: &Shared) {
        self.counters.rcvd_rnr_err += 1;
        if self.acknowledge(now, number, ctx) == Before::AnswerMissing {
            self.handle_gap(now, number);
            return;
        }
        // Not if it is the echo of one that is being waited for, or has been, and the packet has not been sent since.
        if self.failed || self.timers.rnr.is_some() || self.waited == Some(number) {
            return;
        }
        if ctx.attr.rnr_retry != FOR_EVER && !planted::is(Bug::RnrForever) {
            let Some(left) = self.timers.rnr_retries_left.checked_sub(1) else {
                self.fail(WcStatus::RnrRetryExcErr);
                return;
            };
            self.timers.rnr_retries_left = left;
        }
        self.go_back();
        let wait = if planted::is(Bug::RnrTimerIgnored) { Duration::ZERO } else { rnr_timer(timer) };
        self.timers.rnr = Some(now + wait);
        self.waited = Some(number);
    }

    #[cold]
    fn handle_nak(&mut self, now: Time, number: u64, code: NakCode, ctx: &Shared) {
        let status = match code {
            NakCode::PsnSequenceError => {
                self.counters.rcvd_seq_err += 1;
                let resume = if planted::is(Bug::ResumeLate) { number + 1 } else { number };
                // Whether this packet is missing or an answer before it: what is oldest goes again.
                let after = match self.acknowledge(now, resume, ctx) {
                    Before::Acknowledged => Some(now.since(self.sent_at[sent_slot(number)])),
                    Before::AnswerMissing => None,
                };
                if number >= self.unmeasurable {
                    // A round trip, if one whose end another packet caused.
                    self.recovery.on_round_trip(after);
                }
                self.handle_loss(now, after);
                return;
            }
            NakCode::InvalidRequest => WcStatus::RemInvReqErr,
            NakCode::RemoteAccessError => WcStatus::RemAccessErr,
            NakCode::RemoteOperationalError => WcStatus::RemOpErr,
            NakCode::InvalidRdRequest => WcStatus::RemInvRdReqErr,
        };
        self.counters.rcvd_nak_err += 1;
        match self.acknowledge(now, number, ctx) {
            Before::Acknowledged if !self.failed => self.fail(status),
            Before::Acknowledged => {}
            Before::AnswerMissing if self.holds(number) => self.fail(status),
            Before::AnswerMissing => self.handle_gap(now, number),
        }
    }

    /// Whether packet `number` belongs to the oldest unfinished work request.
    fn holds(&self, number: u64) -> bool {
        self.queue.head != self.queue.begun && number < self.queue.at(self.queue.head).end()
    }

    /// Whether `number` is the next packet of an answer that the oldest work request waits for. Everything before it
    /// then counts as acknowledged; if something before it is missing, it is asked for again.
    fn is_next_answer(&mut self, now: Time, number: u64, ctx: &Shared) -> bool {
        let before = self.acknowledge(now, number, ctx);
        if self.failed {
            return false;
        }
        if before == Before::AnswerMissing {
            self.handle_gap(now, number);
            return false;
        }
        self.queue.head != self.queue.begun
    }

    #[inline]
    fn handle_read(
        &mut self,
        now: Time,
        number: u64,
        incoming: &Incoming<'_>,
        ctx: &Shared,
        host: &impl Host,
        actions: &mut VecDeque<Action>,
    ) {
        if !self.is_next_answer(now, number, ctx) {
            return;
        }
        let head = self.queue.head;
        let wqe = self.queue.at(head);
        let payload = incoming.packet.payload.len();
        let index = (number - wqe.first) as u32;
        let offset = index.saturating_mul(ctx.mtu);
        let len = wqe.length.saturating_sub(offset).min(ctx.mtu);
        let chunk = self.read_chunk;
        let begins = index.is_multiple_of(chunk);
        let ends = (index + 1).is_multiple_of(chunk) || index + 1 == wqe.packets;
        let opcode = incoming.packet.headers.bth.opcode;
        let fits = wqe.opcode == Opcode::RdmaRead
            && payload == len as usize
            && (number < self.ambiguous || opcode == PacketOpcode::of_read_response(begins, ends))
            && self.takes(incoming.packet.headers.aeth, opcode.has_aeth());
        if !fits {
            self.fail(WcStatus::BadRespErr);
            return;
        }
        let mut from = 0;
        for sge in self.queue.list_spans(head, offset, len) {
            let allowed = host.check(ctx.pd, sge.lkey, Access::LOCAL_WRITE, sge.addr, sge.length.into());
            if allowed.is_err() {
                self.fail(WcStatus::LocProtErr);
                return;
            }
            actions.push_back(Action::Place { key: sge.lkey, addr: sge.addr, offset: from, len: sge.length });
            from += sge.length;
        }
        self.answered(now, ctx);
    }

    fn handle_atomic(
        &mut self,
        now: Time,
        number: u64,
        incoming: &Incoming<'_>,
        ctx: &Shared,
        host: &impl Host,
        actions: &mut VecDeque<Action>,
    ) {
        if !self.is_next_answer(now, number, ctx) {
            return;
        }
        let head = self.queue.head;
        let headers = &incoming.packet.headers;
        let (Some(old), true, Some(sge)) = (
            headers.atomic_ack_eth,
            self.queue.at(head).opcode.is_atomic() && self.takes(headers.aeth, true),
            self.queue.list(head).first().copied(),
        ) else {
            self.fail(WcStatus::BadRespErr);
            return;
        };
        if host.check(ctx.pd, sge.lkey, Access::LOCAL_WRITE, sge.addr, sge.length.into()).is_err() {
            self.fail(WcStatus::LocProtErr);
            return;
        }
        let mut bytes = [0; 40];
        bytes[..8].copy_from_slice(&old.to_ne_bytes());
        actions.push_back(Action::Write { key: sge.lkey, addr: sge.addr, bytes, len: 8 });
        self.answered(now, ctx);
    }

    /// Whether the acknowledgement in an answer is a positive one; its credits count. An answer without one, where
    /// `needed` says so, is not.
    #[inline]
    fn takes(&mut self, aeth: Option<Aeth>, needed: bool) -> bool {
        match aeth {
            Some(Aeth { syndrome: Syndrome::Ack { credits }, msn }) => {
                self.credits.grant(msn, credits);
                true
            }
            Some(_) => false,
            None => !needed,
        }
    }

    /// The packet of the answer that was waited for came.
    #[inline]
    fn answered(&mut self, now: Time, ctx: &Shared) {
        self.unacked += 1;
        while self.answers_due.front().is_some_and(|&end| end <= self.unacked) {
            self.answers_due.pop_front();
        }
        self.advance_head();
        self.progress(now, 1, ctx);
    }
}
