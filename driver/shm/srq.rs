//! A receive queue with many senders: a shared receive queue, or the own queue of a datagram queue pair.

use super::core::{Core, lock, qp_words, srq_words};
use super::cq::{ShmCq, Source};
use super::peer::SELF_CLAIMER;
use super::qp::ShmQp;
use super::receive::check_receive;
use crate::device::{DeviceSrq, ReceiveBatch, Refused};
use crate::error::{Error, PostRefusal, Result};
use crate::ring::arm::{TellMe, publish_fence};
use crate::ring::receive::{ReceiveRing, ReceiveShape};
use crate::ring::shared_receive::{Claimer, SharedReceiveRing};
use crate::sync::{AtomicU32, AtomicU64, Ordering};
use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, Weak};
use tbrdma_proto::{PdHandle, QpState, Qpn, Sge, WcOpcode, WcStatus, WorkCompletion, limits};

/// Whose queue it is.
enum Role {
    /// A shared receive queue of its own, in this slot.
    Shared(u32),
    /// The receive queue of the datagram queue pair in this slot.
    Datagrams(u32),
}

/// A receive queue with many senders.
pub(crate) struct ShmSrq {
    core: Arc<Core>,
    role: Role,
    pub(crate) pd: PdHandle,
    pub(crate) at: u64,
    pub(crate) shape: ReceiveShape,
    wr_ids: Box<[AtomicU64]>,
    state: Mutex<State>,
    /// Receives with smaller numbers have all been polled.
    tail: AtomicU32,
}

#[derive(Default)]
struct State {
    posted: u32,
    /// By slot: polled already, though older ones have not been.
    polled: Vec<bool>,
    /// Receives that came back from a sender unused and wait for room in the ring.
    returned: VecDeque<(u64, Vec<Sge>)>,
    /// Queue pairs that receive here, by QPN.
    members: HashMap<u32, Member>,
}

struct Member {
    qp: Weak<ShmQp>,
    cq: u32,
    in_order: bool,
    next_order: u32,
}

impl ShmSrq {
    /// A shared receive queue.
    pub(crate) fn create(core: &Arc<Core>, pd: PdHandle, max_wr: u32, max_sge: u32) -> Result<Arc<Self>> {
        const CALL: &str = "create_srq";
        if max_wr == 0 || max_wr > limits::MAX_SRQ_WR || max_sge > limits::MAX_SRQ_SGE {
            let reason = format!(
                "max_wr = {max_wr} with max_sge = {max_sge}, the device takes 1 to {} with at most {}",
                limits::MAX_SRQ_WR,
                limits::MAX_SRQ_SGE
            );
            return Err(Error::InvalidArgument { call: CALL, reason });
        }
        let (slot, _) = lock(&core.srqs).reserve().ok_or(Error::LimitReached {
            call: CALL,
            what: "shared receive queues",
            limit: u64::from(limits::MAX_SRQ),
        })?;
        let srq = Self::make(core, Role::Shared(slot), pd, max_wr, max_sge).inspect_err(|_| {
            lock(&core.srqs).release(slot);
        })?;
        let words = srq_words(&core.segment, slot);
        words.next_receive.store(0, Ordering::Relaxed);
        words.waiting.store(0, Ordering::Relaxed);
        words.limit.store(0, Ordering::Relaxed);
        words.posted.store(0, Ordering::Relaxed);
        words.receive_at.store(srq.at, Ordering::Relaxed);
        let shape = u64::from(srq.shape.depth) | u64::from(srq.shape.max_sge) << 32;
        words.receive_shape.store(shape, Ordering::Relaxed);
        words.identity.store(u64::from(pd.0) + 1, Ordering::Release);
        let srq = Arc::new(srq);
        lock(&core.srqs).fill(slot, Arc::downgrade(&srq));
        Ok(srq)
    }

    /// The receive queue of a datagram queue pair.
    pub(crate) fn for_datagrams(
        core: &Arc<Core>,
        pd: PdHandle,
        qp_slot: u32,
        max_wr: u32,
        max_sge: u32,
    ) -> Result<Arc<Self>> {
        Ok(Arc::new(Self::make(core, Role::Datagrams(qp_slot), pd, max_wr, max_sge)?))
    }

    fn make(core: &Arc<Core>, role: Role, pd: PdHandle, max_wr: u32, max_sge: u32) -> Result<Self> {
        let shape = ReceiveShape::new(max_wr, max_sge);
        let at = core.allocate_lines("create a receive queue", shape.bytes())?;
        let srq = Self {
            core: Arc::clone(core),
            role,
            pd,
            at,
            shape,
            wr_ids: (0..shape.depth).map(|_| AtomicU64::new(0)).collect(),
            state: Mutex::new(State { polled: vec![false; shape.depth as usize], ..State::default() }),
            tail: AtomicU32::new(0),
        };
        srq.slots().clear();
        Ok(srq)
    }

    /// The slot of a shared receive queue; a datagram queue pair's own queue has none.
    pub(crate) fn shared_slot(&self) -> Option<u32> {
        match self.role {
            Role::Shared(slot) => Some(slot),
            Role::Datagrams(_) => None,
        }
    }

    fn slots(&self) -> ReceiveRing<'_> {
        self.core
            .segment
            .array(self.at, self.shape.words())
            .and_then(|words| ReceiveRing::new(words, self.shape))
            .expect("the ring lies where the heap put it")
    }

    fn ring(&self) -> SharedReceiveRing<'_> {
        let next = match self.role {
            Role::Shared(slot) => &srq_words(&self.core.segment, slot).next_receive,
            Role::Datagrams(slot) => &qp_words(&self.core.segment, slot).next_receive,
        };
        SharedReceiveRing::new(self.slots(), next)
    }

    /// A queue pair starts to receive here.
    pub(crate) fn attach(self: &Arc<Self>, qp: &Arc<ShmQp>) {
        let bit = qp.recv_cq.attach(Source::Shared(Arc::clone(self)));
        TellMe(&qp.words().tell).set(bit);
        let member = Member {
            qp: Arc::downgrade(qp),
            cq: qp.recv_cq.slot,
            in_order: qp.qp_type.is_connected(),
            next_order: 0,
        };
        lock(&self.state).members.insert(qp.qpn.get(), member);
    }

    /// A queue pair stops to receive here.
    pub(crate) fn detach(&self, qp: &ShmQp) {
        lock(&self.state).members.remove(&qp.qpn.get());
        qp.recv_cq.detach_shared(self, TellMe(&qp.words().tell).wanted());
        if let Role::Datagrams(_) = self.role {
            self.core.free_lines(self.at, self.shape.bytes());
        }
    }

    /// The queue pair's connection begins anew: its messages are numbered from zero again.
    pub(crate) fn restart(&self, qp: &ShmQp) {
        let mut state = lock(&self.state);
        if let Some(member) = state.members.get_mut(&qp.qpn.get()) {
            member.next_order = 0;
        }
        if let Role::Datagrams(_) = self.role {
            self.slots().clear();
            state.posted = 0;
            state.polled.fill(false);
            state.returned.clear();
            self.tail.store(0, Ordering::Release);
        }
    }

    pub(crate) fn retired(&self) -> u32 {
        self.tail.load(Ordering::Acquire)
    }

    /// Makes a completion queue look here.
    pub(crate) fn announce(&self, cq: &ShmCq, tell: Option<u32>) {
        publish_fence();
        if let Some(bit) = tell {
            cq.ready().insert(bit);
        }
        cq.wake(true);
    }

    #[inline]
    fn at_slot(&self, number: u32) -> usize {
        (number & (self.shape.depth - 1)) as usize
    }

    pub(crate) fn post(&self, batch: &ReceiveBatch) -> (u32, Option<Refused>) {
        let mut state = lock(&self.state);
        let first = state.posted;
        let mut refused = None;
        for (index, wr) in batch.wrs.iter().enumerate() {
            let sges = batch.sges_of(wr);
            if !self.has_room(&state, state.returned.len() as u32) {
                refused = Some((index, PostRefusal::QueueFull { depth: self.shape.depth }));
                break;
            }
            if let Err(reason) = check_receive(sges.len(), self.shape.max_sge) {
                refused = Some((index, reason));
                break;
            }
            self.post_one(&mut state, wr.wr_id, sges);
        }
        drop(state);
        self.tell_senders();
        (first, refused)
    }

    fn has_room(&self, state: &State, beside: u32) -> bool {
        state.posted.wrapping_sub(self.tail.load(Ordering::Relaxed)) + beside < self.shape.depth
    }

    fn post_one(&self, state: &mut State, wr_id: u64, sges: &[Sge]) {
        let number = state.posted;
        let slot = self.at_slot(number);
        self.wr_ids[slot].store(wr_id, Ordering::Relaxed);
        state.polled[slot] = false;
        self.slots().post(number, sges.iter().copied());
        state.posted = number.wrapping_add(1);
        if let Role::Shared(slot) = self.role {
            srq_words(&self.core.segment, slot).posted.store(u64::from(state.posted), Ordering::Relaxed);
        }
    }

    /// Wakes those who wait for a receive: anyone may be waiting.
    fn tell_senders(&self) {
        publish_fence();
        if let Role::Shared(slot) = self.role
            && TellMe(&srq_words(&self.core.segment, slot).waiting).take()
        {
            for peer in self.core.peers.all() {
                peer.wake();
            }
        }
    }

    /// Polls the messages that belong to one completion queue. Called by completion queues; the state lock makes it one at a time.
    pub(crate) fn poll(&self, cq: &ShmCq, out: &mut [WorkCompletion]) -> usize {
        let mut guard = lock(&self.state);
        let state = &mut *guard;
        let ring = self.ring();
        let slots = ring.ring();
        let until = ring.claimed_until();
        let mut number = self.tail.load(Ordering::Relaxed);
        let mut count = 0;
        let mut others = false;
        // A word that senders move can say anything; no more than the ring holds can be there.
        let claimed = until.wrapping_sub(number).min(self.shape.depth);
        for _ in 0..claimed {
            if count == out.len() {
                others = true;
                break;
            }
            let slot = self.at_slot(number);
            if !state.polled[slot]
                && let Some(delivery) = slots.delivered(number)
            {
                if slots.is_given_back(number) {
                    self.take_back(state, number);
                } else {
                    let qpn = slots.receiver(number);
                    let order = ring.order(number);
                    let turn = match state.members.get_mut(&qpn) {
                        // Its queue pair is gone: nobody will ask for it.
                        None => Turn::Nobody,
                        Some(member) if member.cq != cq.slot => Turn::Later,
                        Some(member) if member.in_order && member.next_order != order => Turn::Later,
                        Some(member) => {
                            member.next_order = member.next_order.wrapping_add(1);
                            Turn::Now
                        }
                    };
                    if turn != Turn::Later {
                        state.polled[slot] = true;
                    }
                    if turn == Turn::Now {
                        out[count] = WorkCompletion {
                            wr_id: self.wr_ids[slot].load(Ordering::Relaxed),
                            status: delivery.status,
                            opcode: delivery.opcode,
                            byte_len: delivery.byte_len,
                            imm_data: delivery.imm_data,
                            qp_num: Qpn::new(qpn).unwrap_or_default(),
                            src_qp: Qpn::new(delivery.src_qp).unwrap_or_default(),
                            wc_flags: delivery.flags,
                            wq_index: number,
                            ..WorkCompletion::default()
                        };
                        count += 1;
                    }
                }
            }
            number = number.wrapping_add(1);
        }
        self.advance(state);
        if count < out.len() {
            count += self.flush_datagrams(state, &mut out[count..]);
        }
        if others {
            // The caller's array was full: this completion queue must look here again.
            for member in state.members.values().filter(|member| member.cq == cq.slot) {
                if let Some(qp) = member.qp.upgrade() {
                    self.announce(cq, TellMe(&qp.words().tell).wanted());
                    break;
                }
            }
        }
        count
    }

    /// A datagram queue pair in the error state: what nobody has claimed comes back flushed.
    fn flush_datagrams(&self, state: &mut State, out: &mut [WorkCompletion]) -> usize {
        let Role::Datagrams(_) = self.role else { return 0 };
        let Some(qp) = state.members.values().find_map(|member| member.qp.upgrade()) else { return 0 };
        if qp.state() != QpState::Err {
            return 0;
        }
        let ring = self.ring();
        let mut count = 0;
        for wc in out.iter_mut() {
            let Some((number, _)) = ring.claim(SELF_CLAIMER) else { break };
            let slot = self.at_slot(number);
            state.polled[slot] = true;
            *wc = WorkCompletion {
                wr_id: self.wr_ids[slot].load(Ordering::Relaxed),
                status: WcStatus::WrFlushErr,
                opcode: WcOpcode::Recv,
                qp_num: qp.qpn,
                wq_index: number,
                ..WorkCompletion::default()
            };
            count += 1;
        }
        self.advance(state);
        count
    }

    fn advance(&self, state: &mut State) {
        let mut tail = self.tail.load(Ordering::Relaxed);
        while tail != state.posted && state.polled[self.at_slot(tail)] {
            state.polled[self.at_slot(tail)] = false;
            tail = tail.wrapping_add(1);
        }
        self.tail.store(tail, Ordering::Release);
        let mut reposted = false;
        while self.has_room(state, 0) {
            let Some((wr_id, sges)) = state.returned.pop_front() else { break };
            self.post_one(state, wr_id, &sges);
            reposted = true;
        }
        if reposted {
            self.tell_senders();
        }
    }

    /// A receive that was claimed and not used is posted again, behind the others.
    fn take_back(&self, state: &mut State, number: u32) {
        let slot = self.at_slot(number);
        if let Some(posting) = self.slots().posted(number) {
            let wr_id = self.wr_ids[slot].load(Ordering::Relaxed);
            state.returned.push_back((wr_id, posting.sges().collect()));
        }
        state.polled[slot] = true;
    }

    /// A sender's process has died: the receives it had claimed and not ended come back.
    pub(crate) fn bury(&self, dead: Claimer) {
        let mut state = lock(&self.state);
        let ring = self.ring();
        let tail = self.tail.load(Ordering::Relaxed);
        let claimed = ring.claimed_until().wrapping_sub(tail).min(self.shape.depth);
        for number in (0..=claimed.min(self.shape.depth - 1)).map(|offset| tail.wrapping_add(offset)) {
            let is_held = !state.polled[self.at_slot(number)] && !ring.ring().is_delivered(number);
            if is_held && ring.claimer(number) == Some(dead) {
                self.take_back(&mut state, number);
            }
        }
        self.advance(&mut state);
    }
}

#[derive(PartialEq)]
enum Turn {
    Now,
    Later,
    Nobody,
}

impl DeviceSrq for ShmSrq {
    fn max_wr(&self) -> u32 {
        self.shape.depth
    }

    fn max_sge(&self) -> u32 {
        self.shape.max_sge
    }

    fn index(&self) -> u32 {
        self.shared_slot().unwrap_or(u32::MAX)
    }

    fn context(&self) -> u64 {
        self.core.context
    }

    fn post_recv(&self, batch: &ReceiveBatch) -> (u32, Option<Refused>) {
        self.post(batch)
    }

    fn set_limit(&self, limit: u32) {
        if let Role::Shared(slot) = self.role {
            srq_words(&self.core.segment, slot).limit.store(u64::from(limit), Ordering::Release);
        }
    }

    fn limit(&self) -> u32 {
        match self.role {
            Role::Shared(slot) => srq_words(&self.core.segment, slot).limit.load(Ordering::Acquire) as u32,
            Role::Datagrams(_) => 0,
        }
    }

    fn is_retired(&self, number: u32) -> bool {
        let state = lock(&self.state);
        let tail = self.tail.load(Ordering::Relaxed);
        let ahead = number.wrapping_sub(tail);
        // Beyond the window: long gone, or not yet posted; numbers handed out are never the latter.
        ahead >= state.posted.wrapping_sub(tail) || state.polled[self.at_slot(number)]
    }
}

impl Drop for ShmSrq {
    fn drop(&mut self) {
        if let Role::Shared(slot) = self.role {
            srq_words(&self.core.segment, slot).identity.store(0, Ordering::Release);
            self.core.free_lines(self.at, self.shape.bytes());
            lock(&self.core.srqs).release(slot);
        }
    }
}
