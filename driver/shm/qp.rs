//! A queue pair of the `shm` device: what it is made of, its creation and destruction, and its states.

use super::core::{Core, lock, qp_words, ready_set};
use super::cq::{Of, ShmCq, Source};
use super::receive::OwnReceives;
use super::remote::Remote;
use super::send::{SendFifo, SendState};
use super::srq::ShmSrq;
use crate::device::{DeviceQp, DeviceSrq, QpRequest, ReceiveBatch, Refused, SendBatch, SendToken};
use crate::error::{PostRefusal, Result};
use crate::keys::Keys;
use crate::mem::Held;
use crate::ring::arm::{Arm, TellMe, publish_fence};
use crate::ring::busy::ANYONE;
use crate::ring::completion::CompletionRing;
use crate::ring::guard::OwnedLock;
use crate::ring::layout::{self, CqWords, QPS, QpWords};
use crate::sync::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use crate::verbs::event::{AsyncEvent, EventSource};
use std::sync::{Arc, Mutex};
use tbrdma_proto::{
    AsyncEventKind, PdHandle, PostDisposition, QpAttr, QpAttrMask, QpCap, QpState, QpType, Qpn, SendRules,
    limits,
};

/// Where a queue pair's receives come from.
pub(crate) enum Receives {
    /// Its own queue, from which one peer takes.
    Own(OwnReceives),
    /// A queue from which many take: a shared one, or a datagram queue pair's own.
    Shared(Arc<ShmSrq>),
}

/// A queue pair.
pub(crate) struct ShmQp {
    pub(crate) core: Arc<Core>,
    pub(crate) slot: u32,
    words: Held<QpWords>,
    pub(crate) qpn: Qpn,
    pub(crate) qp_type: QpType,
    pub(crate) pd: PdHandle,
    pub(crate) cap: QpCap,
    pub(crate) rules: SendRules,
    /// Connected, of a device without habits of its own and without a wire, and lists may have an entry: then the rules have no more to say of a
    /// SEND or WRITE of one entry than how long it may be, and it may be executed in short.
    pub(crate) is_plain: bool,
    /// Our own truth about the state; the segment's word is a copy for peers.
    state: AtomicU32,
    pub(crate) attr: Mutex<QpAttr>,
    pub(crate) send: OwnedLock<SendState>,
    /// Whom the send queue touches: what its busy word says while it does.
    pub(crate) target: AtomicU64,
    /// Completions of sends, not yet polled.
    pub(crate) sent: CompletionRing,
    /// Sends with smaller numbers have been polled.
    pub(crate) sends_retired: AtomicU32,
    /// Send completions: tell the completion queue (bit number) or not.
    pub(crate) send_tell: AtomicU64,
    /// The numbers by which the completion queues know the two halves.
    send_bit: AtomicU32,
    recv_bit: AtomicU32,
    pub(crate) receives: Receives,
    pub(crate) send_cq: Arc<ShmCq>,
    pub(crate) recv_cq: Arc<ShmCq>,
    /// On the list of stalled queue pairs.
    pub(crate) is_stalled: AtomicBool,
    last_wqe_reported: AtomicBool,
    /// An event is wanted when the send queue is drained.
    pub(crate) notify_drained: AtomicBool,
}

impl ShmQp {
    pub(crate) fn create(
        core: &Arc<Core>,
        request: &QpRequest,
        send_cq: Arc<ShmCq>,
        recv_cq: Arc<ShmCq>,
        srq: Option<Arc<ShmSrq>>,
    ) -> Result<(Arc<Self>, SendToken)> {
        const CALL: &str = "create_qp";
        let cap = request.granted()?;
        let (slot, uses) = lock(&core.qps).claim(CALL, "queue pairs")?;
        let undo = |error| {
            lock(&core.qps).release(slot);
            error
        };
        // Never 0 or 1, which belong to the subnet's own services; the upper bits change with every use of the slot.
        let generation = uses.wrapping_add((core.context >> 17) as u32) % 1023 + 1;
        let qpn = Qpn::new(slot | generation << QPS.trailing_zeros()).unwrap_or_default();
        let receives = match srq {
            Some(srq) => Receives::Shared(srq),
            None if request.qp_type == QpType::Ud => Receives::Shared(
                ShmSrq::for_datagrams(core, request.pd, slot, cap.max_recv_wr, cap.max_recv_sge)
                    .map_err(undo)?,
            ),
            None => {
                Receives::Own(OwnReceives::create(core, cap.max_recv_wr, cap.max_recv_sge).map_err(undo)?)
            }
        };
        let port = &core.profile.port;
        let rules = SendRules {
            qp_type: request.qp_type,
            max_send_sge: cap.max_send_sge,
            max_inline_data: cap.max_inline_data,
            max_msg_size: u64::from(port.max_msg_sz),
            path_mtu: port.active_mtu,
            habits: core.profile.switches.habits(),
        };
        let (send, token) = OwnedLock::new(SendState::default());
        let attr = QpAttr { cap, port_num: limits::PORT, ..QpAttr::default() };
        let qp = Arc::new(Self {
            core: Arc::clone(core),
            slot,
            words: Held::one(&core.segment, layout::qp_at(slot))
                .expect("the layout lies within every segment"),
            qpn,
            qp_type: request.qp_type,
            pd: request.pd,
            cap,
            is_plain: request.qp_type != QpType::Ud
                && cap.max_send_sge > 0
                && rules.habits.is_empty()
                && core.wire.is_none(),
            rules,
            state: AtomicU32::new(QpState::Reset as u32),
            attr: Mutex::new(attr),
            send,
            target: AtomicU64::new(ANYONE),
            sent: CompletionRing::new(cap.max_send_wr),
            sends_retired: AtomicU32::new(0),
            send_tell: AtomicU64::new(0),
            send_bit: AtomicU32::new(0),
            recv_bit: AtomicU32::new(0),
            receives,
            send_cq,
            recv_cq,
            is_stalled: AtomicBool::new(false),
            last_wqe_reported: AtomicBool::new(false),
            notify_drained: AtomicBool::new(false),
        });
        qp.publish();
        {
            let mut qps = lock(&core.qps);
            qps.fill(slot, Arc::downgrade(&qp));
            core.header().qp_slots.store(u64::from(qps.high_water()), Ordering::Release);
        }
        qp.send_bit.store(qp.send_cq.attach(Source::Send(Arc::clone(&qp))), Ordering::Relaxed);
        match &qp.receives {
            Receives::Own(_) => {
                qp.recv_bit.store(qp.recv_cq.attach(Source::Receive(Arc::clone(&qp))), Ordering::Relaxed);
            }
            Receives::Shared(srq) => srq.attach(&qp),
        }
        Ok((qp, token))
    }

    /// Writes what peers need to know of a new queue pair; its identity last.
    fn publish(&self) {
        let words = self.words();
        for word in [
            &words.busy,
            &words.next_receive,
            &words.waiting,
            &words.fault,
            &words.peer_context,
            &words.peer_qp,
            &words.tell,
            &words.qkey,
        ] {
            word.store(0, Ordering::Relaxed);
        }
        // `request` and `reply` go on where the slot's last user left them: an agent may still be at a request of his.
        words.state.store(QpState::Reset as u64, Ordering::Relaxed);
        words.rights.store(u64::from(self.pd.0), Ordering::Relaxed);
        let (at, shape, shared) = match &self.receives {
            Receives::Own(own) => (own.at, own.shape, 0),
            Receives::Shared(srq) => (srq.at, srq.shape, srq.shared_slot().map_or(0, |slot| slot + 1)),
        };
        words.receive_at.store(at, Ordering::Relaxed);
        words.receive_shape.store(u64::from(shape.depth) | u64::from(shape.max_sge) << 32, Ordering::Relaxed);
        words.receive_to.store(u64::from(self.recv_cq.slot) | u64::from(shared) << 32, Ordering::Relaxed);
        words
            .identity
            .store(u64::from(self.qpn.get()) | u64::from(self.qp_type as u8) << 32, Ordering::Release);
    }

    #[inline]
    pub(crate) fn words(&self) -> &QpWords {
        &self.words
    }

    #[inline]
    pub(crate) fn state(&self) -> QpState {
        QpState::from_raw(self.state.load(Ordering::Acquire)).unwrap_or(QpState::Err)
    }

    /// What becomes of a send that is posted now.
    #[inline(always)]
    pub(crate) fn send_disposition(&self) -> PostDisposition {
        // By far the most common, and shorter so.
        if self.state.load(Ordering::Acquire) == QpState::Rts as u32 {
            return PostDisposition::Execute;
        }
        self.other_disposition()
    }

    #[cold]
    fn other_disposition(&self) -> PostDisposition {
        self.state().send_disposition()
    }

    /// Changes the state, for ourselves and for peers.
    pub(crate) fn set_state(&self, state: QpState) {
        self.state.store(state as u32, Ordering::SeqCst);
        self.words().state.store(state as u64, Ordering::SeqCst);
    }

    /// Tells the send completion queue that there is something to poll.
    pub(crate) fn announce_sent(&self, is_error: bool) {
        publish_fence();
        self.tell_sent(is_error);
    }

    /// The same, behind the caller's fence.
    #[inline(always)]
    pub(crate) fn tell_sent(&self, is_error: bool) {
        if let Some(bit) = TellMe(&self.send_tell).wanted() {
            self.send_cq.ready().insert(bit);
        }
        self.send_cq.wake(is_error);
    }

    /// Tells the receive completion queue to look at this queue pair's receives.
    pub(crate) fn announce_received(&self) {
        match &self.receives {
            Receives::Own(_) => {
                publish_fence();
                if let Some(bit) = TellMe(&self.words().tell).wanted() {
                    self.recv_cq.ready().insert(bit);
                }
                self.recv_cq.wake(true);
            }
            Receives::Shared(srq) => srq.announce(&self.recv_cq, TellMe(&self.words().tell).wanted()),
        }
    }

    /// The connected context has ended, and its queue pair was working until then. Only if it is still that one: a new connection is not concerned.
    pub(crate) fn bereave(&self, context: u64) {
        let mut send = self.send.intrude();
        if self.words().peer_context.load(Ordering::Relaxed) != context {
            return;
        }
        if self.state() == QpState::Err {
            drop(send);
            return self.raise(AsyncEventKind::QpFatal);
        }
        let SendState { remote, queue, .. } = &mut *send;
        self.give_up(remote.as_ref(), queue);
        self.fail_locked(remote.as_ref(), queue, Some(AsyncEventKind::QpFatal));
        drop(send);
        self.announce_sent(true);
    }

    /// Moves to the error state: what waits in the send queue is flushed now, posted receives when they are polled. For one who holds the send
    /// queue, and announces afterwards.
    pub(crate) fn fail_locked(
        &self,
        remote: Option<&Remote>,
        queue: &mut SendFifo,
        event: Option<AsyncEventKind>,
    ) {
        if matches!(self.state(), QpState::Reset) {
            return;
        }
        let was = self.state();
        self.set_state(QpState::Err);
        self.flush_sends(remote, queue);
        if was != QpState::Err {
            if let Some(kind) = event {
                self.raise(kind);
            }
            if matches!(&self.receives, Receives::Shared(srq) if srq.shared_slot().is_some())
                && !self.last_wqe_reported.swap(true, Ordering::AcqRel)
            {
                self.raise(AsyncEventKind::QpLastWqeReached);
            }
        }
        self.announce_received();
    }

    /// A new life: the last-WQE event may be raised again.
    pub(crate) fn forget_last_wqe(&self) {
        self.last_wqe_reported.store(false, Ordering::Release);
    }

    /// The protection domain of the receives, if it is `pd`: that of a shared queue may differ from ours.
    pub(crate) fn receive_pd(&self, pd: PdHandle) -> Option<PdHandle> {
        match &self.receives {
            Receives::Shared(srq) if srq.pd == pd => Some(pd),
            _ => None,
        }
    }

    /// The shared receive queue fell below its limit.
    pub(crate) fn raise_srq_limit(&self) {
        if let Receives::Shared(srq) = &self.receives
            && let Some(slot) = srq.shared_slot()
        {
            let source = EventSource::SharedReceiveQueue(slot);
            self.core.events.push(AsyncEvent { kind: AsyncEventKind::SrqLimitReached, source });
        }
    }

    pub(crate) fn raise(&self, kind: AsyncEventKind) {
        self.core.events.push(AsyncEvent { kind, source: EventSource::QueuePair(self.qpn) });
    }

    /// Is the connected peer certainly not placing anything here? Asked after the state has been made unfit for receiving.
    pub(crate) fn is_untouched(&self) -> bool {
        crate::ring::busy::withdraw_fence();
        let words = self.words();
        let context = words.peer_context.load(Ordering::Relaxed);
        match self.core.peers.by_context(context) {
            Some(peer) if peer.is_alive() => {
                let slot = super::core::slot_of(words.peer_qp.load(Ordering::Relaxed) as u32);
                !crate::ring::busy::Busy(&qp_words(&peer.segment, slot).busy).may_touch(self.core.context)
            }
            _ => true,
        }
    }
}

impl DeviceQp for ShmQp {
    fn qp_num(&self) -> Qpn {
        self.qpn
    }

    fn qp_type(&self) -> QpType {
        self.qp_type
    }

    fn cap(&self) -> QpCap {
        self.cap
    }

    fn post_send(&self, token: &mut SendToken, batch: &mut SendBatch) -> (u32, Option<Refused>) {
        self.post_list(token, batch)
    }

    fn post_recv(&self, batch: &mut ReceiveBatch) -> (u32, Option<Refused>) {
        let state = self.state();
        if !state.may_post_recv() {
            return (0, Some((0, PostRefusal::State(state))));
        }
        match &self.receives {
            Receives::Own(own) => self.post_own(own, batch),
            Receives::Shared(srq) if srq.shared_slot().is_none() => srq.post(batch),
            Receives::Shared(_) => (0, Some((0, PostRefusal::UsesSharedReceiveQueue))),
        }
    }

    fn modify(&self, attr: &QpAttr, mask: QpAttrMask) -> Result<()> {
        self.modify_to(attr, mask)
    }

    fn query(&self) -> QpAttr {
        let mut attr = *lock(&self.attr);
        attr.qp_state = self.state();
        attr.cur_qp_state = attr.qp_state;
        attr.sq_draining = attr.qp_state == QpState::Sqd && self.send.intrude().is_draining();
        attr
    }

    fn sends_retired(&self) -> u32 {
        self.sends_retired.load(Ordering::Acquire)
    }

    fn is_receive_retired(&self, number: u32) -> bool {
        match &self.receives {
            Receives::Own(own) => number.wrapping_sub(own.polled()) >= 1 << 31,
            Receives::Shared(srq) => srq.is_retired(number),
        }
    }

    fn destroy(&self) {
        self.linger();
        let words = self.words();
        self.set_state(QpState::Reset);
        words.identity.store(0, Ordering::SeqCst);
        self.send.intrude().forget(&self.core);
        self.core.unlist_stalled(self);
        self.core.unbind_queue_pair(self.qpn);
        // A stopped peer in the middle of a send would write into whatever got the ring's place: then nothing else ever does.
        let quiet = self.await_quiet();
        self.send_cq.detach(self.send_bit.load(Ordering::Relaxed), Of::Qp(self));
        self.recv_cq.detach(self.recv_bit.load(Ordering::Relaxed), Of::Qp(self));
        match &self.receives {
            Receives::Own(own) if quiet => own.release(&self.core),
            Receives::Own(_) => {}
            Receives::Shared(srq) => srq.detach(self, quiet),
        }
        if let Some(kick) = self.core.peers.by_context(words.peer_context.load(Ordering::Relaxed)) {
            // Its sends to us will find nobody now; it should learn that today.
            kick.wake();
        }
        lock(&self.core.qps).release(self.slot);
    }
}

/// Tells a peer's completion queue, in its own segment, that something was published for it.
#[cold]
pub(crate) fn announce_remote(
    peer: &super::peer::Peer,
    cq: (&CqWords, u32),
    bit: Option<u32>,
    wake_fd: Option<&crate::sys::eventfd::EventFd>,
    solicited_or_error: bool,
) {
    let (words, slot) = cq;
    if let Some(bit) = bit {
        ready_set(&words.ready).insert(bit);
    }
    if Arm(&words.arm).fire(solicited_or_error) {
        words.event.store(1, Ordering::Release);
        match wake_fd {
            Some(fd) => {
                let _ = fd.signal();
            }
            None => {
                ready_set(&super::core::header(&peer.segment).wake).insert(slot);
                peer.wake();
            }
        }
    }
}
