//! Nodes, the links between them, and the one loop that moves virtual time.

use core::cmp::Reverse;
use core::time::Duration;
use std::collections::BinaryHeap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::memory::{Violation, violation};
use super::node::{Node, SharedQueue, Slot};
use super::trace::{Discard, Happening, Trace};
use crate::fault::{Chance, Fate, FaultPlan, Faults, Random};
use crate::ident::{Gid, Qpn};
use crate::time::Time;
use crate::transport::{Incoming, Pending, Qp, Srq, Transmit};
use crate::wire::icrc::{self, Flow, IdentHint};
use crate::wire::ip::IpHeader;
use crate::wire::{MAX_HEADER_BYTES, Packet, ROCE_UDP_PORT};

/// The UDP port that simulated nodes send from.
const SOURCE_PORT: u16 = 0xc000;

/// Happenings that a trace keeps.
const TRACE_KEEP: usize = 120;

/// How much has happened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Packets sent.
    pub packets: u64,
    /// Bytes of them, from the base transport header to the iCRC.
    pub bytes: u64,
    /// Packets that the links lost.
    pub lost: u64,
    /// Steps of the loop.
    pub steps: u64,
}

/// One direction between two nodes.
#[derive(Debug)]
struct Link {
    faults: Faults,
    flow: Flow,
}

/// A packet on its way. Ordered by time, then by number, so that equal times keep the order of sending.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Flight {
    at: Time,
    number: u64,
    from: usize,
    to: usize,
    bytes: Vec<u8>,
}

/// A network of simulated nodes, each linked with each and with itself.
///
/// Whoever uses it posts work and changes queue pairs through its methods, calls [`step`](Self::step) or
/// [`run_until`](Self::run_until), and looks at what came out: completions in [`Node::cqs`], everything in
/// [`take_seen`](Self::take_seen). All follows from the seed and the calls.
#[derive(Debug)]
pub struct Fabric {
    now: Time,
    nodes: Vec<Node>,
    links: Vec<Link>,
    flying: BinaryHeap<Reverse<Flight>>,
    sent: u64,
    seed: Random,
    trace: Trace,
    observed: bool,
    seen: Vec<(Time, usize, Happening)>,
    happened: Vec<Happening>,
    broken: Option<Violation>,
    totals: Totals,
    spare: Vec<Vec<u8>>,
    /// How long an acknowledgement that may wait does wait.
    pub ack_delay: Duration,
    /// How likely a packet that arrives has met congestion on its way (ECN).
    pub marks: Chance,
    dice: Random,
}

impl Fabric {
    /// So many nodes, linked by links that all have this plan.
    pub fn new(nodes: usize, plan: &FaultPlan, seed: u64) -> Self {
        Self::with_addresses(nodes, plan, seed, false)
    }

    /// The same with IPv6 addresses if `ipv6`, and IPv4 ones if not.
    pub fn with_addresses(nodes: usize, plan: &FaultPlan, seed: u64, ipv6: bool) -> Self {
        let mut seed = Random::new(seed);
        let mut link_seeds = seed.stream(1);
        let address = |node: usize| -> IpAddr {
            let last = node as u16 + 1;
            if ipv6 {
                Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, last).into()
            } else {
                Ipv4Addr::new(10, 0, (last >> 8) as u8, last as u8).into()
            }
        };
        let mut links = Vec::with_capacity(nodes * nodes);
        for from in 0..nodes {
            for to in 0..nodes {
                let source = SocketAddr::new(address(from), SOURCE_PORT);
                let destination = SocketAddr::new(address(to), ROCE_UDP_PORT);
                if let Ok(flow) = Flow::new(source, destination) {
                    links.push(Link { faults: Faults::new(plan.clone(), link_seeds.next_u64()), flow });
                }
            }
        }
        Self {
            now: Time::ZERO,
            nodes: (0..nodes).map(|node| Node::new(Gid::from(address(node)), seed.next_u64())).collect(),
            links,
            flying: BinaryHeap::new(),
            sent: 0,
            seed,
            trace: Trace::new(TRACE_KEEP),
            observed: false,
            seen: Vec::new(),
            happened: Vec::new(),
            broken: None,
            totals: Totals::default(),
            spare: Vec::new(),
            ack_delay: Duration::ZERO,
            marks: Chance::NEVER,
            dice: link_seeds,
        }
    }

    /// What time it is.
    pub const fn now(&self) -> Time {
        self.now
    }

    /// A node. Nodes are counted from 0; a number too high is the last one.
    pub fn node(&self, node: usize) -> &Node {
        &self.nodes[node.min(self.nodes.len() - 1)]
    }

    /// The same, to change it. What its queue pairs are told goes through the methods here.
    pub fn node_mut(&mut self, node: usize) -> &mut Node {
        let last = self.nodes.len() - 1;
        &mut self.nodes[node.min(last)]
    }

    /// How many nodes there are.
    pub const fn len(&self) -> usize {
        self.nodes.len()
    }

    /// Whether there are none.
    pub const fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }

    /// What happened last, and the number made of all of it.
    pub const fn trace(&self) -> &Trace {
        &self.trace
    }

    /// The same, to change how it is kept.
    pub const fn trace_mut(&mut self) -> &mut Trace {
        &mut self.trace
    }

    /// How much has happened.
    pub const fn totals(&self) -> Totals {
        self.totals
    }

    /// From now on, [`take_seen`](Self::take_seen) tells everything that happens.
    pub const fn observe(&mut self) {
        self.observed = true;
    }

    /// What happened since the last call, where and when, if it is observed.
    pub fn take_seen(&mut self, into: &mut Vec<(Time, usize, Happening)>) {
        into.clear();
        core::mem::swap(into, &mut self.seen);
    }

    /// Something that must not happen happened: what first.
    pub const fn broken(&self) -> Option<&Violation> {
        self.broken.as_ref()
    }

    /// How packets are sent from one node to another from now on.
    pub fn set_plan(&mut self, from: usize, to: usize, plan: &FaultPlan) {
        let (seed, now) = (self.seed.next_u64(), self.now);
        let count = self.nodes.len();
        if let Some(link) = self.links.get_mut(from * count + to) {
            link.faults = Faults::starting_at(plan.clone(), seed, now);
        }
    }

    /// How packets are sent from anywhere to anywhere from now on.
    pub fn set_plans(&mut self, plan: &FaultPlan) {
        for from in 0..self.nodes.len() {
            for to in 0..self.nodes.len() {
                self.set_plan(from, to, plan);
            }
        }
    }

    /// A node loses everything but its address. What it had sent is still on its way.
    pub fn restart(&mut self, node: usize) {
        let seed = self.seed.next_u64();
        let node_mut = self.node_mut(node);
        *node_mut = Node::new(node_mut.gid, seed);
        self.record(node, Happening::Restarted);
    }

    /// Adds a shared receive queue to a node and answers its number.
    pub fn add_srq(&mut self, node: usize, srq: Srq) -> usize {
        let srqs = &mut self.node_mut(node).srqs;
        srqs.push(SharedQueue { srq, taken: Vec::new() });
        srqs.len() - 1
    }

    /// Packets on their way.
    pub fn flying(&self) -> usize {
        self.flying.len()
    }

    /// When something happens next by itself; `None` if never.
    pub fn next_time(&self) -> Option<Time> {
        let arrival = self.flying.peek().map(|Reverse(flight)| flight.at);
        let timers = self.nodes.iter().flat_map(|node| node.qps.values()).filter_map(Slot::deadline);
        timers.chain(arrival).min()
    }

    /// Does the next thing that happens by itself, and answers whether there was one.
    ///
    /// # Errors
    /// Something happened that must not.
    pub fn step(&mut self) -> Result<bool, Violation> {
        match self.next_time() {
            Some(next) => self.run_one(next).map(|()| true),
            None => self.sound().map(|()| false),
        }
    }

    /// Does everything that happens by itself up to `until`, which it then is.
    ///
    /// # Errors
    /// Something happened that must not.
    pub fn run_until(&mut self, until: Time) -> Result<(), Violation> {
        while let Some(next) = self.next_time().filter(|&next| next <= until) {
            self.run_one(next)?;
        }
        self.now = self.now.max(until);
        self.sound()
    }

    fn run_one(&mut self, next: Time) -> Result<(), Violation> {
        self.totals.steps += 1;
        self.now = self.now.max(next);
        if self.flying.peek().is_some_and(|Reverse(flight)| flight.at <= self.now) {
            if let Some(Reverse(flight)) = self.flying.pop() {
                self.arrive(flight);
            }
        } else {
            self.fire_timer();
        }
        self.sound()
    }

    fn sound(&self) -> Result<(), Violation> {
        self.broken.as_ref().map_or(Ok(()), |violation| Err(violation.clone()))
    }

    /// Runs `call` on a queue pair, does what it asks for, and sends what it has to send. `None` if there is no such queue pair.
    pub(super) fn touch<R>(
        &mut self,
        node: usize,
        qpn: Qpn,
        call: impl FnOnce(Time, &mut Qp, &mut super::node::View<'_>) -> R,
    ) -> Option<R> {
        let answer = self.with(node, qpn, &[], call);
        self.pump(node, qpn);
        answer
    }

    fn with<R>(
        &mut self,
        node: usize,
        qpn: Qpn,
        payload: &[u8],
        call: impl FnOnce(Time, &mut Qp, &mut super::node::View<'_>) -> R,
    ) -> Option<R> {
        let now = self.now;
        let mut happened = core::mem::take(&mut self.happened);
        let result = self.node_mut(node).with(qpn, payload, &mut happened, |qp, view| call(now, qp, view));
        for happening in happened.drain(..) {
            self.record(node, happening);
        }
        self.happened = happened;
        result.unwrap_or_else(|violation| {
            self.fail(violation);
            None
        })
    }

    pub(super) fn record(&mut self, node: usize, happening: Happening) {
        self.trace.push(self.now, node, happening);
        if self.observed {
            self.seen.push((self.now, node, happening));
        }
    }

    fn fail(&mut self, violation: Violation) {
        self.broken.get_or_insert(violation);
    }

    fn fire_timer(&mut self) {
        let now = self.now;
        let due = self.nodes.iter().enumerate().find_map(|(number, node)| {
            let due = |slot: &Slot| slot.deadline().is_some_and(|deadline| deadline <= now);
            node.qps.iter().find(|(_, slot)| due(slot)).map(|(&qpn, _)| (number, qpn))
        });
        let Some((node, qpn)) = due else { return };
        self.with(node, qpn, &[], |now, qp, view| {
            if qp.poll_timeout().is_some_and(|deadline| deadline <= now) {
                qp.handle_timeout(now, view);
            }
        });
        self.pump(node, qpn);
    }

    fn arrive(&mut self, flight: Flight) {
        let Flight { from, to, bytes, .. } = flight;
        let happening = self.deliver(from, to, &bytes);
        if let Some(why) = happening.err() {
            self.record(to, Happening::Discarded { from, why });
        }
        self.recycle(bytes);
    }

    fn deliver(&mut self, from: usize, to: usize, bytes: &[u8]) -> Result<(), Discard> {
        let flow = self.links[from * self.nodes.len() + to].flow;
        icrc::verify(&flow, IdentHint::Known(0), bytes).map_err(|_| Discard::BadIcrc)?;
        let packet = Packet::parse(bytes).map_err(|_| Discard::Malformed)?;
        let Packet { headers, payload } = packet;
        let qpn = headers.bth.dest_qpn;
        let source = self.node(from).gid;
        let slot = self.node(to).qps.get(&qpn).ok_or(Discard::NoQueuePair)?;
        if slot.qp_type.is_connected() && slot.peer != source {
            return Err(Discard::Stranger);
        }
        self.record(to, Happening::Arrived { qpn, from, headers, len: payload.len() });
        let grh = IpHeader::of_flow(&flow, 0, bytes.len() as u16).grh();
        let congestion =
            !self.marks.is_never() && self.marks.parts() as u64 > self.dice.below(Chance::WHOLE.into());
        let incoming = Incoming { packet: &packet, grh: &grh, congestion };
        self.with(to, qpn, payload, |now, qp, view| qp.handle_packet(now, &incoming, view));
        self.pump(to, qpn);
        Ok(())
    }

    /// Sends what a queue pair has to send.
    pub(super) fn pump(&mut self, node: usize, qpn: Qpn) {
        let now = self.now;
        while self.broken.is_none() {
            let Some(slot) = self.nodes[node].qps.get_mut(&qpn) else { return };
            let pending = slot.qp.pending(now);
            match pending {
                Pending::Nothing => slot.ack_due = None,
                // What was due stays due, however much else is sent in between.
                Pending::More => {}
                Pending::AckOnly if *slot.ack_due.get_or_insert(now + self.ack_delay) > now => return,
                Pending::AckOnly => slot.ack_due = None,
            }
            let mut payload = self.spare.pop().unwrap_or_default();
            // Its actions come after the packet: a datagram completes when it is sent.
            let transmit = self.nodes[node].transmit(now, qpn, &mut payload);
            let done = transmit.is_none();
            match transmit {
                None => {}
                Some(_) if pending == Pending::Nothing => {
                    self.fail(violation!("{qpn} of node {node} had nothing pending, and then a packet"));
                }
                Some((_, Err(violation))) => self.fail(violation),
                Some((_, Ok(false))) => {}
                Some((transmit, Ok(true))) => self.send(node, qpn, &transmit, &payload),
            }
            self.recycle(payload);
            self.with(node, qpn, &[], |_, _, _| ());
            if done {
                return;
            }
        }
    }

    /// Puts a packet on a link.
    fn send(&mut self, from: usize, qpn: Qpn, transmit: &Transmit, payload: &[u8]) {
        let destination = self.nodes[from].destination(qpn, transmit.to);
        let to = destination.and_then(|gid| self.nodes.iter().position(|node| node.gid == gid));
        let Some(to) = to else {
            return self
                .fail(violation!("{qpn} of node {from} sends to {:?}, which is nowhere", transmit.to));
        };
        let headers = transmit.headers;
        let mut head = [0; MAX_HEADER_BYTES];
        let head_len = headers.encode(&mut head);
        if !(head_len + payload.len() + usize::from(headers.bth.pad)).is_multiple_of(4) {
            return self
                .fail(violation!("{qpn} of node {from}: padding is wrong for {} bytes", payload.len()));
        }
        let mut bytes = self.spare.pop().unwrap_or_default();
        bytes.extend_from_slice(&head[..head_len]);
        bytes.extend_from_slice(payload);
        bytes.resize(headers.packet_len(payload.len()), 0);
        let link = &mut self.links[from * self.nodes.len() + to];
        if let Err(error) = icrc::seal(&link.flow, 0, &mut bytes) {
            return self.fail(violation!("{qpn} of node {from}: {error}"));
        }
        let fate = link.faults.apply(self.now, bytes.len());
        self.totals.packets += 1;
        self.totals.bytes += bytes.len() as u64;
        self.record(from, Happening::Sent { qpn, to, headers, len: payload.len(), fate });
        match fate {
            Fate::Dropped(_) => {
                self.totals.lost += 1;
                self.recycle(bytes);
            }
            Fate::Delivered { first, second } => {
                let copy = second.map(|second| {
                    let mut copy = self.spare.pop().unwrap_or_default();
                    copy.extend_from_slice(&bytes);
                    second.damage(&mut copy);
                    (second.at, copy)
                });
                first.damage(&mut bytes);
                self.fly(first.at, from, to, bytes);
                if let Some((at, copy)) = copy {
                    self.fly(at, from, to, copy);
                }
            }
        }
    }

    fn fly(&mut self, at: Time, from: usize, to: usize, bytes: Vec<u8>) {
        let number = self.sent;
        self.sent += 1;
        self.flying.push(Reverse(Flight { at, number, from, to, bytes }));
    }

    fn recycle(&mut self, mut buffer: Vec<u8>) {
        buffer.clear();
        if self.spare.len() < 64 {
            self.spare.push(buffer);
        }
    }
}
