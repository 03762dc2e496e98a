//! What the system did to a run meanwhile: so that a bad run is recognised as one.
//!
//! Everything is read before the warm-up and after the last message, never in between.

use std::fs::read_to_string;
use std::hint::black_box;
use std::time::Instant;

use serde::{Deserialize, Serialize};

/// One clock tick of the kernel's accounts.
const TICK_MS: u64 = 10;
/// How often the fixed piece of work is done; the fastest counts.
const TRIES: usize = 7;
/// Steps of the fixed piece of work: some tens of microseconds.
const STEPS: u64 = 40_000;

/// What happened to a thread.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tally {
    /// Context switches because it waited.
    pub voluntary: u64,
    /// Context switches because the scheduler took the core away.
    pub involuntary: u64,
    /// Page faults that the kernel answered from memory.
    #[serde(default)]
    pub minor_faults: u64,
    /// Page faults that waited for a disk.
    #[serde(default)]
    pub major_faults: u64,
}

impl Tally {
    /// Of the calling thread, so far.
    #[must_use]
    pub fn now() -> Self {
        let read = |name: &str| read_to_string(format!("/proc/thread-self/{name}")).unwrap_or_default();
        Self::parse(&read("status"), &read("stat"))
    }

    fn parse(status: &str, stat: &str) -> Self {
        let field = |name: &str| {
            status.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok()).unwrap_or_default()
        };
        // The program's name stands in parentheses and may hold anything; what follows begins with the third field.
        let after_name = stat.rsplit_once(") ").map_or("", |(_, rest)| rest);
        let number = |field: usize| {
            after_name.split(' ').nth(field - 3).and_then(|word| word.parse().ok()).unwrap_or_default()
        };
        Self {
            voluntary: field("voluntary_ctxt_switches:"),
            involuntary: field("nonvoluntary_ctxt_switches:"),
            minor_faults: number(10),
            major_faults: number(12),
        }
    }

    /// With what happened to another thread.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        Self {
            voluntary: self.voluntary + other.voluntary,
            involuntary: self.involuntary + other.involuntary,
            minor_faults: self.minor_faults + other.minor_faults,
            major_faults: self.major_faults + other.major_faults,
        }
    }

    /// Since an earlier reading.
    #[must_use]
    pub fn since(self, before: Self) -> Self {
        Self {
            voluntary: self.voluntary.saturating_sub(before.voluntary),
            involuntary: self.involuntary.saturating_sub(before.involuntary),
            minor_faults: self.minor_faults.saturating_sub(before.minor_faults),
            major_faults: self.major_faults.saturating_sub(before.major_faults),
        }
    }
}

/// Something before and after a run.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct BeforeAfter {
    /// Before the warm-up.
    pub before: f64,
    /// After the last message.
    pub after: f64,
}

impl BeforeAfter {
    /// How many times the one is the other.
    #[must_use]
    pub fn change(self) -> f64 {
        self.after / self.before
    }
}

/// What the system did during a run.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Interference {
    /// To the initiator's measuring thread, from the warm-up on.
    pub initiator: Tally,
    /// To the responder's.
    pub responder: Tally,
    /// Clock frequency of the initiator's core as the kernel tells it, in MHz; null where it does not.
    pub frequency_mhz: Option<BeforeAfter>,
    /// How long the initiator's core took for a fixed piece of work, in nanoseconds: what the frequency really was, also in virtual machines.
    pub fixed_work_ns: BeforeAfter,
}

/// A reading before a run.
#[derive(Debug, Clone)]
pub struct Reading {
    core: Option<usize>,
    tally: Tally,
    steal_ticks: u64,
    megahertz: Option<f64>,
    work_ns: f64,
}

impl Reading {
    /// Of the calling thread, on its core.
    #[must_use]
    pub fn now(core: Option<usize>) -> Self {
        let (megahertz, work_ns) = (megahertz(core), fixed_work_ns());
        Self { core, tally: Tally::now(), steal_ticks: steal_ticks(), megahertz, work_ns }
    }

    /// What was done since, and how many milliseconds the hypervisor took from all cores.
    #[must_use]
    pub fn until_now(self, responder: Tally) -> (Interference, u64) {
        let steal_ms = steal_ticks().saturating_sub(self.steal_ticks) * TICK_MS;
        let initiator = Tally::now().since(self.tally);
        let after = Self::now(self.core);
        let frequency_mhz =
            self.megahertz.zip(after.megahertz).map(|(before, after)| BeforeAfter { before, after });
        let fixed_work_ns = BeforeAfter { before: self.work_ns, after: after.work_ns };
        (Interference { initiator, responder, frequency_mhz, fixed_work_ns }, steal_ms)
    }
}

/// Time the hypervisor took from all cores of this host so far, in clock ticks (1/100 s).
fn steal_ticks() -> u64 {
    let text = read_to_string("/proc/stat").unwrap_or_default();
    text.lines().next().and_then(|line| line.split_whitespace().nth(8)?.parse().ok()).unwrap_or_default()
}

fn megahertz(core: Option<usize>) -> Option<f64> {
    let path = format!("/sys/devices/system/cpu/cpu{}/cpufreq/scaling_cur_freq", core?);
    read_to_string(path).ok()?.trim().parse::<f64>().ok().map(|kilohertz| kilohertz / 1e3)
}

/// The least time of some tries at the same chain of multiplications, each of which needs the one before: so many cycles, whatever else the
/// core could do beside them.
fn fixed_work_ns() -> f64 {
    let once = |_| {
        let start = Instant::now();
        let mut value = black_box(1_u64);
        for step in 0..STEPS {
            value = value.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(step);
        }
        black_box(value);
        start.elapsed().as_nanos() as f64
    };
    (0..TRIES).map(once).fold(f64::INFINITY, f64::min).max(1.0)
}

#[cfg(test)]
mod tests {
    use super::{Reading, STEPS, Tally, fixed_work_ns};

    #[test]
    fn switches_and_faults_are_not_confused() {
        let status = "Name:\tx\nvoluntary_ctxt_switches:\t5\nnonvoluntary_ctxt_switches:\t7\n";
        let stat = "12 (a) b (c) R 1 12 12 0 -1 4194304 101 102 103 104 0 0\n";
        let now = Tally::parse(status, stat);
        assert_eq!(now, Tally { voluntary: 5, involuntary: 7, minor_faults: 101, major_faults: 103 });
        let before = Tally { voluntary: 2, involuntary: 9, minor_faults: 1, major_faults: 0 };
        let since = Tally { voluntary: 3, involuntary: 0, minor_faults: 100, major_faults: 103 };
        assert_eq!(now.since(before), since);
        assert_eq!(Tally::parse("nonsense", "nonsense"), Tally::default());
    }

    #[test]
    fn memory_that_is_touched_is_counted() {
        let reading = Reading::now(None);
        let pages = vec![1_u8; 8 << 20];
        std::hint::black_box(&pages);
        let (interference, _) = reading.until_now(Tally::default());
        // Huge pages make few of many.
        assert!(interference.initiator.minor_faults >= 4, "{interference:?}");
    }

    #[test]
    fn the_fixed_work_is_not_optimised_away() {
        // A step is a multiplication and an addition after one another: no core does that in a third of a nanosecond.
        assert!(fixed_work_ns() > STEPS as f64 / 3.0);
    }
}
