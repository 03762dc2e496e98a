//! What the black-box tests share: two connected nodes in one process, patience, patterns and a small generator.
#![allow(dead_code, reason = "each test file uses its own part")]
#![allow(clippy::panic, clippy::unwrap_used, reason = "a test may fail")]

use std::ops::Range;
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use tbrdma::{
    Access, AddressVector, AsyncEvent, AsyncEventKind, CompletionQueue, Connection, Context, EventSource,
    MemoryRegion, Mtu, ProtectionDomain, QpAddress, QpAttr, QpAttrMask, QpInit, QpState, QpType, QueuePair,
    WcStatus, WorkCompletion,
};

pub(crate) mod apple;
pub(crate) mod capture;
mod clock;
mod patient;
pub(crate) mod place;
mod skip;
#[allow(unused_imports, reason = "each test file uses its own part")]
pub(crate) use clock::{Moment, doubt, lost, patience, quiet};
#[allow(unused_imports, reason = "each test file uses its own part")]
pub(crate) use skip::skip;

static DEVICE: OnceLock<String> = OnceLock::new();

/// Has the tests of this process be about this device; to be said before any of them asks.
pub(crate) fn choose(name: &str) {
    assert_eq!(DEVICE.get_or_init(|| name.to_owned()), name, "the device under test is one a process");
}

/// The device that the tests of this process are about. If nothing was chosen, the name of the binary says it: the software NIC or the simulator where
/// it begins so, else shared memory.
pub(crate) fn device() -> &'static str {
    place::here(chosen())
}

/// Its name as it was chosen, perhaps with an asterisk for the place of each case.
pub(crate) fn chosen() -> &'static str {
    DEVICE.get_or_init(|| {
        let binary = std::env::current_exe().unwrap();
        let name = binary.file_name().unwrap().to_string_lossy().into_owned();
        let devices = [("soft_", "udp:lo"), ("sim_", "sim")];
        devices
            .iter()
            .find(|(start, _)| name.starts_with(start))
            .map_or("shm", |(_, device)| device)
            .to_owned()
    })
}

/// Another context of the device.
pub(crate) fn open() -> Result<Context, tbrdma::Error> {
    place::open(device())
}

/// Whether that is shared memory, where what is posted has happened when the call returns.
pub(crate) fn on_shm() -> bool {
    matches!(device(), "shm" | "native:shm")
}

/// Whether that is a device of the system's verbs library: it does not tell how many completions wait, numbers no work but what buffers are lent to, and
/// names windows and regions by objects, so that a key of nothing cannot be posted.
pub(crate) fn on_native() -> bool {
    let device = chosen();
    !matches!(device, "shm" | "sim")
        && !["udp:", "bar:", "stream:"].iter().any(|soft| device.starts_with(soft))
}

/// The way from a queue pair of this context to a peer, from the address that our peers know us by.
pub(crate) fn way(ctx: &Context, peer: &QpAddress, own: &QpAddress) -> AddressVector {
    let len = ctx.query_port(1).unwrap().gid_tbl_len.min(1 << 8);
    let known = (0..len).find(|index| ctx.query_gid(1, *index).unwrap() == own.gid);
    AddressVector { sgid_index: known.unwrap_or(0) as u8, ..peer.address_vector() }
}

/// Bytes of a node's memory.
pub(crate) const MEMORY: usize = 1 << 20;

/// One end of a connection, with everything it needs.
pub(crate) struct Node {
    pub(crate) qp: QueuePair,
    pub(crate) mr: MemoryRegion,
    pub(crate) cq: CompletionQueue,
    pub(crate) pd: ProtectionDomain,
    pub(crate) ctx: Context,
}

/// Every right there is.
pub(crate) fn all_access() -> Access {
    Access::LOCAL_WRITE | Access::REMOTE_WRITE | Access::REMOTE_READ | Access::REMOTE_ATOMIC
}

impl Node {
    pub(crate) fn new(qp_type: QpType) -> Self {
        Self::with(qp_type, |init| init)
    }

    pub(crate) fn with(qp_type: QpType, shape: impl FnOnce(QpInit<'_>) -> QpInit<'_>) -> Self {
        Self::of(&open().unwrap(), qp_type, shape)
    }

    /// A node of a context that may have others.
    pub(crate) fn of(ctx: &Context, qp_type: QpType, shape: impl FnOnce(QpInit<'_>) -> QpInit<'_>) -> Self {
        let pd = ctx.alloc_pd().unwrap();
        let cq = ctx.create_cq(1024).unwrap();
        let mr = pd.alloc(MEMORY, all_access()).unwrap();
        let qp = pd.create_qp(shape(QpInit::new(qp_type, &cq))).unwrap();
        Self { qp, mr, cq, pd, ctx: ctx.clone() }
    }

    pub(crate) fn post_recv(&mut self, id: u64, range: Range<usize>) {
        let slice = self.mr.slice(range);
        self.qp
            .post_recv(|rq| {
                rq.recv(slice).id(id);
            })
            .unwrap();
    }

    /// Posts a signaled SEND of a part of the node's memory.
    pub(crate) fn post_send(&mut self, id: u64, range: Range<usize>) {
        let slice = self.mr.slice(range);
        self.qp
            .post(|wr| {
                wr.send(slice).id(id);
            })
            .unwrap();
    }

    /// The next completion, waited for.
    pub(crate) fn one(&self) -> WorkCompletion {
        next_of(&self.cq)
    }

    /// The next completion, which must be that of `id` and have ended so.
    #[track_caller]
    pub(crate) fn expect(&self, id: u64, status: WcStatus) -> WorkCompletion {
        let wc = self.one();
        assert_eq!((wc.wr_id, wc.status), (id, status), "{wc:?}");
        assert_eq!(wc.qp_num, self.qp.qp_num());
        wc
    }

    /// The next `count` completions.
    pub(crate) fn take(&self, count: usize) -> Vec<WorkCompletion> {
        (0..count).map(|_| self.one()).collect()
    }

    /// Fails if anything completes within a short while.
    #[track_caller]
    pub(crate) fn expect_nothing(&self) {
        expect_nothing(&self.cq);
    }

    pub(crate) fn bytes(&self, range: Range<usize>) -> Vec<u8> {
        let mut bytes = vec![0; range.len()];
        assert_eq!(self.mr.read(range.start, &mut bytes), bytes.len());
        bytes
    }

    pub(crate) fn fill(&self, range: Range<usize>, byte: u8) {
        assert_eq!(self.mr.write(range.start, &vec![byte; range.len()]), range.len());
    }

    /// Waits until the queue pair is in this state.
    #[track_caller]
    pub(crate) fn await_state(&self, state: QpState) {
        eventually("the queue pair's state", || self.qp.state() == state);
    }

    /// The next event, which must be of this kind and about this node's queue pair.
    #[track_caller]
    pub(crate) fn expect_event(&self, kind: AsyncEventKind) {
        let event = next_event(&self.ctx);
        assert_eq!(event, AsyncEvent { kind, source: EventSource::QueuePair(self.qp.qp_num()) });
    }

    /// Fails if an event is there.
    #[track_caller]
    pub(crate) fn expect_no_event(&self) {
        let mut event = self.ctx.async_events().next(Some(quiet())).unwrap();
        if event.as_ref().is_some_and(place::is_of_meeting) {
            event = self.ctx.async_events().next(Some(quiet())).unwrap();
        }
        assert_eq!(event, None);
    }
}

/// The next completion of a queue, waited for.
#[track_caller]
pub(crate) fn next_of(cq: &CompletionQueue) -> WorkCompletion {
    let begun = Moment::now();
    let mut wcs = [WorkCompletion::default()];
    while cq.poll(&mut wcs).is_empty() {
        assert!(begun.elapsed() < patience(), "no completion within {:?}", patience());
    }
    wcs[0]
}

/// The next completion of a queue, that of a datagram which `send` sends: again where it may have been lost.
pub(crate) fn datagram(cq: &CompletionQueue, mut send: impl FnMut()) -> WorkCompletion {
    let begun = Moment::now();
    let mut wcs = [WorkCompletion::default()];
    loop {
        send();
        let sent = Moment::now();
        while on_shm() || sent.elapsed() < lost() {
            if let [wc] = cq.poll(&mut wcs) {
                return *wc;
            }
            assert!(begun.elapsed() < patience(), "no datagram within {:?}", patience());
        }
    }
}

/// Fails if anything completes there within a short while.
#[track_caller]
pub(crate) fn expect_nothing(cq: &CompletionQueue) {
    let begun = Moment::now();
    let mut wcs = [WorkCompletion::default()];
    while begun.elapsed() < quiet() {
        assert_eq!(cq.poll(&mut wcs), &[], "nothing should have completed");
    }
}

/// The next asynchronous event of a context, waited for.
#[track_caller]
pub(crate) fn next_event(ctx: &Context) -> AsyncEvent {
    loop {
        let event = ctx.async_events().next(Some(patience())).unwrap().expect("an asynchronous event");
        if !place::is_of_meeting(&event) {
            return event;
        }
    }
}

/// Polls a condition until it holds.
#[track_caller]
pub(crate) fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let begun = Moment::now();
    while !holds() {
        assert!(begun.elapsed() < patience(), "{what}: not within {:?}", patience());
        clock::pass_time();
    }
}

static ACTIVE_MTU: OnceLock<Mtu> = OnceLock::new();

/// Learns what the port under test carries: for devices where there is no room for a context more.
pub(crate) fn learn_mtu(active: Mtu) {
    let _ = ACTIVE_MTU.set(active);
}

/// A connection that bears with a machine that has other things to do, in packets that the port under test carries.
pub(crate) fn patient() -> Connection {
    let active = ACTIVE_MTU.get_or_init(|| elsewhere().query_port(1).unwrap().active_mtu);
    let mut connection = patient::patient();
    if active.bytes() < connection.path_mtu.bytes() {
        connection.path_mtu = *active;
    }
    connection
}

/// A context that the others of this thread need not reach: another end of the device, at another place where there is room for two only.
pub(crate) fn elsewhere() -> Context {
    let other = std::thread::spawn(|| (tbrdma::open(device()).unwrap(), place::leave()).0);
    other.join().unwrap()
}

/// Two connected nodes, each with its own context, of type "rc" or "uc".
pub(crate) fn pair(qp_type: &str) -> (Node, Node) {
    pair_shaped(qp_type, |init| init)
}

/// Two connected nodes whose queue pairs are made to measure.
pub(crate) fn pair_shaped(qp_type: &str, shape: impl Fn(QpInit<'_>) -> QpInit<'_>) -> (Node, Node) {
    pair_with(qp_type, shape, &patient())
}

/// Two connected nodes, their queue pairs and both ends of their connection made to measure.
pub(crate) fn pair_with(
    qp_type: &str,
    shape: impl Fn(QpInit<'_>) -> QpInit<'_>,
    with: &Connection,
) -> (Node, Node) {
    let qp_type = if qp_type == "rc" { QpType::Rc } else { QpType::Uc };
    let (mut a, mut b) = (Node::with(qp_type, &shape), Node::with(qp_type, &shape));
    join(&mut a, &mut b, with);
    (a, b)
}

/// Connected pairs in every constellation one process has: two contexts, and two queue pairs of one context.
pub(crate) fn pairs(qp_type: &str, shape: impl Fn(QpInit<'_>) -> QpInit<'_>) -> [(Node, Node); 2] {
    let apart = pair_shaped(qp_type, &shape);
    let qp_type = apart.0.qp.qp_type();
    let ctx = elsewhere();
    let (mut a, mut b) = (Node::of(&ctx, qp_type, &shape), Node::of(&ctx, qp_type, &shape));
    join(&mut a, &mut b, &patient());
    [apart, (a, b)]
}

/// Held by one test at a time of those whose messages nobody sends again. Where devices come and go at an address, the kernel gives some packets to
/// another device, which hands them on: behind later ones, and only if there is room.
pub(crate) fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Connects two nodes with each other.
pub(crate) fn join(a: &mut Node, b: &mut Node, with: &Connection) {
    a.qp.connect_with(&b.qp.address(), with).unwrap();
    b.qp.connect_with(&a.qp.address(), with).unwrap();
}

/// `Connection` is not exhaustive, so it is made by changing the patient one.
pub(crate) fn connection(change: impl FnOnce(&mut Connection)) -> Connection {
    let mut connection = patient();
    change(&mut connection);
    connection
}

/// Bytes that differ from place to place and from seed to seed.
pub(crate) fn pattern(seed: u64, len: usize) -> Vec<u8> {
    let mut rng = Rng(seed);
    (0..len).map(|_| rng.next() as u8).collect()
}

/// splitmix64: small, and the same everywhere.
pub(crate) struct Rng(pub(crate) u64);

impl Rng {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `bound`.
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }
}

/// What brings a node's queue pair from INIT to RTR, to receive from this peer.
pub(crate) fn to_rtr(node: &Node, peer: &QpAddress) -> (QpAttr, QpAttrMask) {
    let attr = QpAttr {
        qp_state: QpState::Rtr,
        port_num: 1,
        ah_attr: way(&node.ctx, peer, &node.qp.address()),
        dest_qp_num: peer.qpn,
        rq_psn: peer.psn,
        path_mtu: patient().path_mtu,
        max_dest_rd_atomic: 1,
        min_rnr_timer: 1,
        ..QpAttr::default()
    };
    let mut mask =
        QpAttrMask::STATE | QpAttrMask::AV | QpAttrMask::PATH_MTU | QpAttrMask::DEST_QPN | QpAttrMask::RQ_PSN;
    if node.qp.qp_type() == QpType::Rc {
        mask |= QpAttrMask::MAX_DEST_RD_ATOMIC | QpAttrMask::MIN_RNR_TIMER;
    }
    (attr, mask)
}
