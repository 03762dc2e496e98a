//! Latency: one message at a time.
//!
//! What is inside a sample: the clock is read, the message is posted, the answer (or the completion, for operations that the
//! target does not answer) is seen, the clock is read. What is outside: making the next message's bytes and writing its work request,
//! as programs have theirs ready before there is a reason to post them, checking the last message's bytes and reposting its receive. The responder makes its answer before the question comes, and checks the question after it
//! has answered, while the answer and the next question are under way; two messages never share a slot, so what is being
//! checked is not overwritten. Who measures [like another program](Plan::like) has all of that inside, and checks the first message of each slot alone.
//!
//! With a [`Pace`] messages are due by the clock (see [`crate::open_loop`]); what is done outside the samples then comes off the time until the next.

use std::time::Duration;

use crate::cli::Extent;
use crate::clock::{self, Clock, Stamp};
use crate::control::{Account, Channel, Go, Message, Phase};
use crate::error::Result;
use crate::histogram::{Latencies, Measures};
use crate::lanes::{Crew, Part, Share};
use crate::open_loop::{OpenLoop, Pace};
use crate::pattern::{PING, PONG, Pattern, READ};
use crate::plan::{Op, Plan, Wait};
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

/// One side of a pingpong, or one of its threads.
pub struct Pingpong {
    flows: Vec<Flow>,
    /// Which of them is next.
    turn: usize,
    next: u64,
    open: Option<OpenLoop>,
    latencies: Latencies,
    account: Account,
}

/// One of its queue pairs.
struct Flow {
    wire: Wire,
    /// Bytes which this side sends, and those which it gets.
    ours: Pattern,
    theirs: Pattern,
    next: u64,
}

/// What the threads of the initiator are told.
#[derive(Debug, Clone, Copy)]
pub enum Order {
    /// From now on messages are due by the clock, at this pace for each thread.
    Open(Pace),
    /// So many exchanges, after `lead` that are not recorded.
    Batch {
        /// For each thread.
        lead: u64,
        /// For all threads together.
        recorded: u64,
        /// How long nobody speaks before each of them.
        gap: Option<Duration>,
    },
    /// Look at what is left when all is over.
    End,
}

/// What a thread found.
#[derive(Debug)]
pub struct Found {
    /// Of the recorded messages.
    pub latencies: Latencies,
    /// From the first recorded message to the last.
    pub since: Stamp,
    /// See there.
    pub until: Stamp,
    /// All messages that left, also before.
    pub messages: u64,
    /// What was checked.
    pub account: Account,
    /// At the end: what was due by the clock.
    pub open_loop: Option<OpenLoop>,
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
    /// What each thread recorded.
    pub per_thread: Vec<Latencies>,
}

impl Flow {
    fn new(session: Session) -> Result<Self> {
        let (plan, role, number) = (session.plan.clone(), session.role, u64::from(session.number));
        let mut wire = Wire::new(session);
        // What goes astray to another queue pair is not what that one expects.
        let pattern =
            |salt: u64| Pattern::new(salt.wrapping_add(number), wire.layout.size, plan.depth as usize);
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
        Ok(Self { wire, ours, theirs, next: 0 })
    }

    fn op(&self) -> Op {
        self.wire.session.plan.op
    }

    /// Is message `sequence` as one before it, whose bytes nobody looks at again?
    #[inline]
    fn repeats(&self, sequence: u64) -> bool {
        self.is_like_another() && sequence >= self.wire.layout.depth
    }

    #[inline]
    fn is_like_another(&self) -> bool {
        self.wire.session.plan.like.is_some()
    }

    /// Rings; and waits for the send's own completion where the program that is followed does.
    #[inline]
    fn ring(&mut self, sequence: u64) -> Result<()> {
        self.wire.ring()?;
        if self.is_like_another() { self.wire.reap(sequence + 1) } else { Ok(()) }
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
        } else if self.repeats(sequence) {
            if self.op() == Op::Write {
                self.wire.renew(sequence, &self.ours);
            }
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
    fn settle(&mut self, sequence: u64, arrival: &Arrival, account: &mut Account) -> Result<()> {
        if !self.repeats(sequence) {
            let found = match self.op() {
                Op::Read => {
                    self.wire.check_result(sequence, &self.theirs, sequence % self.wire.layout.target_slots)
                }
                Op::Cas | Op::Faa => self.wire.check_atomic(sequence),
                _ => self.wire.check(sequence, arrival, &self.theirs),
            };
            account.count(found);
        }
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

    /// Lets so much time pass, awake or asleep as the run waits.
    fn pause(&self, clock: &Clock, gap: Duration) -> Result<()> {
        let Session { plan, watch, .. } = &self.wire.session;
        let since = clock.now();
        if plan.wait == Wait::Event && !clock::is_simulated() {
            return watch.sleep(gap);
        }
        self.await_turn(clock, clock.after(since, gap)).map(|_| ())
    }

    /// After a run of atomics: does the word at the target hold the sum of all of them?
    fn check_atomics(&self, channel: &mut Channel, account: &mut Account) -> Result<()> {
        let Session { plan, flow, .. } = &self.wire.session;
        let go = Go { phase: Phase::CheckSlots, first: 0, count: self.next, flow: *flow };
        channel.send(&Message::Go(go))?;
        let theirs = receive_account(channel, Duration::from_millis(plan.timeout_ms))?;
        // The same operations: their results are counted once.
        account.add(&Account { checked: 0, ..theirs });
        Ok(())
    }
}

impl Part for Pingpong {
    type Order = Order;
    type Found = Found;

    fn new(sessions: Vec<Session>) -> Result<Self> {
        let flows = sessions.into_iter().map(Flow::new).collect::<Result<Vec<_>>>()?;
        let one_sided = flows.first().is_some_and(|flow| flow.op().is_one_sided());
        let measures = if one_sided { Measures::WholeOperation } else { Measures::HalfRoundTrip };
        let latencies = Latencies::new(measures)?;
        Ok(Self { flows, turn: 0, next: 0, open: None, latencies, account: Account::default() })
    }

    fn session(&self) -> &Session {
        &self.flows[0].wire.session
    }

    fn perform(&mut self, order: Order, share: &Share, channel: &mut Channel) -> Result<Found> {
        self.latencies.clear();
        let now = clock::chosen().now();
        let (mut since, mut until, mut open_loop) = (now, now, None);
        match order {
            Order::Open(pace) => self.open = Some(OpenLoop::new(share.paced(pace))?),
            Order::Batch { lead, recorded, gap } => {
                (since, until) = self.batch(channel, lead, share.part(recorded), gap, share)?
            }
            Order::End => {
                if self.op().is_atomic() {
                    for flow in &self.flows {
                        flow.check_atomics(channel, &mut self.account)?;
                    }
                }
                open_loop = self.open.take();
            }
        }
        let account = std::mem::take(&mut self.account);
        Ok(Found { latencies: self.latencies.clone(), since, until, messages: self.next, account, open_loop })
    }
}

impl Pingpong {
    fn op(&self) -> Op {
        self.session().plan.op
    }

    /// Does so many exchanges of which the last `recorded` are recorded, and in an open loop due by the clock; from when to when these took.
    fn batch(
        &mut self,
        channel: &mut Channel,
        lead: u64,
        recorded: u64,
        gap: Option<Duration>,
        share: &Share,
    ) -> Result<(Stamp, Stamp)> {
        self.session().watch.look(&mut Spins::default(), "answer")?;
        let count = lead + recorded;
        let end = self.next + count;
        let recorded_from = end - recorded;
        let answered = !self.op().is_one_sided();
        if answered {
            channel.send(&Message::Go(Go { phase: Phase::Run, first: self.next, count, flow: 0 }))?;
        }
        share.begin_together(&self.session().watch)?;
        let clock = clock::chosen();
        let mut since = clock.now();
        let Self { flows, turn, open, latencies, account, .. } = self;
        for number in self.next..end {
            let flow = &mut flows[*turn];
            let sequence = flow.next;
            let begun = flow.is_like_another().then(|| clock.now());
            flow.prepare(sequence)?;
            if number == recorded_from {
                since = clock.now();
                if let Some(open) = open {
                    open.begin();
                }
            }
            let due = match open {
                Some(open) if number >= recorded_from => Some(clock.after(since, open.next_due())),
                _ => None,
            };
            let before = match due {
                Some(due) => flow.await_turn(&clock, due)?,
                None => {
                    if let Some(gap) = gap {
                        flow.pause(&clock, gap)?;
                    }
                    begun.unwrap_or_else(|| clock.now())
                }
            };
            flow.ring(sequence)?;
            let arrival = flow.arrival(sequence)?;
            if begun.is_some() {
                flow.settle(sequence, &arrival, account)?;
            }
            let after = clock.now();
            if number >= recorded_from {
                let service = clock.between(before, after);
                latencies.record(service);
                if let (Some(open), Some(due)) = (open.as_mut(), due) {
                    open.record(clock.between(due, before), service);
                }
            }
            if begun.is_none() {
                flow.settle(sequence, &arrival, account)?;
            }
            flow.next += 1;
            *turn = if *turn + 1 == flows.len() { 0 } else { *turn + 1 };
        }
        let until = clock.now();
        if let Some(open) = &mut self.open {
            open.end(clock.between(since, until));
        }
        self.next = end;
        if answered {
            let timeout = Duration::from_millis(self.session().plan.timeout_ms);
            self.account.add(&receive_account(channel, timeout)?);
        }
        Ok((since, until))
    }

    /// The responder's part in a batch.
    ///
    /// # Errors
    /// A verbs call or a completion failed, or the peer went away.
    pub fn respond(&mut self, go: Go) -> Result<Account> {
        self.account = Account::default();
        match go.phase {
            Phase::Run if !self.op().is_one_sided() => {
                let Self { flows, turn, account, .. } = self;
                for _ in 0..go.count {
                    let flow = &mut flows[*turn];
                    let sequence = flow.next;
                    flow.prepare(sequence)?;
                    let arrival = flow.arrival(sequence)?;
                    flow.ring(sequence)?;
                    flow.settle(sequence, &arrival, account)?;
                    flow.next += 1;
                    *turn = if *turn + 1 == flows.len() { 0 } else { *turn + 1 };
                }
            }
            Phase::CheckSlots if self.op().is_atomic() => {
                if let Some(flow) = self.flows.get(go.flow as usize) {
                    let found = check_word(&flow.wire, go.count);
                    self.account.count(found);
                }
            }
            _ => {}
        }
        Ok(std::mem::take(&mut self.account))
    }
}

/// The initiator's whole run: warm-up, then batches until the extent is measured, at a `pace` if one is given. `floor` measures the machine itself
/// before and after each batch, where it can, so that what changes on the machine meanwhile changes both.
///
/// # Errors
/// A verbs call or a completion failed, the peer went away, or the user interrupted.
pub fn measure(
    crew: &mut Crew<Pingpong>,
    plan: &Plan,
    channel: &mut Channel,
    extent: Extent,
    warmup: Option<u64>,
    pace: Option<Pace>,
    progress: &Progress,
    mut floor: impl FnMut(&mut Channel) -> Result<Option<f64>>,
) -> Result<Outcome> {
    let measures = if plan.op.is_one_sided() { Measures::WholeOperation } else { Measures::HalfRoundTrip };
    let mut latencies = Latencies::new(measures)?;
    let mut per_thread = vec![latencies.clone(); crew.threads()];
    let mut account = Account::default();
    progress.stage("warming up");
    let (per_message, warmup) = warm_up(crew, channel, warmup, &mut account)?;
    let lead = if plan.size > LARGE as u64 { LEAD_IN_LARGE } else { LEAD_IN };

    progress.stage("measuring");
    let clock = clock::chosen();
    let mut measured = Duration::ZERO;
    let mut batches = 0;
    let mut batch = latencies.clone();
    let mut ratios = Vec::new();
    let mut floor_before = floor(channel)?;
    if let Some(pace) = pace {
        crew.all(channel, &Order::Open(pace))?;
    }
    let size_in = |time, each| pace.map_or_else(|| in_time(time, each), |pace| pace.due_in(time));
    let mut size = match pace {
        Some(pace) => pace.due_in(OPEN_BATCH_TIME).max(OPEN_BATCH_LEAST),
        None => in_time(BATCH_TIME, per_message),
    };
    let mut timeline = Timeline::new(extent, per_message);
    loop {
        let left = match extent {
            Extent::Messages(messages) => messages.saturating_sub(latencies.count()),
            Extent::Time(time) if measured < time => size_in(time - measured, per_message),
            Extent::Time(_) => 0,
        };
        if left == 0 {
            break;
        }
        let recorded = size.min(left);
        batch.clear();
        let found = crew.all(channel, &Order::Batch { lead, recorded, gap: None })?;
        for (one, all) in found.iter().zip(&mut per_thread) {
            batch.add(&one.latencies);
            all.add(&one.latencies);
            account.add(&one.account);
        }
        let elapsed = spanned(&clock, &found);
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
        if pace.is_none() {
            size = in_time(BATCH_TIME, elapsed / u32::try_from(recorded).unwrap_or(u32::MAX).max(1));
        }
        progress.done(match extent {
            Extent::Messages(messages) => latencies.count() as f64 / messages as f64,
            Extent::Time(time) => measured.as_secs_f64() / time.as_secs_f64(),
        });
    }
    let mut open_loop: Option<OpenLoop> = None;
    let mut messages = 0;
    for found in crew.all(channel, &Order::End)? {
        account.add(&found.account);
        messages += found.messages;
        match (&mut open_loop, found.open_loop) {
            (Some(all), Some(one)) => all.add(&one),
            (none, one) => *none = one,
        }
    }
    Ok(Outcome {
        open_loop,
        latencies,
        ratios,
        timeline: timeline.finish(),
        warmup,
        lead_in: lead * batches * crew.threads() as u64,
        messages,
        account,
        per_thread,
    })
}

/// From when the first thread began to when the last one ended.
fn spanned(clock: &Clock, found: &[Found]) -> Duration {
    let since = found.iter().map(|found| found.since).min();
    let until = found.iter().map(|found| found.until).max();
    since.zip(until).map_or(Duration::ZERO, |(since, until)| clock.between(since, until))
}

/// Exchanges without recording; how long one takes, and how many there were.
///
/// # Errors
/// As [`measure`].
pub fn warm_up(
    crew: &mut Crew<Pingpong>,
    channel: &mut Channel,
    count: Option<u64>,
    account: &mut Account,
) -> Result<(Duration, u64)> {
    const UNKNOWN: Duration = Duration::from_micros(50);
    let threads = crew.threads() as u64;
    let mut left = count.map_or(u64::MAX, |count| count.div_ceil(threads));
    let mut spent = Duration::ZERO;
    let mut size = 8;
    let mut per_message = UNKNOWN;
    let mut done = 0;
    while left > 0 && (count.is_some() || spent < WARMUP_TIME) {
        let lead = size.min(left);
        let start = clock::now();
        for found in crew.all(channel, &Order::Batch { lead, recorded: 0, gap: None })? {
            account.add(&found.account);
        }
        let elapsed = clock::now().duration_since(start);
        spent += elapsed;
        left -= lead;
        done += lead * threads;
        per_message = elapsed / u32::try_from(lead * threads).unwrap_or(u32::MAX).max(1);
        size = (size * 8).min(in_time(BATCH_TIME, per_message).div_ceil(threads));
    }
    Ok((per_message, done))
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
