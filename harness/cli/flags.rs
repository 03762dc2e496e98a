//! The flags of measurements, and the plans they make.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use super::units::{parse_duration, parse_pins, parse_size};
use super::{DEFAULT_HOST, Pins};
use crate::clock::Source;
use crate::error::Result;
use crate::open_loop::{Pace, PaceFlags};
use crate::outputs::OutputFlags;
use crate::plan::{Benchmark, Like, Memory, Op, Plan, Transport, Wait};

/// How long a run measures when neither `--iters` nor `--duration` says so.
const DEFAULT_DURATION: Duration = Duration::from_secs(2);
/// How long a side waits for the other when `--timeout` does not say so.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(10);

/// Flags of every measurement.
#[derive(Debug, Clone, Default, Args)]
pub struct Flags {
    /// Wait for another tbrdma-bench and serve one run; what is measured is the other's choice [default: 127.0.0.1:18515]
    #[arg(long, value_name = "ADDR", num_args = 0..=1, default_missing_value = DEFAULT_HOST, conflicts_with = "connect")]
    pub server: Option<String>,
    /// Measure against a tbrdma-bench that was started with --server, there
    #[arg(long, value_name = "ADDR")]
    pub connect: Option<String>,
    /// Device to open [default: shm]
    #[arg(long, value_name = "NAME")]
    pub device: Option<String>,
    /// Verb to measure [default: send for pingpong, write for bw and rate]
    #[arg(long, value_enum)]
    pub op: Option<Op>,
    /// Transport service [default: rc]
    #[arg(long, value_enum)]
    pub transport: Option<Transport>,
    /// Bytes in a message, as 64, 4k or 1M [default: 64 for pingpong, 64k for bw, 8 for rate and atomics]
    #[arg(long, value_name = "BYTES", value_parser = parse_size)]
    pub size: Option<u64>,
    /// Measure exactly this many messages
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..), conflicts_with = "duration")]
    pub iters: Option<u64>,
    /// Measure for this long, as 2s or 500ms [default: 2s]
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    pub duration: Option<Duration>,
    /// Messages before the first measured one [default: as many as 0.1 s holds]
    #[arg(long, value_name = "N")]
    pub warmup: Option<u64>,
    /// How to wait for completions [default: poll]
    #[arg(long, value_enum)]
    pub wait: Option<Wait>,
    /// Which clock measures latencies [default: auto]
    #[arg(long, value_enum)]
    pub clock: Option<Source>,
    /// Whose memory messages leave from and arrive in [default: library]
    #[arg(long, value_enum)]
    pub memory: Option<Memory>,
    /// Hand the message over inside the work request
    #[arg(long)]
    pub inline: bool,
    /// Cores of initiator and responder; one number is the core of this side [default: two of those allowed]
    #[arg(long, value_name = "A,B", value_parser = parse_pins)]
    pub pin: Option<Pins>,
    /// No progress bar, and one line instead of the report
    #[arg(long)]
    pub quiet: bool,
    /// Where results go besides the terminal.
    #[command(flatten)]
    pub outputs: OutputFlags,
    /// How fast the link is, for what each side sends: a rate, a latency one way, or both, as 64Gbps,5us
    #[arg(long, value_name = "RATE,LATENCY")]
    pub link: Option<String>,
    /// What goes wrong with packets on the way, both ways: loss=1%,delay=50us~20us,reorder=1%:100us (not on shm)
    #[arg(long, value_name = "PLAN")]
    pub fault: Option<String>,
    /// What the devices of both sides pretend to be: plain, rxe, connectx, apple-tb5, perhaps with switches behind commas
    #[arg(long, value_name = "PROFILE")]
    pub profile: Option<String>,
    /// Where the dice of --fault and --arrivals start [default: another one each run, and said]
    #[arg(long, value_name = "N")]
    pub seed: Option<u64>,
    /// Write the packets of this side to this file, as pcapng; on shm those that an adapter would have sent
    #[arg(long, value_name = "FILE")]
    pub capture: Option<PathBuf>,
    /// How long to wait for the other side before giving up, as 10s [default: 10s; --server waits for a client without end]
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    pub timeout: Option<Duration>,
}

/// Flags of `pingpong`.
#[derive(Debug, Clone, Default, Args)]
pub struct PingpongFlags {
    /// Those of every measurement.
    #[command(flatten)]
    pub flags: Flags,
    /// When messages are due.
    #[command(flatten)]
    pub pace: PaceFlags,
    /// How many threads and queue pairs.
    #[command(flatten)]
    pub lanes: LaneFlags,
    /// Measure as another program does, to hold its figures against ours: samples are then whole turns of the loop, and bytes are checked once
    #[arg(long, value_enum, conflicts_with = "rate")]
    pub like: Option<Like>,
}

/// Flags of `bw` and `rate`.
#[derive(Debug, Clone, Default, Args)]
pub struct StreamFlags {
    /// Those of every measurement.
    #[command(flatten)]
    pub flags: Flags,
    /// Most work requests outstanding, each with a buffer of its own [default: up to 128, fewer for large messages]
    #[arg(long, value_name = "N")]
    pub depth: Option<u32>,
    /// Work requests per post, which rings one doorbell [default: 1]
    #[arg(long, value_name = "N")]
    pub post_list: Option<u32>,
    /// One work request in so many asks for a completion [default: 1]
    #[arg(long, value_name = "N")]
    pub signal_every: Option<u32>,
    /// How many threads and queue pairs.
    #[command(flatten)]
    pub lanes: LaneFlags,
}

/// Flags of what can be done by several threads at once.
#[derive(Debug, Clone, Copy, Default, Args)]
pub struct LaneFlags {
    /// Threads on each side, each with queue pairs, completion queues and figures of its own; all begin at once [default: 1]
    #[arg(long, value_name = "N")]
    pub threads: Option<u32>,
    /// Queue pairs of each thread, which its messages go round [default: 1]
    #[arg(long, value_name = "N")]
    pub qps: Option<u32>,
}

impl LaneFlags {
    /// Those that a server leaves to its client, as far as they were given.
    pub fn only_for_clients(&self) -> impl Iterator<Item = &'static str> {
        let given = [("--threads", self.threads.is_some()), ("--qps", self.qps.is_some())];
        given.into_iter().filter_map(|(name, given)| given.then_some(name))
    }

    fn apply(self, plan: &mut Plan) {
        plan.threads = self.threads.unwrap_or(1);
        plan.qps = self.qps.unwrap_or(1);
    }
}

/// How long the initiator measures.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Extent {
    /// So many messages.
    Messages(u64),
    /// So long.
    Time(Duration),
}

impl Flags {
    /// How long to wait for the other side.
    #[must_use]
    pub fn timeout(&self) -> Duration {
        self.timeout.unwrap_or(DEFAULT_TIMEOUT)
    }

    /// How long to measure.
    #[must_use]
    pub fn extent(&self) -> Extent {
        match self.iters {
            Some(messages) => Extent::Messages(messages),
            None => Extent::Time(self.duration.unwrap_or(DEFAULT_DURATION)),
        }
    }

    /// Flags which a server leaves to its client, as far as they were given.
    #[must_use]
    pub fn only_for_clients(&self) -> Vec<&'static str> {
        let given = [
            ("--op", self.op.is_some()),
            ("--transport", self.transport.is_some()),
            ("--size", self.size.is_some()),
            ("--iters", self.iters.is_some()),
            ("--duration", self.duration.is_some()),
            ("--warmup", self.warmup.is_some()),
            ("--wait", self.wait.is_some()),
            ("--memory", self.memory.is_some()),
            ("--clock", self.clock.is_some()),
            ("--inline", self.inline),
            ("--json", self.outputs.json.is_some()),
            ("--csv", self.outputs.csv.is_some()),
            ("--hgrm", self.outputs.hgrm.is_some()),
            ("--profile", self.profile.is_some()),
            ("--link", self.link.is_some()),
            ("--fault", self.fault.is_some()),
            ("--seed", self.seed.is_some()),
        ];
        given.into_iter().filter_map(|(name, given)| given.then_some(name)).collect()
    }

    /// The plan that these flags ask for; what only some measurements have is left to them, and [`Plan::validate`] too.
    ///
    /// # Errors
    /// The flags contradict each other.
    pub fn plan(&self, benchmark: Benchmark, default_op: Op) -> Result<Plan> {
        let op = self.op.unwrap_or(default_op);
        let transport = self.transport.unwrap_or(Transport::Rc);
        let milliseconds = u64::try_from(self.timeout().as_millis()).unwrap_or(u64::MAX);
        Ok(Plan {
            benchmark,
            op,
            transport,
            size: self.size.unwrap_or_else(|| op.default_size(benchmark, transport)),
            wait: self.wait.unwrap_or(Wait::Poll),
            inline: self.inline,
            depth: 2,
            post_list: 1,
            signal_every: 1,
            device: self.device.clone().unwrap_or_else(|| "shm".into()),
            pin_responder: self.pin.and_then(|pins| pins.second),
            timeout_ms: milliseconds,
            profile: self.profile.clone(),
            link: self.link.clone(),
            fault: self.fault.clone(),
            seed: self.fault.as_ref().map(|_| self.seed.unwrap_or_else(seed_of_now)),
            memory: self.memory.unwrap_or_default(),
            threads: 1,
            qps: 1,
            mix: Vec::new(),
            gaps_ns: Vec::new(),
            like: None,
        })
    }
}

impl PingpongFlags {
    /// The plan of a pingpong.
    ///
    /// # Errors
    /// The flags contradict each other.
    pub fn plan(&self) -> Result<Plan> {
        let mut plan = self.flags.plan(Benchmark::Pingpong, Op::Send)?;
        plan.depth = Plan::pingpong_depth(plan.size);
        plan.signal_every = plan.depth / 2;
        if let Some(like) = self.like {
            plan.like = Some(like);
            plan.depth = plan.depth_like(like);
            plan.signal_every = 1;
            // Its memory is from the heap, and `tbrdma-run` adopts it.
            plan.memory = self.flags.memory.unwrap_or(Memory::Adopted);
        }
        self.lanes.apply(&mut plan);
        plan.validate().map(|()| plan)
    }

    /// When messages are due; `None` in a closed loop.
    ///
    /// # Errors
    /// The flags contradict each other.
    pub fn pace(&self) -> Result<Option<Pace>> {
        self.pace.pace(self.flags.timeout(), self.flags.seed.unwrap_or_else(seed_of_now))
    }
}

impl StreamFlags {
    /// The plan of a `bw` or `rate`.
    ///
    /// # Errors
    /// The flags contradict each other.
    pub fn plan(&self, benchmark: Benchmark) -> Result<Plan> {
        let mut plan = self.flags.plan(benchmark, Op::Write)?;
        let least = self.post_list.unwrap_or(1).max(self.signal_every.unwrap_or(1));
        plan.depth = self.depth.unwrap_or_else(|| Plan::stream_depth(plan.size).max(least));
        plan.post_list = self.post_list.unwrap_or(1);
        plan.signal_every = self.signal_every.unwrap_or(1);
        self.lanes.apply(&mut plan);
        plan.validate().map(|()| plan)
    }
}

/// A seed for those who gave none: another one each time.
#[must_use]
pub fn seed_of_now() -> u64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    u64::from(now.subsec_nanos()) ^ u64::from(std::process::id()) << 32
}
