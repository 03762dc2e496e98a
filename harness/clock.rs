//! The clock of every measurement: which one it is, what reading it costs, how fine it is, and whether it agrees with the system's.
//!
//! The processor's time stamp counter is the better clock where it is invariant: a read costs less than one of the system's clock, and what a read
//! costs is a part of every sample. It is used if the processor says that it is invariant *and* the kernel still lists it among its clock sources
//! (it strikes it off when its watchdog finds it wrong). Its speed is found out beside the system's clock before the run, and compared with that
//! again at the end. Nothing is ever subtracted from a sample: a report shows what a read costs.
//!
//! Where the device is in a simulated network, the clock is that network's, and time is virtual.

use std::hint::black_box;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use clap::ValueEnum;
use tbrdma::{Context as Device, TickCounter};

use crate::error::{Context, Result};

/// How long the counter's speed is measured before a run.
const CALIBRATION: Duration = Duration::from_millis(25);
/// Readings of both clocks of which the closest counts.
const TRIES: usize = 64;
/// Where the kernel lists the clocks it trusts.
const KERNELS: &str = "/sys/devices/system/clocksource/clocksource0/available_clocksource";

/// Which clock is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum Source {
    /// The processor's counter where it is invariant, the system's clock elsewhere
    #[default]
    Auto,
    /// The system's (CLOCK_MONOTONIC)
    Os,
}

/// A clock. Cheap to copy.
#[derive(Debug, Clone, Copy)]
pub struct Clock {
    counter: Option<TickCounter>,
    ns_per_tick: f64,
    /// Both clocks at the same moment, when the speed was found out.
    base: Moment,
    /// Why the counter is not used.
    why_not: Option<&'static str>,
}

/// A reading of a clock: worth something only beside another of the same clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Stamp(u64);

/// Both clocks, at moments at most so many ticks apart.
#[derive(Debug, Clone, Copy)]
struct Moment {
    ticks: u64,
    system: Instant,
}

impl Moment {
    fn now(counter: Option<TickCounter>) -> Self {
        let Some(counter) = counter else { return Self { ticks: 0, system: Instant::now() } };
        let look = |_| {
            let before = counter.read();
            let system = Instant::now();
            let after = counter.read();
            (after - before, Self { ticks: before + (after - before) / 2, system })
        };
        let closest = (0..TRIES).map(look).min_by_key(|(apart, _)| *apart);
        closest.map_or_else(|| Self { ticks: counter.read(), system: Instant::now() }, |(_, moment)| moment)
    }

    /// Nanoseconds that a tick took between two moments.
    fn ns_per_tick(self, later: Self) -> f64 {
        let ns = later.system.duration_since(self.system).as_nanos() as f64;
        ns / (later.ticks.saturating_sub(self.ticks)).max(1) as f64
    }
}

static CHOSEN: OnceLock<Clock> = OnceLock::new();

/// The simulated network whose time it is, by a device there, and the moment that its beginning is taken for.
static SIMULATED: OnceLock<(Device, Instant)> = OnceLock::new();

/// From now on this process measures in the time of the device's network, if that is a simulated one. To be said before a clock is chosen.
///
/// # Errors
/// No device of the network can be opened.
pub fn follow(device: &Device) -> Result<()> {
    if device.has_virtual_time() && !is_simulated() {
        // One of our own, which stays open until the process ends: the caller's is closed before, and its capture complete then.
        let name = device.name();
        let own = tbrdma::open(name).context(|| format!("open device {name} for its clock"))?;
        let _ = SIMULATED.set((own, Instant::now()));
    }
    Ok(())
}

/// Whether time is virtual.
#[must_use]
pub fn is_simulated() -> bool {
    SIMULATED.get().is_some()
}

/// This moment, of the system's clock or of virtual time: for whatever is no sample.
#[must_use]
pub fn now() -> Instant {
    match SIMULATED.get() {
        None => Instant::now(),
        Some((device, origin)) => *origin + device.raw_clock(),
    }
}

/// Lets so much time go on where that takes a call; elsewhere it does so by itself.
pub fn pass(time: Duration) {
    match SIMULATED.get() {
        None => std::hint::spin_loop(),
        Some((device, _)) => device.sleep(time),
    }
}

/// What `look` finds within this time, where it is virtual; `None` where it is not, and the caller waits by its own means.
pub fn wait_in_turn<T>(timeout: Duration, look: impl FnMut() -> Option<T>) -> Option<Option<T>> {
    SIMULATED.get().map(|(device, _)| device.wait_for(Some(timeout), look))
}

/// Chooses the clock of this process; the first choice holds.
pub fn choose(source: Source) -> Clock {
    *CHOSEN.get_or_init(|| Clock::of(source))
}

/// The clock of this process.
#[must_use]
pub fn chosen() -> Clock {
    choose(Source::Auto)
}

impl Clock {
    /// A clock of its own, whichever this process measures with.
    #[must_use]
    pub fn of(source: Source) -> Self {
        let kernels = std::fs::read_to_string(KERNELS).unwrap_or_default();
        let trusted = kernels.split_whitespace().any(|name| name == "tsc");
        let (counter, why_not) = match (source, TickCounter::invariant()) {
            _ if is_simulated() => (None, Some("time is virtual")),
            (Source::Os, _) => (None, Some("asked for by --clock os")),
            (Source::Auto, None) => (None, Some("the processor does not say that its counter is invariant")),
            (Source::Auto, Some(_)) if !trusted => {
                (None, Some("the kernel does not trust the processor's counter"))
            }
            (Source::Auto, Some(counter)) => (Some(counter), None),
        };
        let mut base = Moment::now(counter);
        if let Some((_, origin)) = SIMULATED.get() {
            base.system = *origin;
        }
        let ns_per_tick = match counter {
            Some(_) => {
                while base.system.elapsed() < CALIBRATION {
                    std::hint::spin_loop();
                }
                base.ns_per_tick(Moment::now(counter))
            }
            None => 1.0,
        };
        Self { counter, ns_per_tick, base, why_not }
    }

    /// Reads it.
    #[inline(always)]
    #[must_use]
    pub fn now(&self) -> Stamp {
        match self.counter {
            Some(counter) => Stamp(counter.read()),
            None => Stamp(now().saturating_duration_since(self.base.system).as_nanos() as u64),
        }
    }

    /// The time between two readings; none if they are the wrong way round.
    #[inline]
    #[must_use]
    pub fn between(&self, earlier: Stamp, later: Stamp) -> Duration {
        Duration::from_nanos((later.0.saturating_sub(earlier.0) as f64 * self.ns_per_tick) as u64)
    }

    /// What it will read so much later.
    #[inline]
    #[must_use]
    pub fn after(&self, stamp: Stamp, time: Duration) -> Stamp {
        Stamp(stamp.0 + (time.as_nanos() as f64 / self.ns_per_tick) as u64)
    }

    /// What it is called in reports.
    #[must_use]
    pub fn source(&self) -> &'static str {
        match self.counter {
            Some(_) => "TSC",
            None if is_simulated() => "virtual time of a simulated network",
            None => "CLOCK_MONOTONIC",
        }
    }

    /// Why the processor's counter is not used; `None` if it is.
    #[must_use]
    pub fn why_not_counter(&self) -> Option<&'static str> {
        self.why_not
    }

    /// Ticks of the counter a second; `None` if it is not used.
    #[must_use]
    pub fn frequency_hz(&self) -> Option<f64> {
        self.counter.map(|_| 1e9 / self.ns_per_tick)
    }

    /// By how many millionths its seconds are longer than the system's since it was chosen; `None` if it is the system's.
    #[must_use]
    pub fn drift_ppm(&self) -> Option<f64> {
        self.counter?;
        let since = self.base.ns_per_tick(Moment::now(self.counter));
        Some((self.ns_per_tick / since - 1.0) * 1e6)
    }

    /// Measures one read: the median over many short bursts of back-to-back reads, in nanoseconds.
    ///
    /// A sample is the difference of two reads, so it holds about one such read.
    #[must_use]
    pub fn overhead_ns(&self) -> f64 {
        if is_simulated() {
            // It stands still while it is read.
            return 0.0;
        }
        const BURSTS: usize = 201;
        const READS: u32 = 200;
        let mut bursts: Vec<f64> = (0..BURSTS)
            .map(|_| {
                let start = Instant::now();
                for _ in 0..READS {
                    black_box(self.now());
                }
                start.elapsed().as_nanos() as f64 / f64::from(READS)
            })
            .collect();
        bursts.sort_by(f64::total_cmp);
        bursts.get(BURSTS / 2).copied().unwrap_or_default()
    }

    /// The step in which it advances, in nanoseconds, as far as consecutive reads show it: the least distance between the intervals that are
    /// common among them. `None` if they show no step, as when the clock is finer than its own reading.
    #[must_use]
    pub fn step_ns(&self) -> Option<u64> {
        if is_simulated() {
            return Some(1);
        }
        const READS: usize = 20_000;
        let reads: Vec<Stamp> = (0..READS).map(|_| self.now()).collect();
        let intervals = reads.iter().zip(reads.iter().skip(1));
        step_of(intervals.map(|(a, b)| self.between(*a, *b).as_nanos() as u64))
    }
}

fn step_of(intervals: impl Iterator<Item = u64>) -> Option<u64> {
    let mut counts = std::collections::BTreeMap::<u64, usize>::new();
    let mut total = 0;
    for interval in intervals {
        *counts.entry(interval).or_default() += 1;
        total += 1;
    }
    let mut common: Vec<(u64, usize)> = Vec::new();
    for (interval, count) in counts.into_iter().filter(|(_, count)| count * 100 >= total) {
        match common.last_mut() {
            // Rounding to nanoseconds makes two of one.
            Some((last, most)) if interval - *last <= 1 => {
                if count > *most {
                    (*last, *most) = (interval, count);
                }
            }
            _ => common.push((interval, count)),
        }
    }
    common.iter().zip(common.iter().skip(1)).map(|((a, _), (b, _))| b - a).min()
}

#[cfg(test)]
mod tests {
    use super::{Clock, Source};
    use std::time::{Duration, Instant};

    #[test]
    fn the_step_is_seen_through_rounding_and_rare_interruptions() {
        let step = |counts: &[(u64, usize)]| {
            super::step_of(counts.iter().flat_map(|(interval, count)| std::iter::repeat_n(*interval, *count)))
        };
        assert_eq!(step(&[(20, 730), (21, 20), (30, 230), (31, 15), (1282, 3)]), Some(10));
        assert_eq!(step(&[(20, 1000)]), None);
        assert_eq!(step(&[]), None);
    }

    #[test]
    fn a_read_costs_something_but_not_much() {
        for source in [Source::Auto, Source::Os] {
            let cost = Clock::of(source).overhead_ns();
            assert!(cost > 0.0 && cost < 1e6, "{source:?}: {cost}");
        }
    }

    #[test]
    fn both_clocks_tell_the_same_time() {
        for source in [Source::Auto, Source::Os] {
            let clock = Clock::of(source);
            let (outer, first, inner) = (Instant::now(), clock.now(), Instant::now());
            while inner.elapsed() < Duration::from_millis(20) {}
            let (inside, last, around) = (inner.elapsed(), clock.now(), outer.elapsed());
            // The thread may lose its core between two reads, so the order of all is what is certain; but for the speed, which is measured.
            let told = clock.between(first, last);
            assert!(
                told >= inside.mul_f64(0.99) && told <= around.mul_f64(1.01),
                "{clock:?}: {inside:?} {told:?} {around:?}"
            );
            assert_eq!(clock.between(last, first), Duration::ZERO);
            let later = clock.after(first, Duration::from_millis(5));
            let told = clock.between(first, later).as_nanos();
            assert!((4_999_900..=5_000_100).contains(&told), "{told}");
            let drift = clock.drift_ppm();
            assert_eq!(drift.is_some(), clock.frequency_hz().is_some());
            assert!(drift.unwrap_or_default().abs() < 1e5, "{drift:?}");
            assert_eq!(clock.why_not_counter().is_some(), clock.source() == "CLOCK_MONOTONIC");
        }
    }
}
