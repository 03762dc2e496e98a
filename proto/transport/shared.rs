//! What both halves of a queue pair know of it.

use crate::Psn;
use crate::event::AsyncEventKind;
use crate::ident::Qpn;
use crate::profile::Habits;
use crate::qp::{QpAttr, QpState, QpType};
use crate::region::PdHandle;
use crate::wire::{Bth, PacketOpcode};

/// The queue pair as its halves see it: its identity, and the attributes in force. Only
/// [`Qp::modify`](super::Qp::modify), and an error, change it.
#[derive(Clone, Debug)]
pub(super) struct Shared {
    /// Its number.
    pub(super) qpn: Qpn,
    /// Its transport service.
    pub(super) qp_type: QpType,
    /// Its protection domain.
    pub(super) pd: PdHandle,
    /// Whether receives come through [`Host::take_shared_receive`](super::Host::take_shared_receive).
    pub(super) shared_receives: bool,
    /// The state it is in.
    pub(super) state: QpState,
    /// The attributes in force. `qp_state` is not kept up to date here.
    pub(super) attr: QpAttr,
    /// Payload bytes of a full packet: of the path, or on UD of the port.
    pub(super) mtu: u32,
    /// The partition key at `pkey_index`.
    pub(super) pkey: u16,
    /// Bytes of the longest message.
    pub(super) max_msg_size: u64,
    /// What the device does otherwise than others.
    pub(super) habits: Habits,
    /// Whether each packet of a WRITE is a WRITE of its own: see [`Qp::write_apart`](super::Qp::write_apart).
    pub(super) writes_apart: bool,
    /// Whether the way to the peer loses nothing: see [`Qp::path_delivers`](super::Qp::path_delivers).
    pub(super) delivers: bool,
}

impl Shared {
    /// The base header of a packet to the connected peer; whoever sends it fills in `pad`, `solicited` and `ack_req`.
    #[inline]
    pub(super) const fn bth(&self, opcode: PacketOpcode, psn: Psn) -> Bth {
        Bth { pkey: self.pkey, ..Bth::new(opcode, self.attr.dest_qp_num, psn) }
    }
}

/// A half has met an error that ends the connection: the queue pair goes to ERR, and both halves are flushed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Fatal {
    /// The event to raise; none if a completion says it already.
    pub(super) event: Option<AsyncEventKind>,
}
