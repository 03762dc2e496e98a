//! A send queue whose work requests travel: each is sent, arrives and is executed, and its completion comes back, at the times that the wire says.

use super::Wire;
use super::model::Trip;
use super::packets::Packets;
use crate::mem::LocalRegion;
use crate::ring::completion::SendCompletion;
use crate::shm::core::{Core, lock};
use crate::shm::qp::ShmQp;
use crate::shm::remote::Remote;
use crate::shm::send::{Doorbell, Pending, SendFifo, Step, Wait, Work};
use crate::shm::transfer::Local;
use crate::sync::Ordering;
use crate::sys::process::yield_now;
use std::collections::VecDeque;
use std::sync::Weak;
use std::time::Duration;
use tbrdma_proto::{Mtu, Opcode, Psn, QpAttr, QpAttrMask, QpState, QpType, SendFlags, Sge, Time, WcStatus};

/// How long the end of a queue pair waits for what is under way.
const LINGERS: Duration = Duration::from_millis(500);

/// What a send queue knows of its wire.
#[derive(Default)]
pub(crate) struct Flights {
    /// What was posted before could not be sent before.
    open_since: Time,
    pub(super) mtu: Mtu,
    /// The next packet's number.
    pub(super) psn: Psn,
    /// Requests that the responder has ended.
    pub(super) msn: u32,
    /// Completions on their way back, first to last.
    returning: VecDeque<(Time, SendCompletion)>,
}

/// Where a work request is.
#[derive(Default)]
pub(crate) struct Flight {
    posted: Time,
    /// Unset until it is its turn to be sent, and where that takes no time.
    trip: Option<Trip>,
    /// It has failed, which its sender learns when the trip ends.
    verdict: Option<WcStatus>,
    /// What it carried when it was posted, for a capture, unless that is inline.
    pub(super) payload: Vec<u8>,
}

impl Core {
    /// Completions that are back are seen before any answer to what they are of, also if a thread is just bringing them: programs that wait for one
    /// event, and poll once, rely on it.
    #[cold]
    pub(crate) fn bring_what_is_back(&self, wire: &Wire) {
        wire.is_polled();
        if self.stalled.load(Ordering::Relaxed) == 0 {
            return;
        }
        let all: Vec<_> = lock(&self.stalled_list).iter().filter_map(Weak::upgrade).collect();
        for qp in all {
            while !qp.progress() {
                yield_now();
            }
        }
    }
}

impl Flights {
    /// The queue pair has been given attributes.
    pub(crate) fn prepare(&mut self, wire: Option<&Wire>, attr: &QpAttr, mask: QpAttrMask) {
        let Some(wire) = wire else { return };
        self.mtu = attr.path_mtu;
        if mask.contains(QpAttrMask::SQ_PSN) {
            (self.psn, self.msn) = (attr.sq_psn, 0);
        }
        if mask.contains(QpAttrMask::STATE) {
            self.open_since = wire.now();
        }
    }

    /// Are completions on their way back?
    pub(crate) fn are_in_the_air(&self) -> bool {
        !self.returning.is_empty()
    }
}

impl Flight {
    /// Has it been sent?
    pub(crate) fn has_begun(&self) -> bool {
        self.trip.is_some()
    }

    /// The status with which it has failed already.
    pub(crate) fn verdict(&self) -> Option<WcStatus> {
        self.verdict
    }
}

impl ShmQp {
    /// What a work request that is posted now takes along.
    pub(crate) fn pack(&self, work: &Work<'_>) -> Flight {
        let Some(wire) = &self.core.wire else { return Flight::default() };
        let payload = match work.local {
            Local::List(list) if wire.capture.is_some() && !fetches(work.wr.opcode) => {
                self.gather(list).unwrap_or_default()
            }
            _ => Vec::new(),
        };
        Flight { posted: wire.now(), payload, ..Flight::default() }
    }

    /// The bytes of a list, if all of it may be used. For one whose send queue is marked busy.
    pub(super) fn gather(&self, list: &[Sge]) -> Option<Vec<u8>> {
        let mut known = LocalRegion::default();
        let mut bytes = Vec::new();
        for sge in list {
            let none = tbrdma_proto::Access::empty();
            let len = u64::from(sge.length);
            let place = self.core.regions.place(&mut known, self.pd, sge.lkey, none, sge.addr, len).ok()?;
            let start = bytes.len();
            bytes.resize(start + sge.length as usize, 0);
            place.read_into(bytes.get_mut(start..)?);
        }
        Some(bytes)
    }

    /// Work requests have just been posted to a queue that travels: executes those that are there already. True if nothing is left to wait for.
    pub(crate) fn arrives_at_once(&self) -> bool {
        self.progress() && self.send.intrude().queue.is_idle()
    }

    /// Sends those whose turn it is: one begins when the one before it has left, so that queue pairs take turns.
    pub(crate) fn set_off(&self, wire: &Wire, queue: &mut SendFifo) {
        let Some(model) = wire.model.as_ref().filter(|_| self.state() == QpState::Rts) else { return };
        let now = wire.now();
        let mut next = queue.pending.partition_point(|pending| pending.flight.has_begun());
        let mut free = next.checked_sub(1).and_then(|last| queue.pending.get(last)?.flight.trip);
        while free.is_none_or(|last| last.leaves <= now)
            && let Some(pending) = queue.pending.get_mut(next)
        {
            let ready = pending.flight.posted.max(queue.flights.open_since);
            let packets = self.packets_of(&queue.flights, pending);
            let trip = match packets.is_local() {
                true => Trip { leaves: ready, ends: ready },
                false => model.send(ready, &packets),
            };
            pending.flight.trip = Some(trip);
            free = Some(trip);
            next += 1;
        }
    }

    pub(super) fn packets_of(&self, flights: &Flights, pending: &Pending) -> Packets {
        // A datagram is one packet.
        let mtu = if self.qp_type == QpType::Ud { self.rules.path_mtu } else { flights.mtu };
        Packets::new(self.qp_type, pending.wr.opcode, pending.length, mtu.bytes())
    }

    /// What the outcome of an attempt is to the sender, who does not know it yet. `before`: it had been tried before.
    pub(crate) fn on_wire(
        &self,
        wire: &Wire,
        remote: Option<&Remote>,
        queue: &mut SendFifo,
        front: &mut Pending,
        (step, before): (Step, bool),
        doorbell: &mut Doorbell<'_>,
    ) -> Step {
        let known = front.flight.verdict.is_some();
        if !known {
            self.capture(wire, remote, queue, front, &step, before);
        }
        match step {
            Step::Done(bytes) => {
                if front.wr.flags.contains(SendFlags::SIGNALED) {
                    let at = self.heard_of(wire, queue, front, WcStatus::Success);
                    let completion = SendCompletion {
                        wr_id: front.wr.wr_id,
                        status: WcStatus::Success,
                        opcode: front.wr.opcode.wc_opcode(),
                        byte_len: bytes,
                        wq_index: front.number,
                    };
                    queue.flights.returning.push_back((at, completion));
                }
                Step::Done(bytes)
            }
            Step::Failed(status) => {
                if !known {
                    let at = self.heard_of(wire, queue, front, status);
                    front.flight.verdict = Some(status);
                    front.waiting = None;
                    front.flight.trip = Some(Trip { leaves: at, ends: at });
                    if at > wire.now() {
                        return Step::Wait(Wait::Ready);
                    }
                }
                self.bring_back(wire, queue, doorbell);
                Step::Failed(status)
            }
            step => step,
        }
    }

    /// When the sender hears how a work request ended that has just been executed.
    fn heard_of(&self, wire: &Wire, queue: &SendFifo, front: &Pending, status: WcStatus) -> Time {
        let now = wire.now();
        let is_answered = self.qp_type == QpType::Rc
            && !fetches(front.wr.opcode)
            && !matches!(
                status,
                WcStatus::LocLenErr | WcStatus::LocProtErr | WcStatus::LocQpOpErr | WcStatus::MwBindErr
            );
        let packets = self.packets_of(&queue.flights, front);
        let at = match &wire.model {
            Some(model) if is_answered && !packets.is_local() => model.answer(now, &packets),
            _ => now,
        };
        queue.flights.returning.back().map_or(at, |(before, _)| at.max(*before))
    }

    /// Is it not there yet?
    pub(crate) fn is_under_way(&self, pending: &Pending) -> bool {
        let Some(wire) = self.core.wire.as_ref().filter(|wire| wire.has_latency()) else { return false };
        pending.flight.trip.is_none_or(|trip| trip.ends > wire.now())
    }

    /// Hands out the completions that are back.
    pub(crate) fn bring_back(&self, wire: &Wire, queue: &mut SendFifo, doorbell: &mut Doorbell<'_>) {
        while let Some((_, completion)) = queue.flights.returning.pop_front_if(|(at, _)| *at <= wire.now()) {
            self.sent.push(&completion);
            doorbell.sent = true;
        }
    }

    /// The queue ends: what has come back is handed out, and what has not will not, as its sender does not know how it ended.
    pub(crate) fn cut_off(&self, queue: &mut SendFifo) {
        let Some(wire) = &self.core.wire else { return };
        let now = wire.now();
        for (at, mut completion) in queue.flights.returning.drain(..) {
            if at > now {
                (completion.status, completion.byte_len) = (WcStatus::WrFlushErr, 0);
            }
            self.sent.push(&completion);
        }
    }

    /// The queue pair is about to be destroyed: what has left it arrives all the same, within reason.
    pub(crate) fn linger(&self) {
        let Some(wire) = self.core.wire.as_ref().filter(|wire| wire.has_latency()) else { return };
        let begun = wire.now();
        while wire.now() <= begun + LINGERS {
            self.progress();
            let send = self.send.intrude();
            let front = send.queue.pending.front().filter(|front| front.waiting.is_none());
            let next = front.and_then(|front| front.flight.trip).filter(|trip| trip.leaves <= begun);
            drop(send);
            let Some(trip) = next.filter(|trip| trip.ends <= begun + LINGERS) else { return };
            std::thread::sleep(trip.ends.since(wire.now()));
        }
    }

    /// When something of a queue is due next.
    pub(crate) fn next_due(&self, queue: &SendFifo) -> Option<Time> {
        let back = queue.flights.returning.front().map(|(at, _)| *at);
        let state = self.state();
        let front = queue.pending.front().filter(|front| {
            let waits_for_peer = front.waiting.is_some() && front.flight.verdict.is_none();
            !waits_for_peer && matches!(state, QpState::Rts | QpState::Sqd)
        });
        let there = front.and_then(|front| front.flight.trip).map(|trip| trip.ends);
        let sent = queue.pending.partition_point(|pending| pending.flight.has_begun());
        let free = (state == QpState::Rts && sent < queue.pending.len())
            .then(|| queue.pending.get(sent.checked_sub(1)?)?.flight.trip)
            .flatten()
            .map(|trip| trip.leaves);
        back.into_iter().chain(there).chain(free).min()
    }
}

/// Does it bring something back?
pub(super) fn fetches(opcode: Opcode) -> bool {
    opcode == Opcode::RdmaRead || opcode.is_atomic()
}
