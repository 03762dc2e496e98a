//! The cores of this host, as Linux lets a process choose among them.

use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;

use crate::affinity::listed;
use crate::error::{Context, Result};

/// The cores this process may run on, in order.
///
/// # Errors
/// The system does not say.
pub fn allowed() -> Result<Vec<usize>> {
    let set = sched_getaffinity(Pid::from_raw(0)).context(|| "ask which cores are allowed".into())?;
    Ok((0..CpuSet::count()).filter(|core| set.is_set(*core).unwrap_or(false)).collect())
}

/// Keeps the calling thread on one core; or why not.
pub(crate) fn pin(core: usize) -> Result<(), String> {
    let refuse = || {
        let allowed = allowed().unwrap_or_default();
        format!("is not a core that this process may use: it may use {}", listed(&allowed))
    };
    let mut set = CpuSet::new();
    set.set(core).map_err(|_| refuse())?;
    sched_setaffinity(Pid::from_raw(0), &set).map_err(|_| refuse())
}
