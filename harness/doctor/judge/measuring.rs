//! What makes figures of this machine better or worse.

use crate::doctor::facts::machine::Machine;
use crate::doctor::finding::Finding;

const CPU: &str = "/sys/devices/system/cpu";

/// What is to be said of the machine as a place to measure on.
pub(super) fn judge(machine: &Machine, findings: &mut Vec<Finding>) {
    findings.extend(cores(machine));
    findings.extend(threads(machine));
    findings.extend(clock(machine));
    findings.extend(governor(machine));
    if machine.virtual_machine {
        findings.push(
            Finding::note("measuring.virtual", "this is a virtual machine")
                .seen("/proc/cpuinfo", "flags has hypervisor")
                .why("its cores are taken away at times (steal), and may move: compare figures of one run only"),
        );
    }
    findings.extend(huge_pages(machine));
}

fn cores(machine: &Machine) -> Option<Finding> {
    const ID: &str = "measuring.cores";
    let allowed = machine.allowed.as_deref()?;
    let seen = |finding: Finding| {
        let finding = finding.seen("/proc/self/status", format!("Cpus_allowed_list: {allowed}"));
        match &machine.model {
            Some(model) => finding.seen("/proc/cpuinfo", model),
            None => finding,
        }
    };
    match count(allowed) {
        1 => Some(
            seen(Finding::note(ID, "one core is allowed"))
                .why("two sides on one core take turns, which says nothing of a link")
                .remedy("allow a second one: taskset, --cpuset-cpus, or a larger machine"),
        ),
        count => Some(seen(Finding::ok(ID, format!("{count} cores are allowed: {allowed}")))),
    }
}

fn threads(machine: &Machine) -> Option<Finding> {
    const ID: &str = "measuring.smt";
    let file = format!("{CPU}/smt/active");
    Some(match machine.smt? {
        false => Finding::ok(ID, "each core has one hardware thread").seen(file, "0"),
        true => Finding::note(ID, "two hardware threads share each core")
            .seen(file, "1")
            .why("two sides on one core slow each other down, and are nearer than on two")
            .remedy(format!(
                "choose cores with --pin; {CPU}/cpu0/topology/thread_siblings_list says who shares one"
            )),
    })
}

fn clock(machine: &Machine) -> Option<Finding> {
    const ID: &str = "measuring.clock";
    const FILE: &str = "/sys/devices/system/clocksource/clocksource0/current_clocksource";
    let source = machine.clocksource.as_deref()?;
    let seen = |finding: Finding| match machine.invariant_tsc {
        Some(true) => {
            finding.seen(FILE, source).seen("/proc/cpuinfo", "flags has constant_tsc and nonstop_tsc")
        }
        Some(false) => {
            finding.seen(FILE, source).seen("/proc/cpuinfo", "flags lacks constant_tsc or nonstop_tsc")
        }
        None => finding.seen(FILE, source),
    };
    Some(match source {
        "tsc" | "arch_sys_counter" | "kvm-clock" | "hyperv_clocksource_tsc_page" => {
            seen(Finding::ok(ID, format!("the clock is read without a system call ({source})")))
        }
        _ => seen(Finding::note(ID, format!("the clock is slow to read ({source})")))
            .why("a read is a system call or an access to a device, up to microseconds, and stands in each sample")
            .remedy("boot with tsc=reliable if the processor's counter is; dmesg says why the kernel left it"),
    })
}

fn governor(machine: &Machine) -> Option<Finding> {
    const ID: &str = "measuring.governor";
    let file = format!("{CPU}/cpu0/cpufreq/scaling_governor");
    let governor = machine.governor.as_deref()?;
    Some(match governor {
        "performance" => Finding::ok(ID, "cores keep their highest frequency").seen(file, governor),
        _ => Finding::note(ID, format!("cores change their frequency as the kernel sees fit ({governor})"))
            .seen(file, governor)
            .why("the first messages after a pause are slow, and runs differ")
            .remedy("sudo cpupower frequency-set -g performance, while measuring"),
    })
}

fn huge_pages(machine: &Machine) -> Option<Finding> {
    let pages = machine.huge_pages.iter().find(|pages| pages.total > 0)?;
    let size = pages.folder.rsplit('-').next().unwrap_or_default();
    let title = format!("{} huge pages of {size} are set aside, {} free", pages.total, pages.free);
    Some(
        Finding::ok("measuring.huge_pages", title)
            .seen(format!("{}/nr_hugepages", pages.folder), pages.total.to_string()),
    )
}

/// How many a list of ranges has: `0-3,8`.
fn count(list: &str) -> usize {
    let length = |range: &str| match range.split_once('-') {
        Some((first, last)) => match (first.parse::<usize>(), last.parse::<usize>()) {
            (Ok(first), Ok(last)) if last >= first => last - first + 1,
            _ => 0,
        },
        None => usize::from(range.parse::<usize>().is_ok()),
    };
    list.split(',').map(length).sum()
}

#[cfg(test)]
mod tests {
    #[test]
    fn lists_of_cores_are_counted() {
        assert_eq!(["0-3,8", "0", "", "5-4", "0-1"].map(super::count), [5, 1, 0, 0, 2]);
    }
}
