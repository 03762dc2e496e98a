//! The system's monotonic clock as one number, which is read for every message.

use nix::time::{ClockId, clock_gettime};

/// Nanoseconds since a moment that is the system's to choose (`CLOCK_MONOTONIC`, `clock_gettime(2)`).
#[inline]
pub(crate) fn monotonic_nanos() -> u64 {
    // There is such a clock on every system.
    clock_gettime(ClockId::CLOCK_MONOTONIC)
        .map_or(0, |time| time.tv_sec() as u64 * 1_000_000_000 + time.tv_nsec() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::{Duration, Instant};

    #[test]
    fn it_goes_on_as_the_standard_librarys_does() {
        let (before, begun) = (monotonic_nanos(), Instant::now());
        std::thread::sleep(Duration::from_millis(2));
        let inner = begun.elapsed();
        let outer = Duration::from_nanos(monotonic_nanos() - before);
        assert!(
            outer >= inner && begun.elapsed() + Duration::from_secs(1) > outer,
            "{outer:?} and {inner:?}"
        );
    }
}
