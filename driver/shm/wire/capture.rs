//! The packets that an adapter would have sent, in a file: made up when a work request has been executed, with the answers that its end means.
//!
//! Addresses are the GIDs of the two contexts; queue pair numbers, keys, addresses and starting sequence numbers are the real ones. A context
//! writes what it asks of others and what they answer. What others ask of it happens without it, and is in their files.

use super::Wire;
use super::packets::Packets;
use super::queue::fetches;
use crate::link::capture::{Direction, Recorded, Recording};
use crate::link::flow;
use crate::shm::core::gid_of;
use crate::shm::qp::ShmQp;
use crate::shm::remote::Remote;
use crate::shm::send::{Pending, SendFifo, Step, Wait};
use crate::sync::Ordering;
use std::time::Duration;
use tbrdma_proto::wire::icrc::{Flow, ICRC_BYTES, seal};
use tbrdma_proto::wire::{
    Aeth, AtomicEth, Bth, Deth, Headers, MAX_HEADER_BYTES, NakCode, PacketOpcode, Reth, Syndrome,
};
use tbrdma_proto::{Opcode, Psn, QpType, Qpn, SendFlags, Time, WcStatus, rnr_timer};

/// Hops that senders allow.
const HOP_LIMIT: u8 = 64;
/// Source ports are drawn from the upper quarter, by the queue pairs at both ends, so that flows can be told apart.
const FIRST_PORT: u16 = 0xc000;
/// A Q_Key with this bit set in a work request means the queue pair's own (IBTA volume 1, section 10.2.5).
const OWN_QKEY: u32 = 1 << 31;

/// What the responder says.
enum Answer {
    Done,
    No(Syndrome),
    /// Nothing; or nobody asked it to.
    Nothing,
}

/// Where packets go.
struct Ends {
    there: Flow,
    back: Flow,
    ours: Qpn,
    theirs: Qpn,
}

/// The file, and a packet's bytes.
struct Scribe<'a> {
    file: &'a Recording,
    now: Time,
    bytes: Vec<u8>,
}

impl ShmQp {
    /// Captures a work request of which an attempt ended so; `before`: it had been tried before.
    pub(super) fn capture(
        &self,
        wire: &Wire,
        remote: Option<&Remote>,
        queue: &mut SendFifo,
        pending: &Pending,
        step: &Step,
        before: bool,
    ) {
        let Some(file) = &wire.capture else { return };
        let packets = self.packets_of(&queue.flights, pending);
        if packets.is_local() {
            return;
        }
        let Some(answer) = self.answer(step, pending, before) else { return };
        let Some(ends) = self.ends(remote, queue, pending) else { return };
        let fetched = matches!(answer, Answer::Done) && fetches(pending.wr.opcode);
        let data = if fetched { self.gather(&pending.sges) } else { self.carried(pending) };
        let data = data.unwrap_or_default();
        let mut scribe = Scribe { file, now: wire.now(), bytes: Vec::new() };
        self.write_request(&mut scribe, &ends, queue.flights.psn, pending, &packets, &data);
        if let Answer::No(syndrome) = answer {
            let psn = queue.flights.psn;
            let aeth = Aeth { syndrome, msn: queue.flights.msn };
            let mut headers = Headers::new(Bth::new(packets.answer(0), ends.ours, psn));
            if fetches(pending.wr.opcode) {
                headers.bth.opcode = PacketOpcode::RcAcknowledge;
            }
            headers.aeth = Some(aeth);
            scribe.write(Direction::In, &ends.back, &mut headers, &[]);
        }
        let again = matches!(step, Step::Wait(_));
        if let Answer::Done = answer {
            queue.flights.msn = queue.flights.msn.wrapping_add(1) & 0x00ff_ffff;
            let aeth = Aeth { syndrome: Syndrome::ACK, msn: queue.flights.msn };
            write_answer(&mut scribe, &ends, queue.flights.psn, pending.wr.opcode, aeth, &packets, &data);
        }
        if !again {
            queue.flights.psn = queue.flights.psn.add(packets.count());
        }
    }

    /// What the responder said, if anything left us at all.
    fn answer(&self, step: &Step, pending: &Pending, before: bool) -> Option<Answer> {
        let reliable = self.qp_type == QpType::Rc;
        Some(match step {
            Step::Done(_) if reliable => Answer::Done,
            Step::Done(_) => Answer::Nothing,
            Step::Wait(_) => match pending.waiting {
                Some((Wait::Receive(timer), _)) if reliable && !before => Answer::No(not_ready(timer)),
                _ => return None,
            },
            Step::Failed(WcStatus::RemAccessErr) => Answer::No(Syndrome::Nak(NakCode::RemoteAccessError)),
            Step::Failed(WcStatus::RemInvReqErr) => Answer::No(Syndrome::Nak(NakCode::InvalidRequest)),
            Step::Failed(WcStatus::RemOpErr) => Answer::No(Syndrome::Nak(NakCode::RemoteOperationalError)),
            Step::Failed(WcStatus::RetryExcErr) => Answer::Nothing,
            // What was captured when it began to wait.
            Step::Failed(_) => return None,
        })
    }

    /// The bytes that a request carries.
    fn carried(&self, pending: &Pending) -> Option<Vec<u8>> {
        if fetches(pending.wr.opcode) {
            return None;
        }
        let bytes = if pending.wr.flags.contains(SendFlags::INLINE) {
            &pending.inline
        } else {
            &pending.flight.payload
        };
        Some(bytes.clone())
    }

    fn ends(&self, remote: Option<&Remote>, queue: &SendFifo, pending: &Pending) -> Option<Ends> {
        let (peer, theirs) = match (self.qp_type, pending.wr.ud) {
            (QpType::Ud, Some(to)) => (queue.destinations.get(&to.ah)?.peer.context, to.qpn),
            _ => remote.map(|remote| (remote.peer.context, Qpn::masked(remote.qpn)))?,
        };
        let (here, there) = (self.core.gid(), gid_of(peer));
        let port = FIRST_PORT | (self.qpn.get() ^ theirs.get()) as u16 & !FIRST_PORT;
        let (there, back) = (flow(here, port, there)?, flow(there, port, here)?);
        Some(Ends { there, back, ours: self.qpn, theirs })
    }

    fn write_request(
        &self,
        scribe: &mut Scribe<'_>,
        ends: &Ends,
        psn: Psn,
        pending: &Pending,
        packets: &Packets,
        data: &[u8],
    ) {
        let (wr, one) = (&pending.wr, fetches(pending.wr.opcode));
        let count = if one { 1 } else { packets.count() };
        for index in 0..count {
            let opcode = packets.request(index);
            let mut headers = Headers::new(Bth::new(opcode, ends.theirs, psn.add(index)));
            headers.bth.ack_req = self.qp_type == QpType::Rc && index + 1 == count;
            headers.bth.solicited = index + 1 == count && wr.flags.contains(SendFlags::SOLICITED);
            let length = u32::try_from(pending.length).unwrap_or(u32::MAX);
            headers.reth = Some(Reth { addr: wr.remote.addr, rkey: wr.remote.rkey, length });
            let (swap_add, compare) = match wr.opcode {
                Opcode::AtomicCmpAndSwp => (wr.swap, wr.compare_add),
                _ => (wr.compare_add, 0),
            };
            headers.atomic_eth =
                Some(AtomicEth { addr: wr.remote.addr, rkey: wr.remote.rkey, swap_add, compare });
            (headers.imm, headers.ieth) = (Some(wr.imm_data), Some(wr.imm_data));
            headers.deth = wr.ud.map(|to| {
                let own = self.words().qkey.load(Ordering::Relaxed) as u32;
                Deth { qkey: if to.qkey & OWN_QKEY != 0 { own } else { to.qkey }, src_qpn: self.qpn }
            });
            let part = if one { &[][..] } else { data.get(packets.part(index)).unwrap_or_default() };
            scribe.write(Direction::Out, &ends.there, &mut headers, part);
        }
    }
}

/// The answer to a request that went well.
fn write_answer(
    scribe: &mut Scribe<'_>,
    ends: &Ends,
    psn: Psn,
    opcode: Opcode,
    aeth: Aeth,
    packets: &Packets,
    data: &[u8],
) {
    let is_read = opcode == Opcode::RdmaRead;
    let last = packets.count().saturating_sub(1);
    // An acknowledgement names the last of what it is about.
    for index in if is_read { 0..=last } else { last..=last } {
        let mut headers = Headers::new(Bth::new(packets.answer(index), ends.ours, psn.add(index)));
        headers.aeth = Some(aeth);
        headers.atomic_ack_eth = data.first_chunk().map(|old| u64::from_ne_bytes(*old));
        let part = if is_read { data.get(packets.part(index)).unwrap_or_default() } else { &[] };
        scribe.write(Direction::In, &ends.back, &mut headers, part);
    }
}

impl Scribe<'_> {
    /// Writes a packet. Headers that its opcode does not have are left out.
    fn write(&mut self, direction: Direction, flow: &Flow, headers: &mut Headers, payload: &[u8]) {
        headers.bth.pad = (payload.len().wrapping_neg() & 3) as u8;
        let mut front = [0; MAX_HEADER_BYTES];
        let len = headers.encode(&mut front);
        self.bytes.clear();
        self.bytes.extend_from_slice(front.get(..len).unwrap_or_default());
        self.bytes.extend_from_slice(payload);
        self.bytes.resize(len + payload.len().next_multiple_of(4) + ICRC_BYTES, 0);
        // Long enough for an iCRC it is.
        let _ = seal(flow, 0, &mut self.bytes);
        let packet = Recorded {
            direction,
            flow,
            ident: 0,
            traffic_class: 0,
            hop_limit: HOP_LIMIT,
            payload: (&self.bytes).into(),
        };
        self.file.write(self.now, std::iter::once(packet));
    }
}

/// What a responder without a receive says.
fn not_ready(timer: Duration) -> Syndrome {
    Syndrome::RnrNak { timer: (0..32).find(|code| rnr_timer(*code) == timer).unwrap_or_default() }
}
