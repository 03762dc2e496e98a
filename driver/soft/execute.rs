//! Carrying out what the transport decided.

use super::core::Core;
use super::qp::{Inner, SoftQp};
use crate::mem::Place;
use crate::sync::Ordering;
use crate::verbs::event::{AsyncEvent, EventSource};
use tbrdma_proto::transport::{Action, AtomicOp, Half};

impl Core {
    /// The bytes of an access that was allowed a moment ago; `None` if the region has gone since.
    #[inline]
    pub(crate) fn bytes_at(&self, key: u32, addr: u64, len: u32) -> Option<Place<'_>> {
        let (region, place) = self.regions.find(key)?;
        place.sub(addr.wrapping_sub(region.iova) as usize, len as usize)
    }
}

impl SoftQp {
    /// Does what the transport has decided, in order. `payload` is that of the packet being handled.
    #[inline]
    pub(crate) fn carry_out(&self, inner: &mut Inner, payload: &[u8]) {
        if inner.qp.has_actions() {
            self.carry_out_all(inner, payload);
        }
    }

    fn carry_out_all(&self, inner: &mut Inner, payload: &[u8]) {
        while let Some(action) = inner.qp.poll_action() {
            match action {
                Action::Place { key, addr, offset, len } => {
                    let offset = offset as usize;
                    let bytes = payload.get(offset..offset + len as usize);
                    if let (Some(bytes), Some(place)) = (bytes, self.core.bytes_at(key, addr, len)) {
                        place.write_from(bytes);
                    }
                }
                Action::Write { key, addr, bytes, len } => {
                    let bytes = bytes.get(..usize::from(len)).unwrap_or(&bytes);
                    if let Some(place) = self.core.bytes_at(key, addr, bytes.len() as u32) {
                        place.write_from(bytes);
                    }
                }
                Action::Atomic { key, addr, op } => {
                    let old = self.core.bytes_at(key, addr, 8).map_or(0, |place| atomic(place, op));
                    inner.qp.atomic_done(old);
                }
                Action::Complete { half, wc, solicited } => {
                    let cq = match half {
                        Half::Send => &self.send_cq,
                        Half::Receive => {
                            inner.taken = None;
                            &self.recv_cq
                        }
                    };
                    cq.push(half, wc, solicited, &self.ledger);
                }
                Action::Event(kind) => {
                    let source = EventSource::QueuePair(self.qpn);
                    self.core.events.push(AsyncEvent { kind, source });
                }
            }
        }
    }
}

/// Does an atomic; the old value. Memory that is registered at an odd address has no atomic words: there the operation is atomic
/// among the packets of this device only, which are handled one at a time.
fn atomic(place: Place<'_>, op: AtomicOp) -> u64 {
    if let Some(word) = place.atomic_u64() {
        return match op {
            AtomicOp::FetchAdd { add } => word.fetch_add(add, Ordering::SeqCst),
            AtomicOp::CompareSwap { compare, swap } => {
                match word.compare_exchange(compare, swap, Ordering::SeqCst, Ordering::SeqCst) {
                    Ok(old) | Err(old) => old,
                }
            }
        };
    }
    let mut bytes = [0; 8];
    place.read_into(&mut bytes);
    let old = u64::from_ne_bytes(bytes);
    let new = match op {
        AtomicOp::FetchAdd { add } => Some(old.wrapping_add(add)),
        AtomicOp::CompareSwap { compare, swap } => (old == compare).then_some(swap),
    };
    if let Some(new) = new {
        place.write_from(&new.to_ne_bytes());
    }
    old
}
