//! Packets into trains: headers, payload and iCRC of as many packets as may leave in one system call.
//!
//! Only the last packet of a train may be shorter than the first. The transport puts a mere acknowledgement behind everything else, so it rides at
//! the end of a train of requests.
//!
//! The payload is copied into the train, and its iCRC computed in the same pass. That looks like a copy too many, but memory of a region may
//! change at any moment; gathered in place, it could change between the iCRC and the kernel's copy, and the packet would be dropped as
//! damaged. And it costs little: the bytes are in registers for the iCRC anyway, and in a near cache when the kernel reads them.

use super::core::Core;
use super::path::Path;
use super::qp::{Inner, SoftQp};
use crate::link::Train;
use crate::sys::process::yield_now;
use std::cell::RefCell;
use std::io::ErrorKind;
use tbrdma_proto::transport::{Payload, Qp, Span, To, Transmit};
use tbrdma_proto::wire::MAX_HEADER_BYTES;
use tbrdma_proto::wire::icrc::{ICRC_BYTES, IcrcHasher};
use tbrdma_proto::{Gid, Time};

/// Packets that one queue pair may send before others get their turn: an answer to a large READ would otherwise fill every buffer on
/// the way.
const BUDGET: u32 = 240;
/// Bytes from which on it pays to ask for what lies behind.
const LONG: u32 = 1024;
/// Times that a full socket is tried again before its packets count as lost.
const TRIES: u32 = 4;

thread_local! {
    static DEPOT: RefCell<Train> = RefCell::new(Train::new());
}

/// Sends what the queue pair has to send. True if the budget ended before that did.
pub(crate) fn transmit(qp: &SoftQp, inner: &mut Inner, now: Time) -> bool {
    DEPOT.with_borrow_mut(|train| {
        let mut depot = Depot { qp, train, to: None, now };
        // One that could not leave is lost.
        depot.train.restart(0, Gid::default());
        let more = depot.load(inner);
        depot.depart();
        more
    })
}

/// Where trains are put together.
struct Depot<'a> {
    qp: &'a SoftQp,
    train: &'a mut Train,
    /// Where the train goes.
    to: Option<To>,
    now: Time,
}

impl Depot<'_> {
    /// True if there is more than the budget allows.
    fn load(&mut self, inner: &mut Inner) -> bool {
        for _ in 0..BUDGET {
            let host = &mut self.qp.host(&mut inner.taken);
            let Some(transmit) = inner.qp.poll_transmit(self.now, host) else { return false };
            let path = match transmit.to {
                To::Peer => inner.path,
                To::Handle(ah) => self.qp.core.path_of(ah),
            };
            // A handle that has been destroyed leads nowhere: lost, as datagrams may be.
            let Some(path) = path else { continue };
            self.add(&inner.qp, &transmit, &path);
        }
        true
    }

    /// Puts a packet on the train, or on the next one.
    fn add(&mut self, qp: &Qp, transmit: &Transmit, path: &Path) {
        let headers = &transmit.headers;
        let payload = transmit.payload.len() as usize;
        let pad = usize::from(headers.bth.pad);
        let len = headers.len() + payload + pad + ICRC_BYTES;
        if self.to != Some(transmit.to) || !self.train.can_take(len) {
            self.depart();
            self.train.restart(path.from, path.to);
            self.train.set_source_port(path.flow.source().port());
            self.train.set_class(path.traffic_class, path.hop_limit);
            self.to = Some(transmit.to);
        }
        let ident = self.train.next_ident();
        let packet = self.train.next_packet(len);
        // In its place, where what is behind the headers is written later.
        let encoded_there = packet.first_chunk_mut().map(|room| headers.encode(room)).is_some();
        let (front, rest) = packet.split_at_mut(headers.len());
        if !encoded_there {
            let mut encoded = [0; MAX_HEADER_BYTES];
            headers.encode(&mut encoded);
            front.copy_from_slice(encoded.get(..front.len()).unwrap_or_default());
        }
        let mut hasher = IcrcHasher::new(&path.flow, ident, len);
        hasher.update(front);
        let (body, rest) = rest.split_at_mut(payload);
        let is_whole = gather(&self.qp.core, qp, &transmit.payload, body, &mut hasher);
        // If the region has gone since, the packet is not sent, as if it had been lost.
        if is_whole && let Some((padding, icrc)) = rest.split_last_chunk_mut() {
            if !padding.is_empty() {
                padding.fill(0);
                hasher.update(padding);
            }
            *icrc = hasher.finish().to_le_bytes();
            self.train.end_packet();
        }
    }

    /// Sends the train.
    fn depart(&mut self) {
        if self.train.is_empty() {
            return;
        }
        for _ in 0..TRIES {
            match self.qp.core.link.send(self.now, self.train) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => yield_now(),
                // Anything else is loss, which the link has counted and the queue pair's timers see to.
                _ => break,
            }
        }
        self.train.restart(0, Gid::default());
        self.to = None;
    }
}

/// Copies a payload together, and takes it into the iCRC. False if some of it is not there any more.
#[inline]
fn gather(core: &Core, qp: &Qp, payload: &Payload, mut body: &mut [u8], hasher: &mut IcrcHasher) -> bool {
    for span in qp.spans(payload) {
        let Some((room, rest)) = std::mem::take(&mut body).split_at_mut_checked(span.bytes()) else {
            return false;
        };
        body = rest;
        match span {
            Span::Bytes(bytes) => {
                room.copy_from_slice(bytes);
                hasher.update(room);
            }
            Span::Region { key, addr, len } => {
                let Some(place) = core.bytes_at(key, addr, len) else { return false };
                if len < LONG {
                    place.read_into(room);
                    hasher.update(room);
                    continue;
                }
                if let Some(next) = core.bytes_at(key, addr.wrapping_add(len.into()), len) {
                    // More often than not it is the next packet's, and comes while this one is copied.
                    next.prefetch();
                }
                if hasher.update_by(|crc| place.read_into_with_crc(room, crc)).is_none() {
                    return false;
                }
            }
        }
    }
    body.is_empty()
}
