//! One pass over the device: what the network brought, what time brought, what waits to be sent.

use super::core::{Core, QpTable, lock, read};
use super::host::SoftHost;
use super::path::flow;
use super::qp::{Inner, SoftQp};
use super::transmit::{Left, transmit};
use crate::link::{Datagram, ReceiveScratch};
use crate::mem::continue_crc;
use crate::sync::Ordering;
use crate::verbs::event::{AsyncEvent, EventSource};
use tbrdma_proto::transport::{DropCounters, DropReason, Incoming, Pending, QpView, admit};
use tbrdma_proto::wire::icrc::{Flow, ICRC_BYTES, IdentHint, verify_by};
use tbrdma_proto::wire::ip::IpHeader;
use tbrdma_proto::wire::{GRH_BYTES, Packet};
use tbrdma_proto::{AsyncEventKind, Gid, QpType, Time, limits};

/// Flows whose beginnings are kept at hand.
const FLOWS: usize = 64;
/// Packets in a row with the identification that our own software gives, after which no other is believed of that flow.
const CONVINCED: u8 = 8;
/// Expired timers handled in a pass.
const TIMERS_PER_PASS: u32 = 64;

/// What only the holder of the receive lock touches.
#[derive(Default)]
pub(crate) struct Receiver {
    scratch: ReceiveScratch,
    flows: Flows,
    /// Queue pairs that got packets in this pass.
    touched: Vec<u32>,
    /// Queue pairs whose acknowledgement may wait for something to ride on: until the pass after next begins.
    deferred: Vec<u32>,
    /// Those of the pass before, which have waited long enough.
    due: Vec<u32>,
    /// Queue pairs that had more to send than their share.
    unfinished: Vec<u32>,
    /// Packets that no queue pair ever saw.
    pub(crate) drops: DropCounters,
    /// The link has failed; it is said once.
    is_broken: bool,
}

/// Who makes a pass.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Who {
    /// A thread of the application, which is likely to post an answer now.
    Application,
    /// The service thread.
    Service,
}

impl Core {
    /// The application polls: the service thread can step aside.
    #[inline]
    pub(crate) fn is_polled(&self) {
        // Seldom written, so that pollers do not take the line from each other.
        if !self.polled.load(Ordering::Relaxed) {
            self.polled.store(true, Ordering::Relaxed);
        }
    }

    /// One pass by a thread of the application that has found nothing to poll.
    #[inline]
    pub(crate) fn poll_once(&self) {
        if let Some(network) = self.network() {
            return network.poll();
        }
        self.is_polled();
        self.pass(self.now(), Who::Application);
    }

    /// One pass, unless somebody else is at it. If it found anything to do, how many packets came.
    pub(crate) fn pass(&self, now: Time, who: Who) -> Option<usize> {
        let Ok(mut receiver) = self.receiver.try_lock() else { return None };
        if self.arms.load(Ordering::SeqCst) == 0 {
            return self.pass_through(&mut receiver, now, who);
        }
        lock(&self.signals).hold();
        let busy = self.pass_through(&mut receiver, now, who);
        lock(&self.signals).release();
        busy
    }

    /// The pass itself. If it may raise an event, no acknowledgement is put aside: it shall leave before the event wakes the program.
    fn pass_through(&self, receiver: &mut Receiver, now: Time, who: Who) -> Option<usize> {
        let arms = self.arms.load(Ordering::SeqCst);
        let was_armed = self.armed.load(Ordering::SeqCst) != 0;
        let somebody_waits = || was_armed || self.arms.load(Ordering::SeqCst) != arms;
        if self.link.deadline().is_some_and(|deadline| deadline <= now) {
            self.link.poll(now);
        }
        std::mem::swap(&mut receiver.due, &mut receiver.deferred);
        let table = read(&self.qps);
        let received = self.receive(receiver, &table, now);
        let mut busy = received > 0;
        let Receiver { touched, deferred, due, unfinished, .. } = receiver;
        for qpn in touched.drain(..) {
            let Some(qp) = table.get(&qpn) else { continue };
            let mut inner = lock(&qp.inner);
            let may_wait = match inner.qp.pending(now) {
                Pending::Nothing => {
                    self.keep_timer(qpn, &mut inner);
                    continue;
                }
                Pending::AckOnly => who == Who::Application && !somebody_waits() && !due.contains(&qpn),
                Pending::More => false,
            };
            if may_wait {
                deferred.push(qpn);
            } else {
                qp.send_now(&mut inner, now, unfinished);
            }
            self.keep_timer(qpn, &mut inner);
        }
        due.append(unfinished);
        if self.unfinished.load(Ordering::Relaxed) != 0 {
            self.unfinished.store(0, Ordering::Relaxed);
            due.append(&mut lock(&self.unfinished_list));
        }
        if !self.stalled.is_empty() {
            self.send_left_behind(now);
            self.stalled.take(due);
        }
        for qpn in due.drain(..) {
            let Some(qp) = table.get(&qpn) else { continue };
            let mut inner = lock(&qp.inner);
            inner.is_stalled = false;
            if inner.qp.pending(now) == Pending::Nothing && inner.waiting.is_empty() {
                continue;
            }
            busy |= qp.send_now(&mut inner, now, unfinished);
            self.keep_timer(qpn, &mut inner);
        }
        for _ in 0..TIMERS_PER_PASS {
            let Some(qpn) = self.timers.expired(now) else { break };
            if let Some(qp) = table.get(&qpn) {
                busy |= qp.time_has_come(now);
            }
        }
        (busy || !unfinished.is_empty()).then_some(received)
    }

    /// Takes what has arrived to its queue pairs; how many packets.
    fn receive(&self, receiver: &mut Receiver, table: &QpTable, now: Time) -> usize {
        let Receiver { scratch, flows, touched, drops, is_broken, .. } = receiver;
        let mut sink = |datagram: &Datagram<'_>| match self.handle(datagram, flows, table, now) {
            Ok(qpn) if touched.last() == Some(&qpn) || touched.contains(&qpn) => {}
            Ok(qpn) => touched.push(qpn),
            Err(reason) => drops.count(reason),
        };
        match self.link.receive(now, scratch, &mut sink) {
            Ok(count) => count,
            Err(_) => {
                if !std::mem::replace(is_broken, true) {
                    let source = EventSource::Port(limits::PORT);
                    self.events.push(AsyncEvent { kind: AsyncEventKind::PortErr, source });
                }
                0
            }
        }
    }

    /// Handles one packet: the number of the queue pair that got it.
    #[inline]
    fn handle(
        &self,
        datagram: &Datagram<'_>,
        flows: &mut Flows,
        table: &QpTable,
        now: Time,
    ) -> Result<u32, DropReason> {
        let packet = Packet::parse(datagram.payload).map_err(|_| DropReason::Malformed)?;
        let qpn = packet.headers.bth.dest_qpn.get();
        let qp = table.get(&qpn).ok_or(DropReason::UnknownQp)?;
        let destination = self.gid(datagram.gid_index);
        let mut guard = lock(&qp.inner);
        let inner = &mut *guard;
        let view = QpView {
            qp_type: qp.qp_type,
            state: inner.qp.state(),
            pkey: limits::DEFAULT_PKEY,
            qkey: inner.qkey,
            path: inner.path.map(|path| (path.to, path.source)),
        };
        admit(&packet.headers, &datagram.source, &destination, &view)?;
        let is_believed = self.promises.intact && datagram.payload.ends_with(&[0; ICRC_BYTES]);
        let header;
        let mut grh = &[0; GRH_BYTES];
        if !is_believed || qp.qp_type == QpType::Ud {
            let flow = flows.find(datagram, destination).ok_or(DropReason::Destination)?;
            let ident = match is_believed {
                true => datagram.ident_hint,
                false => flow.verify(datagram).ok_or(DropReason::Icrc)?,
            };
            if qp.qp_type == QpType::Ud {
                header = routing_header(&flow.flow, ident, datagram);
                grh = &header;
            }
        }
        let incoming = Incoming { packet: &packet, grh, congestion: datagram.congestion() };
        inner.qp.handle_packet(now, &incoming, &mut qp.host(&mut inner.taken));
        qp.carry_out(inner, packet.payload);
        Ok(qpn)
    }
}

/// The routing header that a datagram's receiver gets.
fn routing_header(flow: &Flow, ident: u16, datagram: &Datagram<'_>) -> [u8; GRH_BYTES] {
    let mut header = IpHeader::of_flow(flow, ident, datagram.payload.len() as u16);
    match &mut header {
        IpHeader::V4(header) => {
            header.tos = datagram.traffic_class;
            header.ttl = datagram.hop_limit;
        }
        IpHeader::V6(header) => {
            header.traffic_class = datagram.traffic_class;
            header.hop_limit = datagram.hop_limit;
        }
    }
    header.grh()
}

/// The senders heard of late.
#[derive(Default)]
struct Flows {
    all: Vec<KnownFlow>,
    last: usize,
    victim: usize,
}

/// A sender's address and port and the GID of ours it sends to.
struct KnownFlow {
    source: Gid,
    port: u16,
    gid_index: u8,
    flow: Flow,
    /// Packets in a row whose identification was the one that our own software gives.
    ours: u8,
}

impl Flows {
    #[inline]
    fn find(&mut self, datagram: &Datagram<'_>, our_gid: Gid) -> Option<&mut KnownFlow> {
        let is_it = |known: &KnownFlow| {
            known.source == datagram.source
                && known.port == datagram.source_port
                && known.gid_index == datagram.gid_index
        };
        if !self.all.get(self.last).is_some_and(is_it) {
            self.last = match self.all.iter().position(is_it) {
                Some(at) => at,
                None => self.add(datagram, our_gid)?,
            };
        }
        self.all.get_mut(self.last)
    }

    #[cold]
    fn add(&mut self, datagram: &Datagram<'_>, our_gid: Gid) -> Option<usize> {
        let known = KnownFlow {
            source: datagram.source,
            port: datagram.source_port,
            gid_index: datagram.gid_index,
            flow: flow(datagram.source, datagram.source_port, our_gid)?,
            ours: 0,
        };
        if self.all.len() < FLOWS {
            self.all.push(known);
            return Some(self.all.len() - 1);
        }
        self.victim = (self.victim + 1) % FLOWS;
        *self.all.get_mut(self.victim)? = known;
        Some(self.victim)
    }
}

impl KnownFlow {
    /// Checks a packet's iCRC; the identification that its IPv4 header had, 0 for IPv6.
    ///
    /// The kernel does not tell it. Software like ours numbers the packets of a train; when the network coalesces trains of one packet, each
    /// bears a zero. Others choose freely: then it follows from the iCRC, which checks 16 bits less. Who has proved to be like us is
    /// held to it.
    #[inline]
    fn verify(&mut self, datagram: &Datagram<'_>) -> Option<u16> {
        let packet = datagram.payload;
        for ident in [datagram.ident_hint, 0] {
            if verify_by(&self.flow, IdentHint::Known(ident), packet, continue_crc).is_ok() {
                self.ours = self.ours.saturating_add(1);
                return Some(ident);
            }
            if ident == 0 {
                break;
            }
        }
        if self.ours >= CONVINCED {
            return None;
        }
        let found = verify_by(&self.flow, IdentHint::Unknown, packet, continue_crc).ok()?;
        self.ours = 0;
        Some(found.unwrap_or(0))
    }
}

impl SoftQp {
    /// What the transport may ask on behalf of this queue pair.
    #[inline]
    pub(crate) fn host<'a>(&'a self, taken: &'a mut Option<u32>) -> SoftHost<'a> {
        SoftHost { core: &self.core, qpn: self.qpn, srq: self.srq.as_deref(), taken }
    }

    /// Sends what it has to send, and remembers if there is more. False if there was no room.
    fn send_now(&self, inner: &mut Inner, now: Time, unfinished: &mut Vec<u32>) -> bool {
        let left = transmit(self, inner, now);
        // Sending completes what nobody acknowledges.
        self.carry_out(inner, &[]);
        match left {
            Left::Nothing => {}
            Left::More => unfinished.push(self.qpn.get()),
            Left::NoRoom => self.core.waits_for_room(self.qpn.get(), inner),
        }
        left != Left::NoRoom
    }

    /// Its moment has come. True if something was due indeed.
    fn time_has_come(&self, now: Time) -> bool {
        let mut guard = lock(&self.inner);
        let inner = &mut *guard;
        // If somebody has set another one meanwhile, there is one look too many.
        inner.timer = Time::NEVER;
        let due = inner.qp.poll_timeout().is_some_and(|deadline| deadline <= now);
        if due {
            inner.qp.handle_timeout(now, &mut self.host(&mut inner.taken));
            self.settle(inner, now);
        } else {
            self.core.keep_timer(self.qpn.get(), inner);
        }
        due
    }
}
