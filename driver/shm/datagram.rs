//! Datagrams: SEND on a UD queue pair, to whoever an address handle leads to.

use super::core::{Destination, lock, qp_words, slot_of};
use super::qp::{ShmQp, announce_remote};
use super::send::{Progress, SendState, Step, Work};
use super::take::ring_of;
use super::transfer::{Direction, Local, RemoteSpan, Transfer};
use crate::ring::arm::{TellMe, publish_fence};
use crate::ring::receive::Delivery;
use crate::ring::shared_receive::SharedReceiveRing;
use crate::sync::Ordering;
use tbrdma_proto::{Access, PdHandle, QpState, QpType, SendFlags, SendWr, WcFlags, WcOpcode, WcStatus, limits};

const GRH_BYTES: u64 = limits::GRH_BYTES as u64;
/// Next header of a GRH: the base transport header (IBTA volume 1, section 8.3).
const NEXT_HEADER: u8 = 0x1b;
/// Destinations a queue pair remembers; beyond that it starts anew.
const REMEMBERED: usize = 1024;
/// A Q_Key with this bit set in a work request means the queue pair's own (IBTA volume 1, section 10.2.5).
const OWN_QKEY: u32 = 1 << 31;

impl ShmQp {
    /// Looks up the destination of a work request, once for each address handle.
    pub(crate) fn resolve(&self, send: &mut SendState, wr: &SendWr) {
        let Some(to) = wr.ud else { return };
        if send.destinations.contains_key(&to.ah) {
            return;
        }
        if let Some(destination) = lock(&self.core.ahs).get(to.ah).cloned() {
            if send.destinations.len() >= REMEMBERED {
                send.destinations.clear();
            }
            send.destinations.insert(to.ah, destination);
        }
    }

    /// Sends one datagram. It arrives or it does not: the sender's completion is a success either way, unless the sender itself is
    /// at fault.
    pub(crate) fn send_datagram(&self, send: &SendState, work: &Work<'_>) -> Step {
        let done = Step::Done(work.length as u32);
        let Some(to) = work.wr.ud else { return Step::Failed(WcStatus::LocQpOpErr) };
        let Some(destination) = send.destinations.get(&to.ah) else { return Step::Failed(WcStatus::LocQpOpErr) };
        let peer = &destination.peer;
        if let Local::List(list) = work.local {
            let bad = |sge: &tbrdma_proto::Sge| {
                let len = u64::from(sge.length);
                self.core.regions.place(self.pd, sge.lkey, Access::empty(), sge.addr, len).is_err()
            };
            if list.iter().any(bad) {
                return Step::Failed(WcStatus::LocProtErr);
            }
        }
        let slot = slot_of(to.qpn.get());
        let words = qp_words(&peer.segment, slot);
        let identity = u64::from(to.qpn.get()) | u64::from(QpType::Ud as u8) << 32;
        let state = QpState::from_raw(words.state.load(Ordering::SeqCst) as u32).unwrap_or(QpState::Err);
        let takes = matches!(state, QpState::Rtr | QpState::Rts | QpState::Sqd | QpState::Sqe);
        let qkey = if to.qkey & OWN_QKEY != 0 { self.words().qkey.load(Ordering::Relaxed) as u32 } else { to.qkey };
        if !peer.is_alive()
            || !takes
            || words.identity.load(Ordering::Acquire) != identity
            || words.qkey.load(Ordering::Relaxed) as u32 != qkey
        {
            return done;
        }
        // Its own queue, or a shared one: either way many may send.
        let (ring, pd) = match super::take::shared_slot(words) {
            Some(srq) => {
                let words = super::core::srq_words(&peer.segment, srq);
                let pd = PdHandle((words.identity.load(Ordering::Relaxed) as u32).wrapping_sub(1));
                let ring = ring_of(&peer.segment, &words.receive_at, &words.receive_shape);
                (ring.map(|ring| SharedReceiveRing::new(ring, &words.next_receive)), pd)
            }
            None => {
                let ring = ring_of(&peer.segment, &words.receive_at, &words.receive_shape);
                let pd = PdHandle(words.rights.load(Ordering::Relaxed) as u32);
                (ring.map(|ring| SharedReceiveRing::new(ring, &words.next_receive)), pd)
            }
        };
        let Some((ring, (number, posting))) = ring.and_then(|ring| Some((ring, ring.claim(peer.claimer)?))) else {
            return done;
        };
        let spans = posting.sges().map(|sge| RemoteSpan { key: sge.lkey, addr: sge.addr, len: u64::from(sge.length) });
        let transfer = Transfer {
            core: &self.core,
            words: self.words(),
            peer,
            peer_slot: slot,
            local_pd: self.pd,
            remote_pd: pd,
            needed: Access::LOCAL_WRITE,
            direction: Direction::Put,
        };
        let grh = self.grh(destination, work.length);
        let fits = posting.sges().map(|sge| u64::from(sge.length)).sum::<u64>() >= GRH_BYTES + work.length;
        let put = |local, from, len| {
            let mut progress = Progress::default();
            let outcome = transfer.run(local, window(spans.clone(), from, len), len, &mut progress);
            super::agent::release_bounce(&self.core, &mut progress);
            outcome.is_ok()
        };
        let placed = fits
            && put(Local::Inline(&grh), 0, GRH_BYTES)
            && (work.length == 0 || put(work.local, GRH_BYTES, work.length));
        if !placed {
            ring.ring().give_back(number);
            return done;
        }
        let imm = if work.wr.opcode.has_imm() { WcFlags::WITH_IMM } else { WcFlags::empty() };
        let delivery = Delivery {
            status: WcStatus::Success,
            opcode: WcOpcode::Recv,
            flags: WcFlags::GRH | imm,
            byte_len: (work.length + GRH_BYTES) as u32,
            imm_data: work.wr.imm_data,
            src_qp: self.qpn.get(),
        };
        ring.ring().deliver(number, &delivery, to.qpn.get());
        publish_fence();
        let cq = words.receive_to.load(Ordering::Relaxed) as u32 & 0xffff;
        let solicited = work.wr.flags.contains(SendFlags::SOLICITED);
        announce_remote(peer, cq, TellMe(&words.tell).wanted(), None, solicited);
        done
    }

    /// The global route header that the receiver finds in front of the message (IBTA volume 1, section 8.3).
    fn grh(&self, to: &Destination, payload: u64) -> [u8; GRH_BYTES as usize] {
        let mut grh = [0; GRH_BYTES as usize];
        let version = 6_u32 << 28 | u32::from(to.attr.traffic_class) << 20 | to.attr.flow_label & 0xf_ffff;
        grh[..4].copy_from_slice(&version.to_be_bytes());
        grh[4..6].copy_from_slice(&(payload as u16).to_be_bytes());
        grh[6] = NEXT_HEADER;
        grh[7] = to.attr.hop_limit;
        grh[8..24].copy_from_slice(&self.core.gid().0);
        grh[24..].copy_from_slice(&to.peer.gid().0);
        grh
    }
}

/// The part of a list of spans that begins at byte `from` and is `len` long.
fn window(
    spans: impl Iterator<Item = RemoteSpan> + Clone,
    from: u64,
    len: u64,
) -> impl Iterator<Item = RemoteSpan> + Clone {
    let mut skip = from;
    let mut left = len;
    spans.filter_map(move |span| {
        let skipped = span.len.min(skip);
        skip -= skipped;
        let taken = (span.len - skipped).min(left);
        left -= taken;
        (taken > 0).then(|| RemoteSpan { key: span.key, addr: span.addr.wrapping_add(skipped), len: taken })
    })
}
