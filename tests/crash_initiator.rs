//! A thousand initiators killed at random moments of whatever they were doing to us: we lose nothing but them.

#[path = "common/census.rs"]
mod census;
#[path = "common/foreign.rs"]
mod foreign;
#[path = "common/pattern.rs"]
mod pattern;
#[path = "common/process.rs"]
mod process;
#[path = "common/puppet.rs"]
mod puppet;
#[path = "common/seccomp.rs"]
mod seccomp;
#[path = "common/storm.rs"]
mod storm;

use pattern::Random;
use process::{Child, PATIENCE};
use puppet::{QKEY, all_access, card};
use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};
use storm::{Storm, message, whole};
use tbrdma::{
    AsyncEventKind, CompletionQueue, Context, EventSource, MemoryRegion, PostRefusal, ProtectionDomain,
    QpInit, QpType, Qpn, QueuePair, SharedReceiveQueue, WcStatus, WorkCompletion,
};

/// How many die.
const DEATHS: u64 = 1000;
/// What most deaths may take to be settled: a second, and slack for a machine that is busy with other things. None takes longer than the tests' patience.
const SETTLED: Duration = Duration::from_secs(3);
/// How long a victim rages at most.
const LIFE_US: u64 = 5000;
/// Receives a victim's queue pair has posted.
const OWN: usize = 8;
/// Receives of the shared queue, and of the datagram queue pair.
const SHARED: u64 = 128;
/// Bytes of one receive's place.
const PLACE: usize = 65_536;
/// Victims, raging or being settled, at a time.
const AREAS: usize = 96;
/// Work request identifiers: what they belong to, in the upper half.
const OF_SRQ: u64 = 1 << 40;
const OF_UD: u64 = 2 << 40;
const OF_SELF: u64 = 3 << 40;
const OF_SENDS: u64 = 4 << 40;

#[test]
fn child() {
    if process::role().is_some() {
        storm::rage();
    }
}

/// The one who survives.
struct Survivor {
    ctx: Context,
    pd: ProtectionDomain,
    cq: CompletionQueue,
    mr: MemoryRegion,
    /// Application memory: reached by the kernel's help, or the agent's.
    heap: MemoryRegion,
    srq: SharedReceiveQueue,
    ud: QueuePair,
    /// Two ends of a connection with itself, which must not notice anything.
    own: [QueuePair; 2],
    own_messages: u64,
    own_arrived: u64,
    victims: HashMap<Qpn, Victim>,
    /// Datagram senders have no queue pair here: by their number, the next message.
    datagrams: HashMap<u64, u64>,
    areas: Vec<usize>,
    /// Shared receives that are to be posted again.
    used: Vec<u64>,
    /// Victims that were settled, and those of them that were soon.
    settled: [u64; 2],
}

struct Victim {
    storm: Storm,
    who: u64,
    qp: QueuePair,
    area: usize,
    /// Receives and sends of ours that have not completed.
    outstanding: HashSet<u64>,
    next_message: u64,
    killed: Option<Instant>,
    event: bool,
    /// A member of the shared queue takes no more of its receives.
    last: bool,
    /// All that it had completed has been taken: a queue pair that is destroyed takes the rest along.
    drained: bool,
    failed: bool,
}

/// Where things are in the survivor's memory.
fn place_of(area: usize, index: usize) -> usize {
    (area * OWN + index) * PLACE
}
const SRQ_AT: usize = AREAS * OWN * PLACE;
const UD_AT: usize = SRQ_AT + SHARED as usize * 4096;
const OWN_AT: usize = UD_AT + SHARED as usize * 4096;
/// Victims write and read here.
const TARGET_AT: usize = OWN_AT + 4 * 4096;
const TARGET: usize = OWN * PLACE;
const ALL: usize = TARGET_AT + TARGET;

impl Survivor {
    fn new() -> Self {
        let ctx = tbrdma::open("shm").unwrap();
        let pd = ctx.alloc_pd().unwrap();
        let cq = ctx.create_cq(8192).unwrap();
        let mr = pd.alloc(ALL, all_access()).unwrap();
        let heap = pd.register(vec![0; TARGET], all_access()).unwrap();
        let mut srq = pd.create_srq(SHARED as u32, 1).unwrap();
        let mut ud = pd.create_qp(QpInit::ud(&cq).max_recv_wr(SHARED as u32)).unwrap();
        ud.activate_ud(QKEY).unwrap();
        for n in 0..SHARED {
            srq.post_recv(|rq| drop(rq.recv(mr.slice(srq_range(n))).id(OF_SRQ | n))).unwrap();
            ud.post_recv(|rq| drop(rq.recv(mr.slice(ud_range(n))).id(OF_UD | n))).unwrap();
        }
        let mut own = [pd.create_qp(QpInit::rc(&cq)).unwrap(), pd.create_qp(QpInit::rc(&cq)).unwrap()];
        let addresses = own.each_ref().map(QueuePair::address);
        own[0].connect_with(&addresses[1], &puppet::patient()).unwrap();
        own[1].connect_with(&addresses[0], &puppet::patient()).unwrap();
        Self {
            ctx,
            pd,
            cq,
            mr,
            heap,
            srq,
            ud,
            own,
            own_messages: 0,
            own_arrived: 0,
            victims: HashMap::new(),
            datagrams: HashMap::new(),
            areas: (0..AREAS).collect(),
            used: Vec::new(),
            settled: [0; 2],
        }
    }

    /// Starts a victim and connects to it; it waits for the word.
    fn welcome(&mut self, who: u64, random: &mut Random) -> (Child, Option<Qpn>) {
        let storm = Storm::ALL[(who % Storm::ALL.len() as u64) as usize];
        let env: &[_] = if random.below(3) == 0 { &[("TBRDMA_SHM_FOREIGN", "agent")] } else { &[] };
        let foreign = random.below(2) == 0
            && matches!(storm, Storm::Write | Storm::Read | Storm::Atomic | Storm::WriteImm);
        let mut child = Child::start_with("storm", env);
        let theirs = child.ask(format!("{storm:?} {who}"));
        let mut target = if foreign { self.heap.remote() } else { self.mr.remote() };
        if !foreign {
            target.addr += TARGET_AT as u64;
        }
        if storm.qp_type() == QpType::Ud {
            if storm == Storm::Datagram {
                self.datagrams.insert(who, 0);
            }
            assert_eq!(child.ask(format!("connect {}", card(&self.ud.address(), &target))), "ok");
            return (child, None);
        }
        let init = QpInit::rc(&self.cq);
        let init = if storm == Storm::Shared { init.srq(&self.srq) } else { init };
        let mut qp = self.pd.create_qp(init).unwrap();
        let mut patient = puppet::patient();
        patient.rnr_retry = 7;
        qp.connect_with(&theirs.split(' ').next().unwrap().parse().unwrap(), &patient).unwrap();
        let area = self.areas.pop().unwrap();
        let mut outstanding = HashSet::new();
        if storm != Storm::Shared {
            for index in 0..OWN {
                let id = who << 8 | index as u64;
                let at = place_of(area, index);
                qp.post_recv(|rq| drop(rq.recv(self.mr.slice(at..at + PLACE)).id(id))).unwrap();
                outstanding.insert(id);
            }
        }
        assert_eq!(child.ask(format!("connect {}", card(&qp.address(), &target))), "ok");
        if random.below(2) == 0 {
            // Sends that wait for ever, as the victim never posts a receive.
            for id in [OF_SENDS | who << 8, OF_SENDS | who << 8 | 1] {
                qp.post(|wr| drop(wr.send(self.mr.slice(OWN_AT..OWN_AT + 64)).id(id))).unwrap();
                outstanding.insert(id);
            }
        }
        let qpn = qp.qp_num();
        let victim = Victim {
            storm,
            who,
            qp,
            area,
            outstanding,
            next_message: 0,
            killed: None,
            event: false,
            last: storm != Storm::Shared,
            drained: false,
            failed: false,
        };
        self.victims.insert(qpn, victim);
        (child, Some(qpn))
    }

    /// Takes completions and events, and posts again what was used.
    fn look(&mut self) {
        let mut wcs = [WorkCompletion::default(); 64];
        let polled = self.cq.poll(&mut wcs);
        let idle = polled.is_empty();
        for victim in self.victims.values_mut() {
            victim.drained |= idle && victim.event && victim.last;
        }
        for wc in polled {
            match wc.wr_id >> 40 {
                1 => self.srq_message(wc),
                2 => self.ud_message(wc),
                3 => self.own_message(wc),
                _ => self.of_victim(wc),
            }
        }
        self.post_again();
        while let Some(event) = self.ctx.async_events().try_next() {
            let EventSource::QueuePair(qpn) = event.source else { panic!("{event}") };
            match event.kind {
                AsyncEventKind::QpFatal => self.victims.get_mut(&qpn).unwrap().event = true,
                AsyncEventKind::QpLastWqeReached => self.victims.get_mut(&qpn).unwrap().last = true,
                _ => panic!("{event}"),
            }
        }
        self.victims.retain(|_, victim| {
            let settled = victim.killed.is_some() && victim.outstanding.is_empty() && victim.drained;
            let since = victim.killed.map_or(Duration::ZERO, |killed| killed.elapsed());
            if settled {
                self.areas.push(victim.area);
                self.settled[0] += 1;
                self.settled[1] += u64::from(since < SETTLED);
            }
            assert!(
                settled || !idle || since < PATIENCE,
                "{:?} {}: {:?}, event {}",
                victim.storm,
                victim.who,
                victim.outstanding,
                victim.event
            );
            !settled
        });
    }

    fn bytes(&self, at: usize, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        assert_eq!(self.mr.read(at, &mut bytes), len);
        bytes
    }

    fn of_victim(&mut self, wc: &WorkCompletion) {
        let victim = self.victims.get_mut(&wc.qp_num).unwrap();
        assert!(victim.outstanding.remove(&wc.wr_id), "twice: {wc:?}");
        if wc.wr_id & OF_SENDS != 0 {
            let first = wc.wr_id & 0xff == 0;
            let expected = if first { WcStatus::RetryExcErr } else { WcStatus::WrFlushErr };
            assert_eq!(wc.status, expected);
            assert!(victim.killed.is_some(), "failed before it was killed: {wc:?}");
            return;
        }
        if wc.status == WcStatus::WrFlushErr {
            assert!(victim.killed.is_some(), "flushed before it was killed: {wc:?}");
            victim.failed = true;
            return;
        }
        assert_eq!(wc.status, WcStatus::Success);
        assert!(victim.storm.takes_receives(), "{:?} sends nothing: {wc:?}", victim.storm);
        assert!(!victim.failed, "a message after the flush: {wc:?}");
        assert_eq!(wc.byte_len as usize, victim.storm.size());
        let number = victim.next_message;
        victim.next_message += 1;
        let at = place_of(victim.area, wc.wr_id as usize & 0xff);
        if victim.storm == Storm::WriteImm {
            assert_eq!(u64::from(wc.imm_data), number);
        } else {
            let who = victim.who;
            let bytes = self.bytes(at, wc.byte_len as usize);
            assert_eq!(whole(&bytes), (who, number));
        }
        let victim = self.victims.get_mut(&wc.qp_num).unwrap();
        victim.outstanding.insert(wc.wr_id);
        let slice = self.mr.slice(at..at + PLACE);
        victim.qp.post_recv(|rq| drop(rq.recv(slice).id(wc.wr_id))).unwrap();
    }

    fn srq_message(&mut self, wc: &WorkCompletion) {
        assert_eq!(wc.status, WcStatus::Success);
        let n = wc.wr_id & 0xffff;
        let message = whole(&self.bytes(srq_range(n).start, wc.byte_len as usize));
        let victim = self.victims.get_mut(&wc.qp_num).unwrap();
        assert_eq!(message, (victim.who, victim.next_message));
        victim.next_message += 1;
        self.used.push(wc.wr_id);
    }

    fn ud_message(&mut self, wc: &WorkCompletion) {
        assert_eq!(wc.status, WcStatus::Success);
        let n = wc.wr_id & 0xffff;
        let (who, number) = whole(&self.bytes(ud_range(n).start + 40, wc.byte_len as usize - 40));
        // Some may have been dropped for want of a receive, but none comes twice or late.
        let next = self.datagrams.get_mut(&who).unwrap();
        assert!(number >= *next, "{number} of {who}, which was at {next}");
        *next = number + 1;
        self.used.push(wc.wr_id);
    }

    /// Posts the shared receives that were used again. One that has died in the middle of a message may keep the queue full for a moment.
    fn post_again(&mut self) {
        let mr = &self.mr;
        let (srq, ud) = (&mut self.srq, &mut self.ud);
        self.used.retain(|id| {
            let n = id & 0xffff;
            let posted = match id >> 40 {
                1 => srq.post_recv(|rq| drop(rq.recv(mr.slice(srq_range(n))).id(*id))),
                _ => ud.post_recv(|rq| drop(rq.recv(mr.slice(ud_range(n))).id(*id))),
            };
            posted.is_err_and(|error| matches!(error.reason, PostRefusal::QueueFull { .. }))
        });
    }

    /// One message of ours to ourselves, while others die.
    fn send_to_self(&mut self) {
        assert_eq!(self.own_arrived, self.own_messages);
        let number = self.own_messages;
        self.mr.write(OWN_AT, &message(u64::MAX, number, 2000));
        let (from, to) = (self.mr.slice(OWN_AT..OWN_AT + 2000), self.mr.slice(OWN_AT + 4096..OWN_AT + 8192));
        self.own[1].post_recv(|rq| drop(rq.recv(to).id(OF_SELF | number))).unwrap();
        self.own[0].post(|wr| drop(wr.send(from).unsignaled())).unwrap();
        self.own_messages += 1;
        if number % 32 == 31 {
            // Signaled once in a while, to make room.
            self.own[1].post_recv(|rq| drop(rq.recv_nothing().id(OF_SELF | 1 << 39))).unwrap();
            self.own[0].post(|wr| drop(wr.send_inline(&[]).id(OF_SELF | 1 << 39))).unwrap();
        }
    }

    fn own_message(&mut self, wc: &WorkCompletion) {
        assert_eq!(wc.status, WcStatus::Success);
        if wc.wr_id & 1 << 39 != 0 {
            return;
        }
        assert_eq!(wc.wr_id & 0xffff_ffff, self.own_arrived);
        assert_eq!(whole(&self.bytes(OWN_AT + 4096, 2000)), (u64::MAX, self.own_arrived));
        self.own_arrived += 1;
    }

    fn look_for(&mut self, time: Duration) {
        let begun = Instant::now();
        while begun.elapsed() < time {
            self.look();
        }
    }

    fn until(&mut self, what: &str, holds: impl Fn(&Self) -> bool) {
        let begun = Instant::now();
        while !holds(self) {
            self.look();
            assert!(begun.elapsed() < PATIENCE, "not in time: {what}; to be posted: {:x?}", self.used);
        }
    }

    /// Every receive of the shared queue and of the datagram queue pair is still there: as many messages as they hold arrive, each in
    /// one of its own.
    fn count_shared_receives(&mut self) {
        let mut to_srq = self.pd.create_qp(QpInit::rc(&self.cq).srq(&self.srq)).unwrap();
        let mut from = self.pd.create_qp(QpInit::rc(&self.cq).max_send_wr(256)).unwrap();
        // However long a receive is on its way back.
        let mut patient = puppet::patient();
        patient.rnr_retry = 7;
        to_srq.connect_with(&from.address(), &patient).unwrap();
        from.connect_with(&to_srq.address(), &patient).unwrap();
        let mut datagrams = self.pd.create_qp(QpInit::ud(&self.cq).max_send_wr(256)).unwrap();
        datagrams.activate_ud(QKEY).unwrap();
        let ah = self.pd.create_ah_to(&self.ud.address()).unwrap();
        for _ in 0..SHARED {
            let slice = self.mr.slice(OWN_AT..OWN_AT + 64);
            from.post(|wr| drop(wr.send(slice).unsignaled())).unwrap();
            datagrams.post(|wr| drop(wr.send(slice).unsignaled().to(&ah, self.ud.qp_num(), QKEY))).unwrap();
        }
        let mut seen = HashSet::new();
        let begun = Instant::now();
        let mut wcs = [WorkCompletion::default(); 64];
        while seen.len() < 2 * SHARED as usize {
            for wc in self.cq.poll(&mut wcs) {
                assert_eq!(wc.status, WcStatus::Success);
                assert!(seen.insert(wc.wr_id), "twice: {wc:?}");
            }
            let missing =
                || (0..SHARED).flat_map(|n| [OF_SRQ | n, OF_UD | n]).filter(|id| !seen.contains(id));
            assert!(begun.elapsed() < PATIENCE, "receives are lost: {:x?}", missing().collect::<Vec<_>>());
        }
        assert!(seen.iter().all(|id| matches!(id >> 40, 1 | 2)), "{seen:x?}");
        for n in 0..SHARED {
            let (srq, ud) = (self.mr.slice(srq_range(n)), self.mr.slice(ud_range(n)));
            self.srq.post_recv(|rq| drop(rq.recv(srq).id(OF_SRQ | n))).unwrap();
            self.ud.post_recv(|rq| drop(rq.recv(ud).id(OF_UD | n))).unwrap();
        }
    }
}

fn srq_range(n: u64) -> std::ops::Range<usize> {
    let at = SRQ_AT + n as usize * 4096;
    at..at + 4096
}

fn ud_range(n: u64) -> std::ops::Range<usize> {
    let at = UD_AT + n as usize * 4096;
    at..at + 4096
}

/// Descriptors, mappings, threads.
type Holdings = (Vec<String>, usize, usize);

fn holdings() -> Holdings {
    (census::descriptors(), census::segments(), census::threads())
}

/// Does the process hold what it did then? A thread of the test harness may have ended since.
fn is_back_to(before: &Holdings) -> bool {
    let now = holdings();
    (&now.0, now.1) == (&before.0, before.1) && now.2 <= before.2
}

#[test]
fn a_thousand_deaths() {
    let seed =
        std::env::var("TBRDMA_TEST_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(20_240_607);
    println!("TBRDMA_TEST_SEED={seed}");
    let mut random = Random(seed);
    let mut survivor = Survivor::new();
    let before = holdings();
    for who in 0..DEATHS {
        if survivor.areas.is_empty() {
            survivor.until("victims are settled", |survivor| !survivor.areas.is_empty());
        }
        let (mut child, qpn) = survivor.welcome(who, &mut random);
        child.say("go");
        survivor.look_for(Duration::from_micros(random.below(LIFE_US)));
        child.kill();
        if let Some(victim) = qpn.and_then(|qpn| survivor.victims.get_mut(&qpn)) {
            victim.killed = Some(Instant::now());
        }
        child.bury();
        survivor.send_to_self();
        survivor.until("our own message", |survivor| survivor.own_arrived == survivor.own_messages);
        if who % 250 == 249 {
            survivor.until("all are settled", |survivor| survivor.victims.is_empty());
            survivor.until("the dead are forgotten", |_| is_back_to(&before));
            survivor.until("all receives are posted", |survivor| survivor.used.is_empty());
            survivor.count_shared_receives();
        }
    }
    let delivered: u64 = survivor.datagrams.values().sum();
    println!("{delivered} datagrams, {} messages to ourselves", survivor.own_arrived);
    assert!(delivered > 0);
    let [settled, soon] = survivor.settled;
    assert!(2 * soon > settled, "only {soon} of {settled} deaths were settled soon");
}
