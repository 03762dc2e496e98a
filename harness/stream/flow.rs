//! One queue pair of a stream: which of its messages are under way, and what the receiver has granted.

use std::time::Duration;

use crate::clock;
use crate::completions::tag;
use crate::control::{Account, Channel, Go, Message, Phase};
use crate::error::{Context, Result};
use crate::lanes::part;
use crate::pattern::{PING, Pattern, READ};
use crate::pingpong::{check_word, expose, receive_account};
use crate::plan::{Op, QKEY, Transport};
use crate::session::{Role, SPARE_WRS, Session};
use crate::wire::{Arrival, Wire};

/// Messages that are checked one by one after the stream, on all queue pairs together, if they are not too many bytes.
const VERIFY_MESSAGES: u64 = 1024;
const VERIFY_BYTES: u64 = 256 << 20;
/// Most credits which the receiver has under way.
const CREDITS_UNDER_WAY: u64 = SPARE_WRS as u64 / 2;
/// How long an unreliable transport may take to deliver what it has completed.
const SETTLE_TIME: Duration = Duration::from_secs(1);

/// One queue pair.
pub(super) struct Flow {
    pub(super) wire: Wire,
    pattern: Pattern,
    exposed: Pattern,
    /// Messages posted (initiator) or taken (responder).
    pub(super) next: u64,
    /// Where that ends for now.
    pub(super) end: u64,
    /// Number of the latest signaled message, plus one.
    signaled: u64,
    /// Messages which the receiver has said it took (initiator), or has said so (responder).
    pub(super) granted: u64,
    credits_sent: u64,
}

/// What became of an attempt to post.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Offer {
    /// Some messages are under way.
    Posted,
    /// So many are that no more fit, or all are, and not all have completed.
    Full,
    /// The receiver has room for no more.
    Dry,
    /// All have completed.
    Done,
}

impl Flow {
    pub(super) fn new(session: Session) -> Result<Self> {
        let (role, number) = (session.role, u64::from(session.number));
        let mut wire = Wire::new(session);
        let layout = wire.layout;
        // What goes astray to another queue pair is not what that one expects.
        let pattern = |salt: u64| Pattern::new(salt.wrapping_add(number), layout.size, layout.depth as usize);
        let (pattern, exposed) = (pattern(PING), pattern(READ));
        let op = wire.session.plan.op;
        match role {
            Role::Initiator => {
                for slot in 0..layout.depth {
                    if op.is_one_sided() { wire.spoil(slot) } else { wire.fill(slot, &pattern, slot) }
                }
                if op.consumes_receive() {
                    post_credit_receives(&mut wire, SPARE_WRS.into())?;
                }
            }
            Role::Responder => {
                if op.consumes_receive() {
                    wire.post_receives(layout.target_slots)?;
                }
                expose(&mut wire, &exposed);
            }
        }
        Ok(Self { wire, pattern, exposed, next: 0, end: 0, signaled: 0, granted: 0, credits_sent: 0 })
    }

    pub(super) fn op(&self) -> Op {
        self.wire.session.plan.op
    }

    fn timeout(&self) -> Duration {
        Duration::from_millis(self.wire.session.plan.timeout_ms)
    }

    /// So many of the `total` messages that this thread's `of` queue pairs take in turns are to follow.
    pub(super) fn extend(&mut self, total: u64, of: u32) -> u64 {
        let count = part(total, self.wire.session.flow, of);
        self.end = self.next + count;
        count
    }

    /// Posts a list of messages, if it can now.
    #[inline]
    pub(super) fn offer(&mut self, stamped: bool) -> Result<Offer> {
        let plan = &self.wire.session.plan;
        let (list, every) = (u64::from(plan.post_list), u64::from(plan.signal_every));
        let needs_credit = plan.op.consumes_receive();
        let (depth, target_slots) = (self.wire.layout.depth, self.wire.layout.target_slots);
        let completed = self.wire.completed();
        if completed >= self.end {
            return Ok(Offer::Done);
        }
        let count = list.min(self.end - self.next);
        if count == 0 || depth - (self.next - completed) < count {
            return Ok(Offer::Full);
        }
        if needs_credit && self.next + count > self.granted + target_slots {
            return Ok(Offer::Dry);
        }
        let last = self.next + count - 1;
        let next = last + 1;
        // When the next list would find no room even after the latest signaled message of these has completed, the last
        // one must be signaled too.
        let regular = next - next % every;
        let freed = self.signaled.max(regular).max(completed);
        let also = (next == self.end || depth - (next - freed) < list).then_some(last);
        self.wire.post(count, also, stamped)?;
        self.next = next;
        self.signaled = if also.is_some() { next } else { self.signaled.max(regular) };
        Ok(Offer::Posted)
    }

    /// Word of the receiver: it has taken so many, by the low bits of the count.
    #[inline]
    pub(super) fn credit(&mut self, taken: u32) -> Result<()> {
        self.granted += u64::from(taken.wrapping_sub(self.granted as u32));
        post_credit_receives(&mut self.wire, 1)
    }

    /// Posts all that is left, and waits for all completions.
    fn push_alone(&mut self) -> Result<()> {
        loop {
            match self.offer(false)? {
                Offer::Posted => {}
                Offer::Full => self.wire.reap_some()?,
                Offer::Dry => {
                    let mut taken = None;
                    self.wire.receive_some(1, |wc| taken = Some(wc.imm_data))?;
                    taken.map_or(Ok(()), |taken| self.credit(taken))?;
                }
                Offer::Done => return Ok(()),
            }
        }
    }

    /// Has both sides look at what the stream left, and at further messages one by one.
    ///
    /// # Errors
    /// A verbs call or a completion failed, or the peer went away.
    pub(super) fn verify(&mut self, channel: &mut Channel, account: &mut Account) -> Result<(u64, String)> {
        let streamed = self.next;
        let op = self.op();
        if op.is_atomic() {
            self.ask(channel, Phase::CheckSlots, 0, streamed, account)?;
            let last = streamed.min(self.wire.layout.depth);
            for sequence in streamed - last..streamed {
                let found = self.wire.check_atomic(sequence);
                account.count(found);
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
                account.count(found);
            }
        } else {
            self.ask(channel, Phase::CheckSlots, streamed - slots, slots, account)?;
        }
        let singly = self.verify_singly(channel, account)?;
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

    fn verify_singly(&mut self, channel: &mut Channel, account: &mut Account) -> Result<u64> {
        let op = self.op();
        let depth = self.wire.layout.depth;
        let affordable = VERIFY_BYTES / (self.wire.layout.size as u64).max(1);
        let total = (VERIFY_MESSAGES.min(affordable) / self.wire.session.plan.flows()).max(depth);
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
                channel.send(&self.go(Phase::Verify, first, count))?;
            }
            self.end = first + count;
            self.push_alone()?;
            if op == Op::Read {
                for sequence in first..first + count {
                    let number = sequence % self.wire.layout.target_slots;
                    let found = self.wire.check_result(sequence, &self.exposed, number);
                    account.count(found);
                }
            } else if op.consumes_receive() {
                account.add(&receive_account(channel, self.timeout())?);
                self.granted = self.next;
            } else {
                self.ask(channel, Phase::CheckMessages, first, count, account)?;
            }
        }
        Ok(total)
    }

    fn go(&self, phase: Phase, first: u64, count: u64) -> Message {
        Message::Go(Go { phase, first, count, flow: self.wire.session.flow })
    }

    fn ask(
        &self,
        channel: &mut Channel,
        phase: Phase,
        first: u64,
        count: u64,
        account: &mut Account,
    ) -> Result<()> {
        channel.send(&self.go(phase, first, count))?;
        account.add(&receive_account(channel, self.timeout())?);
        Ok(())
    }

    /// The responder's part in what is not timed.
    pub(super) fn respond(&mut self, go: Go, account: &mut Account) -> Result<()> {
        let end = go.first.saturating_add(go.count);
        match go.phase {
            Phase::Run => {}
            Phase::Verify => {
                for sequence in go.first..end {
                    let arrival = self.wire.receive_one()?;
                    account.count(self.wire.check(sequence, &arrival, &self.pattern));
                    self.wire.post_receives(1)?;
                }
                (self.next, self.granted) = (end, end);
            }
            Phase::CheckSlots if self.op().is_atomic() => account.count(check_word(&self.wire, go.count)),
            Phase::CheckSlots => self.check_all(go, account, |flow, sequence| {
                let number = sequence % flow.wire.layout.depth;
                flow.wire.check_bytes(sequence, &flow.pattern, number, Some(sequence))
            }),
            Phase::CheckMessages => self.check_all(go, account, |flow, sequence| {
                flow.wire.check(sequence, &Arrival::Memory, &flow.pattern)
            }),
        }
        Ok(())
    }

    fn check_all(
        &mut self,
        go: Go,
        account: &mut Account,
        check: impl Fn(&mut Self, u64) -> Result<(), String>,
    ) {
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
            account.count(found);
        }
    }

    /// A message was taken: checks its completion.
    #[inline]
    pub(super) fn took(&mut self, wc: &tbrdma::WorkCompletion, account: &mut Account) {
        if let Err(reason) = self.wire.check_completion(self.next, wc) {
            account.errors += 1;
            account.first_error.get_or_insert(reason);
        }
        self.next += 1;
    }

    /// Reposts receives of so many messages, and says how many were taken where it is time to.
    pub(super) fn repost(&mut self, count: u64) -> Result<()> {
        let grant_every = (self.wire.layout.target_slots / 4).max(1);
        self.wire.post_receives(count)?;
        if self.next - self.granted >= grant_every || self.next == self.end {
            self.grant()?;
        }
        Ok(())
    }

    fn grant(&mut self) -> Result<()> {
        self.wire.reap((self.credits_sent + 1).saturating_sub(CREDITS_UNDER_WAY))?;
        let (number, taken) = (self.credits_sent, self.next as u32);
        let Session { qp, outgoing, destination, flow, .. } = &mut self.wire.session;
        qp.post(|batch| {
            let request = batch.send_with_imm(outgoing.slice(0..0), taken).id(tag(*flow) | number);
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
fn post_credit_receives(wire: &mut Wire, count: u64) -> Result<()> {
    let header = wire.layout.header;
    let Session { qp, incoming, flow, .. } = &mut wire.session;
    let id = tag(*flow);
    qp.post_recv(|batch| {
        for _ in 0..count {
            if header == 0 { batch.recv_nothing() } else { batch.recv(incoming.slice(0..header)) }.id(id);
        }
    })
    .context(|| format!("post {count} receives for credits"))
}
