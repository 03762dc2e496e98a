//! A device around a real one on which what is left behind hurts: its objects end in the order that its driver needs, whatever ends the program.
//!
//! On a Mac, queue pairs, regions and protection domains of a program that is killed stay taken until the machine is booted, and freeing a region
//! that a queue pair may still write to is what its driver survives least. So around such a device everything ends as queue pairs (first brought
//! to ERR), completion queues, memory regions, protection domains, the context:
//!
//! - **when the program drops them**, in whatever order it does: a region of bytes that are ours is kept until no queue is left, or until too
//!   many are kept. Memory that the program only lent is let go at once, since it may be freed next.
//! - **at a panic**, which is the same;
//! - **at `exit`**, which drops nothing;
//! - **at SIGINT, SIGTERM and SIGHUP**, where the program has no handler of its own: a thread of ours does it, and then the signal does what it would
//!   have done. A second one does not wait for that.
//!
//! To be able to, each object stands behind a lock that its owner's threads take for each call, none of them shared between queues. Who comes
//! after the end has begun waits for ever: the process is about to be gone. Nothing helps against SIGKILL.
//!
//! - `device`: what is made; `objects`: queue pairs, completion queues and regions; `news`: channels and events
//! - `gate`: the lock
//! - `ending`: the end, of one device and of all

mod device;
mod ending;
mod gate;
mod news;
mod objects;

use crate::device::Device;
use crate::error::{Error, Result};

/// The variable by which it is done without.
const VARIABLE: &str = "TBRDMA_TEARDOWN";

/// `device`, so that its objects end in order; as it is, where `TBRDMA_TEARDOWN` is `off`.
///
/// # Errors
/// The variable has another value, or the system refuses what is needed to hear of signals.
pub(crate) fn around(device: Box<dyn Device>) -> Result<Box<dyn Device>> {
    match std::env::var(VARIABLE).as_deref() {
        Ok("off") => return Ok(device),
        Ok("on" | "") | Err(_) => {}
        Ok(other) => {
            let reason = format!("{VARIABLE} is {other:?}; it may be on or off");
            return Err(Error::InvalidArgument { call: "open_device", reason });
        }
    }
    Ok(Box::new(device::OrderlyDevice::new(device)?))
}
