//! When time may go on for who waits: when every thread that takes part has looked at the latest news and found nothing.
//!
//! A thread takes part by polling or waiting. One that has found something, and computes, holds time up; but not for ever: while it is away, time goes
//! on as fast as it really does, and after a while it counts as gone. A wait that nothing on the network can end may be about to be ended by a thread that
//! has not been here yet: where there are other threads, it lasts a while. In a program with one thread nothing of this happens. Polls wait for nobody.
//!
//! Threads that asked for it *take turns*: of those only one runs at a time, in the order in which they asked, until it polls in vain or waits. What such
//! threads do follows from the seed as it does in a program with one.

use super::network::{Drive, Network, STEP};
use crate::sys::threads;
use std::sync::{Arc, MutexGuard, Weak};
use std::time::{Duration, Instant};
use tbrdma_proto::Time;

/// How long other threads are given to do something where nothing else can happen.
const CHANCE: Duration = Duration::from_secs(1);

/// A thread that has been away so long is gone, until it comes back.
const GONE: Duration = Duration::from_millis(200);

thread_local! {
    /// There while the thread is.
    static LIFE: Arc<()> = Arc::default();
}

/// The calling thread, to be known again while it lives.
fn this_thread() -> Weak<()> {
    LIFE.with(Arc::downgrade)
}

/// A thread that takes part.
struct Actor {
    id: u64,
    /// Nobody yet for one that takes turns, and has not begun.
    thread: Weak<()>,
    takes_turns: bool,
    /// The news when it last found nothing.
    seen: Option<u64>,
    /// When it wants to look again, whatever happens.
    until: Time,
    /// It sleeps in a call of ours: it is not away.
    asleep: bool,
    /// When it was last here.
    here: Instant,
}

/// What a thread does that has found nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Rest {
    /// It polls: it returns at once.
    Poll,
    /// It waits for something.
    Wait,
    /// It waits for a time.
    Sleep,
}

/// The threads that take part.
#[derive(Default)]
pub(super) struct Actors {
    all: Vec<Actor>,
    ids: u64,
    /// Whose turn it is.
    running: Option<u64>,
    /// Since when time goes on no faster than it really does, by either clock.
    pace: Option<(Instant, Time)>,
}

impl Actors {
    fn at(&mut self, id: u64) -> Option<&mut Actor> {
        self.all.iter_mut().find(|actor| actor.id == id)
    }

    fn add(&mut self, thread: Weak<()>, takes_turns: bool) -> u64 {
        self.ids += 1;
        self.all.push(Actor {
            id: self.ids,
            thread,
            takes_turns,
            seen: None,
            until: Time::NEVER,
            asleep: false,
            here: Instant::now(),
        });
        self.ids
    }

    /// The actor that the calling thread is.
    fn find_or_add(&mut self, thread: Weak<()>) -> u64 {
        let known = self.all.iter().find(|actor| actor.thread.ptr_eq(&thread));
        known.map(|actor| actor.id).unwrap_or_else(|| self.add(thread, false))
    }

    /// Who of those that take turns is the next after `id` to look at the latest news.
    fn next_turn(&self, id: u64, news: u64) -> Option<u64> {
        let eager = |actor: &&Actor| actor.takes_turns && actor.seen != Some(news);
        let mut later = self.all.iter().filter(|actor| actor.id > id);
        let next = later.find(eager).or_else(|| self.all.iter().find(eager));
        next.map(|actor| actor.id)
    }

    /// Whether every other thread has seen the latest news, and wants nothing. Forgets those that are gone.
    fn all_rest(&mut self, news: u64) -> bool {
        if self.all.len() == 1 {
            return true;
        }
        self.all.retain(|actor| {
            actor.takes_turns
                || actor.asleep
                || actor.seen == Some(news)
                || (actor.thread.strong_count() > 0 && actor.here.elapsed() < GONE)
        });
        self.all.iter().all(|actor| actor.seen == Some(news))
    }

    /// The earliest time from `now` on at which somebody wants to look again. Whose time has passed was told then.
    fn until(&self, now: Time) -> Time {
        let times = self.all.iter().map(|actor| actor.until).filter(|until| *until > now);
        times.min().unwrap_or(Time::NEVER)
    }
}

/// A thread's place at a network, for one look.
pub(super) struct Seat<'a> {
    network: &'a Network,
    id: u64,
    /// The news before the look.
    news: u64,
}

impl<'a> Seat<'a> {
    /// Takes the calling thread's place. It looks for what it wants after this.
    pub(super) fn take(network: &'a Network) -> Self {
        let news = network.news();
        let id = network.drive().actors.find_or_add(this_thread());
        Self { network, id, news }
    }

    /// It has found nothing: does what is due now, or else lets time go on, but not beyond `until`. Returns when it may be worth to look again.
    pub(super) fn rest(&self, until: Time, how: Rest) {
        let network = self.network;
        let mut drive = network.drive();
        if network.settle(&drive) {
            // For whom, we do not know: perhaps for this thread.
            self.update(&mut drive, None, until);
            return;
        }
        self.update(&mut drive, Some(self.news), until);
        if drive.actors.at(self.id).is_some_and(|actor| actor.takes_turns) {
            drive.actors.running = None;
            self.await_turn(drive);
            return;
        }
        if how == Rest::Poll {
            let now = network.now();
            // What others are about to do must not come after a long step.
            let until = if drive.actors.all_rest(self.news) { drive.actors.until(now) } else { now + STEP };
            network.advance(&drive, until);
        } else {
            drive = self.go_on_when_all_rest(drive, how == Rest::Wait);
        }
        if let Some(actor) = drive.actors.at(self.id) {
            actor.here = Instant::now();
        }
    }

    /// Lets time go on as soon as it may, unless something else happens before; it may later if somebody may end this wait.
    fn go_on_when_all_rest(
        &self,
        mut drive: MutexGuard<'a, Drive>,
        is_for_something: bool,
    ) -> MutexGuard<'a, Drive> {
        let network = self.network;
        let begun = Instant::now();
        loop {
            let seen = network.gate.count();
            if network.news() != self.news {
                return drive;
            }
            let chance = if is_for_something { self.chance(&drive, begun) } else { None };
            let timeout = match chance {
                Some(left) => Some(left),
                None => match self.go_on(&mut drive) {
                    Ok(()) => return drive,
                    Err(timeout) => timeout,
                },
            };
            drive = self.sleep(drive, seen, timeout);
        }
    }

    fn update(&self, drive: &mut Drive, seen: Option<u64>, until: Time) {
        if let Some(actor) = drive.actors.at(self.id) {
            actor.seen = seen;
            actor.until = until;
            actor.here = Instant::now();
        }
    }

    /// For how much longer other threads have a chance, where nothing on the network will happen before somebody's patience is over.
    fn chance(&self, drive: &Drive, begun: Instant) -> Option<Duration> {
        let now = self.network.now();
        let until = drive.actors.until(now);
        if until == Time::NEVER || self.network.next_event(drive) <= until {
            return None;
        }
        let left = until.since(now).min(CHANCE).checked_sub(begun.elapsed())?;
        (!left.is_zero() && !threads::alone()).then_some(left)
    }

    /// Lets time go on if it may. If not: after which real time it may perhaps, `None` if only somebody's doing can change that.
    fn go_on(&self, drive: &mut Drive) -> Result<(), Option<Duration>> {
        let network = self.network;
        let news = network.news();
        let until = drive.actors.until(network.now());
        if drive.actors.all_rest(news) {
            drive.actors.pace = None;
            return if network.advance(drive, until) { Ok(()) } else { Err(None) };
        }
        let (since, from) = *drive.actors.pace.get_or_insert_with(|| (Instant::now(), network.now()));
        let allowed = from + since.elapsed();
        if network.advance(drive, until.min(allowed)) {
            return Ok(());
        }
        let next = network.next_event(drive).min(until);
        Err(Some(next.since(allowed).min(GONE)))
    }

    /// Gives the drive away, and sleeps.
    fn sleep<'d>(
        &self,
        mut drive: MutexGuard<'d, Drive>,
        seen: u64,
        timeout: Option<Duration>,
    ) -> MutexGuard<'d, Drive>
    where
        'a: 'd,
    {
        let asleep = |drive: &mut Drive, asleep| {
            if let Some(actor) = drive.actors.at(self.id) {
                actor.asleep = asleep;
            }
        };
        asleep(&mut drive, true);
        drop(drive);
        self.network.gate.sleep(seen, timeout);
        let mut drive = self.network.drive();
        asleep(&mut drive, false);
        drive
    }

    /// Waits for this thread's turn, and lets time go on when nobody wants one.
    fn await_turn(&self, mut drive: MutexGuard<'a, Drive>) {
        let network = self.network;
        loop {
            let seen = network.gate.count();
            let mut timeout = None;
            if drive.actors.running.is_none() {
                let mut next = drive.actors.next_turn(self.id, network.news());
                if next.is_none() {
                    match self.go_on(&mut drive) {
                        Ok(()) => next = drive.actors.next_turn(self.id, network.news()),
                        Err(after) => timeout = after,
                    }
                }
                if let Some(next) = next {
                    drive.actors.running = Some(next);
                    if next != self.id {
                        network.gate.open();
                    }
                }
            }
            if drive.actors.running == Some(self.id) {
                return;
            }
            drive = self.sleep(drive, seen, timeout);
        }
    }
}

/// A place among the threads of a network that take turns.
pub(crate) struct Turn {
    network: Arc<Network>,
    id: u64,
}

impl Turn {
    /// Another place, behind those there are. Time stands still from now on until it is [begun](Self::begin), and whenever its thread is busy.
    pub(crate) fn new(network: &Arc<Network>) -> Self {
        let id = network.drive().actors.add(Weak::new(), true);
        Self { network: Arc::clone(network), id }
    }

    /// The calling thread takes the place, and waits for its turn.
    pub(crate) fn begin(&self) {
        let mut drive = self.network.drive();
        let thread = this_thread();
        drive.actors.all.retain(|actor| !actor.thread.ptr_eq(&thread));
        if let Some(actor) = drive.actors.at(self.id) {
            actor.thread = thread;
        }
        if drive.actors.running.is_none() {
            // Before the first turn nobody has seen anything: the first place is the first.
            drive.actors.running = drive.actors.next_turn(0, self.network.news());
            self.network.gate.open();
        }
        let seat = Seat { network: &self.network, id: self.id, news: self.network.news() };
        seat.await_turn(drive);
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let mut drive = self.network.drive();
        drive.actors.all.retain(|actor| actor.id != self.id);
        if drive.actors.running == Some(self.id) {
            drive.actors.running = drive.actors.next_turn(self.id, self.network.news());
        }
        drop(drive);
        self.network.gate.open();
    }
}
