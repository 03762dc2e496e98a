//! What one run measures: made from the flags by the initiator, sent to the responder, checked by both.

use clap::ValueEnum;
use serde::{Deserialize, Serialize};
use tbrdma::Profile;
use tbrdma::fault::{FaultPlan, LinkModel};

use crate::error::{Error, Result};
use crate::mixed::{self, Class};

/// Largest message that any plan may ask for; a device may allow less.
pub const MAX_SIZE: u64 = 1 << 31;
/// Most work requests that any plan may keep outstanding; a device may allow fewer.
pub const MAX_DEPTH: u32 = 16_384;
/// Most memory that one side registers for its messages.
pub const MAX_MEMORY: u64 = 8 << 30;
/// Most threads of a side.
pub const MAX_THREADS: u32 = 64;
/// Most queue pairs of a thread.
pub const MAX_QPS: u32 = 1024;
/// Bytes in front of every message in a UD receive buffer: the global routing header.
pub const GRH_BYTES: usize = 40;
/// The Q_Key of both sides of a UD run.
pub const QKEY: u32 = 0x1111_1111;

/// Which measurement.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Benchmark {
    /// Latency: one message at a time.
    Pingpong,
    /// Throughput in one direction, told in bytes.
    Bw,
    /// Throughput in one direction, told in messages.
    Rate,
    /// Operations and sizes by weight, many messages under way.
    Mixed,
    /// Latency of a message after a silence.
    Idle,
    /// Many ranks send to one.
    Incast,
    /// Each of many ranks sends to each other.
    Mesh,
    /// Each of many ranks gets the sum of what all have.
    Allreduce,
    /// The requests of a trace, posted again. It has a plan of its own: [`crate::replay`].
    Replay,
}

/// Which verb.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Op {
    /// SEND into a posted receive.
    Send,
    /// SEND with 32 bits of immediate data.
    SendImm,
    /// RDMA WRITE; the target polls its own memory.
    Write,
    /// RDMA WRITE with immediate data, which completes a receive of the target.
    WriteImm,
    /// RDMA READ; the target does nothing.
    Read,
    /// Atomic compare and swap of eight bytes; the target does nothing.
    Cas,
    /// Atomic fetch and add of eight bytes; the target does nothing.
    Faa,
}

/// Which transport service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Transport {
    /// Reliable connection.
    Rc,
    /// Unreliable connection.
    Uc,
    /// Unreliable datagram.
    Ud,
}

/// How a side waits for completions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Wait {
    /// Polls the completion queue (or memory, for `write`) without a pause.
    Poll,
    /// Arms the completion queue and sleeps on its channel.
    Event,
}

/// Whose memory messages leave from and arrive in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Memory {
    /// Allocated by the library.
    #[default]
    Library,
    /// From the heap, registered in place.
    Registered,
    /// From the heap, registered in place and adopted: mapped by the peer where that is possible.
    Adopted,
}

/// Another program, to measure as it does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Like {
    /// perftest's `ib_send_lat` and `ib_write_lat`. A sample is a whole turn of the loop, from one post to the next; each send's completion is polled for before anything
    /// else; messages carry the same bytes over and over (but for the end of a WRITE, which the target waits for), and nobody looks at them.
    Perftest,
}

macro_rules! names {
    ($type:ty { $($variant:ident => $name:literal),+ $(,)? }) => {
        impl std::fmt::Display for $type {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(match self { $(Self::$variant => $name),+ })
            }
        }
    };
}
names!(Benchmark { Pingpong => "pingpong", Bw => "bw", Rate => "rate", Mixed => "mixed", Idle => "idle", Incast => "incast", Mesh => "mesh", Allreduce => "allreduce", Replay => "replay" });
names!(Op {
    Send => "send", SendImm => "send-imm", Write => "write", WriteImm => "write-imm",
    Read => "read", Cas => "cas", Faa => "faa",
});
names!(Transport { Rc => "rc", Uc => "uc", Ud => "ud" });
names!(Like { Perftest => "perftest" });
names!(Wait { Poll => "poll", Event => "event" });

impl Benchmark {
    /// Does it measure latencies?
    #[must_use]
    pub fn has_latencies(self) -> bool {
        !matches!(self, Self::Bw | Self::Rate)
    }

    /// Is it between any number of ranks, and not between two sides?
    #[must_use]
    pub fn has_ranks(self) -> bool {
        matches!(self, Self::Incast | Self::Mesh | Self::Allreduce)
    }
}

impl Transport {
    /// Has it this operation (InfiniBand specification, volume 1, section 9.2)?
    #[must_use]
    pub fn allows(self, op: Op) -> bool {
        match self {
            Self::Rc => true,
            Self::Uc => !op.is_one_sided(),
            Self::Ud => matches!(op, Op::Send | Op::SendImm),
        }
    }
}

impl Op {
    /// Does every message use up a receive of the target?
    #[must_use]
    pub fn consumes_receive(self) -> bool {
        matches!(self, Self::Send | Self::SendImm | Self::WriteImm)
    }

    /// Does the target do nothing at all, so that latency is that of the whole operation?
    #[must_use]
    pub fn is_one_sided(self) -> bool {
        matches!(self, Self::Read | Self::Cas | Self::Faa)
    }

    /// Is it one of the two atomics?
    #[must_use]
    pub fn is_atomic(self) -> bool {
        matches!(self, Self::Cas | Self::Faa)
    }

    /// Does the message carry immediate data?
    #[must_use]
    pub fn has_imm(self) -> bool {
        matches!(self, Self::SendImm | Self::WriteImm)
    }

    /// The size that a user who gives none gets.
    #[must_use]
    pub fn default_size(self, benchmark: Benchmark, transport: Transport) -> u64 {
        match benchmark {
            _ if self.is_atomic() => 8,
            Benchmark::Pingpong | Benchmark::Idle | Benchmark::Mixed => 64,
            // A datagram fits one packet.
            Benchmark::Bw if transport == Transport::Ud => 1 << 10,
            Benchmark::Bw => 64 << 10,
            Benchmark::Rate | Benchmark::Replay => 8,
            Benchmark::Incast | Benchmark::Mesh | Benchmark::Allreduce => 64 << 10,
        }
    }
}

/// What one run measures; the same value on both sides.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    /// Which measurement.
    pub benchmark: Benchmark,
    /// Which verb.
    pub op: Op,
    /// Which transport service.
    pub transport: Transport,
    /// Bytes in a message.
    pub size: u64,
    /// How both sides wait.
    pub wait: Wait,
    /// Are messages handed over inside the work request?
    pub inline: bool,
    /// Most work requests outstanding; also the number of buffers that messages go round.
    pub depth: u32,
    /// Work requests per doorbell.
    pub post_list: u32,
    /// One work request in so many asks for a completion.
    pub signal_every: u32,
    /// The device which the initiator would like the responder to use.
    pub device: String,
    /// The core which the responder pins itself to.
    pub pin_responder: Option<usize>,
    /// How long either side waits for the other before it gives up, in milliseconds.
    pub timeout_ms: u64,
    /// What the devices of both sides pretend to be: a profile's text.
    #[serde(default)]
    pub profile: Option<String>,
    /// How fast the link is for what either side sends: a link model's text.
    #[serde(default)]
    pub link: Option<String>,
    /// What goes wrong with the packets that either side sends: a fault plan's text.
    #[serde(default)]
    pub fault: Option<String>,
    /// Where the faults' dice start; the responder's start one further.
    #[serde(default)]
    pub seed: Option<u64>,
    /// Whose memory both sides use.
    #[serde(default)]
    pub memory: Memory,
    /// Threads of each side, each with completion queues, queue pairs and buffers of its own.
    #[serde(default = "one")]
    pub threads: u32,
    /// Queue pairs of each thread, which messages go round.
    #[serde(default = "one")]
    pub qps: u32,
    /// The classes of a mix.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub mix: Vec<Class>,
    /// The silences before messages, in nanoseconds, one after the other.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub gaps_ns: Vec<u64>,
    /// As whom a pingpong measures.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub like: Option<Like>,
}

fn one() -> u32 {
    1
}

impl Plan {
    /// Distance from one buffer to the next.
    #[must_use]
    pub fn stride(&self) -> u64 {
        let head = if self.transport == Transport::Ud { GRH_BYTES as u64 } else { 0 };
        (self.size + head).max(8).next_multiple_of(64)
    }

    /// Number of buffers at the target: twice the depth where receives are posted, so that half can be under way back.
    #[must_use]
    pub fn target_slots(&self) -> u32 {
        match self.benchmark {
            Benchmark::Pingpong | Benchmark::Idle => self.depth,
            Benchmark::Mixed => mixed::slots(self),
            _ if self.op.consumes_receive() => self.depth * 2,
            _ => self.depth,
        }
    }

    /// Is it one message at a time, there and back?
    #[must_use]
    pub fn is_pingpong(&self) -> bool {
        matches!(self.benchmark, Benchmark::Pingpong | Benchmark::Idle)
    }

    /// Queue pairs of a side, each with buffers of its own.
    #[must_use]
    pub fn flows(&self) -> u64 {
        u64::from(self.threads) * u64::from(self.qps)
    }

    /// The number of buffers for a pingpong of such messages: many while they are small, few when they are large.
    #[must_use]
    pub fn pingpong_depth(size: u64) -> u32 {
        ((4 << 20) / size.max(1)).clamp(2, 64) as u32
    }

    /// The number of buffers of a pingpong like this program's.
    #[must_use]
    pub fn depth_like(&self, like: Like) -> u32 {
        match like {
            // It writes to the same place each time; two places are the fewest that we have.
            Like::Perftest if self.op == Op::Write => 2,
            // It receives round a page.
            Like::Perftest => (4096 / self.stride().max(1)).clamp(2, 64) as u32,
        }
    }

    /// The number of buffers for a stream of such messages, when the user gives none.
    #[must_use]
    pub fn stream_depth(size: u64) -> u32 {
        ((16 << 20) / size.max(1)).clamp(2, 128) as u32
    }

    /// Does the plan make sense, whoever sent it?
    ///
    /// # Errors
    /// [`Error::Usage`] with the first rule it breaks.
    pub fn validate(&self) -> Result<()> {
        let refuse = |text: String| Err(Error::Usage(text));
        if self.benchmark == Benchmark::Mixed {
            mixed::validate(self)?;
            return self.validate_depths();
        }
        let Self { op, transport, size, .. } = *self;
        if self.benchmark == Benchmark::Replay {
            return refuse("a replay has a plan of its own".into());
        }
        if !transport.allows(op) {
            let allowed = match transport {
                Transport::Ud => "send and send-imm",
                _ => "send, send-imm, write and write-imm",
            };
            return refuse(format!(
                "--op {op} does not exist on --transport {transport}, which has {allowed}"
            ));
        }
        if self.benchmark.has_ranks() {
            return refuse(format!("{} is not between two sides, but between ranks", self.benchmark));
        }
        if size > MAX_SIZE {
            return refuse(format!("--size {size} is over the limit of {MAX_SIZE} bytes in one message"));
        }
        if op.is_atomic() && size != 8 {
            return refuse(format!("--size {size} is impossible: --op {op} works on exactly 8 bytes"));
        }
        if size == 0 && (matches!(op, Op::Write | Op::Read) || self.benchmark == Benchmark::Bw) {
            return refuse(format!(
                "--size 0 leaves nothing to see in a {} of --op {op}: use --size 1 or more",
                self.benchmark
            ));
        }
        if self.inline && !matches!(op, Op::Send | Op::SendImm | Op::Write | Op::WriteImm) {
            return refuse(format!(
                "--inline is impossible with --op {op}: only what sends bytes of its own has inline data"
            ));
        }
        if matches!(self.benchmark, Benchmark::Pingpong | Benchmark::Idle)
            && self.wait == Wait::Event
            && op == Op::Write
        {
            return refuse(
                "--wait event is impossible with --op write, which gives the target no completion: use --op write-imm or send"
                    .into(),
            );
        }
        if let Some(like) = self.like
            && (self.benchmark != Benchmark::Pingpong || op.is_one_sided() || self.wait != Wait::Poll)
        {
            return refuse(format!(
                "--like {like} is for pingpong with an --op that is answered (send, send-imm, write, write-imm) and --wait poll"
            ));
        }
        if let Some(text) = &self.profile
            && let Err(error) = text.parse::<Profile>()
        {
            return refuse(format!("--profile {text}: {error}"));
        }
        if let Some(text) = &self.link
            && let Err(error) = text.parse::<LinkModel>()
        {
            return refuse(format!("--link {text}: {error}"));
        }
        if let Some(text) = &self.fault
            && let Err(error) = text.parse::<FaultPlan>()
        {
            return refuse(format!("--fault {text}: {error}"));
        }
        self.validate_depths()
    }

    fn validate_depths(&self) -> Result<()> {
        let refuse = |text: String| Err(Error::Usage(text));
        let Self { depth, post_list, signal_every, .. } = *self;
        let least = if self.benchmark == Benchmark::Mixed { 1 } else { 2 };
        if !(least..=MAX_DEPTH).contains(&depth) {
            return refuse(format!("--depth {depth} is outside {least}..={MAX_DEPTH}"));
        }
        if !(1..=depth).contains(&post_list) {
            return refuse(format!("--post-list {post_list} is outside 1..={depth}, the --depth"));
        }
        if !(1..=depth).contains(&signal_every) {
            return refuse(format!("--signal-every {signal_every} is outside 1..={depth}, the --depth"));
        }
        let (threads, qps) = (self.threads, self.qps);
        if !(1..=MAX_THREADS).contains(&threads) {
            return refuse(format!("--threads {threads} is outside 1..={MAX_THREADS}"));
        }
        if !(1..=MAX_QPS).contains(&qps) {
            return refuse(format!("--qps {qps} is outside 1..={MAX_QPS}"));
        }
        let buffers = u64::from(self.target_slots()) * self.flows();
        let memory = self.stride() * buffers;
        if memory > MAX_MEMORY {
            return refuse(format!(
                "{buffers} buffers of {} bytes are {memory} bytes, over the limit of {MAX_MEMORY}: lower --depth or --size{}",
                self.size,
                if self.flows() > 1 { ", --threads or --qps" } else { "" }
            ));
        }
        if !(1..=3_600_000).contains(&self.timeout_ms) {
            return refuse(format!("a timeout of {} ms is outside 1 ms..=1 h", self.timeout_ms));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::{Benchmark, Op, Plan, Transport, Wait};

    fn plan(op: Op, transport: Transport, size: u64) -> Plan {
        Plan {
            benchmark: Benchmark::Pingpong,
            op,
            transport,
            size,
            wait: Wait::Poll,
            inline: false,
            depth: 16,
            post_list: 1,
            signal_every: 8,
            device: "shm".into(),
            pin_responder: None,
            timeout_ms: 1000,
            profile: None,
            link: None,
            fault: None,
            seed: None,
            memory: super::Memory::Library,
            threads: 1,
            qps: 1,
            mix: Vec::new(),
            gaps_ns: Vec::new(),
            like: None,
        }
    }

    #[test]
    fn transports_have_the_operations_of_the_specification() {
        let all = [Op::Send, Op::SendImm, Op::Write, Op::WriteImm, Op::Read, Op::Cas, Op::Faa];
        let count = |transport| all.iter().filter(|op| plan(**op, transport, 8).validate().is_ok()).count();
        assert_eq!([count(Transport::Rc), count(Transport::Uc), count(Transport::Ud)], [7, 4, 2]);
    }

    #[test]
    fn sizes_and_depths_have_limits() {
        assert!(plan(Op::Send, Transport::Rc, 0).validate().is_ok());
        assert!(plan(Op::Write, Transport::Rc, 0).validate().is_err());
        assert!(plan(Op::Send, Transport::Rc, super::MAX_SIZE + 1).validate().is_err());
        assert!(plan(Op::Cas, Transport::Rc, 16).validate().is_err());
        assert!(plan(Op::Send, Transport::Rc, super::MAX_SIZE).validate().is_err(), "16 buffers of 2 GiB");
        assert!(Plan { depth: 1, ..plan(Op::Send, Transport::Rc, 8) }.validate().is_err());
        assert!(Plan { signal_every: 17, ..plan(Op::Send, Transport::Rc, 8) }.validate().is_err());
        assert!(Plan { post_list: 0, ..plan(Op::Send, Transport::Rc, 8) }.validate().is_err());
    }

    #[test]
    fn a_plan_survives_the_wire() {
        let plan = plan(Op::WriteImm, Transport::Uc, 4096);
        let line = serde_json::to_string(&plan).unwrap();
        assert!(line.contains("\"write-imm\""));
        assert_eq!(serde_json::from_str::<Plan>(&line).unwrap(), plan);
    }
}
