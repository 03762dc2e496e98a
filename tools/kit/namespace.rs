//! Namespaces: a network, and folders, that nobody else sees.

use crate::Skip;
use anyhow::Result;
use nix::sched::{CloneFlags, unshare};
use nix::unistd::{getgid, getuid};
use std::fs;

/// Gives this process a network namespace of its own, and other namespaces that `also` names; who is not root gets them within a user namespace, where
/// that is allowed. Nothing is up in it yet, `lo` neither.
///
/// # Errors
/// [`Skip`] if this machine does not allow it.
pub fn enter_network_namespace(also: CloneFlags) -> Result<()> {
    let (uid, gid) = (getuid(), getgid());
    let wanted = CloneFlags::CLONE_NEWNET | also;
    if uid.is_root() {
        return unshare(wanted).map_err(|error| Skip::new(format!("no network namespace: {error}")).into());
    }
    unshare(CloneFlags::CLONE_NEWUSER | wanted)
        .map_err(|error| Skip::new(format!("neither root nor user namespaces: {error}")))?;
    fs::write("/proc/self/setgroups", "deny")?;
    fs::write("/proc/self/uid_map", format!("0 {uid} 1"))?;
    fs::write("/proc/self/gid_map", format!("0 {gid} 1"))?;
    Ok(())
}
