//! What a group of ranks measures: made from the flags by rank 0, sent to all others, checked by each.

use std::time::Duration;

use clap::ValueEnum;
use serde::{Deserialize, Serialize};

use super::allreduce::ELEMENT;
use crate::cli::Extent;
use crate::error::{Error, Result};
use crate::plan::{Benchmark, Transport};

/// Ranks of a group at most: each has a queue pair to each other.
pub const MOST_RANKS: usize = 64;
/// Bytes of messages which one rank registers at most.
const MOST_MEMORY: u64 = 1 << 30;
/// Receives that wait beside those for messages: for words between the ranks.
pub const SPARE: u32 = 4;

/// How an allreduce goes about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Algorithm {
    /// Each rank sends to each other: all of it at once up to 32 KiB, above that a part to the rank that sums it, and the sum to all
    Mesh,
    /// Each rank sends parts to the next one, round and round
    Ring,
}

impl std::fmt::Display for Algorithm {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Mesh => "mesh",
            Self::Ring => "ring",
        })
    }
}

/// What the ranks measure together.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Plan {
    /// Incast, mesh or allreduce.
    pub benchmark: Benchmark,
    /// How many ranks there are.
    pub ranks: usize,
    /// Bytes in a message, or of a vector; one measurement each.
    pub sizes: Vec<u64>,
    /// Messages under way from a rank to another.
    pub depth: u32,
    /// Receives that wait at a rank for each that sends to it.
    pub receives: u32,
    /// Messages (or operations) that are measured.
    pub iters: Option<u64>,
    /// How long is measured where that is not given.
    pub duration_ns: u64,
    /// Messages (or operations) before; without it as many as 0.1 s holds.
    pub warmup: Option<u64>,
    /// The device to open, for ranks that have no choice of their own.
    pub device: String,
    /// What it pretends to be.
    pub profile: Option<String>,
    /// How fast its link is.
    pub link: Option<String>,
    /// What goes wrong on the way.
    pub fault: Option<String>,
    /// Where the dice of `fault` start, at rank 0.
    pub seed: Option<u64>,
    /// How long a rank waits for others before it gives up.
    pub timeout_ms: u64,
    /// Of an allreduce.
    pub algorithm: Option<Algorithm>,
    /// RC; of an allreduce also UC.
    pub transport: Transport,
}

impl Plan {
    /// How long a rank waits for others.
    #[must_use]
    pub fn timeout(&self) -> Duration {
        Duration::from_millis(self.timeout_ms)
    }

    /// How long to measure.
    #[must_use]
    pub fn extent(&self) -> Extent {
        match self.iters {
            Some(messages) => Extent::Messages(messages),
            None => Extent::Time(Duration::from_nanos(self.duration_ns)),
        }
    }

    /// Is it possible?
    ///
    /// # Errors
    /// Why not, and which flag would help.
    pub fn validate(&self) -> Result<()> {
        let refuse = |text: String| Err(Error::Usage(text));
        if !(2..=MOST_RANKS).contains(&self.ranks) {
            return refuse(format!("--ranks {} is outside 2 to {MOST_RANKS}", self.ranks));
        }
        if self.depth == 0 || self.depth > crate::plan::MAX_DEPTH || self.receives > crate::plan::MAX_DEPTH {
            return refuse(format!(
                "--depth {} and --receives {} must be 1 to {}",
                self.depth,
                self.receives,
                crate::plan::MAX_DEPTH
            ));
        }
        let may_drop = self.transport != Transport::Rc;
        if may_drop && (self.transport != Transport::Uc || self.benchmark != Benchmark::Allreduce) {
            return refuse(format!(
                "--transport {} is not for {}: what nobody has a receive for would be lost. An allreduce, which has receives for all that may come, can use uc",
                self.transport, self.benchmark
            ));
        }
        if self.receives == 0 {
            return refuse("--receives 0: every message needs a receive".into());
        }
        if self.sizes.is_empty() {
            return refuse("--size needs at least one size".into());
        }
        for &size in &self.sizes {
            if size == 0 || size > crate::plan::MAX_SIZE {
                return refuse(format!("--size {size} is outside 1 to {} bytes", crate::plan::MAX_SIZE));
            }
            let least = ELEMENT as u64 * self.ranks as u64;
            if self.benchmark == Benchmark::Allreduce
                && (!size.is_multiple_of(ELEMENT as u64) || size < least)
            {
                return refuse(format!(
                    "--size {size}: a vector has elements of four bytes (f32), and at least one for each rank: {least} bytes"
                ));
            }
            let needed = self.memory(size);
            if needed > MOST_MEMORY {
                return refuse(format!(
                    "--size {size} of {} ranks needs {needed} bytes a rank, more than {MOST_MEMORY}: use a smaller --depth or \
                     --receives",
                    self.ranks
                ));
            }
        }
        Ok(())
    }

    /// Bytes which a rank registers, about.
    fn memory(&self, size: u64) -> u64 {
        let peers = self.ranks as u64 - 1;
        match self.benchmark {
            // At most what goes to everybody at once: two of each peer's.
            Benchmark::Allreduce => size.saturating_mul(5).saturating_add(2 * peers * size.min(32 << 10)),
            _ => stride(size).saturating_mul(peers * u64::from(self.depth + self.receives)),
        }
    }
}

/// From one buffer to the next.
#[must_use]
pub fn stride(size: u64) -> u64 {
    size.next_multiple_of(64)
}
