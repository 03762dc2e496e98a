//! Whether the interface works: it is up, and its cable leads to somebody.

use crate::link::LinkState;
use crate::sync::{AtomicBool, Ordering};
use crate::sys::netlink::InterfaceChanges;
use crate::sys::udp::is_running;
use std::os::fd::{AsFd, BorrowedFd};

/// The state of an interface, as it was when somebody last looked.
#[derive(Debug)]
pub(super) struct InterfaceState {
    interface: String,
    is_up: AtomicBool,
    /// `None` where the system does not announce changes: then there are none.
    changes: Option<InterfaceChanges>,
}

impl InterfaceState {
    /// The state of this interface now. Changes from here on are announced.
    pub(super) fn of(interface: &str) -> Self {
        let changes = InterfaceChanges::new().ok();
        let is_up = AtomicBool::new(changes.is_none() || is_running(interface).unwrap_or(true));
        Self { interface: interface.to_owned(), is_up, changes }
    }
}

impl LinkState for InterfaceState {
    fn fd(&self) -> Option<BorrowedFd<'_>> {
        self.changes.as_ref().map(AsFd::as_fd)
    }

    fn is_up(&self) -> bool {
        self.is_up.load(Ordering::Relaxed)
    }

    fn look(&self) -> Option<bool> {
        if !self.changes.as_ref()?.drain() {
            return None;
        }
        // One that has gone is down.
        let now = is_running(&self.interface).unwrap_or(false);
        (self.is_up.swap(now, Ordering::Relaxed) != now).then_some(now)
    }
}
