//! Our stack on the wire: queue pairs of `tbrdma-proto`, a toy memory, and IP packets of our own making, with no kernel in between.

use super::faults::{Record, Rule, Seen, Verdict};
use super::frame::{self, Frame, OUR_V4, OUR_V6};
use anyhow::{Context, Result};
use std::collections::{BTreeMap, VecDeque};
use std::hash::{BuildHasher, RandomState};
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::time::Instant;
use tbrdma_proto::transport::{Action, AtomicOp, Host, Incoming, Payload, Qp, Receive, Span, To, Transmit};
use tbrdma_proto::wire::icrc::{self, Flow, IdentHint};
use tbrdma_proto::wire::ip::{Datagram, MAX_DATAGRAM_HEADER_BYTES};
use tbrdma_proto::wire::{Headers, MAX_HEADER_BYTES, Packet, ROCE_UDP_PORT};
use tbrdma_proto::{
    Access, AsyncEventKind, Gid, PdHandle, QpType, Qpn, RegionError, RegionTable, Time, WorkCompletion,
};

/// The address of the first byte of the toy memory.
pub(crate) const BASE: u64 = 0x7000_0000_0000;

/// The one protection domain.
pub(crate) const PD: PdHandle = PdHandle(1);

/// The memory, who may use it, and the shared receives: what the transport asks about.
pub(crate) struct Tables {
    pub(crate) memory: Vec<u8>,
    pub(crate) regions: RegionTable<()>,
    pub(crate) shared_receives: VecDeque<Receive>,
}

impl Host for Tables {
    fn check(&self, pd: PdHandle, key: u32, needed: Access, addr: u64, len: u64) -> Result<(), RegionError> {
        self.regions.check(key, pd, needed, addr, len).map(drop)
    }

    fn invalidate(&mut self, pd: PdHandle, key: u32) -> Result<(), RegionError> {
        self.regions.check(key, pd, Access::empty(), BASE, 0).map(drop).or_else(|error| match error {
            // Only the key and its domain count here, not whether the start of memory is inside.
            RegionError::OutOfBounds { .. } => Ok(()),
            error => Err(error),
        })?;
        self.regions.remove(key);
        Ok(())
    }

    fn take_shared_receive(&mut self, receive: &mut Receive) -> bool {
        let Some(next) = self.shared_receives.pop_front() else { return false };
        *receive = next;
        true
    }
}

impl Tables {
    /// The bytes at an address of a region that is still there.
    fn bytes(&mut self, key: u32, addr: u64, len: usize) -> Option<&mut [u8]> {
        self.regions.get(key)?;
        let start = usize::try_from(addr.checked_sub(BASE)?).ok()?;
        self.memory.get_mut(start..start.checked_add(len)?)
    }
}

/// A queue pair, and the way to its peer once it has one.
pub(crate) struct Entry {
    pub(crate) qp: Qp,
    pub(crate) kind: QpType,
    pub(crate) flow: Option<Flow>,
}

/// Everything behind one lock.
pub(crate) struct Node {
    origin: Instant,
    socket: UdpSocket,
    guest: SocketAddr,
    pub(crate) tables: Tables,
    pub(crate) qps: BTreeMap<u32, Entry>,
    /// The destinations of address handles, by their number.
    pub(crate) handles: Vec<Gid>,
    pub(crate) completions: VecDeque<WorkCompletion>,
    pub(crate) events: Vec<AsyncEventKind>,
    pub(crate) rule: Option<Rule>,
    pub(crate) record: Record,
    /// Packets that came with a wrong iCRC.
    pub(crate) bad_icrc: u32,
    /// Packets that came for no queue pair.
    pub(crate) unknown_qpn: u32,
    /// A packet each way that waits for the next one to pass: the guest's, ours.
    delayed: [Option<Vec<u8>>; 2],
    ident: u16,
    entropy: RandomState,
}

impl Node {
    pub(crate) fn new(socket: UdpSocket, guest: SocketAddr, memory: usize) -> Self {
        Self {
            origin: Instant::now(),
            socket,
            guest,
            tables: Tables {
                memory: vec![0; memory],
                regions: RegionTable::new(64),
                shared_receives: VecDeque::new(),
            },
            qps: BTreeMap::new(),
            handles: Vec::new(),
            completions: VecDeque::new(),
            events: Vec::new(),
            rule: None,
            record: Record::default(),
            bad_icrc: 0,
            unknown_qpn: 0,
            delayed: [None, None],
            ident: 1,
            entropy: RandomState::new(),
        }
    }

    pub(crate) fn now(&self) -> Time {
        Time::ZERO + self.origin.elapsed()
    }

    /// An unguessable number.
    pub(crate) fn random(&self) -> u64 {
        self.entropy.hash_one(Instant::now())
    }

    /// A frame from the guest.
    pub(crate) fn handle_frame(&mut self, frame: &[u8]) {
        match frame::look(frame) {
            Frame::Ip(packet) => self.handle_ip(packet),
            Frame::Answer(answer) => self.send_frame(&answer),
            Frame::Other => {}
        }
    }

    /// Lets time pass for every queue pair, and sends what there is to send.
    pub(crate) fn advance(&mut self) {
        let now = self.now();
        for entry in self.qps.values_mut() {
            if entry.qp.poll_timeout().is_some_and(|deadline| deadline <= now) {
                entry.qp.handle_timeout(now, &mut self.tables);
            }
        }
        let numbers: Vec<_> = self.qps.keys().copied().collect();
        for number in numbers {
            self.pump(number, &[]);
        }
    }

    /// Does what a queue pair wants done, until it wants nothing more. `payload` is that of the packet it was just told of.
    fn pump(&mut self, number: u32, payload: &[u8]) {
        self.execute(number, payload);
        while let Some(frame) = self.next_frame(number) {
            if let Some((flow, headers, payload)) = frame {
                self.send_packet(&flow, &headers, &payload);
            }
            self.execute(number, &[]);
        }
    }

    fn execute(&mut self, number: u32, payload: &[u8]) {
        let Some(Entry { qp, .. }) = self.qps.get_mut(&number) else { return };
        while let Some(action) = qp.poll_action() {
            match action {
                Action::Place { key, addr, offset, len } => {
                    let (offset, len) = (offset as usize, len as usize);
                    let from = payload.get(offset..offset + len);
                    if let (Some(from), Some(to)) = (from, self.tables.bytes(key, addr, len)) {
                        to.copy_from_slice(from);
                    }
                }
                Action::Write { key, addr, bytes, len } => {
                    let from = bytes.get(..usize::from(len)).unwrap_or_default();
                    if let Some(to) = self.tables.bytes(key, addr, from.len()) {
                        to.copy_from_slice(from);
                    }
                }
                Action::Atomic { key, addr, op } => {
                    let mut old = 0;
                    if let Some(place) =
                        self.tables.bytes(key, addr, 8).and_then(|place| <&mut [u8; 8]>::try_from(place).ok())
                    {
                        old = u64::from_ne_bytes(*place);
                        let new = match op {
                            AtomicOp::FetchAdd { add } => old.wrapping_add(add),
                            AtomicOp::CompareSwap { compare, swap } if old == compare => swap,
                            AtomicOp::CompareSwap { .. } => old,
                        };
                        *place = new.to_ne_bytes();
                    }
                    qp.atomic_done(old);
                }
                Action::Complete { wc, .. } => self.completions.push_back(wc),
                Action::Event(event) => self.events.push(event),
            }
        }
    }

    /// The next packet a queue pair wants to send, gathered; within, `None` if it must not go out after all.
    fn next_frame(&mut self, number: u32) -> Option<Option<(Flow, Headers, Vec<u8>)>> {
        let now = self.now();
        let entry = self.qps.get_mut(&number)?;
        let Transmit { headers, payload, to } = entry.qp.poll_transmit(now, &mut self.tables)?;
        let flow = match to {
            To::Peer => entry.flow,
            To::Handle(handle) => {
                self.handles.get(handle as usize).and_then(|gid| flow(Qpn::masked(number), *gid).ok())
            }
        };
        Some(flow.and_then(|flow| Some((flow, headers, gather(&entry.qp, &payload, &mut self.tables)?))))
    }

    /// Sends a packet, unless the rule of the moment has something else in mind.
    pub(crate) fn send_packet(&mut self, flow: &Flow, headers: &Headers, payload: &[u8]) {
        let mut bytes = self.seal(flow, headers, payload);
        let verdict = self.judge(true, headers);
        if verdict == Verdict::Damage {
            damage(&mut bytes);
        }
        let mut frame = frame::header(if flow.is_ipv4() { 4 } else { 6 });
        frame.extend(self.ip_packet(flow, &bytes));
        for frame in self.pass(verdict, true, frame) {
            self.send_frame(&frame);
        }
    }

    /// A packet that a queue pair believes to be its peer's.
    pub(crate) fn forge(&mut self, flow: &Flow, headers: &Headers) -> Result<()> {
        let back = Flow::new(flow.destination(), flow.source())?;
        let bytes = self.seal(&back, headers, &[]);
        let packet = self.ip_packet(&back, &bytes);
        self.deliver(&packet);
        Ok(())
    }

    /// The bytes of a packet from its base transport header to its iCRC, for the next identification.
    fn seal(&mut self, flow: &Flow, headers: &Headers, payload: &[u8]) -> Vec<u8> {
        self.ident = self.ident.wrapping_mul(0x6255).wrapping_add(0x3619);
        let mut head = [0; MAX_HEADER_BYTES];
        let used = headers.encode(&mut head);
        let mut bytes = head.get(..used).unwrap_or_default().to_vec();
        bytes.extend(payload);
        bytes.resize(bytes.len() + usize::from(headers.bth.pad) + icrc::ICRC_BYTES, 0);
        // It cannot be too short: a base transport header is always there.
        let _ = icrc::seal(flow, self.ident, &mut bytes);
        bytes
    }

    fn ip_packet(&self, flow: &Flow, bytes: &[u8]) -> Vec<u8> {
        let mut headers = [0; MAX_DATAGRAM_HEADER_BYTES];
        let used = Datagram::of_flow(flow, self.ident, bytes).encode_headers(&mut headers);
        [headers.get(..used).unwrap_or_default(), bytes].concat()
    }

    fn send_frame(&self, frame: &[u8]) {
        // A datagram that the kernel refuses is a lost one, and the transport's business.
        let _ = self.socket.send_to(frame, self.guest);
    }

    fn handle_ip(&mut self, packet: &[u8]) {
        let Ok(datagram) = Datagram::parse(packet) else { return };
        if datagram.udp.destination != ROCE_UDP_PORT {
            return;
        }
        let Ok(Packet { headers, .. }) = Packet::parse(datagram.payload) else { return };
        let verdict = self.judge(false, &headers);
        for mut packet in self.pass(verdict, false, packet.to_vec()) {
            if verdict == Verdict::Damage {
                damage(&mut packet);
            }
            self.deliver(&packet);
        }
    }

    /// A packet that came, past all faults.
    fn deliver(&mut self, packet: &[u8]) {
        let Ok(datagram) = Datagram::parse(packet) else { return };
        let Ok(flow) = datagram.flow() else { return };
        let hint = datagram.ident().map_or(IdentHint::Unknown, IdentHint::Known);
        if icrc::verify(&flow, hint, datagram.payload).is_err() {
            self.bad_icrc += 1;
            return;
        }
        let Ok(packet) = Packet::parse(datagram.payload) else { return };
        let number = packet.headers.bth.dest_qpn.get();
        let now = self.now();
        let Some(entry) = self.qps.get_mut(&number) else {
            self.unknown_qpn += 1;
            return;
        };
        let (grh, congestion) = (datagram.ip.grh(), datagram.ip.congestion());
        entry.qp.handle_packet(now, &Incoming { packet: &packet, grh: &grh, congestion }, &mut self.tables);
        self.pump(number, packet.payload);
    }

    fn judge(&mut self, ours: bool, headers: &Headers) -> Verdict {
        let mut seen = Seen { at: self.now(), ours, headers: *headers, verdict: Verdict::Pass };
        if let Some(rule) = &mut self.rule {
            seen.verdict = rule(&seen);
        }
        self.record.0.push(seen);
        seen.verdict
    }

    /// What goes on after a verdict: none, one or two packets.
    fn pass(&mut self, verdict: Verdict, ours: bool, packet: Vec<u8>) -> Vec<Vec<u8>> {
        let [guests, own] = &mut self.delayed;
        let delayed = if ours { own } else { guests };
        let mut out = match verdict {
            Verdict::Lose => Vec::new(),
            Verdict::Repeat => vec![packet.clone(), packet],
            Verdict::Pass | Verdict::Damage => vec![packet],
            Verdict::Delay => {
                return delayed.replace(packet).into_iter().collect();
            }
        };
        out.extend(delayed.take());
        out
    }
}

/// The flow to a peer, from a port of its own for each queue pair, as routers that spread load like it.
pub(crate) fn flow(ours: Qpn, peer: Gid) -> Result<Flow> {
    let to = IpAddr::from(peer).to_canonical();
    let from = if to.is_ipv4() { IpAddr::V4(OUR_V4) } else { IpAddr::V6(OUR_V6) };
    let port = 0xc000 | (ours.get() & 0x3fff) as u16;
    Flow::new(SocketAddr::new(from, port), SocketAddr::new(to, ROCE_UDP_PORT)).context("no way to the peer")
}

fn gather(qp: &Qp, payload: &Payload, tables: &mut Tables) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(payload.len() as usize);
    for span in qp.spans(payload) {
        match span {
            Span::Region { key, addr, len } => {
                bytes.extend_from_slice(tables.bytes(key, addr, len as usize)?)
            }
            Span::Bytes(inline) => bytes.extend_from_slice(inline),
        }
    }
    Some(bytes)
}

/// Turns over one bit of the iCRC.
fn damage(packet: &mut [u8]) {
    if let Some(last) = packet.last_mut() {
        *last ^= 1;
    }
}
