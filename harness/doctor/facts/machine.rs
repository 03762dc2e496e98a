//! The machine, as far as it changes what is measured on it.

use crate::doctor::host::Host;

const CPUS: &str = "/sys/devices/system/cpu";

/// What is known of the machine.
#[derive(Debug, Clone, Default)]
pub struct Machine {
    /// The processor's own name.
    pub model: Option<String>,
    /// Cores that run, as a list of ranges.
    pub online: Option<String>,
    /// Cores that this process may use, likewise.
    pub allowed: Option<String>,
    /// Do two hardware threads share a core?
    pub smt: Option<bool>,
    /// The clock that the kernel chose.
    pub clocksource: Option<String>,
    /// Does the time stamp counter run at one speed in all states of the processor? Only of x86.
    pub invariant_tsc: Option<bool>,
    /// Is there a hypervisor beneath?
    pub virtual_machine: bool,
    /// The rule for the clock frequency of the first core.
    pub governor: Option<String>,
    /// Huge pages: size, how many there are, how many are free.
    pub huge_pages: Vec<HugePages>,
}

/// Huge pages of one size.
#[derive(Debug, Clone)]
pub struct HugePages {
    /// The folder that says so.
    pub folder: String,
    /// How many are set aside.
    pub total: u64,
    /// How many of these nobody uses.
    pub free: u64,
}

/// Looks at it.
pub(super) fn gather(host: &dyn Host) -> Machine {
    let info = host.lines_with("/proc/cpuinfo", &["model name", "flags\t"]);
    let field = |name: &str| {
        let (_, value) = info.iter().find(|line| line.starts_with(name))?.split_once(':')?;
        Some(value.trim().to_owned())
    };
    let flags = field("flags");
    let has = |flag: &str| flags.as_deref().is_some_and(|flags| flags.split(' ').any(|word| word == flag));
    let status = host.lines_with("/proc/self/status", &["Cpus_allowed_list:"]);
    let allowed = status.iter().find_map(|line| line.strip_prefix("Cpus_allowed_list:"));
    let sizes = host.list("/sys/kernel/mm/hugepages", "hugepages-").into_iter();
    Machine {
        model: field("model name"),
        online: host.line(&format!("{CPUS}/online")),
        allowed: allowed.map(|list| list.trim().to_owned()),
        smt: host.line(&format!("{CPUS}/smt/active")).map(|line| line == "1"),
        clocksource: host.line("/sys/devices/system/clocksource/clocksource0/current_clocksource"),
        invariant_tsc: flags.is_some().then(|| has("constant_tsc") && has("nonstop_tsc")),
        virtual_machine: has("hypervisor"),
        governor: host.line(&format!("{CPUS}/cpu0/cpufreq/scaling_governor")),
        huge_pages: sizes.filter_map(|size| huge_pages(host, &size)).collect(),
    }
}

fn huge_pages(host: &dyn Host, size: &str) -> Option<HugePages> {
    let folder = format!("/sys/kernel/mm/hugepages/{size}");
    let number = |name: &str| host.line(&format!("{folder}/{name}"))?.parse().ok();
    Some(HugePages { total: number("nr_hugepages")?, free: number("free_hugepages")?, folder })
}
