//! What happens of itself, because the fault plan wants it: asynchronous events, and the removal of the devices.
//!
//! A device that was removed is one that the kernel has taken from its users: its queue pairs are in error and flush what they have, what
//! asks the kernel for something fails with `EIO`, giving back succeeds, and a wait for events ends with `EIO` once those are read that there are.

use crate::context::{self, Opened};
use crate::errno::Errno;
use crate::event;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tbrdma_proto::AsyncEventKind;
use tbrdma_proto::fault::Happening;

static REMOVED: AtomicBool = AtomicBool::new(false);

/// Have the devices been removed?
pub(crate) fn is_removed() -> bool {
    REMOVED.load(Ordering::Relaxed)
}

/// What a wait finds when there is nothing: that nothing will come any more, if so.
pub(crate) fn nothing<T>() -> Result<Option<T>, Errno> {
    if is_removed() { Err(Errno::EIO) } else { Ok(None) }
}

/// It happens, to each device that is open.
#[cold]
pub(crate) fn happen(what: Happening) {
    match what {
        Happening::Event(kind) => context::opened().iter().for_each(|opened| event::raise(opened, kind)),
        Happening::Removal => {
            if !REMOVED.swap(true, Ordering::SeqCst) {
                context::opened().iter().for_each(remove);
            }
        }
    }
}

fn remove(opened: &Arc<Opened>) {
    event::raise(opened, AsyncEventKind::DeviceFatal);
    let objects = context::lock(&opened.objects);
    for known in &objects.channels {
        // SAFETY: in the table of objects, which is locked.
        unsafe { &*known.0 }.wake();
    }
}

/// Whether a call can still be made. Its name has no `ibv_` any more.
pub(crate) fn admit(name: &str) -> Result<(), Errno> {
    /// What asks the kernel, by how the names begin.
    const COMMANDS: [&str; 14] = [
        "advise",
        "alloc",
        "attach",
        "create",
        "detach",
        "get_pkey",
        "import",
        "modify",
        "query_device",
        "query_gid",
        "query_pkey",
        "query_port",
        "reg_",
        "resize",
    ];
    if !is_removed() {
        return Ok(());
    }
    match name {
        "open_device" => Err(Errno::ENODEV),
        "query_qp" | "query_srq" => Err(Errno::EIO),
        _ if COMMANDS.iter().any(|command| name.starts_with(command)) => Err(Errno::EIO),
        _ => Ok(()),
    }
}
