//! A context as its peers see it: its segment, mapped; how to wake it; whether it is alive.

use super::cable::Cable;
use super::core::{Core, gid_of, header, lid_of_ipv4, lock};
use super::hello::{Kind, MESSAGE_BYTES, Message, socket_name};
use crate::error::{Error, Result};
use crate::mem::{Held, LocalRegions, RegionEntries, Segment};
use crate::ring::layout::{self, MAGIC, SEGMENT_SIZES};
use crate::ring::shared_receive::Claimer;
use crate::sync::{AtomicBool, AtomicU32, Ordering};
use crate::sys::eventfd::EventFd;
use crate::sys::{process, remote_memory, socket};
use std::collections::HashMap;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;
use tbrdma_proto::{AddressVector, Gid};

/// How long a peer may take to answer an introduction. It is answered by a thread that does nothing else.
const PATIENCE: Duration = Duration::from_secs(5);
/// Why those do not meet whom no cable joins.
const OFF_THE_CABLE: &str = "it is not at the other end of this device's cable";
/// Our own context, as claimer of its own shared receives.
pub(crate) const SELF_CLAIMER: Claimer = Claimer(u32::MAX);

/// A segment this process has mapped or made, and the regions of it if it is one of our own contexts'.
struct Mapped {
    context: u64,
    segment: Weak<Segment>,
    regions: Option<Weak<LocalRegions>>,
}

/// What this process has mapped, so that two contexts of one process share one mapping.
static MAPPED: Mutex<Vec<Mapped>> = Mutex::new(Vec::new());

/// Makes a segment known to this process' other contexts.
pub(crate) fn remember(context: u64, segment: &Arc<Segment>, regions: Option<&Arc<LocalRegions>>) {
    let mut mapped = lock(&MAPPED);
    mapped.retain(|entry| entry.segment.strong_count() > 0);
    mapped.push(Mapped { context, segment: Arc::downgrade(segment), regions: regions.map(Arc::downgrade) });
}

fn known(context: u64) -> Option<(Arc<Segment>, Option<Arc<LocalRegions>>)> {
    let mapped = lock(&MAPPED);
    let entry = mapped.iter().find(|entry| entry.context == context)?;
    Some((entry.segment.upgrade()?, entry.regions.as_ref().and_then(Weak::upgrade)))
}

/// A context we can reach.
pub(crate) struct Peer {
    pub(crate) context: u64,
    pub(crate) lid: u16,
    pub(crate) segment: Arc<Segment>,
    /// The registered regions in it.
    pub(crate) regions: Held<RegionEntries>,
    pub(crate) kick: Arc<EventFd>,
    /// Process to address with `process_vm_*`; 0 if it cannot be named from here.
    pub(crate) pid: i32,
    /// How we reach memory of its process that it did not allocate through the library.
    reach: Reach,
    /// How it reaches ours.
    pub(crate) reaches_us: Reach,
    /// Its regions, if it is this process.
    pub(crate) local: Option<Arc<LocalRegions>>,
    /// How the peer knows us as a taker of its shared receives.
    pub(crate) claimer: Claimer,
    /// How we know it as a taker of ours.
    pub(crate) theirs: Claimer,
    pub(crate) alive: AtomicBool,
    /// If we said hello: the connection, whose end tells either side of the other's death.
    pub(crate) socket: Option<OwnedFd>,
}

/// How a peer's own memory is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ForeignPath {
    /// It is this process.
    Same,
    /// By `process_vm_readv` and `process_vm_writev`.
    ProcessVm,
    /// By asking its service thread.
    Agent,
}

/// A [`ForeignPath`] that may change: what the kernel allowed once it may forbid later. Zero: not known.
pub(crate) struct Reach(AtomicU32);

impl Reach {
    const ALL: [ForeignPath; 3] = [ForeignPath::Same, ForeignPath::ProcessVm, ForeignPath::Agent];

    fn by(path: ForeignPath) -> Self {
        Self(AtomicU32::new(Self::raw(path)))
    }

    fn raw(path: ForeignPath) -> u32 {
        path as u32 + 1
    }

    pub(crate) fn get(&self) -> Option<ForeignPath> {
        Self::ALL.get(self.0.load(Ordering::Relaxed).checked_sub(1)? as usize).copied()
    }

    /// Takes what a message says.
    pub(crate) fn learn(&self, raw: u32) {
        self.0.store(raw, Ordering::Relaxed);
    }
}

impl Peer {
    pub(crate) fn is_alive(&self) -> bool {
        self.alive.load(Ordering::Acquire)
    }

    /// How we reach memory of its process' own.
    #[inline]
    pub(crate) fn path(&self) -> ForeignPath {
        self.reach.get().unwrap_or(ForeignPath::Agent)
    }

    /// The kernel does not let us at its process' memory, or not any more: from now on its agent copies.
    #[cold]
    pub(crate) fn use_agent(&self) {
        self.reach.learn(Reach::raw(ForeignPath::Agent));
    }

    /// The same as it is told to the peer.
    pub(crate) fn told_reach(&self) -> u32 {
        Reach::raw(self.path())
    }

    /// Wakes the peer's service thread.
    pub(crate) fn wake(&self) {
        let _ = self.kick.signal();
    }

    pub(crate) fn gid(&self) -> Gid {
        gid_of(self.context)
    }
}

/// The contexts we can reach, by identity.
#[derive(Default)]
pub(crate) struct Peers {
    known: Mutex<HashMap<u64, Arc<Peer>>>,
    /// Held while one thread introduces us, so that a peer is met once.
    meeting: Mutex<()>,
    claimers: AtomicU32,
}

impl Peers {
    /// A number for a new taker of our shared receives.
    fn new_claimer(&self) -> Claimer {
        Claimer(self.claimers.fetch_add(1, Ordering::Relaxed).wrapping_add(1) % SELF_CLAIMER.0)
    }

    fn insert(&self, peer: &Arc<Peer>) {
        lock(&self.known).insert(peer.context, Arc::clone(peer));
    }

    pub(crate) fn all(&self) -> Vec<Arc<Peer>> {
        lock(&self.known).values().cloned().collect()
    }

    pub(crate) fn by_context(&self, context: u64) -> Option<Arc<Peer>> {
        lock(&self.known).get(&context).cloned()
    }

    /// Forgets a peer that has ended, unless another has been met under its identity since.
    pub(crate) fn forget(&self, context: u64, peer: &Arc<Peer>) {
        let mut known = lock(&self.known);
        if known.get(&context).is_some_and(|other| Arc::ptr_eq(other, peer)) {
            known.remove(&context);
        }
    }
}

/// The context an address leads to: known already, or met now.
pub(crate) fn find(
    core: &Core,
    address: &AddressVector,
    watch: impl FnOnce(&Arc<Peer>),
) -> Result<Arc<Peer>> {
    let by_ipv4 = lid_of_ipv4(&address.dgid).filter(|_| address.is_global);
    let (lid, expected) = if let Some(lid) = by_ipv4 {
        (lid, None)
    } else if address.is_global && !address.dgid.is_zero() {
        let context = address.dgid.interface_id();
        if gid_of(context) != address.dgid {
            return Err(unreachable(address, "its GID is not one of the shm device (fe80::/64)".to_owned()));
        }
        (context as u16, Some(context))
    } else {
        (address.dlid, None)
    };
    let _meeting = lock(&core.peers.meeting);
    let known = lock(&core.peers.known)
        .values()
        .find(|peer| {
            peer.lid == lid && expected.is_none_or(|context| context == peer.context) && peer.is_alive()
        })
        .cloned();
    if let Some(peer) = known {
        return Ok(peer);
    }
    if lid == core.lid && !core.cable.leads_to(core.cable) {
        return Err(unreachable(address, OFF_THE_CABLE.to_owned()));
    }
    let peer = Arc::new(if lid == core.lid { myself(core) } else { meet(core, lid, address)? });
    if expected.is_some_and(|context| context != peer.context) {
        return Err(unreachable(
            address,
            "its context was closed, and its LID belongs to another one now".to_owned(),
        ));
    }
    core.peers.insert(&peer);
    watch(&peer);
    Ok(peer)
}

fn unreachable(address: &AddressVector, reason: String) -> Error {
    let peer = if address.is_global && !address.dgid.is_zero() {
        format!("GID {}", address.dgid)
    } else {
        format!("LID {:#06x}", address.dlid)
    };
    Error::Peer { peer, reason }
}

fn myself(core: &Core) -> Peer {
    Peer {
        context: core.context,
        lid: core.lid,
        segment: Arc::clone(&core.segment),
        regions: regions_of(&core.segment),
        kick: Arc::clone(&core.kick),
        pid: process::process_id(),
        reach: Reach::by(ForeignPath::Same),
        reaches_us: Reach::by(ForeignPath::Same),
        local: Some(Arc::clone(&core.regions)),
        claimer: SELF_CLAIMER,
        theirs: SELF_CLAIMER,
        alive: AtomicBool::new(true),
        socket: None,
    }
}

/// Connects, says hello, maps what the welcome brings.
fn meet(core: &Core, lid: u16, address: &AddressVector) -> Result<Peer> {
    let (socket, pid) = dial(lid).map_err(|reason| unreachable(address, reason))?;
    let theirs = core.peers.new_claimer();
    let hello = introduction(core, Kind::Hello, theirs, 0);
    let fds = [core.segment_fd.as_fd(), core.kick.as_fd()];
    let (welcome, fds) = ask(&socket, &hello, &fds).map_err(|reason| unreachable(address, reason))?;
    if welcome.kind != Kind::Welcome {
        return Err(unreachable(
            address,
            "it refused us: it is not at the other end of this device's cable, or of another version of tbrdma"
                .to_owned(),
        ));
    }
    if !core.cable.leads_to(Cable(welcome.cable)) {
        return Err(unreachable(address, OFF_THE_CABLE.to_owned()));
    }
    let peer = admit(&welcome, fds, lid, pid, theirs).map_err(|reason| unreachable(address, reason))?;
    // For its information only, but answered, so that it knows once we are connected.
    let reach = introduction(core, Kind::Reach, theirs, peer.told_reach());
    let _ = ask(&socket, &reach, &[]);
    Ok(Peer { socket: Some(socket), ..peer })
}

/// What a context says of itself: how the other side is known here rides in the argument.
pub(crate) fn introduction(core: &Core, kind: Kind, other: Claimer, reach: u32) -> Message {
    Message {
        kind,
        argument: other.0,
        context: core.context,
        process: process::process_token(),
        segment_bytes: core.segment.len(),
        reach,
        cable: core.cable.0,
    }
}

/// A newcomer has said hello, with its memory attached: now it is a peer of ours. The number by which we know it.
pub(crate) fn admit_newcomer(
    core: &Core,
    hello: &Message,
    fds: Vec<OwnedFd>,
    pid: i32,
) -> std::result::Result<Arc<Peer>, String> {
    if !core.cable.leads_to(Cable(hello.cable)) {
        return Err(OFF_THE_CABLE.to_owned());
    }
    let theirs = core.peers.new_claimer();
    let peer = Arc::new(admit(hello, fds, hello.context as u16, pid, theirs)?);
    core.peers.insert(&peer);
    Ok(peer)
}

/// Maps what came with an introduction, and finds out how its process' own memory is reached.
fn admit(
    introduction: &Message,
    mut fds: Vec<OwnedFd>,
    lid: u16,
    pid: i32,
    theirs: Claimer,
) -> std::result::Result<Peer, String> {
    let (Some(kick), Some(segment_fd), true) = (fds.pop(), fds.pop(), fds.is_empty()) else {
        return Err("it introduced itself without its memory".to_owned());
    };
    if !SEGMENT_SIZES.contains(&introduction.segment_bytes) {
        return Err(
            "it lays its memory out differently: use the same version of tbrdma on both sides".to_owned()
        );
    }
    let (segment, local) = match known(introduction.context) {
        Some(known) => known,
        None => {
            let segment = Segment::map(segment_fd, introduction.segment_bytes)
                .map_err(|error| format!("its memory cannot be mapped: {error}"))?;
            let segment = Arc::new(segment);
            remember(introduction.context, &segment, None);
            (segment, None)
        }
    };
    let words = header(&segment);
    if words.magic.load(Ordering::Acquire) != MAGIC
        || words.context.load(Ordering::Relaxed) != introduction.context
    {
        return Err("its memory is not what its introduction says".to_owned());
    }
    let path = if introduction.process == process::process_token() && local.is_some() {
        ForeignPath::Same
    } else if may_reach(pid, &segment) {
        ForeignPath::ProcessVm
    } else {
        ForeignPath::Agent
    };
    Ok(Peer {
        context: introduction.context,
        lid,
        regions: regions_of(&segment),
        segment,
        kick: Arc::new(EventFd::from_fd(kick)),
        pid,
        reach: Reach::by(path),
        reaches_us: Reach(AtomicU32::new(introduction.reach)),
        local,
        claimer: Claimer(introduction.argument),
        theirs,
        alive: AtomicBool::new(true),
        socket: None,
    })
}

/// A segment's region table.
fn regions_of(segment: &Arc<Segment>) -> Held<RegionEntries> {
    Held::one(segment, layout::region_at(0)).expect("the layout lies within every segment")
}

/// Does the kernel let us read that process' memory? TBRDMA_SHM_FOREIGN=agent makes it so that it does not.
fn may_reach(pid: i32, segment: &Segment) -> bool {
    let words = header(segment);
    std::env::var_os("TBRDMA_SHM_FOREIGN").is_none_or(|wish| wish != "agent")
        && pid > 0
        && remote_memory::probe(pid, words.address.load(Ordering::Relaxed), MAGIC)
}

/// Connects to the context with this LID and makes sure that it is one of our own user's.
fn dial(lid: u16) -> std::result::Result<(OwnedFd, i32), String> {
    let user = process::effective_user_id();
    let socket = socket::connect(&socket_name(user, lid), PATIENCE).map_err(|error| match error.kind() {
        std::io::ErrorKind::ConnectionRefused | std::io::ErrorKind::NotFound => {
            "no process of this user has that address open on this host; is the peer still running?"
                .to_owned()
        }
        _ => format!("connecting to its process failed: {error}"),
    })?;
    let credentials =
        socket::peer_credentials(socket.as_fd()).map_err(|error| format!("its user is unknown: {error}"))?;
    if credentials.uid != user {
        return Err(format!("it belongs to user {}, not to ours ({user})", credentials.uid));
    }
    Ok((socket, credentials.pid))
}

/// One question, one answer.
fn ask(
    socket: &OwnedFd,
    question: &Message,
    fds: &[BorrowedFd<'_>],
) -> std::result::Result<(Message, Vec<OwnedFd>), String> {
    socket::send_message(socket.as_fd(), &question.encode(), fds)
        .map_err(|error| format!("it does not listen: {error}"))?;
    let mut bytes = [0; MESSAGE_BYTES];
    let (len, fds) = socket::receive_message(socket.as_fd(), &mut bytes, Some(PATIENCE))
        .map_err(|error| format!("it does not answer: {error}; is the process stopped?"))?;
    let answer = Message::decode(bytes.get(..len).unwrap_or(&[]))?;
    Ok((answer, fds))
}

/// The descriptor that wakes the channel of a peer's completion queue.
pub(crate) fn channel_of(core: &Core, peer: &Peer, cq: u32) -> Option<Arc<EventFd>> {
    let (socket, _) = dial(peer.lid).ok()?;
    let question = introduction(core, Kind::Channel, Claimer(cq), 0);
    let (answer, mut fds) = ask(&socket, &question, &[]).ok()?;
    (answer.kind == Kind::ChannelIs && answer.context == peer.context).then_some(())?;
    fds.pop().map(|fd| Arc::new(EventFd::from_fd(fd)))
}
