//! Messages on an unreliable connection (IBTA volume 1, section 9.8.2): each arrives whole or not at all, and nobody is told.

use std::collections::VecDeque;

use super::message::Message;
use super::{Refusal, Responder};
use crate::planted::{self, Bug};
use crate::profile::Habits;
use crate::transport::shared::{Fatal, Shared};
use crate::transport::{Action, Host, Incoming};
use crate::wire::{Operation, PacketOpcode};
use crate::work::{WcStatus, WorkCompletion};

/// How far behind a PSN may be and still be taken for a copy, or a latecomer, of what is over. Beyond it the peer is taken to have
/// started anew.
pub(super) const STALE_WINDOW: u32 = 1 << 14;

impl Responder {
    /// Takes in a request of the unreliable connected service.
    ///
    /// # Errors
    /// The receive itself is at fault.
    pub(super) fn handle_unreliable(
        &mut self,
        incoming: &Incoming<'_>,
        ctx: &Shared,
        host: &mut impl Host,
        actions: &mut VecDeque<Action>,
    ) -> Result<(), Fatal> {
        let headers = &incoming.packet.headers;
        if headers.bth.opcode == PacketOpcode::UcCreditRequest {
            self.handle_credit_request(headers, ctx);
            return Ok(());
        }
        let distance = headers.bth.psn.distance_from(self.expected);
        if distance < 0 && distance.unsigned_abs() <= self.behind {
            // Messages arrive once and in order, or not at all.
            self.counters.duplicate_request += 1;
            return Ok(());
        }
        let is_gap = distance != 0 && (headers.bth.opcode.is_first() || !planted::is(Bug::UcGap));
        if is_gap {
            // Something was lost, and with it the message it was part of.
            self.counters.out_of_seq_request += 1;
            self.message = Message::None;
        }
        self.behind = match u32::try_from(distance) {
            Ok(skipped) => self.behind.saturating_add(skipped).saturating_add(1).min(STALE_WINDOW),
            Err(_) => 1,
        };
        self.expected = headers.bth.psn.next();
        // A message may begin before the one before it has ended: then that one is over.
        if headers.bth.opcode.is_first() || !self.message.fits(headers) {
            self.message = Message::None;
        }
        if !self.message.fits(headers) {
            return Ok(());
        }
        let opcode = headers.bth.opcode;
        let (is_send, is_write) =
            (opcode.operation() == Operation::Send, opcode.operation() == Operation::Write);
        if is_send && opcode.is_first() || is_write && opcode.has_imm() {
            self.grants.count();
        }
        let outcome = match opcode.operation() {
            Operation::Send => self.send_packet(incoming, ctx, host, actions),
            Operation::Write => self.write_packet(incoming, ctx, host, actions),
            _ => Err(Refusal::Invalid),
        };
        match outcome {
            Ok(()) => Ok(()),
            Err(Refusal::Protection) => {
                self.complete(ctx, actions, WcStatus::LocProtErr, true, WorkCompletion::default());
                Err(Fatal { event: None })
            }
            // The receiver is told that the two sides disagree about the length; the connection goes on.
            Err(Refusal::TooLong) if ctx.habits.contains(Habits::MATCHES_FRAMES) => {
                self.message = Message::None;
                self.complete(ctx, actions, WcStatus::LocLenErr, true, WorkCompletion::default());
                Ok(())
            }
            Err(_) => {
                // The receive stays for the next message.
                self.message = Message::None;
                Ok(())
            }
        }
    }
}
