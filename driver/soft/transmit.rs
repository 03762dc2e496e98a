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
use crate::mem::Place;
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

/// What a queue pair still has to send when it has sent what it could.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Left {
    Nothing,
    /// The budget ended before that did.
    More,
    /// There is no room on a link that loses nothing.
    NoRoom,
}

/// Sends what the queue pair has to send, what has waited first.
pub(crate) fn transmit(qp: &SoftQp, inner: &mut Inner, now: Time) -> Left {
    if !inner.waiting.is_empty() && !qp.core.send_waiting(&mut inner.waiting, now) {
        return Left::NoRoom;
    }
    DEPOT.with_borrow_mut(|train| {
        let mut depot = Depot { qp, train, to: None, now, aside: Vec::new() };
        // One that could not leave is lost.
        depot.train.restart(0, Gid::default());
        let more = depot.load(inner);
        depot.depart();
        if !depot.aside.is_empty() {
            inner.waiting.extend(depot.aside);
            return Left::NoRoom;
        }
        if more { Left::More } else { Left::Nothing }
    })
}

/// Where trains are put together.
struct Depot<'a> {
    qp: &'a SoftQp,
    train: &'a mut Train,
    /// Where the train goes.
    to: Option<To>,
    now: Time,
    /// Trains that found no room, on a link that loses nothing.
    aside: Vec<Train>,
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
            if !self.aside.is_empty() {
                break;
            }
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
            self.train.restart_by(self.qp.core.link.train_rules(), path.from, path.to);
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
        let core = &self.qp.core;
        let is_whole = if core.promises.intact {
            fill(core, qp, &transmit.payload, rest, Unsealed)
        } else {
            let mut hasher = IcrcHasher::new(&path.flow, ident, len);
            hasher.update(front);
            fill(core, qp, &transmit.payload, rest, hasher)
        };
        // If the region has gone since, the packet is not sent, as if it had been lost.
        if is_whole {
            self.train.end_packet();
        }
    }

    /// Sends the train.
    fn depart(&mut self) {
        if self.train.is_empty() {
            return;
        }
        let core = &self.qp.core;
        for _ in 0..TRIES {
            let result = match self.aside.is_empty() {
                true => core.link.send(self.now, self.train),
                // Not before the others.
                false => Err(ErrorKind::WouldBlock.into()),
            };
            match result {
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    if core.promises.delivers {
                        core.put_aside(self.train, &mut self.aside);
                        break;
                    }
                    yield_now();
                }
                // Anything else is loss, which the link has counted and the queue pair's timers see to.
                _ => break,
            }
        }
        self.train.restart(0, Gid::default());
        self.to = None;
    }
}

/// What becomes of the iCRC of a packet while it is put together.
trait Seal {
    /// These bytes are next.
    fn take(&mut self, bytes: &[u8]);

    /// Copies the next bytes from a region. False if they are not all there.
    fn copy(&mut self, from: Place<'_>, into: &mut [u8]) -> bool;

    /// What the packet ends with.
    fn finish(self) -> [u8; ICRC_BYTES];
}

impl Seal for IcrcHasher {
    #[inline]
    fn take(&mut self, bytes: &[u8]) {
        self.update(bytes);
    }

    #[inline]
    fn copy(&mut self, from: Place<'_>, into: &mut [u8]) -> bool {
        if into.len() < LONG as usize {
            from.read_into(into);
            self.update(into);
            return true;
        }
        self.update_by(|crc| from.read_into_with_crc(into, crc)).is_some()
    }

    #[inline]
    fn finish(self) -> [u8; ICRC_BYTES] {
        self.finish().to_le_bytes()
    }
}

/// No iCRC, for a link that promises whole packets without.
struct Unsealed;

impl Seal for Unsealed {
    #[inline]
    fn take(&mut self, _bytes: &[u8]) {}

    #[inline]
    fn copy(&mut self, from: Place<'_>, into: &mut [u8]) -> bool {
        from.read_into(into) == into.len()
    }

    #[inline]
    fn finish(self) -> [u8; ICRC_BYTES] {
        [0; ICRC_BYTES]
    }
}

/// Fills in what is behind a packet's headers. False if some of the payload is not there any more.
#[inline]
fn fill(core: &Core, qp: &Qp, payload: &Payload, room: &mut [u8], mut seal: impl Seal) -> bool {
    let (body, rest) = room.split_at_mut(payload.len() as usize);
    if !gather(core, qp, payload, body, &mut seal) {
        return false;
    }
    let Some((padding, icrc)) = rest.split_last_chunk_mut() else { return false };
    if !padding.is_empty() {
        padding.fill(0);
        seal.take(padding);
    }
    *icrc = seal.finish();
    true
}

/// Copies a payload together, and takes it into the iCRC. False if some of it is not there any more.
#[inline]
fn gather(core: &Core, qp: &Qp, payload: &Payload, mut body: &mut [u8], seal: &mut impl Seal) -> bool {
    for span in qp.spans(payload) {
        let Some((room, rest)) = std::mem::take(&mut body).split_at_mut_checked(span.bytes()) else {
            return false;
        };
        body = rest;
        match span {
            Span::Bytes(bytes) => {
                room.copy_from_slice(bytes);
                seal.take(room);
            }
            Span::Region { key, addr, len } => {
                let Some(place) = core.bytes_at(key, addr, len) else { return false };
                if len >= LONG
                    && let Some(next) = core.bytes_at(key, addr.wrapping_add(len.into()), len)
                {
                    // More often than not it is the next packet's, and comes while this one is copied.
                    next.prefetch();
                }
                if !seal.copy(place, room) {
                    return false;
                }
            }
        }
    }
    body.is_empty()
}
