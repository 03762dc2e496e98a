//! What happens to packets between our stack and the guest, as a check wants it, and the record of what happened.

use std::time::Duration;
use tbrdma_proto::Time;
use tbrdma_proto::wire::{Headers, NakCode, Operation, Syndrome};

/// What becomes of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It passes.
    Pass,
    /// It is lost.
    Lose,
    /// It passes with one bit of its iCRC wrong.
    Damage,
    /// It passes twice.
    Repeat,
    /// It passes after the next packet of its direction.
    Delay,
}

/// A packet at the point where faults happen.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Seen {
    /// When.
    pub(crate) at: Time,
    /// We sent it; else the guest did.
    pub(crate) ours: bool,
    pub(crate) headers: Headers,
    /// What became of it.
    pub(crate) verdict: Verdict,
}

impl Seen {
    pub(crate) fn operation(&self) -> Operation {
        self.headers.bth.opcode.operation()
    }

    pub(crate) fn psn(&self) -> u32 {
        self.headers.bth.psn.get()
    }

    /// It belongs to the requester's half: it asks for something.
    pub(crate) fn is_request(&self) -> bool {
        !matches!(
            self.operation(),
            Operation::ReadResponse
                | Operation::Acknowledge
                | Operation::AtomicAcknowledge
                | Operation::Congestion
                | Operation::CreditRequest
                | Operation::Credit
        )
    }

    pub(crate) fn is_nak(&self, code: NakCode) -> bool {
        self.headers.aeth.is_some_and(|aeth| aeth.syndrome == Syndrome::Nak(code))
    }

    pub(crate) fn is_rnr_nak(&self) -> bool {
        self.headers.aeth.is_some_and(|aeth| matches!(aeth.syndrome, Syndrome::RnrNak { .. }))
    }
}

/// Decides what becomes of each packet.
pub(crate) type Rule = Box<dyn FnMut(&Seen) -> Verdict + Send>;

/// Everything that passed, or did not, since a check began.
#[derive(Debug, Default)]
pub(crate) struct Record(pub(crate) Vec<Seen>);

impl Record {
    /// How many packets are so.
    pub(crate) fn count(&self, which: impl Fn(&Seen) -> bool) -> usize {
        self.0.iter().filter(|seen| which(seen)).count()
    }

    /// When the packets that are so passed.
    pub(crate) fn times(&self, which: impl Fn(&Seen) -> bool) -> Vec<Time> {
        self.0.iter().filter(|seen| which(seen)).map(|seen| seen.at).collect()
    }

    /// The time between two of those times.
    pub(crate) fn between(times: &[Time], first: usize, second: usize) -> Option<Duration> {
        Some(times.get(second)?.since(*times.get(first)?))
    }
}

/// Gives the `n`th packet (counted from 0) that is so this verdict, once.
pub(crate) fn nth(n: usize, verdict: Verdict, which: impl Fn(&Seen) -> bool + Send + 'static) -> Rule {
    let mut left = n;
    let mut done = false;
    Box::new(move |seen| {
        if done || !which(seen) {
            return Verdict::Pass;
        }
        if left > 0 {
            left -= 1;
            return Verdict::Pass;
        }
        done = true;
        verdict
    })
}

/// Gives every packet that is so this verdict.
pub(crate) fn each(verdict: Verdict, which: impl Fn(&Seen) -> bool + Send + 'static) -> Rule {
    Box::new(move |seen| if which(seen) { verdict } else { Verdict::Pass })
}
