//! The completions of one send queue, from whoever executes its work requests to whoever polls its completion queue.
//!
//! Private to a process. One side pushes (under the send queue's lock), one side pops (under the completion queue's lock); each
//! counts on a cache line of its own.

use crate::sync::{AtomicU32, AtomicU64, Ordering};
use tbrdma_proto::{WcOpcode, WcStatus};

/// How one send work request ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SendCompletion {
    /// The caller's identifier.
    pub(crate) wr_id: u64,
    /// How it ended.
    pub(crate) status: WcStatus,
    /// What it was.
    pub(crate) opcode: WcOpcode,
    /// Bytes transferred.
    pub(crate) byte_len: u32,
    /// Running number in the send queue; popping it retires this and all earlier work requests.
    pub(crate) wq_index: u32,
}

/// A ring of at least `capacity` completions.
pub(crate) struct CompletionRing {
    entries: Box<[Entry]>,
    /// Number of the next completion to push; written by the pushing side.
    tail: Line<AtomicU32>,
    /// Number of the next completion to pop; the popping side's own.
    head: Line<AtomicU32>,
}

struct Entry {
    wr_id: AtomicU64,
    /// byte_len | status << 32 | opcode << 40.
    kind: AtomicU64,
    /// Running number of the work request.
    number: AtomicU32,
}

/// A cache line that is shared with nothing else.
#[repr(align(64))]
struct Line<T>(T);

impl CompletionRing {
    /// An empty ring.
    pub(crate) fn new(capacity: u32) -> Self {
        let depth = capacity.max(1).next_power_of_two() as usize;
        Self {
            entries: (0..depth)
                .map(|_| Entry {
                    wr_id: AtomicU64::new(0),
                    kind: AtomicU64::new(0),
                    number: AtomicU32::new(0),
                })
                .collect(),
            tail: Line(AtomicU32::new(0)),
            head: Line(AtomicU32::new(0)),
        }
    }

    #[inline(always)]
    fn entry(&self, number: u32) -> &Entry {
        &self.entries[number as usize & (self.entries.len() - 1)]
    }

    /// Adds a completion. The send queue's depth keeps the ring from overflowing: a work request holds its place until its
    /// completion, or a later one, has been popped.
    #[inline]
    pub(crate) fn push(&self, completion: &SendCompletion) {
        let tail = self.tail.0.load(Ordering::Relaxed);
        let entry = self.entry(tail);
        let kind = u64::from(completion.byte_len)
            | u64::from(completion.status as u32) << 32
            | u64::from(completion.opcode as u32) << 40;
        entry.wr_id.store(completion.wr_id, Ordering::Relaxed);
        entry.kind.store(kind, Ordering::Relaxed);
        entry.number.store(completion.wq_index, Ordering::Relaxed);
        self.tail.0.store(tail.wrapping_add(1), Ordering::Release);
    }

    /// Is there none? For the popping side.
    #[inline(always)]
    pub(crate) fn is_empty(&self) -> bool {
        self.tail.0.load(Ordering::Acquire) == self.head.0.load(Ordering::Relaxed)
    }

    /// How many there are. For the popping side.
    pub(crate) fn len(&self) -> u32 {
        self.tail.0.load(Ordering::Acquire).wrapping_sub(self.head.0.load(Ordering::Relaxed))
    }

    /// Takes the oldest completion.
    #[inline]
    pub(crate) fn pop(&self) -> Option<SendCompletion> {
        let head = self.head.0.load(Ordering::Relaxed);
        if self.tail.0.load(Ordering::Acquire) == head {
            return None;
        }
        let entry = self.entry(head);
        let kind = entry.kind.load(Ordering::Relaxed);
        let completion = SendCompletion {
            wr_id: entry.wr_id.load(Ordering::Relaxed),
            status: WcStatus::from_raw((kind >> 32) as u32 & 0xff).unwrap_or(WcStatus::FatalErr),
            opcode: WcOpcode::from_raw((kind >> 40) as u32 & 0xff).unwrap_or(WcOpcode::Send),
            byte_len: kind as u32,
            wq_index: entry.number.load(Ordering::Relaxed),
        };
        self.head.0.store(head.wrapping_add(1), Ordering::Relaxed);
        Some(completion)
    }
}
