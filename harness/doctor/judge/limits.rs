//! What the system grants this process.

use crate::doctor::facts::Facts;
use crate::doctor::facts::limits::Limits;
use crate::doctor::finding::Finding;

/// Less locked memory than this does not hold the buffers of a usual program.
const ENOUGH_LOCKED: u64 = 64 << 20;
/// Less memory than this is little for a program with queues and buffers.
const ENOUGH_MEMORY: u64 = 256 << 20;
/// Fewer processes and threads than this are soon used up.
const ENOUGH_PROCESSES: u64 = 64;

/// What is to be said of limits.
pub(super) fn judge(facts: &Facts, findings: &mut Vec<Finding>) {
    let limits = &facts.limits;
    findings.extend(memlock(facts));
    findings.extend(container(limits));
    findings.extend(seccomp(limits));
    findings.extend(groups(limits));
}

fn memlock(facts: &Facts) -> Option<Finding> {
    const ID: &str = "limits.memlock";
    let limit = facts.limits.memlock?;
    let shown = |bytes: Option<u64>| bytes.map_or_else(|| "unlimited".to_owned(), size);
    let said = format!("Max locked memory: {} soft, {} hard", shown(limit.soft), shown(limit.hard));
    let seen = |finding: Finding| finding.seen("/proc/self/limits", &said);
    if facts.limits.may_lock_all() {
        let finding = Finding::ok(ID, "this process may lock as much memory as it likes (CAP_IPC_LOCK)");
        return Some(seen(finding).seen("/proc/self/status", "CapEff has CAP_IPC_LOCK"));
    }
    match limit.soft {
        None => Some(seen(Finding::ok(ID, "locked memory is not limited"))),
        Some(soft) if soft >= ENOUGH_LOCKED => {
            Some(seen(Finding::ok(ID, format!("{} of memory may be locked", size(soft)))))
        }
        Some(soft) => {
            let title = format!("only {} of memory may be locked", size(soft));
            let finding = match facts.rdma.devices.is_empty() {
                true => Finding::note(ID, title),
                false => Finding::problem(ID, title),
            };
            let remedy = match facts.limits.container.is_empty() {
                true => {
                    "\"* - memlock unlimited\" in /etc/security/limits.d/rdma.conf and log in again; for a service \
                     LimitMEMLOCK=infinity; for a shell: sudo prlimit --pid $$ --memlock=unlimited"
                }
                false => "start the container with --ulimit memlock=-1",
            };
            let why = "an adapter's ibv_reg_mr pins the memory it registers, and fails with ENOMEM (12) beyond the limit; queues count too. \
                       shm and udp pin nothing";
            Some(seen(finding).why(why).remedy(remedy))
        }
    }
}

fn container(limits: &Limits) -> Option<Finding> {
    let (first, _) = limits.container.first()?;
    let title = match first.as_str() {
        "/proc/self/ns/pid" => "this is a process namespace of its own",
        _ => "this is a container",
    };
    let finding = limits
        .container
        .iter()
        .fold(Finding::note("limits.container", title), |finding, (file, said)| finding.seen(file, said));
    Some(finding.why(
        "shm joins processes of one user and one network namespace: two containers want --network container:NAME (or a pod), \
         and adapters want their device files",
    ))
}

fn seccomp(limits: &Limits) -> Option<Finding> {
    const ID: &str = "limits.seccomp";
    let seen = |finding: Finding, mode: u32| finding.seen("/proc/self/status", format!("Seccomp: {mode}"));
    match limits.seccomp? {
        0 => Some(seen(Finding::ok(ID, "system calls are not filtered"), 0)),
        mode => Some(
            seen(Finding::note(ID, "system calls are filtered"), mode)
                .why("what the filter forbids looks like a kernel without it: see io_uring and shm above"),
        ),
    }
}

fn groups(limits: &Limits) -> Vec<Finding> {
    let judged = limits.groups.iter().filter_map(|group| {
        let number = group.value.parse::<u64>().ok();
        let finding = match (group.of, number) {
            ("memory", Some(bytes)) if bytes < ENOUGH_MEMORY => {
                Finding::note("limits.memory", format!("this control group may have {} of memory", size(bytes)))
                    .why("registered and shared memory counts as soon as it is touched; beyond the limit processes are killed")
                    .remedy("raise memory.max of the group (systemd: MemoryMax=, containers: --memory)")
            }
            ("pids", Some(count)) if count < ENOUGH_PROCESSES => {
                Finding::note("limits.pids", format!("this control group may have {count} processes and threads"))
                    .why("each open device has a thread of its own")
                    .remedy("raise pids.max of the group (systemd: TasksMax=, containers: --pids-limit)")
            }
            ("rdma", _) => Finding::note("limits.rdma", "this control group limits what it may hold of adapters")
                .why("beyond it ibv_open_device and ibv_create_* fail with EAGAIN (11)")
                .remedy("raise rdma.max of the group if calls fail"),
            ("memory", _) => Finding::ok("limits.memory", "memory of this control group is enough"),
            ("pids", _) => Finding::ok("limits.pids", "this control group may have enough processes"),
            _ => return None,
        };
        Some(finding.seen(&group.file, &group.value))
    });
    judged.collect()
}

/// Bytes for people.
fn size(bytes: u64) -> String {
    match bytes {
        _ if bytes >= 1 << 30 => format!("{:.1} GiB", bytes as f64 / f64::from(1 << 30)),
        _ if bytes >= 1 << 20 => format!("{:.0} MiB", bytes as f64 / f64::from(1 << 20)),
        _ => format!("{} KiB", bytes >> 10),
    }
}
