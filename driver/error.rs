//! What can go wrong in a call, said so that the reader knows what failed, on which object, why, and what to do.

use tbrdma_proto::{ModifyError, PostErrorKind, QpState, Qpn, RegionTableError};

/// The result of a verbs call.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// A verbs call that failed before it had any effect. What fails later, on the wire or at the peer, arrives as a
/// [`WorkCompletion`](crate::WorkCompletion) status or an [`AsyncEvent`](crate::AsyncEvent) instead.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// No device answers to this name.
    #[error("no RDMA device is named {name:?}; this host has: {known}")]
    NoSuchDevice {
        /// The name asked for.
        name: String,
        /// The names there are.
        known: String,
    },
    /// An argument makes no sense for this object.
    #[error("{call}: {reason}")]
    InvalidArgument {
        /// The verbs call.
        call: &'static str,
        /// Which argument, and what it may be.
        reason: String,
    },
    /// A limit of the device or of the object is reached.
    #[error("{call}: no more {what}, the limit is {limit}; destroy some, or use another context")]
    LimitReached {
        /// The verbs call.
        call: &'static str,
        /// What there are no more of.
        what: &'static str,
        /// How many there may be.
        limit: u64,
    },
    /// All there is of something is taken, and not only by this program.
    #[error("{call}: {reason}")]
    Exhausted {
        /// The verbs call.
        call: &'static str,
        /// By whom, and how it will become free.
        reason: String,
    },
    /// The object is in use.
    #[error("{call}: {reason}")]
    Busy {
        /// The verbs call.
        call: &'static str,
        /// By whom, and how it will become free.
        reason: String,
    },
    /// The device cannot do this.
    #[error("{call}: device {device} does not support {what}")]
    NotSupported {
        /// The verbs call.
        call: &'static str,
        /// The device.
        device: String,
        /// What it cannot do.
        what: &'static str,
    },
    /// `modify_qp` refused: an illegal transition, or attributes missing, superfluous or out of range.
    #[error("modify_qp on QP {qp_num}: {source}")]
    Modify {
        /// The queue pair.
        qp_num: Qpn,
        /// What was wrong.
        source: ModifyError,
    },
    /// Registering memory failed.
    #[error("register memory: {source}")]
    Register {
        /// What was wrong.
        #[from]
        source: RegionTableError,
    },
    /// The peer cannot be reached or does not speak our language.
    #[error("peer {peer}: {reason}")]
    Peer {
        /// GID or LID of the peer.
        peer: String,
        /// What happened and what to check.
        reason: String,
    },
    /// The system's verbs library, which stands behind native devices, is not to be had.
    #[error("{call}: native devices need the system's verbs library: {reason}")]
    Library {
        /// The verbs call.
        call: &'static str,
        /// What was looked for, why it will not do, and how it can be had.
        reason: String,
    },
    /// A native device, its driver or its library refused.
    #[error("{call} on device {device}: {source}{advice}")]
    Refused {
        /// The verbs call.
        call: &'static str,
        /// The device, by its name in the system's library.
        device: Box<str>,
        /// The error number it gave.
        source: std::io::Error,
        /// What probably stands behind it and what to do, after a semicolon; empty where nothing is known.
        advice: Box<str>,
    },
    /// A memory window cannot be opened, or is gone.
    #[error("{call} on device {device}: {reason}")]
    Window {
        /// The verbs call.
        call: &'static str,
        /// The window, such as `bar:0000:00:04.0`.
        device: Box<str>,
        /// The `errno` value that fits.
        errno: i32,
        /// Why, and what to do.
        reason: String,
    },
    /// The operating system refused.
    #[error("{call} ({what}): {source}")]
    Os {
        /// The verbs call.
        call: &'static str,
        /// What was asked of the system.
        what: &'static str,
        /// Its answer.
        source: std::io::Error,
    },
}

impl Error {
    /// The `errno` value that libibverbs would give for this failure.
    pub fn errno(&self) -> i32 {
        use nix::libc;
        match self {
            Self::NoSuchDevice { .. } | Self::Library { .. } => libc::ENODEV,
            Self::LimitReached { .. }
            | Self::Exhausted { .. }
            | Self::Register { source: RegionTableError::Full { .. } } => libc::ENOMEM,
            Self::InvalidArgument { .. } | Self::Modify { .. } | Self::Register { .. } => libc::EINVAL,
            Self::Busy { .. } => libc::EBUSY,
            Self::NotSupported { .. } => libc::EOPNOTSUPP,
            Self::Peer { .. } => libc::ETIMEDOUT,
            Self::Window { errno, .. } => *errno,
            Self::Os { source, .. } | Self::Refused { source, .. } => {
                source.raw_os_error().unwrap_or(libc::EIO)
            }
        }
    }

    pub(crate) fn os(call: &'static str, what: &'static str) -> impl FnOnce(std::io::Error) -> Self {
        move |source| Self::Os { call, what, source }
    }
}

/// A list of work requests of which the first ones were posted and the rest were not.
#[derive(Debug, thiserror::Error)]
#[error("post on QP {qp_num}: work request {index} of the list was refused: {reason}")]
pub struct PostError {
    /// The queue pair; zero for a shared receive queue.
    pub qp_num: Qpn,
    /// Position in the list of the first work request that was not posted (`bad_wr`).
    pub index: usize,
    /// Why.
    pub reason: PostRefusal,
    /// The buffers that were lent to work requests that were not posted.
    pub buffers: Vec<crate::Buffer>,
}

impl PostError {
    /// The `errno` value that libibverbs would give.
    pub fn errno(&self) -> i32 {
        match self.reason {
            PostRefusal::QueueFull { .. } => nix::libc::ENOMEM,
            PostRefusal::TooEarly(_) => nix::libc::EFAULT,
            PostRefusal::Device(ref error) => error.raw_os_error().unwrap_or(nix::libc::EINVAL),
            _ => nix::libc::EINVAL,
        }
    }
}

/// Why a work request was not posted.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PostRefusal {
    /// The queue holds as many work requests as it can; poll completions to make room. A send that is never signaled keeps
    /// its place until a later signaled one has completed and been polled.
    #[error("the queue is full ({depth} work requests outstanding): poll completions, and signal some sends")]
    QueueFull {
        /// The queue's depth.
        depth: u32,
    },
    /// The queue pair's state does not allow posting.
    #[error("a queue pair in state {0:?} does not take this work request; connect it first")]
    State(QpState),
    /// The work request itself is wrong.
    #[error("{0}")]
    WorkRequest(#[from] PostErrorKind),
    /// The device takes receives only when the queue pair is ready to send.
    #[error("this device takes no receive in state {0:?}: bring the queue pair to RTS first")]
    TooEarly(QpState),
    /// The device, by its profile, does not take such work.
    #[error("the device does not take this work request: {0}")]
    Profile(&'static str),
    /// A native device, its driver or its library did not take it.
    #[error("the device did not take it: {0}")]
    Device(std::io::Error),
    /// The queue pair takes its receives from a shared receive queue.
    #[error("this queue pair receives through a shared receive queue: post there")]
    UsesSharedReceiveQueue,
}
