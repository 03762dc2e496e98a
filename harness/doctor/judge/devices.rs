//! This library's own devices: shared memory, UDP, and what the kernel lets them use.

use crate::doctor::facts::Facts;
use crate::doctor::facts::limits::Limits;
use crate::doctor::facts::ours::Device;
use crate::doctor::finding::Finding;

/// How `udp` says that the kernel does not split trains (`UDP_SEGMENT`).
const WITHOUT_TRAINS: &str = "does not split trains";

/// What is to be said of our devices.
pub(super) fn judge(facts: &Facts, findings: &mut Vec<Finding>) {
    let devices = facts.ours.devices.as_deref().unwrap_or_default();
    if let Some(listed) = &facts.ours.listed {
        let finding =
            Finding::note("device.list", "TBRDMA_DEVICES names the devices in place of the usual ones")
                .seen("TBRDMA_DEVICES", listed);
        findings.push(if devices.is_empty() && facts.ours.devices.is_some() {
            Finding { severity: crate::doctor::Severity::Problem, ..finding }
                .remedy("none of them makes sense: tbrdma-bench devices says why; or unset it")
        } else {
            finding
        });
    }
    for device in devices {
        findings.push(describe(device));
    }
    findings.extend(foreign_memory(facts));
    if facts.platform == "linux" {
        findings.extend(ring(facts));
    }
}

fn describe(device: &Device) -> Finding {
    let id = match device.name.as_str() {
        "shm" => "device.shm",
        "sim" => "device.sim",
        name if name.starts_with("udp:") => "device.udp",
        _ => "device.other",
    };
    let name = &device.name;
    let opened = format!("open {name}");
    let Some(opens) = device.opens else {
        return Finding::problem(id, format!("opening {name} does not end"))
            .about(name)
            .seen(opened, "no answer in 5 s")
            .why("its driver waits for something, perhaps for a process that was killed while it used the device (ps shows it in state D or U)")
            .remedy("look what the kernel says (dmesg, on a Mac log show --last 5m); often only booting again helps");
    };
    if !opens {
        let remedy = match id {
            "device.udp" => {
                "give the interface an address, and see that nobody else has UDP port 4791 (rdma_rxe does)"
            }
            _ => {
                "tbrdma-bench devices says the same; the reason above names the call that the system refused"
            }
        };
        return Finding::problem(id, format!("{name} does not open"))
            .about(name)
            .seen(opened, &device.told)
            .remedy(remedy);
    }
    if device.told.contains(WITHOUT_TRAINS) {
        return Finding::note(id, format!("{name} works, with a system call a packet"))
            .about(name)
            .seen(opened, &device.told)
            .why("the kernel does not take trains of packets in one call (UDP_SEGMENT, Linux 4.18), so streams are slow")
            .remedy("a newer kernel; in a sandbox that is a kernel of its own (gVisor), another sandbox");
    }
    Finding::ok(id, format!("{name} works")).about(name).seen(opened, &device.told)
}

/// How `shm` reaches memory that a program registered in place.
fn foreign_memory(facts: &Facts) -> Option<Finding> {
    const ID: &str = "device.shm-memory";
    const CALL: &str = "process_vm_readv of another process";
    let answer = facts.ours.process_vm.as_deref()?;
    let limits = &facts.limits;
    if answer == "works" {
        return Some(
            Finding::ok(ID, "shm reaches memory that programs registered in place with one copy")
                .seen(CALL, answer),
        );
    }
    let mut finding = Finding::note(ID, "shm copies memory that programs registered in place by their service thread")
        .seen(CALL, answer)
        .why(
            "one process may not reach into another (ptrace), so a message waits for a thread there to wake; memory that the \
             library allocates (alloc, adopt) is mapped and does not need it",
        );
    if let Some(scope) = limits.ptrace_scope {
        finding = finding.seen("/proc/sys/kernel/yama/ptrace_scope", scope.to_string());
    }
    if let Some(mode) = limits.seccomp {
        finding = finding.seen("/proc/self/status", format!("Seccomp: {mode}"));
    }
    for (file, said) in &limits.container {
        finding = finding.seen(file, said);
    }
    Some(finding.remedy(allow_tracing(limits)))
}

fn allow_tracing(limits: &Limits) -> String {
    let in_container = !limits.container.is_empty();
    let scope = limits.ptrace_scope.unwrap_or(0);
    if in_container && (limits.seccomp == Some(2) || !limits.may_trace_all()) {
        let also = if scope > 0 { ", and sudo sysctl kernel.yama.ptrace_scope=0 on its host" } else { "" };
        return format!("start the container with --cap-add SYS_PTRACE (Kubernetes: capabilities.add){also}");
    }
    match scope {
        0 => "allow process_vm_readv where system calls are filtered (systemd: SystemCallFilter, @debug)"
            .into(),
        3 => "kernel.yama.ptrace_scope=3 stays until the next boot: set it to 0 in /etc/sysctl.d and boot"
            .into(),
        _ => "sudo sysctl kernel.yama.ptrace_scope=0, for all time in /etc/sysctl.d".into(),
    }
}

/// May this process use io_uring?
fn ring(facts: &Facts) -> Option<Finding> {
    const ID: &str = "device.io_uring";
    const SYSCTL: &str = "/proc/sys/kernel/io_uring_disabled";
    let (value, answer) = (facts.limits.io_uring_disabled, facts.ours.io_uring.as_deref());
    let seen = |finding: Finding| {
        let finding = match value {
            Some(value) => finding.seen(SYSCTL, value.to_string()),
            None => finding,
        };
        match answer {
            Some(answer) => finding.seen("io_uring_setup", answer),
            None => finding,
        }
    };
    let (title, remedy) = match (value, answer) {
        (_, Some("works")) => return Some(seen(Finding::ok(ID, "io_uring may be used"))),
        (None, None) | (Some(0), None) => return None,
        (Some(2), _) => (
            "io_uring is forbidden to everybody",
            "sudo sysctl kernel.io_uring_disabled=0 (2 is the default where distributions harden)",
        ),
        (Some(1), _) => (
            "io_uring is forbidden to this user",
            "sudo sysctl kernel.io_uring_disabled=0, or put the user in the group of kernel.io_uring_group",
        ),
        _ if facts.limits.seccomp == Some(2) => (
            "io_uring is refused: system calls are filtered",
            match facts.limits.container.is_empty() {
                true => {
                    "allow io_uring_setup, io_uring_enter and io_uring_register in the filter of this service"
                }
                false => {
                    "container engines forbid it by default: --security-opt seccomp=FILE with io_uring_setup, io_uring_enter \
                     and io_uring_register allowed"
                }
            },
        ),
        _ => ("io_uring is refused", "a kernel from 6.0 on has what is used of it (CONFIG_IO_URING)"),
    };
    let why = "udp then receives by recvmmsg: a system call for what io_uring hands over without one";
    Some(seen(Finding::note(ID, title)).why(why).remedy(remedy))
}
