//! Faults on a live link: what the simulator's wire does to packets, done to those that a device really sends.

use super::{Datagram, Link, Promises, ReceiveScratch, Train, flow, identity_of_inner};
use crate::sync::{AtomicU64, Ordering};
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::io::{self, ErrorKind};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};
use tbrdma_proto::fault::{Delivery, Fate, FaultPlan, Faults};
use tbrdma_proto::wire::icrc::seal;
use tbrdma_proto::{Gid, Time};

/// Packets held back at the same time; what comes on top is lost, as in a full queue. A second of a 10 Gbit/s link is as many.
const MAX_HELD: usize = 1 << 18;

/// How long to wait for room on a link that loses nothing.
const NO_ROOM: Duration = Duration::from_micros(50);

/// How long a link stays after its device is closed, for the packets that it holds.
const LINGERS: Duration = Duration::from_millis(500);

/// A link whose outgoing packets suffer a plan.
///
/// Packets leave one by one, sealed anew, because those of a train suffer each its own fate. Corruption comes after the sealing, so that the
/// receiver finds it as it would on a wire.
pub(crate) struct FaultLink {
    inner: Box<dyn Link>,
    plan: FaultPlan,
    seed: u64,
    state: Mutex<State>,
    /// When the next packet is due, in nanoseconds; the end of time if none is held.
    due: AtomicU64,
}

/// What [`FaultLink`] has under its lock.
struct State {
    /// Unset until the first packet tells what time it is: the plan's partitions count from there.
    faults: Option<Faults>,
    /// When that was, by either clock.
    begun: Option<(Time, Instant)>,
    held: BinaryHeap<Reverse<Held>>,
    /// Numbers packets, so that those due at one time stay in order.
    sequence: u64,
    /// Storage of packets that have left.
    spare: Vec<Vec<u8>>,
    train: Train,
    counts: Counts,
}

#[derive(Clone, Copy, Debug, Default)]
struct Counts {
    dropped: u64,
    corrupted: u64,
    duplicated: u64,
    delayed: u64,
}

/// A packet on its way.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Held {
    at: Time,
    sequence: u64,
    from: u8,
    to: Gid,
    source_port: u16,
    traffic_class: u8,
    hop_limit: u8,
    bytes: Vec<u8>,
}

impl FaultLink {
    /// Does to everything `inner` sends what `plan` says. The same seed, packets and times give the same faults.
    pub(crate) fn new(inner: Box<dyn Link>, plan: FaultPlan, seed: u64) -> Self {
        Self { inner, plan, seed, state: Mutex::new(State::new()), due: AtomicU64::new(u64::MAX) }
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        // Who panicked with the lock held has lost a packet, as packets may be.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sends what is due, in order.
    fn flush(&self, state: &mut State, now: Time) {
        while state.held.peek().is_some_and(|Reverse(held)| held.at <= now) {
            let Some(Reverse(held)) = state.held.pop() else { break };
            let State { train, spare, counts, .. } = &mut *state;
            train.restart_by(self.inner.train_rules(), held.from, held.to);
            train.set_source_port(held.source_port);
            train.set_class(held.traffic_class, held.hop_limit);
            train.next_packet(held.bytes.len()).copy_from_slice(&held.bytes);
            train.end_packet();
            match self.inner.send(now, train) {
                Err(error) if error.kind() == ErrorKind::WouldBlock && self.inner.promises().delivers => {
                    state.held.push(Reverse(held));
                    self.due.store((now + NO_ROOM).0, Ordering::Relaxed);
                    return;
                }
                Ok(()) => {}
                // A full socket loses it.
                Err(_) => counts.dropped += 1,
            }
            spare.push(held.bytes);
        }
        let next = state.held.peek().map_or(Time::NEVER, |Reverse(held)| held.at);
        self.due.store(next.0, Ordering::Relaxed);
    }
}

impl Drop for FaultLink {
    /// What has been sent is on its way, whether or not its sender is still there: the last acknowledgement, above all.
    fn drop(&mut self) {
        let mut state = std::mem::replace(&mut *self.state(), State::new());
        let Some((time, instant)) = state.begun else { return };
        if self.inner.has_virtual_time() {
            // Whoever is left lets time go on, and finds them on the way.
            while let Some(Reverse(Held { at, .. })) = state.held.peek() {
                let at = *at;
                self.flush(&mut state, at);
            }
            return;
        }
        let end = Instant::now() + LINGERS;
        while let Some(Reverse(held)) = state.held.peek() {
            let due = instant + held.at.since(time);
            if due > end || Instant::now() > end {
                break;
            }
            let at = held.at;
            std::thread::sleep(due.saturating_duration_since(Instant::now()));
            self.flush(&mut state, at);
            if state.held.peek().is_some_and(|Reverse(next)| next.at <= at) {
                std::thread::sleep(NO_ROOM);
            }
        }
    }
}

impl State {
    fn new() -> Self {
        Self {
            faults: None,
            begun: None,
            held: BinaryHeap::new(),
            sequence: 0,
            spare: Vec::new(),
            train: Train::new(),
            counts: Counts::default(),
        }
    }

    /// Decides about one packet of a train, and holds what arrives.
    fn take(&mut self, now: Time, train: &Train, index: usize, seal: impl Fn(&mut [u8])) {
        let mut bytes = self.spare.pop().unwrap_or_default();
        bytes.clear();
        bytes.extend_from_slice(train.packet(index));
        let Some(faults) = &mut self.faults else { return };
        let Fate::Delivered { first, second } = faults.apply(now, bytes.len()) else {
            self.counts.dropped += 1;
            self.spare.push(bytes);
            return;
        };
        seal(&mut bytes);
        if let Some(second) = second {
            let mut copy = self.spare.pop().unwrap_or_default();
            copy.clear();
            copy.extend_from_slice(&bytes);
            self.counts.duplicated += 1;
            self.hold(now, train, first, bytes);
            self.hold(now, train, second, copy);
        } else {
            self.hold(now, train, first, bytes);
        }
    }

    fn hold(&mut self, now: Time, train: &Train, delivery: Delivery, mut bytes: Vec<u8>) {
        if self.held.len() >= MAX_HELD {
            self.counts.dropped += 1;
            return;
        }
        self.counts.delayed += u64::from(delivery.at > now);
        self.counts.corrupted += u64::from(delivery.flip.is_some());
        delivery.damage(&mut bytes);
        self.sequence += 1;
        self.held.push(Reverse(Held {
            at: delivery.at,
            sequence: self.sequence,
            from: train.from(),
            to: train.to(),
            source_port: train.source_port(),
            traffic_class: train.traffic_class(),
            hop_limit: train.hop_limit(),
            bytes,
        }));
    }
}

impl Link for FaultLink {
    identity_of_inner!();

    fn describe(&self) -> String {
        format!("{}; faults {} with seed {}", self.inner.describe(), self.plan, self.seed)
    }

    /// Without those that the plan breaks. What it damages it has sealed before, so whoever believes in whole packets sees which are not.
    fn promises(&self) -> Promises {
        let inner = self.inner.promises();
        Promises { delivers: inner.delivers && self.plan.is_lossless(), ..inner }
    }

    fn send(&self, now: Time, train: &mut Train) -> io::Result<()> {
        let from = self.gids().get(usize::from(train.from())).copied().unwrap_or_default();
        let flow = flow(from, train.source_port(), train.to()).ok_or(ErrorKind::AddrNotAvailable)?;
        let mut state = self.state();
        state.begun.get_or_insert_with(|| (now, Instant::now()));
        state.faults.get_or_insert_with(|| Faults::starting_at(self.plan.clone(), self.seed, now));
        while train.sent < train.len() {
            if state.held.len() >= MAX_HELD && self.promises().delivers {
                self.flush(&mut state, now);
                return Err(ErrorKind::WouldBlock.into());
            }
            let index = train.sent;
            state.take(now, train, index, |bytes| {
                // Too short for an iCRC it cannot be: the engine has sealed it before.
                let _ = seal(&flow, 0, bytes);
            });
            train.sent += 1;
        }
        self.flush(&mut state, now);
        Ok(())
    }

    fn receive(
        &self,
        now: Time,
        scratch: &mut ReceiveScratch,
        sink: &mut dyn FnMut(&Datagram<'_>),
    ) -> io::Result<usize> {
        self.inner.receive(now, scratch, sink)
    }

    fn poll(&self, now: Time) {
        if self.due.load(Ordering::Relaxed) <= now.0 {
            self.flush(&mut self.state(), now);
        }
        self.inner.poll(now);
    }

    fn deadline(&self) -> Option<Time> {
        let due = Time(self.due.load(Ordering::Relaxed));
        let ours = (due != Time::NEVER).then_some(due);
        ours.into_iter().chain(self.inner.deadline()).min()
    }

    fn counters(&self) -> Vec<(&'static str, u64)> {
        let mut all = self.inner.counters();
        let counts = self.state().counts;
        all.extend([
            ("fault_dropped", counts.dropped),
            ("fault_corrupted", counts.corrupted),
            ("fault_duplicated", counts.duplicated),
            ("fault_delayed", counts.delayed),
        ]);
        all
    }
}
