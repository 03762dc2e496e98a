//! Who must be woken: the one-word agreements between a side that publishes and a side that may be asleep or not looking.
//!
//! All are the same dance. The publisher makes its work visible, fences, and reads the word; the other side writes the word,
//! fences, and looks for work once more. Whatever the order, one of them sees the other.

use crate::sync::{AtomicU64, Ordering, fence};

/// Armed for nothing: the publisher need not wake anyone.
const DISARMED: u64 = 0;
/// Armed for the next completion.
const NEXT: u64 = 1;
/// Armed for the next solicited completion or error.
const SOLICITED: u64 = 2;
/// How often the word may change under a publisher before it stops looking which wish it uses up.
const FIRE_TRIES: u32 = 4;

/// A completion queue's notification request, one-shot: `ibv_req_notify_cq`.
#[derive(Clone, Copy)]
pub(crate) struct Arm<'a>(pub(crate) &'a AtomicU64);

impl Arm<'_> {
    /// Owner: asks to be woken by the next completion (or the next solicited one). Poll once more after this.
    pub(crate) fn arm(&self, solicited_only: bool) {
        // A request for any completion is not narrowed by a later one for solicited completions.
        if solicited_only {
            let _ = self.0.compare_exchange(DISARMED, SOLICITED, Ordering::AcqRel, Ordering::Relaxed);
        } else {
            self.0.store(NEXT, Ordering::Release);
        }
        fence(Ordering::SeqCst);
    }

    /// Publisher: after publishing and [`publish_fence`], is there any wish to be woken?
    #[inline(always)]
    pub(crate) fn is_armed(&self) -> bool {
        self.0.load(Ordering::Relaxed) != DISARMED
    }

    /// Publisher: after publishing and [`publish_fence`], must the owner be woken? True for one publisher only.
    pub(crate) fn fire(&self, solicited_or_error: bool) -> bool {
        let mut armed = self.0.load(Ordering::Relaxed);
        for _ in 0..FIRE_TRIES {
            if armed == DISARMED || (armed == SOLICITED && !solicited_or_error) {
                return false;
            }
            // Only the wish that was seen is used up: meanwhile the owner may have been woken, and wish for something else.
            match self.0.compare_exchange(armed, DISARMED, Ordering::AcqRel, Ordering::Relaxed) {
                Ok(_) => return true,
                Err(now) => armed = now,
            }
        }
        // A word that never rests: one event too many does no harm.
        self.0.swap(DISARMED, Ordering::AcqRel) != DISARMED
    }
}

/// The fence between publishing and asking whether anyone must be told.
#[inline(always)]
pub(crate) fn publish_fence() {
    #[cfg(all(target_arch = "x86_64", not(loom)))]
    // SAFETY: adds nothing to the top word of the stack. A locked instruction is a full barrier for ordinary memory, as `mfence` is, and takes
    // half the time; the compiler moves no memory access across the block.
    unsafe {
        std::arch::asm!("lock or dword ptr [rsp], 0", options(nostack));
    }
    #[cfg(any(not(target_arch = "x86_64"), loom))]
    fence(Ordering::SeqCst);
}

/// A word by which the looking side says "tell me, I am number N" or "I am looking anyway" (zero).
#[derive(Clone, Copy)]
pub(crate) struct TellMe<'a>(pub(crate) &'a AtomicU64);

impl TellMe<'_> {
    /// Looking side: from now on publishers must tell, naming `number`. Look once more after this.
    pub(crate) fn set(&self, number: u32) {
        self.0.store(u64::from(number) + 1, Ordering::Release);
        fence(Ordering::SeqCst);
    }

    /// Looking side: publishers need not tell any more.
    pub(crate) fn clear(&self) {
        self.0.store(0, Ordering::Release);
    }

    /// Publisher: after publishing and [`publish_fence`], the number under which the other side must be told, if it must.
    #[inline]
    pub(crate) fn wanted(&self) -> Option<u32> {
        (self.0.load(Ordering::Relaxed) as u32).checked_sub(1)
    }

    /// Publisher: like [`wanted`](Self::wanted), and takes the wish back, so that one publisher tells once.
    #[inline]
    pub(crate) fn take(&self) -> bool {
        self.wanted().is_some() && self.0.swap(0, Ordering::AcqRel) != 0
    }
}
