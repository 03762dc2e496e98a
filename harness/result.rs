//! The result of a run as a value: what `--json` writes and the report prints.
//!
//! The JSON is a contract: its schema is `harness/schema/tbrdma-bench-1.json`. Fields may be added to it; none may change its
//! meaning without another number in `schema`.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::environment::{BothSides, Environment};
use crate::error::{Context, Result};
use crate::histogram::Summary;
use crate::idle::GapReport;
use crate::mixed::ClassReport;
use crate::open_loop::OpenLoopReport;
use crate::plan::{Benchmark, Like, Op, Transport, Wait};
use crate::ranks::outcome::GroupReport;
use crate::timeline::Stretch;

/// Name and version of the contract.
pub const SCHEMA: &str = "tbrdma-bench/1";

/// Words of ours, or of a file that was read.
pub type Text = Cow<'static, str>;

/// The result of a run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// [`SCHEMA`].
    pub schema: Text,
    /// Which measurement.
    pub benchmark: Benchmark,
    /// Which verb.
    pub op: Op,
    /// Which transport service.
    pub transport: Transport,
    /// The initiator's device.
    pub device: String,
    /// The profile of that device.
    pub profile: String,
    /// Bytes in a message.
    pub size_bytes: u64,
    /// How both sides waited.
    pub wait: Wait,
    /// Were messages handed over inside the work request?
    pub inline: bool,
    /// Recorded messages.
    pub samples: u64,
    /// Messages, of all that were checked, that were not what they should be.
    pub errors: u64,
    /// The first of these.
    pub first_error: Option<String>,
    /// Was all of `verification` done, and nothing wrong found?
    pub verified: bool,
    /// What was checked, and how.
    pub verification: String,
    /// Messages of which every byte was checked.
    pub messages_checked: u64,
    /// What `one_way_ns` holds: half round trips, or whole operations where the target does not answer.
    pub measures: Option<Text>,
    /// The latencies; null for `bw` and `rate`, which measure none.
    pub one_way_ns: Option<Summary>,
    /// `closed`: the next message is posted when the last was answered; `open`: when it is due. Null for `bw` and `rate`.
    #[serde(rename = "loop")]
    pub kind_of_loop: Option<Text>,
    /// Only of an open loop.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub open_loop: Option<OpenLoopReport>,
    /// All of them: values in nanoseconds, each with the number of samples that had it, in order; empty for `bw` and `rate`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub distribution: Vec<(f64, u64)>,
    /// The run in the course of time.
    #[serde(default)]
    pub timeline: Vec<Stretch>,
    /// The machine's physical floor, measured in the same run; null where it could not be.
    pub floor: Option<FloorReport>,
    /// Why `floor` is null.
    pub floor_missing: Option<String>,
    /// How many times the floor the result is; for throughput, which part of it.
    pub ratio_to_floor: Option<Ratio>,
    /// Only of `bw` and `rate`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bandwidth: Option<Bandwidth>,
    /// Messages before the first recorded one.
    pub warmup: u64,
    /// Unrecorded messages between recorded ones, at the heads of batches.
    pub lead_in: u64,
    /// Buffers that messages go round; most work requests outstanding.
    pub depth: u32,
    /// Work requests per doorbell.
    pub post_list: u32,
    /// One work request in so many asked for a completion.
    pub signal_every: u32,
    /// Threads of each side.
    #[serde(default = "one", skip_serializing_if = "is_one")]
    pub threads: u32,
    /// Queue pairs of each thread.
    #[serde(default = "one", skip_serializing_if = "is_one")]
    pub qps: u32,
    /// What each class of a mix had; `op` is then that of the greatest weight, and `size_bytes` the largest.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub classes: Vec<ClassReport>,
    /// Latencies after each silence of `idle`; `one_way_ns` is then that after the longest.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub gaps: Vec<GapReport>,
    /// What each thread of the initiator found, where there are several.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub per_thread: Vec<ThreadReport>,
    /// Whose memory it was.
    pub memory: Text,
    /// How the two sides were started.
    pub sides: Text,
    /// As whom it was measured, if not in our own way.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub like: Option<Like>,
    /// How fast the link was made on purpose.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub link: Option<String>,
    /// What went wrong with packets on purpose.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fault: Option<String>,
    /// Where the dice of `fault` started.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seed: Option<u64>,
    /// What the initiator's device counted, where it counts.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub counters: BTreeMap<Text, u64>,
    /// Where it took place.
    pub environment: Environment,
    /// Only of measurements with many ranks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group: Option<GroupReport>,
}

fn one() -> u32 {
    1
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks so")]
fn is_one(number: &u32) -> bool {
    *number == 1
}

/// What one thread of the initiator found.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct ThreadReport {
    /// The core it was pinned to.
    pub core: Option<usize>,
    /// Recorded messages.
    pub samples: u64,
    /// The latencies, where they were measured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub one_way_ns: Option<Summary>,
    /// Payload bytes per second, where throughput was measured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes_per_s: Option<f64>,
    /// Messages per second, where throughput was measured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub messages_per_s: Option<f64>,
    /// Context switches that the scheduler forced on it, and on the responder's thread that it talked to.
    pub involuntary_context_switches: BothSides,
}

/// The floor of a result.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum FloorReport {
    /// Of a pingpong.
    Bounce {
        /// One way, without the library.
        one_way_ns: FloorLatency,
        /// Recorded bounces.
        samples: u64,
        /// What carried them.
        carrier: Text,
    },
    /// Of a stream on a network.
    Sockets {
        /// Payload bytes per second that arrived of a flood over plain UDP sockets.
        sockets_bytes_per_s: f64,
    },
    /// Of many messages over what has a plain way beside it: a stream socket, a window.
    Carried {
        /// Bytes per second that arrived over the plain way.
        carried_bytes_per_s: f64,
        /// What carried them.
        carrier: Text,
    },
    /// Of a stream in memory.
    Memcpy {
        /// Bytes per second copied by the initiator's core.
        memcpy_bytes_per_s: f64,
    },
}

/// The floor of a latency, in nanoseconds.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct FloorLatency {
    /// The median.
    pub p50: f64,
    /// All but one in a hundred.
    pub p99: f64,
}

/// A result divided by its floor.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Ratio {
    /// Of a pingpong.
    Latency {
        /// Median by median.
        p50: f64,
        /// All but one in a hundred by the same.
        p99: f64,
        /// The median over all batches of a batch's median by that of the floor right before and after it: what moves both,
        /// as a hypervisor that moves the cores, is not in it.
        p50_batch_by_batch: Option<f64>,
    },
    /// Of a stream.
    Bytes {
        /// Bytes per second by bytes per second.
        bytes_per_s: f64,
        /// The median over all timed sections of a section's rate by that of the floor right before and after it.
        section_by_section: Option<f64>,
    },
}

/// The throughput of a stream.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Bandwidth {
    /// Payload bytes per second, over all timed sections.
    pub bytes_per_s: f64,
    /// Messages per second, over all timed sections.
    pub messages_per_s: f64,
    /// How long these lasted.
    pub elapsed_s: f64,
    /// How many there were.
    pub sections: usize,
    /// Payload bytes per second of the slowest, the middle and the fastest section.
    pub section_bytes_per_s: Spread,
}

/// Least, middle and most.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Spread {
    /// The least.
    pub min: f64,
    /// The middle.
    pub median: f64,
    /// The most.
    pub max: f64,
}

impl Report {
    /// One that says what kind of measurement was made and where, and nothing else yet: of SENDs over RC one by one, polled for, by one thread.
    #[must_use]
    pub fn empty(benchmark: Benchmark, environment: Environment) -> Self {
        Self {
            schema: SCHEMA.into(),
            benchmark,
            op: Op::Send,
            transport: Transport::Rc,
            device: String::new(),
            profile: String::new(),
            size_bytes: 0,
            wait: Wait::Poll,
            inline: false,
            samples: 0,
            errors: 0,
            first_error: None,
            verified: false,
            verification: String::new(),
            messages_checked: 0,
            measures: None,
            one_way_ns: None,
            kind_of_loop: None,
            open_loop: None,
            distribution: Vec::new(),
            timeline: Vec::new(),
            floor: None,
            floor_missing: None,
            ratio_to_floor: None,
            bandwidth: None,
            warmup: 0,
            lead_in: 0,
            depth: 1,
            post_list: 1,
            signal_every: 1,
            threads: 1,
            qps: 1,
            classes: Vec::new(),
            gaps: Vec::new(),
            per_thread: Vec::new(),
            memory: Text::default(),
            sides: Text::default(),
            like: None,
            link: None,
            fault: None,
            seed: None,
            counters: BTreeMap::new(),
            environment,
            group: None,
        }
    }

    /// Reads a result that `--json` wrote.
    ///
    /// # Errors
    /// The file cannot be read, or is no such result: of another version, or of another program.
    pub fn read(path: &Path) -> Result<Self> {
        let shown = path.display();
        let text = std::fs::read_to_string(path).context(|| format!("read the result {shown}"))?;
        Self::parse(&text)
            .map_err(|reason| crate::Error::Usage(format!("{shown} is no result of tbrdma-bench: {reason}")))
    }

    /// A result in JSON.
    ///
    /// # Errors
    /// Why it is none.
    pub fn parse(text: &str) -> Result<Self, String> {
        /// What every version has.
        #[derive(Deserialize)]
        struct Named {
            schema: String,
        }
        let named: Named = serde_json::from_str(text).map_err(|error| error.to_string())?;
        if named.schema != SCHEMA {
            return Err(format!("its schema is {:?}, this release reads {SCHEMA:?}", named.schema));
        }
        serde_json::from_str(text).map_err(|error| error.to_string())
    }

    /// The result as JSON, with a newline at its end.
    ///
    /// # Errors
    /// Never in practice.
    pub fn to_json(&self) -> Result<String> {
        let mut text = serde_json::to_string_pretty(self).context(|| "encode the result".into())?;
        text.push('\n');
        Ok(text)
    }
}
