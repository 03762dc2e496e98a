//! Latency: one message at a time.
//!
//! What is inside a sample: the clock is read, the message is posted, the answer (or the completion, for operations that the
//! target does not answer) is seen, the clock is read. What is outside: making the next message's bytes and writing its work request,
//! as programs have theirs ready before there is a reason to post them, checking the last message's bytes and reposting its receive. The responder makes its answer before the question comes, and checks the question after it
//! has answered, while the answer and the next question are under way; two messages never share a slot, so what is being
//! checked is not overwritten.
//!
//! With a [`Pace`] messages are due by the clock (see [`crate::open_loop`]); what is done outside the samples then comes off the time until the next.

use std::time::Duration;

use crate::cli::Extent;
use crate::clock::{self, Clock, Stamp};
use crate::control::{Account, Channel, Go, Message, Phase};
use crate::error::Result;
use crate::histogram::{Latencies, Measures};
use crate::open_loop::{OpenLoop, Pace};
use crate::pattern::{PING, PONG, Pattern, READ};
use crate::plan::Op;
use crate::progress::Progress;
use crate::session::{Role, Session};
use crate::timeline::{Stretch, Timeline};
use crate::watch::Spins;
use crate::wire::{Arrival, Wire, atomic_value};

/// How long a batch lasts, between two moves of the progress bar.
const BATCH_TIME: Duration = Duration::from_millis(100);
/// The same in an open loop, where the pauses between are not on the schedule.
const OPEN_BATCH_TIME: Duration = Duration::from_secs(1);
/// Messages of such a batch at least.
const OPEN_BATCH_LEAST: u64 = 16;
/// How long the warm-up lasts when the user gives no number.
const WARMUP_TIME: Duration = Duration::from_millis(100);
/// Unrecorded exchanges at the head of each batch, after both sides have slept on the control channel.
const LEAD_IN: u64 = 32;
/// Above this size a few exchanges are enough to wake up.
const LARGE: usize = 64 << 10;
const LEAD_IN_LARGE: u64 = 2;

/// One side of a pingpong.
pub struct Pingpong {
    wire: Wire,
    /// Bytes which this side sends, and those which it gets.
    ours: Pattern,
    theirs: Pattern,
    next: u64,
    account: Account,
}

/// What a pingpong found.
#[derive(Debug)]
pub struct Outcome {
    /// The recorded latencies.
    pub latencies: Latencies,
    /// What was found of messages that were due by the clock.
    pub open_loop: Option<OpenLoop>,
    /// The median of each batch divided by that of the floor right before and after it.
    pub ratios: Vec<f64>,
    /// The batches in the course of time.
    pub timeline: Vec<Stretch>,
    /// Unrecorded messages before the first recorded one.
    pub warmup: u64,
    /// Unrecorded messages between recorded ones, at the heads of batches.
    pub lead_in: u64,
    /// All messages that left the initiator.
    pub messages: u64,
    /// What both sides checked.
    pub account: Account,
}

impl Pingpong {
    /// Fills memory and posts receives; the sides meet after this.
    ///
    /// # Errors
    /// Receives cannot be posted.
    pub fn new(session: Session) -> Result<Self> {
        let (plan, role) = (session.plan.clone(), session.role);
        let mut wire = Wire::new(session);
        let pattern = |salt| Pattern::new(salt, wire.layout.size, plan.depth as usize);
        let (ours, theirs) = match (plan.op, role) {
            (Op::Read, _) => (pattern(READ), pattern(READ)),
            (_, Role::Initiator) => (pattern(PING), pattern(PONG)),
            (_, Role::Responder) => (pattern(PONG), pattern(PING)),
        };
        if plan.op.consumes_receive() {
            wire.post_receives(wire.layout.target_slots)?;
        }
        if role == Role::Responder {
            expose(&mut wire, &ours);
        }
        Ok(Self { wire, ours, theirs, next: 0, account: Account::default() })
    }

    /// The connected session.
    #[must_use]
    pub fn session(&self) -> &Session {
        &self.wire.session
    }

    fn op(&self) -> Op {
        self.wire.session.plan.op
    }

    /// Makes message `sequence`, or spoils the place where its result will be, and writes its work request.
    #[inline]
    fn prepare(&mut self, sequence: u64) -> Result<()> {
        let depth = self.wire.layout.depth;
        if sequence >= depth {
            self.wire.reap(sequence - depth + 1)?;
        }
        if self.op().is_one_sided() {
            self.wire.spoil(sequence);
        } else {
            self.wire.fill(sequence, &self.ours, sequence);
        }
        self.wire.stage(1, None, false);
        Ok(())
    }

    #[inline]
    fn arrival(&mut self, sequence: u64) -> Result<Arrival> {
        match self.op() {
            Op::Send | Op::SendImm | Op::WriteImm => self.wire.receive_one(),
            Op::Write => self.wire.watch_memory(sequence, &self.theirs),
            Op::Read | Op::Cas | Op::Faa => self.wire.reap(sequence + 1).map(|()| Arrival::Memory),
        }
    }

    /// Checks what came, and makes room for what comes next.
    #[inline]
    fn settle(&mut self, sequence: u64, arrival: &Arrival) -> Result<()> {
        let found = match self.op() {
            Op::Read => {
                self.wire.check_result(sequence, &self.theirs, sequence % self.wire.layout.target_slots)
            }
            Op::Cas | Op::Faa => self.wire.check_atomic(sequence),
            _ => self.wire.check(sequence, arrival, &self.theirs),
        };
        self.account.count(found);
        if self.op().consumes_receive() {
            self.wire.post_receives(1)?;
        }
        Ok(())
    }

    /// Waits, awake, until a message is due; the time when that was seen.
    #[inline]
    fn await_turn(&self, clock: &Clock, due: Stamp) -> Result<Stamp> {
        let mut spins = Spins::default();
        loop {
            let now = clock.now();
            if now >= due {
                return Ok(now);
            }
            self.wire.session.watch.turn(&mut spins, "moment to send")?;
            clock::pass(clock.between(now, due));
        }
    }

    /// Does `count` exchanges of which the last `recorded` are recorded, and in an `open` loop due by the clock; how long these took.
    fn batch(
        &mut self,
        channel: &mut Channel,
        count: u64,
        recorded: u64,
        latencies: &mut Latencies,
        mut open: Option<&mut OpenLoop>,
    ) -> Result<Duration> {
        self.wire.session.watch.look(&mut Spins::default(), "answer")?;
        let end = self.next + count;
        let recorded_from = end - recorded;
        let answered = !self.op().is_one_sided();
        if answered {
            channel.send(&Message::Go(Go { phase: Phase::Run, first: self.next, count }))?;
        }
        let clock = clock::chosen();
        let mut since = clock.now();
        for sequence in self.next..end {
            self.prepare(sequence)?;
            if sequence == recorded_from {
                since = clock.now();
                if let Some(open) = &mut open {
                    open.begin();
                }
            }
            let due = match &mut open {
                Some(open) if sequence >= recorded_from => Some(clock.after(since, open.next_due())),
                _ => None,
            };
            let before = match due {
                Some(due) => self.await_turn(&clock, due)?,
                None => clock.now(),
            };
            self.wire.ring()?;
            let arrival = self.arrival(sequence)?;
            let after = clock.now();
            if sequence >= recorded_from {
                let service = clock.between(before, after);
                latencies.record(service);
                if let (Some(open), Some(due)) = (&mut open, due) {
                    open.record(clock.between(due, before), service);
                }
            }
            self.settle(sequence, &arrival)?;
        }
        let elapsed = clock.between(since, clock.now());
        if let Some(open) = open {
            open.end(elapsed);
        }
        self.next = end;
        if answered {
            self.account.add(&receive_account(channel, self.timeout())?);
        }
        Ok(elapsed)
    }

    fn timeout(&self) -> Duration {
        Duration::from_millis(self.wire.session.plan.timeout_ms)
    }

    /// The initiator's whole run: warm-up, then batches until the extent is measured, at a `pace` if one is given. `floor` measures the machine itself
    /// before and after each batch, where it can, so that what changes on the machine meanwhile changes both.
    ///
    /// # Errors
    /// A verbs call or a completion failed, the peer went away, or the user interrupted.
    pub fn measure(
        &mut self,
        channel: &mut Channel,
        extent: Extent,
        warmup: Option<u64>,
        pace: Option<Pace>,
        progress: &Progress,
        mut floor: impl FnMut(&mut Channel) -> Result<Option<f64>>,
    ) -> Result<Outcome> {
        let measures =
            if self.op().is_one_sided() { Measures::WholeOperation } else { Measures::HalfRoundTrip };
        let mut latencies = Latencies::new(measures)?;
        progress.stage("warming up");
        let per_message = self.warm_up(channel, warmup, &mut latencies)?;
        let warmup = self.next;
        let lead = if self.wire.layout.size > LARGE { LEAD_IN_LARGE } else { LEAD_IN };

        progress.stage("measuring");
        let mut measured = Duration::ZERO;
        let mut batches = 0;
        let mut batch = latencies.clone();
        let mut ratios = Vec::new();
        let mut floor_before = floor(channel)?;
        let mut open = pace.map(OpenLoop::new).transpose()?;
        let size_in = |open: &Option<OpenLoop>, time, each| match open {
            Some(open) => open.due_in(time),
            None => in_time(time, each),
        };
        let mut size = match &open {
            Some(open) => open.due_in(OPEN_BATCH_TIME).max(OPEN_BATCH_LEAST),
            None => in_time(BATCH_TIME, per_message),
        };
        let mut timeline = Timeline::new(extent, per_message);
        loop {
            let left = match extent {
                Extent::Messages(messages) => messages.saturating_sub(latencies.count()),
                Extent::Time(time) if measured < time => size_in(&open, time - measured, per_message),
                Extent::Time(_) => 0,
            };
            if left == 0 {
                break;
            }
            let recorded = size.min(left);
            batch.clear();
            let elapsed = self.batch(channel, lead + recorded, recorded, &mut batch, open.as_mut())?;
            let ended = clock::now();
            let floor_after = floor(channel)?;
            timeline.batch(ended, elapsed, recorded, beside(floor_before, floor_after)).latencies(&batch);
            if let (Some(median), Some(floor)) = (batch.quantile_ns(0.5), beside(floor_before, floor_after)) {
                ratios.push(median / floor);
            }
            floor_before = floor_after;
            latencies.add(&batch);
            batches += 1;
            measured += elapsed;
            if open.is_none() {
                size = in_time(BATCH_TIME, elapsed / u32::try_from(recorded).unwrap_or(u32::MAX).max(1));
            }
            progress.done(match extent {
                Extent::Messages(messages) => latencies.count() as f64 / messages as f64,
                Extent::Time(time) => measured.as_secs_f64() / time.as_secs_f64(),
            });
        }
        self.check_atomics(channel)?;
        Ok(Outcome {
            open_loop: open,
            latencies,
            ratios,
            timeline: timeline.finish(),
            warmup,
            lead_in: lead * batches,
            messages: self.next,
            account: self.account.clone(),
        })
    }

    /// Exchanges without recording; how long one takes.
    fn warm_up(
        &mut self,
        channel: &mut Channel,
        count: Option<u64>,
        unused: &mut Latencies,
    ) -> Result<Duration> {
        const UNKNOWN: Duration = Duration::from_micros(50);
        let mut left = count.unwrap_or(u64::MAX);
        let mut spent = Duration::ZERO;
        let mut size = 8;
        let mut per_message = UNKNOWN;
        while left > 0 && (count.is_some() || spent < WARMUP_TIME) {
            let size_now = size.min(left);
            let start = clock::now();
            self.batch(channel, size_now, 0, unused, None)?;
            let elapsed = clock::now().duration_since(start);
            spent += elapsed;
            left -= size_now;
            per_message = elapsed / u32::try_from(size_now).unwrap_or(u32::MAX).max(1);
            size = (size * 8).min(in_time(BATCH_TIME, per_message));
        }
        Ok(per_message)
    }

    /// After a run of atomics: does the word at the target hold the sum of all of them?
    fn check_atomics(&mut self, channel: &mut Channel) -> Result<()> {
        if self.op().is_atomic() {
            channel.send(&Message::Go(Go { phase: Phase::CheckSlots, first: 0, count: self.next }))?;
            let theirs = receive_account(channel, self.timeout())?;
            // The same operations: their results are counted once.
            self.account.add(&Account { checked: 0, ..theirs });
        }
        Ok(())
    }

    /// The responder's part in a batch.
    ///
    /// # Errors
    /// A verbs call or a completion failed, or the peer went away.
    pub fn respond(&mut self, go: Go) -> Result<Account> {
        self.account = Account::default();
        match go.phase {
            Phase::Run if !self.op().is_one_sided() => {
                for sequence in go.first..go.first.saturating_add(go.count) {
                    self.prepare(sequence)?;
                    let arrival = self.arrival(sequence)?;
                    self.wire.ring()?;
                    self.settle(sequence, &arrival)?;
                }
            }
            Phase::CheckSlots if self.op().is_atomic() => {
                let found = check_word(&self.wire, go.count);
                self.account.count(found);
            }
            _ => {}
        }
        Ok(std::mem::take(&mut self.account))
    }
}

/// Fills the memory which the initiator will read or change.
pub fn expose(wire: &mut Wire, pattern: &Pattern) {
    let layout = wire.layout;
    match wire.session.plan.op {
        Op::Read => {
            let mut bytes = vec![0; layout.size];
            for slot in 0..layout.target_slots {
                pattern.fill(slot, &mut bytes);
                wire.session.incoming.write(slot as usize * layout.stride + layout.lead, &bytes);
            }
        }
        Op::Cas | Op::Faa => {
            wire.session.incoming.write(0, &atomic_value(0).to_ne_bytes());
        }
        _ => {}
    }
}

/// Does the word that atomics work on hold what `count` of them make of it?
///
/// # Errors
/// What it holds instead, in one line.
pub fn check_word(wire: &Wire, count: u64) -> Result<(), String> {
    let (got, want) = (wire.session.incoming.load_u64(0), atomic_value(count));
    if got == want {
        Ok(())
    } else {
        Err(format!("after {count} atomics the word is {got:#x} instead of {want:#x}"))
    }
}

/// The responder's account of a batch.
///
/// # Errors
/// It did not come.
pub fn receive_account(channel: &mut Channel, timeout: Duration) -> Result<Account> {
    match channel.receive(timeout)? {
        Message::Done(account) => Ok(account),
        other => Err(channel.unexpected(&other, "`done`")),
    }
}

/// What the machine itself does beside a batch, from what it did right before and after.
#[must_use]
pub fn beside(before: Option<f64>, after: Option<f64>) -> Option<f64> {
    Some((before? + after?) / 2.0)
}

/// How many of something fit in a time; at least one.
#[must_use]
pub fn in_time(time: Duration, each: Duration) -> u64 {
    let count = time.as_nanos() / each.as_nanos().max(1);
    // A link without a rate takes no virtual time at all.
    let most = if clock::is_simulated() { 1000 } else { 4_000_000 };
    u64::try_from(count).unwrap_or(u64::MAX).clamp(1, most)
}
