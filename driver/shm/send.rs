//! The send queue: executing work requests as they are posted, and those that had to wait when their time comes.
//!
//! A work request is executed by the thread that posts it, at once. One that cannot be (the peer has no receive posted, is not yet
//! ready to receive, or its agent must help) waits in `pending` with all that were posted after it, in order; the queue pair is
//! then *stalled*, and pollers that find nothing and the service thread try again until it works or its timer ends it.

use super::agent;
use super::core::{Core, Destination, lock};
use super::qp::{ShmQp, announce_remote};
use super::remote::Remote;
use super::take::give_back_claim;
use super::transfer::{Local, Seen};
use super::wire::{Flight, Flights, Wire};
use crate::mem::LocalRegion;
use crate::ring::arm::{Arm, TellMe, publish_fence};
use crate::ring::busy::Busy;
use crate::ring::completion::SendCompletion;
use crate::sync::Ordering;
use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};
use tbrdma_proto::{AsyncEventKind, PostDisposition, QpState, QpType, SendFlags, SendWr, Sge, WcStatus};

/// `rnr_retry` that never gives up.
const FOR_EVER: u8 = 7;

/// What bounds the waiting.
#[derive(Clone, Copy, Default)]
pub(crate) struct Patience {
    pub(crate) ack_timeout: Option<Duration>,
    pub(crate) retry_cnt: u8,
    pub(crate) rnr_retry: u8,
}

/// The part of a queue pair that its send lock guards.
#[derive(Default)]
pub(crate) struct SendState {
    pub(crate) remote: Option<Remote>,
    pub(crate) queue: SendFifo,
    pub(crate) seen: Seen,
}

/// The queue itself.
#[derive(Default)]
pub(crate) struct SendFifo {
    pub(crate) posted: u32,
    pub(crate) patience: Patience,
    pub(crate) pending: VecDeque<Pending>,
    /// Where the address handles used so far lead.
    pub(crate) destinations: HashMap<u32, Destination>,
    pub(crate) flights: Flights,
}

/// A work request that waits.
pub(crate) struct Pending {
    pub(super) wr: SendWr,
    pub(super) sges: Vec<Sge>,
    pub(super) inline: Vec<u8>,
    pub(super) length: u64,
    pub(super) number: u32,
    progress: Progress,
    /// For what it waits, and until when.
    pub(super) waiting: Option<(Wait, Option<Instant>)>,
    /// Where it is on a wire that takes its time.
    pub(super) flight: Flight,
}

/// How far a work request has come.
#[derive(Default)]
pub(crate) struct Progress {
    /// Bytes moved.
    pub(crate) moved: u64,
    /// A request to the peer's agent is out.
    pub(crate) asked: bool,
    /// Its number.
    pub(crate) number: u64,
    /// Where its bounce buffer is.
    pub(crate) bounce: Option<agent::Bounce>,
    /// The peer has taken the key out of use that it was to.
    pub(crate) invalidated: bool,
    /// A receive claimed from a queue with many senders.
    pub(crate) claimed: Option<u32>,
}

/// What a work request waits for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Wait {
    /// A receive; the peer's RNR timer says how long one retry takes.
    Receive(Duration),
    /// The peer's queue pair to become ready to receive, or to expect our PSN.
    Ready,
    /// The peer's agent.
    Agent,
    /// A peer that has ended, destroyed its queue pair or let it fail. No adapter would know: it sends again until it has waited long enough, and a
    /// program that has finished meanwhile never learns of it.
    Gone,
}

/// Between a peer's end and that of our queue pairs, and the longest that a send waits for a peer that is gone, whatever its timeouts say: time for a
/// program whose peer has simply finished before it to finish as well, as it would on hardware. Death is known everywhere within a second.
pub(crate) const GRACE: Duration = Duration::from_millis(500);

/// What became of one attempt.
pub(crate) enum Step {
    Done(u32),
    Failed(WcStatus),
    Wait(Wait),
}

/// One work request with its operands.
pub(crate) struct Work<'a> {
    pub(crate) wr: &'a SendWr,
    pub(crate) local: Local<'a>,
    pub(crate) length: u64,
}

/// What one doorbell has found out, and what must be announced when it is done. What was found to be allowed stays allowed until then: whoever
/// takes it away waits for our busy word.
pub(crate) struct Doorbell<'a> {
    pub(crate) seen: &'a mut Seen,
    /// The peer has been found ready.
    pub(crate) ready: bool,
    pub(super) sent: bool,
    sent_error: bool,
    pub(crate) received: bool,
    pub(crate) solicited: bool,
}

impl<'a> Doorbell<'a> {
    #[inline(always)]
    pub(super) fn new(seen: &'a mut Seen) -> Self {
        Self { seen, ready: false, sent: false, sent_error: false, received: false, solicited: false }
    }
}

impl SendFifo {
    fn is_draining(&self) -> bool {
        self.flights.are_in_the_air() || self.pending.front().is_some_and(Pending::has_begun)
    }

    /// Has everything ended that was posted?
    pub(crate) fn is_idle(&self) -> bool {
        self.pending.is_empty() && !self.flights.are_in_the_air()
    }
}

impl Pending {
    fn has_begun(&self) -> bool {
        self.waiting.is_some() || self.flight.has_begun()
    }
}

impl SendState {
    /// Has the first of those that wait begun? In SQD the queue is drained when it has ended.
    pub(crate) fn is_draining(&self) -> bool {
        self.queue.is_draining()
    }

    /// Drops everything that waits, without completions: reset and destruction.
    pub(crate) fn forget(&mut self, core: &Core) {
        for pending in &mut self.queue.pending {
            agent::release_bounce(core, &mut pending.progress);
            give_back_claim(self.remote.as_ref(), &mut pending.progress);
        }
        self.remote = None;
        self.seen = Seen::default();
        self.queue.pending.clear();
        self.queue.destinations.clear();
        self.queue.flights = Flights::default();
    }
}

impl ShmQp {
    /// Executes a work request if it may run now, or lets it wait. After a failure, what becomes of those behind it.
    #[inline(never)]
    pub(super) fn take_up(
        &self,
        remote: Option<&Remote>,
        queue: &mut SendFifo,
        work: &Work<'_>,
        number: u32,
        may_run: bool,
        doorbell: &mut Doorbell<'_>,
    ) -> Option<PostDisposition> {
        let mut progress = Progress::default();
        let mut waiting = None;
        if self.qp_type == QpType::Ud {
            self.resolve(queue, work.wr);
        }
        if may_run {
            match self.attempt(remote, queue, work, &mut progress, &mut waiting, doorbell) {
                Step::Done(bytes) => {
                    self.complete(work.wr, number, WcStatus::Success, bytes, doorbell);
                    return None;
                }
                Step::Failed(status) => {
                    self.let_go(remote, &mut progress);
                    self.complete(work.wr, number, status, 0, doorbell);
                    return Some(self.after_failure(remote, queue, doorbell));
                }
                Step::Wait(_) => {}
            }
        }
        let (sges, inline) = match work.local {
            Local::List(sges) => (sges.to_vec(), Vec::new()),
            Local::Inline(bytes) => (Vec::new(), bytes.to_vec()),
        };
        queue.pending.push_back(Pending {
            wr: work.wr.clone(),
            sges,
            inline,
            length: work.length,
            number,
            progress,
            waiting,
            flight: self.pack(work),
        });
        None
    }

    /// Tries the waiting work requests again. False if another thread is at it.
    pub(crate) fn progress(&self) -> bool {
        let Some(mut guard) = self.send.try_intrude() else { return false };
        let SendState { remote, queue, seen } = &mut *guard;
        if queue.is_idle() {
            self.core.unlist_stalled(self);
            return true;
        }
        let wire = self.core.wire.as_ref();
        if let Some(remote) = remote {
            remote.find_queue();
        }
        let remote = remote.as_ref();
        let mut doorbell = Doorbell::new(seen);
        let was_draining = queue.is_draining();
        let busy = Busy(&self.words().busy);
        busy.enter(self.target.load(Ordering::Relaxed));
        if let Some(wire) = wire {
            self.set_off(wire, queue);
        }
        while let Some(mut front) = queue.pending.pop_front() {
            let begun = front.has_begun();
            let tried = front.waiting.is_some();
            let may_run = match self.state() {
                QpState::Rts => true,
                QpState::Sqd => begun,
                _ => false,
            };
            if !may_run || self.is_under_way(&front) {
                queue.pending.push_front(front);
                break;
            }
            let local = if front.wr.flags.contains(SendFlags::INLINE) {
                Local::Inline(&front.inline)
            } else {
                Local::List(&front.sges)
            };
            let work = Work { wr: &front.wr, local, length: front.length };
            let (progress, waiting) = (&mut front.progress, &mut front.waiting);
            let mut step = match front.flight.verdict() {
                Some(status) => Step::Failed(status),
                None => self.attempt(remote, queue, &work, progress, waiting, &mut doorbell),
            };
            if !matches!(step, Step::Wait(_)) {
                self.let_go(remote, progress);
            }
            if let Some(wire) = wire {
                step = self.on_wire(wire, remote, queue, &mut front, (step, tried), &mut doorbell);
            }
            match step {
                Step::Done(_) if wire.is_some() => {}
                Step::Done(bytes) => {
                    self.complete(&front.wr, front.number, WcStatus::Success, bytes, &mut doorbell);
                }
                Step::Failed(status) => {
                    self.complete(&front.wr, front.number, status, 0, &mut doorbell);
                    self.after_failure(remote, queue, &mut doorbell);
                }
                Step::Wait(_) => {
                    queue.pending.push_front(front);
                    break;
                }
            }
        }
        if let Some(wire) = wire {
            self.bring_back(wire, queue, &mut doorbell);
        }
        busy.leave();
        self.ring_doorbell(remote, &doorbell);
        let drained = was_draining && !queue.is_draining() && self.state() == QpState::Sqd;
        if queue.is_idle() || drained {
            self.core.unlist_stalled(self);
        }
        drop(guard);
        if drained && self.notify_drained.load(Ordering::Acquire) {
            self.raise(AsyncEventKind::SqDrained);
        }
        true
    }

    /// A work request has ended: what it held of ours and of the peer's goes back.
    fn let_go(&self, remote: Option<&Remote>, progress: &mut Progress) {
        agent::release_bounce(&self.core, progress);
        give_back_claim(remote, progress);
    }

    /// When the first waiting work request must be looked at at the latest.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        let send = self.send.intrude();
        let patience = send.queue.pending.front().and_then(|front| front.waiting?.1);
        let Some(wire) = &self.core.wire else { return patience };
        self.next_due(&send.queue).map(|at| wire.instant(at)).into_iter().chain(patience).min()
    }

    /// The send that waits for a peer that will not come back fails; the others are flushed after it. The caller announces.
    pub(crate) fn give_up(&self, remote: Option<&Remote>, queue: &mut SendFifo) {
        self.cut_off(queue);
        if let Some(mut pending) = queue.pending.pop_front_if(|pending| pending.waiting.is_some()) {
            self.let_go(remote, &mut pending.progress);
            self.push_completion(&pending.wr, pending.number, WcStatus::RetryExcErr, 0);
        }
    }

    /// Flushes everything that waits. The caller announces.
    pub(crate) fn flush_sends(&self, remote: Option<&Remote>, queue: &mut SendFifo) {
        self.cut_off(queue);
        while let Some(mut pending) = queue.pending.pop_front() {
            self.let_go(remote, &mut pending.progress);
            let status = pending.flight.verdict().unwrap_or(WcStatus::WrFlushErr);
            self.push_completion(&pending.wr, pending.number, status, 0);
        }
    }

    /// One attempt, its waiting bounded.
    #[inline(always)]
    fn attempt<'a>(
        &'a self,
        remote: Option<&'a Remote>,
        queue: &SendFifo,
        work: &Work<'_>,
        progress: &mut Progress,
        waiting: &mut Option<(Wait, Option<Instant>)>,
        doorbell: &mut Doorbell<'_>,
    ) -> Step {
        let step = match self.rules.completion_status_for_length(work.length) {
            Some(status) => Step::Failed(status),
            None if self.rules.habits.loses(work.wr.opcode, work.length) => Step::Done(work.length as u32),
            None if self.qp_type == QpType::Ud => self.send_datagram(queue, work),
            None => self.execute(remote, work, progress, doorbell),
        };
        match step {
            // A list that cannot be sent is found out now, whatever the peer is waiting for.
            Step::Wait(_) if waiting.is_none() && self.is_bad(work) => Step::Failed(WcStatus::LocProtErr),
            Step::Wait(wait) => Self::wait(&queue.patience, wait, waiting),
            step => step,
        }
    }

    /// Names its list memory of ours that it may not use?
    pub(crate) fn is_bad(&self, work: &Work<'_>) -> bool {
        let Local::List(list) = work.local else { return false };
        let needed = work.wr.opcode.local_access_needed();
        let mut known = LocalRegion::default();
        let mut place = |sge: &Sge| {
            self.core.regions.place(&mut known, self.pd, sge.lkey, needed, sge.addr, u64::from(sge.length))
        };
        list.iter().any(|sge| place(sge).is_err())
    }

    /// A work request that must wait: for how long it may, or that it has waited long enough.
    #[cold]
    fn wait(patience: &Patience, wait: Wait, waiting: &mut Option<(Wait, Option<Instant>)>) -> Step {
        let timeout_status = match wait {
            Wait::Receive(_) => WcStatus::RnrRetryExcErr,
            Wait::Ready | Wait::Agent | Wait::Gone => WcStatus::RetryExcErr,
        };
        if matches!(wait, Wait::Receive(_)) && patience.rnr_retry == 0 {
            return Step::Failed(timeout_status);
        }
        match waiting {
            Some((before, deadline)) if *before == wait => match deadline {
                Some(deadline) if Instant::now() >= *deadline => Step::Failed(timeout_status),
                _ => Step::Wait(wait),
            },
            _ => {
                let answer =
                    patience.ack_timeout.map(|timeout| timeout * (u32::from(patience.retry_cnt) + 1));
                let bound = match wait {
                    Wait::Receive(_) if patience.rnr_retry == FOR_EVER => None,
                    Wait::Receive(timer) => Some(timer * u32::from(patience.rnr_retry)),
                    Wait::Ready | Wait::Agent => answer,
                    Wait::Gone => Some(answer.map_or(GRACE, |answer| answer.min(GRACE))),
                };
                *waiting = Some((wait, bound.map(|bound| Instant::now() + bound)));
                Step::Wait(wait)
            }
        }
    }

    /// Records how a work request ended; successes only if it asked.
    #[inline(always)]
    pub(super) fn complete(
        &self,
        wr: &SendWr,
        number: u32,
        status: WcStatus,
        bytes: u32,
        doorbell: &mut Doorbell<'_>,
    ) {
        if status != WcStatus::Success || wr.flags.contains(SendFlags::SIGNALED) {
            self.push_completion(wr, number, status, bytes);
            doorbell.sent = true;
            doorbell.sent_error |= status != WcStatus::Success;
        }
    }

    #[inline(always)]
    fn push_completion(&self, wr: &SendWr, number: u32, status: WcStatus, bytes: u32) {
        self.sent.push(&SendCompletion {
            wr_id: wr.wr_id,
            status,
            opcode: wr.opcode.wc_opcode(),
            byte_len: bytes,
            wq_index: number,
        });
    }

    /// After a failed work request: the error state, or for datagrams and unreliable connections the send queue error state.
    fn after_failure(
        &self,
        remote: Option<&Remote>,
        queue: &mut SendFifo,
        doorbell: &mut Doorbell<'_>,
    ) -> PostDisposition {
        doorbell.sent = true;
        doorbell.sent_error = true;
        if self.qp_type == QpType::Rc {
            self.fail_locked(remote, queue, None);
        } else {
            self.set_state(QpState::Sqe);
            self.flush_sends(remote, queue);
        }
        PostDisposition::Flush
    }

    #[inline(always)]
    pub(super) fn ring_doorbell(&self, remote: Option<&Remote>, doorbell: &Doorbell<'_>) {
        if !doorbell.sent && !doorbell.received {
            return;
        }
        publish_fence();
        if let (true, Some(remote)) = (doorbell.received, remote)
            && let Some(queue) = remote.queue()
        {
            let bit = TellMe(&remote.words.tell).wanted();
            if bit.is_some() || Arm(&queue.cq.arm).is_armed() {
                let cq = (&*queue.cq, queue.cq_slot);
                announce_remote(&remote.peer, cq, bit, remote.wake.as_deref(), doorbell.solicited);
            }
        }
        if doorbell.sent {
            self.tell_sent(doorbell.sent_error);
        }
    }
}

impl Core {
    /// Tries every stalled queue pair again.
    pub(crate) fn progress_stalled(&self) {
        let stalled: Vec<_> = lock(&self.stalled_list).iter().filter_map(std::sync::Weak::upgrade).collect();
        for qp in stalled {
            qp.progress();
        }
    }

    /// The queue pair no longer waits.
    pub(crate) fn unlist_stalled(&self, qp: &ShmQp) {
        if !qp.is_stalled.load(Ordering::Acquire) {
            return;
        }
        let mut list = lock(&self.stalled_list);
        if qp.is_stalled.swap(false, Ordering::AcqRel) {
            list.retain(|other| !std::ptr::eq(other.as_ptr(), qp));
            self.stalled.store(list.len() as u64, Ordering::Release);
        }
    }
}

impl ShmQp {
    /// Puts the queue pair on the list of those that wait, and lets the service thread reckon with its deadline.
    pub(crate) fn list_stalled(&self) {
        let Some(this) = lock(&self.core.qps).get(self.slot).cloned() else { return };
        let mut list = lock(&self.core.stalled_list);
        if !self.is_stalled.swap(true, Ordering::AcqRel) {
            list.push(this);
            self.core.stalled.store(list.len() as u64, Ordering::Release);
            drop(list);
            if self.core.wire.as_ref().is_none_or(Wire::wants_kicks) {
                self.core.kick_self();
            }
        }
    }
}
