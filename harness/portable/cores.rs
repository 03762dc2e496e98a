//! The cores of this host, where a process cannot choose among them.

use crate::error::{Context, Result};

/// The cores this process may run on, in order.
///
/// # Errors
/// The system does not say.
pub fn allowed() -> Result<Vec<usize>> {
    let count = std::thread::available_parallelism().context(|| "ask how many cores there are".into())?;
    Ok((0..count.get()).collect())
}

/// Says that there is no such thing.
pub(crate) fn pin(_core: usize) -> Result<(), String> {
    Err("is for Linux: this system does not keep a thread on a core".to_owned())
}
