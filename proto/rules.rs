//! What may be posted: the checks of one send work request, and which of its faults show up only later.
//!
//! Verbs reports a bad work request in one of two ways (IBTA volume 1, sections 10.8 and 11.6.2), and
//! applications rely on which:
//!
//! - **Immediately**, from the posting call: nothing was queued. These are the faults that can be seen from
//!   the request and the queue pair alone. [`SendRules::check`] finds them and [`PostErrorKind`] names them.
//! - **By a completion with an error status**: the request was queued, and the queue pair goes to an error
//!   state. Keys, bounds, rights, an over-long message and a misaligned atomic are such faults.
//!   [`SendRules::completion_status_for_length`] and [`SendRules::completion_status_for_remote`] find the two
//!   that need no memory region; [`crate::region`] finds the others.

use crate::flags::SendFlags;
use crate::limits::ATOMIC_BYTES;
use crate::profile::Habits;
use crate::qp::{Mtu, QpType};
use crate::work::{Opcode, SendWr, Sge, WcStatus};

/// The limits one queue pair puts on a send work request. They do not change while it exists, except
/// `path_mtu`, which is set on the way to RTR.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SendRules {
    /// The transport service.
    pub qp_type: QpType,
    /// Scatter/gather entries of a request, as granted when the queue pair was created.
    pub max_send_sge: u32,
    /// Inline bytes of a request, as granted when the queue pair was created.
    pub max_inline_data: u32,
    /// Bytes of a message, as the port says.
    pub max_msg_size: u64,
    /// Bytes of a packet. On UD, where a message is one packet: the port's active MTU.
    pub path_mtu: Mtu,
    /// What the device does otherwise than others.
    pub habits: Habits,
}

impl SendRules {
    /// Checks one work request as the posting call must, and answers the length of its message in bytes.
    ///
    /// `sges` are the entries of this request alone, empty if it is inline; `inline_len` is the number of its
    /// inline bytes, and looked at only if it is. For an atomic the length is that of the value returned, 8;
    /// for LOCAL_INV and BIND_MW, which move no bytes, it is 0 whatever the list says.
    ///
    /// # Errors
    ///
    /// The faults that the posting call reports at once. The message may still be too long for the transport:
    /// see [`completion_status_for_length`](Self::completion_status_for_length).
    #[inline]
    pub fn check(&self, wr: &SendWr, sges: &[Sge], inline_len: usize) -> Result<u64, PostErrorKind> {
        let opcode = wr.opcode;
        if !self.qp_type.allows(opcode) {
            return Err(PostErrorKind::OpcodeNotSupported { opcode, qp_type: self.qp_type });
        }
        if matches!(self.qp_type, QpType::Ud) && wr.ud.is_none() {
            return Err(PostErrorKind::MissingUdDestination);
        }
        if wr.flags.contains(SendFlags::INLINE) {
            if !opcode.gathers() {
                return Err(PostErrorKind::InlineNotAllowed { opcode });
            }
            let length = inline_len as u64;
            if length > u64::from(self.max_inline_data) {
                return Err(PostErrorKind::InlineTooLong { length, max: self.max_inline_data });
            }
            return Ok(length);
        }
        if sges.len() as u64 > u64::from(self.max_send_sge) {
            return Err(PostErrorKind::TooManySges { count: saturate(sges.len()), max: self.max_send_sge });
        }
        if opcode.is_atomic() {
            return match sges {
                [sge] if sge.length == ATOMIC_BYTES => Ok(u64::from(ATOMIC_BYTES)),
                _ => Err(PostErrorKind::AtomicLength { count: saturate(sges.len()), length: total(sges) }),
            };
        }
        if opcode.gathers() || matches!(opcode, Opcode::RdmaRead) { Ok(total(sges)) } else { Ok(0) }
    }

    /// The status a posted request of `length` bytes will fail with, or `None` if its length is fine.
    ///
    /// [`WcStatus::LocLenErr`] if the message is longer than the port allows or, on UD, than one packet.
    #[inline]
    pub const fn completion_status_for_length(&self, length: u64) -> Option<WcStatus> {
        let one_packet = matches!(self.qp_type, QpType::Ud);
        if length > self.max_msg_size || (one_packet && length > self.path_mtu.bytes() as u64) {
            Some(WcStatus::LocLenErr)
        } else {
            None
        }
    }

    /// The status a posted request will fail with for its remote address alone, or `None`.
    ///
    /// [`WcStatus::RemInvReqErr`] for an atomic on an address that is not a multiple of 8 (IBTA volume 1,
    /// section 9.4.5): the peer answers it with an invalid-request NAK.
    #[inline]
    pub const fn completion_status_for_remote(&self, wr: &SendWr) -> Option<WcStatus> {
        if wr.opcode.is_atomic() && !wr.remote.addr.is_multiple_of(ATOMIC_BYTES as u64) {
            Some(WcStatus::RemInvReqErr)
        } else {
            None
        }
    }
}

/// Sum of the lengths, in bytes. It cannot overflow: that would take 2^32 entries, 64 GiB of list.
#[inline]
fn total(sges: &[Sge]) -> u64 {
    sges.iter().fold(0, |sum, sge| sum.saturating_add(u64::from(sge.length)))
}

/// A count for an error message.
fn saturate(count: usize) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}

/// Why the posting call refuses a work request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PostErrorKind {
    /// The queue pair's transport has no such operation.
    #[error("{opcode:?} does not exist on {qp_type:?} queue pairs: {}", opcode_hint(*.qp_type))]
    OpcodeNotSupported {
        /// The operation asked for.
        opcode: Opcode,
        /// The queue pair's transport service.
        qp_type: QpType,
    },
    /// The scatter/gather list is longer than the queue pair allows.
    #[error(
        "the request has {count} scatter/gather entries, the queue pair allows {max}: \
         split it, or create the queue pair with a larger max_send_sge"
    )]
    TooManySges {
        /// Entries given.
        count: u32,
        /// Entries allowed.
        max: u32,
    },
    /// More inline bytes than the queue pair allows.
    #[error(
        "the request has {length} inline bytes, the queue pair allows {max}: \
         post a registered buffer instead, or create the queue pair with a larger max_inline_data"
    )]
    InlineTooLong {
        /// Bytes given.
        length: u64,
        /// Bytes allowed.
        max: u32,
    },
    /// The operation sends no payload of ours that could be inline.
    #[error(
        "{opcode:?} cannot be INLINE: only SEND and RDMA WRITE carry bytes of the sender's; drop the flag"
    )]
    InlineNotAllowed {
        /// The operation asked for.
        opcode: Opcode,
    },
    /// A datagram without an address.
    #[error(
        "a request on a UD queue pair has no destination: give an address handle, queue pair number and Q_Key"
    )]
    MissingUdDestination,
    /// An atomic whose result does not go to one 8-byte entry.
    #[error(
        "an atomic returns its old value to one scatter/gather entry of 8 bytes, \
         but {count} entries of {length} bytes in all were given"
    )]
    AtomicLength {
        /// Entries given.
        count: u32,
        /// Their lengths together, in bytes.
        length: u64,
    },
}

/// What a queue pair type can do, in the words of [`PostErrorKind::OpcodeNotSupported`].
const fn opcode_hint(qp_type: QpType) -> &'static str {
    match qp_type {
        QpType::Rc => "RC has every operation",
        QpType::Uc => "UC has SEND and RDMA WRITE; use RC to read, for atomics, or to invalidate remotely",
        QpType::Ud => "UD has only SEND and SEND with immediate; use RC or UC for the rest",
    }
}
