//! Telling the peer how many messages there are receives for, on an unreliable connection whose device holds them
//! ([`FlowMode::HoldUc`](crate::FlowMode)).
//!
//! UC has no acknowledgements, so this is a small protocol of tbrdma's own, of two packets that other devices drop:
//!
//! - **CREDIT_REQUEST**, from a sender that has work and no credit: how many messages it has sent, and, as its PSN, that of its next packet. Whatever was
//!   sent before and has not arrived is lost, then: the responder counts it as gone and takes it no more.
//! - **CREDIT**, from a responder that was asked once: how many messages the sender may have sent in all, since the two were connected.
//!
//! Both numbers only grow, so that packets may be lost, doubled and come late: the largest holds. A lost request is repeated by the sender's
//! timer, and stands for a lost answer. A responder that nobody asks says nothing, so a device that does not hold needs no switch to answer one that does.

use super::message::Message;
use super::uc::STALE_WINDOW;
use super::{Responder, Shared};
use crate::transport::{Payload, To, Transmit};
use crate::wire::{Headers, PacketOpcode};

/// More receives than there ever are: of a shared queue nobody can say how many a sender will find.
const PLENTY: u32 = 1 << 20;

/// What was said, and what must be.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Grants {
    /// The peer wants to know.
    asked: bool,
    /// Messages that took a receive, or were lost, as the peer counts them.
    seen: u32,
    /// How many it was last told it may send.
    told: u32,
    /// It must be told now.
    owed: bool,
}

impl Grants {
    /// A message has begun that takes a receive.
    pub(super) const fn count(&mut self) {
        self.seen = self.seen.wrapping_add(1);
    }

    /// Whether something is to be said.
    pub(super) const fn is_owed(&self) -> bool {
        self.owed
    }

    /// Nothing is to be said any more.
    pub(super) const fn stop(&mut self) {
        self.owed = false;
        self.asked = false;
    }
}

impl Responder {
    /// The peer asks.
    pub(super) fn handle_credit_request(&mut self, headers: &Headers, ctx: &Shared) {
        let sent = headers.imm.unwrap_or_default();
        let lost = headers.bth.psn.distance_from(self.expected);
        if lost < 0 {
            // Asked long ago.
            return;
        }
        if lost > 0 {
            self.counters.out_of_seq_request += 1;
            self.message = Message::None;
            self.behind = self.behind.saturating_add(lost.unsigned_abs()).min(STALE_WINDOW);
            self.expected = headers.bth.psn;
        }
        self.grants.asked = true;
        // The peer knows best what it has sent.
        self.grants.seen = sent;
        self.grants.told = sent;
        self.grants.owed = self.receives_left(ctx) > 0;
    }

    /// A receive was posted: the peer is told when it has few left.
    pub(super) fn consider_granting(&mut self, ctx: &Shared) {
        if !self.grants.asked {
            return;
        }
        let left = self.receives_left(ctx);
        // What the peer may still send by our last word.
        let known = self.grants.told.wrapping_sub(self.grants.seen).cast_signed().max(0).cast_unsigned();
        self.grants.owed |= left > known && known <= left / 2;
    }

    /// What the peer is told, now.
    pub(super) fn grant(&mut self, ctx: &Shared) -> Transmit {
        let limit = self.grants.seen.wrapping_add(self.receives_left(ctx));
        self.grants.told = limit;
        self.grants.owed = false;
        let mut headers = Headers::new(ctx.bth(PacketOpcode::UcCredit, self.expected));
        headers.imm = Some(limit);
        Transmit { headers, payload: Payload::Empty, to: To::Peer }
    }

    /// Receives for messages that have not begun.
    fn receives_left(&self, ctx: &Shared) -> u32 {
        if ctx.shared_receives {
            return PLENTY;
        }
        let kept = self.landing.is_held() && self.message == Message::None;
        self.queue.len() + u32::from(kept)
    }
}
