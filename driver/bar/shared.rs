//! A window in memory that a device shares between its users: its first half is written to side A, the second to side B.
//!
//! Nobody outside says who is which. So each half has a claim, a number of who has it and a count that goes on for as long as that lives; who opens takes the
//! first half whose claim is free, or whose count stands still. That is the only time that a side reads what is not its own half. A claimant that finds
//! somebody else's number in its place was taken for dead, and is.

use super::slot::Slot;
use super::window::{Gone, Life, Window, Words};
use crate::error::{Error, Result};
use crate::mem::Place;
use crate::ring::arm::publish_fence;
use crate::sync::{AtomicBool, AtomicU32, AtomicU64, Ordering, fence};
use std::io;
use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tbrdma_proto::bar_link::{BEAT, CLAIM, Geometry, WORD};

/// A claim whose count stands still for so long is nobody's.
const STANDS_STILL: Duration = Duration::from_secs(1);
/// How often that is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(10);
/// Halves begin on pages.
const PAGE: usize = crate::mem::PAGE as usize;

/// A half of a device's memory, and the other half.
#[derive(Debug)]
pub(crate) struct SharedWindow {
    slot: Arc<dyn Slot>,
    /// Where the halves begin: ours, the peer's.
    inbound: usize,
    outbound: usize,
    half: usize,
    /// What our claim says.
    claim: u64,
    beat: AtomicU64,
    /// Somebody else has our half.
    is_ousted: AtomicBool,
    /// The peer's doorbell, once it was rung.
    peer: AtomicU32,
}

impl SharedWindow {
    /// The bytes that a device's memory must have.
    pub(crate) const fn least_bytes() -> u64 {
        2 * Geometry::smallest_area().next_multiple_of(PAGE) as u64
    }

    /// Takes a side of an open device, as `claim`, a number that nobody else has, not 0.
    ///
    /// # Errors
    /// Both sides are taken, by somebody who lives.
    pub(crate) fn claim(slot: Arc<dyn Slot>, claim: u64) -> Result<Self> {
        let half = slot.memory().len() / 2 / PAGE * PAGE;
        let begun = Instant::now();
        let mut seen = [None; 2];
        loop {
            for (side, seen) in seen.iter_mut().enumerate() {
                let memory = slot.memory();
                let words = [CLAIM, BEAT].map(|offset| word(memory, side * half + offset));
                let [Some(owner), Some(beat)] = words else { break };
                let found = (owner.load(Ordering::Acquire), beat.load(Ordering::Acquire));
                let is_still = begun.elapsed() >= STANDS_STILL && *seen == Some(found);
                if (found.0 == 0 || is_still)
                    && owner.compare_exchange(found.0, claim, Ordering::AcqRel, Ordering::Relaxed).is_ok()
                {
                    return Ok(Self::of(
                        Arc::clone(&slot),
                        [side, 1 - side].map(|side| side * half),
                        half,
                        claim,
                    ));
                }
                if begun.elapsed() < STANDS_STILL / 2 {
                    *seen = Some(found);
                }
            }
            if begun.elapsed() > 2 * STANDS_STILL {
                let reason = format!(
                    "{}: both sides of its memory are taken by programs that live; end one of them",
                    slot.describe()
                );
                return Err(Error::Busy { call: "open_device", reason });
            }
            std::thread::sleep(LOOK_EVERY);
        }
    }

    fn of(slot: Arc<dyn Slot>, [inbound, outbound]: [usize; 2], half: usize, claim: u64) -> Self {
        let (is_ousted, peer, beat) = (AtomicBool::new(false), AtomicU32::new(u32::MAX), AtomicU64::new(0));
        Self { slot, inbound, outbound, half, claim, beat, is_ousted, peer }
    }

    #[inline(always)]
    fn inside(&self, half: usize, offset: usize, len: usize) -> Option<Place<'_>> {
        let end = offset.checked_add(len)?;
        (end <= self.half).then(|| self.slot.memory().sub(half + offset, len)).flatten()
    }

    #[inline(always)]
    fn word(&self, half: usize, offset: usize) -> Option<&AtomicU64> {
        self.inside(half, offset, WORD)?.atomic_u64()
    }

    /// Says that we live, and finds out whether we were believed.
    fn keep_claim(&self) {
        let ours = |offset| self.word(self.inbound, offset);
        let (Some(owner), Some(beat)) = (ours(CLAIM), ours(BEAT)) else { return };
        beat.store(self.beat.fetch_add(1, Ordering::Relaxed) + 1, Ordering::Release);
        if owner.load(Ordering::Acquire) != self.claim {
            self.is_ousted.store(true, Ordering::Relaxed);
        }
    }
}

fn word(memory: Place<'_>, offset: usize) -> Option<&AtomicU64> {
    memory.sub(offset, WORD)?.atomic_u64()
}

/// Has buffers that combine writes leave before anything else does.
#[inline(always)]
fn fence_stores() {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: it puts stores in order and does nothing else; every processor of this architecture has it.
    unsafe {
        std::arch::x86_64::_mm_sfence();
    }
    #[cfg(target_arch = "aarch64")]
    // SAFETY: it puts stores in order and does nothing else.
    unsafe {
        std::arch::asm!("dsb st", options(nostack, preserves_flags));
    }
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    fence(Ordering::SeqCst);
}

impl Words for SharedWindow {
    #[inline]
    fn store(&self, offset: usize, value: u64) {
        if let Some(word) = self.word(self.outbound, offset) {
            word.store(value, Ordering::Relaxed);
        }
    }

    #[inline]
    fn order(&self) {
        if self.slot.is_write_combining() { fence_stores() } else { fence(Ordering::Release) }
    }

    #[inline]
    fn flush(&self) {
        if self.slot.is_write_combining() {
            fence_stores();
        }
    }

    #[inline]
    fn load(&self, offset: usize) -> u64 {
        self.word(self.inbound, offset).map_or(u64::MAX, |word| word.load(Ordering::Acquire))
    }

    fn reset(&self, offset: usize, value: u64) {
        if let Some(word) = self.word(self.inbound, offset) {
            word.store(value, Ordering::Relaxed);
        }
    }

    #[inline]
    fn meets(&self) -> bool {
        publish_fence();
        true
    }
}

impl Window for SharedWindow {
    fn describe(&self) -> String {
        let side = if self.inbound == 0 { 'A' } else { 'B' };
        format!("side {side} of {}", self.slot.describe())
    }

    fn outbound_bytes(&self) -> usize {
        self.half
    }

    fn inbound_bytes(&self) -> usize {
        self.half
    }

    #[inline]
    fn write(&self, offset: usize, bytes: &[u8]) {
        if let Some(place) = self.inside(self.outbound, offset, bytes.len()) {
            place.write_from(bytes);
        }
    }

    #[inline]
    fn read(&self, offset: usize, bytes: &mut [u8]) {
        if let Some(place) = self.inside(self.inbound, offset, bytes.len()) {
            place.read_into(bytes);
        }
    }

    fn doorbell(&self) -> Option<u16> {
        self.slot.own_id()
    }

    fn ring(&self, doorbell: u16) -> io::Result<()> {
        self.peer.store(doorbell.into(), Ordering::Relaxed);
        self.slot.ring(doorbell);
        Ok(())
    }

    fn interrupt(&self) -> Option<BorrowedFd<'_>> {
        self.slot.interrupt()
    }

    fn quiet(&self) {
        self.slot.drain();
    }

    fn news(&self) -> Option<BorrowedFd<'_>> {
        self.slot.news()
    }

    fn attend(&self) {
        self.slot.attend();
        if self.gone().is_none() {
            self.keep_claim();
        }
    }

    fn peer(&self) -> Life {
        let doorbell = u16::try_from(self.peer.load(Ordering::Relaxed));
        if doorbell.is_ok_and(|doorbell| self.slot.has_left(doorbell)) { Life::Dead } else { Life::Unknown }
    }

    #[inline]
    fn gone(&self) -> Option<Gone> {
        let ousted = || self.is_ousted.load(Ordering::Relaxed).then_some(Gone::Ousted);
        self.slot.gone().map(Gone::Device).or_else(ousted)
    }

    fn probe(&self) -> Option<Gone> {
        self.slot.probe().map(Gone::Device).or_else(|| self.gone())
    }
}

impl Drop for SharedWindow {
    fn drop(&mut self) {
        if self.gone().is_none()
            && let Some(owner) = self.word(self.inbound, CLAIM)
        {
            // If it is somebody else's by now, it stays that.
            let _ = owner.compare_exchange(self.claim, 0, Ordering::AcqRel, Ordering::Relaxed);
        }
    }
}
