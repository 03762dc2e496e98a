//! A network: its adapters, their clock, and doing what is due.

use super::gate::Gate;
use super::ports::{Port, Ports};
use super::pump::Pump;
use super::turns::{Actors, Rest, Seat};
use crate::sync::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, Weak};
use std::time::Duration;
use tbrdma_proto::{Gid, Time};

/// The networks of this process.
static NETWORKS: Mutex<Vec<(String, Weak<Network>)>> = Mutex::new(Vec::new());

/// How far an empty poll lets time go on at least, if nothing happens before.
pub(super) const STEP: Duration = Duration::from_micros(1);
/// And how far at most.
const LONGEST_STEP: Duration = Duration::from_millis(1);
/// Between these it is this part of the time in which nothing has happened: who polls until an hour is over must not poll for hours.
const STEPS_OF_A_LULL: u32 = 64;

/// An adapter, as its network sees it.
pub(crate) trait Node: Send + Sync {
    /// When it has something to do; a time that has passed if it has now.
    fn next_event(&self) -> Time;
    /// Does what is due at `now`. True if there may be more.
    fn work(&self, now: Time) -> bool;
}

/// A network, and its clock.
pub(crate) struct Network {
    name: String,
    now: AtomicU64,
    /// When something was last posted or done.
    busy_at: AtomicU64,
    /// Counts what may give anybody something to do. Who has found nothing remembers it: time goes on when all have seen the latest.
    news: AtomicU64,
    pub(super) gate: Gate,
    ports: RwLock<Ports>,
    drive: Mutex<Drive>,
    pump: Pump,
}

/// What only one thread at a time does.
#[derive(Default)]
pub(super) struct Drive {
    nodes: Vec<Weak<dyn Node>>,
    pub(super) actors: Actors,
}

impl Network {
    /// The network of this name; a new one, at time zero, if there is none.
    pub(crate) fn of(name: &str) -> Arc<Self> {
        let mut networks = NETWORKS.lock().unwrap_or_else(PoisonError::into_inner);
        networks.retain(|(_, network)| network.strong_count() > 0);
        let known = networks.iter().find(|(known, _)| known == name);
        if let Some(network) = known.and_then(|(_, network)| network.upgrade()) {
            return network;
        }
        let network = Arc::new(Self {
            name: name.to_owned(),
            now: AtomicU64::new(0),
            busy_at: AtomicU64::new(0),
            news: AtomicU64::new(0),
            gate: Gate::default(),
            ports: RwLock::default(),
            drive: Mutex::default(),
            pump: Pump::default(),
        });
        networks.push((name.to_owned(), Arc::downgrade(&network)));
        network
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// What its adapters are called.
    pub(super) fn device_name(&self) -> String {
        tbrdma_proto::Backend::Sim(self.name.clone()).to_string()
    }

    /// Time on this network, since it began.
    #[inline]
    pub(crate) fn now(&self) -> Time {
        Time(self.now.load(Ordering::SeqCst))
    }

    pub(super) fn add_port(&self) -> Option<Arc<Port>> {
        self.ports.write().unwrap_or_else(PoisonError::into_inner).add()
    }

    pub(super) fn remove_port(&self, port: &Port) {
        self.ports.write().unwrap_or_else(PoisonError::into_inner).remove(port);
    }

    pub(super) fn port_at(&self, gid: &Gid) -> Option<(Arc<Port>, u8)> {
        self.ports.read().unwrap_or_else(PoisonError::into_inner).at(gid)
    }

    /// An adapter comes. It does its part until it is dropped.
    pub(crate) fn join(&self, node: Weak<dyn Node>) {
        let mut drive = self.drive();
        drive.nodes.retain(|node| node.strong_count() > 0);
        drive.nodes.push(node);
    }

    pub(super) fn drive(&self) -> MutexGuard<'_, Drive> {
        self.drive.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Somebody may have something to do now: work was posted, or completed, by a call.
    pub(crate) fn stir(&self) {
        self.busy_at.fetch_max(self.now().0, Ordering::Relaxed);
        self.tell();
    }

    /// What happened so far. Take it before looking for anything.
    pub(super) fn news(&self) -> u64 {
        self.news.load(Ordering::SeqCst)
    }

    fn tell(&self) {
        self.news.fetch_add(1, Ordering::SeqCst);
        self.gate.open();
    }

    /// Does what is due now, on all adapters in their order, until nothing is. True if anything was.
    pub(super) fn settle(&self, drive: &Drive) -> bool {
        let now = self.now();
        let mut worked = false;
        loop {
            let mut busy = false;
            for node in drive.nodes.iter().filter_map(Weak::upgrade) {
                let mut more = false;
                while more || node.next_event() <= now {
                    more = node.work(now);
                    busy = true;
                }
            }
            if !busy {
                break;
            }
            worked = true;
        }
        if worked {
            self.stir();
        }
        worked
    }

    /// When something is next to be done.
    pub(super) fn next_event(&self, drive: &Drive) -> Time {
        let events = drive.nodes.iter().filter_map(Weak::upgrade).map(|node| node.next_event());
        events.min().unwrap_or(Time::NEVER)
    }

    /// Lets time go on to the next event, or to `until` if that is earlier, and does what is due then. False if time stands there already.
    pub(super) fn advance(&self, drive: &Drive, until: Time) -> bool {
        let to = self.next_event(drive).min(until);
        if to <= self.now() || to == Time::NEVER {
            return false;
        }
        self.now.store(to.0, Ordering::SeqCst);
        if !self.settle(drive) {
            self.tell();
        }
        true
    }

    /// A thread has polled and found nothing: does what is due, or else lets time go on a little.
    pub(crate) fn poll(&self) {
        let now = self.now();
        let lull = now.since(Time(self.busy_at.load(Ordering::Relaxed)));
        let until = now + (lull / STEPS_OF_A_LULL).clamp(STEP, LONGEST_STEP);
        Seat::take(self).rest(until, Rest::Poll);
    }

    /// As [`wait_for`](Self::wait_for), until this time.
    fn wait<T>(&self, until: Time, how: Rest, mut look: impl FnMut() -> Option<T>) -> Option<T> {
        loop {
            let seat = Seat::take(self);
            let over = self.now() >= until;
            if let Some(found) = look() {
                return Some(found);
            }
            if over {
                return None;
            }
            seat.rest(until, how);
        }
    }

    /// What `look` finds now, or after one poll.
    pub(crate) fn try_look<T>(&self, mut look: impl FnMut() -> Option<T>) -> Option<T> {
        look().or_else(|| {
            self.poll();
            look()
        })
    }

    /// What `look` finds, looked for now and whenever anything has happened, for at most so long; for ever if `None`. One that is to take no time is a poll: who does nothing else must get on, too.
    pub(crate) fn wait_for<T>(
        &self,
        timeout: Option<Duration>,
        look: impl FnMut() -> Option<T>,
    ) -> Option<T> {
        match timeout {
            Some(Duration::ZERO) => self.try_look(look),
            Some(timeout) => self.wait(self.now() + timeout, Rest::Wait, look),
            None => self.wait(Time::NEVER, Rest::Wait, look),
        }
    }

    /// Lets time go on by so much.
    pub(crate) fn sleep(&self, duration: Duration) {
        let until = self.now() + duration;
        self.wait(until, Rest::Sleep, || None::<()>);
    }

    /// Somebody will sleep in a descriptor from now on, where we do not see it.
    pub(crate) fn is_watched(self: &Arc<Self>) {
        self.pump.start(self);
    }
}
