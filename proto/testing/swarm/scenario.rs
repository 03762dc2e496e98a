//! What a seed picks: who talks to whom, how, and what may go wrong.

use core::fmt;
use core::time::Duration;

use crate::fault::{Burst, Chance, Duplicate, FaultPlan, Random, Reorder};
use crate::flags::Access;
use crate::ident::Psn;
use crate::qp::{Mtu, QpType, ack_timeout};

/// One connection of a run, or for datagrams two queue pairs that may send to all others.
#[derive(Clone, Debug)]
pub struct ConnectionSpec {
    /// The transport service.
    pub qp_type: QpType,
    /// The two nodes; they may be one and the same.
    pub nodes: [usize; 2],
    /// Sends that a queue holds.
    pub send_depth: u32,
    /// Receives that a queue holds.
    pub recv_depth: u32,
    /// Whether each end takes its receives from its node's shared queue.
    pub shared: [bool; 2],
    /// Scatter/gather entries of a work request.
    pub max_sge: u32,
    /// The first PSN of each end.
    pub psn: [Psn; 2],
    /// What each end's peer may do.
    pub access: [Access; 2],
    /// READs and atomics outstanding and served.
    pub max_rd_atomic: u8,
    /// Code of the RNR timer.
    pub min_rnr_timer: u8,
    /// Code of the acknowledgement timeout.
    pub timeout: u8,
    /// Retries after timeouts and sequence errors.
    pub retry_cnt: u8,
    /// Retries after RNR NAKs.
    pub rnr_retry: u8,
    /// Whether the ends have every packet of a long WRITE be one of its own.
    pub apart: bool,
}

/// Which kinds of trouble a run has, besides those of its links.
#[derive(Clone, Copy, Debug, Default)]
pub struct Troubles {
    /// Requests with keys, bounds or rights that are wrong on purpose, and receives that are too short.
    pub bad_requests: bool,
    /// Queue pairs are taken to ERR or RESET in the middle.
    pub resets: bool,
    /// Send queues are drained and resumed.
    pub drains: bool,
    /// Nodes lose everything.
    pub restarts: bool,
    /// Links are cut for a while.
    pub cuts: bool,
    /// Receives are not posted for a while.
    pub starvation: bool,
}

impl Troubles {
    /// Those whose bits are set, in the order of the fields from the lowest on.
    pub const fn from_bits(bits: u8) -> Self {
        Self {
            bad_requests: bits & 1 != 0,
            resets: bits & 2 != 0,
            drains: bits & 4 != 0,
            restarts: bits & 8 != 0,
            cuts: bits & 16 != 0,
            starvation: bits & 32 != 0,
        }
    }
}

/// A whole run as its seed has it.
#[derive(Clone, Debug)]
pub struct Scenario {
    /// The seed.
    pub seed: u64,
    /// How many nodes there are.
    pub nodes: usize,
    /// Whether their addresses are IPv6.
    pub ipv6: bool,
    /// The faults of every link.
    pub plan: FaultPlan,
    /// Whether queue pairs are told that their links deliver, as these do but for cuts.
    pub delivers: bool,
    /// How long acknowledgements that may wait do wait.
    pub ack_delay: Duration,
    /// How likely packets meet congestion.
    pub marks: Chance,
    /// The path MTU.
    pub mtu: Mtu,
    /// The connections.
    pub connections: Vec<ConnectionSpec>,
    /// What else goes wrong.
    pub troubles: Troubles,
    /// Bytes of the longest message.
    pub max_len: u32,
    /// How many times something is done.
    pub operations: u32,
    /// The longest time between two of them.
    pub gap: Duration,
}

impl Scenario {
    /// The run of this seed.
    pub fn new(seed: u64) -> Self {
        let mut random = Random::new(seed).stream(0x5ce0);
        let plan = plan(&mut random);
        let troubles = Troubles {
            bad_requests: random.one_in(3),
            resets: random.one_in(4),
            drains: random.one_in(4),
            restarts: random.one_in(6),
            cuts: random.one_in(6),
            starvation: random.one_in(3),
        };
        let mtu = [Mtu::B256, Mtu::B256, Mtu::B512, Mtu::B1024, Mtu::B2048, Mtu::B4096][random.index(6)];
        let most_nodes = if random.one_in(4) { 5 } else { 2 };
        let nodes = random.within(2, most_nodes) as usize;
        let packets = if random.one_in(5) { 40 } else { 5 };
        let ack_delay = Duration::from_nanos(if random.one_in(3) { random.below(20_000) } else { 0 });
        let connections = (0..random.within(1, 4)).map(|_| connection(&mut random, nodes, &plan)).collect();
        Self {
            seed,
            nodes,
            ipv6: random.one_in(4),
            delivers: plan.is_lossless() && Random::new(seed).stream(0xde11).one_in(2),
            plan,
            ack_delay,
            marks: if random.one_in(6) {
                Chance::percent(random.within(1, 20) as u32)
            } else {
                Chance::NEVER
            },
            mtu,
            connections,
            troubles,
            max_len: mtu.bytes() * packets,
            operations: random.within(20, 400) as u32,
            gap: Duration::from_nanos(1000 << random.below(9)),
        }
    }
}

/// Faults of links: none at all in one run of four, else each kind or not.
fn plan(random: &mut Random) -> FaultPlan {
    let mut plan = FaultPlan {
        delay: Duration::from_nanos([0, 700, 5_000, 50_000][random.index(4)]),
        ..FaultPlan::default()
    };
    if random.one_in(3) {
        plan.jitter = plan.delay / 3;
    }
    if random.one_in(4) {
        return plan;
    }
    let some = |random: &mut Random, most: u64| {
        Chance::from_parts(random.below(most * u64::from(Chance::WHOLE) / 1000) as u32).unwrap_or_default()
    };
    if random.one_in(2) {
        plan.loss = some(random, 60);
    }
    if random.one_in(4) {
        plan.burst = Some(Burst { chance: some(random, 10), mean_packets: random.within(2, 8) as u32 });
    }
    if random.one_in(3) {
        let by = Duration::from_nanos(random.within(1, 100_000));
        plan.reorder = Some(Reorder { chance: some(random, 80), by });
        // So that a packet that was held back can be told from one that merely took long.
        plan.jitter = Duration::ZERO;
    }
    if random.one_in(3) {
        let by = Duration::from_nanos(if random.one_in(2) { 0 } else { random.below(500_000) });
        plan.duplicate = Some(Duplicate { chance: some(random, 80), by });
    }
    if random.one_in(4) {
        plan.corrupt = some(random, 30);
    }
    if random.one_in(4) {
        plan.rate = Some([1_000_000_000, 10_000_000_000, 100_000_000_000][random.index(3)]);
        plan.queue = Some(random.within(8, 128) as u32);
    }
    plan
}

/// The longest time a packet takes to the peer and its answer back, in a queue of the largest packets.
pub(super) fn worst_round_trip(plan: &FaultPlan) -> Duration {
    let one_way = plan.delay + plan.jitter + plan.reorder.map_or(Duration::ZERO, |reorder| reorder.by);
    let waiting = match (plan.rate, plan.queue) {
        (Some(rate), Some(queue)) => {
            Duration::from_nanos(u64::from(queue) * 4_300 * 8 * 1_000_000_000 / rate.max(1))
        }
        _ => Duration::ZERO,
    };
    (one_way + waiting) * 2
}

fn connection(random: &mut Random, nodes: usize, plan: &FaultPlan) -> ConnectionSpec {
    let qp_type = [QpType::Rc, QpType::Rc, QpType::Rc, QpType::Uc, QpType::Ud][random.index(5)];
    let first = random.index(nodes);
    // Rarely to itself.
    let second = if random.one_in(12) { first } else { (first + 1 + random.index(nodes - 1)) % nodes };
    let wanted = worst_round_trip(plan) * 6 + Duration::from_micros(100);
    let mut timeout = 1;
    while ack_timeout(timeout).is_some_and(|time| time < wanted) {
        timeout += 1;
    }
    let psn = |random: &mut Random| {
        Psn::masked(if random.one_in(2) {
            (1 << 24) - random.within(1, 40) as u32
        } else {
            random.next_u32()
        })
    };
    let access = |random: &mut Random| {
        let all = Access::REMOTE_WRITE | Access::REMOTE_READ | Access::REMOTE_ATOMIC;
        if random.one_in(10) {
            all - [Access::REMOTE_WRITE, Access::REMOTE_READ, Access::REMOTE_ATOMIC][random.index(3)]
        } else {
            all
        }
    };
    ConnectionSpec {
        qp_type,
        nodes: [first, second],
        send_depth: random.within(1, 32) as u32,
        recv_depth: random.within(1, 16) as u32,
        shared: [random.one_in(4), random.one_in(4)],
        max_sge: random.within(1, 6) as u32,
        psn: [psn(random), psn(random)],
        access: [access(random), access(random)],
        max_rd_atomic: random.within(1, 4) as u8,
        min_rnr_timer: random.within(1, 12) as u8,
        timeout: timeout + random.below(3) as u8,
        // Few retries only where they are used up for a reason.
        retry_cnt: if random.one_in(3) { random.within(1, 7) as u8 } else { 7 },
        rnr_retry: if random.one_in(3) { random.below(7) as u8 } else { 7 },
        apart: random.one_in(4),
    }
}

impl fmt::Display for Scenario {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Troubles { bad_requests, resets, drains, restarts, cuts, starvation } = self.troubles;
        write!(f, "seed {}: {} nodes, mtu {}, links {}", self.seed, self.nodes, self.mtu, self.plan)?;
        for (trouble, name) in [
            (self.delivers, "links that deliver"),
            (bad_requests, "bad requests"),
            (resets, "resets"),
            (drains, "drains"),
            (restarts, "restarts"),
            (cuts, "cuts"),
            (starvation, "starvation"),
        ] {
            if trouble {
                write!(f, ", {name}")?;
            }
        }
        for one in &self.connections {
            let [a, b] = one.nodes;
            write!(f, "; {} n{a}-n{b} depth {}/{}", one.qp_type, one.send_depth, one.recv_depth)?;
        }
        Ok(())
    }
}
