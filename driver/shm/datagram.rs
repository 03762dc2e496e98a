//! Datagrams: SEND on a UD queue pair, to whoever an address handle leads to.

use super::core::{Destination, lock, qp_words, slot_of};
use super::landing::{self, Arrival};
use super::qp::{ShmQp, announce_remote};
use super::send::{Progress, SendFifo, Step, Work};
use super::take::{ring_of, ring_shape, watch_limit};
use super::transfer::{Direction, Local, RemoteSpan, Seen, Transfer};
use crate::ring::arm::{TellMe, publish_fence};
use crate::ring::receive::{Delivery, Posting};
use crate::ring::shared_receive::SharedReceiveRing;
use crate::sync::Ordering;
use tbrdma_proto::{
    Access, PdHandle, QpState, QpType, SendFlags, SendWr, WcFlags, WcOpcode, WcStatus, limits,
};

const GRH_BYTES: u64 = limits::GRH_BYTES as u64;
/// Next header of a GRH: the base transport header (IBTA volume 1, section 8.3).
const NEXT_HEADER: u8 = 0x1b;
/// Destinations a queue pair remembers; beyond that it starts anew.
const REMEMBERED: usize = 1024;
/// A Q_Key with this bit set in a work request means the queue pair's own (IBTA volume 1, section 10.2.5).
const OWN_QKEY: u32 = 1 << 31;

impl ShmQp {
    /// Looks up the destination of a work request, once for each address handle.
    pub(crate) fn resolve(&self, send: &mut SendFifo, wr: &SendWr) {
        let Some(to) = wr.ud else { return };
        if send.destinations.contains_key(&to.ah) {
            return;
        }
        if let Some(destination) = lock(&self.core.ahs).get(to.ah % limits::MAX_AH).cloned() {
            if send.destinations.len() >= REMEMBERED {
                send.destinations.clear();
            }
            send.destinations.insert(to.ah, destination);
        }
    }

    /// Sends one datagram. It arrives or it does not: the sender's completion is a success either way, unless the sender itself is
    /// at fault.
    pub(crate) fn send_datagram(&self, send: &SendFifo, work: &Work<'_>) -> Step {
        let done = Step::Done(work.length as u32);
        let Some(to) = work.wr.ud else { return Step::Failed(WcStatus::LocQpOpErr) };
        let Some(destination) = send.destinations.get(&to.ah) else {
            return Step::Failed(WcStatus::LocQpOpErr);
        };
        let peer = &destination.peer;
        if self.is_bad(work) {
            return Step::Failed(WcStatus::LocProtErr);
        }
        let slot = slot_of(to.qpn.get());
        let words = qp_words(&peer.segment, slot);
        let identity = u64::from(to.qpn.get()) | u64::from(QpType::Ud as u8) << 32;
        let state = QpState::from_raw(words.state.load(Ordering::SeqCst) as u32).unwrap_or(QpState::Err);
        let takes = matches!(state, QpState::Rtr | QpState::Rts | QpState::Sqd | QpState::Sqe);
        let qkey =
            if to.qkey & OWN_QKEY != 0 { self.words().qkey.load(Ordering::Relaxed) as u32 } else { to.qkey };
        if !peer.is_alive()
            || !takes
            || words.identity.load(Ordering::Acquire) != identity
            || words.qkey.load(Ordering::Relaxed) as u32 != qkey
        {
            return done;
        }
        // Its own queue, or a shared one: either way many may send.
        let srq = super::take::shared_slot(words).map(|slot| super::core::srq_words(&peer.segment, slot));
        let (at, shape, next, pd) = match srq {
            Some(srq) => {
                let pd = PdHandle((srq.identity.load(Ordering::Relaxed) as u32).wrapping_sub(1));
                (&srq.receive_at, &srq.receive_shape, &srq.next_receive, pd)
            }
            None => {
                let pd = PdHandle(words.rights.load(Ordering::Relaxed) as u32);
                (&words.receive_at, &words.receive_shape, &words.next_receive, pd)
            }
        };
        let Some(ring) = ring_of(&peer.segment, at, shape) else { return done };
        let ring = SharedReceiveRing::new(ring, next);
        let room = |posting: &Posting<'_>| posting.sges().map(|sge| u64::from(sge.length)).sum::<u64>();
        let needed = GRH_BYTES + work.length;
        // One that is too small stays in its place.
        if ring.ring().posted(ring.claimed_until()).is_some_and(|posting| room(&posting) < needed) {
            return done;
        }
        let Some((number, posting)) = ring.claim(peer.claimer) else { return done };
        if let Some(srq) = srq {
            watch_limit(srq, words, peer, slot);
        }
        let spans = posting.sges().map(|sge| RemoteSpan {
            key: sge.lkey,
            addr: sge.addr,
            len: u64::from(sge.length),
        });
        let mut seen = Seen::default();
        let mut transfer = Transfer {
            seen: &mut seen,
            core: &self.core,
            words: self.words(),
            peer,
            peer_slot: slot,
            peer_qpn: to.qpn,
            local_pd: self.pd,
            remote_pd: pd,
            needed: Access::LOCAL_WRITE,
            direction: Direction::Put,
        };
        let grh = self.grh(destination, work.length);
        // Another sender may have taken the one that fitted.
        let fits = room(&posting) >= needed;
        let mut put = |local, from, len| {
            let mut progress = Progress::default();
            let outcome = transfer.run(local, None, window(spans.clone(), from, len), len, &mut progress);
            super::agent::release_bounce(&self.core, &mut progress);
            outcome.is_ok()
        };
        let placed = fits
            && put(Local::Inline(&grh), 0, GRH_BYTES)
            && (work.length == 0 || put(work.local, GRH_BYTES, work.length));
        // What only the receiver's process may copy is left beside the queue for it to fetch.
        let landed = fits && !placed && transfer.needs_agent(window(spans.clone(), 0, needed)) && {
            let at = at.load(Ordering::Relaxed);
            ring_shape(shape)
                .and_then(|shape| landing::place(&peer.segment, at, shape, number, needed))
                .is_some_and(|place| transfer.land(&grh, work.local, place).is_ok())
        };
        let placed = placed || landed;
        if placed {
            let imm = if work.wr.opcode.has_imm() { WcFlags::WITH_IMM } else { WcFlags::empty() };
            let delivery = Delivery {
                status: WcStatus::Success,
                opcode: WcOpcode::Recv,
                flags: WcFlags::GRH | imm,
                byte_len: (work.length + GRH_BYTES) as u32,
                imm_data: work.wr.imm_data,
                src_qp: self.qpn.get(),
            };
            ring.set_order(number, Arrival { landed, slid: self.core.lid }.word());
            ring.ring().deliver(number, &delivery, to.qpn.get());
        } else {
            ring.ring().give_back(number);
        }
        // Told either way: a receive that came back unused is posted again by its owner.
        publish_fence();
        let cq = words.receive_to.load(Ordering::Relaxed) as u32 & 0xffff;
        let cq = (super::core::cq_words(&peer.segment, cq), cq);
        let solicited = placed && work.wr.flags.contains(SendFlags::SOLICITED);
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
