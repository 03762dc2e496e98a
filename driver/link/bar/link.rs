//! The link itself: trains into the peer's area, packets out of ours, and how the two sides find and lose each other.
//!
//! **Who touches what.** Senders hold `live` for reading, as many at once as there are; it is taken for writing only when a session begins or ends. Packets
//! are taken, and hellos read, by whoever holds `receiving`, which is only tried.
//!
//! **Sleeping.** While nobody watches the descriptor the peer need not ring. Somebody who watches has the peer told which packet is waited for, and looks once
//! more (`bar/ends.rs` argues why that is enough in one memory). Over a bus the look may come before the packet and the peer's before the wish, so
//! [`Link::deadline`] has the sleeper look again after [`SETTLED`], when what was under way has long arrived, and from then on with every pulse;
//! where there is no interrupt, every millisecond.

use super::super::{
    Datagram, Link, LinkState, Port, Promises, QpnTag, ROCE_PORT, ReceiveScratch, Train, TrainRules,
};
use super::loopback::Loopback;
use crate::bar::ends::{Receiver, Sender};
use crate::bar::window::{Gone, Window};
use crate::error::{Error, Result};
use crate::sync::{AtomicBool, AtomicU64, Ordering};
use crate::sys::epoll::Epoll;
use crate::sys::eventfd::EventFd;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::{Mutex, MutexGuard, PoisonError, RwLock};
use std::time::{Duration, Instant};
use tbrdma_proto::bar_link::{Arrival, Geometry, Header, Session, WORD};
use tbrdma_proto::{Gid, Mtu, Time};

/// Bytes of a train: a message of 64 KiB and its headers.
const TRAIN_BYTES: usize = 72 << 10;
/// Packets handed out by one call.
const AT_ONCE: usize = 64;
/// How often the peer's life is looked at, and ours shown.
const PULSE_EVERY: Duration = Duration::from_millis(50);
/// How often it is looked for a peer that is not there, where nobody rings.
const LOOK_EVERY: Duration = Duration::from_millis(5);
/// How often it is looked for packets where nobody rings.
const UNRUNG: Duration = Duration::from_millis(1);
/// A peer whose pulse has not changed for so long is not heard any more.
pub(super) const PULSELESS: Duration = Duration::from_secs(2);
/// After so long what was stored has arrived, whatever bridges are between.
const SETTLED: Duration = Duration::from_micros(200);
/// The shortest and the longest time between two tries of who found the ring full.
const FULL: [Duration; 2] = [Duration::from_micros(50), Duration::from_millis(5)];
/// How long opening waits for a peer that is there already, and connecting for the one that it names.
pub(super) const MEETING: Duration = Duration::from_millis(100);

/// Packets through a memory window.
pub(crate) struct BarLink<W: Window> {
    name: String,
    pub(super) window: W,
    gids: [Gid; 1],
    pub(super) geometry: Geometry,
    pub(super) live: RwLock<Option<Live>>,
    receiving: Mutex<Receiving>,
    loopback: Loopback,
    pub(super) port: Port,
    /// The window's interrupt, where there is one, and the kick.
    pub(super) ready: Epoll,
    kick: EventFd,
    pub(super) watched: AtomicBool,
    /// When to look again, in nanoseconds.
    due: AtomicU64,
    /// How long who found the ring full waits, in nanoseconds; 0 as long as nobody has.
    full: AtomicU64,
    pub(super) counters: Counters,
}

/// What senders need of a session.
pub(super) struct Live {
    pub(super) sender: Sender,
    pub(super) peer: Gid,
    pub(super) doorbell: u16,
}

/// What only one thread at a time touches.
pub(super) struct Receiving {
    pub(super) session: Session,
    pub(super) receiver: Receiver,
    /// The area was emptied for a peer, and has held nothing but its packets since.
    pub(super) is_open: bool,
    /// The last word of the hello that was looked at.
    pub(super) seen: u64,
    /// A packet, copied out of the window.
    pub(super) packet: Vec<u8>,
    pub(super) peer: Gid,
    /// The number of its doorbell, once it has told.
    pub(super) doorbell: Option<u16>,
    /// Our pulse; the peer's, and when it changed last.
    pub(super) pulse: u64,
    pub(super) heard: (u64, Option<Time>),
    /// Why there is no peer and will be none.
    pub(super) gone: Option<Gone>,
}

/// Numbers that only grow.
#[derive(Debug, Default)]
pub(super) struct Counters {
    pub(super) sessions: AtomicU64,
    pub(super) doorbells: AtomicU64,
    full: AtomicU64,
    dropped: AtomicU64,
    broken: AtomicU64,
}

impl<W: Window> BarLink<W> {
    /// A link through this window, for a device that has an incarnation of its own.
    ///
    /// # Errors
    /// The window is too small, or the system has no descriptors.
    pub(crate) fn open(name: String, window: W, incarnation: u64) -> Result<Self> {
        const CALL: &str = "open_device";
        let os = |what| Error::os(CALL, what);
        let bytes = window.inbound_bytes().min(window.outbound_bytes());
        let geometry = Geometry::of_area(bytes).ok_or_else(|| Error::InvalidArgument {
            call: CALL,
            reason: format!(
                "{name}: {bytes} bytes each way are too few for a ring; there must be {} at least",
                Geometry::smallest_area()
            ),
        })?;
        let (ready, kick) =
            (Epoll::new().map_err(os("an epoll set"))?, EventFd::new().map_err(os("an event counter"))?);
        ready.add(&kick, 0).map_err(os("watch an event counter"))?;
        for fd in [window.interrupt(), window.news()].into_iter().flatten() {
            ready.add(fd, 0).map_err(os("watch the window's interrupts"))?;
        }
        let session =
            Session::new(incarnation, geometry, window.doorbell().unwrap_or(0), window.outbound_bytes());
        let opening = session.opening();
        let receiving = Receiving {
            session,
            receiver: Receiver::new(geometry),
            is_open: false,
            seen: 0,
            packet: vec![0; geometry.longest()],
            peer: Gid::default(),
            doorbell: None,
            pulse: 0,
            heard: (0, None),
            gone: None,
        };
        let link = Self {
            gids: [gid_of(incarnation)],
            name,
            geometry,
            live: RwLock::new(None),
            receiving: Mutex::new(receiving),
            loopback: Loopback::default(),
            port: Port::new(false).map_err(os("an event counter"))?,
            ready,
            kick,
            watched: AtomicBool::new(true),
            due: AtomicU64::new(0),
            full: AtomicU64::new(0),
            counters: Counters::default(),
            window,
        };
        link.say(&opening, None);
        link.wait_for_peer();
        Ok(link)
    }

    /// Hands out what we have sent to ourselves.
    fn take_looped(&self, sink: &mut dyn FnMut(&Datagram<'_>)) -> usize {
        let mut count = 0;
        while count < AT_ONCE
            && let Some(packet) = self.loopback.take()
        {
            sink(&self.datagram(&packet.bytes, self.gids[0], packet.traffic_class, packet.hop_limit));
            self.loopback.give_back(packet);
            count += 1;
        }
        count
    }

    #[inline]
    fn datagram<'a>(&self, payload: &'a [u8], source: Gid, traffic_class: u8, hop_limit: u8) -> Datagram<'a> {
        Datagram {
            payload,
            source,
            source_port: ROCE_PORT,
            gid_index: 0,
            ident_hint: 0,
            traffic_class,
            hop_limit,
        }
    }

    /// Hands out the packets that are there.
    fn take_packets(
        &self,
        receiving: &mut Receiving,
        now: Time,
        sink: &mut dyn FnMut(&Datagram<'_>),
    ) -> usize {
        let mut count = 0;
        while count < AT_ONCE && receiving.is_open {
            match receiving.receiver.look(&self.window) {
                Arrival::Packet { at, header } => {
                    let Some(packet) = receiving.packet.get_mut(..usize::from(header.len)) else { break };
                    self.window.read(at, packet);
                    receiving.receiver.take(&self.window);
                    sink(&self.datagram(packet, receiving.peer, header.traffic_class, header.hop_limit));
                    count += 1;
                }
                Arrival::Nothing => break,
                Arrival::Ones => {
                    self.look_after(receiving, now);
                    break;
                }
                Arrival::Broken => {
                    self.counters.broken.fetch_add(1, Ordering::Relaxed);
                    receiving.is_open = false;
                    let turn = receiving.session.give_up();
                    self.carry_out(receiving, turn);
                    break;
                }
            }
        }
        count
    }

    /// Turns a train to ourselves around.
    fn send_looped(&self, now: Time, train: &mut Train) -> io::Result<()> {
        while train.sent < train.len() {
            if !self.loopback.add(train.packet(train.sent), train.traffic_class(), train.hop_limit()) {
                return self.is_full(now);
            }
            train.sent += 1;
        }
        if self.watched.load(Ordering::SeqCst) {
            let _ = self.kick.signal();
        }
        Ok(())
    }

    /// There is no room: whoever makes the next pass tries again, and one is made soon.
    #[cold]
    fn is_full(&self, now: Time) -> io::Result<()> {
        self.counters.full.fetch_add(1, Ordering::Relaxed);
        let [shortest, longest] = FULL.map(|duration| duration.as_nanos() as u64);
        let last = self.full.load(Ordering::Relaxed);
        let wait = last.saturating_mul(2).clamp(shortest, longest);
        self.full.store(wait, Ordering::Relaxed);
        self.look_again(now + Duration::from_nanos(wait));
        if last == 0 && self.watched.load(Ordering::SeqCst) {
            // Who sleeps does not know of it yet.
            let _ = self.kick.signal();
        }
        Err(io::ErrorKind::WouldBlock.into())
    }

    /// Has [`Link::poll`] called at this time, or earlier.
    fn look_again(&self, at: Time) {
        self.due.fetch_min(at.0, Ordering::Relaxed);
    }

    /// Before somebody may go to sleep: takes what has made the descriptor readable, and says what is waited for. True if there is something already.
    fn settle(&self, receiving: &mut Receiving, now: Option<Time>) -> bool {
        // Nothing but a wish to look.
        let _ = self.kick.drain();
        self.window.quiet();
        if receiving.gone.is_none() && self.window.news().is_some() {
            self.window.attend();
        }
        if !self.loopback.is_empty() {
            return true;
        }
        if !receiving.session.is_up() || receiving.gone.is_some() {
            return false;
        }
        let is_there = receiving.is_open && receiving.receiver.arm(&self.window);
        if let Some(now) = now.filter(|_| !self.window.meets()) {
            self.look_again(now + SETTLED);
        }
        is_there
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Receiving> {
        self.receiving.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What cannot go anywhere is lost, and counted.
    #[cold]
    fn drop_rest(&self, train: &mut Train) -> io::Result<()> {
        self.counters.dropped.fetch_add((train.len() - train.sent) as u64, Ordering::Relaxed);
        train.sent = train.len();
        Ok(())
    }
}

impl<W: Window> Link for BarLink<W> {
    fn name(&self) -> &str {
        &self.name
    }

    fn describe(&self) -> String {
        let receiving = self.lock();
        let trouble = receiving.gone.as_ref().map(ToString::to_string);
        let trouble = trouble.or_else(|| receiving.session.refused().map(|refused| refused.to_string()));
        let (slots, bytes, mtu) =
            (self.geometry.slots(), self.geometry.slot_bytes(), self.geometry.mtu().bytes());
        let window =
            format!("{}; {slots} slots of {bytes} bytes each way, path MTU {mtu}", self.window.describe());
        match trouble {
            Some(trouble) => format!("{window}; {trouble}"),
            None => window,
        }
    }

    fn promises(&self) -> Promises {
        Promises { delivers: true, intact: true }
    }

    fn state(&self) -> Option<&dyn LinkState> {
        Some(&self.port)
    }

    fn train_rules(&self) -> TrainRules {
        TrainRules { lead: 0, uniform: false, packets: AT_ONCE, bytes: TRAIN_BYTES }
    }

    fn mtu(&self) -> Mtu {
        self.geometry.mtu()
    }

    fn reach(&self, to: Gid) -> Result<()> {
        if self.gids.contains(&to) {
            return Ok(());
        }
        let begun = Instant::now();
        loop {
            let peer = {
                let mut receiving = self.lock();
                self.meet(&mut receiving);
                self.port.is_up().then_some(receiving.peer)
            };
            if peer == Some(to) {
                return Ok(());
            }
            if begun.elapsed() >= MEETING {
                let at = match peer {
                    Some(peer) => format!("{peer} is: exchange addresses with whoever is there now"),
                    None => format!("nobody is: {}", self.describe()),
                };
                let reason = format!("it is not at the other side of {}, where {at}", self.name);
                return Err(Error::Peer { peer: to.to_string(), reason });
            }
            std::thread::sleep(Duration::from_micros(200));
        }
    }

    fn gids(&self) -> &[Gid] {
        &self.gids
    }

    fn qpn_tag(&self) -> QpnTag {
        QpnTag(1)
    }

    fn open_gid(&self, gid_index: u8) -> Result<()> {
        if gid_index == 0 {
            return Ok(());
        }
        let reason = format!("{} has one GID, at index 0, and none at {gid_index}", self.name);
        Err(Error::InvalidArgument { call: "open_gid", reason })
    }

    fn source_port(&self, _gid_index: u8, _to: Gid) -> u16 {
        ROCE_PORT
    }

    fn tell_network_fields(&self) {}

    fn send(&self, now: Time, train: &mut Train) -> io::Result<()> {
        if train.to() == self.gids[0] {
            return self.send_looped(now, train);
        }
        let Ok(live) = self.live.try_read() else { return self.drop_rest(train) };
        let Some(live) = live.as_ref().filter(|live| live.peer == train.to() && self.port.is_up()) else {
            return self.drop_rest(train);
        };
        let claimed = live.sender.claim(&self.window, (train.len() - train.sent) as u64);
        if claimed.is_empty() {
            return self.is_full(now);
        }
        if self.full.load(Ordering::Relaxed) != 0 {
            self.full.store(0, Ordering::Relaxed);
        }
        let first = train.sent;
        for (number, index) in claimed.clone().zip(first..) {
            self.window.write(live.sender.outbox().slot(number) + WORD, train.packet(index));
        }
        self.window.order();
        for (number, index) in claimed.zip(first..) {
            let len = train.packet(index).len().min(live.sender.outbox().longest()) as u16;
            let header = Header::of(number, len, train.traffic_class(), train.hop_limit());
            live.sender.publish(&self.window, number, header);
            train.sent = index + 1;
        }
        self.window.flush();
        if live.sender.must_ring(&self.window) {
            self.ring(live.doorbell);
        }
        if train.sent < train.len() { self.is_full(now) } else { Ok(()) }
    }

    fn receive(
        &self,
        now: Time,
        _scratch: &mut ReceiveScratch,
        sink: &mut dyn FnMut(&Datagram<'_>),
    ) -> io::Result<usize> {
        let Ok(mut receiving) = self.receiving.try_lock() else { return Ok(0) };
        let receiving = &mut *receiving;
        let mut take = |receiving: &mut Receiving| {
            let looped = if self.loopback.is_empty() { 0 } else { self.take_looped(sink) };
            looped + self.take_packets(receiving, now, sink)
        };
        let count = take(receiving);
        if count > 0 {
            return Ok(count);
        }
        self.meet(receiving);
        if self.watched.load(Ordering::Relaxed) && self.settle(receiving, Some(now)) {
            return Ok(take(receiving));
        }
        Ok(0)
    }

    fn poll(&self, now: Time) {
        let mut receiving = self.lock();
        self.meet(&mut receiving);
        self.look_after(&mut receiving, now);
        let every = match (receiving.session.is_up(), self.window.interrupt()) {
            (false, _) => LOOK_EVERY,
            (true, Some(_)) => PULSE_EVERY,
            (true, None) => UNRUNG,
        };
        let next = if receiving.gone.is_some() { Time::NEVER } else { now + every };
        self.due.store(next.0, Ordering::Relaxed);
    }

    fn deadline(&self) -> Option<Time> {
        let due = Time(self.due.load(Ordering::Relaxed));
        (due != Time::NEVER).then_some(due)
    }

    fn fd(&self) -> BorrowedFd<'_> {
        self.ready.as_fd()
    }

    fn watch(&self, watched: bool) -> io::Result<()> {
        if self.watched.swap(watched, Ordering::SeqCst) == watched {
            return Ok(());
        }
        let mut receiving = self.lock();
        if watched {
            if self.settle(&mut receiving, None) {
                self.kick.signal()?;
            }
            if !self.window.meets() {
                // There is no telling the time here: somebody looks at once, and says then when to look again.
                self.due.store(0, Ordering::Relaxed);
            }
        } else if receiving.session.is_up() {
            receiving.receiver.disarm(&self.window);
        }
        Ok(())
    }

    fn counters(&self) -> Vec<(&'static str, u64)> {
        let Counters { sessions, doorbells, full, dropped, broken } = &self.counters;
        let all = [
            ("bar_sessions", sessions),
            ("bar_doorbells", doorbells),
            ("bar_ring_full", full),
            ("bar_unreachable_packets", dropped),
            ("bar_broken_rings", broken),
        ];
        all.into_iter().map(|(name, counter)| (name, counter.load(Ordering::Relaxed))).collect()
    }
}

impl<W: Window> Drop for BarLink<W> {
    fn drop(&mut self) {
        let receiving = self.receiving.get_mut().unwrap_or_else(PoisonError::into_inner);
        if receiving.gone.is_none() {
            let (closing, doorbell) = (receiving.session.closing(), receiving.doorbell);
            self.say(&closing, doorbell);
        }
    }
}

/// The GID of a side: link-local, with its incarnation for a GUID.
pub(super) fn gid_of(incarnation: u64) -> Gid {
    Gid::from_prefix_and_interface_id(0xfe80_0000_0000_0000, incarnation)
}
