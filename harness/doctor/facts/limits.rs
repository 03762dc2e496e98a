//! What this process may have and do: limits, control groups, filters, namespaces.

use crate::doctor::host::Host;

/// The number of the first process namespace of a Linux kernel (`PROC_PID_INIT_INO`).
const FIRST_PID_NAMESPACE: &str = "pid:[4026531836]";
/// Bit of `CAP_IPC_LOCK` in a capability set.
const CAP_IPC_LOCK: u32 = 14;
/// Bit of `CAP_SYS_PTRACE`.
const CAP_SYS_PTRACE: u32 = 19;

/// Limits of this process.
#[derive(Debug, Clone, Default)]
pub struct Limits {
    /// Bytes that may be locked.
    pub memlock: Option<Limit>,
    /// Files that may be open.
    pub files: Option<Limit>,
    /// Effective capabilities, as a set of bits.
    pub capabilities: Option<u64>,
    /// 0: no filter of system calls, 1: strict, 2: filters.
    pub seccomp: Option<u32>,
    /// What `kernel.yama.ptrace_scope` says.
    pub ptrace_scope: Option<u32>,
    /// What `kernel.io_uring_disabled` says.
    pub io_uring_disabled: Option<u32>,
    /// Signs of a container: file or link, and what it says.
    pub container: Vec<(String, String)>,
    /// Limits of control groups: file, and what it says.
    pub groups: Vec<Group>,
}

/// A soft and a hard limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limit {
    /// What holds; `None` is no limit.
    pub soft: Option<u64>,
    /// What a process may raise it to.
    pub hard: Option<u64>,
}

/// A limit of a control group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Group {
    /// `memory`, `pids` or `rdma`.
    pub of: &'static str,
    /// The file.
    pub file: String,
    /// What it says.
    pub value: String,
}

impl Limits {
    /// May this process lock more than its limit?
    #[must_use]
    pub fn may_lock_all(&self) -> bool {
        self.has(CAP_IPC_LOCK)
    }

    /// May this process trace those of others?
    #[must_use]
    pub fn may_trace_all(&self) -> bool {
        self.has(CAP_SYS_PTRACE)
    }

    fn has(&self, bit: u32) -> bool {
        self.capabilities.is_some_and(|set| set & (1 << bit) != 0)
    }
}

/// Reads them.
pub(super) fn gather(host: &dyn Host) -> Limits {
    let limits = host.lines_with("/proc/self/limits", &["Max locked memory", "Max open files"]);
    let status = host.lines_with("/proc/self/status", &["CapEff:", "Seccomp:"]);
    let field = |name: &str| {
        let line = status.iter().find_map(|line| line.strip_prefix(name))?;
        Some(line.trim().to_owned())
    };
    let number = |path: &str| host.line(path)?.parse().ok();
    Limits {
        memlock: limits.iter().find_map(|line| limit(line, "Max locked memory")),
        files: limits.iter().find_map(|line| limit(line, "Max open files")),
        capabilities: field("CapEff:").and_then(|set| u64::from_str_radix(&set, 16).ok()),
        seccomp: field("Seccomp:").and_then(|mode| mode.parse().ok()),
        ptrace_scope: number("/proc/sys/kernel/yama/ptrace_scope"),
        io_uring_disabled: number("/proc/sys/kernel/io_uring_disabled"),
        container: container(host),
        groups: groups(host),
    }
}

fn limit(line: &str, name: &str) -> Option<Limit> {
    let mut words = line.strip_prefix(name)?.split_whitespace();
    let mut next = || match words.next()? {
        "unlimited" => Some(None),
        number => number.parse().ok().map(Some),
    };
    Some(Limit { soft: next()?, hard: next()? })
}

fn container(host: &dyn Host) -> Vec<(String, String)> {
    let mut signs = Vec::new();
    for file in ["/.dockerenv", "/run/.containerenv"] {
        if host.exists(file) {
            signs.push((file.to_owned(), "is there".to_owned()));
        }
    }
    if let Some(kind) = host.line("/run/systemd/container") {
        signs.push(("/run/systemd/container".to_owned(), kind));
    }
    match host.link("/proc/self/ns/pid") {
        Some(namespace) if namespace != FIRST_PID_NAMESPACE => {
            signs.push((
                "/proc/self/ns/pid".to_owned(),
                format!("{namespace}, not the host's {FIRST_PID_NAMESPACE}"),
            ));
        }
        _ => {}
    }
    signs
}

fn groups(host: &dyn Host) -> Vec<Group> {
    let mut found = Vec::new();
    let mut look = |of, folder: String, file: &str| {
        let file = format!("{}/{file}", folder.trim_end_matches('/'));
        if let Some(value) = host.line(&file) {
            found.push(Group { of, file, value });
        }
    };
    let table = host.lines_with("/proc/self/cgroup", &[":"]);
    for line in table {
        let mut parts = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(path)) = (parts.next(), parts.next()) else { continue };
        let named = |name: &str| controllers.split(',').any(|controller| controller == name);
        if controllers.is_empty() {
            let folder = format!("/sys/fs/cgroup{path}");
            look("memory", folder.clone(), "memory.max");
            look("pids", folder.clone(), "pids.max");
            look("rdma", folder, "rdma.max");
        } else if named("memory") {
            look("memory", format!("/sys/fs/cgroup/memory{path}"), "memory.limit_in_bytes");
        } else if named("pids") {
            look("pids", format!("/sys/fs/cgroup/pids{path}"), "pids.max");
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::{Limit, limit};

    #[test]
    fn limits_have_two_columns() {
        let line = "Max locked memory         8388608              unlimited            bytes     ";
        assert_eq!(limit(line, "Max locked memory"), Some(Limit { soft: Some(8 << 20), hard: None }));
        assert_eq!(limit(line, "Max open files"), None);
    }
}
