//! What has ended in a receive queue with many senders: each completion in its order, to the completion queue that it belongs to.

use super::{Role, ShmSrq, State};
use crate::shm::core::lock;
use crate::shm::cq::ShmCq;
use crate::shm::landing::{self, Arrival};
use crate::shm::peer::SELF_CLAIMER;
use crate::sync::Ordering;
use tbrdma_proto::{QpState, Qpn, WcOpcode, WcStatus, WorkCompletion};

impl ShmSrq {
    /// Polls the messages that belong to one completion queue. Called by completion queues; the state lock makes it one at a time.
    pub(crate) fn poll(&self, cq: &ShmCq, out: &mut [WorkCompletion]) -> usize {
        let mut guard = lock(&self.state);
        let state = &mut *guard;
        let mut count = 0;
        if !state.stuck.is_empty() {
            self.sweep(state);
        }
        while count < out.len()
            && let Some(at) = state.aside.iter().position(|(slot, _)| *slot == cq.slot)
            && let Some((_, wc)) = state.aside.remove(at)
        {
            out[count] = wc;
            count += 1;
        }
        for number in self.claimed() {
            if count == out.len() {
                break;
            }
            if let Some(wc) = self.end(state, number, |slot| slot == cq.slot) {
                out[count] = wc.1;
                count += 1;
            }
        }
        self.advance(state);
        if count < out.len() {
            count += self.flush_datagrams(state, &mut out[count..]);
        }
        // If `out` is full there may be more here; the completion queue remembers to look again.
        count
    }

    /// How many completions a poll for one completion queue would find.
    pub(crate) fn unpolled(&self, cq: &ShmCq) -> usize {
        let mut state = lock(&self.state);
        self.sweep(&mut state);
        self.advance(&mut state);
        state.aside.iter().filter(|(slot, _)| *slot == cq.slot).count()
    }

    /// If receive `number` has been delivered and its turn has come: its completion, if its completion queue is `wanted`, and that queue's slot.
    fn end(
        &self,
        state: &mut State,
        number: u32,
        wanted: impl Fn(u32) -> bool,
    ) -> Option<(u32, WorkCompletion)> {
        if state.polled[self.at_slot(number)] {
            return None;
        }
        self.end_delivered(state, number, wanted)
    }

    /// Puts aside every completion there is, also of stuck receives that have been delivered after all. Those come first, but are looked for last: a
    /// sender whose later message has been seen has delivered the earlier one by then.
    pub(super) fn sweep(&self, state: &mut State) {
        let claimed: Vec<_> = self.claimed().filter_map(|number| self.end(state, number, |_| true)).collect();
        self.end_stuck(state);
        state.aside.extend(claimed);
    }

    fn end_stuck(&self, state: &mut State) {
        for number in std::mem::take(&mut state.stuck) {
            let origin = state.origins[self.at_slot(number)];
            let ended = self.end_delivered(state, number, |_| true);
            // It is no longer stuck if it has ended, or if it was given back and waits to be posted anew.
            let through = !state.outstanding.contains(&origin)
                || state.returned.iter().any(|returned| returned.origin == origin);
            state.aside.extend(ended);
            if !through {
                state.stuck.push(number);
            }
        }
    }

    /// The same whether or not the ring has gone past it.
    fn end_delivered(
        &self,
        state: &mut State,
        number: u32,
        wanted: impl Fn(u32) -> bool,
    ) -> Option<(u32, WorkCompletion)> {
        let ring = self.ring();
        let slots = ring.ring();
        let slot = self.at_slot(number);
        let delivery = slots.delivered(number)?;
        if slots.is_given_back(number) {
            self.take_back(state, number);
            return None;
        }
        let qpn = slots.receiver(number);
        let Some(member) = state.members.get_mut(&qpn) else {
            // Its queue pair is gone: nobody will ask for it.
            self.retire(state, number);
            return None;
        };
        if !wanted(member.cq) || (member.in_order && member.next_order != ring.order(number)) {
            return None;
        }
        member.next_order = member.next_order.wrapping_add(1);
        let (cq, in_order) = (member.cq, member.in_order);
        let arrival = if in_order { Arrival::of(0) } else { Arrival::of(ring.order(number)) };
        let lost = arrival.landed && !self.fetch_landed(number, delivery.byte_len);
        let wc = WorkCompletion {
            wr_id: self.wr_ids[slot].load(Ordering::Relaxed),
            status: if lost { WcStatus::LocProtErr } else { delivery.status },
            opcode: delivery.opcode,
            byte_len: delivery.byte_len,
            imm_data: delivery.imm_data,
            qp_num: Qpn::new(qpn).unwrap_or_default(),
            src_qp: Qpn::new(delivery.src_qp).unwrap_or_default(),
            wc_flags: delivery.flags,
            slid: arrival.slid,
            wq_index: self.retire(state, number),
            ..WorkCompletion::default()
        };
        Some((cq, wc))
    }

    /// Copies a datagram from its landing place to where it belongs.
    #[cold]
    fn fetch_landed(&self, number: u32, len: u32) -> bool {
        let message = landing::place(&self.core.segment, self.at, self.shape, number, u64::from(len));
        let posting = self.slots().posted(number);
        message
            .zip(posting)
            .is_some_and(|(message, posting)| landing::fetch(&self.core, self.pd, &posting, message))
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
            // Receives that came back are posted as room appears, to be claimed like the others.
            self.advance(state);
            let Some((number, _)) = ring.claim(SELF_CLAIMER) else { break };
            let wq_index = self.retire(state, number);
            *wc = WorkCompletion {
                wr_id: self.wr_ids[self.at_slot(number)].load(Ordering::Relaxed),
                status: WcStatus::WrFlushErr,
                opcode: WcOpcode::Recv,
                qp_num: qp.qpn,
                wq_index,
                ..WorkCompletion::default()
            };
            count += 1;
        }
        self.advance(state);
        count
    }
}
