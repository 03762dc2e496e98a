//! What a rank tells rank 0 of its part in a run.

use serde::{Deserialize, Serialize};

use crate::control::Account;
use crate::environment::Host;
use crate::interference::Tally;

/// Who a rank is, and where.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Who {
    /// Its process.
    pub pid: u32,
    /// Its host.
    pub host: Host,
    /// Its device.
    pub device: String,
    /// The device's profile.
    pub profile: String,
}

/// What a rank has found.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Told {
    /// How long it was measured there.
    pub nanoseconds: u64,
    /// Messages that came there before, or operations.
    pub warmup: u64,
    /// What came.
    pub received: Vec<Received>,
    /// What was sent.
    pub sent: Vec<Sent>,
    /// Latencies of operations of all ranks.
    pub operations: Vec<(f64, u64)>,
    /// Which of these operations were right.
    pub account: Account,
    /// The core it was pinned to.
    pub core: Option<usize>,
    /// What happened to its thread.
    pub switches: Tally,
    /// What its device has counted.
    pub counters: Vec<(String, u64)>,
}

/// What came from a rank.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Received {
    /// Which.
    pub from: usize,
    /// Messages while it was measured.
    pub messages: u64,
    /// Messages in all.
    pub taken: u64,
    /// What was found of those that were checked.
    pub account: Account,
}

/// What was sent to a rank.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Sent {
    /// Which.
    pub to: usize,
    /// From posting a message to its completion, in nanoseconds, each with how many had it.
    pub distribution: Vec<(f64, u64)>,
}
