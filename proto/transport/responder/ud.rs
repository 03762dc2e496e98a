//! Datagrams (IBTA volume 1, section 9.8.3): each is a message, behind its routing header, or is dropped.

use std::collections::VecDeque;

use super::{Refusal, Responder};
use crate::flags::WcFlags;
use crate::transport::shared::{Fatal, Shared};
use crate::transport::{Action, Host, Incoming};
use crate::wire::GRH_BYTES;
use crate::work::{WcStatus, WorkCompletion};

impl Responder {
    /// Takes in a datagram.
    ///
    /// # Errors
    /// The receive itself is at fault.
    pub(super) fn handle_datagram(
        &mut self,
        incoming: &Incoming<'_>,
        ctx: &Shared,
        host: &mut impl Host,
        actions: &mut VecDeque<Action>,
    ) -> Result<(), Fatal> {
        let headers = &incoming.packet.headers;
        let len = incoming.packet.payload.len() as u32;
        let Some(deth) = headers.deth.filter(|deth| deth.qkey == ctx.attr.qkey && len <= ctx.mtu) else {
            self.counters.dropped_pkts += 1;
            return Ok(());
        };
        if !self.hold_receive(ctx, host) {
            self.counters.dropped_pkts += 1;
            return Ok(());
        }
        match self.landing.check(GRH_BYTES as u32 + len, u64::MAX, host) {
            Ok(()) => {}
            Err(Refusal::Protection) => {
                self.complete(ctx, actions, WcStatus::LocProtErr, true, WorkCompletion::default());
                return Err(Fatal { event: None });
            }
            Err(_) => {
                // A receive that is too small stays for a datagram that fits.
                self.counters.dropped_pkts += 1;
                return Ok(());
            }
        }
        self.landing.write(incoming.grh, actions);
        self.landing.place(len, actions);
        let mut wc =
            WorkCompletion { src_qp: deth.src_qpn, wc_flags: WcFlags::GRH, ..WorkCompletion::default() };
        if let Some(imm) = headers.imm.filter(|_| headers.bth.opcode.has_imm()) {
            wc.wc_flags |= WcFlags::WITH_IMM;
            wc.imm_data = imm;
        }
        self.complete(ctx, actions, WcStatus::Success, headers.bth.solicited, wc);
        Ok(())
    }
}
