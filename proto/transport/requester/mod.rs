//! The requester: the half of a queue pair that sends work requests and makes sense of the answers.
//!
//! Packets are numbered from 0 in 64 bits here; on the wire a number is `sq_psn` plus its low 24 bits. Every packet
//! of a message, and every packet of the answer to a READ, has one.
//!
//! | file | what |
//! |---|---|
//! | `queue` | the posted work requests |
//! | `transmit` | what may be sent now, and what that changes |
//! | `packets` | the packets |
//! | `answer` | acknowledgements, data that was read, refusals |
//! | `held` | how many messages of an unreliable connection may go, where they wait for receives |
//! | `credits` | how many receives the peer says it has |
//! | `timers` | silence, and waiting for a receiver that is not ready |

mod answer;
mod credits;
mod held;
mod packets;
mod queue;
mod timers;
mod transmit;

pub(super) use queue::Spans;

use super::congestion::{AdaptiveWindow, Congestion};
use super::counters::Counters;
use super::recovery::GoBackN;
use super::shared::Shared;
use super::{Action, Half, PostFault, QpConfig};
use crate::flags::SendFlags;
use crate::ident::Psn;
use crate::planted::{self, Bug};
use crate::qp::{PostDisposition, QpState, QpType};
use crate::rules::SendRules;
use crate::time::Time;
use crate::work::{SendWr, Sge, WcStatus, WorkCompletion};
use credits::Credits;
use held::Allowance;
use queue::SendQueue;
use std::collections::VecDeque;
use timers::Timers;

/// READ packets on their way at once, over all READ requests that are.
const READ_PACKETS: u32 = 256;

/// How many times of sending are kept: one for four packets of the largest window.
const SENT_AT: usize = 256;

/// The sending half.
#[derive(Debug)]
pub(super) struct Requester {
    pub(super) counters: Counters,
    queue: SendQueue,
    /// The oldest unacknowledged packet.
    unacked: u64,
    /// The next packet to send. Below `sent` while packets are sent again.
    next: u64,
    /// The next number that was never used.
    sent: u64,
    /// Below this, answers may be to a request or to its repetition, which begin at different packets.
    ambiguous: u64,
    /// Below this, what is acknowledged may be a packet or its repetition, so that no round trip can be measured.
    unmeasurable: u64,
    /// Packets of one READ request: longer ones are several requests.
    read_chunk: u32,
    /// READ and atomic requests that are on their way, each by the number behind its answer.
    answers_due: VecDeque<u64>,
    /// A try after a silence was followed by what it was for, so far without a sign that it was needless.
    tried: bool,
    /// The last answer that came while one before it was missing; since the last progress.
    astray: Option<u64>,
    /// The packet for which a receiver was not ready, until it is sent again.
    waited: Option<u64>,
    /// The number after the last packet that asked for an acknowledgement.
    asked: u64,
    /// Packets since the last that asked for an acknowledgement.
    unasked: u32,
    /// SSN of the last request begun.
    ssn: u32,
    /// When packets were sent last, one time for four of them; see [`sent_slot`].
    sent_at: Box<[Time]>,
    /// The last request is to be sent once more, so that the peer says how far it is.
    owes_probe: bool,
    /// A packet whose round trip is being measured, and when it was sent.
    sample: Option<(u64, Time)>,
    /// Where sending was, cursor and number, when it went back because of silence; until something is heard.
    presumed_lost: Option<(u32, u64)>,
    /// A work request failed: the queue pair must change its state.
    failed: bool,
    credits: Credits,
    allowance: Allowance,
    timers: Timers,
    congestion: AdaptiveWindow,
    recovery: GoBackN,
}

impl Requester {
    /// An empty queue.
    pub(super) fn new(config: &QpConfig) -> Self {
        Self {
            counters: Counters::default(),
            queue: SendQueue::new(&config.cap),
            unacked: 0,
            next: 0,
            sent: 0,
            ambiguous: 0,
            unmeasurable: 0,
            read_chunk: 1,
            answers_due: VecDeque::with_capacity(config.device.max_qp_init_rd_atom as usize),
            tried: false,
            astray: None,
            waited: None,
            asked: 0,
            unasked: 0,
            ssn: 0,
            sent_at: vec![Time::ZERO; SENT_AT].into_boxed_slice(),
            owes_probe: false,
            sample: None,
            presumed_lost: None,
            failed: false,
            credits: Credits::default(),
            allowance: Allowance::default(),
            timers: Timers::default(),
            congestion: AdaptiveWindow::new(config.port.active_mtu.bytes()),
            recovery: GoBackN::default(),
        }
    }

    /// Back to the beginning: what was posted is gone without a completion.
    pub(super) fn reset(&mut self) {
        self.queue.clear();
        self.restart();
    }

    /// RTR to RTS: packets will be numbered from `sq_psn` on.
    pub(super) fn connect(&mut self, ctx: &Shared) {
        self.restart();
        self.congestion =
            if ctx.delivers { AdaptiveWindow::wide(ctx.mtu) } else { AdaptiveWindow::new(ctx.mtu) };
        self.recovery = GoBackN::default();
        self.read_chunk = (READ_PACKETS / u32::from(ctx.attr.max_rd_atomic).max(1)).clamp(16, 128);
        self.configure(ctx);
        self.timers.retries_left = ctx.attr.retry_cnt;
        self.timers.rnr_retries_left = ctx.attr.rnr_retry;
    }

    fn restart(&mut self) {
        [self.unacked, self.next, self.sent, self.ambiguous, self.unmeasurable] = [0; 5];
        self.answers_due.clear();
        [self.unasked, self.ssn] = [0; 2];
        self.asked = 0;
        self.owes_probe = false;
        self.sample = None;
        self.presumed_lost = None;
        self.tried = false;
        self.astray = None;
        self.waited = None;
        self.failed = false;
        self.credits = Credits::default();
        self.allowance = Allowance::default();
        self.timers = Timers::default();
    }

    /// Queues a send, whose running number it answers.
    #[inline]
    pub(super) fn post_send(
        &mut self,
        ctx: &Shared,
        rules: &SendRules,
        wr: &SendWr,
        sges: &[Sge],
        inline: &[u8],
    ) -> Result<u32, PostFault> {
        let disposition = ctx.state.send_disposition();
        if disposition == PostDisposition::Refuse {
            return Err(PostFault::State { state: ctx.state });
        }
        if self.queue.is_full() {
            return Err(PostFault::Full { depth: self.queue.depth() });
        }
        let length = rules.check(wr, sges, inline.len())?;
        let status = rules.completion_status_for_length(length).unwrap_or_default();
        // What does not fit 32 bits has a status that says so, and is never sent.
        let number = self.queue.push(wr, sges, inline, length as u32, status);
        if disposition == PostDisposition::Flush {
            self.queue.at_mut(number).status = WcStatus::WrFlushErr;
            self.queue.finish_all();
        }
        Ok(number)
    }

    /// Whether work requests have finished that were not reported: those that want no completion count.
    #[inline]
    pub(super) const fn has_completions(&self) -> bool {
        self.queue.reported != self.queue.head
    }

    /// The next completion, in order.
    #[inline]
    pub(super) fn poll_completion(&mut self, ctx: &Shared) -> Option<Action> {
        while self.queue.reported != self.queue.head {
            let number = self.queue.reported;
            self.queue.reported = number.wrapping_add(1);
            let wqe = self.queue.at(number);
            if wqe.status == WcStatus::Success && !wqe.flags.contains(SendFlags::SIGNALED) {
                continue;
            }
            let wc = WorkCompletion {
                wr_id: wqe.wr_id,
                status: wqe.status,
                opcode: wqe.opcode.wc_opcode(),
                byte_len: if wqe.status == WcStatus::Success { wqe.length } else { 0 },
                qp_num: ctx.qpn,
                wq_index: number,
                ..WorkCompletion::default()
            };
            let solicited = wqe.status != WcStatus::Success;
            return Some(Action::Complete { half: Half::Send, wc, solicited });
        }
        None
    }

    /// Everything that is not finished ends with a flush error.
    pub(super) fn flush(&mut self) {
        let mut number = self.queue.head;
        while number != self.queue.posted {
            self.queue.at_mut(number).status = WcStatus::WrFlushErr;
            number = number.wrapping_add(1);
        }
        if planted::is(Bug::SendNotFlushed) && self.queue.head != self.queue.posted {
            let last = self.queue.at_mut(number.wrapping_sub(1));
            last.status = WcStatus::Success;
            last.flags = SendFlags::empty();
        }
        self.queue.finish_all();
        self.unacked = self.sent;
        self.next = self.sent;
        self.answers_due.clear();
        self.owes_probe = false;
        self.sample = None;
        self.timers.stop();
    }

    /// Whether a work request has failed since this was last asked: the queue pair must then go to ERR or SQE, and
    /// [`flush`](Self::flush).
    #[inline]
    pub(super) const fn take_failure(&mut self) -> bool {
        let failed = self.failed;
        self.failed = false;
        failed
    }

    /// Whether everything begun is finished.
    pub(super) const fn is_drained(&self) -> bool {
        self.queue.head == self.queue.begun
    }

    /// The PSN of the next new packet.
    pub(super) const fn next_psn(&self, ctx: &Shared) -> Psn {
        Self::psn(ctx, self.sent)
    }

    /// The runs of a message's payload.
    #[inline]
    pub(super) fn spans(&self, number: u32, offset: u32, len: u32) -> Spans<'_> {
        self.queue.spans(number, offset, len)
    }

    /// The network is congested, says somebody on the way.
    pub(super) fn on_congestion(&mut self, now: Time) {
        self.congestion.on_mark(now);
    }

    #[inline]
    const fn psn(ctx: &Shared, number: u64) -> Psn {
        ctx.attr.sq_psn.add(number as u32)
    }

    #[inline]
    const fn in_flight(&self) -> u32 {
        (self.next - self.unacked) as u32
    }

    /// Counts as finished what is: all that is acknowledged, in order. Then a failed one ends the queue.
    #[inline]
    fn advance_head(&mut self) {
        while self.queue.head != self.queue.begun {
            let head = self.queue.head;
            let wqe = self.queue.at(head);
            if wqe.status != WcStatus::Success {
                self.queue.head = head.wrapping_add(1);
                self.failed = true;
                return;
            }
            if wqe.end() > self.unacked {
                break;
            }
            self.queue.head = head.wrapping_add(1);
            if self.queue.cursor == head {
                self.queue.cursor = self.queue.head;
            }
        }
    }

    /// The oldest unfinished work request fails.
    #[cold]
    fn fail(&mut self, status: WcStatus) {
        match status {
            WcStatus::RetryExcErr => self.counters.retry_exceeded_err += 1,
            WcStatus::RnrRetryExcErr => self.counters.retry_rnr_exceeded_err += 1,
            _ => {}
        }
        let head = self.queue.head;
        if head == self.queue.begun {
            return;
        }
        self.queue.at_mut(head).status = status;
        self.queue.head = head.wrapping_add(1);
        self.failed = true;
    }

    /// Sending resumes with the oldest unacknowledged packet.
    fn go_back(&mut self) {
        self.counters.completer_retry_err += 1;
        self.next = self.unacked;
        self.queue.cursor = self.queue.head;
        self.ambiguous = self.sent;
        self.answers_due.clear();
        self.owes_probe = false;
        self.sample = None;
        self.presumed_lost = None;
    }

    /// What was on its way is lost, and the way is there again. Who waits for a receiver has nothing on its way.
    pub(super) fn resume(&mut self, ctx: &Shared) {
        if is_reliable(ctx) && self.unacked != self.sent && self.timers.rnr.is_none() {
            self.go_back();
            self.unmeasurable = self.sent;
        }
    }
}

/// Where the time is kept at which packet `number` was sent, or one of its three neighbours.
#[inline]
const fn sent_slot(number: u64) -> usize {
    (number / 4) as usize % SENT_AT
}

/// Whether something may be sent at all in this state.
#[inline]
const fn sends_in(state: QpState) -> bool {
    matches!(state, QpState::Rts | QpState::Sqd)
}

/// Whether packets are acknowledged.
#[inline]
const fn is_reliable(ctx: &Shared) -> bool {
    matches!(ctx.qp_type, QpType::Rc)
}
