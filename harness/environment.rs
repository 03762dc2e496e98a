//! Where a run took place, and what the system did to it meanwhile.

use std::fs::read_to_string;

use serde::{Deserialize, Serialize};

use crate::affinity;
use crate::clock;
use crate::interference::Interference;

/// What tells one host, and one view of its processes, from another.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Host {
    /// The kernel's random name for this boot.
    pub boot_id: String,
    /// The process namespace, so that a process number means the same on both sides.
    pub pid_namespace: String,
}

impl Host {
    /// Where this process runs.
    #[must_use]
    pub fn ours() -> Self {
        Self {
            boot_id: first_line("/proc/sys/kernel/random/boot_id").unwrap_or_default(),
            pid_namespace: std::fs::read_link("/proc/self/ns/pid")
                .map(|link| link.to_string_lossy().into_owned())
                .unwrap_or_default(),
        }
    }

    /// Do both run on one host and see each other's processes?
    #[must_use]
    pub fn is_same(&self, other: &Self) -> bool {
        !self.boot_id.is_empty() && self == other
    }
}

/// The environment of a result.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Environment {
    /// The processor's own name.
    pub cpu_model: String,
    /// `x86_64`, `aarch64`.
    pub architecture: String,
    /// Cores which the initiator may use, as a list of runs.
    pub cores_allowed: String,
    /// The cores the two sides were pinned to.
    pub pinned: Pinned,
    /// Name and release of the kernel.
    pub kernel: String,
    /// Is there a hypervisor underneath?
    pub virtual_machine: bool,
    /// The kernel's rule for the clock frequency of the initiator's core, where it says.
    pub governor: Option<String>,
    /// The clock, what a read of it costs in nanoseconds, and the hardware behind it.
    pub clock: ClockReport,
    /// Load average of the last minute when the run began.
    pub load_average: Option<f64>,
    /// Context switches that the scheduler forced on the measuring threads.
    pub involuntary_context_switches: BothSides,
    /// Time the hypervisor took from this host during the run, in milliseconds.
    pub steal_ms: u64,
    /// What else the system did meanwhile.
    pub interference: Option<Interference>,
    /// Release of the harness.
    pub release: String,
    /// Was the harness built with optimisation?
    pub optimised: bool,
    /// Seconds since 1970 when the run began.
    pub unix_time_s: u64,
}

/// One value of each side of a run.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BothSides {
    /// The side that measures.
    pub initiator: u64,
    /// The side that answers.
    pub responder: u64,
}

/// The core of each side, where it was pinned.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pinned {
    /// The side that measures.
    pub initiator: Option<usize>,
    /// The side that answers.
    pub responder: Option<usize>,
}

/// The clock of a result.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ClockReport {
    /// What it is called.
    pub source: String,
    /// The hardware behind it, as the kernel names it.
    pub hardware: Option<String>,
    /// Cost of reading it once; each sample holds about one read, and nothing was subtracted.
    pub overhead_ns: f64,
    /// The step in which it advances, where consecutive reads show one: no sample is finer.
    pub step_ns: Option<u64>,
    /// Ticks of the processor's counter a second, beside the system's clock before the run; null where that is not used.
    pub frequency_hz: Option<f64>,
    /// By how many millionths its seconds are longer than those of the system's clock, over the whole run.
    pub drift_ppm: Option<f64>,
    /// Why the processor's counter is not used.
    pub why_not_tsc: Option<String>,
}

impl Environment {
    /// What can be told before the run; the rest is filled in afterwards.
    #[must_use]
    pub fn survey(pinned: Option<usize>, allowed: &[usize]) -> Self {
        let cpuinfo = read_to_string("/proc/cpuinfo").unwrap_or_default();
        let core = pinned.unwrap_or(0);
        let clock = clock::chosen();
        Self {
            cpu_model: cpuinfo_field(&cpuinfo, "model name").unwrap_or_else(|| "unknown".into()),
            architecture: std::env::consts::ARCH.into(),
            cores_allowed: affinity::listed(allowed),
            pinned: Pinned { initiator: pinned, responder: None },
            kernel: kernel(),
            virtual_machine: cpuinfo_field(&cpuinfo, "flags")
                .is_some_and(|flags| flags.split(' ').any(|flag| flag == "hypervisor")),
            governor: first_line(&format!("/sys/devices/system/cpu/cpu{core}/cpufreq/scaling_governor")),
            clock: ClockReport {
                source: clock.source().into(),
                hardware: (!clock::is_simulated())
                    .then(|| first_line("/sys/devices/system/clocksource/clocksource0/current_clocksource"))
                    .flatten(),
                overhead_ns: clock.overhead_ns(),
                step_ns: clock.step_ns(),
                frequency_hz: clock.frequency_hz(),
                drift_ppm: None,
                why_not_tsc: clock.why_not_counter().map(str::to_owned),
            },
            load_average: first_line("/proc/loadavg").and_then(|line| line.split(' ').next()?.parse().ok()),
            involuntary_context_switches: BothSides::default(),
            steal_ms: 0,
            interference: None,
            release: env!("CARGO_PKG_VERSION").into(),
            optimised: !cfg!(debug_assertions),
            unix_time_s: std::time::SystemTime::now()
                .duration_since(std::time::UNIX_EPOCH)
                .map_or(0, |since| since.as_secs()),
        }
    }
}

fn kernel() -> String {
    match nix::sys::utsname::uname() {
        Ok(name) => format!("{} {}", name.sysname().to_string_lossy(), name.release().to_string_lossy()),
        Err(_) => std::env::consts::OS.into(),
    }
}

fn cpuinfo_field(cpuinfo: &str, name: &str) -> Option<String> {
    cpuinfo.lines().find_map(|line| {
        let (key, value) = line.split_once(':')?;
        (key.trim() == name).then(|| value.trim().to_owned())
    })
}

fn first_line(path: &str) -> Option<String> {
    let text = read_to_string(path).ok()?;
    text.lines().next().map(|line| line.trim().to_owned()).filter(|line| !line.is_empty())
}

#[cfg(test)]
mod tests {
    use super::{Host, cpuinfo_field};

    #[test]
    fn fields_of_cpuinfo_are_found() {
        let text = "processor\t: 0\nmodel name\t: Some CPU @ 2: 5\n";
        assert_eq!(cpuinfo_field(text, "model name").as_deref(), Some("Some CPU @ 2: 5"));
        assert_eq!(cpuinfo_field(text, "flags"), None);
    }

    #[test]
    fn a_host_that_says_nothing_is_no_one_elses() {
        assert!(!Host::default().is_same(&Host::default()));
        assert!(Host::ours().is_same(&Host::ours()));
    }
}
