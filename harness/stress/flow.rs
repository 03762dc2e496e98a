//! A flow of messages on one queue pair after the other: what is on its way, and how far either side has come.

use std::collections::VecDeque;
use std::time::Duration;

use super::plan::Plan;
use super::world::{Buffers, Pair, World};
use crate::control::Account;
use crate::error::{Context, Result};
use crate::pattern::Pattern;
use crate::plan::Op;

/// A message on its way.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sent {
    pub(super) sequence: u64,
    pub(super) due: Duration,
    pub(super) posted: Duration,
}

/// A queue pair and what takes its place, with everything on its way.
pub(super) struct Flow {
    pub(super) pair: Option<Pair>,
    pub(super) buffers: Buffers,
    /// The number of the next message, and when it is due.
    pub(super) next: u64,
    pub(super) due: Duration,
    pub(super) outstanding: VecDeque<Sent>,
    /// The message that the receiver expects, and those that were acknowledged: all below.
    pub(super) expected: u64,
    pub(super) acknowledged: u64,
    /// Slots without a posted receive.
    pub(super) idle: Vec<u64>,
    pub(super) reconnect_at: Option<Duration>,
}

impl Flow {
    /// A flow without a queue pair.
    pub(super) fn new(buffers: Buffers) -> Self {
        Self {
            pair: None,
            buffers,
            next: 0,
            due: Duration::ZERO,
            outstanding: VecDeque::new(),
            expected: 0,
            acknowledged: 0,
            idle: Vec::new(),
            reconnect_at: None,
        }
    }

    /// A new queue pair, with all its receives.
    pub(super) fn connect(&mut self, world: &World, plan: &Plan) -> Result<()> {
        self.pair = Some(world.connect(plan)?);
        // What became of messages that failed nobody knows: the receiver goes on with the next.
        (self.expected, self.acknowledged) = (self.next, self.next);
        self.reconnect_at = None;
        self.idle.clear();
        if plan.run.op == Op::Send {
            self.idle.extend(0..u64::from(plan.run.receives));
            self.post_receives(plan.run.size)?;
        }
        Ok(())
    }

    /// The first message that the target need not have: where it does nothing, what was acknowledged was checked.
    pub(super) fn expected_of(&self, op: Op) -> u64 {
        if op == Op::Send { self.expected } else { self.acknowledged }
    }

    /// Posts a receive in each slot that has none.
    pub(super) fn post_receives(&mut self, size: u32) -> Result<()> {
        let (Some(pair), false) = (&mut self.pair, self.idle.is_empty()) else { return Ok(()) };
        let (region, stride) = (&self.buffers.theirs, self.buffers.stride);
        let posted = pair.theirs.post_recv(|batch| {
            for slot in self.idle.drain(..) {
                let at = slot as usize * stride;
                batch.recv(region.slice(at..at + size as usize)).id(slot);
            }
        });
        posted.context(|| "post receives".into())
    }
}

/// Whether a message is the one that it should be, to the byte.
pub(super) fn right(pattern: &Pattern, number: u64, bytes: &[u8], flow: usize) -> Result<(), String> {
    match pattern.mismatch(number, bytes) {
        None => Ok(()),
        Some(at) => Err(format!("message {number} of queue pair {flow} is wrong from byte {at} on")),
    }
}

/// Whether all that was acknowledged was seen.
pub(super) fn seen(flow: &Flow, index: usize, op: Op, account: &mut Account) {
    let expected = flow.expected_of(op);
    if flow.acknowledged > expected {
        account.count(Err(format!(
            "message {expected} of queue pair {index} was acknowledged, and never received"
        )));
    }
}
