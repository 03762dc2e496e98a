//! The end of all devices at once, when the program ends without dropping them.

use super::device::Objects;
use super::gate::{lock, lock_until};
use crate::error::{Error, Result};
use crate::sys::termination;
use std::sync::{Arc, Mutex, Weak};
use std::time::{Duration, Instant};

/// How long a thread may take to come out of a call, and a signal may wait for all of it.
const PATIENCE: Duration = Duration::from_secs(5);

/// The devices that are open.
static OPEN: Mutex<Vec<Weak<Objects>>> = Mutex::new(Vec::new());

/// From now on this device ends in order whatever ends the program, SIGKILL aside.
pub(super) fn watch(objects: &Arc<Objects>) -> Result<()> {
    termination::before_the_end(end_all, PATIENCE)
        .map_err(Error::os("open_device", "hear of signals that end the program"))?;
    let mut open = lock(&OPEN);
    open.retain(|objects| objects.strong_count() > 0);
    open.push(Arc::downgrade(objects));
    Ok(())
}

fn end_all() {
    let deadline = Instant::now() + PATIENCE;
    let Some(mut open) = lock_until(&OPEN, deadline) else { return };
    for objects in std::mem::take(&mut *open).iter().filter_map(Weak::upgrade) {
        objects.end(deadline);
        // The last of it must not be dropped here, see there.
        std::mem::forget(objects);
    }
}
