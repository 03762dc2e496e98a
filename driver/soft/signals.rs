//! Events of completion queues that are held back until a pass over the device has ended.
//!
//! A program that waits wakes up with the first completion of a pass. What came with it, the acknowledgement of its own last send above all,
//! must be there by then, and what it owes the peer must have left: on an adapter an acknowledgement overtakes the answer to the message.
//! Programs rely on that: they wait for one event, poll once, and post the next send into a queue of one.

use crate::sys::eventfd::EventFd;
use std::sync::Arc;

/// The channels to signal.
#[derive(Default)]
pub(crate) struct Signals {
    /// A pass is under way, and will signal.
    held: bool,
    waiting: Vec<Arc<EventFd>>,
}

impl Signals {
    /// A pass begins.
    pub(crate) fn hold(&mut self) {
        self.held = true;
    }

    /// An event: signalled now, or when the pass has ended.
    pub(crate) fn raise(&mut self, channel: &Arc<EventFd>) {
        if self.held {
            self.waiting.push(Arc::clone(channel));
        } else {
            let _ = channel.signal();
        }
    }

    /// The pass has ended.
    pub(crate) fn release(&mut self) {
        self.held = false;
        for channel in self.waiting.drain(..) {
            let _ = channel.signal();
        }
    }
}
