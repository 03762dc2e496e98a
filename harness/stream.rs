//! Throughput: many messages under way in one direction, for `bw` and `rate`.
//!
//! The clock runs from the first post until the last message is known to be there: its completion, or, where messages use up
//! receives, the receiver's word that it has taken them all. Receivers grant credits (empty SENDs with the count of what they
//! have taken), so that no message meets an empty receive queue; the sender looks at them only when it has run out.
//!
//! Checking every byte of a stream inside the timed section would measure the check. So a stream is checked in three steps:
//! every receive completion (length, order, immediate data) as it comes; what every slot of the target holds when the
//! stream is over (each message carries its number, so that this must be the last one sent there); and then, untimed, further
//! messages whose bytes are all different and all checked.

use std::time::Duration;

use crate::cli::Extent;
use crate::clock;
use crate::control::{Account, Channel, Go, Message, Phase};
use crate::error::{Context, Result};
use crate::pattern::{PING, Pattern, READ};
use crate::pingpong::{beside, check_word, expose, in_time, receive_account};
use crate::plan::{Op, QKEY, Transport};
use crate::progress::Progress;
use crate::session::{Role, SPARE_WRS, Session};
use crate::timeline::{Stretch, Timeline};
use crate::watch::Spins;
use crate::wire::{Arrival, Wire};

/// How long a batch lasts.
const BATCH_TIME: Duration = Duration::from_millis(150);
/// How long the warm-up lasts when the user gives no number.
const WARMUP_TIME: Duration = Duration::from_millis(100);
/// Messages that are checked one by one after the stream, if they are not too many bytes.
const VERIFY_MESSAGES: u64 = 1024;
const VERIFY_BYTES: u64 = 256 << 20;
/// Most credits which the receiver has under way.
const CREDITS_UNDER_WAY: u64 = SPARE_WRS as u64 / 2;
/// How long an unreliable transport may take to deliver what it has completed.
const SETTLE_TIME: Duration = Duration::from_secs(1);

/// One side of a stream.
pub struct Stream {
    wire: Wire,
    pattern: Pattern,
    exposed: Pattern,
    /// Messages posted (initiator) or taken (responder).
    next: u64,
    /// Number of the latest signaled message, plus one.
    signaled: u64,
    /// Messages which the receiver has said it took (initiator), or has said so (responder).
    granted: u64,
    credits_sent: u64,
    account: Account,
}

/// What a stream found.
#[derive(Debug)]
pub struct Outcome {
    /// Messages in the timed sections.
    pub messages: u64,
    /// How long these lasted.
    pub elapsed: Duration,
    /// Bytes per second of each timed section.
    pub batches: Vec<f64>,
    /// Unrecorded messages before.
    pub warmup: u64,
    /// The stream's rate divided by memcpy's right before and after, section by section.
    pub ratios: Vec<f64>,
    /// The sections in the course of time.
    pub timeline: Vec<Stretch>,
    /// What both sides checked.
    pub account: Account,
    /// How many messages that should be.
    pub to_check: u64,
    /// What exactly that was.
    pub verification: String,
}

impl Stream {
    /// Fills memory and posts receives; the sides meet after this.
    ///
    /// # Errors
    /// Receives cannot be posted.
    pub fn new(session: Session) -> Result<Self> {
        let role = session.role;
        let mut wire = Wire::new(session);
        let layout = wire.layout;
        let pattern = Pattern::new(PING, layout.size, layout.depth as usize);
        let exposed = Pattern::new(READ, layout.size, layout.depth as usize);
        let op = wire.session.plan.op;
        match role {
            Role::Initiator => {
                for slot in 0..layout.depth {
                    if op.is_one_sided() { wire.spoil(slot) } else { wire.fill(slot, &pattern, slot) }
                }
                if op.consumes_receive() {
                    post_credit_receives(&mut wire, 0, SPARE_WRS.into())?;
                }
            }
            Role::Responder => {
                if op.consumes_receive() {
                    wire.post_receives(layout.target_slots)?;
                }
                expose(&mut wire, &exposed);
            }
        }
        Ok(Self {
            wire,
            pattern,
            exposed,
            next: 0,
            signaled: 0,
            granted: 0,
            credits_sent: 0,
            account: Account::default(),
        })
    }

    /// The connected session.
    #[must_use]
    pub fn session(&self) -> &Session {
        &self.wire.session
    }

    fn op(&self) -> Op {
        self.wire.session.plan.op
    }

    fn timeout(&self) -> Duration {
        Duration::from_millis(self.wire.session.plan.timeout_ms)
    }

    /// Streams `count` messages; how long that took.
    fn batch(&mut self, channel: &mut Channel, count: u64) -> Result<Duration> {
        self.wire.session.watch.look(&mut Spins::default(), "completion")?;
        let end = self.next + count;
        let taken_by_receiver = self.op().consumes_receive();
        if taken_by_receiver {
            channel.send(&Message::Go(Go { phase: Phase::Run, first: self.next, count }))?;
            match channel.receive(self.timeout())? {
                Message::Ready => {}
                other => return Err(channel.unexpected(&other, "`ready`")),
            }
        }
        let stamped = !self.op().is_one_sided();
        let start = clock::now();
        self.push(end, stamped)?;
        while taken_by_receiver && self.granted < end {
            self.take_credits()?;
        }
        let elapsed = clock::now().duration_since(start);
        if taken_by_receiver {
            self.account.add(&receive_account(channel, self.timeout())?);
        }
        Ok(elapsed)
    }

    /// Posts messages up to number `end` and waits for all completions.
    fn push(&mut self, end: u64, stamped: bool) -> Result<()> {
        let plan = &self.wire.session.plan;
        let (list, every) = (u64::from(plan.post_list), u64::from(plan.signal_every));
        let (depth, target_slots) = (self.wire.layout.depth, self.wire.layout.target_slots);
        let needs_credit = self.op().consumes_receive();
        while self.wire.completed < end {
            let count = list.min(end - self.next);
            let room = depth - (self.next - self.wire.completed);
            if count == 0 || room < count {
                self.wire.reap_some()?;
                continue;
            }
            if needs_credit && self.next + count > self.granted + target_slots {
                self.take_credits()?;
                continue;
            }
            let last = self.next + count - 1;
            let next = last + 1;
            // When the next list would find no room even after the latest signaled message of these has completed, the last
            // one must be signaled too.
            let regular = next - next % every;
            let freed = self.signaled.max(regular).max(self.wire.completed);
            let also = (next == end || depth - (next - freed) < list).then_some(last);
            self.wire.post(count, also, stamped)?;
            self.next = next;
            self.signaled = if also.is_some() { next } else { self.signaled.max(regular) };
        }
        Ok(())
    }

    /// Waits for word from the receiver of how much it has taken.
    fn take_credits(&mut self) -> Result<()> {
        let mut granted = self.granted;
        let count = self.wire.receive_some(SPARE_WRS as usize, |wc| {
            granted += u64::from(wc.imm_data.wrapping_sub(granted as u32));
        })?;
        self.granted = granted;
        post_credit_receives(&mut self.wire, 0, count)
    }

    /// The initiator's whole run. `machine` measures the machine's own speed, before and after each timed section: what else
    /// happens on the machine then happens to both.
    ///
    /// # Errors
    /// A verbs call or a completion failed, the peer went away, or the user interrupted.
    pub fn measure(
        &mut self,
        channel: &mut Channel,
        extent: Extent,
        warmup: Option<u64>,
        progress: &Progress,
        mut machine: impl FnMut(&mut Channel) -> Result<Option<f64>>,
    ) -> Result<Outcome> {
        progress.stage("warming up");
        let per_message = self.warm_up(channel, warmup)?;
        let warmup = self.next;
        let mut machine_before = machine(channel)?;
        progress.stage("measuring");
        let mut outcome = Outcome {
            messages: 0,
            elapsed: Duration::ZERO,
            batches: Vec::new(),
            ratios: Vec::new(),
            timeline: Vec::new(),
            warmup,
            account: Account::default(),
            to_check: 0,
            verification: String::new(),
        };
        let mut size = in_time(BATCH_TIME, per_message);
        let mut timeline = Timeline::new(extent, per_message);
        loop {
            let left = match extent {
                Extent::Messages(messages) => messages - outcome.messages,
                Extent::Time(time) if outcome.elapsed < time => size,
                Extent::Time(_) => 0,
            };
            if left == 0 {
                break;
            }
            let count = size.min(left);
            let elapsed = self.batch(channel, count)?;
            outcome.messages += count;
            outcome.elapsed += elapsed;
            let bytes = count as f64 * self.wire.layout.size as f64;
            let rate = bytes / elapsed.as_secs_f64().max(1e-9);
            let ended = clock::now();
            let machine_after = machine(channel)?;
            let beside = beside(machine_before, machine_after);
            timeline.batch(ended, elapsed, count, beside).bytes(bytes);
            outcome.batches.push(rate);
            outcome.ratios.extend(beside.map(|beside| rate / beside));
            machine_before = machine_after;
            size = in_time(BATCH_TIME, elapsed / u32::try_from(count).unwrap_or(u32::MAX).max(1));
            progress.done(match extent {
                Extent::Messages(messages) => outcome.messages as f64 / messages as f64,
                Extent::Time(time) => outcome.elapsed.as_secs_f64() / time.as_secs_f64(),
            });
        }
        outcome.timeline = timeline.finish();
        progress.stage("checking");
        (outcome.to_check, outcome.verification) = self.verify(channel)?;
        outcome.account = std::mem::take(&mut self.account);
        Ok(outcome)
    }

    fn warm_up(&mut self, channel: &mut Channel, count: Option<u64>) -> Result<Duration> {
        const UNKNOWN: Duration = Duration::from_micros(100);
        let mut left = count.unwrap_or(u64::MAX);
        let mut spent = Duration::ZERO;
        let mut size = self.wire.layout.depth;
        let mut per_message = UNKNOWN;
        while left > 0 && (count.is_some() || spent < WARMUP_TIME) {
            let size_now = size.min(left);
            let elapsed = self.batch(channel, size_now)?;
            spent += elapsed;
            left -= size_now;
            per_message = elapsed / u32::try_from(size_now).unwrap_or(u32::MAX).max(1);
            size = (size * 4).min(in_time(BATCH_TIME, per_message));
        }
        Ok(per_message)
    }

    /// Has both sides look at what the stream left, and at further messages one by one.
    fn verify(&mut self, channel: &mut Channel) -> Result<(u64, String)> {
        let streamed = self.next;
        let op = self.op();
        if op.is_atomic() {
            self.ask(channel, Phase::CheckSlots, 0, streamed)?;
            let last = streamed.min(self.wire.layout.depth);
            for sequence in streamed - last..streamed {
                let found = self.wire.check_atomic(sequence);
                self.account.count(found);
            }
            let text = format!(
                "the target's word after all {streamed} operations; the values which the last {last} returned"
            );
            return Ok((last + 1, text));
        }
        let slots = streamed.min(self.wire.layout.target_slots);
        if op == Op::Read {
            for sequence in streamed - slots..streamed {
                let number = sequence % self.wire.layout.target_slots;
                let found = self.wire.check_result(sequence, &self.exposed, number);
                self.account.count(found);
            }
        } else {
            self.ask(channel, Phase::CheckSlots, streamed - slots, slots)?;
        }
        let singly = self.verify_singly(channel)?;
        let completions = if op.consumes_receive() {
            format!("length and order of all {streamed} streamed messages; ")
        } else {
            String::new()
        };
        let text = format!(
            "{completions}every byte of the last {slots} streamed messages, one for each buffer; every byte of {singly} more, \
             each with bytes of its own"
        );
        Ok((slots + singly, text))
    }

    fn verify_singly(&mut self, channel: &mut Channel) -> Result<u64> {
        let op = self.op();
        let depth = self.wire.layout.depth;
        let affordable = VERIFY_BYTES / (self.wire.layout.size as u64).max(1);
        let total = VERIFY_MESSAGES.min(affordable).max(depth);
        let until = self.next + total;
        while self.next < until {
            let (first, count) = (self.next, depth.min(until - self.next));
            for sequence in first..first + count {
                match op {
                    Op::Read => self.wire.spoil(sequence),
                    _ => self.wire.fill(sequence, &self.pattern, sequence),
                }
            }
            if op.consumes_receive() {
                channel.send(&Message::Go(Go { phase: Phase::Verify, first, count }))?;
            }
            self.push(first + count, false)?;
            if op == Op::Read {
                for sequence in first..first + count {
                    let number = sequence % self.wire.layout.target_slots;
                    let found = self.wire.check_result(sequence, &self.exposed, number);
                    self.account.count(found);
                }
            } else if op.consumes_receive() {
                self.account.add(&receive_account(channel, self.timeout())?);
                self.granted = self.next;
            } else {
                self.ask(channel, Phase::CheckMessages, first, count)?;
            }
        }
        Ok(total)
    }

    fn ask(&mut self, channel: &mut Channel, phase: Phase, first: u64, count: u64) -> Result<()> {
        channel.send(&Message::Go(Go { phase, first, count }))?;
        self.account.add(&receive_account(channel, self.timeout())?);
        Ok(())
    }

    /// The responder's part in a batch.
    ///
    /// # Errors
    /// A verbs call or a completion failed, or the peer went away.
    pub fn respond(&mut self, go: Go, channel: &mut Channel) -> Result<Account> {
        self.account = Account::default();
        let end = go.first.saturating_add(go.count);
        match go.phase {
            Phase::Run => {
                channel.send(&Message::Ready)?;
                self.take(end)?;
            }
            Phase::Verify => {
                for sequence in go.first..end {
                    let arrival = self.wire.receive_one()?;
                    let found = self.wire.check(sequence, &arrival, &self.pattern);
                    self.account.count(found);
                    self.wire.post_receives(1)?;
                }
                (self.next, self.granted) = (end, end);
            }
            Phase::CheckSlots if self.op().is_atomic() => {
                let found = check_word(&self.wire, go.count);
                self.account.count(found);
            }
            Phase::CheckSlots => self.check_all(go, |stream, sequence| {
                let number = sequence % stream.wire.layout.depth;
                stream.wire.check_bytes(sequence, &stream.pattern, number, Some(sequence))
            }),
            Phase::CheckMessages => self.check_all(go, |stream, sequence| {
                stream.wire.check(sequence, &Arrival::Memory, &stream.pattern)
            }),
        }
        Ok(std::mem::take(&mut self.account))
    }

    fn check_all(&mut self, go: Go, check: impl Fn(&mut Self, u64) -> Result<(), String>) {
        // More than there are slots would be nonsense from a peer.
        let count = go.count.min(self.wire.layout.target_slots);
        let reliable = self.wire.session.plan.transport == Transport::Rc;
        let deadline = clock::now() + SETTLE_TIME;
        for sequence in go.first..go.first.saturating_add(count) {
            let mut found = check(self, sequence);
            while found.is_err() && !reliable && clock::now() < deadline {
                clock::pass(Duration::from_micros(1));
                found = check(self, sequence);
            }
            self.account.count(found);
        }
    }

    /// Takes messages up to number `end`, checks each completion, and grants credits.
    fn take(&mut self, end: u64) -> Result<()> {
        let grant_every = (self.wire.layout.target_slots / 4).max(1);
        while self.next < end {
            let first = self.next;
            let most = (end - first).min(u64::from(SPARE_WRS)) as usize;
            let mut completions = [tbrdma::WorkCompletion::default(); SPARE_WRS as usize];
            let mut filled = completions.iter_mut();
            let count = self.wire.receive_some(most, |wc| {
                if let Some(place) = filled.next() {
                    *place = *wc;
                }
            })?;
            for (sequence, wc) in (first..).zip(completions.iter().take(count as usize)) {
                if let Err(reason) = self.wire.check_completion(sequence, wc) {
                    self.account.errors += 1;
                    self.account.first_error.get_or_insert(reason);
                }
            }
            self.next += count;
            self.wire.post_receives(count)?;
            if self.next - self.granted >= grant_every || self.next == end {
                self.grant()?;
            }
        }
        Ok(())
    }

    fn grant(&mut self) -> Result<()> {
        self.wire.reap((self.credits_sent + 1).saturating_sub(CREDITS_UNDER_WAY))?;
        let (number, taken) = (self.credits_sent, self.next as u32);
        let Session { qp, outgoing, destination, .. } = &mut self.wire.session;
        qp.post(|batch| {
            let request = batch.send_with_imm(outgoing.slice(0..0), taken).id(number);
            if let Some(destination) = destination {
                request.to(&destination.handle, destination.qpn, QKEY);
            }
        })
        .context(|| "post a credit".into())?;
        self.credits_sent += 1;
        self.granted = self.next;
        Ok(())
    }
}

/// Posts receives for credits: empty, but for the routing header of a datagram.
fn post_credit_receives(wire: &mut Wire, id: u64, count: u64) -> Result<()> {
    let header = wire.layout.header;
    let Session { qp, incoming, .. } = &mut wire.session;
    qp.post_recv(|batch| {
        for _ in 0..count {
            if header == 0 { batch.recv_nothing() } else { batch.recv(incoming.slice(0..header)) }.id(id);
        }
    })
    .context(|| format!("post {count} receives for credits"))
}
