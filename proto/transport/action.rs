//! What the transport asks its owner to do: plain data, in the order in which it must be done.

use crate::event::AsyncEventKind;
use crate::wire::Headers;
use crate::work::WorkCompletion;

/// Which half of a queue pair.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Half {
    /// The send queue.
    Send,
    /// The receive queue, its own or a shared one.
    Receive,
}

/// Something to do at once, in the order given.
///
/// Memory is named as work requests and the wire name it: `addr` in the address space of the region with `key`. Each such access
/// was allowed by [`Host::check`](super::Host::check) in the same call. If the region has gone since, the owner drops the bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Copy `len` bytes of the payload of the packet being handled, from `offset` on, to `addr` under `key`.
    Place {
        /// Key of the region.
        key: u32,
        /// First address written.
        addr: u64,
        /// First byte in the payload.
        offset: u32,
        /// Bytes, at least 1.
        len: u32,
    },
    /// Write the first `len` of these bytes to `addr` under `key`: a datagram's routing header, an atomic's old value.
    Write {
        /// Key of the region.
        key: u32,
        /// First address written.
        addr: u64,
        /// The bytes.
        bytes: [u8; 40],
        /// How many of them count.
        len: u8,
    },
    /// Do this atomic on the 8 bytes at `addr` under `key` and tell the old value with
    /// [`Qp::atomic_done`](super::Qp::atomic_done) before asking for the next action.
    Atomic {
        /// Key of the region.
        key: u32,
        /// Address, a multiple of 8.
        addr: u64,
        /// Which.
        op: AtomicOp,
    },
    /// Put this completion in the completion queue of that half.
    Complete {
        /// Which half.
        half: Half,
        /// The completion.
        wc: WorkCompletion,
        /// Whether it wakes those who wait for solicited completions: the sender asked for it, or it is a failure.
        solicited: bool,
    },
    /// Raise this event for the queue pair.
    Event(AsyncEventKind),
}

/// An 8-byte atomic operation; all numbers in host order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AtomicOp {
    /// Store `swap` if the value is `compare`.
    CompareSwap {
        /// What must be there.
        compare: u64,
        /// What then replaces it.
        swap: u64,
    },
    /// Add, wrapping.
    FetchAdd {
        /// The number to add.
        add: u64,
    },
}

/// To whom a packet goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum To {
    /// The connected peer: the queue pair's own address vector.
    Peer,
    /// The destination of the address handle with this number.
    Handle(u32),
}

/// A packet to send now: these headers, the payload's bytes, 0 to 3 zero bytes of padding (`headers.bth.pad`), the iCRC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Transmit {
    /// Everything before the payload.
    pub headers: Headers,
    /// Where the payload is: ask [`Qp::spans`](super::Qp::spans) before anything else happens to the queue pair.
    pub payload: Payload,
    /// Where it goes.
    pub to: To,
}

/// The payload of a packet to send, as a description.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Payload {
    /// None.
    Empty,
    /// `len` bytes from `offset` on of the message of the send work request with this running number.
    Message {
        /// The work request's running number.
        wq_index: u32,
        /// First byte in the message.
        offset: u32,
        /// Bytes.
        len: u32,
    },
    /// Bytes of a region that a peer reads.
    Region {
        /// Key of the region.
        key: u32,
        /// First address.
        addr: u64,
        /// Bytes.
        len: u32,
    },
}

impl Payload {
    /// Its length in bytes.
    #[inline]
    pub const fn len(&self) -> u32 {
        match *self {
            Self::Empty => 0,
            Self::Message { len, .. } | Self::Region { len, .. } => len,
        }
    }

    /// Whether it has no bytes.
    #[inline]
    pub const fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// A run of payload bytes to gather.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Span<'a> {
    /// `len` bytes at `addr` under `key`. If the region has gone since it was checked, the packet is not sent, as if lost.
    Region {
        /// Key of the region.
        key: u32,
        /// First address.
        addr: u64,
        /// Bytes, at least 1.
        len: u32,
    },
    /// These bytes, which were posted inline.
    Bytes(&'a [u8]),
}

impl Span<'_> {
    /// How many bytes it has.
    #[inline]
    pub const fn bytes(&self) -> usize {
        match self {
            Self::Region { len, .. } => *len as usize,
            Self::Bytes(bytes) => bytes.len(),
        }
    }
}

/// What a queue pair has to send, as far as whether to hurry is concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pending {
    /// Nothing.
    Nothing,
    /// Only a positive acknowledgement, which later ones, or a request that goes out in the same batch, may make cheaper. It
    /// must leave well within the peer's timeout, whatever happens.
    AckOnly,
    /// Something that somebody waits for.
    More,
}
