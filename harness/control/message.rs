//! The messages of the control channel.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use crate::environment::Host;
use crate::interference::Tally;
use crate::plan::Plan;
use crate::replay::workload::{Known, Outline};

/// First field of the first message: what protocol this is.
pub const MAGIC: &str = "tbrdma-bench control";
/// Version of the protocol. It changes with any change of the messages or of what the two sides do between them.
pub const VERSION: u32 = 4;
/// What both sides must be able to do beyond the version.
const FEATURES: [&str; 7] = ["batches", "floor", "credits", "socket-floor", "stream-floor", "ranks", "lanes"];

/// What the two sides say to each other.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "kebab-case")]
pub enum Message {
    /// The first message of either side.
    Hello(Hello),
    /// Initiator to responder: what will be measured.
    Plan(Plan),
    /// Either side: how to reach its queue pair and memory.
    Endpoint(Endpoint),
    /// Either side: its queue pair is connected and its receives are posted.
    Ready,
    /// Initiator to responder: take part in so many messages now.
    Go(Go),
    /// Initiator to responder: bounce through this memory, without the library.
    Floor(FloorOffer),
    /// Initiator to responder: bounce or take datagrams on plain sockets, without the library.
    SocketFloor(SocketOffer),
    /// Responder to initiator: its socket is there.
    SocketReady {
        /// Where.
        address: SocketAddr,
    },
    /// Initiator to responder: bounce or take bytes on a plain stream socket, without the library.
    StreamFloor(StreamOffer),
    /// Responder to initiator: it listens.
    StreamReady {
        /// At this port.
        at: u32,
    },
    /// Responder to initiator: what arrived of a flood.
    Arrived {
        /// Payload bytes.
        bytes: u64,
        /// From the first to the last, in nanoseconds.
        nanoseconds: u64,
    },
    /// Responder to initiator: it could not take part in the floor, for this reason.
    NoFloor {
        /// The reason.
        reason: String,
    },
    /// Responder to initiator: what became of a `go` or a `floor`.
    Done(Account),
    /// Initiator to responder: the outline of a replay, in place of a plan.
    Replay(Box<Outline>),
    /// Initiator to responder: the next requests of the replay.
    Requests {
        /// In the order of posting.
        requests: Vec<Known>,
    },
    /// Responder to initiator: what became of the replay.
    Replayed {
        /// What was checked.
        account: Account,
        /// Messages of unreliable transports that did not arrive.
        lost: u64,
    },
    /// Initiator to responder: the run is over.
    Finish,
    /// Responder to initiator: the answer to `finish`.
    Bye {
        /// The core the responder was pinned to.
        pinned: Option<usize>,
        /// What happened to its measuring thread during the run.
        switches: Tally,
    },
    /// A rank and rank 0, either way: a part of what ranks say to each other.
    Ranks(RanksPart),
    /// Either side: it gives up, for this reason.
    Fail {
        /// The reason, one line.
        reason: String,
    },
}

impl Message {
    /// The message's name, as it is on the wire.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Hello(_) => "hello",
            Self::Plan(_) => "plan",
            Self::Endpoint(_) => "endpoint",
            Self::Ready => "ready",
            Self::Go(_) => "go",
            Self::Floor(_) => "floor",
            Self::SocketFloor(_) => "socket-floor",
            Self::SocketReady { .. } => "socket-ready",
            Self::StreamFloor(_) => "stream-floor",
            Self::StreamReady { .. } => "stream-ready",
            Self::Arrived { .. } => "arrived",
            Self::NoFloor { .. } => "no-floor",
            Self::Done(_) => "done",
            Self::Replay(_) => "replay",
            Self::Requests { .. } => "requests",
            Self::Replayed { .. } => "replayed",
            Self::Finish => "finish",
            Self::Bye { .. } => "bye",
            Self::Ranks(_) => "ranks",
            Self::Fail { .. } => "fail",
        }
    }
}

/// Who speaks, and in what language.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Hello {
    /// [`MAGIC`].
    pub protocol: String,
    /// [`VERSION`].
    pub version: u32,
    /// What the speaker can do beyond the version.
    #[serde(default)]
    pub features: Vec<String>,
    /// The speaker's release of `tbrdma-bench`.
    #[serde(default)]
    pub release: String,
    /// The speaker's process number.
    #[serde(default)]
    pub pid: u32,
    /// The speaker's host.
    #[serde(default)]
    pub host: Host,
}

impl Hello {
    /// The greeting of this process.
    #[must_use]
    pub fn ours() -> Self {
        Self {
            protocol: MAGIC.into(),
            version: VERSION,
            features: FEATURES.map(String::from).to_vec(),
            release: env!("CARGO_PKG_VERSION").into(),
            pid: std::process::id(),
            host: Host::ours(),
        }
    }

    /// Can the two sides talk?
    ///
    /// # Errors
    /// Why not, in one line.
    pub fn check(&self) -> Result<(), String> {
        if self.protocol != MAGIC {
            return Err(format!("speaks {:?}, not {MAGIC:?}", self.protocol));
        }
        if self.version != VERSION {
            return Err(format!(
                "speaks version {} of the control protocol (release {:?}) and this side version {VERSION} (release {:?}): \
                 run the same tbrdma-bench on both sides",
                self.version,
                self.release,
                env!("CARGO_PKG_VERSION")
            ));
        }
        let lacking: Vec<_> =
            FEATURES.iter().filter(|feature| !self.features.iter().any(|has| has == *feature)).collect();
        if !lacking.is_empty() {
            return Err(format!("lacks {lacking:?}: run the same tbrdma-bench on both sides"));
        }
        Ok(())
    }
}

/// A part of a text between ranks: a line of the protocol is short, and what a rank has measured may be long.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RanksPart {
    /// What the text is about.
    pub word: String,
    /// The part.
    pub text: String,
    /// Whether another one follows.
    pub more: bool,
}

/// How to reach a side's queue pair and memory.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Endpoint {
    /// The queue pair's address, in the library's text form.
    pub address: String,
    /// The region that the peer may use, in the library's byte form.
    pub region: Vec<u8>,
    /// The side's device.
    pub device: String,
    /// The device's profile.
    pub profile: String,
}

/// What a batch of messages is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Phase {
    /// Exchange or stream the messages; timed by the initiator, or its warm-up.
    Run,
    /// The messages are all there: look at what the slots hold in the end.
    CheckSlots,
    /// Messages follow that are each checked in full; take them.
    Verify,
    /// The messages of `verify` are all there: check each.
    CheckMessages,
}

/// A batch of messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Go {
    /// What it is for.
    pub phase: Phase,
    /// Sequence number of the first message: of the whole thread in `run`, else of the queue pair.
    pub first: u64,
    /// How many messages.
    pub count: u64,
    /// On which of the thread's queue pairs; `run` goes round all of them.
    #[serde(default)]
    pub flow: u32,
}

/// Shared memory for the floor, which the initiator made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct FloorOffer {
    /// The process that holds it open.
    pub pid: u32,
    /// Its file descriptor there.
    pub fd: i32,
    /// Its length in bytes.
    pub length: usize,
    /// Bytes in a message.
    pub size: usize,
    /// Is the last word of a message its flag? Otherwise a flag has a line of its own.
    #[serde(default)]
    pub line: bool,
    /// How many times to bounce.
    pub count: u64,
}

/// A plain stream socket for the floor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct StreamOffer {
    /// Where the initiator listens: the number of its process for a Unix socket, a port for TCP; null if the responder is to listen.
    pub at: Option<u32>,
    /// Bytes in a message.
    pub size: usize,
    /// How many times to bounce; 0 for a flood in one direction.
    pub count: u64,
    /// Bytes of memory that what arrives of a flood goes round, as that of the run does.
    pub span: u64,
}

/// Plain sockets for the floor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct SocketOffer {
    /// The initiator's socket.
    pub address: SocketAddr,
    /// Bytes in a message.
    pub size: usize,
    /// Bytes in a datagram, at most.
    pub segment: u16,
    /// How many times to bounce; 0 for a flood in one direction.
    pub count: u64,
    /// Bytes of memory that what arrives of a flood goes round, as that of the run does.
    pub span: u64,
}

/// What became of a batch.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Account {
    /// Messages of which every byte was checked.
    pub checked: u64,
    /// Messages that were not what they should be.
    pub errors: u64,
    /// The first of these, in one line.
    pub first_error: Option<String>,
}

impl Account {
    /// Counts one message, good or bad.
    pub fn count(&mut self, found: Result<(), String>) {
        self.checked += 1;
        if let Err(reason) = found {
            self.errors += 1;
            self.first_error.get_or_insert(reason);
        }
    }

    /// Adds what another account counted.
    pub fn add(&mut self, other: &Self) {
        self.checked += other.checked;
        self.errors += other.errors;
        if self.first_error.is_none() {
            self.first_error.clone_from(&other.first_error);
        }
    }
}
