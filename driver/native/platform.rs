//! What differs between Linux and macOS, in one place.

use std::path::PathBuf;

/// Names under which the loader may know the library, the likeliest first.
#[cfg(target_os = "macos")]
pub(super) const LIBRARIES: &[&str] = &["librdma.dylib", "/usr/lib/librdma.dylib"];
/// As above.
#[cfg(not(target_os = "macos"))]
pub(super) const LIBRARIES: &[&str] = &["libibverbs.so.1"];

/// Whether this is a Mac: what is said of causes and remedies differs.
pub(super) const MAC: bool = cfg!(target_os = "macos");

/// Whether the kernel looks for a peer's hardware address when a queue pair is connected. A Mac's does not.
pub(super) const RESOLVES_NEIGHBOURS: bool = !MAC;

/// Whether the sizes of inline data may be found out by trial: queue pairs are few on a Mac, and have none of it.
pub(super) const TRIES_INLINE: bool = !MAC;

/// Where the system tells of an RDMA device, if it does so in files.
pub(super) fn folder(device: &str) -> Option<PathBuf> {
    cfg!(target_os = "linux").then(|| PathBuf::from("/sys/class/infiniband").join(device))
}

/// Whether it is worth loading the library to look for devices: not on a Linux that has none. A library that was named is always looked at.
pub(super) fn may_have_devices() -> bool {
    if super::library::named().is_some() || cfg!(not(target_os = "linux")) {
        return true;
    }
    std::fs::read_dir("/sys/class/infiniband").is_ok_and(|mut entries| entries.next().is_some())
}
