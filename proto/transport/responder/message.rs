//! The packets of SEND and WRITE: in which order they may come, how long they may be, and what they do. The same for both kinds of
//! connection; what a refusal means is not.

use std::collections::VecDeque;

use super::{Refusal, Responder};
use crate::flags::{Access, WcFlags};
use crate::planted::{self, Bug};
use crate::profile::Habits;
use crate::transport::shared::Shared;
use crate::transport::{Action, Host, Incoming};
use crate::wire::{Headers, Operation};
use crate::work::{WcOpcode, WcStatus, WorkCompletion};

/// The message of which some packets have come and some not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Message {
    /// None.
    None,
    /// A SEND, into the receive that is held.
    Send,
    /// A WRITE.
    Write(Write),
}

/// What is left of a WRITE.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Write {
    key: u32,
    /// Where the next byte goes.
    addr: u64,
    left: u32,
    /// Bytes of the whole message.
    length: u32,
}

impl Message {
    /// Whether a packet with this opcode may come now.
    pub(super) fn fits(&self, headers: &Headers) -> bool {
        let opcode = headers.bth.opcode;
        match self {
            Self::None => opcode.is_first(),
            Self::Send => !opcode.is_first() && opcode.operation() == Operation::Send,
            Self::Write(_) => !opcode.is_first() && opcode.operation() == Operation::Write,
        }
    }
}

/// Whether a packet of a message may have a payload of `len` bytes (IBTA volume 1, section 9.7.4.1.3 and C9-80 to C9-83).
fn length_fits(headers: &Headers, len: u32, mtu: u32) -> bool {
    let opcode = headers.bth.opcode;
    match (opcode.is_first(), opcode.is_last()) {
        (true, true) => len <= mtu,
        (false, true) => (1..=mtu).contains(&len),
        (_, false) => len == mtu,
    }
}

impl Responder {
    /// Carries out a packet of a SEND that may come now.
    pub(super) fn send_packet(
        &mut self,
        incoming: &Incoming<'_>,
        ctx: &Shared,
        host: &mut impl Host,
        actions: &mut VecDeque<Action>,
    ) -> Result<(), Refusal> {
        let headers = &incoming.packet.headers;
        let len = incoming.packet.payload.len() as u32;
        let opcode = headers.bth.opcode;
        if opcode.is_first() {
            if !self.hold_receive(ctx, host) {
                return Err(Refusal::NoReceive);
            }
            self.landing.rewind();
        }
        if !length_fits(headers, len, ctx.mtu) {
            return Err(Refusal::Invalid);
        }
        self.landing.check(len, ctx.max_msg_size, host)?;
        if ctx.habits.contains(Habits::MATCHES_FRAMES)
            && opcode.is_last()
            && !self.landing.matches(len, ctx.habits)
        {
            return Err(Refusal::TooLong);
        }
        if let Some(key) = headers.ieth
            && opcode.has_ieth()
            // Bytes are placed after this; a key they need cannot go before them.
            && (self.landing.uses(key)
                || !planted::is(Bug::KeyNotInvalidated) && host.invalidate(ctx.pd, key).is_err())
        {
            return Err(Refusal::Access);
        }
        self.landing.place(len, actions);
        if opcode.is_last() {
            self.message = Message::None;
            self.deliver(headers, ctx, actions, WcOpcode::Recv, 0);
        } else {
            self.message = Message::Send;
        }
        Ok(())
    }

    /// Carries out a packet of a WRITE that may come now.
    pub(super) fn write_packet(
        &mut self,
        incoming: &Incoming<'_>,
        ctx: &Shared,
        host: &mut impl Host,
        actions: &mut VecDeque<Action>,
    ) -> Result<(), Refusal> {
        let headers = &incoming.packet.headers;
        let len = incoming.packet.payload.len() as u32;
        let opcode = headers.bth.opcode;
        if !ctx.attr.qp_access_flags.contains(Access::REMOTE_WRITE) {
            return Err(Refusal::Invalid);
        }
        if opcode.has_imm() && !self.hold_receive(ctx, host) {
            return Err(Refusal::NoReceive);
        }
        let write = match (self.message, headers.reth) {
            (Message::Write(write), _) if !opcode.is_first() => write,
            (_, Some(reth)) if opcode.is_first() => {
                Write { key: reth.rkey, addr: reth.addr, left: reth.length, length: reth.length }
            }
            _ => return Err(Refusal::Invalid),
        };
        // A part of a WRITE that was taken apart says how much there is with all that follow.
        let is_part =
            ctx.writes_apart && opcode.is_first() && opcode.is_last() && !opcode.has_imm() && len == ctx.mtu;
        let whole = match (opcode.is_last(), is_part) {
            (true, false) => len == write.left,
            (true, true) => len <= write.left,
            (false, _) => len < write.left,
        };
        if !whole || !length_fits(headers, len, ctx.mtu) || u64::from(write.length) > ctx.max_msg_size {
            return Err(Refusal::Invalid);
        }
        // Before the first byte, all of them are checked; then each packet's again, for a key may go in between. Without bytes no key
        // is looked at (IBTA volume 1, C9-88).
        let checked = if opcode.is_first() { write.length } else { len };
        if checked > 0 {
            let needed = Access::REMOTE_WRITE;
            host.check_remote(ctx.pd, write.key, needed, write.addr, u64::from(checked))
                .map_err(|_| Refusal::Access)?;
        }
        if len > 0 {
            actions.push_back(Action::Place { key: write.key, addr: write.addr, offset: 0, len });
        }
        if !opcode.is_last() {
            // Cannot wrap: the check above covered the whole message.
            let addr = write.addr.wrapping_add(u64::from(len));
            self.message = Message::Write(Write { addr, left: write.left - len, ..write });
            return Ok(());
        }
        self.message = Message::None;
        if opcode.has_imm() {
            self.deliver(headers, ctx, actions, WcOpcode::RecvRdmaWithImm, write.length);
        }
        Ok(())
    }

    /// Completes the receive of a message that has come whole.
    fn deliver(
        &mut self,
        headers: &Headers,
        ctx: &Shared,
        actions: &mut VecDeque<Action>,
        opcode: WcOpcode,
        byte_len: u32,
    ) {
        let mut wc = WorkCompletion { opcode, byte_len, ..WorkCompletion::default() };
        if headers.bth.opcode.has_imm() {
            wc.wc_flags |= WcFlags::WITH_IMM;
            wc.imm_data = headers.imm.unwrap_or_default();
        } else if headers.bth.opcode.has_ieth() {
            wc.wc_flags |= WcFlags::WITH_INV;
            wc.imm_data = headers.ieth.unwrap_or_default();
        }
        self.complete(ctx, actions, WcStatus::Success, headers.bth.solicited, wc);
    }
}
