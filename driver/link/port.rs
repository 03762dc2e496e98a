//! A link's port: what it promises of the packets that pass, and whether it is up.

use crate::sync::{AtomicU64, Ordering};
use crate::sys::eventfd::EventFd;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};

/// What a link promises. A network promises nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Promises {
    /// While the port is up, what was sent arrives, once and in order. What is under way when it goes down may be lost.
    ///
    /// Such a link makes who sends wait, where others lose: when [`send`](super::Link::send) has said `WouldBlock`, [`fd`](super::Link::fd) becomes
    /// readable as soon as there is room. To a peer that is not there, and while the port is down, it loses as others do: nobody waits for that.
    pub(crate) delivers: bool,
    /// Bits arrive as they left. Then a packet needs no iCRC: one of zero stands for none. Any other is checked.
    pub(crate) intact: bool,
}

/// Whether a port works, where that may change.
pub(crate) trait LinkState: Send + Sync {
    /// Readable when it may have changed, until it was [looked](Self::look) at. `None` where changes are not announced: then there are none.
    fn fd(&self) -> Option<BorrowedFd<'_>>;

    /// Whether packets can go, as far as is known.
    fn is_up(&self) -> bool;

    /// The next change that nobody has seen yet: what the port became. Ask until there is none; for one thread at a time.
    fn look(&self) -> Option<bool>;
}

/// The state of a port that its link sets.
#[derive(Debug)]
pub(crate) struct Port {
    /// How often it has changed; odd while it is up.
    changes: AtomicU64,
    /// How many of these were seen.
    seen: AtomicU64,
    news: EventFd,
}

impl Port {
    /// A port that is up from the beginning, or down.
    ///
    /// # Errors
    /// The system has no more descriptors.
    pub(crate) fn new(is_up: bool) -> io::Result<Self> {
        let changes = u64::from(is_up);
        Ok(Self { changes: AtomicU64::new(changes), seen: AtomicU64::new(changes), news: EventFd::new()? })
    }

    /// It is up now, or down. Nothing happens if it has been before.
    pub(crate) fn set(&self, is_up: bool) {
        let changed = self.changes.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |changes| {
            (is_odd(changes) != is_up).then_some(changes + 1)
        });
        if changed.is_ok() {
            // Fails only if the counter is full, and then it is readable.
            let _ = self.news.signal();
        }
    }
}

impl LinkState for Port {
    fn fd(&self) -> Option<BorrowedFd<'_>> {
        Some(self.news.as_fd())
    }

    fn is_up(&self) -> bool {
        is_odd(self.changes.load(Ordering::SeqCst))
    }

    fn look(&self) -> Option<bool> {
        // Who changes it from here on signals again. A change may have been seen before its signal came, which must not stay either.
        let _ = self.news.drain();
        let mut seen = self.seen.load(Ordering::Relaxed);
        let changes = self.changes.load(Ordering::SeqCst);
        if changes == seen {
            return None;
        }
        // However often it was down and up again, once is told: where it is now comes last.
        seen = if is_odd(changes - seen) { changes } else { changes - 1 };
        self.seen.store(seen, Ordering::Relaxed);
        Some(is_odd(seen))
    }
}

const fn is_odd(number: u64) -> bool {
    number & 1 == 1
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::wait::wait_one;
    use std::time::Duration;

    /// All that is there to be seen.
    fn news(port: &Port) -> Vec<bool> {
        std::iter::from_fn(|| port.look()).collect()
    }

    fn is_announced(port: &Port) -> bool {
        wait_one(port.fd().unwrap(), Some(Duration::ZERO)).unwrap()
    }

    #[test]
    fn what_a_port_becomes_is_announced_once() {
        for begins in [false, true] {
            let port = Port::new(begins).unwrap();
            port.set(begins);
            assert!(!is_announced(&port));
            assert_eq!((port.is_up(), news(&port)), (begins, vec![]));
            port.set(!begins);
            assert!(is_announced(&port));
            assert_eq!((port.is_up(), news(&port)), (!begins, vec![!begins]));
            assert!(!is_announced(&port));
            // The signal of a change that was seen before it came.
            port.news.signal().unwrap();
            assert!(news(&port).is_empty());
            assert!(!is_announced(&port), "whoever waits for news would never sleep again");
        }
    }

    #[test]
    fn a_port_that_was_down_for_a_moment_is_seen_to_have_been() {
        let port = Port::new(true).unwrap();
        for pulses in 1..4 {
            for _ in 0..pulses {
                port.set(false);
                port.set(true);
            }
            assert!(is_announced(&port));
            assert_eq!(news(&port), [false, true], "after {pulses} of them");
        }
        (0..3).for_each(|_| [false, true].into_iter().for_each(|up| port.set(up)));
        port.set(false);
        assert_eq!(news(&port), [false]);
    }
}
