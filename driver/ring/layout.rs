//! Where everything lies in a context's segment: the one file that both sides of a mapping must agree on.
//!
//! A segment is one sparse memory file. Its owner writes it; peers of the same user map it. Each line (64 bytes) has one
//! writing side, named beside it, so that a store never pulls a line away from an unrelated reader.
//!
//! ```text
//! 0          header           who this is, and what wants the owner's attention
//! 64 KiB     region entries   one line a registered memory region
//! 8 MiB      queue pairs      eight lines each
//! 24 MiB     shared receive queues
//! 32 MiB     completion queues
//! 64 MiB ..  heap             receive rings and the memory the library allocates
//! ```

use super::ready::READY_WORDS;
use super::region::RegionEntry;
use crate::mem::Shared;
use crate::sync::AtomicU64;
use std::mem::{offset_of, size_of};
use tbrdma_proto::limits;

/// First word of a segment: "tbrdma" and the layout's number. Another layout is another number.
pub(crate) const MAGIC: u64 = u64::from_le_bytes(*b"tbrdma\x00\x04");

/// Bytes of a segment, address space and not memory: the largest of these that the process may map. Peers map what they are told,
/// if it is one of these.
pub(crate) const SEGMENT_SIZES: [u64; 4] = [1 << 36, 1 << 34, 1 << 32, 1 << 30];
/// Entries of the region table.
pub(crate) const REGIONS: u32 = 1 << 16;
/// Queue pair slots.
pub(crate) const QPS: u32 = 1 << 14;
/// Shared receive queue slots.
pub(crate) const SRQS: u32 = 1 << 10;
/// Completion queue slots.
pub(crate) const CQS: u32 = 1 << 14;

const REGIONS_AT: u64 = 64 << 10;
const QPS_AT: u64 = 8 << 20;
const SRQS_AT: u64 = 24 << 20;
const CQS_AT: u64 = 32 << 20;
/// Where the heap begins.
pub(crate) const HEAP_AT: u64 = 64 << 20;

const _: () = assert!(
    limits::MAX_MR < REGIONS && limits::MAX_QP <= QPS && limits::MAX_CQ <= CQS && limits::MAX_SRQ <= SRQS
);
const _: () = assert!(size_of::<Header>() as u64 <= REGIONS_AT);
const _: () = assert!(REGIONS_AT + REGIONS as u64 * size_of::<RegionEntry>() as u64 <= QPS_AT);
const _: () = assert!(QPS_AT + QPS as u64 * size_of::<QpWords>() as u64 <= SRQS_AT);
const _: () = assert!(SRQS_AT + SRQS as u64 * size_of::<SrqWords>() as u64 <= CQS_AT);
const _: () = assert!(CQS_AT + CQS as u64 * size_of::<CqWords>() as u64 <= HEAP_AT);

/// Offset of a region entry.
#[inline]
pub(crate) fn region_at(index: u32) -> u64 {
    REGIONS_AT + u64::from(index % REGIONS) * size_of::<RegionEntry>() as u64
}

/// Offset of a queue pair's words.
#[inline]
pub(crate) fn qp_at(index: u32) -> u64 {
    QPS_AT + u64::from(index % QPS) * size_of::<QpWords>() as u64
}

/// Offset of a shared receive queue's words.
#[inline]
pub(crate) fn srq_at(index: u32) -> u64 {
    SRQS_AT + u64::from(index % SRQS) * size_of::<SrqWords>() as u64
}

/// Offset of a completion queue's words.
#[inline]
pub(crate) fn cq_at(index: u32) -> u64 {
    CQS_AT + u64::from(index % CQS) * size_of::<CqWords>() as u64
}

/// The segment's first lines.
#[repr(C, align(64))]
pub(crate) struct Header {
    /// [`MAGIC`]; written last.
    pub(crate) magic: AtomicU64,
    /// The context's identity, the lower half of its GID.
    pub(crate) context: AtomicU64,
    /// Random number of the owning process.
    pub(crate) process: AtomicU64,
    /// Address, in the owner's process, of this header: what a peer reads to learn whether it may reach that process' memory.
    pub(crate) address: AtomicU64,
    /// Queue pair slots ever used: those beyond have never been written.
    pub(crate) qp_slots: AtomicU64,
    spare: [AtomicU64; 3],
    /// Peers: queue pairs (by slot) whose `fault` or `request` words want the owner.
    pub(crate) attention: [AtomicU64; READY_WORDS],
    spare_attention: [AtomicU64; 7],
    /// Peers: completion queues (by slot) whose channel the owner must signal itself.
    pub(crate) wake: [AtomicU64; READY_WORDS],
    spare_wake: [AtomicU64; 7],
}

/// A queue pair as its peers see it.
#[repr(C, align(64))]
pub(crate) struct QpWords {
    // Line 0. Owner, when it creates or modifies; peers read it for every message.
    /// QPN (low), type (high). Zero: no queue pair here.
    pub(crate) identity: AtomicU64,
    /// `QpState`.
    pub(crate) state: AtomicU64,
    /// Protection domain (low), access flags for remote operations (high).
    pub(crate) rights: AtomicU64,
    /// Identity of the connected context.
    pub(crate) peer_context: AtomicU64,
    /// Connected QPN (low), first expected PSN (high).
    pub(crate) peer_qp: AtomicU64,
    /// Offset of the receive ring in the owner's segment.
    pub(crate) receive_at: AtomicU64,
    /// Slots (low), SGEs a slot (high) of that ring.
    pub(crate) receive_shape: AtomicU64,
    /// Slot of the receive CQ (low 16), RNR timer code (bits 16-23), max_dest_rd_atomic (24-31), shared receive queue slot + 1 (high).
    pub(crate) receive_to: AtomicU64,
    // Line 1. Owner, for every doorbell; peers read it when they withdraw something.
    /// See `busy`.
    pub(crate) busy: AtomicU64,
    spare_busy: [AtomicU64; 7],
    // Line 2. The connected peer, for every message.
    /// Number of the next receive to consume.
    pub(crate) next_receive: AtomicU64,
    spare_peer: [AtomicU64; 7],
    // Line 3. Owner's poller, seldom; the peer reads it for every message.
    /// Receive completions: tell the ready set (set) or not (the poller looks here anyway).
    pub(crate) tell: AtomicU64,
    /// Q_Key (datagrams).
    pub(crate) qkey: AtomicU64,
    spare_tell: [AtomicU64; 6],
    // Line 4. The connected peer, when something is out of the ordinary; the owner reads it for every doorbell of receives.
    /// The peer waits for a receive: tell it.
    pub(crate) waiting: AtomicU64,
    /// What a peer found here that is worth an event: a bit for each async event number.
    pub(crate) fault: AtomicU64,
    spare_waiting: [AtomicU64; 6],
    // Lines 5 and 6. A request to the peer's agent (owner), and its answer (peer's agent).
    pub(crate) request: [AtomicU64; 8],
    pub(crate) reply: [AtomicU64; 8],
    spare_end: [AtomicU64; 8],
}

/// A shared receive queue as senders see it.
#[repr(C, align(64))]
pub(crate) struct SrqWords {
    // Line 0. Owner.
    /// Protection domain + 1. Zero: none here.
    pub(crate) identity: AtomicU64,
    /// Offset of the ring in the owner's segment.
    pub(crate) receive_at: AtomicU64,
    /// Slots (low), SGEs a slot (high).
    pub(crate) receive_shape: AtomicU64,
    /// Number of receives posted so far, for the limit.
    pub(crate) posted: AtomicU64,
    spare: [AtomicU64; 4],
    // Line 1. Senders.
    /// Where the next unclaimed receive may be.
    pub(crate) next_receive: AtomicU64,
    /// A sender waits for a receive: tell everyone.
    pub(crate) waiting: AtomicU64,
    /// `srq_limit`; taken (zeroed) by whoever first goes below it.
    pub(crate) limit: AtomicU64,
    spare_senders: [AtomicU64; 5],
}

/// A completion queue as those who complete into it see it.
#[repr(C, align(64))]
pub(crate) struct CqWords {
    // Line 0. Both sides, but only in event mode.
    /// See `arm`.
    pub(crate) arm: AtomicU64,
    /// A completion event has been raised and not yet been taken.
    pub(crate) event: AtomicU64,
    /// Owner: 1 if there is a completion channel.
    pub(crate) has_channel: AtomicU64,
    spare: [AtomicU64; 5],
    // From line 1. Everyone.
    /// Sources with something to poll, see `ready`.
    pub(crate) ready: [AtomicU64; READY_WORDS],
    spare_ready: [AtomicU64; 7],
}

const _: () = assert!(size_of::<RegionEntry>() == 64);
const _: () = assert!(offset_of!(Header, attention) == 64 && offset_of!(Header, wake) == 64 + 576);
const _: () = assert!(offset_of!(QpWords, busy) == 64 && offset_of!(QpWords, next_receive) == 128);
const _: () = assert!(offset_of!(QpWords, tell) == 192 && offset_of!(QpWords, waiting) == 256);
const _: () = assert!(offset_of!(QpWords, request) == 320 && offset_of!(QpWords, reply) == 384);
const _: () = assert!(size_of::<QpWords>() == 512);
const _: () = assert!(offset_of!(SrqWords, next_receive) == 64 && size_of::<SrqWords>() == 128);
const _: () = assert!(offset_of!(CqWords, ready) == 64 && size_of::<CqWords>() == 640);

// SAFETY: made of atomics only; every bit pattern is a value, and all access is atomic.
unsafe impl Shared for Header {}
// SAFETY: as above.
unsafe impl Shared for QpWords {}
// SAFETY: as above.
unsafe impl Shared for SrqWords {}
// SAFETY: as above.
unsafe impl Shared for CqWords {}
// SAFETY: as above.
unsafe impl Shared for RegionEntry {}
