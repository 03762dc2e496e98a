//! What the oracle remembers of posted work.

use std::collections::VecDeque;

use crate::flags::SendFlags;
use crate::ident::{Psn, Qpn};
use crate::qp::QpType;
use crate::testing::Connection;
use crate::time::Time;
use crate::work::{Opcode, Sge, WcStatus};

/// What must become of a send that is carried out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Expect {
    /// It succeeds.
    Good,
    /// It fails by itself, before anything is sent.
    Local(WcStatus),
    /// The peer refuses it.
    Remote(WcStatus),
}

/// A posted send.
#[derive(Clone, Debug)]
pub(super) struct SendRecord {
    pub(super) wr_id: u64,
    pub(super) opcode: Opcode,
    pub(super) flags: SendFlags,
    pub(super) expect: Expect,
    /// Bytes of the message.
    pub(super) len: u32,
    /// The remote address.
    pub(super) addr: u64,
    /// Where a READ's or an atomic's bytes come to.
    pub(super) into: Option<Landing>,
    /// What a READ must bring: bytes of the peer's source from this offset on, or of its target.
    pub(super) from: ReadFrom,
    /// The number that marks an atomic, unlike all others.
    pub(super) mark: u64,
    /// Its first PSN and how many it takes.
    pub(super) psn: Psn,
    pub(super) packets: u32,
    /// Its first packet has been sent.
    pub(super) begun: bool,
    /// How many packets of the answer to a READ or atomic have come.
    pub(super) came: u32,
    /// The key that a local invalidation withdraws.
    pub(super) key: u32,
}

impl SendRecord {
    pub(super) const fn is_read(&self) -> bool {
        matches!(self.opcode, Opcode::RdmaRead) || self.opcode.is_atomic()
    }

    pub(super) const fn is_answered(&self) -> bool {
        self.came >= self.packets
    }

    /// Whether it was asked for, and not all of the answer has come.
    pub(super) const fn is_unanswered(&self) -> bool {
        self.is_read() && self.begun && !self.is_answered()
    }
}

/// What a READ reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ReadFrom {
    /// It is no READ.
    Nothing,
    /// The peer's source, which nobody changes, from this offset on.
    Source(usize),
    /// The peer's target, which we write to, from this offset on.
    Target(usize),
}

/// A slot of a node's landing area, and the part of it that a scatter list names.
#[derive(Clone, Debug)]
pub(super) struct Landing {
    pub(super) slot: usize,
    pub(super) sges: Vec<Sge>,
}

impl Landing {
    pub(super) fn capacity(&self) -> u64 {
        self.sges.iter().map(|sge| u64::from(sge.length)).sum()
    }
}

/// A posted receive.
#[derive(Clone, Debug)]
pub(super) struct ReceiveRecord {
    pub(super) landing: Landing,
    /// A key of its list is wrong on purpose.
    pub(super) bad_key: bool,
}

impl ReceiveRecord {
    /// Whether bytes of the message would go where the wrong key is, which is the first of the list.
    pub(super) fn is_bad_for(&self, message: &Message) -> bool {
        let reached = self.landing.sges.first().is_some_and(|sge| sge.length > 0);
        self.bad_key && reached && !message.write && !message.bytes.is_empty()
    }
}

/// A message on its way to a receive.
#[derive(Clone, Debug)]
pub(super) struct Message {
    pub(super) wr_id: u64,
    /// Which end sent it.
    pub(super) from: Qpn,
    pub(super) write: bool,
    pub(super) bytes: Vec<u8>,
    pub(super) imm: Option<u32>,
    pub(super) invalidates: Option<u32>,
    pub(super) solicited: bool,
    /// The peer will refuse it, so it must never be delivered.
    pub(super) refused: bool,
    /// How often it was delivered.
    pub(super) delivered: u32,
}

/// What became of an end's connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Life {
    /// Not connected.
    Down,
    /// Ready to receive only.
    Receiving,
    /// Ready to send.
    Up,
    /// Draining, or drained, its send queue.
    Draining,
    /// In an error state.
    Failed,
}

/// What packets told about a connection, as its requesting end knows.
#[derive(Clone, Debug, Default)]
pub(super) struct Watch {
    /// The PSN of the next request to be posted.
    pub(super) next: Psn,
    /// All before this one was acknowledged; what nobody answered yet is from here on.
    pub(super) floor: Psn,
    /// The PSN after the newest that was sent.
    pub(super) sent: Psn,
    /// The PSN that must not be sent again before a time.
    pub(super) hold: Option<(Psn, Time)>,
    /// How often the request at `floor` was sent again after it was held.
    pub(super) held: u32,
    /// RNR NAKs since there was progress.
    pub(super) rnr_naks: u32,
    /// The numbers of requests and answers that the links harmed, from `floor` on.
    pub(super) harmed: Vec<Psn>,
    /// When the peer was last heard of, or nothing was outstanding.
    pub(super) heard: Time,
    /// The send queue is drained: nothing may be sent.
    pub(super) drained: bool,
}

/// One end of a connection.
#[derive(Debug)]
pub(super) struct Side {
    pub(super) node: usize,
    pub(super) qpn: Qpn,
    pub(super) qp_type: QpType,
    /// The number of its connection, and of the other end.
    pub(super) connection: usize,
    pub(super) peer: usize,
    pub(super) send_depth: u32,
    pub(super) recv_depth: u32,
    pub(super) max_sge: u32,
    pub(super) shared: bool,
    pub(super) life: Life,
    /// The newest message that was delivered to it on an unreliable connection.
    pub(super) newest: u64,
    /// How often it was connected.
    pub(super) connects: u32,
    pub(super) attributes: Connection,
    /// The region that the peer writes to.
    pub(super) target: Area,
    pub(super) sends: VecDeque<SendRecord>,
    /// Receives in its own queue.
    pub(super) receives: VecDeque<u64>,
    /// Messages it has sent that its peer takes by receives.
    pub(super) messages: VecDeque<Message>,
    pub(super) watch: Watch,
    /// Why it may be in an error state.
    pub(super) cause: Option<&'static str>,
    /// Requests were flushed in the moment that is being judged.
    pub(super) flushed: bool,
    /// The memory that requests before this one were about is gone.
    pub(super) blind_before: u64,
    /// Its peer may be silent: it failed, or restarted, or is not connected.
    pub(super) peer_silent: bool,
    /// A receive of its peer was too short or had a wrong key.
    pub(super) peer_receive_failed: Option<WcStatus>,
    /// How the peer will refuse requests that were posted, if they reach it.
    pub(super) refusable: Vec<WcStatus>,
    /// The last event of a shared queue's end was raised.
    pub(super) last_reached: bool,
    /// Receives are not posted until this is false again.
    pub(super) starved: bool,
    pub(super) unsignaled: u32,
}

impl Side {
    /// Whether each packet of such a request is a request of its own.
    pub(super) fn writes_apart(&self, opcode: Opcode, packets: u32) -> bool {
        let may = self.attributes.writes_apart && self.qp_type == QpType::Rc;
        may && opcode == Opcode::RdmaWrite && packets >= 4
    }
}

/// A registered region.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Area {
    pub(super) key: u32,
    pub(super) base: u64,
    pub(super) len: usize,
}

impl Area {
    pub(super) const fn at(&self, offset: usize) -> u64 {
        self.base.wrapping_add(offset as u64)
    }
}
