//! The run of a plan: messages fall due, are sent, received, answered and checked, while phase follows upon phase.

use std::collections::BTreeMap;
use std::time::Duration;

use tbrdma::{WcStatus, WorkCompletion};

use super::flow::{Flow, Sent, right, seen};
use super::hogs::Hogs;
use super::plan::{MOST_MESSAGES, Plan};
use super::world::World;
use crate::control::Account;
use crate::error::{Context, Error, Result};
use crate::pattern::{PING, Pattern, READ};
use crate::plan::Op;
use crate::signals;

/// How long after the last phase answers may come where the plan does not say.
const DRAIN: Duration = Duration::from_secs(2);
/// What a place holds before a READ puts its result there.
const POISON: u8 = 0xa5;
/// Turns of the loop between two looks at signals.
const TURNS_BETWEEN_LOOKS: u32 = 256;

/// A message that was answered. Times count from the beginning of the run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sample {
    /// On which queue pair.
    pub flow: usize,
    /// When it was to be sent.
    pub due: Duration,
    /// When it was.
    pub posted: Duration,
    /// When its completion was seen.
    pub done: Duration,
}

/// A queue pair that died.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Death {
    /// Which.
    pub flow: usize,
    /// In which phase the program was told.
    pub phase: usize,
    /// When.
    pub at: Duration,
    /// How: the status of the completion.
    pub status: WcStatus,
    /// When a message got through on the queue pair that took its place.
    pub back_at: Option<Duration>,
}

/// What a run found.
#[derive(Debug, Default)]
pub struct Found {
    /// Messages that were answered, in that order.
    pub samples: Vec<Sample>,
    /// When those were due that failed with their queue pair.
    pub failed: Vec<Duration>,
    /// And those that were never sent.
    pub unsent: Vec<Duration>,
    /// Queue pairs that died.
    pub deaths: Vec<Death>,
    /// What both devices had counted at the beginning of each phase, and at the end.
    pub counters: Vec<[BTreeMap<&'static str, u64>; 2]>,
    /// What was checked.
    pub account: Account,
    /// The longest time between two looks at what is to be done, in each phase and after the last: the machine kept the run from its core. None in virtual time.
    pub away: Vec<Duration>,
    /// When everything was over.
    pub ended: Duration,
}

/// A run.
struct Drive<'p> {
    plan: &'p Plan,
    world: World,
    flows: Vec<Flow>,
    bounds: Vec<Duration>,
    phase: usize,
    pattern: Pattern,
    scratch: Vec<u8>,
    /// When the receiver takes the next message, and posts receives again.
    takes_at: Duration,
    posts_at: Duration,
    hogs: Hogs,
    found: Found,
}

/// Runs a plan between these two.
///
/// # Errors
/// A verbs call failed, or the user interrupted. Queue pairs that die are no error.
pub fn run(plan: &Plan, world: World) -> Result<Found> {
    let mut drive = Drive::new(plan, world)?;
    drive.begin()?;
    drive.go()?;
    Ok(drive.found)
}

impl<'p> Drive<'p> {
    fn new(plan: &'p Plan, world: World) -> Result<Self> {
        let salt = if plan.run.op == Op::Read { READ } else { PING };
        let size = plan.run.size as usize;
        let mut drive = Self {
            plan,
            world,
            flows: Vec::new(),
            bounds: plan.bounds(),
            phase: 0,
            pattern: Pattern::new(salt, size, 1),
            scratch: vec![0; size],
            takes_at: Duration::ZERO,
            posts_at: Duration::ZERO,
            hogs: Hogs::default(),
            found: Found::default(),
        };
        for _ in 0..plan.run.queue_pairs {
            let flow = drive.flow()?;
            drive.flows.push(flow);
        }
        Ok(drive)
    }

    fn flow(&mut self) -> Result<Flow> {
        let buffers = self.world.buffers(self.plan)?;
        if self.plan.run.op == Op::Read {
            for slot in 0..u64::from(self.plan.run.depth) {
                self.pattern.fill(slot, &mut self.scratch);
                buffers.theirs.write(slot as usize * buffers.stride, &self.scratch);
            }
        }
        let mut flow = Flow::new(buffers);
        flow.connect(&self.world, self.plan)?;
        Ok(flow)
    }

    fn begin(&mut self) -> Result<()> {
        let pairs = self.flows.iter_mut().filter_map(|flow| Some((flow.pair.as_mut()?, &flow.buffers)));
        self.world.begin(&mut pairs.collect::<Vec<_>>())?;
        let now = self.world.now();
        let apart = self.interval(now).unwrap_or_default() / self.plan.run.queue_pairs;
        for (number, flow) in (0..).zip(&mut self.flows) {
            flow.due = now + if self.plan.run.together { Duration::ZERO } else { apart * number };
        }
        self.found.counters.push(self.world.counters());
        Ok(())
    }

    /// The time between two messages of a flow; `None` in a closed loop.
    fn interval(&self, at: Duration) -> Option<Duration> {
        let index = self.bounds.partition_point(|bound| *bound <= at).saturating_sub(1);
        let rate = self.plan.phases.get(index).and_then(|phase| phase.rate).or(self.plan.run.rate)?;
        Some(Duration::from_secs_f64(f64::from(self.plan.run.queue_pairs) / rate))
    }

    fn end(&self) -> Duration {
        self.bounds.last().copied().unwrap_or_default()
    }

    fn go(&mut self) -> Result<()> {
        let over = self.end() + self.plan.run.drain.map_or(DRAIN, |span| span.0);
        let mut turns = 0_u32;
        let mut before = self.world.now();
        self.found.away = vec![Duration::ZERO; self.plan.phases.len() + 1];
        loop {
            turns = turns.wrapping_add(1);
            if turns.is_multiple_of(TURNS_BETWEEN_LOOKS) {
                signals::check()?;
            }
            let now = self.world.now();
            // Of the phase that was left, whoever comes late to the next.
            if let Some(away) = self.found.away.get_mut(self.phase).filter(|_| !self.world.is_virtual) {
                *away = (*away).max(now.saturating_sub(before));
            }
            before = now;
            self.enter(now);
            let mut busy = self.take_answers()?;
            busy |= self.receive(now)?;
            busy |= self.send(now)?;
            if busy {
                continue;
            }
            if now >= over || (now >= self.end() && self.flows.iter().all(|flow| self.is_done(flow))) {
                break;
            }
            self.rest(now, over);
        }
        self.close()
    }

    /// Goes to the phase of this time.
    fn enter(&mut self, now: Duration) {
        while self.phase < self.plan.phases.len()
            && self.bounds.get(self.phase + 1).is_some_and(|end| now >= *end)
        {
            self.phase += 1;
            self.found.counters.push(self.world.counters());
            let hogs = self.plan.phases.get(self.phase).map_or(0, |phase| phase.hogs);
            self.hogs.keep(if self.world.is_virtual { 0 } else { hogs });
            (self.takes_at, self.posts_at) = (now, now);
        }
    }

    fn is_done(&self, flow: &Flow) -> bool {
        let has_more = self.plan.run.rate.is_some() && flow.due < self.end();
        match flow.pair {
            Some(_) => {
                flow.outstanding.is_empty()
                    && !has_more
                    && flow.acknowledged <= flow.expected_of(self.plan.run.op)
            }
            None => flow.reconnect_at.is_none() || !has_more,
        }
    }

    /// Takes completions of what was sent. True if there were any.
    fn take_answers(&mut self) -> Result<bool> {
        let mut taken = [WorkCompletion::default(); 32];
        let side = &self.world.ours;
        let count = side.take(&side.sends, self.world.is_virtual, &mut taken).len();
        for wc in taken.iter().take(count) {
            let is_its = |flow: &Flow| flow.pair.as_ref().is_some_and(|pair| pair.ours.qp_num() == wc.qp_num);
            // Of a queue pair that is gone there may be some left.
            let Some(index) = self.flows.iter().position(is_its) else { continue };
            if wc.status == WcStatus::Success {
                self.answered(index, wc)?;
            } else {
                self.died(index, wc.status)?;
            }
        }
        Ok(count > 0)
    }

    fn answered(&mut self, index: usize, wc: &WorkCompletion) -> Result<()> {
        let done = self.world.now();
        let Some(flow) = self.flows.get_mut(index) else { return Ok(()) };
        let Some(sent) = flow.outstanding.pop_front() else {
            return Err(Error::Run(format!("work request {} completed and was not posted", wc.wr_id)));
        };
        if sent.sequence != wc.wr_id {
            let reason = format!("message {} completed where {} was to", wc.wr_id, sent.sequence);
            self.found.account.count(Err(reason));
        }
        flow.acknowledged = sent.sequence + 1;
        let slot = sent.sequence % u64::from(self.plan.run.depth);
        let at = slot as usize * flow.buffers.stride;
        let checked = match self.plan.run.op {
            Op::Read => Some((&flow.buffers.ours, slot)),
            Op::Write => Some((&flow.buffers.theirs, sent.sequence)),
            // The receiver checks what comes.
            _ => None,
        };
        if let Some((region, number)) = checked {
            region.read(at, &mut self.scratch);
            self.found.account.count(right(&self.pattern, number, &self.scratch, index));
        }
        if let Some(death) = self.found.deaths.iter_mut().rfind(|death| death.flow == index) {
            death.back_at.get_or_insert(done);
        }
        self.found.samples.push(Sample { flow: index, due: sent.due, posted: sent.posted, done });
        if self.found.samples.len() as f64 > MOST_MESSAGES {
            return Err(Error::Usage(format!(
                "the plan made more than {MOST_MESSAGES} messages: give it a rate, or less time"
            )));
        }
        Ok(())
    }

    /// A queue pair has died: what was on its way has failed, and is told apart from what never was.
    fn died(&mut self, index: usize, status: WcStatus) -> Result<()> {
        // What the receiver has already, it has.
        while self.receive_some(usize::MAX)? > 0 {}
        let at = self.world.now();
        self.found.deaths.push(Death { flow: index, phase: self.phase, at, status, back_at: None });
        let Some(flow) = self.flows.get_mut(index) else { return Ok(()) };
        self.found.failed.extend(flow.outstanding.drain(..).map(|sent| sent.due));
        seen(flow, index, self.plan.run.op, &mut self.found.account);
        flow.pair = None;
        flow.reconnect_at = self.plan.run.reconnect.map(|after| at + after.0);
        Ok(())
    }

    /// The receiver's part, as the phase lets it. True if it had anything to do.
    fn receive(&mut self, now: Duration) -> Result<bool> {
        let phase = self.plan.phases.get(self.phase);
        if self.plan.run.op != Op::Send || phase.is_some_and(|phase| phase.pause_receiver) {
            return Ok(false);
        }
        let mut taken = 0;
        match phase.and_then(|phase| phase.slow_receiver) {
            None => taken = self.receive_some(usize::MAX)?,
            Some(each) if now >= self.takes_at => {
                taken = self.receive_some(1)?;
                if taken > 0 {
                    self.takes_at = now + each.0;
                }
            }
            Some(_) => {}
        }
        if let Some(every) = phase.and_then(|phase| phase.post_receives_every) {
            if now < self.posts_at {
                return Ok(taken > 0);
            }
            self.posts_at = now + every.0;
        }
        for flow in &mut self.flows {
            flow.post_receives(self.plan.run.size)?;
        }
        Ok(taken > 0)
    }

    /// Takes and checks messages, at most so many; how many there were.
    fn receive_some(&mut self, most: usize) -> Result<usize> {
        let mut taken = [WorkCompletion::default(); 32];
        let room = most.min(taken.len());
        let side = &self.world.theirs;
        let count =
            side.take(&side.receives, self.world.is_virtual, taken.get_mut(..room).unwrap_or_default()).len();
        for wc in taken.iter().take(count) {
            let is_its =
                |flow: &Flow| flow.pair.as_ref().is_some_and(|pair| pair.theirs.qp_num() == wc.qp_num);
            let Some(index) = self.flows.iter().position(is_its) else { continue };
            let Some(flow) = self.flows.get_mut(index) else { continue };
            if wc.status != WcStatus::Success {
                // The sender is told why.
                continue;
            }
            let length = (wc.byte_len as usize).min(self.scratch.len());
            let bytes = self.scratch.get_mut(..length).unwrap_or_default();
            flow.buffers.theirs.read(wc.wr_id as usize * flow.buffers.stride, bytes);
            self.found.account.count(right(&self.pattern, flow.expected, bytes, index));
            flow.expected += 1;
            flow.idle.push(wc.wr_id);
        }
        Ok(count)
    }

    /// Sends what is due and has room, and connects what is to be connected. True if there was any.
    fn send(&mut self, now: Duration) -> Result<bool> {
        let (end, depth) = (self.end(), self.plan.run.depth as usize);
        let mut busy = false;
        for index in 0..self.flows.len() {
            if let Some(flow) = self.flows.get_mut(index)
                && flow.reconnect_at.is_some_and(|at| now >= at)
            {
                flow.connect(&self.world, self.plan)?;
                busy = true;
            }
            while let Some(flow) = self.flows.get(index)
                && flow.pair.is_some()
                && flow.outstanding.len() < depth
            {
                let interval = self.interval(flow.due);
                let due = if interval.is_some() { flow.due } else { now };
                if due > now || due >= end {
                    break;
                }
                self.post(index, due, now)?;
                if let (Some(flow), Some(interval)) = (self.flows.get_mut(index), interval) {
                    flow.due += interval;
                }
                busy = true;
            }
        }
        Ok(busy)
    }

    fn post(&mut self, index: usize, due: Duration, posted: Duration) -> Result<()> {
        let run = &self.plan.run;
        let Some(flow) = self.flows.get_mut(index) else { return Ok(()) };
        let Some(pair) = &mut flow.pair else { return Ok(()) };
        let sequence = flow.next;
        let slot = sequence % u64::from(run.depth);
        let at = slot as usize * flow.buffers.stride;
        match run.op {
            Op::Read => self.scratch.fill(POISON),
            _ => self.pattern.fill(sequence, &mut self.scratch),
        }
        flow.buffers.ours.write(at, &self.scratch);
        let (from, to) =
            (flow.buffers.ours.slice(at..at + run.size as usize), flow.buffers.theirs.remote().at(at as u64));
        pair.ours
            .post(|batch| {
                let request = match run.op {
                    Op::Read => batch.read(from, to),
                    Op::Write => batch.write(from, to),
                    _ => batch.send(from),
                };
                request.id(sequence);
            })
            .context(|| format!("post {}", run.op))?;
        flow.outstanding.push_back(Sent { sequence, due, posted });
        flow.next += 1;
        Ok(())
    }

    /// Waits until something is due, or something has come that may be taken.
    fn rest(&self, now: Duration, over: Duration) {
        let phase = self.plan.phases.get(self.phase);
        let end = self.bounds.get(self.phase + 1).copied().unwrap_or(over);
        let depth = self.plan.run.depth as usize;
        let dues = self.flows.iter().flat_map(|flow| {
            let has_room = flow.pair.is_some() && flow.outstanding.len() < depth && flow.due < self.end();
            [(has_room && self.plan.run.rate.is_some()).then_some(flow.due), flow.reconnect_at]
        });
        let is_paused = phase.is_some_and(|phase| phase.pause_receiver);
        let is_slow = phase.is_some_and(|phase| phase.slow_receiver.is_some()) && now < self.takes_at;
        let receiver = [self.takes_at, self.posts_at].map(Some);
        // Whose time has come has had its turn.
        let until = dues.chain(receiver).flatten().filter(|at| *at > now).fold(end, Duration::min);
        self.world.rest(until, |world| {
            world.ours.sends.unpolled() > 0
                || (!is_paused && !is_slow && world.theirs.receives.unpolled() > 0)
        });
    }

    /// The end: what was never sent or answered, and whether everything that was acknowledged was seen.
    fn close(&mut self) -> Result<()> {
        while self.receive_some(usize::MAX)? > 0 {}
        for (index, flow) in self.flows.iter_mut().enumerate() {
            self.found.failed.extend(flow.outstanding.drain(..).map(|sent| sent.due));
            if flow.pair.is_some() {
                seen(flow, index, self.plan.run.op, &mut self.found.account);
            }
        }
        let end = self.end();
        for index in 0..self.flows.len() {
            let mut due = self.flows.get(index).map_or(end, |flow| flow.due);
            while due < end
                && let Some(interval) = self.interval(due)
            {
                self.found.unsent.push(due);
                due += interval;
            }
        }
        self.hogs.keep(0);
        self.found.counters.truncate(self.plan.phases.len());
        self.found.counters.push(self.world.counters());
        self.found.ended = self.world.now();
        Ok(())
    }
}
