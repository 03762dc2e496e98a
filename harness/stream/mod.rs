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

mod flow;
mod measure;

use std::time::{Duration, Instant};

use tbrdma::WorkCompletion;

use crate::clock;
use crate::completions::told_apart;
use crate::control::{Account, Channel, Go, Message, Phase};
use crate::error::Result;
use crate::lanes::{Part, Share};
use crate::pingpong::receive_account;
use crate::session::{SPARE_WRS, Session};
use crate::watch::Spins;
use flow::{Flow, Offer};
pub use measure::{Outcome, measure};

/// One side of a stream, or one of its threads.
pub struct Stream {
    flows: Vec<Flow>,
    /// Of each of them: receives to post again.
    taken: Vec<u64>,
    account: Account,
}

/// What the threads of the initiator are told.
#[derive(Debug, Clone, Copy)]
pub enum Order {
    /// Stream so many messages, all threads together.
    Batch(u64),
    /// Have what the stream left looked at, and further messages one by one.
    Verify,
}

/// What a thread found.
#[derive(Debug)]
pub struct Found {
    /// Messages of the batch.
    pub messages: u64,
    /// From the first post to the last completion.
    pub since: Instant,
    /// See there.
    pub until: Instant,
    /// What was checked.
    pub account: Account,
    /// How many messages that should be.
    pub to_check: u64,
    /// What exactly that was.
    pub verification: String,
}

impl Part for Stream {
    type Order = Order;
    type Found = Found;

    fn new(sessions: Vec<Session>) -> Result<Self> {
        let flows = sessions.into_iter().map(Flow::new).collect::<Result<Vec<_>>>()?;
        let taken = vec![0; flows.len()];
        Ok(Self { flows, taken, account: Account::default() })
    }

    fn session(&self) -> &Session {
        &self.flows[0].wire.session
    }

    fn perform(&mut self, order: Order, share: &Share, channel: &mut Channel) -> Result<Found> {
        let now = clock::now();
        let nothing = Account::default();
        let mut found = Found {
            messages: 0,
            since: now,
            until: now,
            account: nothing,
            to_check: 0,
            verification: String::new(),
        };
        match order {
            Order::Batch(total) => {
                found.messages = share.part(total);
                (found.since, found.until) = self.batch(channel, found.messages, share)?;
            }
            Order::Verify => {
                let Self { flows, account, .. } = self;
                for flow in flows {
                    let (to_check, verification) = flow.verify(channel, account)?;
                    found.to_check += to_check;
                    found.verification = verification;
                }
            }
        }
        found.account = std::mem::take(&mut self.account);
        Ok(found)
    }
}

impl Stream {
    fn timeout(&self) -> Duration {
        Duration::from_millis(self.session().plan.timeout_ms)
    }

    fn extend(&mut self, count: u64) {
        let of = self.flows.len() as u32;
        for flow in &mut self.flows {
            flow.extend(count, of);
        }
    }

    /// Streams `count` messages; from when to when that took.
    fn batch(&mut self, channel: &mut Channel, count: u64, share: &Share) -> Result<(Instant, Instant)> {
        self.session().watch.look(&mut Spins::default(), "completion")?;
        let op = self.session().plan.op;
        let first = self.flows[0].next;
        self.extend(count);
        let taken_by_receiver = op.consumes_receive();
        if taken_by_receiver {
            channel.send(&Message::Go(Go { phase: Phase::Run, first, count, flow: 0 }))?;
            match channel.receive(self.timeout())? {
                Message::Ready => {}
                other => return Err(channel.unexpected(&other, "`ready`")),
            }
        }
        share.begin_together(&self.session().watch)?;
        let stamped = !op.is_one_sided();
        let start = clock::now();
        self.push(stamped)?;
        while taken_by_receiver && self.flows.iter().any(|flow| flow.granted < flow.end) {
            self.take_credits()?;
        }
        let end = clock::now();
        if taken_by_receiver {
            self.account.add(&receive_account(channel, self.timeout())?);
        }
        Ok((start, end))
    }

    /// Posts what is left on all queue pairs, a list on each in turn, and waits for all completions.
    fn push(&mut self, stamped: bool) -> Result<()> {
        loop {
            let (mut posted, mut full, mut dry) = (false, false, false);
            for flow in &mut self.flows {
                match flow.offer(stamped)? {
                    Offer::Posted => posted = true,
                    Offer::Full => full = true,
                    Offer::Dry => dry = true,
                    Offer::Done => {}
                }
            }
            match (posted, full, dry) {
                (true, ..) => {}
                (false, true, _) => self.flows[0].wire.reap_some()?,
                (false, false, true) => self.take_credits()?,
                (false, false, false) => return Ok(()),
            }
        }
    }

    /// Waits for word from the receiver of how much it has taken.
    fn take_credits(&mut self) -> Result<()> {
        let mut credits = [WorkCompletion::default(); SPARE_WRS as usize];
        let count = receive(&mut self.flows[0], &mut credits, SPARE_WRS.into())?;
        for wc in credits.iter().take(count as usize) {
            if let Some(flow) = self.flows.get_mut(told_apart(wc.wr_id).0) {
                flow.credit(wc.imm_data)?;
            }
        }
        Ok(())
    }

    /// The responder's part in a batch.
    ///
    /// # Errors
    /// A verbs call or a completion failed, or the peer went away.
    pub fn respond(&mut self, go: Go, channel: &mut Channel) -> Result<Account> {
        self.account = Account::default();
        if go.phase == Phase::Run {
            channel.send(&Message::Ready)?;
            self.extend(go.count);
            self.take()?;
        } else if let Some(flow) = self.flows.get_mut(go.flow as usize) {
            flow.respond(go, &mut self.account)?;
        }
        Ok(std::mem::take(&mut self.account))
    }

    /// Takes all messages that are to come, checks each completion, and grants credits.
    fn take(&mut self) -> Result<()> {
        let mut left: u64 = self.flows.iter().map(|flow| flow.end - flow.next).sum();
        let mut completions = [WorkCompletion::default(); SPARE_WRS as usize];
        while left > 0 {
            let count = receive(&mut self.flows[0], &mut completions, left)?;
            let Self { flows, taken, account } = self;
            for wc in completions.iter().take(count as usize) {
                let number = told_apart(wc.wr_id).0;
                if let (Some(flow), Some(taken)) = (flows.get_mut(number), taken.get_mut(number)) {
                    flow.took(wc, account);
                    *taken += 1;
                }
            }
            for (flow, taken) in flows.iter_mut().zip(taken) {
                if *taken > 0 {
                    flow.repost(std::mem::take(taken))?;
                }
            }
            left -= count;
        }
        Ok(())
    }
}

/// Waits for completions of receives on any of the thread's queue pairs, at most `most`; how many it took.
#[inline]
fn receive(any: &mut Flow, into: &mut [WorkCompletion; SPARE_WRS as usize], most: u64) -> Result<u64> {
    let mut filled = into.iter_mut();
    any.wire.receive_some(most.min(SPARE_WRS.into()) as usize, |wc| {
        if let Some(place) = filled.next() {
            *place = *wc;
        }
    })
}
