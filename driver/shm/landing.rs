//! Landing places: where a datagram waits that its sender may not copy to where it belongs.
//!
//! A sender that reaches the receiver's memory only through the receiver's agent cannot wait for it: a datagram waits for nobody. So
//! it leaves the message in the receiver's segment, at a place that every receive of a queue with datagram senders has
//! behind the ring, and says so in the delivery. The receiver copies it when it polls. The places cost address space until
//! they are used.

use super::core::{Core, lock};
use crate::mem::{LocalRegion, Place, Segment};
use crate::ring::receive::{Posting, ReceiveShape};
use crate::sys::mapping;
use tbrdma_proto::{Access, Mtu, PdHandle, limits};

/// What the delivery's order word says of a datagram: whether it is in its landing place, and not where it belongs, and its sender's LID.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Arrival {
    pub(crate) landed: bool,
    pub(crate) slid: u16,
}

impl Arrival {
    pub(crate) fn word(self) -> u32 {
        u32::from(self.landed) | u32::from(self.slid) << 16
    }

    pub(crate) fn of(word: u32) -> Self {
        Self { landed: word & 1 != 0, slid: (word >> 16) as u16 }
    }
}

/// Bytes of a place: the longest message behind its header area, in whole lines.
const ROOM: u64 = (limits::GRH_BYTES as u64 + Mtu::B4096.bytes() as u64).next_multiple_of(64);

/// Bytes of a ring with its landing places.
pub(crate) const fn ring_bytes(shape: ReceiveShape) -> u64 {
    shape.bytes() + shape.depth as u64 * ROOM
}

/// The first `len` bytes of the landing place of receive `number` of the ring at `ring_at`.
pub(crate) fn place(
    segment: &Segment,
    ring_at: u64,
    shape: ReceiveShape,
    number: u32,
    len: u64,
) -> Option<Place<'_>> {
    let at = ring_at.checked_add(shape.bytes() + u64::from(number & (shape.depth - 1)) * ROOM)?;
    if len <= ROOM { segment.place(at, len) } else { None }
}

/// Receiver: copies a message from its landing place to where its receive says. False if that is not ours to write, or not there.
#[cold]
pub(crate) fn fetch(core: &Core, pd: PdHandle, posting: &Posting<'_>, message: Place<'_>) -> bool {
    // Held as the agent holds it: a deregistration waits for this copy.
    let _serving = lock(&core.serving);
    let mut at = 0;
    for sge in posting.sges() {
        let len = (sge.length as usize).min(message.len() - at);
        let place = core.regions.place(
            &mut LocalRegion::default(),
            pd,
            sge.lkey,
            Access::LOCAL_WRITE,
            sge.addr,
            len as u64,
        );
        let (Ok(to), Some(from)) = (place, message.sub(at, len)) else { return false };
        if mapping::touch(to.addr(), to.len(), true).is_err() {
            return false;
        }
        to.copy_from(from);
        at += len;
    }
    at == message.len()
}
