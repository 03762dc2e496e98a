//! The device's clock: on a real device the machine's, in a simulated network that network's.

use super::context::Context;
use crate::backoff::relax;
use crate::sim;
use std::fmt;
use std::marker::PhantomData;
use std::time::{Duration, Instant};

impl Context {
    /// The device's clock (`raw_clock` of `ibv_query_rt_values_ex(3)`), from an origin of its own. In a simulated network it is virtual, and the same for all
    /// contexts there; on other devices it is the system's monotonic clock, since the context was opened.
    ///
    /// Programs that measure by it, and wait by [`sleep`](Self::sleep) or [`wait_for`](Self::wait_for), are right on either kind of device.
    pub fn raw_clock(&self) -> Duration {
        match self.device.network() {
            None => self.opened.elapsed(),
            Some(network) => network.now().since(tbrdma_proto::Time::ZERO),
        }
    }

    /// Whether [`raw_clock`](Self::raw_clock) is virtual: whatever was measured then says nothing of this machine.
    pub fn has_virtual_time(&self) -> bool {
        self.device.network().is_some()
    }

    /// Waits for so long by the device's clock. On a real device the thread sleeps; in a simulated network all that happens there until then happens now.
    pub fn sleep(&self, duration: Duration) {
        match self.device.network() {
            None => std::thread::sleep(duration),
            Some(network) => network.sleep(duration),
        }
    }

    /// What `look` finds, looked for again and again for at most `timeout` by the device's clock (for ever if `None`), by the rule of an empty
    /// [`poll`](crate::CompletionQueue::poll). It is for whatever tells of itself by no event: memory, several queues, word from another thread.
    ///
    /// In a simulated network it is looked for once whenever anything has happened there; what other threads do beside the network is seen then.
    pub fn wait_for<T>(&self, timeout: Option<Duration>, mut look: impl FnMut() -> Option<T>) -> Option<T> {
        if let Some(network) = self.device.network() {
            return network.wait_for(timeout, look);
        }
        let begun = Instant::now();
        let mut looks = 0_u32;
        loop {
            if let Some(found) = look() {
                return Some(found);
            }
            // The clock is read less often than is looked, and at first not at all: most waits are short.
            if looks.is_multiple_of(16) && timeout.is_some_and(|timeout| begun.elapsed() >= timeout) {
                return None;
            }
            relax(looks);
            looks = looks.wrapping_add(1);
        }
    }

    /// A place among the threads of a simulated network that take turns: see [`Turn`]. On other devices it does nothing.
    pub fn take_turns(&self) -> Turn {
        Turn { inner: self.device.network().map(sim::Turn::new) }
    }
}

/// A thread's place in the order in which threads run.
///
/// In a simulated network, several threads make time go on together: it stands still until all have polled in vain or wait. But what they do at one time they
/// do in any order. Those that take turns run one at a time, each until it polls in vain or waits *on that network*, in the order in which their places
/// were taken. Then everything they do follows from the seed, and happens again the same in another run.
///
/// Take all places before any thread begins: time stands still until each of them has been begun or dropped. A thread that waits for another in any other
/// way than [`Context::wait_for`] stops everybody.
///
/// ```
/// let ctx = tbrdma::open("sim:turns")?;
/// let (first, second) = (ctx.take_turns(), ctx.take_turns());
/// std::thread::scope(|scope| {
///     for turn in [second, first] {
///         let ctx = &ctx;
///         scope.spawn(move || {
///             let _mine = turn.begin();
///             ctx.sleep(std::time::Duration::from_secs(3600));
///         });
///     }
/// });
/// assert_eq!(ctx.raw_clock().as_secs(), 3600);
/// # Ok::<(), tbrdma::Error>(())
/// ```
#[must_use = "everybody waits for a thread that has a place"]
pub struct Turn {
    inner: Option<sim::Turn>,
}

impl Turn {
    /// The calling thread takes the place, until the answer is dropped. Waits for its turn.
    pub fn begin(self) -> InTurn {
        if let Some(turn) = &self.inner {
            turn.begin();
        }
        InTurn { _turn: self, _of_this_thread: PhantomData }
    }
}

impl fmt::Debug for Turn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Turn").field("simulated", &self.inner.is_some()).finish()
    }
}

/// The calling thread takes turns with others, until this is dropped.
#[derive(Debug)]
#[must_use = "the place is given up when this is dropped"]
pub struct InTurn {
    _turn: Turn,
    _of_this_thread: PhantomData<*const ()>,
}
