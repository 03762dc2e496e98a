//! What this process, and this machine, hold just now: descriptors, mappings, memory, socket names.
#![allow(dead_code, reason = "each test file uses its own part")]

/// Open descriptors of this process and what they are.
pub(crate) fn descriptors() -> Vec<String> {
    let entries = std::fs::read_dir("/proc/self/fd").unwrap().flatten();
    let mut all: Vec<_> = entries
        .filter_map(|entry| std::fs::read_link(entry.path()).ok())
        .map(|link| {
            let name = link.to_string_lossy().into_owned();
            // Sockets and the like by kind: their inode numbers say nothing.
            name.split_once(":[").map_or_else(|| name.clone(), |(kind, _)| kind.to_owned())
        })
        .filter(|name| !name.starts_with("/proc/"))
        .collect();
    all.sort();
    all
}

/// Mappings of shared segments in this process.
pub(crate) fn segments() -> usize {
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
    maps.lines().filter(|line| line.contains("memfd:tbrdma")).count()
}

/// A field of `/proc/self/status` in KiB.
pub(crate) fn status_kib(field: &str) -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':')).unwrap();
    line.split_whitespace().next().unwrap().parse().unwrap()
}

/// Threads of this process.
pub(crate) fn threads() -> usize {
    std::fs::read_dir("/proc/self/task").unwrap().count()
}

/// Listening abstract sockets of the library on this machine that end in one of these suffixes (`/` and a LID).
pub(crate) fn sockets(suffixes: &[String]) -> Vec<String> {
    let table = std::fs::read_to_string("/proc/net/unix").unwrap();
    let names = table.lines().filter_map(|line| line.split_whitespace().last());
    let ours = names.filter(|name| name.starts_with("@tbrdma/"));
    ours.filter(|name| suffixes.iter().any(|suffix| name.ends_with(suffix.as_str())))
        .map(str::to_owned)
        .collect()
}

/// Names in `/dev/shm`.
pub(crate) fn dev_shm() -> Vec<String> {
    let Ok(entries) = std::fs::read_dir("/dev/shm") else { return Vec::new() };
    entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
}
