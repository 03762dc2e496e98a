//! Watching packets: does the requester send what was posted, when it may?
//!
//! Which request a PSN belongs to is computed here from what was posted, so segmentation, resuming and repeating are checked
//! against a second opinion.

use super::records::{Life, SendRecord, Side};
use super::world::World;
use crate::fault::Fate;
use crate::flags::SendFlags;
use crate::ident::{Psn, Qpn};
use crate::qp::{QpState, QpType, ack_timeout, rnr_timer};
use crate::testing::memory::violation;
use crate::testing::{Connection, Violation};
use crate::time::Time;
use crate::wire::{Headers, NakCode, Operation, Syndrome};
use crate::work::Opcode;

impl World {
    /// A packet was sent.
    pub(super) fn saw_sent(
        &mut self,
        now: Time,
        qpn: Qpn,
        headers: &Headers,
        len: usize,
        fate: &Fate,
    ) -> Result<(), Violation> {
        let Some(number) = self.sides.iter().position(|side| side.qpn == qpn) else {
            return Err(violation!("{qpn} sends, and there is no such queue pair"));
        };
        let plan = &self.scenario.plan;
        let harmed = match fate {
            Fate::Dropped(_) => true,
            Fate::Delivered { first, .. } => {
                first.flip.is_some() || first.at.since(now) > plan.delay + plan.jitter
            }
        };
        let peer = self.sides[number].peer;
        if harmed {
            // A request has a number of its sender's, an answer one of its receiver's.
            let whose = if headers.bth.opcode.is_request() { number } else { peer };
            self.sides[whose].watch.harmed.push(headers.bth.psn);
        }
        let side = &self.sides[number];
        if side.life == Life::Down {
            return Err(violation!("{qpn} sends in RESET"));
        }
        if !headers.bth.opcode.is_request() || side.qp_type == QpType::Ud {
            return Ok(());
        }
        let state = self.fabric.state(side.node, qpn);
        if side.watch.drained {
            return Err(violation!("{qpn} sends a request although its send queue is drained"));
        }
        // A queue pair may have failed since, in the same moment.
        if !matches!(state, QpState::Rts | QpState::Sqd | QpState::Err | QpState::Sqe) {
            return Err(violation!("{qpn} sends a request in {state}"));
        }
        let mtu = self.scenario.mtu.bytes();
        self.sides[number].check_request(now, headers, len, mtu)
    }

    /// A packet came to a queue pair.
    pub(super) fn saw_arrived(&mut self, now: Time, qpn: Qpn, headers: &Headers) -> Result<(), Violation> {
        let Some(side) = self.sides.iter_mut().find(|side| side.qpn == qpn) else { return Ok(()) };
        let (opcode, psn) = (headers.bth.opcode, headers.bth.psn);
        if opcode.is_request() || side.qp_type != QpType::Rc || psn.distance_from(side.watch.sent) >= 0 {
            return Ok(());
        }
        side.watch.heard = now;
        match opcode.operation() {
            Operation::ReadResponse | Operation::AtomicAcknowledge => {
                // Answers count in order; what comes behind a gap will come again.
                let next = side.sends.iter_mut().find(|record| record.is_read() && !record.is_answered());
                if let Some(record) = next.filter(|record| record.psn.add(record.came) == psn) {
                    record.came += 1;
                }
                side.progress(psn.next());
            }
            Operation::Acknowledge => match headers.aeth.map(|aeth| aeth.syndrome) {
                Some(Syndrome::Ack { .. }) => side.progress(psn.next()),
                Some(Syndrome::Nak(NakCode::PsnSequenceError)) => side.progress(psn),
                Some(Syndrome::RnrNak { timer }) => {
                    let ahead = psn.distance_from(side.watch.floor);
                    side.progress(psn);
                    // With the answer to a READ missing, it says above all that this one is to be asked for again.
                    let missing = |record: &SendRecord| record.is_unanswered() && record.psn.precedes(psn);
                    if ahead >= 0 {
                        side.watch.rnr_naks += 1;
                        if side.watch.hold.is_none() && !side.sends.iter().any(missing) {
                            side.watch.hold = Some((psn, now + rnr_timer(timer)));
                        }
                    }
                }
                _ => {}
            },
            _ => {}
        }
        Ok(())
    }
}

impl Side {
    /// All before `psn` was acknowledged, as far as no answer to a READ or atomic is missing.
    fn progress(&mut self, psn: Psn) {
        let missing = self.sends.iter().find(|record| record.is_unanswered());
        let missing = missing.map(|record| record.psn.add(record.came));
        let psn = missing.filter(|missing| missing.precedes(psn)).unwrap_or(psn);
        if psn.distance_from(self.watch.floor) > 0 {
            self.watch.floor = psn;
            self.watch.harmed.retain(|harmed| !harmed.precedes(psn));
            self.watch.rnr_naks = 0;
            self.watch.held = 0;
            if self.watch.hold.is_some_and(|(held, _)| held.precedes(psn)) {
                self.watch.hold = None;
            }
        }
    }

    /// Whether a request packet is one that was posted, and may be sent now.
    fn check_request(&mut self, now: Time, headers: &Headers, len: usize, mtu: u32) -> Result<(), Violation> {
        let (qpn, psn, opcode) = (self.qpn, headers.bth.psn, headers.bth.opcode);
        let holds = |record: &SendRecord| {
            record.packets > 0 && (0..record.packets as i32).contains(&psn.distance_from(record.psn))
        };
        let Some(index) = self.sends.iter().position(holds) else {
            return Err(violation!(
                "{qpn} sends PSN {psn}, which belongs to no request that is not completed"
            ));
        };
        let record = &self.sends[index];
        let position = psn.distance_from(record.psn) as u32;
        let wr_id = record.wr_id;
        let wrong = |what: &str| {
            Err(violation!("{qpn} sends PSN {psn} for wr {wr_id} ({:?}): {what}", record.opcode))
        };
        let operation = match record.opcode {
            Opcode::Send | Opcode::SendWithImm | Opcode::SendWithInv => Operation::Send,
            Opcode::RdmaWrite | Opcode::RdmaWriteWithImm => Operation::Write,
            Opcode::RdmaRead => Operation::ReadRequest,
            Opcode::AtomicCmpAndSwp => Operation::CompareSwap,
            Opcode::AtomicFetchAndAdd => Operation::FetchAdd,
            Opcode::LocalInv | Opcode::BindMw => return wrong("it has no packets"),
        };
        if opcode.operation() != operation || headers.bth.dest_qpn != self.attributes.dest_qpn {
            return wrong("another operation, or another destination");
        }
        let (done, last) = (position * mtu, position + 1 == record.packets);
        match operation {
            Operation::ReadRequest => {
                let rest = record.len.saturating_sub(done);
                if headers
                    .reth
                    .is_none_or(|reth| (reth.addr, reth.length) != (record.addr + u64::from(done), rest))
                {
                    return wrong("it asks for something else");
                }
            }
            Operation::Send | Operation::Write => {
                let payload = if last { record.len - done } else { mtu };
                let apart = self.writes_apart(record.opcode, record.packets);
                let is_part =
                    opcode.is_first() == (apart || position == 0) && opcode.is_last() == (apart || last);
                if len != payload as usize || !is_part {
                    return wrong("another part of the message");
                }
                if opcode.has_imm() != (last && record.opcode.has_imm())
                    || opcode.has_ieth() != (last && record.opcode == Opcode::SendWithInv)
                {
                    return wrong("immediate data missing, or where there is none");
                }
                let reth = headers.reth.map(|reth| (reth.addr, reth.length));
                let ahead = if apart { done } else { 0 };
                if opcode.has_reth() && reth != Some((record.addr + u64::from(ahead), record.len - ahead)) {
                    return wrong("it writes to somewhere else");
                }
            }
            _ => {}
        }
        let unanswered = |records: &mut dyn Iterator<Item = &SendRecord>| {
            records.filter(|record| record.is_unanswered()).count()
        };
        if self.qp_type == QpType::Rc {
            let Connection { retry_cnt, timeout, .. } = self.attributes;
            if self.watch.sent == self.watch.floor {
                self.watch.heard = now;
            } else if let Some(timeout) = ack_timeout(timeout)
                && now.since(self.watch.heard) > timeout * 4 * (u32::from(retry_cnt) + 1)
            {
                return wrong("nothing was heard of the peer for so long that it must have given up");
            }
            let before = unanswered(&mut self.sends.iter().take(index));
            if record.flags.contains(SendFlags::FENCE) && !record.begun && before > 0 {
                return wrong("it is fenced, and a READ or atomic before it is not finished");
            }
            let others = unanswered(&mut self.sends.iter().filter(|other| other.wr_id != wr_id));
            if record.is_read() && others >= usize::from(self.attributes.max_rd_atomic) {
                return wrong("more READs and atomics are outstanding than agreed");
            }
            if let Some((held, until)) = self.watch.hold
                && held == psn
            {
                if now < until {
                    return wrong("it was to wait after an RNR NAK");
                }
                self.watch.hold = None;
                self.watch.held += 1;
                if self.attributes.rnr_retry < 7 && self.watch.held > self.attributes.rnr_retry.into() {
                    return wrong("the retries after RNR NAKs are used up");
                }
            }
        }
        // A READ response has as many PSNs as the request that asked for it.
        let through = if operation == Operation::ReadRequest { record.packets - position } else { 1 };
        if psn.add(through).distance_from(self.watch.sent) > 0 {
            self.watch.sent = psn.add(through);
        }
        self.sends[index].begun = true;
        Ok(())
    }
}
