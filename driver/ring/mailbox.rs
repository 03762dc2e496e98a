//! One request at a time from a queue pair to its peer's agent, and the answer: two lines of words, one written by each side.
//!
//! ```text
//! request  0      number of the request; with the top bit set, withdrawn
//!          1..8   operands
//! reply    0      number of the request last answered
//!          1      granted (1) or refused
//!          2      result
//!          3      number of the request being served; zero when none is
//! ```
//!
//! Operands change only while the agent cannot be reading them: after an answer, or after a withdrawal that came in time. Agent
//! and requester settle that as a busy word is settled: the agent says what it serves, fences, and looks whether it is still
//! wanted; the requester withdraws, fences, and looks what is being served.

use crate::sync::{AtomicU64, Ordering, fence};

/// Words of a request, and of a reply.
pub(crate) const MAILBOX_WORDS: usize = 8;
/// What a request can carry.
pub(crate) type Operands = [u64; MAILBOX_WORDS - 1];

const WITHDRAWN: u64 = 1 << 63;
const GRANTED: u64 = 1;
const REFUSED: u64 = 2;
const OUTCOME: usize = 1;
const RESULT: usize = 2;
const SERVING: usize = 3;

/// A view of both lines. The requester owns the queue pair they lie beside; the agent is its peer's service thread.
#[derive(Clone, Copy)]
pub(crate) struct Mailbox<'a> {
    request: &'a [AtomicU64; MAILBOX_WORDS],
    reply: &'a [AtomicU64; MAILBOX_WORDS],
}

impl<'a> Mailbox<'a> {
    /// A view over a queue pair's words.
    pub(crate) fn new(
        request: &'a [AtomicU64; MAILBOX_WORDS],
        reply: &'a [AtomicU64; MAILBOX_WORDS],
    ) -> Self {
        Self { request, reply }
    }

    /// Requester: asks; the request's number. Nothing is asked, and there is no number, while the agent may still be serving an
    /// earlier request.
    pub(crate) fn ask(&self, operands: &Operands) -> Option<u64> {
        if !self.withdraw() {
            return None;
        }
        // Never zero, which is the number of no request.
        let number = (self.request[0].load(Ordering::Relaxed) & !WITHDRAWN).wrapping_add(1) & !WITHDRAWN;
        let number = number.max(1);
        for (word, operand) in self.request[1..].iter().zip(operands) {
            word.store(*operand, Ordering::Relaxed);
        }
        self.request[0].store(number, Ordering::Release);
        Some(number)
    }

    /// Requester: how request `number` ended, once it has: its result if it was granted.
    pub(crate) fn answer(&self, number: u64) -> Option<Option<u64>> {
        if number == 0 || self.reply[0].load(Ordering::Acquire) != number {
            return None;
        }
        let granted = self.reply[OUTCOME].load(Ordering::Relaxed) == GRANTED;
        Some(granted.then(|| self.reply[RESULT].load(Ordering::Relaxed)))
    }

    /// Requester: takes back what has been asked, if anything has and it has not been answered. True if the agent is certainly not
    /// serving it and never will; false if it may be: ask again later.
    pub(crate) fn withdraw(&self) -> bool {
        let word = self.request[0].load(Ordering::Relaxed);
        let number = word & !WITHDRAWN;
        if self.reply[0].load(Ordering::Acquire) == number {
            return true;
        }
        self.request[0].store(number | WITHDRAWN, Ordering::Release);
        fence(Ordering::SeqCst);
        !self.is_serving(number)
    }

    /// Requester: may the agent still be serving request `number`, which has been withdrawn?
    pub(crate) fn is_serving(&self, number: u64) -> bool {
        self.reply[SERVING].load(Ordering::Acquire) == number
            && self.reply[0].load(Ordering::Acquire) != number
    }

    /// Agent: the request that waits for it, if one does. From here to [`reply`](Self::reply) the requester leaves its memory as
    /// it is.
    pub(crate) fn take(&self) -> Option<(u64, Operands)> {
        let number = self.request[0].load(Ordering::Relaxed);
        if number == 0 || number & WITHDRAWN != 0 || number == self.reply[0].load(Ordering::Relaxed) {
            return None;
        }
        self.reply[SERVING].store(number, Ordering::Relaxed);
        // Also makes visible what the requester wrote before its number.
        fence(Ordering::SeqCst);
        if self.request[0].load(Ordering::Relaxed) != number {
            self.reply[SERVING].store(0, Ordering::Release);
            return None;
        }
        let mut operands = Operands::default();
        for (operand, word) in operands.iter_mut().zip(&self.request[1..]) {
            *operand = word.load(Ordering::Relaxed);
        }
        Some((number, operands))
    }

    /// Agent: answers.
    pub(crate) fn reply(&self, number: u64, outcome: Option<u64>) {
        let granted = if outcome.is_some() { GRANTED } else { REFUSED };
        self.reply[OUTCOME].store(granted, Ordering::Relaxed);
        self.reply[RESULT].store(outcome.unwrap_or(0), Ordering::Relaxed);
        self.reply[0].store(number, Ordering::Release);
        self.reply[SERVING].store(0, Ordering::Release);
    }
}
