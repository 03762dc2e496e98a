//! A receive queue with many senders: a shared receive queue, or the own queue of a datagram queue pair.

mod ended;

use super::core::{Core, lock, qp_words, srq_words};
use super::cq::{Of, ShmCq, Source};
use super::landing;
use super::qp::ShmQp;
use super::receive::check_receive;
use crate::device::{DeviceSrq, ReceiveBatch, Refused, check_srq};
use crate::error::{PostRefusal, Result};
use crate::ring::arm::{TellMe, publish_fence};
use crate::ring::receive::{ReceiveRing, ReceiveShape};
use crate::ring::shared_receive::{Claimer, SharedReceiveRing};
use crate::sync::{AtomicU32, AtomicU64, Ordering};
use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::{Arc, Mutex, Weak};
use tbrdma_proto::{PdHandle, QpState, Sge, WorkCompletion};

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
    /// Receives the caller may have outstanding.
    limit: u32,
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
    /// By slot: the number under which its receive was posted first, which is the one the caller knows.
    origins: Vec<u32>,
    /// Receives that wait for room in the ring: those that came back from a sender unused, and those posted when it was full.
    returned: VecDeque<Returned>,
    /// Number of the next receive the caller posts. In the ring it may get another one.
    next_origin: u32,
    /// Receives the caller has posted that have not ended, by the numbers the caller knows.
    outstanding: HashSet<u32>,
    /// Receives that a sender has claimed and does not end, by their numbers in the ring, which has gone past them.
    stuck: Vec<u32>,
    /// Completions that their completion queue has not asked for yet, taken out of the ring to make room, with that queue's slot.
    aside: VecDeque<(u32, WorkCompletion)>,
    /// Queue pairs that receive here, by QPN.
    members: HashMap<u32, Member>,
}

/// A receive that is not in the ring.
struct Returned {
    wr_id: u64,
    origin: u32,
    sges: Vec<Sge>,
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
        check_srq(max_wr, max_sge)?;
        let (slot, _) = lock(&core.srqs).claim("create_srq", "shared receive queues")?;
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
        let limit = max_wr.max(1).next_power_of_two();
        // Twice as many slots as receives: room for all of them also beside numbers that are left out.
        let shape = ReceiveShape::new(2 * limit, max_sge);
        let at = core.allocate_lines("create a receive queue", landing::ring_bytes(shape))?;
        let srq = Self {
            core: Arc::clone(core),
            role,
            pd,
            at,
            shape,
            limit,
            wr_ids: (0..shape.depth).map(|_| AtomicU64::new(0)).collect(),
            state: Mutex::new(State {
                outstanding: HashSet::with_capacity(limit as usize),
                polled: vec![false; shape.depth as usize],
                origins: vec![0; shape.depth as usize],
                ..State::default()
            }),
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

    /// A queue pair stops to receive here; `quiet` if nobody is still placing anything for it.
    pub(crate) fn detach(&self, qp: &ShmQp, quiet: bool) {
        {
            let mut state = lock(&self.state);
            state.members.remove(&qp.qpn.get());
            state.aside.retain(|(_, wc)| wc.qp_num != qp.qpn);
        }
        if let Some(bit) = TellMe(&qp.words().tell).wanted() {
            qp.recv_cq.detach(bit, Of::Srq(self));
        }
        if quiet && matches!(self.role, Role::Datagrams(_)) {
            self.core.free_lines(self.at, landing::ring_bytes(self.shape));
        }
    }

    /// The queue pair's connection begins anew: its messages are numbered from zero again, and nobody asks for the old ones.
    pub(crate) fn restart(&self, qp: &ShmQp) {
        let mut guard = lock(&self.state);
        let state = &mut *guard;
        if let Some(member) = state.members.get_mut(&qp.qpn.get()) {
            member.next_order = 0;
        }
        state.aside.retain(|(_, wc)| wc.qp_num != qp.qpn);
        if let Role::Datagrams(_) = self.role {
            self.slots().clear();
            state.posted = 0;
            state.next_origin = 0;
            state.polled.fill(false);
            state.returned.clear();
            state.outstanding.clear();
            state.stuck.clear();
            self.tail.store(0, Ordering::Release);
            return;
        }
        let slots = self.slots();
        for number in self.claimed() {
            let ended = !state.polled[self.at_slot(number)] && slots.is_delivered(number);
            if ended && !slots.is_given_back(number) && slots.receiver(number) == qp.qpn.get() {
                self.retire(state, number);
            }
        }
        for number in std::mem::take(&mut state.stuck) {
            let ended = slots.is_delivered(number) && !slots.is_given_back(number);
            if ended && slots.receiver(number) == qp.qpn.get() {
                self.retire(state, number);
            } else {
                state.stuck.push(number);
            }
        }
        self.advance(state);
    }

    /// Numbers of receives that may have been claimed and have not all been polled. A word that senders move can say anything; no more than
    /// the ring holds can be there.
    fn claimed(&self) -> impl Iterator<Item = u32> + use<> {
        let tail = self.tail.load(Ordering::Relaxed);
        let claimed = self.ring().claimed_until().wrapping_sub(tail).min(self.shape.depth);
        (0..claimed).map(move |offset| tail.wrapping_add(offset))
    }

    /// This receive is through: the number by which the caller knows it.
    fn retire(&self, state: &mut State, number: u32) -> u32 {
        let slot = self.at_slot(number);
        let origin = state.origins[slot];
        state.polled[slot] = true;
        state.outstanding.remove(&origin);
        origin
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
        let first = state.next_origin;
        let mut refused = None;
        for (index, wr) in batch.wrs.iter().enumerate() {
            let sges = batch.sges_of(wr);
            if !self.has_room(&mut state) || !state.returned.is_empty() {
                self.make_room(&mut state);
            }
            if state.outstanding.len() >= self.limit as usize {
                refused = Some((index, PostRefusal::QueueFull { depth: self.limit }));
                break;
            }
            if let Err(reason) = check_receive(sges.len(), self.shape.max_sge) {
                refused = Some((index, reason));
                break;
            }
            let origin = state.next_origin;
            state.next_origin = origin.wrapping_add(1);
            state.outstanding.insert(origin);
            if state.returned.is_empty() && self.has_room(&mut state) {
                self.post_one(&mut state, wr.wr_id, origin, sges);
            } else {
                // A sender holds an old one for long, and the ring cannot go round it: this one is posted when it can.
                state.returned.push_back(Returned { wr_id: wr.wr_id, origin, sges: sges.to_vec() });
            }
        }
        let flushes = match self.role {
            Role::Datagrams(_) => state.members.values().find_map(|member| member.qp.upgrade()),
            Role::Shared(_) => None,
        };
        drop(state);
        self.tell_senders();
        if let Some(qp) = flushes.filter(|qp| qp.state() == QpState::Err) {
            self.announce(&qp.recv_cq, TellMe(&qp.words().tell).wanted());
        }
        (first, refused)
    }

    /// Has the ring a free slot? Those that stuck receives have are left out.
    fn has_room(&self, state: &mut State) -> bool {
        while state.posted.wrapping_sub(self.tail.load(Ordering::Relaxed)) < self.shape.depth {
            let slot = self.at_slot(state.posted);
            if !state.stuck.iter().any(|stuck| self.at_slot(*stuck) == slot) {
                return true;
            }
            self.ring().leave_out(state.posted);
            state.polled[slot] = true;
            state.posted = state.posted.wrapping_add(1);
        }
        false
    }

    fn post_one(&self, state: &mut State, wr_id: u64, origin: u32, sges: &[Sge]) {
        let number = state.posted;
        let slot = self.at_slot(number);
        self.wr_ids[slot].store(wr_id, Ordering::Relaxed);
        state.origins[slot] = origin;
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

    /// The ring is full: of completions that one completion queue leaves lying while others go on, which are put aside; or behind a receive that a
    /// sender holds for long, which it goes past.
    #[cold]
    fn make_room(&self, state: &mut State) {
        self.sweep(state);
        self.advance(state);
        while !self.has_room(state) {
            let tail = self.tail.load(Ordering::Relaxed);
            let is_held = self.ring().claimer(tail).is_some() && !self.slots().is_delivered(tail);
            if !is_held || state.stuck.len() >= self.limit as usize {
                return;
            }
            state.stuck.push(tail);
            state.polled[self.at_slot(tail)] = true;
            self.advance(state);
        }
    }

    fn advance(&self, state: &mut State) {
        let mut tail = self.tail.load(Ordering::Relaxed);
        while tail != state.posted && state.polled[self.at_slot(tail)] {
            state.polled[self.at_slot(tail)] = false;
            tail = tail.wrapping_add(1);
        }
        self.tail.store(tail, Ordering::Release);
        let mut reposted = false;
        while self.has_room(state) {
            let Some(Returned { wr_id, origin, sges }) = state.returned.pop_front() else { break };
            self.post_one(state, wr_id, origin, &sges);
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
            let origin = state.origins[slot];
            state.returned.push_back(Returned { wr_id, origin, sges: posting.sges().collect() });
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
        for number in std::mem::take(&mut state.stuck) {
            if ring.claimer(number) == Some(dead) && !ring.ring().is_delivered(number) {
                self.take_back(&mut state, number);
            } else {
                state.stuck.push(number);
            }
        }
        self.advance(&mut state);
    }
}

impl DeviceSrq for ShmSrq {
    fn max_wr(&self) -> u32 {
        self.limit
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

    fn post_recv(&self, batch: &mut ReceiveBatch) -> (u32, Option<Refused>) {
        self.post(batch)
    }

    fn set_limit(&self, limit: u32) -> Result<()> {
        if let Role::Shared(slot) = self.role {
            srq_words(&self.core.segment, slot).limit.store(u64::from(limit), Ordering::Release);
        }
        Ok(())
    }

    fn limit(&self) -> u32 {
        match self.role {
            Role::Shared(slot) => srq_words(&self.core.segment, slot).limit.load(Ordering::Acquire) as u32,
            Role::Datagrams(_) => 0,
        }
    }

    fn is_retired(&self, number: u32) -> bool {
        !lock(&self.state).outstanding.contains(&number)
    }
}

impl Drop for ShmSrq {
    fn drop(&mut self) {
        if let Role::Shared(slot) = self.role {
            srq_words(&self.core.segment, slot).identity.store(0, Ordering::Release);
            self.core.free_lines(self.at, landing::ring_bytes(self.shape));
            lock(&self.core.srqs).release(slot);
        }
    }
}
