//! Messages of an unreliable connection whose device holds them until there is a receive. The protocol is told in
//! `transport/responder/grants.rs`.

use core::time::Duration;

use super::{Requester, Shared};
use crate::profile::Habits;
use crate::qp::{QpState, QpType};
use crate::time::Time;
use crate::transport::{Payload, To, Transmit};
use crate::wire::{Headers, PacketOpcode};
use crate::work::WcStatus;

/// How long to wait for an answer before the peer is asked again, at first and at most. It tells us unasked too, so this is for what was lost.
const PATIENCE: Duration = Duration::from_millis(1);
const LONGEST_PATIENCE: Duration = Duration::from_millis(16);

/// What the peer has receives for, as far as we know.
#[derive(Clone, Copy, Debug)]
pub(super) struct Allowance {
    /// Messages sent that take a receive.
    sent: u32,
    /// How many may have been sent in all.
    limit: u32,
    /// When to ask, if there is anything to ask for.
    ask_at: Time,
    patience: Duration,
}

impl Default for Allowance {
    fn default() -> Self {
        Self { sent: 0, limit: 0, ask_at: Time::ZERO, patience: PATIENCE }
    }
}

impl Allowance {
    /// A message that takes a receive was begun.
    pub(super) const fn spend(&mut self) {
        self.sent = self.sent.wrapping_add(1);
    }

    const fn is_spent(&self) -> bool {
        self.limit.wrapping_sub(self.sent).cast_signed() <= 0
    }
}

impl Requester {
    /// Whether the next message must wait for a receive of the peer's.
    #[inline]
    pub(super) fn is_held(&self, ctx: &Shared) -> bool {
        ctx.habits.contains(Habits::HOLDS_UC)
            && matches!(ctx.qp_type, QpType::Uc)
            && self.allowance.is_spent()
            && {
                let cursor = self.queue.cursor;
                let wqe = self.queue.at(cursor);
                // What has begun goes on; what fails, or is lost, needs no receive.
                cursor == self.queue.begun
                    && cursor != self.queue.posted
                    && ctx.state == QpState::Rts
                    && wqe.opcode.consumes_receive()
                    && wqe.status == WcStatus::Success
                    && !ctx.habits.loses(wqe.opcode, wqe.length.into())
            }
    }

    /// When the peer is to be asked for receives; none if nothing waits for any.
    #[inline]
    pub(super) fn asks_at(&self, ctx: &Shared) -> Option<Time> {
        self.is_held(ctx).then_some(self.allowance.ask_at)
    }

    /// Whether it is time to, or to ask a peer that has said nothing for long.
    #[inline]
    pub(in crate::transport) fn is_asking(&self, now: Time, ctx: &Shared) -> bool {
        self.owes_probe || self.asks_at(ctx).is_some_and(|at| at <= now)
    }

    /// Asks the peer, if it is time to.
    pub(super) fn ask(&mut self, now: Time, ctx: &Shared) -> Option<Transmit> {
        if self.asks_at(ctx)? > now {
            return None;
        }
        let allowance = &mut self.allowance;
        allowance.ask_at = now + allowance.patience;
        allowance.patience = (allowance.patience * 2).min(LONGEST_PATIENCE);
        let mut headers = Headers::new(ctx.bth(PacketOpcode::UcCreditRequest, Self::psn(ctx, self.sent)));
        headers.imm = Some(self.allowance.sent);
        self.counters.sent_pkts += 1;
        Some(Transmit { headers, payload: Payload::Empty, to: To::Peer })
    }

    /// The peer says how many messages it has receives for.
    pub(super) fn handle_credit(&mut self, now: Time, headers: &Headers) {
        let limit = headers.imm.unwrap_or_default();
        let allowance = &mut self.allowance;
        if limit.wrapping_sub(allowance.limit).cast_signed() > 0 {
            allowance.limit = limit;
            allowance.patience = PATIENCE;
            allowance.ask_at = now + PATIENCE;
        }
    }
}
