//! The link itself: sending and receiving.

use super::super::{Datagram, Link, LinkState, QpnTag, ROCE_PORT, ReceiveScratch, Train, flow};
use super::PREFIX;
use super::counters::Counters;
use super::interfaces::Interface;
use super::receiving::{Receiving, Wish};
use super::slot::Slot;
use super::socket::{Socket, address, gid};
use super::state::InterfaceState;
use crate::error::{Error, Result};
use crate::sync::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use crate::sys::epoll::Epoll;
use crate::sys::udp::{self, Envelope, Telling};
use crate::sys::uring::ReceiveRing;
use nix::libc;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use tbrdma_proto::wire::icrc::{Flow, seal};
use tbrdma_proto::{Gid, Mtu, Time};

/// After so many looks at the socket that was last busy, the others are looked at as well.
pub(super) const LOOK_ASIDE: u32 = 8;

/// After so many packets in a row it is trains that come.
const MANY: u32 = 4;

/// RoCEv2 over the UDP sockets of one network interface.
#[derive(Debug)]
pub(crate) struct UdpLink {
    name: String,
    pub(super) interface: Interface,
    pub(super) slot: Slot,
    /// One for each GID, opened when it is first used.
    pub(super) sockets: Vec<OnceLock<Socket>>,
    /// Held while a socket is opened, so that it is opened once, and by those who do something to all of them.
    pub(super) opening: Mutex<()>,
    /// All that may become readable; sockets only while somebody waits for that. For each packet that arrives at a socket in such a set,
    /// the kernel takes locks and wakes whom it finds, in the time of the sender.
    epoll: Epoll,
    watched: AtomicBool,
    /// The GID whose socket had something last.
    busy: AtomicU32,
    looks: AtomicU32,
    pub(super) receiving: Receiving,
    /// Whether sockets tell all they can of a message.
    tells_all: AtomicBool,
    /// When a search for positions wants to go on, in nanoseconds.
    pub(super) steering_due: AtomicU64,
    /// Whether the kernel splits trains for us.
    segmentation: AtomicBool,
    /// Its sockets are about to close.
    pub(super) closing: bool,
    pub(super) counters: Counters,
    state: InterfaceState,
}

impl UdpLink {
    /// Opens the device of an interface.
    ///
    /// # Errors
    /// There is no such interface that is up and has an address, or the system refuses what the link needs.
    pub(crate) fn open(interface_name: &str) -> Result<Self> {
        Self::open_with(interface_name, Wish::from_environment()?)
    }

    /// The same, received in a way of the caller's choice.
    pub(super) fn open_with(interface_name: &str, wish: Wish) -> Result<Self> {
        let os = |what| Error::os("open_device", what);
        let interfaces = Interface::all().map_err(os("list the network interfaces"))?;
        let names: Vec<_> = interfaces.iter().map(|known| format!("{PREFIX}{}", known.name)).collect();
        let interface =
            interfaces.into_iter().find(|known| known.name == interface_name).ok_or_else(|| {
                Error::NoSuchDevice { name: format!("{PREFIX}{interface_name}"), known: names.join(", ") }
            })?;
        let epoll = Epoll::new().map_err(os("create an epoll set"))?;
        let slot = Slot::claim(&interface.name)?;
        epoll.add(&slot, 0).map_err(os("watch the slot's socket"))?;
        let receiving = Receiving::new(wish, interface.gids.len());
        if let Some(ring) = receiving.ring() {
            epoll.add(&*ring, 0).map_err(os("watch the ring"))?;
        }
        Ok(Self {
            name: format!("{PREFIX}{}", interface.name),
            state: InterfaceState::of(&interface.name),
            sockets: interface.gids.iter().map(|_| OnceLock::new()).collect(),
            interface,
            slot,
            opening: Mutex::new(()),
            epoll,
            watched: AtomicBool::new(true),
            busy: AtomicU32::new(0),
            looks: AtomicU32::new(0),
            receiving,
            tells_all: AtomicBool::new(false),
            steering_due: AtomicU64::new(u64::MAX),
            segmentation: AtomicBool::new(true),
            closing: false,
            counters: Counters::default(),
        })
    }

    /// As if the kernel had refused to split a train.
    #[cfg(test)]
    pub(super) fn forbid_trains(&self) {
        self.segmentation.store(false, Ordering::Relaxed);
    }

    /// The socket of a GID, if it is open.
    pub(super) fn socket(&self, gid_index: u8) -> Option<&Socket> {
        self.sockets.get(usize::from(gid_index))?.get()
    }

    /// The socket of a GID, opened if it was not.
    fn open_socket(&self, gid_index: u8) -> Result<&Socket> {
        let place = self.sockets.get(usize::from(gid_index));
        let gid = self.interface.gids.get(usize::from(gid_index)).filter(|gid| !gid.is_zero());
        let (Some(place), Some(gid)) = (place, gid) else {
            return Err(Error::InvalidArgument {
                call: "open_gid",
                reason: format!("{} has no address at GID index {gid_index}", self.name),
            });
        };
        let opening = self.opening.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(socket) = place.get() {
            return Ok(socket);
        }
        let socket = Socket::open(&self.interface, *gid, self.slot.tag().0)?;
        let telling = self.telling();
        socket.tell(telling);
        // Of a train over IPv4 that comes apart, each packet has an identification that is not told.
        if telling != Telling::Nothing || socket.address.ip.is_ipv4() || self.receiving.ring().is_some() {
            socket.coalesce();
        }
        if self.watched.load(Ordering::Relaxed) {
            self.epoll.add(&socket, 0).map_err(Error::os("open_gid", "watch a UDP socket"))?;
        }
        let socket = place.get_or_init(|| socket);
        self.receiving.add(gid_index, socket.as_fd());
        drop(opening);
        self.settle(gid_index, socket);
        self.note_steering();
        Ok(socket)
    }

    /// What sockets are to tell of each message.
    fn telling(&self) -> Telling {
        if self.tells_all.load(Ordering::Relaxed) {
            Telling::All
        } else if self.interface.is_loopback {
            Telling::Nothing
        } else {
            Telling::Class
        }
    }

    /// Takes one batch from a GID's socket; says how many messages there were.
    pub(super) fn receive_from(
        &self,
        now: Time,
        gid_index: u8,
        socket: &Socket,
        scratch: &mut ReceiveScratch,
        delivery: &mut Delivery<'_>,
    ) -> io::Result<usize> {
        let count = if socket.coalesces() {
            let most = if scratch.streak { udp::BATCH } else { 1 };
            scratch.batch.receive(socket.as_fd(), most)?
        } else {
            let count = scratch.batch.receive_plain(socket.as_fd())?;
            scratch.in_a_row = if count == 0 { 0 } else { scratch.in_a_row + 1 };
            if scratch.in_a_row >= MANY {
                socket.coalesce();
            }
            count
        };
        for index in 0..count {
            match scratch.batch.message(index) {
                Some(message) => self.split(now, gid_index, socket, &message, delivery),
                None => self.counters.cut_off.add(1),
            }
        }
        Ok(count)
    }

    /// Takes what the ring has.
    pub(super) fn receive_from_ring(
        &self,
        now: Time,
        mut ring: MutexGuard<'_, ReceiveRing>,
        mut delivery: Delivery<'_>,
    ) -> io::Result<usize> {
        let polled = ring.poll(|index, message| {
            let index = index as u8;
            if let Some(socket) = self.socket(index) {
                self.split(now, index, socket, message, &mut delivery);
            }
        });
        drop(ring);
        if polled.is_err() {
            self.receiving.give_up();
        }
        if self.looks.fetch_add(1, Ordering::Relaxed).is_multiple_of(LOOK_ASIDE) {
            self.receive_from_slots(now, &mut delivery)?;
        }
        Ok(delivery.count)
    }

    /// Hands out the packets of one message.
    fn split(
        &self,
        now: Time,
        gid_index: u8,
        socket: &Socket,
        message: &udp::Message<'_>,
        delivery: &mut Delivery<'_>,
    ) {
        let source = gid(&message.source);
        let mut rest = message.bytes.chunks(message.segment).enumerate();
        while let Some((index, payload)) = rest.next() {
            let tag = QpnTag::of_packet(payload);
            if tag == Some(self.slot.tag()) {
                delivery.packet(&Datagram {
                    payload,
                    source,
                    source_port: message.source.port,
                    gid_index,
                    ident_hint: index as u16,
                    traffic_class: message.traffic_class,
                    hop_limit: message.hop_limit,
                });
                continue;
            }
            // Those that follow to the same slot go with it.
            let more = rest.clone().take_while(|(_, next)| QpnTag::of_packet(next) == tag).count();
            let start = index * message.segment;
            let end = message.bytes.len().min(start + (1 + more) * message.segment);
            let bytes = message.bytes.get(start..end).unwrap_or(payload);
            self.not_ours(now, socket, tag, index as u16, udp::Message { bytes, ..*message });
            rest.by_ref().take(more).for_each(drop);
        }
    }

    fn envelope(&self, train: &Train) -> Envelope {
        Envelope {
            to: address(train.to(), self.interface.index),
            connected: false,
            segment: 0,
            traffic_class: train.traffic_class(),
            hop_limit: train.hop_limit(),
        }
    }

    /// Sends a train in one call.
    fn send_whole(&self, socket: &Socket, train: &mut Train) -> io::Result<()> {
        let mut envelope = self.envelope(train);
        if train.len() > 1 {
            envelope.segment = train.packet(0).len() as u16;
        }
        self.send_from(socket, train.source_port(), envelope, train.packets(0..train.len()))?;
        self.counters.sent_trains.add(1);
        train.sent = train.len();
        Ok(())
    }

    /// Sends what is left of a train packet by packet. Each has the identification 0 then, so over IPv4 all but the first are sealed anew.
    fn send_singly(&self, socket: &Socket, train: &mut Train) -> io::Result<()> {
        let envelope = self.envelope(train);
        let resealing = flow(gid(&socket.address), train.source_port(), train.to()).filter(Flow::is_ipv4);
        let mut resealed = Vec::new();
        while train.sent < train.len() {
            let mut packet = train.packet(train.sent);
            if let Some(flow) = &resealing
                && train.sent > 0
            {
                resealed.clear();
                resealed.extend_from_slice(packet);
                // One that is too short for an iCRC had none.
                let _ = seal(flow, 0, &mut resealed);
                packet = &resealed;
            }
            self.send_from(socket, train.source_port(), envelope, packet)?;
            self.counters.sent_trains.add(1);
            train.sent += 1;
        }
        Ok(())
    }

    /// Sends from the socket that has a port.
    fn send_from(&self, socket: &Socket, port: u16, mut envelope: Envelope, bytes: &[u8]) -> io::Result<()> {
        let mut fd = socket.as_fd();
        if let Some(sender) = socket.sender(port) {
            envelope.connected = true;
            fd = sender.fd.as_fd();
            if let Some(splitting) = sender.splitting(socket.address, envelope.segment, self.interface.index)
            {
                envelope.segment = 0;
                fd = splitting;
            }
        }
        match udp::send(fd, &envelope, bytes) {
            // A connected socket says so once when an earlier packet has found nobody. That is not this one's fault.
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => udp::send(fd, &envelope, bytes),
            result => result,
        }
    }
}

/// Whether the kernel, or the driver below it, does not split trains.
fn refuses_trains(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EIO | libc::EINVAL | libc::EOPNOTSUPP | libc::ENOPROTOOPT))
}

/// Where received packets go, and how many have.
pub(super) struct Delivery<'s> {
    pub(super) sink: &'s mut dyn FnMut(&Datagram<'_>),
    pub(super) count: usize,
}

impl Delivery<'_> {
    #[inline]
    pub(super) fn packet(&mut self, packet: &Datagram<'_>) {
        (self.sink)(packet);
        self.count += 1;
    }
}

impl Link for UdpLink {
    fn name(&self) -> &str {
        &self.name
    }

    fn describe(&self) -> String {
        let splits = self.segmentation.load(Ordering::Relaxed);
        let trains = if splits {
            "trains split by the kernel"
        } else {
            "one packet a call: the kernel does not split trains"
        };
        format!("UDP sockets on {}; sendmsg, {trains}; {}", self.interface.name, self.receiving.describe())
    }

    fn state(&self) -> Option<&dyn LinkState> {
        Some(&self.state)
    }

    fn mtu(&self) -> Mtu {
        self.interface.mtu
    }

    fn gids(&self) -> &[Gid] {
        &self.interface.gids
    }

    fn qpn_tag(&self) -> QpnTag {
        self.slot.tag()
    }

    fn open_gid(&self, gid_index: u8) -> Result<()> {
        self.open_socket(gid_index).map(drop)
    }

    fn source_port(&self, gid_index: u8, to: Gid) -> u16 {
        self.socket(gid_index).map_or(ROCE_PORT, |socket| socket.source_port(to, self.interface.index))
    }

    fn tell_network_fields(&self) {
        let opening = self.opening.lock().unwrap_or_else(PoisonError::into_inner);
        if !self.tells_all.swap(true, Ordering::Relaxed) {
            for socket in self.sockets.iter().filter_map(OnceLock::get) {
                socket.coalesce();
                socket.tell(Telling::All);
            }
        }
        drop(opening);
    }

    fn send(&self, _now: Time, train: &mut Train) -> io::Result<()> {
        let socket = match self.socket(train.from()) {
            Some(socket) => socket,
            None => self.open_socket(train.from()).map_err(io::Error::other)?,
        };
        let mut result = Ok(());
        if train.sent == 0 && (train.len() <= 1 || self.segmentation.load(Ordering::Relaxed)) {
            result = self.send_whole(socket, train);
            if train.len() > 1 && result.as_ref().is_err_and(refuses_trains) {
                self.segmentation.store(false, Ordering::Relaxed);
                result = Ok(());
            }
        }
        if result.is_ok() && train.sent < train.len() {
            result = self.send_singly(socket, train);
        }
        result
    }

    fn receive(
        &self,
        now: Time,
        scratch: &mut ReceiveScratch,
        sink: &mut dyn FnMut(&Datagram<'_>),
    ) -> io::Result<usize> {
        let mut delivery = Delivery { sink, count: 0 };
        if let Some(ring) = self.receiving.ring() {
            return self.receive_from_ring(now, ring, delivery);
        }
        let busy = self.busy.load(Ordering::Relaxed);
        if let Some(socket) = self.socket(busy as u8)
            && self.receive_from(now, busy as u8, socket, scratch, &mut delivery)? > 0
        {
            scratch.streak = true;
            return Ok(delivery.count);
        }
        scratch.streak = false;
        // Each look is a system call, so the quiet sockets get one only now and then. The descriptor to wait on stays readable meanwhile.
        if self.looks.fetch_add(1, Ordering::Relaxed).is_multiple_of(LOOK_ASIDE) {
            for index in 0..self.sockets.len() as u32 {
                let Some(socket) = self.socket(index as u8).filter(|_| index != busy) else { continue };
                if self.receive_from(now, index as u8, socket, scratch, &mut delivery)? > 0 {
                    self.busy.store(index, Ordering::Relaxed);
                }
            }
            self.receive_from_slots(now, &mut delivery)?;
        }
        Ok(delivery.count)
    }

    fn poll(&self, now: Time) {
        self.go_on_searching(now);
    }

    fn deadline(&self) -> Option<Time> {
        let due = Time(self.steering_due.load(Ordering::Relaxed));
        (due != Time::NEVER).then_some(due)
    }

    fn fd(&self) -> BorrowedFd<'_> {
        self.epoll.as_fd()
    }

    fn watch(&self, watched: bool) -> io::Result<()> {
        let opening = self.opening.lock().unwrap_or_else(PoisonError::into_inner);
        if self.watched.swap(watched, Ordering::Relaxed) == watched {
            return Ok(());
        }
        let mut result = Ok(());
        for socket in self.sockets.iter().filter_map(OnceLock::get) {
            let changed = if watched { self.epoll.add(socket, 0) } else { self.epoll.delete(socket) };
            result = result.and(changed);
        }
        if watched && result.is_err() {
            // All or nothing, so that it can be tried again.
            self.watched.store(false, Ordering::Relaxed);
            self.sockets.iter().filter_map(OnceLock::get).for_each(|socket| _ = self.epoll.delete(socket));
        }
        drop(opening);
        result
    }

    fn counters(&self) -> Vec<(&'static str, u64)> {
        self.counters.all()
    }
}
