//! The receive queue of one connected queue pair, shared by its owner and the one peer that sends to it.
//!
//! A slot is a *delivery* line, written by the sender and polled by the owner, followed by the *posting*, written by the owner
//! and read by the sender: a receive work request and its completion live side by side, so a queue can never overflow its
//! completions, and each cache line has one writer.
//!
//! ```text
//! word  0      delivered: running number of the receive + 1 (low half), bytes placed (high half)
//! word  1      immediate data (low), source QPN (high)
//! word  2      status | opcode << 8 | wc_flags << 16 (low), QPN that received (high; shared queues)
//! word  3      claim (shared queues)
//! word  4      running number of the message within its receiving QP (shared queues)
//! word  5      owner: number left out + 1 (shared queues)
//! word  8      posted: running number + 1 (low), number of SGEs (high)
//! word  9      spare, so that an SGE is never in two lines
//! word 10..    SGEs: address; length | lkey << 32
//! ```

use crate::sync::{AtomicU64, Ordering};
use tbrdma_proto::{Sge, WcFlags, WcOpcode, WcStatus};

/// Words of the delivery line.
const DELIVERY_WORDS: usize = 8;
const POSTED: usize = DELIVERY_WORDS;
const FIRST_SGE: usize = POSTED + 2;
/// Status word of a receive that was claimed and not used.
const GIVEN_BACK: u64 = 0xff;
/// Words in a cache line.
const LINE_WORDS: u32 = 8;

/// The shape of a ring: how many slots, how far apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ReceiveShape {
    /// Slots; a power of two.
    pub(crate) depth: u32,
    /// SGEs a posting can hold.
    pub(crate) max_sge: u32,
    /// Words from one slot to the next: whole cache lines.
    stride: u32,
}

impl ReceiveShape {
    /// The smallest ring that takes `max_wr` receives of `max_sge` SGEs.
    pub(crate) const fn new(max_wr: u32, max_sge: u32) -> Self {
        let depth = if max_wr == 0 { 1 } else { max_wr.next_power_of_two() };
        let max_sge = if max_sge == 0 { 1 } else { max_sge };
        let posting = 2 + 2 * max_sge;
        Self { depth, max_sge, stride: DELIVERY_WORDS as u32 + posting.next_multiple_of(LINE_WORDS) }
    }

    /// Bytes of the whole ring.
    pub(crate) const fn bytes(self) -> u64 {
        self.words() as u64 * 8
    }

    /// Words of the whole ring.
    pub(crate) const fn words(self) -> usize {
        self.stride as usize * self.depth as usize
    }
}

/// What a sender tells the receiver about one message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Delivery {
    /// How the receive ended.
    pub(crate) status: WcStatus,
    /// `Recv` or `RecvRdmaWithImm`.
    pub(crate) opcode: WcOpcode,
    /// Immediate present, GRH present.
    pub(crate) flags: WcFlags,
    /// Bytes of the message.
    pub(crate) byte_len: u32,
    /// Immediate data, host order.
    pub(crate) imm_data: u32,
    /// QPN of the sender.
    pub(crate) src_qp: u32,
}

/// A view of a ring's words with its shape. Cheap to copy; owner and sender make their own.
#[derive(Clone, Copy)]
pub(crate) struct ReceiveRing<'a> {
    words: &'a [AtomicU64],
    shape: ReceiveShape,
}

impl<'a> ReceiveRing<'a> {
    /// A view over the first `shape.words()` words, or nothing if there are fewer.
    #[inline]
    pub(crate) fn new(words: &'a [AtomicU64], shape: ReceiveShape) -> Option<Self> {
        let words = words.get(..shape.words())?;
        shape.depth.is_power_of_two().then_some(Self { words, shape })
    }

    /// The same over words that [`new`](Self::new) has accepted with this shape before: it does not ask again. (Were it not so, an access could
    /// panic, and still not leave the words.)
    #[inline(always)]
    pub(crate) fn again(words: &'a [AtomicU64], shape: ReceiveShape) -> Self {
        debug_assert!(Self::new(words, shape).is_some());
        Self { words, shape }
    }

    /// Slots.
    #[inline]
    pub(super) fn depth(&self) -> u32 {
        self.shape.depth
    }

    /// Where slot of receive `number` begins.
    #[inline(always)]
    fn at(&self, number: u32) -> usize {
        (number & (self.shape.depth - 1)) as usize * self.shape.stride as usize
    }

    #[inline]
    pub(super) fn slot(&self, number: u32) -> &'a [AtomicU64] {
        let at = self.at(number);
        &self.words[at..at + self.shape.stride as usize]
    }

    /// The words of a slot that every slot has.
    #[inline(always)]
    fn head(&self, number: u32) -> &'a [AtomicU64; FIRST_SGE + 2] {
        self.words[self.at(number)..].first_chunk().expect("a slot holds at least one SGE behind these")
    }

    /// Owner: makes receive `number` available. The caller has checked that the slot is free and `sges` fits.
    #[inline]
    pub(crate) fn post(&self, number: u32, sges: impl ExactSizeIterator<Item = Sge>) {
        let slot = self.slot(number);
        let count = sges.len() as u64;
        for (sge, pair) in sges.zip(slot[FIRST_SGE..].chunks_exact(2)) {
            pair[0].store(sge.addr, Ordering::Relaxed);
            pair[1].store(u64::from(sge.length) | u64::from(sge.lkey) << 32, Ordering::Relaxed);
        }
        slot[POSTED].store(u64::from(number.wrapping_add(1)) | count << 32, Ordering::Release);
    }

    /// Sender: receive `number`, if it has been posted.
    #[inline]
    pub(crate) fn posted(&self, number: u32) -> Option<Posting<'a>> {
        let slot = self.slot(number);
        let word = slot[POSTED].load(Ordering::Acquire);
        if word as u32 != number.wrapping_add(1) {
            return None;
        }
        let count = ((word >> 32) as usize).min(self.shape.max_sge as usize);
        Some(Posting { sges: &slot[FIRST_SGE..FIRST_SGE + 2 * count] })
    }

    /// Sender: the scatter list of receive `number`, if it has been posted with just one entry.
    #[inline(always)]
    pub(crate) fn posted_one(&self, number: u32) -> Option<Sge> {
        let slot = self.head(number);
        if slot[POSTED].load(Ordering::Acquire) != u64::from(number.wrapping_add(1)) | 1 << 32 {
            return None;
        }
        let word = slot[FIRST_SGE + 1].load(Ordering::Relaxed);
        Some(Sge {
            addr: slot[FIRST_SGE].load(Ordering::Relaxed),
            length: word as u32,
            lkey: (word >> 32) as u32,
        })
    }

    /// Sender: starts to fetch what it will need for receive `number`, so that a later send does not wait for it.
    #[inline]
    pub(crate) fn prefetch(&self, number: u32) {
        let slot = self.head(number);
        prefetch(&slot[POSTED]);
    }

    /// Owner: starts to fetch the posting of receive `number` for writing, while no sender looks at it.
    #[inline]
    pub(crate) fn prefetch_to_post(&self, number: u32) {
        prefetch_for_writing(&self.head(number)[POSTED]);
    }

    /// Sender: ends receive `number`; everything written before is visible to the owner once it sees this.
    #[inline(always)]
    pub(crate) fn deliver(&self, number: u32, delivery: &Delivery, receiver_qpn: u32) {
        let slot = self.head(number);
        slot[1].store(u64::from(delivery.imm_data) | u64::from(delivery.src_qp) << 32, Ordering::Relaxed);
        let kind = u64::from(delivery.status as u32)
            | u64::from(delivery.opcode as u32) << 8
            | u64::from(delivery.flags.bits()) << 16;
        slot[2].store(kind | u64::from(receiver_qpn) << 32, Ordering::Relaxed);
        let done = u64::from(number.wrapping_add(1)) | u64::from(delivery.byte_len) << 32;
        slot[0].store(done, Ordering::Release);
    }

    /// Sender: ends a claimed receive unused; the owner posts it again.
    pub(crate) fn give_back(&self, number: u32) {
        let slot = self.slot(number);
        slot[2].store(GIVEN_BACK, Ordering::Relaxed);
        slot[0].store(u64::from(number.wrapping_add(1)), Ordering::Release);
    }

    /// Owner: was this ended receive given back unused?
    pub(crate) fn is_given_back(&self, number: u32) -> bool {
        self.slot(number)[2].load(Ordering::Relaxed) == GIVEN_BACK
    }

    /// Owner, with no sender about: forgets every posting and delivery.
    pub(crate) fn clear(&self) {
        for slot in self.words.chunks_exact(self.shape.stride as usize) {
            for word in [0, 3, 5, POSTED] {
                slot[word].store(0, Ordering::Relaxed);
            }
        }
    }

    /// Owner: has receive `number` ended?
    #[inline]
    pub(crate) fn is_delivered(&self, number: u32) -> bool {
        self.head(number)[0].load(Ordering::Acquire) as u32 == number.wrapping_add(1)
    }

    /// Owner: how receive `number` ended, once it has. Values no sender of ours writes read as a fatal error.
    #[inline]
    pub(crate) fn delivered(&self, number: u32) -> Option<Delivery> {
        let slot = self.head(number);
        let done = slot[0].load(Ordering::Acquire);
        if done as u32 != number.wrapping_add(1) {
            return None;
        }
        let from = slot[1].load(Ordering::Relaxed);
        let kind = slot[2].load(Ordering::Relaxed);
        Some(Delivery {
            status: WcStatus::from_raw(kind as u32 & 0xff).unwrap_or(WcStatus::FatalErr),
            opcode: WcOpcode::from_raw((kind >> 8) as u32 & 0xff).unwrap_or(WcOpcode::Recv),
            flags: WcFlags::from_bits_truncate((kind >> 16) as u32 & 0xffff),
            byte_len: (done >> 32) as u32,
            imm_data: from as u32,
            src_qp: (from >> 32) as u32 & 0x00ff_ffff,
        })
    }

    /// Owner: which QP received the message in slot `number` (shared queues).
    #[inline]
    pub(crate) fn receiver(&self, number: u32) -> u32 {
        (self.slot(number)[2].load(Ordering::Relaxed) >> 32) as u32
    }
}

/// A posted receive as its sender reads it.
#[derive(Clone, Copy)]
pub(crate) struct Posting<'a> {
    sges: &'a [AtomicU64],
}

impl<'a> Posting<'a> {
    /// The only entry of the scatter list, if it has just one.
    #[inline]
    pub(crate) fn only(&self) -> Option<Sge> {
        let [addr, word] = self.sges else { return None };
        let (addr, word) = (addr.load(Ordering::Relaxed), word.load(Ordering::Relaxed));
        Some(Sge { addr, length: word as u32, lkey: (word >> 32) as u32 })
    }

    /// The scatter list.
    #[inline]
    pub(crate) fn sges(&self) -> impl Iterator<Item = Sge> + Clone + 'a {
        self.sges.chunks_exact(2).map(|pair| {
            let word = pair[1].load(Ordering::Relaxed);
            Sge { addr: pair[0].load(Ordering::Relaxed), length: word as u32, lkey: (word >> 32) as u32 }
        })
    }
}

/// Asks the processor for a line that will be written soon. A hint, too.
#[inline(always)]
fn prefetch_for_writing(word: &AtomicU64) {
    #[cfg(all(target_arch = "x86_64", not(loom)))]
    // SAFETY: prefetching has no effect that a program can see, whatever the address; processors without the instruction do nothing.
    unsafe {
        std::arch::asm!("prefetchw [{0}]", in(reg) std::ptr::from_ref(word), options(nostack, preserves_flags, readonly));
    }
    #[cfg(any(not(target_arch = "x86_64"), loom))]
    let _ = word;
}

/// Asks the processor for a line it will be read from soon. A hint: without it nothing changes but the time.
#[inline(always)]
fn prefetch(word: &AtomicU64) {
    #[cfg(all(target_arch = "x86_64", not(loom)))]
    // SAFETY: prefetching has no effect that a program can see, whatever the address.
    unsafe {
        std::arch::x86_64::_mm_prefetch::<{ std::arch::x86_64::_MM_HINT_T0 }>(
            std::ptr::from_ref(word).cast(),
        );
    }
    #[cfg(any(not(target_arch = "x86_64"), loom))]
    let _ = word;
}
