//! Several threads on a side: each with queue pairs, completion queues, buffers and figures of its own, and a lane of the control channel to
//! its opposite number.
//!
//! The initiator's main thread conducts: it gives all threads the same order, each does its share of it, and all begin at once. Between orders
//! they are asleep, so that the main thread has the machine for itself when it measures the floor. With one thread there is nothing to
//! conduct: the main thread does it all.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, TryRecvError};
use std::time::Duration;

use crate::affinity;
use crate::clock;
use crate::control::{Channel, Message};
use crate::error::{Error, Result};
use crate::floor::Carrier;
use crate::interference::Tally;
use crate::open_loop::Pace;
use crate::plan::Plan;
use crate::session::{OpenDevice, Role, Session};
use crate::watch::{Spins, Watch};

/// What threads say to each other is no event of a simulated network: after so much of its time they look again.
const SLICE: Duration = Duration::from_millis(1);

/// What a thread of the initiator does.
pub trait Part: Sized {
    /// What it is told to do.
    type Order: Clone + Send;
    /// What came of it.
    type Found: Send;

    /// Fills memory and posts receives; the sides meet after this.
    ///
    /// # Errors
    /// Receives cannot be posted.
    fn new(sessions: Vec<Session>) -> Result<Self>;

    /// The first of its queue pairs.
    fn session(&self) -> &Session;

    /// Does its share of what all threads are told.
    ///
    /// # Errors
    /// A verbs call or a completion failed, the peer went away, or the user interrupted.
    fn perform(&mut self, order: Self::Order, share: &Share, channel: &mut Channel) -> Result<Self::Found>;
}

/// Which part of an order is a thread's.
#[derive(Debug, Clone)]
pub struct Share {
    index: u32,
    of: u32,
    together: Arc<AtomicU64>,
}

impl Share {
    fn new(index: u32, of: u32, together: &Arc<AtomicU64>) -> Self {
        Self { index, of, together: Arc::clone(together) }
    }

    /// All of it.
    #[must_use]
    pub fn whole() -> Self {
        Self { index: 0, of: 1, together: Arc::default() }
    }

    /// Its part of so many messages.
    #[must_use]
    pub fn part(&self, total: u64) -> u64 {
        part(total, self.index, self.of)
    }

    /// Its part of a pace, with dice of its own.
    #[must_use]
    pub fn paced(&self, pace: Pace) -> Pace {
        let seed = pace.seed.wrapping_add(self.index.into());
        Pace { rate: pace.rate / f64::from(self.of), seed, ..pace }
    }

    /// Waits until all threads are about to begin. Each takes part once in each order that is timed.
    ///
    /// # Errors
    /// One of the others did not come, as it failed or is stuck.
    pub fn begin_together(&self, watch: &Watch) -> Result<()> {
        if self.of == 1 {
            return Ok(());
        }
        let of = u64::from(self.of);
        let all = (self.together.fetch_add(1, Ordering::AcqRel) / of + 1) * of;
        let are_there = || self.together.load(Ordering::Acquire) >= all;
        let mut spins = Spins::default();
        while !are_there() {
            if clock::is_simulated() {
                clock::wait_in_turn(SLICE, || are_there().then_some(()));
                watch.look(&mut spins, "start of another thread")?;
            } else {
                tbrdma::relax(spins.count());
                watch.turn(&mut spins, "start of another thread")?;
            }
        }
        Ok(())
    }
}

/// What is the part of number `index`, when `total` is divided among `of`.
#[must_use]
pub fn part(total: u64, index: u32, of: u32) -> u64 {
    let of = u64::from(of.max(1));
    total / of + u64::from(u64::from(index) < total % of)
}

/// What is known of a thread once it is connected.
pub struct Started {
    /// What carries the same bytes without the library.
    pub carrier: Carrier,
    /// Whose memory messages are in.
    pub memory: &'static str,
    /// Looks around during waits.
    pub watch: Watch,
    /// The core it is pinned to.
    pub core: Option<usize>,
}

impl Started {
    fn of(open: &OpenDevice, session: &Session, core: Option<usize>) -> Self {
        Self {
            carrier: carrier(open, session),
            memory: session.incoming.says(),
            watch: session.watch.clone(),
            core,
        }
    }
}

/// What carries the same bytes as the device without the library.
#[must_use]
pub fn carrier(open: &OpenDevice, session: &Session) -> Carrier {
    Carrier::of(&open.name, session.qp.address().gid, open.mtu, session.plan.wait)
}

/// The initiator's threads.
pub enum Crew<P: Part> {
    /// The main thread does it.
    Alone(Box<P>),
    /// So many others do.
    Many(Vec<Member<P>>),
}

/// A thread of the initiator.
pub struct Member<P: Part> {
    orders: Sender<P::Order>,
    found: Receiver<Result<P::Found>>,
    ended: Receiver<Result<Tallies>>,
    alarm: Arc<AtomicBool>,
}

/// What happened to two threads that talked to each other.
#[derive(Debug, Clone, Copy, Default)]
pub struct Tallies {
    /// The initiator's.
    pub initiator: Tally,
    /// The responder's.
    pub responder: Tally,
}

impl<P: Part> Crew<P> {
    /// How many threads there are.
    #[must_use]
    pub fn threads(&self) -> usize {
        match self {
            Self::Alone(_) => 1,
            Self::Many(members) => members.len(),
        }
    }

    /// Has all threads do their shares of something; what each found, in their order.
    ///
    /// # Errors
    /// What the first of them that failed says of it.
    pub fn all(&mut self, channel: &mut Channel, order: &P::Order) -> Result<Vec<P::Found>> {
        let members = match self {
            Self::Alone(part) => {
                return part.perform(order.clone(), &Share::whole(), channel).map(|found| vec![found]);
            }
            Self::Many(members) => members,
        };
        for member in members.iter() {
            // A thread that has gone has said why, and that is taken below.
            let _ = member.orders.send(order.clone());
        }
        let found = members.iter().map(|member| take(&member.found).unwrap_or_else(gone));
        all_or_cause(found.collect())
    }

    /// Ends the threads; what happened to each pair of them.
    ///
    /// # Errors
    /// One did not part from its opposite number in good order.
    pub fn end(self) -> Result<Vec<Tallies>> {
        let Self::Many(members) = self else { return Ok(Vec::new()) };
        let (orders, ended): (Vec<_>, Vec<_>) =
            members.into_iter().map(|member| (member.orders, member.ended)).unzip();
        drop(orders);
        all_or_cause(ended.iter().map(|ended| take(ended).unwrap_or_else(gone)).collect())
    }

    /// Ends the threads after something went wrong: those that wait for the peer hear of it.
    fn abandon(self) {
        if let Self::Many(members) = &self {
            for member in members {
                member.alarm.store(true, Ordering::Release);
            }
        }
        // What they say of it follows from what is known.
        let _ = self.end();
    }
}

fn gone<T>() -> Result<T> {
    Err(Error::Run("a thread of this side is gone".into()))
}

/// All of it, or that failure which the others follow from.
///
/// # Errors
/// That one.
pub fn all_or_cause<T>(found: Vec<Result<T>>) -> Result<Vec<T>> {
    let mut good = Vec::with_capacity(found.len());
    let mut cause: Option<Error> = None;
    let follows = |error: &Error| matches!(error, Error::Alarm | Error::PeerGone { .. });
    for one in found {
        match one {
            Ok(one) => good.push(one),
            Err(error) if cause.as_ref().is_none_or(|cause| follows(cause) && !follows(&error)) => {
                cause = Some(error);
            }
            Err(_) => {}
        }
    }
    cause.map_or(Ok(good), Err)
}

/// The next of what another thread of this process sends; `None` when that is gone.
pub fn take<T>(from: &Receiver<T>) -> Option<T> {
    loop {
        match clock::wait_in_turn(SLICE, || match from.try_recv() {
            Err(TryRecvError::Empty) => None,
            found => Some(found.ok()),
        }) {
            Some(Some(found)) => return found,
            Some(None) => {}
            None => return from.recv().ok(),
        }
    }
}

/// Has `run` conduct the threads of the plan, connected to those of the peer, and ends them after it: what it returns, what is known of each thread, and
/// what happened to each.
///
/// # Errors
/// A thread cannot be connected, or what `run` says.
pub fn conduct<P: Part, T>(
    open: &OpenDevice,
    plan: &Plan,
    cores: &[usize],
    channel: &mut Channel,
    run: impl FnOnce(&mut Crew<P>, &[Started], &mut Channel) -> Result<T>,
) -> Result<(T, Vec<Started>, Vec<Tallies>)> {
    if plan.threads == 1 {
        let sessions = Session::establish_thread(open, plan, Role::Initiator, channel, 0)?;
        let part = Box::new(P::new(sessions)?);
        part.session().meet(channel)?;
        let started = vec![Started::of(open, part.session(), cores.first().copied())];
        let found = run(&mut Crew::Alone(part), &started, channel)?;
        return Ok((found, started, Vec::new()));
    }
    let together = Arc::default();
    let lanes = (1..=plan.threads).map(|number| channel.lane(number)).collect::<Result<Vec<_>>>()?;
    // All places are taken before any thread begins.
    let turns: Vec<_> = lanes.iter().map(|_| open.device.take_turns()).collect();
    std::thread::scope(|scope| {
        let mut ready = Vec::new();
        let mut members = Vec::new();
        for ((index, mut lane), turn) in (0..).zip(lanes).zip(turns) {
            let share = Share::new(index, plan.threads, &together);
            let (orders, to_do) = std::sync::mpsc::channel();
            let (done, found) = std::sync::mpsc::channel();
            let (tell, told) = std::sync::mpsc::channel();
            ready.push(told);
            let core = cores.get(index as usize).copied();
            let alarm = lane.alarm();
            let (last, ended) = std::sync::mpsc::channel();
            scope.spawn(move || {
                let _turn = turn.begin();
                let worked = work::<P>(open, plan, &share, core, &mut lane, &tell, &to_do, &done);
                if let Err(error) = &worked {
                    let error = lane.explain(error.clone());
                    // The threads beside it hear of it; the peer's hear it from the main thread.
                    lane.alarm().store(true, Ordering::Release);
                    let _ = tell.send(Err(error.clone()));
                    let _ = done.send(Err(error));
                }
                // The main thread waits for this, and not for the thread, which may take turns with it.
                let _ = last.send(worked);
            });
            members.push(Member { orders, found, ended, alarm });
        }
        let mut crew = Crew::Many(members);
        let started = all_or_cause(ready.iter().map(|told| take(told).unwrap_or_else(gone)).collect());
        let outcome =
            started.and_then(|started| run(&mut crew, &started, channel).map(|found| (found, started)));
        match outcome {
            Ok((found, started)) => crew.end().map(|tallies| (found, started, tallies)),
            Err(error) => {
                crew.abandon();
                Err(error)
            }
        }
    })
}

/// What a thread of the initiator does from its begin to its end.
fn work<P: Part>(
    open: &OpenDevice,
    plan: &Plan,
    share: &Share,
    core: Option<usize>,
    lane: &mut Channel,
    tell: &Sender<Result<Started>>,
    orders: &Receiver<P::Order>,
    done: &Sender<Result<P::Found>>,
) -> Result<Tallies> {
    if let Some(core) = core {
        affinity::pin(core)?;
    }
    let sessions = Session::establish_thread(open, plan, Role::Initiator, lane, share.index)?;
    let mut part = P::new(sessions)?;
    part.session().meet(lane)?;
    let tally = Tally::now();
    // The main thread waits for both.
    let _ = tell.send(Ok(Started::of(open, part.session(), core)));
    while let Some(order) = take(orders) {
        let _ = done.send(Ok(part.perform(order, share, lane)?));
    }
    let initiator = Tally::now().since(tally);
    lane.send(&Message::Finish)?;
    match lane.receive(Duration::from_millis(plan.timeout_ms))? {
        Message::Bye { switches: responder, .. } => Ok(Tallies { initiator, responder }),
        other => Err(lane.unexpected(&other, "`bye`")),
    }
}

/// The cores of the threads of a side, if there is one for each thread of both sides; else the system places them.
#[must_use]
pub fn cores(plan: &Plan, role: Role, allowed: &[usize]) -> Vec<usize> {
    let threads = plan.threads as usize;
    if threads == 1 || allowed.len() < 2 * threads {
        return Vec::new();
    }
    // Neighbours talk to each other.
    let first = usize::from(role == Role::Responder);
    allowed.iter().copied().skip(first).step_by(2).take(threads).collect()
}

#[cfg(test)]
mod tests {
    use super::{all_or_cause, cores, part};
    use crate::error::Error;
    use crate::session::Role;

    #[test]
    fn shares_are_even_and_leave_nothing() {
        for (total, of) in [(0, 3), (1, 3), (10, 3), (12, 4), (1000, 64), (7, 1)] {
            let shares: Vec<u64> = (0..of).map(|index| part(total, index, of)).collect();
            assert_eq!(shares.iter().sum::<u64>(), total);
            assert!(shares.iter().max().unwrap() - shares.iter().min().unwrap() <= 1, "{shares:?}");
        }
    }

    #[test]
    fn threads_have_a_core_each_or_go_where_the_system_puts_them() {
        let flags = crate::cli::PingpongFlags {
            lanes: crate::cli::LaneFlags { threads: Some(2), qps: None },
            ..Default::default()
        };
        let plan = flags.plan().unwrap();
        let both =
            |allowed: &[usize]| [Role::Initiator, Role::Responder].map(|role| cores(&plan, role, allowed));
        assert_eq!(both(&[0, 1, 4, 5, 9]), [vec![0, 4], vec![1, 5]], "neighbours talk to each other");
        assert!(both(&[0, 1, 2]).iter().all(Vec::is_empty));
    }

    #[test]
    fn the_cause_counts_for_more_than_what_follows_from_it() {
        let gone = || Error::PeerGone { peer: "x".into(), detail: String::new() };
        let cause = Error::Run("wrong key".into());
        let found =
            vec![Err(Error::Alarm), Ok(1), Err(gone()), Err(cause.clone()), Err(Error::Run("later".into()))];
        assert_eq!(all_or_cause(found), Err(cause));
        assert_eq!(all_or_cause(vec![Err::<u8, _>(Error::Alarm), Err(gone())]), Err(Error::Alarm));
        assert_eq!(all_or_cause(vec![Ok(1), Ok(2)]), Ok(vec![1, 2]));
    }
}
