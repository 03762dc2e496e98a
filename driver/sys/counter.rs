//! The processor's own counter of time, for those who measure times of some tens of nanoseconds.

/// A counter that every core has and that runs at one speed, whatever the core's frequency and however deep it sleeps: the time stamp counter of
/// x86-64 processors that say so of themselves (CPUID leaf 0x8000_0007, bit 8 of EDX). Its unit is for the caller to find out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TickCounter(());

#[cfg(target_arch = "x86_64")]
impl TickCounter {
    /// The counter of this processor, if it has one that is invariant.
    pub fn invariant() -> Option<Self> {
        use core::arch::x86_64::__cpuid;
        const EXTENDED: u32 = 0x8000_0000;
        const POWER: u32 = 0x8000_0007;
        const INVARIANT: u32 = 1 << 8;
        let says = __cpuid(EXTENDED).eax >= POWER && __cpuid(POWER).edx & INVARIANT != 0;
        says.then_some(Self(()))
    }

    /// Reads it, after all that the program did before: no earlier load is still under way.
    #[inline(always)]
    pub fn read(self) -> u64 {
        use core::arch::x86_64::{_mm_lfence, _rdtsc};
        // SAFETY: a part of SSE2, which every x86-64 processor has; it touches nothing.
        unsafe { _mm_lfence() };
        // SAFETY: every x86-64 processor has the counter, and no Linux takes it from programs unless they ask for that (prctl PR_SET_TSC).
        unsafe { _rdtsc() }
    }
}

#[cfg(not(target_arch = "x86_64"))]
impl TickCounter {
    /// None is known of on this kind of processor.
    pub fn invariant() -> Option<Self> {
        None
    }

    /// Nothing: there is none to be read.
    #[inline(always)]
    pub fn read(self) -> u64 {
        0
    }
}

#[cfg(test)]
mod tests {
    use super::TickCounter;

    #[test]
    fn it_advances() {
        let Some(counter) = TickCounter::invariant() else { return };
        let first = counter.read();
        let start = std::time::Instant::now();
        while start.elapsed() < std::time::Duration::from_millis(1) {}
        // No processor counts slower than 100 MHz.
        assert!(counter.read() - first > 100_000);
    }
}
