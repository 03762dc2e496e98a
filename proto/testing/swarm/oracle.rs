//! Judging what happened: completions, events, memory.

use super::records::{Expect, Landing, Life, Message, ReadFrom, ReceiveRecord, SendRecord};
use super::world::{FRESH, World};
use crate::event::AsyncEventKind;
use crate::flags::{SendFlags, WcFlags};
use crate::ident::Qpn;
use crate::qp::{QpState, QpType};
use crate::testing::memory::violation;
use crate::testing::{Happening, Violation};
use crate::time::Time;
use crate::transport::{AtomicOp, Half};
use crate::work::{Opcode, WcOpcode, WcStatus, WorkCompletion};

/// Bytes in front of a datagram.
const GRH: usize = crate::limits::GRH_BYTES as usize;

impl World {
    /// Judges one happening.
    pub(super) fn judge(&mut self, now: Time, node: usize, happening: &Happening) -> Result<(), Violation> {
        match happening {
            Happening::Sent { qpn, headers, len, fate, .. } => self.saw_sent(now, *qpn, headers, *len, fate),
            Happening::Arrived { qpn, headers, .. } => self.saw_arrived(now, *qpn, headers),
            Happening::Placed { qpn, .. } => match self.side_of(*qpn) {
                Some(side) if self.sides[side].life != Life::Down => Ok(()),
                _ => Err(violation!("{qpn} writes to memory, although it is in RESET or gone")),
            },
            Happening::Atomic { addr, op, old, .. } => self.saw_atomic(node, *addr, op, *old),
            Happening::Completed { half: Half::Send, wc, .. } => self.send_completed(wc),
            Happening::Completed { half: Half::Receive, wc, solicited } => {
                self.receive_completed(wc, *solicited)
            }
            Happening::Event { qpn, kind } => self.saw_event(*qpn, *kind),
            Happening::Discarded { .. }
            | Happening::PostedSend { .. }
            | Happening::PostedReceive { .. }
            | Happening::Modified { .. }
            | Happening::Restarted => Ok(()),
        }
    }

    fn side_of(&self, qpn: Qpn) -> Option<usize> {
        self.sides.iter().position(|side| side.qpn == qpn)
    }

    fn saw_atomic(&mut self, node: usize, addr: u64, op: &AtomicOp, old: u64) -> Result<(), Violation> {
        let mark = match *op {
            AtomicOp::CompareSwap { swap, .. } => swap,
            AtomicOp::FetchAdd { add } => add,
        };
        let Some((at_node, at, done)) = self.atomics.get_mut(&mark) else {
            return Err(violation!("an atomic was carried out that nobody posted: {op:x?}"));
        };
        if (*at_node, *at) != (node, addr) {
            return Err(violation!(
                "an atomic for {at:#x} of node {at_node} was carried out at {addr:#x} of {node}"
            ));
        }
        if done.replace(old).is_some() {
            return Err(violation!("an atomic was carried out twice: {op:x?} at {addr:#x}"));
        }
        let place = &mut self.places[node];
        let value =
            &mut place.values[(addr.wrapping_sub(place.counters.base) / 8) as usize % super::world::COUNTERS];
        if *value != old {
            return Err(violation!("a counter at {addr:#x} is {old:#x} and was made {value:#x}"));
        }
        *value = match *op {
            AtomicOp::CompareSwap { compare, swap } if compare == old => swap,
            AtomicOp::CompareSwap { .. } => old,
            AtomicOp::FetchAdd { add } => old.wrapping_add(add),
        };
        Ok(())
    }

    fn saw_event(&mut self, qpn: Qpn, kind: AsyncEventKind) -> Result<(), Violation> {
        let Some(number) = self.side_of(qpn) else { return Err(violation!("an event of no queue pair")) };
        let peer = self.sides[number].peer;
        let remote = |wanted: WcStatus| self.sides[peer].refusable.contains(&wanted);
        let explained = match kind {
            AsyncEventKind::QpAccessErr => remote(WcStatus::RemAccessErr),
            // A receive that was too short, or had a wrong key, has completed before.
            AsyncEventKind::QpReqErr => {
                remote(WcStatus::RemInvReqErr) || self.sides[peer].peer_receive_failed.is_some()
            }
            AsyncEventKind::CommEst => true,
            AsyncEventKind::SqDrained => self.sides[number].life == Life::Draining,
            AsyncEventKind::QpLastWqeReached => {
                let side = &mut self.sides[number];
                side.shared && !core::mem::replace(&mut side.last_reached, true)
            }
            _ => false,
        };
        if !explained {
            return Err(violation!("{qpn}: the event {kind:?} has no reason"));
        }
        match kind {
            AsyncEventKind::QpAccessErr | AsyncEventKind::QpReqErr => {
                self.failed(number, "the peer's request")
            }
            AsyncEventKind::SqDrained => self.sides[number].watch.drained = true,
            _ => {}
        }
        Ok(())
    }

    /// A queue pair has reason to be in an error state.
    pub(super) fn failed(&mut self, number: usize, cause: &'static str) {
        let side = &mut self.sides[number];
        side.cause.get_or_insert(cause);
        side.life = Life::Failed;
        let peer = side.peer;
        self.sides[peer].peer_silent = true;
    }

    /// All that happened at one moment has been judged: what was flushed had a reason?
    pub(super) fn check_causes(&mut self) -> Result<(), Violation> {
        for side in &mut self.sides {
            if core::mem::take(&mut side.flushed) && side.cause.is_none() {
                return Err(violation!("{}: requests were flushed, and nothing had failed", side.qpn));
            }
        }
        Ok(())
    }

    fn send_completed(&mut self, wc: &WorkCompletion) -> Result<(), Violation> {
        self.completions += 1;
        let qpn = wc.qp_num;
        let Some(number) = self.side_of(qpn) else { return Err(violation!("a completion of no queue pair")) };
        let Some(index) = self.sides[number].sends.iter().position(|record| record.wr_id == wc.wr_id) else {
            return Err(violation!("{qpn}: send {} completed twice, or was never posted", wc.wr_id));
        };
        // Those before it succeeded without saying so.
        for _ in 0..index {
            let Some(record) = self.sides[number].sends.pop_front() else { break };
            if record.flags.contains(SendFlags::SIGNALED) {
                return Err(violation!("{qpn}: send {} completed before {}", wc.wr_id, record.wr_id));
            }
            self.send_succeeded(number, record)?;
        }
        let Some(record) = self.sides[number].sends.pop_front() else { return Ok(()) };
        if wc.status == WcStatus::Success {
            if !record.flags.contains(SendFlags::SIGNALED) {
                return Err(violation!("{qpn}: send {} is unsignaled, and completed", wc.wr_id));
            }
            if wc.opcode != record.opcode.wc_opcode() {
                return Err(violation!("{qpn}: send {} completed as {:?}", wc.wr_id, wc.opcode));
            }
            let brings = record.opcode == Opcode::RdmaRead || record.opcode.is_atomic();
            if brings && wc.byte_len != record.len {
                return Err(violation!(
                    "{qpn}: send {} brought {} bytes of {}",
                    wc.wr_id,
                    wc.byte_len,
                    record.len
                ));
            }
            return self.send_succeeded(number, record);
        }
        self.send_failed(number, &record, wc.status)?;
        if let Some(landing) = record.into {
            self.places[self.sides[number].node].free_slots.push(landing.slot);
        }
        Ok(())
    }

    /// A send failed: is there a reason?
    fn send_failed(&mut self, number: usize, record: &SendRecord, status: WcStatus) -> Result<(), Violation> {
        let side = &self.sides[number];
        let (qpn, watch, attributes) = (side.qpn, &side.watch, &side.attributes);
        // Over links that deliver, a timeout sends what a peer does not answer that has said already what it lacks: one word of it lost is enough.
        let enough = if self.scenario.delivers { 0 } else { attributes.retry_cnt.into() };
        let reason = match status {
            WcStatus::WrFlushErr => Ok("to be seen"),
            WcStatus::RetryExcErr if side.peer_silent || watch.harmed.len() > enough => {
                Ok("the peer was silent")
            }
            WcStatus::RetryExcErr => Err("not so many packets were harmed"),
            WcStatus::RnrRetryExcErr if attributes.rnr_retry == 7 => Err("it was to retry for ever"),
            WcStatus::RnrRetryExcErr if watch.rnr_naks > attributes.rnr_retry.into() => Ok("no receives"),
            WcStatus::RnrRetryExcErr => Err("there were not so many RNR NAKs"),
            _ if record.expect == Expect::Local(status) || record.expect == Expect::Remote(status) => {
                Ok("made so")
            }
            _ if record.opcode.consumes_receive() && side.peer_receive_failed == Some(status) => {
                Ok("bad receive")
            }
            _ => Err("nothing was wrong with it"),
        };
        let cause = reason.map_err(|why| {
            violation!(
                "{qpn}: send {} ({:?}) failed with {status:?}, but {why} ({} harmed, {} RNR NAKs)",
                record.wr_id,
                record.opcode,
                watch.harmed.len(),
                watch.rnr_naks
            )
        })?;
        if status == WcStatus::WrFlushErr {
            self.sides[number].flushed = true;
        } else {
            self.failed(number, cause);
        }
        let node = self.sides[number].node;
        let state = self.fabric.state(node, qpn);
        if matches!(state, QpState::Err | QpState::Sqe | QpState::Reset) {
            Ok(())
        } else {
            Err(violation!("{qpn}: a send failed, but the queue pair is in {state}"))
        }
    }

    /// A send succeeded, whether it said so or not: has it happened?
    pub(super) fn send_succeeded(&mut self, number: usize, record: SendRecord) -> Result<(), Violation> {
        let side = &self.sides[number];
        let (qpn, node, peer) = (side.qpn, side.node, side.peer);
        let reliable = side.qp_type == QpType::Rc;
        let what =
            |why: &str| violation!("{qpn}: send {} ({:?}) succeeded, but {why}", record.wr_id, record.opcode);
        if matches!(record.expect, Expect::Local(_)) || reliable && record.expect != Expect::Good {
            return Err(what("it was made to fail"));
        }
        if reliable && side.messages.front().is_some_and(|message| message.wr_id <= record.wr_id) {
            return Err(what("its message, or one before it, was not delivered"));
        }
        if record.opcode == Opcode::LocalInv && self.fabric.node(node).memory.has(record.key) {
            return Err(what("the key is still there"));
        }
        if record.opcode.is_atomic() && self.atomics.get(&record.mark).is_none_or(|done| done.2.is_none()) {
            return Err(what("it was not carried out"));
        }
        let target = self.sides[peer].target;
        let memory = &self.fabric.node(self.sides[peer].node).memory;
        let target_bytes = memory.bytes(target.key, target.base, target.len)?;
        let gone = record.wr_id < self.sides[number].blind_before;
        if !gone {
            self.shadows[number].succeeded(record.wr_id, target_bytes)?;
        }
        let Some(landing) = &record.into else { return Ok(()) };
        let brought = self.scattered(node, landing, record.len as usize, false)?;
        match record.from {
            ReadFrom::Source(offset) => {
                let source = &self.places[self.sides[peer].node].bytes;
                if brought != source[offset..offset + brought.len()] {
                    return Err(what("it brought other bytes than those of the peer's source"));
                }
            }
            ReadFrom::Target(_) if gone => {}
            ReadFrom::Target(offset) => {
                self.shadows[number].check(target_bytes, offset, &brought, "what a READ brought")?;
            }
            ReadFrom::Nothing => {
                let old = self.atomics.remove(&record.mark).and_then(|done| done.2);
                if old.map(u64::to_ne_bytes).as_ref().map(|old| &old[..]) != Some(&brought[..]) {
                    return Err(what("it brought another value than it had found"));
                }
            }
        }
        self.places[node].free_slots.push(landing.slot);
        Ok(())
    }

    /// The first `len` bytes that a list in a landing slot names. The rest of the slot must be as it was, apart from what the list
    /// names if something else may have `begun` there: a message of an unreliable connection whose end was lost.
    fn scattered(
        &self,
        node: usize,
        landing: &Landing,
        len: usize,
        begun: bool,
    ) -> Result<Vec<u8>, Violation> {
        let place = &self.places[node];
        let base = place.landing.at(landing.slot * place.slot_len);
        let slot = self.fabric.node(node).memory.bytes(place.landing.key, base, place.slot_len)?;
        let mut bytes = Vec::with_capacity(len);
        let mut clean = 0;
        let untouched = |part: &[u8]| part.iter().all(|&byte| byte == FRESH);
        for sge in &landing.sges {
            let start = (sge.addr - base) as usize;
            let take = (len - bytes.len()).min(sge.length as usize);
            bytes.extend_from_slice(&slot[start..start + take]);
            if !untouched(&slot[clean..start]) {
                return Err(violation!("bytes between the entries of a scatter list were written"));
            }
            clean = start + if begun { sge.length as usize } else { take };
        }
        if bytes.len() < len {
            return Err(violation!("{len} bytes came into a list of {}", landing.capacity()));
        }
        if !untouched(&slot[clean..]) {
            return Err(violation!("bytes behind the {len} that came were written"));
        }
        Ok(bytes)
    }

    fn receive_completed(&mut self, wc: &WorkCompletion, solicited: bool) -> Result<(), Violation> {
        self.completions += 1;
        let qpn = wc.qp_num;
        let Some(number) = self.side_of(qpn) else { return Err(violation!("a completion of no queue pair")) };
        let Some(record) = self.receives.remove(&wc.wr_id) else {
            return Err(violation!("{qpn}: receive {} completed twice, or was never posted", wc.wr_id));
        };
        let node = self.sides[number].node;
        self.places[node].free_slots.push(record.landing.slot);
        if self.sides[number].shared {
            self.places[node].shared.retain(|&id| id != wc.wr_id);
            for shared in &mut self.fabric.node_mut(node).srqs {
                shared.taken.retain(|&(taker, id)| (taker, id) != (qpn, wc.wr_id));
            }
        } else if self.sides[number].receives.pop_front() != Some(wc.wr_id) {
            return Err(violation!("{qpn}: receive {} completed before those posted earlier", wc.wr_id));
        }
        match wc.status {
            WcStatus::Success => self.delivered(number, &record, wc, solicited),
            WcStatus::WrFlushErr => {
                self.sides[number].flushed = true;
                Ok(())
            }
            WcStatus::LocLenErr | WcStatus::LocProtErr => {
                let peer = self.sides[number].peer;
                let told = if wc.status == WcStatus::LocLenErr {
                    let longest =
                        self.sides[peer].messages.front().map_or(0, |message| message.bytes.len() as u64);
                    if longest <= record.landing.capacity() {
                        return Err(violation!(
                            "{qpn}: receive {} is said to be too short, and is not",
                            wc.wr_id
                        ));
                    }
                    WcStatus::RemInvReqErr
                } else {
                    if !record.bad_key {
                        return Err(violation!("{qpn}: the keys of receive {} are right", wc.wr_id));
                    }
                    WcStatus::RemOpErr
                };
                self.sides[peer].peer_receive_failed = Some(told);
                self.failed(number, "a bad receive");
                Ok(())
            }
            status => Err(violation!("{qpn}: receive {} failed with {status:?} without a reason", wc.wr_id)),
        }
    }

    /// A receive succeeded: with which message?
    fn delivered(
        &mut self,
        number: usize,
        record: &ReceiveRecord,
        wc: &WorkCompletion,
        solicited: bool,
    ) -> Result<(), Violation> {
        let side = &self.sides[number];
        let (qpn, node, peer, qp_type) = (side.qpn, side.node, side.peer, side.qp_type);
        let datagram = qp_type == QpType::Ud;
        let is_send = wc.opcode == WcOpcode::Recv;
        let into_list = if is_send { wc.byte_len as usize } else { 0 };
        let came = self.scattered(node, &record.landing, into_list, qp_type == QpType::Uc)?;
        let came = if datagram { came.get(GRH..).unwrap_or_default() } else { &came[..] };
        let fits = |message: &Message| {
            let imm = message.imm.or(message.invalidates);
            let flags = WcFlags::WITH_IMM | WcFlags::WITH_INV;
            let mut wanted = WcFlags::empty();
            wanted.set(WcFlags::WITH_IMM, message.imm.is_some());
            wanted.set(WcFlags::WITH_INV, message.invalidates.is_some());
            message.write != is_send
                && wc.wc_flags & flags == wanted
                && imm.is_none_or(|imm| imm == wc.imm_data)
                && wc.byte_len as usize == message.bytes.len() + if datagram { GRH } else { 0 }
                && (message.write || came == message.bytes)
                && solicited == message.solicited
                && (!datagram || message.from == wc.src_qp)
        };
        let wrong = |message: &Message| {
            violation!(
                "{qpn}: receive {} has {} bytes {:?} (imm {:#x}, {}, solicited {solicited}), \
                 but the next message is that of send {}: {} bytes, imm {:x?}, invalidates {:x?}, solicited {}; bytes {}",
                wc.wr_id,
                wc.byte_len,
                wc.opcode,
                wc.imm_data,
                wc.wc_flags,
                message.wr_id,
                message.bytes.len(),
                message.imm,
                message.invalidates,
                message.solicited,
                if came == message.bytes { "as sent" } else { "differ" }
            )
        };
        let nothing =
            || violation!("{qpn}: receive {} completed, but no such message is on its way", wc.wr_id);
        let copies = if self.scenario.plan.duplicate.is_some() { 2 } else { 1 };
        // What is left of a connection's predecessor may come late, and is taken like the beginning of something new.
        let alone = self.sides[number].connects == 1;
        let orderly = alone || copies == 1 && self.scenario.plan.reorder.is_none();
        let message = match qp_type {
            QpType::Rc => {
                let message = self.sides[peer].messages.pop_front().ok_or_else(nothing)?;
                if message.refused || record.is_bad_for(&message) || !fits(&message) {
                    return Err(wrong(&message));
                }
                message
            }
            QpType::Uc => {
                // Messages can only be lost.
                let newest = if orderly { self.sides[number].newest } else { 0 };
                let fit = |message: &&mut Message| {
                    let copies = if orderly { 1 } else { copies };
                    fits(message) && message.delivered < copies && message.wr_id > newest
                };
                let message = self.sides[peer].messages.iter_mut().find(fit).ok_or_else(nothing)?;
                message.delivered += 1;
                let message = message.clone();
                self.sides[number].newest = message.wr_id;
                message
            }
            QpType::Ud => {
                let found = self.datagrams[number]
                    .iter_mut()
                    .find(|message| fits(message) && message.delivered < copies);
                let message = found.ok_or_else(nothing)?;
                message.delivered += 1;
                message.clone()
            }
        };
        if message.write && qp_type == QpType::Rc {
            let target = self.sides[number].target;
            let memory = self.fabric.node(node).memory.bytes(target.key, target.base, target.len)?;
            self.shadows[peer].check_message(message.wr_id, memory)?;
        }
        if let Some(key) = message.invalidates
            && self.fabric.node(node).memory.has(key)
        {
            return Err(violation!("{qpn}: key {key:#010x} was to be invalidated, and is still there"));
        }
        Ok(())
    }

    /// Looks at all memory once more.
    pub(super) fn check_memory(&self) -> Result<(), Violation> {
        for (number, side) in self.sides.iter().enumerate() {
            let target = self.sides[side.peer].target;
            let memory = &self.fabric.node(self.sides[side.peer].node).memory;
            let bytes = memory.bytes(target.key, target.base, target.len)?;
            self.shadows[number].check(bytes, 0, bytes, "at the end")?;
        }
        for (node, place) in self.places.iter().enumerate() {
            let memory = &self.fabric.node(node).memory;
            memory.check_guards()?;
            let counters = memory.bytes(place.counters.key, place.counters.base, place.counters.len)?;
            let wanted: Vec<u8> = place.values.iter().flat_map(|value| value.to_ne_bytes()).collect();
            if counters != wanted {
                return Err(violation!("the counters of node {node} are not what the atomics made them"));
            }
            if memory.bytes(place.source.key, place.source.base, place.source.len)? != place.bytes {
                return Err(violation!("the source of node {node} was written"));
            }
        }
        Ok(())
    }
}
