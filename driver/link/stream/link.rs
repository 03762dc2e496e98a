//! The link itself: what all threads share of it, and its face to the device.

use super::PREFIX;
use super::ends::Ends;
use super::finding::{Finding, Found};
use super::inward::Inward;
use super::output::{Output, Sent};
use super::stage::{Driving, Stage, Why};
use super::watch::{TICK, Watch};
use crate::error::{Error, Result};
use crate::link::{
    Datagram, Link, LinkState, Port, Promises, QpnTag, ROCE_PORT, ReceiveScratch, Train, TrainRules,
};
use crate::sync::{AtomicBool, AtomicU64, Ordering};
use crate::sys::random::random_u64;
use crate::sys::stream::{Connecting, Duct};
use std::io::{self, ErrorKind};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tbrdma_proto::stream::{FRAME_HEADER_BYTES, Features, Hello, Manner, StreamAddress, Words};
use tbrdma_proto::{Gid, Guid, Mtu, Time};

/// How long whoever names a peer waits for it, when nobody is there and when somebody else is: it is about to come, since its name is known, and
/// its predecessor may not have been noticed to have gone.
const ABSENT: Duration = Duration::from_secs(3);
const ANOTHER: Duration = Duration::from_secs(1);

/// How long a closed device stays for what it has written.
const LINGERS: Duration = Duration::from_millis(100);

/// How often a device must be looked at that cannot be waited for.
const GLANCE: Duration = Duration::from_micros(100);

/// Bytes of a train: half of what a socket holds, so that the reader works on one while the next is written.
const TRAIN_BYTES: usize = 128 << 10;

/// The GID of a device with this GUID: the link-local one.
pub(super) fn gid_of(guid: Guid) -> Gid {
    Gid::from_prefix_and_interface_id(0xfe80 << 48, guid.0)
}

fn lock<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Who panicked in between has left a stream that the next look finds broken.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// RoCEv2 on a stream.
#[derive(Debug)]
pub(crate) struct StreamLink {
    name: String,
    gids: [Gid; 1],
    tag: QpnTag,
    promises: Promises,
    shared: Shared,
    driving: Mutex<Driving>,
    inward: Mutex<Inward>,
    /// There is something in it. Changed with its lock held.
    has_inward: AtomicBool,
    /// When `poll` is to be called, in nanoseconds.
    due: AtomicU64,
}

/// What who sends, who receives and who waits have in common.
#[derive(Debug)]
pub(super) struct Shared {
    output: Mutex<Output>,
    /// Something could not leave for want of room. Changed with the output's lock held.
    is_blocked: AtomicBool,
    /// Something was sent, and the stream turned out to have failed.
    has_failed: AtomicBool,
    who: Mutex<Who>,
    changed: Condvar,
    watch: Watch,
    watched: AtomicBool,
    /// The bell was rung, and nobody has heard it.
    rung: AtomicBool,
    port: Port,
    met: AtomicU64,
    downed: AtomicU64,
    astray: AtomicU64,
    turned_away: AtomicU64,
}

/// Who is at the other end, or why nobody is.
#[derive(Debug)]
struct Who {
    peer: Option<Gid>,
    why: Why,
    ends: Option<Arc<Ends>>,
}

impl StreamLink {
    /// The link over the stream at an address.
    pub(super) fn find(address: &StreamAddress) -> Result<Self> {
        let finding = Finding::at(address)?;
        let local = finding.is_local();
        let link = Self::new(format!("{PREFIX}{address}"), finding, local)?;
        {
            let mut driving = lock(&link.driving);
            let found = driving.finding.look(Time::ZERO);
            if let Found::Nobody(source) = found {
                if driving.finding.is_hopeless(&source) {
                    return Err(Error::Os { call: "open_device", what: "come by the stream", source });
                }
                link.shared.is_down(Why::Nobody(source));
            } else {
                driving.use_found(Time::ZERO, &link.shared, found);
            }
        }
        Ok(link)
    }

    /// The link over a stream that is there.
    pub(super) fn over(duct: Duct) -> Result<Self> {
        let link = Self::new(format!("{PREFIX}given"), Finding::none(), duct.is_local())?;
        lock(&link.driving).begin(Time::ZERO, &link.shared, Ends::new(duct, Manner::Fresh));
        Ok(link)
    }

    fn new(name: String, finding: Finding, local: bool) -> Result<Self> {
        let os = |what| Error::os("open_device", what);
        // 0 is nobody's; and peers must not guess who was here before them.
        let guid = Guid(random_u64().map_err(os("random numbers"))?.max(1));
        let features = if local { Features::empty() } else { Features::ICRC };
        let own = Hello { words: Words::Hello, features, guid, heard: Guid(0), mtu: Mtu::B4096 };
        Ok(Self {
            name,
            gids: [gid_of(guid)],
            tag: QpnTag((guid.0 % 254) as u8 + 1),
            promises: Promises { delivers: true, intact: local },
            shared: Shared {
                output: Mutex::default(),
                is_blocked: AtomicBool::new(false),
                has_failed: AtomicBool::new(false),
                who: Mutex::new(Who { peer: None, why: Why::Fresh, ends: None }),
                changed: Condvar::new(),
                watch: Watch::new().map_err(os("a descriptor that stands for the stream"))?,
                watched: AtomicBool::new(true),
                rung: AtomicBool::new(false),
                port: Port::new(false).map_err(os("an event descriptor"))?,
                met: AtomicU64::new(0),
                downed: AtomicU64::new(0),
                astray: AtomicU64::new(0),
                turned_away: AtomicU64::new(0),
            },
            driving: Mutex::new(Driving::new(finding, own)),
            inward: Mutex::default(),
            has_inward: AtomicBool::new(false),
            due: AtomicU64::new(0),
        })
    }

    /// Waits for a peer, for so long if nobody is there, and if somebody else is.
    pub(super) fn reach_within(&self, to: Gid, absent: Duration, another: Duration) -> Result<()> {
        if self.gids.contains(&to) {
            return Ok(());
        }
        let begun = Instant::now();
        let mut who = lock(&self.shared.who);
        while who.peer != Some(to) {
            let bound = if who.peer.is_some() { another } else { absent };
            let left = bound.saturating_sub(begun.elapsed());
            if left.is_zero() {
                let reason = match who.peer {
                    Some(peer) => format!(
                        "it is not at the other end of {}, where {peer} is: exchange addresses with whoever is there now",
                        self.name
                    ),
                    None => format!("it is not at the other end of {}: {}", self.name, who.why),
                };
                return Err(Error::Peer { peer: to.to_string(), reason });
            }
            who = self.shared.changed.wait_timeout(who, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        Ok(())
    }

    fn note_due(&self, now: Time, driving: &Driving) {
        let tick = match &driving.stage {
            Stage::Meeting { ends, .. } | Stage::Up { ends, .. } if !ends.can_be_waited_for => Some(GLANCE),
            _ => TICK,
        };
        let due = tick.map_or(Time::NEVER, |tick| now + tick).min(driving.due());
        self.due.store(due.0, Ordering::Relaxed);
    }
}

impl Drop for StreamLink {
    /// What has been sent is on its way, whether or not its sender is still there: the last acknowledgement, above all.
    fn drop(&mut self) {
        self.shared.go_on();
        if let Stage::Up { ends, .. } = &lock(&self.driving).stage {
            ends.finish(LINGERS);
        }
    }
}

impl Shared {
    /// Has whoever waits look at the link.
    fn ring(&self) {
        if !self.rung.swap(true, Ordering::SeqCst) {
            self.watch.ring();
        }
    }

    fn hear(&self) {
        if self.rung.load(Ordering::SeqCst) {
            self.rung.store(false, Ordering::SeqCst);
            self.watch.hear();
        }
    }

    /// A stream is there, with nobody met yet.
    pub(super) fn opened(&self, ends: &Arc<Ends>) {
        lock(&self.output).open(Arc::clone(ends));
        let mut who = lock(&self.who);
        who.why = Why::Meeting;
        who.ends = Some(Arc::clone(ends));
        self.watch_ends(&who);
    }

    fn watch_ends(&self, who: &Who) {
        let Some(ends) = who.ends.as_ref().filter(|ends| ends.can_be_waited_for) else { return };
        if self.watched.load(Ordering::SeqCst) {
            self.watch.add_input(ends.input());
            if self.is_blocked.load(Ordering::SeqCst) {
                ends.wait_for_room(&self.watch);
            }
        } else {
            self.watch.remove(ends.input());
            ends.forget_room(&self.watch);
        }
    }

    /// The peer is met.
    pub(super) fn met(&self, peer: Guid) {
        lock(&self.output).met(peer);
        let mut who = lock(&self.who);
        who.peer = Some(gid_of(peer));
        self.met.fetch_add(1, Ordering::Relaxed);
        self.port.set(true);
        self.changed.notify_all();
    }

    /// The stream is over.
    pub(super) fn closed(&self, why: Why) {
        {
            let mut output = lock(&self.output);
            output.close();
            self.is_blocked.store(false, Ordering::SeqCst);
            self.has_failed.store(false, Ordering::SeqCst);
        }
        let mut who = lock(&self.who);
        if let Some(ends) = who.ends.take() {
            self.watch.remove(ends.input());
            ends.forget_room(&self.watch);
        }
        if who.peer.take().is_some() {
            self.downed.fetch_add(1, Ordering::Relaxed);
        }
        who.why = why;
        self.port.set(false);
    }

    /// There is no stream.
    pub(super) fn is_down(&self, why: Why) {
        lock(&self.who).why = why;
    }

    /// Others may connect.
    pub(super) fn listens(&self, finding: &Finding) {
        if let Some(listener) = finding.listener() {
            // It is there already when this was only a look whether it can still be found.
            self.watch.add_input(listener);
        }
        let mut who = lock(&self.who);
        if matches!(who.why, Why::Fresh | Why::Nobody(_)) {
            who.why = Why::Listens;
        }
    }

    /// A connection is being made.
    pub(super) fn expect(&self, connecting: &Connecting) {
        self.watch.add_output(connecting.as_fd());
    }

    /// It has been made, or not.
    pub(super) fn forget(&self, connecting: &Connecting) {
        self.watch.remove(connecting.as_fd());
    }

    /// Says something that is no packet.
    pub(super) fn say(&self, bytes: &[u8]) {
        let mut output = lock(&self.output);
        output.say(bytes);
        self.note_room(&output, false);
    }

    /// Whether somebody who sent has found the stream broken.
    pub(super) fn has_failed(&self) -> bool {
        self.has_failed.load(Ordering::Relaxed)
    }

    /// How the system says that it is broken.
    pub(super) fn failure(&self) -> Option<io::Error> {
        lock(&self.output).failure()
    }

    /// Somebody was told that there is a peer already.
    pub(super) fn has_turned_away(&self) {
        self.turned_away.fetch_add(1, Ordering::Relaxed);
    }

    /// Remembers whether something waits for room.
    fn note_room(&self, output: &Output, refused: bool) {
        let blocked = refused || output.is_behind();
        if self.is_blocked.swap(blocked, Ordering::SeqCst) == blocked || !self.watched.load(Ordering::SeqCst)
        {
            return;
        }
        match output.ends() {
            Some(ends) if blocked => ends.wait_for_room(&self.watch),
            Some(ends) => ends.forget_room(&self.watch),
            None => {}
        }
    }

    /// Goes on where there was no room.
    #[cold]
    fn go_on(&self) {
        let mut output = lock(&self.output);
        if output.flush() {
            self.note_room(&output, false);
        }
    }
}

impl Link for StreamLink {
    fn name(&self) -> &str {
        &self.name
    }

    fn describe(&self) -> String {
        let who = lock(&self.shared.who);
        let checks = if self.promises.intact { "no checksums" } else { "iCRCs" };
        match who.peer {
            Some(peer) => {
                format!("RoCEv2 on a byte stream, read and write, {checks}; {peer} is at the other end")
            }
            None => format!("RoCEv2 on a byte stream, read and write, {checks}; down: {}", who.why),
        }
    }

    fn mtu(&self) -> Mtu {
        Mtu::B4096
    }

    fn gids(&self) -> &[Gid] {
        &self.gids
    }

    fn qpn_tag(&self) -> QpnTag {
        self.tag
    }

    fn promises(&self) -> Promises {
        self.promises
    }

    fn train_rules(&self) -> TrainRules {
        TrainRules { lead: FRAME_HEADER_BYTES, uniform: false, packets: usize::MAX, bytes: TRAIN_BYTES }
    }

    fn state(&self) -> Option<&dyn LinkState> {
        Some(&self.shared.port)
    }

    fn open_gid(&self, gid_index: u8) -> Result<()> {
        if gid_index == 0 {
            return Ok(());
        }
        Err(Error::InvalidArgument {
            call: "open_gid",
            reason: format!("GID index {gid_index}: {} has one GID, index 0", self.name),
        })
    }

    fn reach(&self, to: Gid) -> Result<()> {
        self.reach_within(to, ABSENT, ANOTHER)
    }

    fn source_port(&self, _gid_index: u8, _to: Gid) -> u16 {
        ROCE_PORT
    }

    fn tell_network_fields(&self) {}

    fn send(&self, _now: Time, train: &mut Train) -> io::Result<()> {
        if self.gids.contains(&train.to()) {
            let done = {
                let mut inward = lock(&self.inward);
                self.has_inward.store(true, Ordering::SeqCst);
                inward.put(train)
            };
            if self.shared.watched.load(Ordering::SeqCst) {
                self.shared.ring();
            }
            return if done { Ok(()) } else { Err(ErrorKind::WouldBlock.into()) };
        }
        let shared = &self.shared;
        let mut output = lock(&shared.output);
        match output.send(train) {
            Sent::All if !output.is_behind() => return Ok(()),
            Sent::All => shared.note_room(&output, false),
            Sent::Blocked => {
                shared.note_room(&output, true);
                return Err(ErrorKind::WouldBlock.into());
            }
            what @ (Sent::Astray | Sent::Failed) => {
                shared.astray.fetch_add((train.len() - train.sent) as u64, Ordering::Relaxed);
                train.sent = train.len();
                if what == Sent::Failed {
                    // Who receives takes what has arrived before, and then closes it.
                    shared.has_failed.store(true, Ordering::Relaxed);
                    shared.ring();
                }
            }
        }
        Ok(())
    }

    fn receive(
        &self,
        now: Time,
        _scratch: &mut ReceiveScratch,
        sink: &mut dyn FnMut(&Datagram<'_>),
    ) -> io::Result<usize> {
        self.shared.hear();
        let own = self.gids[0];
        let mut deliver = |payload: &[u8], traffic_class, hop_limit, source| {
            sink(&Datagram {
                payload,
                source,
                source_port: ROCE_PORT,
                gid_index: 0,
                ident_hint: 0,
                traffic_class,
                hop_limit,
            });
        };
        if self.shared.is_blocked.load(Ordering::Relaxed) {
            self.shared.go_on();
        }
        let mut driving = lock(&self.driving);
        let mut count = 0;
        if self.has_inward.load(Ordering::SeqCst) {
            // Who hands them out takes locks that others hold who send: not with the lock that these want.
            {
                let mut inward = lock(&self.inward);
                std::mem::swap(&mut *inward, &mut driving.inward);
                self.has_inward.store(false, Ordering::SeqCst);
            }
            count = driving.inward.packets(|packet, class, hops| deliver(packet, class, hops, own));
        }
        count += driving.look(now, &self.shared, &mut |packet, class, hops, peer| {
            deliver(packet, class, hops, gid_of(peer));
        });
        self.note_due(now, &driving);
        Ok(count)
    }

    fn poll(&self, now: Time) {
        let mut driving = lock(&self.driving);
        if driving.due() <= now {
            driving.pass_time(now, &self.shared);
        }
        self.note_due(now, &driving);
    }

    fn deadline(&self) -> Option<Time> {
        let due = Time(self.due.load(Ordering::Relaxed));
        (due != Time::NEVER).then_some(due)
    }

    fn fd(&self) -> BorrowedFd<'_> {
        self.shared.watch.fd()
    }

    fn watch(&self, watched: bool) -> io::Result<()> {
        {
            let who = lock(&self.shared.who);
            if self.shared.watched.swap(watched, Ordering::SeqCst) != watched {
                self.shared.watch_ends(&who);
            }
        }
        if watched && self.has_inward.load(Ordering::SeqCst) {
            self.shared.ring();
        }
        Ok(())
    }

    fn counters(&self) -> Vec<(&'static str, u64)> {
        let shared = &self.shared;
        vec![
            ("link_met", shared.met.load(Ordering::Relaxed)),
            ("link_downed", shared.downed.load(Ordering::Relaxed)),
            ("unreachable_packets", shared.astray.load(Ordering::Relaxed)),
            ("peers_turned_away", shared.turned_away.load(Ordering::Relaxed)),
        ]
    }
}
