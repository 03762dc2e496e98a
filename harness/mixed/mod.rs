//! `tbrdma-bench mixed`: operations and sizes by weight, as programs have them, and the latency of each kind among the others.
//!
//! A plan names classes: an operation, a size, a weight. Dice choose the class of each message, and both sides have the same dice, so the target knows
//! what comes. Up to `depth` are outstanding, all on one queue pair of a thread, and a latency runs from posting to completion: what a
//! message waits behind the larger ones before it is in it, which is what a mix is measured for.

mod measure;
mod work;

use std::path::PathBuf;

use clap::Args;
use serde::{Deserialize, Serialize};

use crate::cli::{self, seed_of_now};
use crate::error::{Context, Error, Result};
use crate::grid::Grid;
use crate::histogram::nanoseconds;
use crate::plan::{Benchmark, Op, Plan, Transport};
pub use measure::{Outcome, measure};
pub use work::{Found, Mixed, Order};

/// Most classes of a plan.
const MOST_CLASSES: usize = 64;
/// Work requests outstanding, when neither the plan nor the flags say how many.
const DEPTH: u32 = 16;
/// Most messages between two checks, and bytes of their buffers.
const MOST_SLOTS: u64 = 1024;
const SLOT_BYTES: u64 = 64 << 20;

/// The examples of the help text.
pub const EXAMPLES: &str = "\
Examples:
  tbrdma-bench mixed mix.toml
  tbrdma-bench mixed mix.toml --depth 64 --threads 4 --seed 7
  tbrdma-bench mixed mix.toml --device sim --link 10Gbps,5us --json mix.json

A plan:
  depth = 16                      # most outstanding; --depth counts for more
  [[class]]
  op = \"send\"                     # send, send-imm, write, write-imm, read, cas, faa
  size = 64                       # bytes; not for cas and faa, which have 8
  weight = 70                     # so many of the sum of all weights
  [[class]]
  op = \"write\"
  size = 65536
  weight = 30

Exit codes: 0 measured and every byte was right; 1 something failed;
2 wrong flags.";

/// A kind of message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Class {
    /// Which verb.
    pub op: Op,
    /// Bytes.
    #[serde(default = "eight")]
    pub size: u64,
    /// So many of the sum of all weights.
    #[serde(default = "once")]
    pub weight: u32,
}

fn eight() -> u64 {
    8
}

fn once() -> u32 {
    1
}

impl Class {
    /// What it is called.
    #[must_use]
    pub fn name(&self) -> String {
        format!("{} of {} bytes", self.op, self.size)
    }
}

/// A plan's file.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    depth: Option<u32>,
    #[serde(rename = "class", default)]
    classes: Vec<Class>,
}

/// The flags.
#[derive(Debug, Clone, Default, Args)]
pub struct MixedFlags {
    /// The plan: which classes of messages, and how often; not with --server
    #[arg(value_name = "PLAN", required_unless_present = "server")]
    pub file: Option<PathBuf>,
    /// Those of every measurement; the plan says --op and --size.
    #[command(flatten)]
    pub flags: cli::Flags,
    /// Most work requests outstanding [default: what the plan says, or 16]
    #[arg(long, value_name = "N")]
    pub depth: Option<u32>,
    /// Threads on each side, each with a queue pair and dice of its own [default: 1]
    #[arg(long, value_name = "N")]
    pub threads: Option<u32>,
}

impl MixedFlags {
    /// What is measured.
    ///
    /// # Errors
    /// The plan cannot be read, or makes no sense.
    pub fn plan(&self) -> Result<Plan> {
        let Some(path) = &self.file else { return Err(Error::Usage("name a plan".into())) };
        let shown = path.display();
        if self.flags.op.is_some() || self.flags.size.is_some() {
            return Err(Error::Usage(format!("--op and --size are in the plan {shown}, class by class")));
        }
        let text = std::fs::read_to_string(path).context(|| format!("read the plan {shown}"))?;
        let strange = |reason: String| Error::Usage(format!("the plan {shown}: {reason}"));
        let (depth, classes) = parse(&text).map_err(strange)?;
        let mut plan = self.flags.plan(Benchmark::Mixed, Op::Send)?;
        plan.depth = self.depth.or(depth).unwrap_or(DEPTH);
        plan.threads = self.threads.unwrap_or(1);
        plan.seed = Some(self.flags.seed.unwrap_or_else(seed_of_now));
        plan.size = classes.iter().map(|class| class.size).max().unwrap_or_default();
        plan.op = classes.iter().rev().max_by_key(|class| class.weight).map_or(Op::Send, |class| class.op);
        plan.mix = classes;
        plan.validate().map_err(|error| strange(error.to_string()))?;
        Ok(plan)
    }
}

/// A plan in TOML: how many are outstanding, if it says so, and its classes. Whether they can be is for [`Plan::validate`].
///
/// # Errors
/// What makes no sense in it, in one line.
pub fn parse(text: &str) -> Result<(Option<u32>, Vec<Class>), String> {
    let file: File = toml::from_str(text).map_err(|error| crate::error::one_line(error.message()))?;
    Ok((file.depth, file.classes))
}

/// Does what the flags ask; the exit code.
///
/// # Errors
/// The plan makes no sense, or the measurement failed.
pub fn run(flags: &MixedFlags) -> Result<u8> {
    if flags.flags.server.is_some() {
        let given = [("--depth", flags.depth.is_some()), ("--threads", flags.threads.is_some())];
        return crate::run::serve(
            &flags.flags,
            given.into_iter().filter_map(|(name, given)| given.then_some(name)),
        );
    }
    crate::run::measure(&flags.flags, flags.plan()?, None)
}

/// Does the mix of a plan make sense?
///
/// # Errors
/// [`Error::Usage`] with the first rule that it breaks.
pub fn validate(plan: &Plan) -> Result<()> {
    let refuse = |text: String| Err(Error::Usage(text));
    if plan.mix.is_empty() || plan.mix.len() > MOST_CLASSES {
        return refuse(format!("it has {} [[class]]es instead of 1 to {MOST_CLASSES}", plan.mix.len()));
    }
    if plan.transport != Transport::Rc {
        return refuse(format!(
            "--transport {} completes a message when it has left, which is no latency: a mix goes over rc",
            plan.transport
        ));
    }
    if plan.qps != 1 || plan.inline || plan.seed.is_none() {
        return refuse("a mix has one queue pair a thread, a seed, and no inline data".into());
    }
    for (number, class) in (1..).zip(&plan.mix) {
        if class.weight == 0 {
            return refuse(format!("class {number} has weight 0, and would never be sent"));
        }
        if class.size > plan.size {
            return refuse(format!("class {number} is larger than the buffers"));
        }
        // What holds of one operation alone holds of it here.
        let alone = Plan {
            benchmark: Benchmark::Rate,
            op: class.op,
            size: class.size,
            depth: plan.depth.max(2),
            mix: Vec::new(),
            ..plan.clone()
        };
        if let Err(error) = alone.validate() {
            return refuse(format!("class {number}: {error}"));
        }
    }
    Ok(())
}

/// Buffers of a thread: as many messages go between two checks.
#[must_use]
pub fn slots(plan: &Plan) -> u32 {
    let room = (SLOT_BYTES / plan.stride().max(1)).min(MOST_SLOTS);
    u32::try_from(room).unwrap_or(u32::MAX).max(plan.depth)
}

/// What a class had of a run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ClassReport {
    /// Which verb.
    pub op: Op,
    /// Bytes in a message.
    pub size_bytes: u64,
    /// So many of the sum of all weights.
    pub weight: u32,
    /// Recorded messages.
    pub samples: u64,
    /// From post to completion; absent if the dice never fell on it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ns: Option<crate::histogram::Summary>,
    /// All of them: values in nanoseconds, each with the number of samples that had it, in order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub distribution: Vec<(f64, u64)>,
}

/// The classes of a result in a line.
#[must_use]
pub fn listed(classes: &[ClassReport]) -> String {
    let one = |class: &ClassReport| format!("{} {} B x {}", class.op, class.size_bytes, class.weight);
    if classes.is_empty() { "none".into() } else { classes.iter().map(one).collect::<Vec<_>>().join(", ") }
}

/// The classes of a result, one below the other; `None` of another kind of result.
#[must_use]
pub fn grid(classes: &[ClassReport]) -> Option<Grid> {
    let total: f64 = classes.iter().map(|class| f64::from(class.weight)).sum();
    let row = |class: &ClassReport| {
        let name = format!("{} {} B", class.op, class.size_bytes);
        let share = format!("{:.0} %", f64::from(class.weight) * 100.0 / total);
        let figures = class.ns.map(|ns| [ns.p50, ns.p99, ns.p99_9, ns.max].map(nanoseconds));
        [name, share, class.samples.to_string()].into_iter().chain(figures.into_iter().flatten()).collect()
    };
    (!classes.is_empty()).then(|| Grid {
        caption: "Latencies of each class among the others".into(),
        columns: ["class", "weight", "samples", "p50", "p99", "p99.9", "max"].map(str::to_owned).to_vec(),
        rows: classes.iter().map(row).collect(),
    })
}
