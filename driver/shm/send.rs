//! The send queue: executing work requests as they are posted, and those that had to wait when their time comes.
//!
//! A work request is executed by the thread that posts it, at once. One that cannot be (the peer has no receive posted, is not yet
//! ready to receive, or its agent must help) waits in `pending` with all that were posted after it, in order; the queue pair is
//! then *stalled*, and pollers that find nothing and the service thread try again until it works or its timer ends it.

use super::agent::{self, Job};
use super::core::{Core, Destination, lock, qp_words};
use super::peer::Peer;
use super::qp::{ShmQp, announce_remote};
use super::transfer::{Direction, Fault, Local, RemoteSpan, Transfer};
use crate::device::{Refused, SendBatch};
use crate::error::PostRefusal;
use crate::ring::arm::{TellMe, publish_fence};
use crate::ring::busy::{ANYONE, Busy};
use crate::ring::completion::SendCompletion;
use crate::ring::receive::Delivery;
use crate::sync::Ordering;
use crate::sys::eventfd::EventFd;
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tbrdma_proto::{
    Access, Opcode, PostDisposition, QpState, QpType, SendFlags, SendWr, Sge, WcFlags, WcOpcode, WcStatus,
};

/// `rnr_retry` that never gives up.
const FOR_EVER: u8 = 7;

/// The peer's end of a connection.
pub(crate) struct Remote {
    pub(crate) peer: Arc<Peer>,
    pub(crate) qpn: u32,
    pub(crate) slot: u32,
    /// Our first PSN: the peer must expect it.
    pub(crate) sq_psn: u32,
    /// Wakes the channel of the peer's receive queue.
    pub(crate) wake: Option<Arc<EventFd>>,
}

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
    pub(crate) posted: u32,
    pub(crate) remote: Option<Remote>,
    pub(crate) patience: Patience,
    pub(crate) pending: VecDeque<Pending>,
    /// Where the address handles used so far lead.
    pub(crate) destinations: HashMap<u32, Destination>,
}

/// A work request that waits.
pub(crate) struct Pending {
    wr: SendWr,
    sges: Vec<Sge>,
    inline: Vec<u8>,
    length: u64,
    number: u32,
    progress: Progress,
    /// For what it waits, and until when.
    waiting: Option<(Wait, Option<Instant>)>,
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
    pub(crate) bounce: Option<u64>,
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
}

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

/// What must be announced when the doorbell is done.
#[derive(Default)]
pub(crate) struct Doorbell {
    sent: bool,
    sent_error: bool,
    received: bool,
    solicited: bool,
}

impl SendState {
    /// Drops everything that waits, without completions: reset and destruction.
    pub(crate) fn forget(&mut self, core: &Core) {
        for pending in &mut self.pending {
            agent::release_bounce(core, &mut pending.progress);
        }
        self.pending.clear();
        self.remote = None;
        self.destinations.clear();
    }
}

impl ShmQp {
    /// `post_send` of a list: one doorbell.
    pub(crate) fn post_list(&self, batch: &SendBatch) -> (u32, Option<Refused>) {
        let mut guard = lock(&self.send);
        let send = &mut *guard;
        let first = send.posted;
        let state = self.state();
        let mut disposition = state.send_disposition();
        if disposition == PostDisposition::Refuse {
            return (first, Some((0, PostRefusal::State(state))));
        }
        let mut doorbell = Doorbell::default();
        let mut refused = None;
        self.enter(send);
        for (index, wr) in batch.wrs.iter().enumerate() {
            if send.posted.wrapping_sub(self.sends_retired.load(Ordering::Acquire)) >= self.cap.max_send_wr {
                refused = Some((index, PostRefusal::QueueFull { depth: self.cap.max_send_wr }));
                break;
            }
            let (from, to) = (wr.sg.start as usize, wr.sg.end as usize);
            let is_inline = wr.flags.contains(SendFlags::INLINE);
            let sges = if is_inline { &[] } else { batch.sges.get(from..to).unwrap_or(&[]) };
            let inline = if is_inline { batch.inline.get(from..to).unwrap_or(&[]) } else { &[] };
            let length = match self.rules.check(wr, sges, inline.len()) {
                Ok(length) => length,
                Err(kind) => {
                    refused = Some((index, PostRefusal::WorkRequest(kind)));
                    break;
                }
            };
            let number = send.posted;
            send.posted = number.wrapping_add(1);
            if disposition == PostDisposition::Flush {
                self.complete(wr, number, WcStatus::WrFlushErr, 0, &mut doorbell);
                continue;
            }
            let mut progress = Progress::default();
            let mut waiting = None;
            if send.pending.is_empty() && disposition == PostDisposition::Execute {
                if self.qp_type == QpType::Ud {
                    self.resolve(send, wr);
                }
                let local = if is_inline { Local::Inline(inline) } else { Local::List(sges) };
                let work = Work { wr, local, length };
                match self.attempt(send, &work, &mut progress, &mut waiting, &mut doorbell) {
                    Step::Done(bytes) => {
                        self.complete(wr, number, WcStatus::Success, bytes, &mut doorbell);
                        continue;
                    }
                    Step::Failed(status) => {
                        self.complete(wr, number, status, 0, &mut doorbell);
                        disposition = self.after_failure(send, &mut doorbell);
                        continue;
                    }
                    Step::Wait(_) => {}
                }
            }
            send.pending.push_back(Pending {
                wr: wr.clone(),
                sges: sges.to_vec(),
                inline: inline.to_vec(),
                length,
                number,
                progress,
                waiting,
            });
        }
        self.leave();
        self.ring_doorbell(send, &doorbell);
        let stalled = !send.pending.is_empty() && disposition == PostDisposition::Execute;
        drop(guard);
        if stalled {
            self.list_stalled();
        }
        (first, refused)
    }

    /// Tries the waiting work requests again. False if another thread is at it.
    pub(crate) fn progress(&self) -> bool {
        let Ok(mut guard) = self.send.try_lock() else { return false };
        let send = &mut *guard;
        let mut doorbell = Doorbell::default();
        if send.pending.is_empty() {
            self.core.unlist_stalled(self);
            return true;
        }
        self.enter(send);
        while let Some(mut front) = send.pending.pop_front() {
            let begun = front.waiting.is_some();
            let may_run = match self.state() {
                QpState::Rts => true,
                QpState::Sqd => begun,
                _ => false,
            };
            if !may_run {
                send.pending.push_front(front);
                break;
            }
            let local = if front.wr.flags.contains(SendFlags::INLINE) {
                Local::Inline(&front.inline)
            } else {
                Local::List(&front.sges)
            };
            let work = Work { wr: &front.wr, local, length: front.length };
            match self.attempt(send, &work, &mut front.progress, &mut front.waiting, &mut doorbell) {
                Step::Done(bytes) => {
                    agent::release_bounce(&self.core, &mut front.progress);
                    self.complete(&front.wr, front.number, WcStatus::Success, bytes, &mut doorbell);
                }
                Step::Failed(status) => {
                    agent::release_bounce(&self.core, &mut front.progress);
                    self.complete(&front.wr, front.number, status, 0, &mut doorbell);
                    self.after_failure(send, &mut doorbell);
                }
                Step::Wait(_) => {
                    send.pending.push_front(front);
                    break;
                }
            }
        }
        self.leave();
        self.ring_doorbell(send, &doorbell);
        if send.pending.is_empty() {
            self.core.unlist_stalled(self);
        }
        true
    }

    /// When the first waiting work request must be looked at at the latest.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        lock(&self.send).pending.front()?.waiting?.1
    }

    /// Flushes everything that waits. The caller announces.
    pub(crate) fn flush_sends(&self, send: &mut SendState) {
        let mut doorbell = Doorbell::default();
        while let Some(mut pending) = send.pending.pop_front() {
            agent::release_bounce(&self.core, &mut pending.progress);
            self.complete(&pending.wr, pending.number, WcStatus::WrFlushErr, 0, &mut doorbell);
        }
    }

    fn enter(&self, send: &SendState) {
        let target = match &send.remote {
            Some(remote) => remote.peer.context,
            None => ANYONE,
        };
        Busy(&self.words().busy).enter(target);
    }

    fn leave(&self) {
        Busy(&self.words().busy).leave();
    }

    /// One attempt, its waiting bounded.
    fn attempt(
        &self,
        send: &SendState,
        work: &Work<'_>,
        progress: &mut Progress,
        waiting: &mut Option<(Wait, Option<Instant>)>,
        doorbell: &mut Doorbell,
    ) -> Step {
        let step = match self.rules.completion_status_for_length(work.length) {
            Some(status) => Step::Failed(status),
            None if self.qp_type == QpType::Ud => self.send_datagram(send, work),
            None => self.execute(send, work, progress, doorbell),
        };
        let Step::Wait(wait) = step else { return step };
        let patience = &send.patience;
        let timeout_status = match wait {
            Wait::Receive(_) => WcStatus::RnrRetryExcErr,
            Wait::Ready | Wait::Agent => WcStatus::RetryExcErr,
        };
        if matches!(wait, Wait::Receive(_)) && patience.rnr_retry == 0 {
            return Step::Failed(timeout_status);
        }
        let same = waiting.as_ref().is_some_and(|(before, _)| *before == wait);
        if !same {
            let bound = match wait {
                Wait::Receive(_) if patience.rnr_retry == FOR_EVER => None,
                Wait::Receive(timer) => Some(timer * u32::from(patience.rnr_retry)),
                Wait::Ready | Wait::Agent => {
                    patience.ack_timeout.map(|timeout| timeout * (u32::from(patience.retry_cnt) + 1))
                }
            };
            *waiting = Some((wait, bound.map(|bound| Instant::now() + bound)));
            return Step::Wait(wait);
        }
        match waiting {
            Some((_, Some(deadline))) if Instant::now() >= *deadline => Step::Failed(timeout_status),
            _ => Step::Wait(wait),
        }
    }

    /// Executes a work request of a connected queue pair against the peer's segment.
    fn execute(&self, send: &SendState, work: &Work<'_>, progress: &mut Progress, doorbell: &mut Doorbell) -> Step {
        let Some(remote) = &send.remote else { return Step::Failed(WcStatus::LocQpOpErr) };
        let reliable = self.qp_type == QpType::Rc;
        let lost = if reliable { Step::Failed(WcStatus::RetryExcErr) } else { Step::Done(work.length as u32) };
        if !remote.peer.is_alive() {
            return lost;
        }
        let words = qp_words(&remote.peer.segment, remote.slot);
        let state = QpState::from_raw(words.state.load(Ordering::SeqCst) as u32).unwrap_or(QpState::Err);
        if words.identity.load(Ordering::Acquire) as u32 != remote.qpn || state == QpState::Err {
            return lost;
        }
        let expects_us = words.peer_context.load(Ordering::Relaxed) == self.core.context
            && words.peer_qp.load(Ordering::Relaxed) == u64::from(self.qpn.get()) | u64::from(remote.sq_psn) << 32;
        if matches!(state, QpState::Reset | QpState::Init) || !expects_us {
            return if reliable { Step::Wait(Wait::Ready) } else { lost };
        }
        let step = match work.wr.opcode {
            Opcode::Send | Opcode::SendWithImm => self.deliver(remote, work, progress, doorbell),
            Opcode::RdmaWrite => self.write(remote, work, progress),
            Opcode::RdmaWriteWithImm => self.write_with_imm(remote, work, progress, doorbell),
            Opcode::RdmaRead => self.read(remote, work, progress),
            Opcode::AtomicCmpAndSwp | Opcode::AtomicFetchAndAdd => self.atomic(remote, work, progress),
            Opcode::LocalInv | Opcode::BindMw | Opcode::SendWithInv => Step::Failed(WcStatus::LocQpOpErr),
        };
        match step {
            // An unreliable connection does not learn what the peer thinks of a message; it is dropped there.
            Step::Failed(status) if !reliable && is_remote(status) => Step::Done(work.length as u32),
            step => step,
        }
    }

    pub(crate) fn transfer<'a>(
        &'a self,
        remote: &'a Remote,
        needed: Access,
        direction: Direction,
        remote_pd: tbrdma_proto::PdHandle,
    ) -> Transfer<'a> {
        Transfer {
            core: &self.core,
            words: self.words(),
            peer: &remote.peer,
            peer_slot: remote.slot,
            local_pd: self.pd,
            remote_pd,
            needed,
            direction,
        }
    }

    /// Rights of the peer's queue pair: its protection domain, and whether it grants `needed` at all.
    fn remote_rights(&self, remote: &Remote, needed: Access) -> Result<tbrdma_proto::PdHandle, WcStatus> {
        let rights = qp_words(&remote.peer.segment, remote.slot).rights.load(Ordering::Relaxed);
        if !Access::from_bits_truncate((rights >> 32) as u32).contains(needed) {
            self.report(remote, tbrdma_proto::AsyncEventKind::QpReqErr);
            return Err(WcStatus::RemInvReqErr);
        }
        Ok(tbrdma_proto::PdHandle(rights as u32))
    }

    fn write(&self, remote: &Remote, work: &Work<'_>, progress: &mut Progress) -> Step {
        self.one_sided(remote, work, progress, Access::REMOTE_WRITE, Direction::Put)
    }

    fn read(&self, remote: &Remote, work: &Work<'_>, progress: &mut Progress) -> Step {
        if let Some(refused) = self.no_responder_resources(remote) {
            return refused;
        }
        self.one_sided(remote, work, progress, Access::REMOTE_READ, Direction::Get)
    }

    fn one_sided(
        &self,
        remote: &Remote,
        work: &Work<'_>,
        progress: &mut Progress,
        needed: Access,
        direction: Direction,
    ) -> Step {
        let pd = match self.remote_rights(remote, needed) {
            Ok(pd) => pd,
            Err(status) => return Step::Failed(status),
        };
        if work.length == 0 {
            // Nothing is accessed, so no key is checked (IBTA volume 1, section 9.7.4.1.5 and C9-88).
            return Step::Done(0);
        }
        let span = RemoteSpan { key: work.wr.remote.rkey, addr: work.wr.remote.addr, len: work.length };
        let transfer = self.transfer(remote, needed, direction, pd);
        match transfer.run(work.local, std::iter::once(span), work.length, progress) {
            Ok(()) => Step::Done(work.length as u32),
            Err(fault) => self.faulted(remote, fault),
        }
    }

    fn atomic(&self, remote: &Remote, work: &Work<'_>, progress: &mut Progress) -> Step {
        if let Some(refused) = self.no_responder_resources(remote) {
            return refused;
        }
        if let Some(status) = self.rules.completion_status_for_remote(work.wr) {
            self.report(remote, tbrdma_proto::AsyncEventKind::QpReqErr);
            return Step::Failed(status);
        }
        let needed = Access::REMOTE_ATOMIC;
        let pd = match self.remote_rights(remote, needed) {
            Ok(pd) => pd,
            Err(status) => return Step::Failed(status),
        };
        let Local::List(list) = work.local else { return Step::Failed(WcStatus::LocQpOpErr) };
        let transfer = self.transfer(remote, needed, Direction::Get, pd);
        let span = RemoteSpan { key: work.wr.remote.rkey, addr: work.wr.remote.addr, len: 8 };
        let job = if work.wr.opcode == Opcode::AtomicFetchAndAdd { Job::FetchAdd } else { Job::CompareSwap };
        let outcome = transfer
            .check_result(list)
            .and_then(|()| transfer.atomic(&span, job, work.wr.compare_add, work.wr.swap, progress))
            .and_then(|old| transfer.store_old(list, old));
        match outcome {
            Ok(()) => Step::Done(8),
            Err(fault) => self.faulted(remote, fault),
        }
    }

    /// READ and atomics need a responder that has been told to keep resources for them (`max_dest_rd_atomic`).
    fn no_responder_resources(&self, remote: &Remote) -> Option<Step> {
        let to = qp_words(&remote.peer.segment, remote.slot).receive_to.load(Ordering::Relaxed);
        if (to >> 24) as u8 == 0 {
            self.report(remote, tbrdma_proto::AsyncEventKind::QpReqErr);
            return Some(Step::Failed(WcStatus::RemInvReqErr));
        }
        None
    }

    /// What a fault means for the work request, and for the peer.
    pub(crate) fn faulted(&self, remote: &Remote, fault: Fault) -> Step {
        match fault {
            Fault::Local => Step::Failed(WcStatus::LocProtErr),
            Fault::Remote => {
                self.report(remote, tbrdma_proto::AsyncEventKind::QpAccessErr);
                Step::Failed(WcStatus::RemAccessErr)
            }
            Fault::Gone => Step::Failed(WcStatus::RetryExcErr),
            Fault::Later => Step::Wait(Wait::Agent),
        }
    }

    /// Tells the peer's queue pair that we found a fault of this kind: a reliable one goes to the error state there too.
    pub(crate) fn report(&self, remote: &Remote, kind: tbrdma_proto::AsyncEventKind) {
        if self.qp_type == QpType::Rc {
            let words = qp_words(&remote.peer.segment, remote.slot);
            words.fault.store(kind as u64 + 1, Ordering::Release);
            agent::ring(&remote.peer, remote.slot);
        }
    }

    /// Records how a work request ended; successes only if it asked.
    fn complete(&self, wr: &SendWr, number: u32, status: WcStatus, bytes: u32, doorbell: &mut Doorbell) {
        if status == WcStatus::Success && !wr.flags.contains(SendFlags::SIGNALED) {
            return;
        }
        self.sent.push(&SendCompletion {
            wr_id: wr.wr_id,
            status,
            opcode: wr.opcode.wc_opcode(),
            byte_len: bytes,
            wq_index: number,
        });
        doorbell.sent = true;
        doorbell.sent_error |= status != WcStatus::Success;
    }

    /// After a failed work request: the error state, or for datagrams and unreliable connections the send queue error state.
    fn after_failure(&self, send: &mut SendState, doorbell: &mut Doorbell) -> PostDisposition {
        doorbell.sent = true;
        doorbell.sent_error = true;
        if self.qp_type == QpType::Rc {
            self.fail_locked(send, None);
        } else {
            self.set_state(QpState::Sqe);
            self.flush_sends(send);
        }
        PostDisposition::Flush
    }

    fn ring_doorbell(&self, send: &SendState, doorbell: &Doorbell) {
        if !doorbell.sent && !doorbell.received {
            return;
        }
        publish_fence();
        if let (true, Some(remote)) = (doorbell.received, &send.remote) {
            let words = qp_words(&remote.peer.segment, remote.slot);
            let cq = words.receive_to.load(Ordering::Relaxed) as u32 & 0xffff;
            let bit = TellMe(&words.tell).wanted();
            announce_remote(&remote.peer, cq, bit, remote.wake.as_deref(), doorbell.solicited);
        }
        if doorbell.sent {
            if let Some(bit) = TellMe(&self.send_tell).wanted() {
                self.send_cq.ready().insert(bit);
            }
            self.send_cq.wake(doorbell.sent_error);
        }
    }

    /// SEND: the next receive of the peer, filled and completed.
    fn deliver(&self, remote: &Remote, work: &Work<'_>, progress: &mut Progress, doorbell: &mut Doorbell) -> Step {
        let flags = if work.wr.opcode.has_imm() { WcFlags::WITH_IMM } else { WcFlags::empty() };
        let delivery = Delivery {
            status: WcStatus::Success,
            opcode: WcOpcode::Recv,
            flags,
            byte_len: work.length as u32,
            imm_data: work.wr.imm_data,
            src_qp: self.qpn.get(),
        };
        self.consume_receive(remote, work, Some(work.length), &delivery, progress, doorbell)
    }

    /// WRITE with immediate: the bytes go where the work request says, then a receive is completed without being filled.
    fn write_with_imm(&self, remote: &Remote, work: &Work<'_>, progress: &mut Progress, doorbell: &mut Doorbell) -> Step {
        // Without a receive nothing is written, so that a retry writes it once.
        let receive = match self.next_receive(remote, work.length as u32, progress) {
            Ok(receive) => receive,
            Err(step) => return step,
        };
        if progress.moved < work.length || work.length == 0 {
            match self.write(remote, work, progress) {
                Step::Done(_) => progress.moved = work.length,
                Step::Wait(wait) => return Step::Wait(wait),
                Step::Failed(status) => {
                    receive.put_back(progress);
                    return Step::Failed(status);
                }
            }
        }
        let delivery = Delivery {
            status: WcStatus::Success,
            opcode: WcOpcode::RecvRdmaWithImm,
            flags: WcFlags::WITH_IMM,
            byte_len: work.length as u32,
            imm_data: work.wr.imm_data,
            src_qp: self.qpn.get(),
        };
        self.consume_receive(remote, work, None, &delivery, progress, doorbell)
    }

    /// Takes the peer's next receive, fills it if there is something to `fill`, and completes it.
    fn consume_receive(
        &self,
        remote: &Remote,
        work: &Work<'_>,
        fill: Option<u64>,
        delivery: &Delivery,
        progress: &mut Progress,
        doorbell: &mut Doorbell,
    ) -> Step {
        let receive = match self.next_receive(remote, work.length as u32, progress) {
            Ok(receive) => receive,
            Err(step) => return step,
        };
        let mut delivery = *delivery;
        let mut step = Step::Done(work.length as u32);
        if let Some(length) = fill {
            if receive.room() < length {
                delivery.status = WcStatus::LocLenErr;
                step = Step::Failed(WcStatus::RemInvReqErr);
            } else if length > 0 {
                let transfer = self.transfer(remote, Access::LOCAL_WRITE, Direction::Put, receive.pd);
                match transfer.run(work.local, receive.spans(), length, progress) {
                    Ok(()) => {}
                    Err(Fault::Later) => return Step::Wait(Wait::Agent),
                    Err(Fault::Local) => {
                        // Ours to bear: the peer's receive stays where it is.
                        receive.put_back(progress);
                        return Step::Failed(WcStatus::LocProtErr);
                    }
                    Err(Fault::Gone) => return Step::Failed(WcStatus::RetryExcErr),
                    Err(Fault::Remote) => {
                        delivery.status = WcStatus::LocProtErr;
                        step = Step::Failed(WcStatus::RemOpErr);
                    }
                }
            }
        }
        let dropped = delivery.status != WcStatus::Success && self.qp_type == QpType::Uc;
        if dropped {
            receive.put_back(progress);
            return Step::Done(work.length as u32);
        }
        if delivery.status != WcStatus::Success {
            delivery.byte_len = 0;
            self.report(remote, tbrdma_proto::AsyncEventKind::QpReqErr);
        }
        receive.finish(&delivery);
        doorbell.received = true;
        doorbell.solicited |=
            work.wr.flags.contains(SendFlags::SOLICITED) || delivery.status != WcStatus::Success;
        step
    }
}

fn is_remote(status: WcStatus) -> bool {
    matches!(status, WcStatus::RemAccessErr | WcStatus::RemInvReqErr | WcStatus::RemOpErr | WcStatus::RetryExcErr)
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
        if qp.is_stalled.swap(false, Ordering::AcqRel) {
            let mut list = lock(&self.stalled_list);
            list.retain(|other| !std::ptr::eq(other.as_ptr(), qp));
            self.stalled.store(list.len() as u64, Ordering::Release);
        }
    }
}

impl ShmQp {
    /// Puts the queue pair on the list of those that wait, and lets the service thread reckon with its deadline.
    pub(crate) fn list_stalled(&self) {
        if self.is_stalled.swap(true, Ordering::AcqRel) {
            return;
        }
        let this = lock(&self.core.qps).get(self.slot).cloned();
        if let Some(this) = this {
            let mut list = lock(&self.core.stalled_list);
            list.push(this);
            self.core.stalled.store(list.len() as u64, Ordering::Release);
        }
        self.core.kick_self();
    }
}
