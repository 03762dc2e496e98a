//! The nodes, connections and buffers of a run, and taking them through their lives.

use std::collections::BTreeMap;

use super::records::{Area, Landing, Life, Message, ReceiveRecord, Side, Watch};
use super::scenario::Scenario;
use super::shadow::Shadow;
use crate::fault::Random;
use crate::flags::{Access, SendFlags};
use crate::ident::{Psn, Qpn};
use crate::limits::PortAttr;
use crate::profile::Habits;
use crate::qp::{QpCap, QpState, QpType};
use crate::region::PdHandle;
use crate::testing::memory::violation;
use crate::testing::{Connection, Fabric, QpSpec, Violation, address};
use crate::transport::Srq;
use crate::work::Sge;

/// The domain of everything, and another one that nothing may reach from it.
pub(super) const PD: PdHandle = PdHandle(1);
const OTHER_PD: PdHandle = PdHandle(2);

/// Bytes of a node's source.
pub(super) const SOURCE: usize = 1 << 14;

/// Counters of a node.
pub(super) const COUNTERS: usize = 8;

/// READs and atomics that an end has posted at a time: each has a landing slot, and receives must find some too.
pub(super) const MOST_READS: usize = 12;

/// What fills a landing slot before it is used.
pub(super) const FRESH: u8 = 0xee;

/// Bytes of a slot behind what its list names.
pub(super) const SLACK: usize = 64;

/// What a node has in memory.
#[derive(Debug, Default)]
pub(super) struct Place {
    /// Bytes that never change; peers may read them.
    pub(super) source: Area,
    /// The same bytes, for the oracle.
    pub(super) bytes: Vec<u8>,
    /// Where receives, READs and atomics land.
    pub(super) landing: Area,
    pub(super) slot_len: usize,
    pub(super) free_slots: Vec<usize>,
    /// Where atomics work.
    pub(super) counters: Area,
    /// Each counter's value.
    pub(super) values: [u64; COUNTERS],
    /// A region of another domain.
    pub(super) foreign: Area,
    /// Receives in the shared queue.
    pub(super) shared: Vec<u64>,
}

/// A run in progress.
#[derive(Debug)]
pub(super) struct World {
    pub(super) scenario: Scenario,
    pub(super) random: Random,
    pub(super) fabric: Fabric,
    pub(super) places: Vec<Place>,
    pub(super) sides: Vec<Side>,
    /// What each side writes to at its peer.
    pub(super) shadows: Vec<Shadow>,
    pub(super) receives: BTreeMap<u64, ReceiveRecord>,
    /// Datagrams by the side they are for, the newest last.
    pub(super) datagrams: Vec<Vec<Message>>,
    /// Atomics that were posted: where each works, and the value it found if it has been carried out.
    pub(super) atomics: BTreeMap<u64, (usize, u64, Option<u64>)>,
    pub(super) next_id: u64,
    /// Whether links are cut now.
    pub(super) cut: bool,
    pub(super) completions: u64,
}

impl World {
    pub(super) fn new(scenario: Scenario) -> Result<Self, Violation> {
        let mut random = Random::new(scenario.seed).stream(0x0371);
        let mut fabric =
            Fabric::with_addresses(scenario.nodes, &scenario.plan, random.next_u64(), scenario.ipv6);
        fabric.ack_delay = scenario.ack_delay;
        fabric.marks = scenario.marks;
        fabric.observe();
        let mut sides = Vec::new();
        for (number, spec) in scenario.connections.iter().enumerate() {
            for end in 0..2 {
                let side = sides.len();
                let mut qpn = Qpn::masked(random.next_u32());
                while qpn.get() < 2 || sides.iter().any(|side: &Side| side.qpn == qpn) {
                    qpn = Qpn::masked(random.next_u32());
                }
                sides.push(Side {
                    node: spec.nodes[end],
                    qpn,
                    qp_type: spec.qp_type,
                    connection: number,
                    peer: side ^ 1,
                    send_depth: spec.send_depth,
                    recv_depth: spec.recv_depth,
                    max_sge: spec.max_sge,
                    shared: spec.shared[end],
                    life: Life::Down,
                    newest: 0,
                    connects: 0,
                    attributes: Connection {
                        mtu: scenario.mtu,
                        sq_psn: spec.psn[end],
                        access: spec.access[end],
                        max_rd_atomic: spec.max_rd_atomic,
                        max_dest_rd_atomic: spec.max_rd_atomic,
                        min_rnr_timer: spec.min_rnr_timer,
                        timeout: spec.timeout,
                        retry_cnt: spec.retry_cnt,
                        rnr_retry: spec.rnr_retry,
                        writes_apart: spec.apart,
                        delivers: scenario.delivers,
                        ..Connection::default()
                    },
                    target: Area::default(),
                    sends: Default::default(),
                    receives: Default::default(),
                    messages: Default::default(),
                    watch: Watch::default(),
                    cause: None,
                    flushed: false,
                    blind_before: 0,
                    peer_silent: false,
                    peer_receive_failed: None,
                    refusable: Vec::new(),
                    last_reached: false,
                    starved: false,
                    unsignaled: 0,
                });
            }
        }
        let mut world = Self {
            places: (0..scenario.nodes).map(|_| Place::default()).collect(),
            shadows: sides.iter().map(|_| Shadow::default()).collect(),
            datagrams: sides.iter().map(|_| Vec::new()).collect(),
            scenario,
            random,
            fabric,
            sides,
            receives: BTreeMap::new(),
            atomics: BTreeMap::new(),
            next_id: 1,
            cut: false,
            completions: 0,
        };
        for node in 0..world.scenario.nodes {
            world.furnish(node)?;
        }
        Ok(world)
    }

    /// Bytes of a target.
    fn target_len(&self) -> usize {
        self.scenario.max_len as usize + 512
    }

    /// Gives a new or restarted node its memory and queue pairs.
    fn furnish(&mut self, node: usize) -> Result<(), Violation> {
        let mine: Vec<usize> = (0..self.sides.len()).filter(|&side| self.sides[side].node == node).collect();
        let slots: u32 = mine.iter().map(|&side| self.sides[side].recv_depth + MOST_READS as u32).sum();
        let slots = slots as usize + 4;
        let slot_len = self.scenario.max_len as usize + 64 + SLACK;
        let bytes: Vec<u8> = {
            let mut random = Random::new(self.scenario.seed).stream(0x50_0000 + node as u64);
            core::iter::repeat_with(|| random.next_u64().to_le_bytes()).take(SOURCE / 8).flatten().collect()
        };
        let memory = &mut self.fabric.node_mut(node).memory;
        let mut register = |pd, access, len| -> Result<Area, Violation> {
            let (key, base) = memory.register(pd, access, len)?;
            Ok(Area { key, base, len })
        };
        let place = Place {
            source: register(PD, Access::REMOTE_READ, SOURCE)?,
            bytes,
            landing: register(PD, Access::LOCAL_WRITE, slots * slot_len)?,
            slot_len,
            free_slots: (0..slots).rev().collect(),
            counters: register(PD, Access::LOCAL_WRITE | Access::REMOTE_ATOMIC, COUNTERS * 8)?,
            values: [0; COUNTERS],
            foreign: register(OTHER_PD, everything(), 4096)?,
            shared: Vec::new(),
        };
        memory.bytes_mut(place.source.key, place.source.base, SOURCE)?.copy_from_slice(&place.bytes);
        self.places[node] = place;
        self.fabric.add_srq(node, Srq::new(PD, 64, 8));
        let handles = (0..self.scenario.nodes).map(|to| address(self.fabric.node(to).gid)).collect();
        self.fabric.node_mut(node).handles = handles;
        for side in mine {
            self.make_queue_pair(side)?;
        }
        Ok(())
    }

    /// Makes the queue pair of a side, and the region that its peer writes to.
    fn make_queue_pair(&mut self, number: usize) -> Result<(), Violation> {
        let len = self.target_len();
        let side = &mut self.sides[number];
        let access = Access::LOCAL_WRITE | Access::REMOTE_WRITE | Access::REMOTE_READ;
        let (key, base) = self.fabric.node_mut(side.node).memory.register(PD, access, len)?;
        side.target = Area { key, base, len };
        self.shadows[side.peer] = Shadow::new(len, side.qp_type == QpType::Rc);
        // Both halves of some queue pairs, and several queue pairs, share a completion queue.
        let cq = number % 3;
        let spec = QpSpec {
            qpn: side.qpn,
            qp_type: side.qp_type,
            pd: PD,
            cap: QpCap {
                max_send_wr: side.send_depth,
                max_recv_wr: side.recv_depth,
                max_send_sge: side.max_sge,
                max_recv_sge: side.max_sge,
                max_inline_data: 128,
            },
            send_cq: cq,
            recv_cq: if number.is_multiple_of(2) { cq } else { 0 },
            srq: side.shared.then_some(0),
            port: PortAttr {
                max_mtu: self.scenario.mtu,
                active_mtu: self.scenario.mtu,
                ..PortAttr::default()
            },
            habits: Habits::default(),
        };
        self.fabric.create_qp(side.node, spec);
        Ok(())
    }

    /// Takes both ends of a connection from RESET to RTR, with receives, and the first of them to RTS.
    pub(super) fn connect(&mut self, connection: usize) -> Result<(), Violation> {
        let ends = [connection * 2, connection * 2 + 1];
        for end in ends {
            let (node, qpn) = (self.sides[end].node, self.sides[end].qpn);
            let peer = &self.sides[self.sides[end].peer];
            let (gid, dest_qpn, rq_psn) = (self.fabric.node(peer.node).gid, peer.qpn, peer.attributes.sq_psn);
            let side = &mut self.sides[end];
            side.attributes.peer = gid;
            side.attributes.dest_qpn = dest_qpn;
            side.attributes.rq_psn = rq_psn;
            let psn = side.attributes.sq_psn;
            side.watch = Watch { next: psn, floor: psn, sent: psn, ..Watch::default() };
            side.life = Life::Receiving;
            side.connects += 1;
            let attributes = side.attributes.clone();
            self.fabric
                .to_rtr(node, qpn, &attributes)
                .map_err(|error| violation!("{qpn} cannot go to RTR: {error}"))?;
            self.replenish(end)?;
        }
        self.ready_to_send(ends[0])
    }

    /// Takes an end from RTR to RTS.
    pub(super) fn ready_to_send(&mut self, number: usize) -> Result<(), Violation> {
        let side = &mut self.sides[number];
        if side.life != Life::Receiving {
            return Ok(());
        }
        side.life = Life::Up;
        let (node, qpn) = (side.node, side.qpn);
        self.fabric
            .to_rts(node, qpn, &side.attributes)
            .map_err(|error| violation!("{qpn} cannot go to RTS: {error}"))
    }

    /// Takes an end whose send queue alone has failed back to RTS; `false` if it is in another state.
    pub(super) fn recover(&mut self, end: usize) -> Result<bool, Violation> {
        let side = &self.sides[end];
        let (node, qpn) = (side.node, side.qpn);
        if self.fabric.state(node, qpn) != QpState::Sqe {
            return Ok(false);
        }
        self.check_sends_flushed(end)?;
        let side = &mut self.sides[end];
        side.cause = None;
        side.life = Life::Up;
        // What was flushed has taken no numbers.
        if let Some(slot) = self.fabric.node(node).qps.get(&qpn) {
            side.watch.next = slot.qp.query().sq_psn;
        }
        self.fabric
            .to_state(node, qpn, QpState::Rts)
            .map_err(|error| violation!("{qpn} cannot go from SQE to RTS: {error}"))?;
        Ok(true)
    }

    /// Takes both ends of a connection to RESET and forgets what was posted.
    pub(super) fn reset(&mut self, connection: usize) -> Result<(), Violation> {
        for end in [connection * 2, connection * 2 + 1] {
            let side = &self.sides[end];
            let (node, qpn) = (side.node, side.qpn);
            if self.fabric.state(node, qpn) == QpState::Err {
                self.check_flushed(end)?;
            }
            self.fabric
                .to_state(node, qpn, QpState::Reset)
                .map_err(|error| violation!("{qpn} cannot go to RESET: {error}"))?;
        }
        for end in [connection * 2, connection * 2 + 1] {
            self.forget(end)?;
        }
        Ok(())
    }

    /// Forgets what an end's connection was, and picks PSNs far from those that may still be on their way.
    fn forget(&mut self, end: usize) -> Result<(), Violation> {
        let reached = self.random.next_u32();
        self.lose(end);
        let side = &mut self.sides[end];
        side.peer_silent = false;
        side.peer_receive_failed = None;
        side.refusable.clear();
        let far = (1 << 20) + reached % (3 << 20);
        let near_wrap = reached.is_multiple_of(3) && !(0xe0_0000..).contains(&side.watch.next.get());
        side.attributes.sq_psn = if near_wrap && side.watch.next.get() > 0x20_0000 {
            Psn::masked((1 << 24) - 1 - reached % 40)
        } else {
            side.watch.next.add(far)
        };
        // What is still on its way may reach an unreliable connection's successor, which takes any first packet.
        if side.qp_type == QpType::Rc {
            side.messages.clear();
        }
        let peer = &self.sides[self.sides[end].peer];
        let memory =
            self.fabric.node(peer.node).memory.bytes(peer.target.key, peer.target.base, peer.target.len)?;
        self.shadows[end].ended(memory)
    }

    /// Forgets what was posted at an end. What it had sent may still arrive.
    fn lose(&mut self, end: usize) {
        let side = &mut self.sides[end];
        side.life = Life::Down;
        side.cause = None;
        side.last_reached = false;
        side.unsignaled = 0;
        let (node, qpn) = (side.node, side.qpn);
        let (sends, receives) = (core::mem::take(&mut side.sends), core::mem::take(&mut side.receives));
        let place = &mut self.places[node];
        place
            .free_slots
            .extend(sends.into_iter().filter_map(|record| record.into).map(|landing| landing.slot));
        for id in receives {
            self.receives.remove(&id).inspect(|record| place.free_slots.push(record.landing.slot));
        }
        // Receives that the queue pair took from the shared queue for a message that never ended.
        for id in self.fabric.node_mut(node).srqs.iter_mut().flat_map(|shared| shared.take_back(qpn)) {
            place.shared.retain(|&other| other != id);
            self.receives.remove(&id).inspect(|record| place.free_slots.push(record.landing.slot));
        }
    }

    /// A node loses everything. Its peers are not told.
    pub(super) fn restart(&mut self, node: usize) -> Result<(), Violation> {
        self.fabric.node(node).memory.check_guards()?;
        for end in 0..self.sides.len() {
            if self.sides[end].node == node {
                self.lose(end);
                let peer = self.sides[end].peer;
                self.sides[peer].peer_silent = true;
                self.sides[peer].blind_before = self.next_id;
            }
        }
        for id in core::mem::take(&mut self.places[node].shared) {
            self.receives.remove(&id);
        }
        self.fabric.restart(node);
        self.furnish(node)
    }

    /// Posts receives until the queue of an end is full.
    pub(super) fn replenish(&mut self, number: usize) -> Result<(), Violation> {
        let side = &self.sides[number];
        if side.starved || side.life == Life::Down {
            return Ok(());
        }
        let (node, depth) = (side.node, side.recv_depth as usize);
        let missing = if side.shared {
            let waiting = self.fabric.node(node).srqs.first().map_or(0, |shared| shared.srq.len() as usize);
            depth.saturating_sub(waiting)
        } else {
            depth - side.receives.len()
        };
        for _ in 0..missing {
            if !self.post_receive(number)? {
                break;
            }
        }
        Ok(())
    }

    /// Posts one receive for an end; `false` if there is no slot left.
    fn post_receive(&mut self, number: usize) -> Result<bool, Violation> {
        let side = &self.sides[number];
        let (node, qpn, shared, datagram) = (side.node, side.qpn, side.shared, side.qp_type == QpType::Ud);
        let bad = self.scenario.troubles.bad_requests
            && side.qp_type == QpType::Rc
            && !shared
            && self.random.one_in(40);
        let most = self.scenario.max_len as u64 + if datagram || shared { 40 } else { 0 };
        let len = if bad && self.random.one_in(2) { self.random.below(most) } else { most };
        let max_sge = side.max_sge;
        let Some(mut landing) = self.land(node, len as u32, max_sge)? else { return Ok(false) };
        let bad_key = bad && len == most;
        if bad_key && let Some(sge) = landing.sges.first_mut() {
            sge.lkey ^= 0x5a5a;
        }
        let id = self.id();
        if shared {
            self.fabric
                .post_srq_recv(node, 0, id, &landing.sges)
                .map_err(|error| violation!("a shared receive was refused: {error}"))?;
            self.places[node].shared.push(id);
        } else {
            self.fabric
                .post_recv(node, qpn, id, &landing.sges)
                .map_err(|error| violation!("{qpn}: a receive was refused: {error}"))?;
            self.sides[number].receives.push_back(id);
        }
        self.receives.insert(id, ReceiveRecord { landing, bad_key });
        Ok(true)
    }

    /// A fresh slot of a node, and a scatter list that names so many bytes of it with holes between them.
    pub(super) fn land(&mut self, node: usize, len: u32, max_sge: u32) -> Result<Option<Landing>, Violation> {
        let place = &mut self.places[node];
        let Some(slot) = place.free_slots.pop() else { return Ok(None) };
        let (area, slot_len) = (place.landing, place.slot_len);
        let base = area.at(slot * slot_len);
        self.fabric.node_mut(node).memory.bytes_mut(area.key, base, slot_len)?.fill(FRESH);
        let mut sges = Vec::new();
        let (mut at, mut left) = (base, len);
        let pieces = self.random.within(1, max_sge.into());
        let mut holes = 48;
        for piece in 0..pieces {
            let length = if piece + 1 == pieces { left } else { self.random.within(0, left.into()) as u32 };
            sges.push(Sge { addr: at, length, lkey: area.key });
            left -= length;
            let hole = self.random.below(holes / 2 + 1);
            holes -= hole;
            at = at.wrapping_add(u64::from(length) + hole);
        }
        Ok(Some(Landing { slot, sges }))
    }

    pub(super) const fn id(&mut self) -> u64 {
        let id = self.next_id;
        self.next_id += 1;
        id
    }

    /// All that was posted at an end in ERR has completed, but for sends that succeeded without saying so.
    pub(super) fn check_flushed(&mut self, end: usize) -> Result<(), Violation> {
        let Side { node, qpn, receives, .. } = &self.sides[end];
        let qpn = *qpn;
        let mut taken = self.fabric.node(*node).srqs.iter().flat_map(|shared| &shared.taken);
        if let Some((_, id)) = taken.find(|(taker, _)| *taker == qpn) {
            return Err(violation!(
                "{qpn} is in ERR and shared receive {id}, which it had taken, was not flushed"
            ));
        }
        if let Some(id) = receives.front() {
            return Err(violation!("{qpn} is in ERR and receive {id} was not flushed"));
        }
        self.check_sends_flushed(end)
    }

    fn check_sends_flushed(&mut self, end: usize) -> Result<(), Violation> {
        let qpn = self.sides[end].qpn;
        for record in core::mem::take(&mut self.sides[end].sends) {
            if record.flags.contains(SendFlags::SIGNALED) {
                return Err(violation!("{qpn} has failed and send {} was not flushed", record.wr_id));
            }
            self.send_succeeded(end, record)?;
        }
        Ok(())
    }
}

const fn everything() -> Access {
    Access::LOCAL_WRITE.union(Access::REMOTE_WRITE).union(Access::REMOTE_READ).union(Access::REMOTE_ATOMIC)
}
