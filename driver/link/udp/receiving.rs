//! By which of the kernel's ways messages are received: `recvmsg(2)`, or io_uring.
//!
//! Measured on two cores over loopback, waiting in a loop, 64 bytes there and back, half the median (plain sockets with `recv` and one piece:
//! 2.7 us), and trains of 60 KiB one way:
//!
//! | receive | send | one way | trains |
//! |---|---|---|---|
//! | recvmsg | sendmsg | 3.0 us | 2.9-3.4 GB/s |
//! | recvmmsg, 16 at most | sendmsg | 3.2 us | 2.6-2.8 GB/s |
//! | io_uring, DEFER_TASKRUN and SINGLE_ISSUER | sendmsg | 3.7 us | 3.0-4.3 GB/s |
//! | io_uring, COOP_TASKRUN | sendmsg | 4.0 us | 1.4-2.5 GB/s |
//! | io_uring, no flag | sendmsg | 13.5 us | 1.1 GB/s |
//! | recvmsg | through the ring | 3.2 us | |
//! | DEFER_TASKRUN | through the ring | 3.9 us | |
//!
//! So the plain calls are the default, and sends never go through a ring. DEFER_TASKRUN binds a ring to one thread, and a device is driven by
//! whoever polls; the ring here is of the COOP_TASKRUN kind. It has its use where many addresses of an interface are in use at once: a
//! look at the ring sees all of them, and costs no system call when there is nothing.

use crate::error::{Error, Result};
use crate::sync::{AtomicBool, Ordering};
use crate::sys::uring::ReceiveRing;
use std::io;
use std::os::fd::BorrowedFd;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Chooses the way: `auto` (the default), `mmsg`, or `uring`.
const VARIABLE: &str = "TBRDMA_UDP_IO";

/// What is wished for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wish {
    /// What is quickest.
    Auto,
    /// The plain calls.
    Plain,
    /// io_uring, and the plain calls where that is not to be had.
    Uring,
}

impl Wish {
    /// What the environment says.
    pub(super) fn from_environment() -> Result<Self> {
        match std::env::var(VARIABLE).as_deref() {
            Err(_) | Ok("" | "auto") => Ok(Self::Auto),
            Ok("mmsg") => Ok(Self::Plain),
            Ok("uring") => Ok(Self::Uring),
            Ok(other) => Err(Error::InvalidArgument {
                call: "open_device",
                reason: format!("{VARIABLE} is {other:?}; it must be auto, mmsg or uring"),
            }),
        }
    }
}

/// The way that was chosen.
#[derive(Debug)]
pub(super) struct Receiving {
    ring: Option<Mutex<ReceiveRing>>,
    /// Cleared when the ring turns out not to work: a kernel may have io_uring and not this use of it.
    ring_works: AtomicBool,
    /// Why there is no ring although one was wished for.
    refusal: Option<io::Error>,
}

impl Receiving {
    /// The way that is wished for, or else the one there is.
    pub(super) fn new(wish: Wish, sockets: usize) -> Self {
        let ring = match wish {
            Wish::Auto | Wish::Plain => None,
            Wish::Uring => Some(ReceiveRing::new(sockets as u32)),
        };
        let (ring, refusal) = match ring {
            None => (None, None),
            Some(Ok(ring)) => (Some(Mutex::new(ring)), None),
            Some(Err(error)) => (None, Some(error)),
        };
        Self { ring_works: AtomicBool::new(ring.is_some()), ring, refusal }
    }

    /// The ring, while it is the way.
    #[inline]
    pub(super) fn ring(&self) -> Option<MutexGuard<'_, ReceiveRing>> {
        let ring = self.ring.as_ref().filter(|_| self.ring_works.load(Ordering::Relaxed))?;
        // Who panicked in the middle of a look has left buffers out; the kernel has others.
        Some(ring.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Receives from a socket too.
    pub(super) fn add(&self, index: u8, fd: BorrowedFd<'_>) {
        if let Some(mut ring) = self.ring()
            && ring.add(u32::from(index), fd).is_err()
        {
            self.give_up();
        }
    }

    /// The ring does not work: use the plain calls from now on.
    pub(super) fn give_up(&self) {
        self.ring_works.store(false, Ordering::Relaxed);
    }

    /// For people.
    pub(super) fn describe(&self) -> String {
        match &self.refusal {
            Some(error) => format!("recvmsg and recvmmsg, because io_uring is not to be had ({error})"),
            None if self.ring_works.load(Ordering::Relaxed) => "io_uring, multishot".to_owned(),
            None if self.ring.is_some() => {
                "recvmsg and recvmmsg, because this kernel's io_uring lacks multishot receives".to_owned()
            }
            None => "recvmsg and recvmmsg".to_owned(),
        }
    }
}
