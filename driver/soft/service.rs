//! The thread that is there when the application does not poll: it serves one-sided requests, sends again what was lost, and raises
//! completion events.
//!
//! It sleeps in `epoll`. While the application polls it steps aside: it does not watch the network then, and looks up once a millisecond
//! whether the application still does. While very much comes it does not watch either, but [naps](super::moderation). It never spins: on a busy machine, who gives the core away between two looks gets it back after
//! milliseconds, and who sleeps is woken at once.

use super::core::{Core, lock};
use super::engine::Who;
use super::moderation::{Moderation, NAP};
use crate::link::Link;
use crate::sync::{AtomicBool, AtomicU64, Ordering};
use crate::sys::eventfd::EventFd;
use crate::sys::poll::AnyOf;
use crate::sys::process::yield_now;
use crate::sys::threads::{OwnThread, wake_sharply};
use crate::sys::wait::wait_one;
use crate::verbs::event::{AsyncEvent, EventSource};
use std::io;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::Duration;
use tbrdma_proto::{AsyncEventKind, Time, limits};

/// How often the thread looks up while the application polls. One that has not polled for so long does not.
const TICK: Duration = Duration::from_millis(1);
/// An application that has waited for an event this recently will do so again.
const WAITING: Duration = Duration::from_millis(10);
/// Passes between two chances for others to use the core.
const PASSES_IN_A_ROW: u32 = 16;

/// What the service thread and the others agree on.
pub(crate) struct Service {
    /// The link, the kick, and the state of the port.
    everything: AnyOf,
    kick: EventFd,
    stop: AtomicBool,
    /// Until when the thread sleeps unless something arrives; 0 while it is awake or will be within a tick.
    sleeps_until: AtomicU64,
    /// It does not watch the network.
    steps_aside: AtomicBool,
    /// When an event was last asked for.
    last_armed: AtomicU64,
}

impl Service {
    pub(crate) fn new(link: &dyn Link) -> io::Result<Self> {
        let kick = EventFd::new()?;
        let mut everything = vec![link.fd(), kick.as_fd()];
        everything.extend(link.state().and_then(|state| state.fd()));
        Ok(Self {
            everything: AnyOf::new(&everything)?,
            kick,
            stop: AtomicBool::new(false),
            sleeps_until: AtomicU64::new(0),
            steps_aside: AtomicBool::new(false),
            last_armed: AtomicU64::new(0),
        })
    }

    fn wake(&self) {
        // Fails only if the counter is full, and then the thread is about to wake anyway.
        let _ = self.kick.signal();
    }
}

/// Starts the thread.
pub(crate) fn start(core: &Arc<Core>) -> io::Result<std::thread::JoinHandle<()>> {
    let core = Arc::clone(core);
    let own = OwnThread::announce();
    std::thread::Builder::new().name("tbrdma-soft".to_owned()).spawn(move || {
        own.begin();
        wake_sharply();
        core.serve();
    })
}

impl Core {
    /// Makes the service thread end.
    pub(crate) fn stop_service(&self) {
        self.service.stop.store(true, Ordering::SeqCst);
        self.service.wake();
    }

    /// A completion queue is about to be armed.
    pub(crate) fn somebody_arms(&self) {
        if self.arms.fetch_add(1, Ordering::SeqCst) == 0 {
            // A pass that began when nobody wanted events does not hold them back: it ends first.
            drop(lock(&self.receiver));
        }
    }

    /// Somebody is going to sleep until a completion comes: the service thread must watch the network now.
    pub(crate) fn somebody_waits(&self) {
        self.service.last_armed.store(self.now().0, Ordering::SeqCst);
        if self.service.steps_aside.load(Ordering::SeqCst) {
            self.service.wake();
        }
    }

    /// A deadline has been set: the service thread must not sleep beyond it.
    #[inline]
    pub(crate) fn deadline_moved(&self, deadline: Time) {
        if deadline.0 < self.service.sleeps_until.load(Ordering::SeqCst) {
            self.service.wake();
        }
    }

    /// A queue pair has more to send than its share: whoever makes the next pass goes on.
    #[cold]
    pub(crate) fn send_more(&self, qpn: u32) {
        lock(&self.unfinished_list).push(qpn);
        self.unfinished.store(1, Ordering::SeqCst);
        self.deadline_moved(Time::ZERO);
    }

    /// The service thread.
    fn serve(&self) {
        let service = &self.service;
        let mut in_a_row = 0_u32;
        let mut watches = true;
        let mut moderation = Moderation::default();
        while !service.stop.load(Ordering::SeqCst) {
            let now = self.now();
            let is_polled = self.polled.load(Ordering::Relaxed);
            if is_polled {
                self.polled.store(false, Ordering::Relaxed);
            }
            let kicked = if is_polled && !self.is_waited_for(now) {
                watches &= self.link.watch(false).is_err();
                self.sleep_aside(TICK)
            } else if let Some(packets) = self.pass(now, Who::Service) {
                moderation.took(packets);
                in_a_row += 1;
                if in_a_row.is_multiple_of(PASSES_IN_A_ROW) {
                    self.look_at_port();
                    yield_now();
                }
                continue;
            } else if moderation.naps(now) && !self.is_waited_for(now) {
                watches &= self.link.watch(false).is_err();
                self.sleep_aside(NAP)
            } else if !watches && self.link.watch(true).is_err() {
                // Nobody would wake us.
                std::thread::sleep(TICK);
                false
            } else {
                watches = true;
                self.sleep_watching()
            };
            if kicked {
                // Not readable if it was the network: an empty read.
                let _ = service.kick.drain();
            }
            self.look_at_port();
        }
    }

    /// Tells the application of a port that went down or came up, and lets the queue pairs go on then.
    fn look_at_port(&self) {
        let Some(state) = self.link.state() else { return };
        while let Some(is_up) = state.look() {
            let kind = if is_up { AsyncEventKind::PortActive } else { AsyncEventKind::PortErr };
            self.events.push(AsyncEvent { kind, source: EventSource::Port(limits::PORT) });
            if is_up {
                // What was on its way is lost: nobody needs to find out by waiting.
                let now = self.now();
                self.queue_pairs().iter().for_each(|qp| qp.path_is_back(now));
            }
        }
    }

    /// Does somebody sleep until a completion comes, or will soon?
    fn is_waited_for(&self, now: Time) -> bool {
        let armed = Time(self.service.last_armed.load(Ordering::SeqCst));
        self.armed.load(Ordering::SeqCst) > 0 || (armed != Time::ZERO && now.since(armed) < WAITING)
    }

    /// Sleeps until something arrives or is due; whether the kick may be what did.
    fn sleep_watching(&self) -> bool {
        let service = &self.service;
        let next = || self.timers.next().min(self.link.deadline().unwrap_or(Time::NEVER));
        let until = next();
        service.sleeps_until.store(until.0, Ordering::SeqCst);
        // Whoever sets an earlier deadline from here on sees how long we sleep; whoever did before is seen now.
        let mut kicked = false;
        if next() >= until && self.unfinished.load(Ordering::SeqCst) == 0 {
            let timeout = (until != Time::NEVER).then(|| until.since(self.now()));
            kicked = or_a_tick(service.everything.wait(timeout));
        }
        service.sleeps_until.store(0, Ordering::SeqCst);
        kicked
    }

    /// Sleeps for so long, whatever arrives; whether it was kicked.
    fn sleep_aside(&self, how_long: Duration) -> bool {
        let service = &self.service;
        service.steps_aside.store(true, Ordering::SeqCst);
        // Whoever waits from here on sees that we do not watch; whoever did before is seen now.
        let kicked = self.armed.load(Ordering::SeqCst) == 0
            && or_a_tick(wait_one(service.kick.as_fd(), Some(how_long)));
        service.steps_aside.store(false, Ordering::SeqCst);
        kicked
    }
}

/// A wait that fails is a tick, since deadlines must be kept whatever happens.
fn or_a_tick(waited: io::Result<bool>) -> bool {
    waited.unwrap_or_else(|_| {
        std::thread::sleep(TICK);
        true
    })
}
