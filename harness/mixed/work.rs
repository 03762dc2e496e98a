//! Both sides of a mix, of one thread.
//!
//! Messages go in batches of as many as there are buffers, so that each has one of its own at either side and none is overwritten before every byte of it was
//! checked. What is not measured happens between batches: filling buffers, posting the batch's receives, checking.

use std::time::Duration;

use tbrdma::WorkCompletion;

use super::Class;
use crate::clock::{self, Stamp};
use crate::completions::failure;
use crate::control::{Account, Channel, Go, Message, Phase};
use crate::error::{Context, Result};
use crate::histogram::{Latencies, Measures};
use crate::lanes::{Part, Share};
use crate::pattern::{PING, Pattern, READ};
use crate::pingpong::receive_account;
use crate::plan::Op;
use crate::session::Session;
use crate::watch::Spins;
use crate::wire::atomic_value;

/// Completions taken at once.
const BATCH: usize = 32;
/// What a result buffer holds before a read or an atomic puts the result there.
const POISON: u8 = 0xa5;

/// What the threads of the initiator are told: so many messages, all threads together.
#[derive(Debug, Clone, Copy)]
pub struct Order {
    /// How many.
    pub messages: u64,
}

/// What a thread found.
#[derive(Debug)]
pub struct Found {
    /// Of each class.
    pub latencies: Vec<Latencies>,
    /// From the first post to the last completion.
    pub since: Stamp,
    /// See there.
    pub until: Stamp,
    /// Bytes of the messages.
    pub bytes: u64,
    /// What was checked.
    pub account: Account,
}

/// One side's thread.
pub struct Mixed {
    session: Session,
    classes: Vec<Class>,
    /// Of each class: the bytes that are sent, and those that are read.
    patterns: Vec<(Pattern, Pattern)>,
    dice: fastrand::Rng,
    /// The classes of the batch's messages.
    chosen: Vec<usize>,
    stamps: Vec<Stamp>,
    /// Messages of earlier batches, and atomics among them.
    next: u64,
    atomics: u64,
    scratch: Vec<u8>,
    account: Account,
}

impl Part for Mixed {
    type Order = Order;
    type Found = Found;

    fn new(mut sessions: Vec<Session>) -> Result<Self> {
        let session = sessions.remove(0);
        let number = u64::from(session.number);
        let classes = session.plan.mix.clone();
        let pattern =
            |class: &Class, salt: u64| Pattern::new(salt.wrapping_add(number), class.size as usize, 1);
        let patterns = classes.iter().map(|class| (pattern(class, PING), pattern(class, READ))).collect();
        let dice = fastrand::Rng::with_seed(session.plan.seed.unwrap_or_default().wrapping_add(number));
        Ok(Self {
            session,
            classes,
            patterns,
            dice,
            chosen: Vec::new(),
            stamps: Vec::new(),
            next: 0,
            atomics: 0,
            scratch: Vec::new(),
            account: Account::default(),
        })
    }

    fn session(&self) -> &Session {
        &self.session
    }

    fn perform(&mut self, order: Order, share: &Share, channel: &mut Channel) -> Result<Found> {
        let count = share.part(order.messages);
        let nothing = Latencies::new(Measures::WholeOperation)?;
        let mut latencies = vec![nothing; self.classes.len()];
        self.session.watch.look(&mut Spins::default(), "completion")?;
        self.choose(count);
        self.prepare();
        channel.send(&Message::Go(Go { phase: Phase::Run, first: self.next, count, flow: 0 }))?;
        match channel.receive(self.timeout())? {
            Message::Ready => {}
            other => return Err(channel.unexpected(&other, "`ready`")),
        }
        share.begin_together(&self.session.watch)?;
        let (since, until) = self.go(count, &mut latencies)?;
        self.account.add(&receive_account(channel, self.timeout())?);
        self.check_results();
        channel.send(&Message::Go(Go { phase: Phase::CheckSlots, first: self.next, count, flow: 0 }))?;
        self.account.add(&receive_account(channel, self.timeout())?);
        let bytes = self.chosen.iter().map(|class| self.classes[*class].size).sum();
        self.end();
        Ok(Found { latencies, since, until, bytes, account: std::mem::take(&mut self.account) })
    }
}

impl Mixed {
    fn timeout(&self) -> Duration {
        Duration::from_millis(self.session.plan.timeout_ms)
    }

    /// Where the buffer of the batch's message `index` begins.
    fn start(&self, index: usize) -> usize {
        index * self.session.plan.stride() as usize
    }

    /// Where the word is that atomics work on: behind all buffers.
    fn word(&self) -> usize {
        self.start(super::slots(&self.session.plan) as usize)
    }

    /// Throws the dice for a batch; both sides do, and have the same dice.
    fn choose(&mut self, count: u64) {
        let total: u64 = self.classes.iter().map(|class| u64::from(class.weight)).sum();
        self.chosen.clear();
        for _ in 0..count.min(super::slots(&self.session.plan).into()) {
            let mut at = self.dice.u64(0..total);
            let class = self.classes.iter().position(|class| {
                let weight = u64::from(class.weight);
                let here = at < weight;
                at = at.saturating_sub(weight);
                here
            });
            self.chosen.push(class.unwrap_or_default());
        }
    }

    /// A batch is over.
    fn end(&mut self) {
        self.atomics +=
            self.chosen.iter().filter(|class| self.classes[**class].op.is_atomic()).count() as u64;
        self.next += self.chosen.len() as u64;
    }

    /// Fills the initiator's buffers with what is sent, and spoils those in which results will be.
    fn prepare(&mut self) {
        for (index, class) in self.chosen.iter().enumerate() {
            let Class { op, size, .. } = self.classes[*class];
            self.scratch.resize(size as usize, POISON);
            if op.is_one_sided() {
                self.scratch.fill(POISON);
            } else {
                self.patterns[*class].0.fill(self.next + index as u64, &mut self.scratch);
            }
            self.session.outgoing.write(self.start(index), &self.scratch);
        }
    }

    /// Posts the batch, never more than `depth` at once, and takes its completions; from when to when.
    fn go(&mut self, count: u64, latencies: &mut [Latencies]) -> Result<(Stamp, Stamp)> {
        let clock = clock::chosen();
        let depth = u64::from(self.session.plan.depth);
        let since = clock.now();
        self.stamps.clear();
        self.stamps.resize(count as usize, since);
        let (mut posted, mut done) = (0, 0);
        let mut atomics = self.atomics;
        let mut taken = [WorkCompletion::default(); BATCH];
        let mut now = since;
        while done < count {
            while posted < count && posted - done < depth {
                self.stamps[posted as usize] = clock.now();
                self.post(posted as usize, &mut atomics)?;
                posted += 1;
            }
            let Session { sends, watch, .. } = &self.session;
            let some = sends.wait(&mut taken, watch, "completion")?;
            now = clock.now();
            for wc in taken.iter().take(some) {
                if wc.ok().is_err() {
                    return Err(failure(wc, sends));
                }
                let index = wc.wr_id as usize;
                let latency = clock.between(self.stamps[index], now);
                latencies[self.chosen[index]].record(latency);
                done += 1;
            }
        }
        Ok((since, now))
    }

    #[inline]
    fn post(&mut self, index: usize, atomics: &mut u64) -> Result<()> {
        let Class { op, size, .. } = self.classes[self.chosen[index]];
        let (start, word) = (self.start(index), self.word() as u64);
        let imm = (self.next as u32).wrapping_add(index as u32);
        let Session { qp, outgoing, remote, .. } = &mut self.session;
        let range = start..start + size as usize;
        let posted = qp.post(|batch| {
            let there = remote.at(start as u64);
            let request = match op {
                Op::Send => batch.send(outgoing.slice(range)),
                Op::SendImm => batch.send_with_imm(outgoing.slice(range), imm),
                Op::Write => batch.write(outgoing.slice(range), there),
                Op::WriteImm => batch.write_with_imm(outgoing.slice(range), there, imm),
                Op::Read => batch.read(outgoing.slice(range), there),
                Op::Cas => {
                    let (compare, swap) = (atomic_value(*atomics), atomic_value(*atomics + 1));
                    batch.compare_and_swap(outgoing.slice(range), remote.at(word), compare, swap)
                }
                Op::Faa => batch.fetch_and_add(outgoing.slice(range), remote.at(word), atomic_value(1)),
            };
            request.id(index as u64);
        });
        *atomics += u64::from(op.is_atomic());
        posted.context(|| format!("post {op}"))
    }

    /// Looks at what reads and atomics brought.
    fn check_results(&mut self) {
        let mut atomics = self.atomics;
        for index in 0..self.chosen.len() {
            let class = self.chosen[index];
            let Class { op, size, .. } = self.classes[class];
            if !op.is_one_sided() {
                continue;
            }
            self.scratch.resize(size as usize, 0);
            self.session.outgoing.read(self.start(index), &mut self.scratch);
            let number = self.next + index as u64;
            let found = if op.is_atomic() {
                let want = atomic_value(atomics);
                atomics += 1;
                let wrong = || format!("message {number}: {op} did not return {want:#x}");
                if self.scratch == want.to_ne_bytes() { Ok(()) } else { Err(wrong()) }
            } else {
                self.compare(class, number, true)
            };
            self.account.count(found);
        }
    }

    /// Is what was read back what it should be?
    fn compare(&self, class: usize, number: u64, read: bool) -> Result<(), String> {
        let (sent, exposed) = &self.patterns[class];
        let pattern = if read { exposed } else { sent };
        match pattern.mismatch(number, &self.scratch) {
            None => Ok(()),
            Some(at) => Err(format!(
                "message {number}, {}: byte {at} is not what was {}",
                self.classes[class].name(),
                if read { "there to read" } else { "sent" }
            )),
        }
    }

    /// The responder's part in a batch.
    ///
    /// # Errors
    /// A verbs call or a completion failed, or the peer went away.
    pub fn respond(&mut self, go: Go, channel: &mut Channel) -> Result<Account> {
        self.account = Account::default();
        match go.phase {
            Phase::Run => {
                self.choose(go.count);
                self.expose()?;
                channel.send(&Message::Ready)?;
                self.take()?;
            }
            _ => {
                self.check_slots();
                self.end();
                let (got, want) = (self.session.incoming.load_u64(self.word()), atomic_value(self.atomics));
                if got != want {
                    let wrong =
                        format!("after {} atomics the word is {got:#x} instead of {want:#x}", self.atomics);
                    self.account.errors += 1;
                    self.account.first_error.get_or_insert(wrong);
                }
            }
        }
        Ok(std::mem::take(&mut self.account))
    }

    /// Fills the target's buffers that will be read, spoils the others, and posts the batch's receives.
    fn expose(&mut self) -> Result<()> {
        for index in 0..self.chosen.len() {
            let class = self.chosen[index];
            let Class { op, size, .. } = self.classes[class];
            if op.is_atomic() {
                continue;
            }
            self.scratch.resize(size as usize, 0);
            match op {
                Op::Read => self.patterns[class].1.fill(self.next + index as u64, &mut self.scratch),
                _ => self.scratch.fill(POISON),
            }
            self.session.incoming.write(self.start(index), &self.scratch);
        }
        let stride = self.session.plan.stride() as usize;
        let Self { session, chosen, classes, .. } = self;
        let Session { qp, incoming, .. } = session;
        let consuming = || {
            let each = chosen.iter().enumerate().map(|(index, class)| (index, classes[*class]));
            each.filter(|(_, class)| class.op.consumes_receive())
        };
        if consuming().next().is_none() {
            return Ok(());
        }
        qp.post_recv(|batch| {
            for (index, Class { op, size, .. }) in consuming() {
                let start = index * stride;
                let range = start..start + size as usize;
                if op == Op::WriteImm { batch.recv_nothing() } else { batch.recv(incoming.slice(range)) }
                    .id(index as u64);
            }
        })
        .context(|| format!("post {} receives", consuming().count()))
    }

    /// Takes the messages of the batch that use up receives, and checks each completion.
    fn take(&mut self) -> Result<()> {
        let mut taken = [WorkCompletion::default(); 1];
        for index in 0..self.chosen.len() {
            let Class { op, size, .. } = self.classes[self.chosen[index]];
            if !op.consumes_receive() {
                continue;
            }
            let Session { sends, receives, watch, .. } = &self.session;
            receives.wait(&mut taken, watch, "message")?;
            let [wc] = taken;
            if wc.ok().is_err() {
                return Err(failure(&wc, sends));
            }
            let imm = (self.next as u32).wrapping_add(index as u32);
            if wc.wr_id != index as u64
                || u64::from(wc.byte_len) != size
                || (op.has_imm() && wc.imm_data != imm)
            {
                self.account.errors += 1;
                self.account.first_error.get_or_insert_with(|| {
                    format!(
                        "message {} completed receive {} with {} bytes (expected {size}) and immediate {:#x}",
                        self.next + index as u64,
                        wc.wr_id,
                        wc.byte_len,
                        wc.imm_data
                    )
                });
            }
        }
        Ok(())
    }

    /// Looks at every byte that was sent or written.
    fn check_slots(&mut self) {
        for index in 0..self.chosen.len() {
            let class = self.chosen[index];
            let Class { op, size, .. } = self.classes[class];
            if op.is_one_sided() {
                continue;
            }
            self.scratch.resize(size as usize, 0);
            self.session.incoming.read(self.start(index), &mut self.scratch);
            let found = self.compare(class, self.next + index as u64, false);
            self.account.count(found);
        }
    }
}
