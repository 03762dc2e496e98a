//! Queue pairs: their types, their states, and what posting means in each state.
//!
//! The attributes are in [`attr`], the table of transitions in [`modify`]; both are re-exported here.

pub mod attr;
pub mod modify;

pub use attr::*;
pub use modify::*;

use core::fmt;

use crate::raw::raw_enum;
use crate::work::Opcode;

raw_enum! {
    /// The transport service of a queue pair (`enum ibv_qp_type`).
    u8 pub enum QpType {
        /// Reliable connection: every message arrives once and in order, or both sides learn that it did not.
        Rc = 2,
        /// Unreliable connection: messages may be lost, whole; what arrives is in order.
        Uc = 3,
        /// Unreliable datagram: single packets, each to its own destination.
        Ud = 4,
    }
}

impl QpType {
    /// Whether the transport has this operation (IBTA volume 1, section 9.2, and `ibv_post_send(3)`).
    ///
    /// The manual page also gives UC a SEND with invalidate. No packet of the UC transport can carry one, so
    /// here it is refused.
    #[inline]
    pub const fn allows(self, opcode: Opcode) -> bool {
        match self {
            Self::Rc => true,
            Self::Uc => matches!(
                opcode,
                Opcode::Send
                    | Opcode::SendWithImm
                    | Opcode::RdmaWrite
                    | Opcode::RdmaWriteWithImm
                    | Opcode::LocalInv
                    | Opcode::BindMw
            ),
            Self::Ud => matches!(opcode, Opcode::Send | Opcode::SendWithImm),
        }
    }

    /// Whether a queue pair of this type has one peer for life.
    #[inline]
    pub const fn is_connected(self) -> bool {
        matches!(self, Self::Rc | Self::Uc)
    }
}

raw_enum! {
    /// The state of a queue pair (`enum ibv_qp_state`; IBTA volume 1, section 10.3.1).
    #[derive(Default)]
    u8 pub enum QpState {
        /// As created, and holding nothing.
        #[default]
        Reset = 0,
        /// Receives may be posted; nothing is received.
        Init = 1,
        /// Ready to receive.
        Rtr = 2,
        /// Ready to send and receive.
        Rts = 3,
        /// Send queue draining, or drained: new sends wait, receiving goes on.
        Sqd = 4,
        /// Send queue in error (UC and UD only): sends are flushed, receiving goes on.
        Sqe = 5,
        /// In error: everything is flushed.
        Err = 6,
    }
}

impl QpState {
    /// What happens to a send posted in this state (IBTA volume 1, section 10.3.1).
    #[inline]
    pub const fn send_disposition(self) -> PostDisposition {
        match self {
            Self::Reset | Self::Init | Self::Rtr => PostDisposition::Refuse,
            Self::Rts => PostDisposition::Execute,
            Self::Sqd => PostDisposition::Hold,
            Self::Sqe | Self::Err => PostDisposition::Flush,
        }
    }

    /// What happens to a receive posted in this state (IBTA volume 1, section 10.3.1).
    #[inline]
    pub const fn recv_disposition(self) -> PostDisposition {
        match self {
            Self::Reset => PostDisposition::Refuse,
            Self::Init => PostDisposition::Hold,
            Self::Rtr | Self::Rts | Self::Sqd | Self::Sqe => PostDisposition::Execute,
            Self::Err => PostDisposition::Flush,
        }
    }

    /// Whether the posting call accepts a send in this state, if only to hold or flush it.
    #[inline]
    pub const fn may_post_send(self) -> bool {
        !matches!(self.send_disposition(), PostDisposition::Refuse)
    }

    /// Whether the posting call accepts a receive in this state, if only to hold or flush it.
    #[inline]
    pub const fn may_post_recv(self) -> bool {
        !matches!(self.recv_disposition(), PostDisposition::Refuse)
    }

    /// The name in the specification's spelling: `RESET`, `INIT`, `RTR` and so on.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Reset => "RESET",
            Self::Init => "INIT",
            Self::Rtr => "RTR",
            Self::Rts => "RTS",
            Self::Sqd => "SQD",
            Self::Sqe => "SQE",
            Self::Err => "ERR",
        }
    }
}

impl fmt::Display for QpState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl QpType {
    /// The name in the specification's spelling: `RC`, `UC` or `UD`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Rc => "RC",
            Self::Uc => "UC",
            Self::Ud => "UD",
        }
    }
}

impl fmt::Display for QpType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// What becomes of a work request, given the state of its queue pair.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PostDisposition {
    /// The posting call fails and nothing is queued.
    Refuse,
    /// It is queued and carried out in its turn.
    Execute,
    /// It is queued and waits until the queue pair changes state.
    Hold,
    /// It is queued, and completes with [`WrFlushErr`](crate::WcStatus::WrFlushErr) in its turn.
    Flush,
}
