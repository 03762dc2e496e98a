//! A simulated node: queue pairs, completion queues, shared receive queues and memory, and the hands that carry out actions.

use std::collections::{BTreeMap, VecDeque};

use super::memory::{ToyMemory, Violation, violation};
use super::trace::Happening;
use crate::flags::Access;
use crate::ident::{Gid, Qpn};
use crate::qp::{AddressVector, QpType};
use crate::region::{PdHandle, RegionError};
use crate::time::Time;
use crate::transport::{Action, Half, Host, Payload, Qp, Receive, Span, Srq, To, Transmit};
use crate::work::WorkCompletion;

/// A queue pair, and what belongs to it that its transport does not know.
#[derive(Debug)]
pub struct Slot {
    /// The queue pair.
    pub qp: Qp,
    /// Its transport service.
    pub qp_type: QpType,
    /// Its protection domain.
    pub pd: PdHandle,
    /// Which of the node's completion queues gets its sends.
    pub send_cq: usize,
    /// Which gets its receives.
    pub recv_cq: usize,
    /// Which shared receive queue it takes from.
    pub srq: Option<usize>,
    /// The connected peer's GID, kept from the last change of the address vector.
    pub peer: Gid,
    /// When an acknowledgement that may wait must leave.
    pub(super) ack_due: Option<Time>,
}

/// A completion queue.
#[derive(Debug, Default)]
pub struct Cq {
    /// What was not polled yet.
    pub entries: VecDeque<WorkCompletion>,
}

/// A shared receive queue of a simulated node.
#[derive(Debug)]
pub struct SharedQueue {
    /// The queue.
    pub srq: Srq,
    /// Who took which receive, by the application's number; whoever sees the completion takes it out.
    pub taken: Vec<(Qpn, u64)>,
}

/// A node: everything that a restart loses, apart from its address.
#[derive(Debug)]
pub struct Node {
    /// Its address.
    pub gid: Gid,
    /// Its memory.
    pub memory: ToyMemory,
    /// Its queue pairs.
    pub qps: BTreeMap<Qpn, Slot>,
    /// Its completion queues.
    pub cqs: Vec<Cq>,
    /// Its shared receive queues.
    pub srqs: Vec<SharedQueue>,
    /// Its address handles, by their number.
    pub handles: Vec<AddressVector>,
}

/// What a transport may ask while it decides, for one queue pair.
pub(super) struct View<'a> {
    pub(super) memory: &'a mut ToyMemory,
    qpn: Qpn,
    pub(super) srq: Option<&'a mut SharedQueue>,
}

impl Host for View<'_> {
    fn check(&self, pd: PdHandle, key: u32, needed: Access, addr: u64, len: u64) -> Result<(), RegionError> {
        self.memory.check(pd, key, needed, addr, len)
    }

    fn invalidate(&mut self, pd: PdHandle, key: u32) -> Result<(), RegionError> {
        self.memory.invalidate(pd, key)
    }

    fn take_shared_receive(&mut self, receive: &mut Receive) -> bool {
        let Some(shared) = self.srq.as_mut() else { return false };
        let there_was = shared.srq.take(receive);
        if there_was {
            shared.taken.push((self.qpn, receive.wr_id));
        }
        there_was
    }
}

impl SharedQueue {
    /// Forgets what a queue pair took and has not completed, and answers its numbers.
    pub fn take_back(&mut self, qpn: Qpn) -> Vec<u64> {
        self.taken.extract_if(.., |(taker, _)| *taker == qpn).map(|(_, id)| id).collect()
    }
}

impl Node {
    /// A node with nothing in it. `seed` makes its keys.
    pub fn new(gid: Gid, seed: u64) -> Self {
        Self {
            gid,
            memory: ToyMemory::new(seed),
            qps: BTreeMap::new(),
            cqs: Vec::new(),
            srqs: Vec::new(),
            handles: Vec::new(),
        }
    }

    /// Runs `call` on a queue pair with the node as its host, then carries out what it asks for. `payload` is that of the packet
    /// being handled. `None` if there is no such queue pair.
    pub(super) fn with<R>(
        &mut self,
        qpn: Qpn,
        payload: &[u8],
        seen: &mut Vec<Happening>,
        call: impl FnOnce(&mut Qp, &mut View<'_>) -> R,
    ) -> Result<Option<R>, Violation> {
        let Some(slot) = self.qps.get_mut(&qpn) else { return Ok(None) };
        let srq = slot.srq.and_then(|index| self.srqs.get_mut(index));
        let mut view = View { memory: &mut self.memory, qpn, srq };
        let answer = call(&mut slot.qp, &mut view);
        while let Some(action) = slot.qp.poll_action() {
            match action {
                Action::Place { key, addr, offset, len } => {
                    let (from, to) = (offset as usize, offset as usize + len as usize);
                    let bytes = payload.get(from..to).ok_or_else(|| {
                        violation!(
                            "{qpn}: asked to place bytes {from}..{to} of a payload of {}",
                            payload.len()
                        )
                    })?;
                    if len == 0 {
                        return Err(violation!("{qpn}: asked to place no bytes"));
                    }
                    self.memory.place(slot.pd, key, addr, bytes)?;
                    seen.push(Happening::Placed { qpn, key, addr, len });
                }
                Action::Write { key, addr, bytes, len } => {
                    let bytes = bytes
                        .get(..usize::from(len))
                        .ok_or_else(|| violation!("{qpn}: asked to write {len} of 40 bytes"))?;
                    self.memory.place(slot.pd, key, addr, bytes)?;
                    seen.push(Happening::Placed { qpn, key, addr, len: len.into() });
                }
                Action::Atomic { key, addr, op } => {
                    let old = self.memory.atomic(slot.pd, key, addr, op)?;
                    slot.qp.atomic_done(old);
                    seen.push(Happening::Atomic { qpn, key, addr, op, old });
                }
                Action::Complete { half, wc, solicited } => {
                    let cq = match half {
                        Half::Send => slot.send_cq,
                        Half::Receive => slot.recv_cq,
                    };
                    let cq =
                        self.cqs.get_mut(cq).ok_or_else(|| violation!("{qpn}: no completion queue {cq}"))?;
                    cq.entries.push_back(wc);
                    if wc.qp_num != qpn {
                        return Err(violation!("{qpn}: a completion says it is of {}", wc.qp_num));
                    }
                    seen.push(Happening::Completed { half, solicited, wc });
                }
                Action::Event(kind) => seen.push(Happening::Event { qpn, kind }),
            }
        }
        Ok(Some(answer))
    }

    /// The next packet of a queue pair, with its payload; `false` beside it if a region has gone, so that it is not sent.
    pub(super) fn transmit(
        &mut self,
        now: Time,
        qpn: Qpn,
        payload: &mut Vec<u8>,
    ) -> Option<(Transmit, Result<bool, Violation>)> {
        let slot = self.qps.get_mut(&qpn)?;
        let srq = slot.srq.and_then(|index| self.srqs.get_mut(index));
        let mut view = View { memory: &mut self.memory, qpn, srq };
        let transmit = slot.qp.poll_transmit(now, &mut view)?;
        Some((transmit, gather(&slot.qp, slot.pd, &self.memory, &transmit.payload, payload)))
    }

    /// To which address a packet of a queue pair goes.
    pub(super) fn destination(&self, qpn: Qpn, to: To) -> Option<Gid> {
        match to {
            To::Peer => self.qps.get(&qpn).map(|slot| slot.peer),
            To::Handle(handle) => self.handles.get(handle as usize).map(|handle| handle.dgid),
        }
    }
}

impl Slot {
    /// When it wants to be called; `None` if it waits for nothing but others.
    pub(super) fn deadline(&self) -> Option<Time> {
        self.qp.poll_timeout().into_iter().chain(self.ack_due).min()
    }
}

/// Gathers the bytes of a payload; `false` if a region has gone, so that the packet is not sent.
fn gather(
    qp: &Qp,
    pd: PdHandle,
    memory: &ToyMemory,
    payload: &Payload,
    into: &mut Vec<u8>,
) -> Result<bool, Violation> {
    for span in qp.spans(payload) {
        match span {
            Span::Region { key, addr, len } => {
                if !memory.gather(pd, key, addr, len as usize, into)? {
                    return Ok(false);
                }
            }
            Span::Bytes(bytes) => into.extend_from_slice(bytes),
        }
    }
    if into.len() == payload.len() as usize {
        Ok(true)
    } else {
        Err(violation!("the spans of {payload:?} have {} bytes", into.len()))
    }
}
