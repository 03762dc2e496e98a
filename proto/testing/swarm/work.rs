//! Posting work: what a run's applications do.

use super::records::{Expect, Landing, Life, Message, ReadFrom, SendRecord};
use super::world::{COUNTERS, MOST_READS, PD, SOURCE, World};
use crate::flags::{Access, SendFlags};
use crate::ident::Qpn;
use crate::qp::QpType;
use crate::testing::Violation;
use crate::testing::memory::violation;
use crate::transport::PostFault;
use crate::work::{Opcode, RemoteAddr, SendWr, Sge, UdDestination, WcStatus};

/// A work request being made up.
struct Draft {
    wr: SendWr,
    sges: Vec<Sge>,
    inline: Vec<u8>,
    /// What the message carries.
    bytes: Vec<u8>,
    len: u32,
    expect: Expect,
    into: Option<Landing>,
    from: ReadFrom,
    /// Where in the peer's target a WRITE goes.
    offset: usize,
    /// The counter an atomic works on.
    counter: usize,
}

impl World {
    /// Posts up to `count` sends at an end, as long as its queue has room.
    pub(super) fn post_some(&mut self, number: usize, count: u64) -> Result<(), Violation> {
        for _ in 0..count {
            let side = &self.sides[number];
            let ready = matches!(side.life, Life::Up | Life::Draining | Life::Failed);
            if !ready || side.sends.len() >= side.send_depth as usize {
                return Ok(());
            }
            self.post(number, false)?;
        }
        Ok(())
    }

    /// Posts one send; a signaled one that cannot fail by itself if it is the `last`.
    pub(super) fn post(&mut self, number: usize, last: bool) -> Result<(), Violation> {
        let Some(mut draft) = self.draft(number, last)? else { return Ok(()) };
        let side = &self.sides[number];
        let (node, qpn, qp_type) = (side.node, side.qpn, side.qp_type);
        // A queue whose requests are all unsignaled never gets room again.
        if last || side.unsignaled + 1 >= side.send_depth || self.random.one_in(2) {
            draft.wr.flags |= SendFlags::SIGNALED;
        }
        if !last && self.random.one_in(8) {
            draft.wr.flags |= SendFlags::FENCE;
        }
        let consumes = draft.wr.opcode.consumes_receive();
        if consumes && self.random.one_in(3) {
            draft.wr.flags |= SendFlags::SOLICITED;
        }
        let mark = match draft.wr.opcode {
            Opcode::AtomicFetchAndAdd => draft.wr.compare_add,
            Opcode::AtomicCmpAndSwp => draft.wr.swap,
            _ => 0,
        };
        let record = SendRecord {
            wr_id: draft.wr.wr_id,
            opcode: draft.wr.opcode,
            flags: draft.wr.flags,
            expect: draft.expect,
            len: draft.len,
            addr: draft.wr.remote.addr,
            into: draft.into,
            from: draft.from,
            mark,
            psn: self.sides[number].watch.next,
            packets: packets(&draft.wr, draft.len, self.scenario.mtu.bytes()),
            begun: false,
            came: 0,
            key: draft.wr.imm_data,
        };
        if consumes {
            let message = Message {
                wr_id: record.wr_id,
                from: qpn,
                write: record.opcode == Opcode::RdmaWriteWithImm,
                bytes: draft.bytes.clone(),
                imm: draft.wr.opcode.has_imm().then_some(draft.wr.imm_data),
                invalidates: (draft.wr.opcode == Opcode::SendWithInv).then_some(draft.wr.imm_data),
                solicited: draft.wr.flags.contains(SendFlags::SOLICITED),
                refused: draft.expect != Expect::Good,
                delivered: 0,
            };
            match draft.wr.ud {
                Some(to) => {
                    let to = self.sides.iter().position(|side| side.qpn == to.qpn);
                    if let Some(list) = to.and_then(|to| self.datagrams.get_mut(to)) {
                        list.push(message);
                        let old = list.len().saturating_sub(4096);
                        list.drain(..old);
                    }
                }
                None => {
                    let list = &mut self.sides[number].messages;
                    list.push_back(message);
                    if qp_type == QpType::Uc && list.len() > 4096 {
                        list.pop_front();
                    }
                }
            }
        }
        if record.opcode.is_atomic() && record.expect == Expect::Good {
            self.atomics.insert(mark, (self.sides[self.sides[number].peer].node, record.addr, None));
        }
        // What fails by itself may do so after its first packets.
        if matches!(record.opcode, Opcode::RdmaWrite | Opcode::RdmaWriteWithImm)
            && !matches!(record.expect, Expect::Remote(_))
        {
            self.shadows[number].post(record.wr_id, draft.offset, draft.bytes);
        }
        let side = &mut self.sides[number];
        if let Expect::Remote(status) = record.expect {
            side.refusable.push(status);
        }
        side.watch.next = side.watch.next.add(record.packets);
        side.unsignaled = if draft.wr.flags.contains(SendFlags::SIGNALED) { 0 } else { side.unsignaled + 1 };
        side.sends.push_back(record);
        let failed = side.life == Life::Failed;
        match self.fabric.post_send(node, qpn, &draft.wr, &draft.sges, &draft.inline) {
            Ok(_) => Ok(()),
            Err(PostFault::State { .. }) if failed => {
                Err(violation!("{qpn} ({qp_type}) refuses sends in an error state instead of flushing them"))
            }
            Err(fault) => Err(violation!("{qpn} ({qp_type}) refused {:?}: {fault}", draft.wr)),
        }
    }

    /// Makes up a work request; `None` if there is nothing to make it of.
    fn draft(&mut self, number: usize, last: bool) -> Result<Option<Draft>, Violation> {
        let opcode = self.pick_opcode(number, last);
        let side = &self.sides[number];
        let (node, peer, qp_type, max_sge) = (side.node, side.peer, side.qp_type, side.max_sge);
        let reads = side.sends.iter().filter(|record| record.into.is_some()).count();
        if (opcode == Opcode::RdmaRead || opcode.is_atomic()) && reads >= MOST_READS {
            return Ok(None);
        }
        let target = self.sides[peer].target;
        let peer_node = self.sides[peer].node;
        let wr = SendWr {
            wr_id: self.id(),
            opcode,
            flags: SendFlags::empty(),
            imm_data: self.random.next_u32(),
            remote: RemoteAddr::default(),
            compare_add: 0,
            swap: 0,
            ud: None,
            first_sge: 0,
            num_sge: 0,
        };
        let mut draft = Draft {
            wr,
            sges: Vec::new(),
            inline: Vec::new(),
            bytes: Vec::new(),
            len: self.pick_len(qp_type, last),
            expect: Expect::Good,
            into: None,
            from: ReadFrom::Nothing,
            offset: 0,
            counter: 0,
        };
        if opcode.gathers() {
            self.gather(node, max_sge, &mut draft);
        }
        match opcode {
            Opcode::RdmaWrite | Opcode::RdmaWriteWithImm => {
                draft.offset = self.random.index(target.len - draft.len as usize + 1);
                draft.wr.remote = RemoteAddr { addr: target.at(draft.offset), rkey: target.key };
            }
            Opcode::RdmaRead => {
                let Some(landing) = self.land(node, draft.len, max_sge)? else { return Ok(None) };
                draft.sges.clone_from(&landing.sges);
                draft.into = Some(landing);
                let len = draft.len as usize;
                let (area, from) = if self.random.one_in(2) && len <= SOURCE {
                    let offset = self.random.index(SOURCE - len + 1);
                    (self.places[peer_node].source, ReadFrom::Source(offset))
                } else {
                    (target, ReadFrom::Target(self.random.index(target.len - len + 1)))
                };
                let (ReadFrom::Source(offset) | ReadFrom::Target(offset)) = from else { return Ok(None) };
                draft.wr.remote = RemoteAddr { addr: area.at(offset), rkey: area.key };
                draft.from = from;
            }
            Opcode::AtomicCmpAndSwp | Opcode::AtomicFetchAndAdd => {
                draft.len = 8;
                let Some(landing) = self.land(node, 8, 1)? else { return Ok(None) };
                draft.sges.clone_from(&landing.sges);
                draft.into = Some(landing);
                draft.counter = self.random.index(COUNTERS);
                let counters = self.places[peer_node].counters;
                draft.wr.remote = RemoteAddr { addr: counters.at(draft.counter * 8), rkey: counters.key };
                let mark = self.random.next_u64() | 1;
                if opcode == Opcode::AtomicFetchAndAdd {
                    draft.wr.compare_add = mark;
                } else {
                    let now = self.places[peer_node].values[draft.counter];
                    draft.wr.compare_add = if self.random.one_in(4) { self.random.next_u64() } else { now };
                    draft.wr.swap = mark;
                }
            }
            Opcode::SendWithInv => {
                let memory = &mut self.fabric.node_mut(peer_node).memory;
                draft.wr.imm_data = memory.register(PD, Access::LOCAL_WRITE | Access::REMOTE_WRITE, 16)?.0;
            }
            Opcode::LocalInv => {
                draft.len = 0;
                draft.sges.clear();
                draft.wr.imm_data =
                    self.fabric.node_mut(node).memory.register(PD, Access::LOCAL_WRITE, 16)?.0;
            }
            _ => {}
        }
        if qp_type == QpType::Ud {
            draft.wr.ud = Some(self.pick_destination());
        }
        if draft.len == 0 && !opcode.remote_access_needed().is_empty() {
            // Without bytes nobody looks at the key.
            draft.wr.remote = RemoteAddr { addr: self.random.next_u64(), rkey: self.random.next_u32() };
        }
        let spoil = !last && self.scenario.troubles.bad_requests && self.random.one_in(25);
        if qp_type != QpType::Rc {
            if spoil {
                self.spoil_list(&mut draft);
            }
        } else {
            if !self.sides[peer].attributes.access.contains(opcode.remote_access_needed()) {
                draft.expect = Expect::Remote(WcStatus::RemInvReqErr);
            } else if spoil {
                self.spoil(number, &mut draft);
            }
        }
        Ok(Some(draft))
    }

    /// Makes a good request of a reliable connection a bad one, if it has something to spoil.
    fn spoil(&mut self, number: usize, draft: &mut Draft) {
        let peer_node = self.sides[self.sides[number].peer].node;
        let opcode = draft.wr.opcode;
        let refused = Expect::Remote(WcStatus::RemAccessErr);
        if !draft.sges.is_empty() && self.random.one_in(3) {
            return self.spoil_list(draft);
        }
        if draft.len == 0 || opcode.remote_access_needed().is_empty() {
            return;
        }
        draft.expect = refused;
        let place = &self.places[peer_node];
        match self.random.below(4) {
            0 => draft.wr.remote.rkey ^= 0x0101,
            1 => draft.wr.remote.rkey = place.foreign.key,
            2 if opcode.is_atomic() => {
                draft.wr.remote.addr += 4;
                draft.expect = Expect::Remote(WcStatus::RemInvReqErr);
            }
            2 => draft.wr.remote = RemoteAddr { addr: place.counters.base, rkey: place.counters.key },
            _ => {
                // One byte beyond the end.
                let area = if opcode.is_atomic() {
                    place.counters
                } else {
                    self.sides[self.sides[number].peer].target
                };
                let beyond = match opcode {
                    _ if opcode.is_atomic() => 8,
                    _ => 1,
                };
                draft.wr.remote =
                    RemoteAddr { addr: area.at(area.len + beyond) - u64::from(draft.len), rkey: area.key };
            }
        }
        if draft.wr.remote.rkey == place.foreign.key {
            draft.wr.remote.addr = place.foreign.base;
        }
    }

    /// Makes a key of the list a wrong one, if bytes are named with it.
    fn spoil_list(&mut self, draft: &mut Draft) {
        let index = self.random.index(draft.sges.len());
        if let Some(sge) = draft.sges.get_mut(index).filter(|sge| sge.length > 0) {
            sge.lkey ^= 0x3c3c;
            draft.expect = Expect::Local(WcStatus::LocProtErr);
        }
    }

    /// Takes the bytes of a message from the node's source: in a list, or inline.
    fn gather(&mut self, node: usize, max_sge: u32, draft: &mut Draft) {
        let source = self.places[node].source;
        let inline = draft.len <= 128 && self.random.one_in(4);
        let pieces = if inline { 1 } else { self.random.within(1, max_sge.into()) };
        let mut left = draft.len as usize;
        for piece in 0..pieces {
            let most = left.min(SOURCE);
            let length = if piece + 1 == pieces { most } else { self.random.within(0, most as u64) as usize };
            let offset = self.random.index(SOURCE - length + 1);
            draft.bytes.extend_from_slice(&self.places[node].bytes[offset..offset + length]);
            draft.sges.push(Sge { addr: source.at(offset), length: length as u32, lkey: source.key });
            left -= length;
        }
        draft.len -= left as u32;
        if inline {
            draft.wr.flags |= SendFlags::INLINE;
            draft.sges.clear();
            draft.inline.clone_from(&draft.bytes);
        }
    }

    fn pick_opcode(&mut self, number: usize, last: bool) -> Opcode {
        const RC: [Opcode; 14] = [
            Opcode::Send,
            Opcode::Send,
            Opcode::Send,
            Opcode::SendWithImm,
            Opcode::RdmaWrite,
            Opcode::RdmaWrite,
            Opcode::RdmaWriteWithImm,
            Opcode::RdmaRead,
            Opcode::RdmaRead,
            Opcode::RdmaRead,
            Opcode::AtomicFetchAndAdd,
            Opcode::AtomicCmpAndSwp,
            Opcode::SendWithInv,
            Opcode::LocalInv,
        ];
        const UC: [Opcode; 4] =
            [Opcode::Send, Opcode::SendWithImm, Opcode::RdmaWrite, Opcode::RdmaWriteWithImm];
        let side = &self.sides[number];
        let allowed = self.sides[side.peer].attributes.access;
        let bad = self.scenario.troubles.bad_requests && !last;
        let opcode = match side.qp_type {
            _ if last => Opcode::Send,
            QpType::Rc => RC[self.random.index(RC.len())],
            QpType::Uc => UC[self.random.index(UC.len())],
            QpType::Ud => UC[self.random.index(2)],
        };
        // What the peer's queue pair does not allow ends the connection, so it is rare.
        if allowed.contains(opcode.remote_access_needed()) || (bad && self.random.one_in(10)) {
            opcode
        } else {
            Opcode::Send
        }
    }

    fn pick_len(&mut self, qp_type: QpType, last: bool) -> u32 {
        let mtu = u64::from(self.scenario.mtu.bytes());
        let longest = if qp_type == QpType::Ud { mtu } else { self.scenario.max_len.into() };
        let len = match self.random.below(if last { 1 } else { 8 }) {
            0 => self.random.below(2),
            1..=3 => self.random.below(64),
            4 => (mtu * self.random.within(1, 3) + self.random.below(3)).saturating_sub(1),
            5 => self.random.below(mtu * 2),
            _ => self.random.below(longest + 1),
        };
        len.min(longest) as u32
    }

    /// Any datagram queue pair of the run.
    fn pick_destination(&mut self) -> UdDestination {
        let all: Vec<(u32, Qpn, u32)> = self
            .sides
            .iter()
            .filter(|side| side.qp_type == QpType::Ud)
            .map(|side| (side.node as u32, side.qpn, side.attributes.qkey))
            .collect();
        let (ah, qpn, qkey) = all[self.random.index(all.len())];
        UdDestination { ah, qpn, qkey }
    }
}

/// PSNs that a request takes.
const fn packets(wr: &SendWr, len: u32, mtu: u32) -> u32 {
    match wr.opcode {
        Opcode::LocalInv | Opcode::BindMw => 0,
        Opcode::AtomicCmpAndSwp | Opcode::AtomicFetchAndAdd => 1,
        _ if len == 0 => 1,
        _ => len.div_ceil(mtu),
    }
}
