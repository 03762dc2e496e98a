//! Queue pairs where a switch is about what is posted.

use super::account::Held;
use super::device::{Inner, lock};
use super::frames::Frames;
use crate::device::{DeviceMemory, DeviceQp, QpRequest, ReceiveBatch, Refused, SendBatch, SendToken};
use crate::error::{Error, PostRefusal, Result};
use std::sync::{Arc, Mutex};
use tbrdma_proto::{
    Access, Alias, DepthRounding, DepthUnit, EarlyReceive, MAX_FRAMES, Opcode, Overrun, PdHandle, Presence,
    QpAttr, QpAttrMask, QpCap, QpState, QpType, Qpn, Region, SendFlags, Sge, WriteMode,
};

/// A queue pair as its device's profile lets it be.
pub(super) struct ProfiledQp {
    inner: Arc<dyn DeviceQp>,
    device: Arc<Inner>,
    /// What was granted, as it is told.
    cap: QpCap,
    /// The frames of either queue, where depth is counted so.
    sends: Mutex<Option<Frames>>,
    receives: Mutex<Option<Frames>>,
    /// Memory that stands for what lies 4 GiB lower.
    elsewhere: Option<Arc<dyn DeviceMemory>>,
    _counted: Option<Held>,
}

/// How much of a list may be posted, and what is said of the rest; nothing is said of what is lost.
struct Verdict {
    posted: usize,
    refusal: Option<PostRefusal>,
}

impl ProfiledQp {
    /// A queue pair. `request` has the sizes that are granted.
    pub(super) fn create(
        device: &Arc<Inner>,
        request: QpRequest,
        counted: Option<Held>,
    ) -> Result<(Self, SendToken)> {
        let switches = device.profile().switches;
        let (cap, pd) = (request.cap, request.pd);
        let mut within = request;
        let elsewhere = match switches.alias {
            Alias::On => {
                // An entry that crosses the boundary becomes two.
                within.cap.max_send_sge =
                    cap.max_send_sge.max(1).saturating_mul(2).min(tbrdma_proto::MAX_SGE);
                within.cap.max_recv_sge =
                    cap.max_recv_sge.max(1).saturating_mul(2).min(tbrdma_proto::MAX_SGE);
                Some(elsewhere(device, pd)?)
            }
            Alias::Off | Alias::Refused => None,
        };
        let (inner, token) = device.device.create_qp(within)?;
        let told = inner.cap();
        let in_frames = switches.depth == DepthUnit::Frames;
        let by_device = switches.rounding == DepthRounding::Device;
        let cap = QpCap {
            max_send_sge: cap.max_send_sge.max(1),
            max_recv_sge: cap.max_recv_sge.max(u32::from(told.max_recv_wr > 0)),
            ..if !in_frames {
                told
            } else if by_device {
                as_granted(&*inner, told)
            } else {
                cap
            }
        };
        let frames = |depth: u32| Mutex::new(in_frames.then(|| Frames::new(depth)));
        let qp = Self {
            inner,
            device: Arc::clone(device),
            cap,
            sends: frames(cap.max_send_wr),
            receives: frames(cap.max_recv_wr),
            elsewhere,
            _counted: counted,
        };
        Ok((qp, token))
    }

    /// Whether an entry reaches past a multiple of 4 GiB within its region: how many of its bytes do not.
    fn before_boundary(&self, sge: &Sge) -> Option<u32> {
        let Region { iova, length, .. } = self.device.region(sge.lkey)?;
        // The first multiple of 4 GiB after the region's beginning.
        let boundary = (iova >> 32).checked_add(1)?.checked_mul(1 << 32)?;
        let (last, end) = (iova.checked_add(length)?, sge.addr.checked_add(sge.length.into())?);
        (boundary < last && end > boundary && sge.addr >= iova)
            .then(|| boundary.saturating_sub(sge.addr).min(sge.length.into()) as u32)
    }

    /// The list that reaches the device in place of this one.
    fn aliased(&self, sges: &[Sge], elsewhere: &dyn DeviceMemory, out: &mut Vec<Sge>) {
        for sge in sges {
            let Some(before) = self.before_boundary(sge) else {
                out.push(*sge);
                continue;
            };
            if before > 0 {
                out.push(Sge { length: before, ..*sge });
            }
            let beyond = sge.length - before;
            let length = beyond.min(elsewhere.len() as u32);
            out.push(Sge { addr: elsewhere.iova(), length, lkey: elsewhere.lkey() });
        }
    }

    /// What the switches about addresses and depth say of a list, of which `sges` gives the entries of each.
    fn judge<'a>(
        &self,
        frames: &Option<Frames>,
        depth: u32,
        count: usize,
        entries: impl Fn(usize) -> &'a [Sge],
    ) -> Verdict {
        let switches = &self.device.profile().switches;
        let mut verdict = Verdict { posted: count, refusal: None };
        if switches.alias == Alias::Refused
            && let Some(at) =
                (0..count).find(|at| entries(*at).iter().any(|sge| self.before_boundary(sge).is_some()))
        {
            let reason =
                "an entry reaches past a multiple of 4 GiB within its region, where this device loses it";
            verdict = Verdict { posted: at, refusal: Some(PostRefusal::Profile(reason)) };
        }
        if let Some(frames) = frames {
            let room = frames.room_for((0..verdict.posted).map(|at| bytes(entries(at))));
            if room < verdict.posted {
                let loud = switches.overrun == Overrun::Loud;
                verdict = Verdict { posted: room, refusal: loud.then_some(PostRefusal::QueueFull { depth }) };
            }
        }
        verdict
    }
}

impl Verdict {
    /// Tells the caller: what the device said goes before what was not even shown to it.
    fn outcome(self, first: u32, refused: Option<Refused>) -> (u32, Option<Refused>) {
        (first, refused.or_else(|| self.refusal.map(|reason| (self.posted, reason))))
    }
}

/// Bytes of a list.
fn bytes(sges: &[Sge]) -> u64 {
    sges.iter().map(|sge| u64::from(sge.length)).sum()
}

/// The depths that a device has granted: what it says when it is asked, else what it said when the queue pair was made.
fn as_granted(qp: &dyn DeviceQp, told: QpCap) -> QpCap {
    let said = qp.query().cap;
    let depth = |said: u32, told: u32| if said == 0 { told } else { said }.min(MAX_FRAMES);
    QpCap {
        max_send_wr: depth(said.max_send_wr, told.max_send_wr),
        max_recv_wr: depth(said.max_recv_wr, told.max_recv_wr),
        ..told
    }
}

/// Memory for what lies past a boundary: as much as a message has.
fn elsewhere(device: &Inner, pd: PdHandle) -> Result<Arc<dyn DeviceMemory>> {
    let most = device.profile().port.max_msg_sz as usize;
    device.device.alloc_memory(pd, most.min(1 << 30), Access::LOCAL_WRITE)
}

/// The entries of a work request of a list; none where it is inline.
fn sent(batch: &SendBatch, at: usize) -> &[Sge] {
    batch.wrs.get(at).map_or(&[], |wr| batch.operands(wr).0)
}

/// The entries of a receive of a list.
fn received(batch: &ReceiveBatch, at: usize) -> &[Sge] {
    batch.wrs.get(at).map_or(&[], |wr| batch.sges_of(wr))
}

impl DeviceQp for ProfiledQp {
    fn qp_num(&self) -> Qpn {
        self.inner.qp_num()
    }

    fn qp_type(&self) -> QpType {
        self.inner.qp_type()
    }

    fn cap(&self) -> QpCap {
        self.cap
    }

    fn post_send(&self, token: &mut SendToken, batch: &mut SendBatch) -> (u32, Option<Refused>) {
        let mut frames = lock(&self.sends);
        if let Some(frames) = &mut *frames {
            let retired = self.inner.sends_retired();
            frames.retire(|number| {
                let behind = retired.wrapping_sub(number);
                behind != 0 && behind < 1 << 31
            });
        }
        batch.numbered |= frames.is_some();
        let mut verdict = self.judge(&frames, self.cap.max_send_wr, batch.wrs.len(), |at| sent(batch, at));
        let refuses_writes = self.device.profile().switches.write == WriteMode::Refused;
        let is_write = |opcode| matches!(opcode, Opcode::RdmaWrite | Opcode::RdmaWriteWithImm);
        if refuses_writes
            && let Some(at) = batch.wrs.iter().take(verdict.posted).position(|wr| is_write(wr.opcode))
        {
            let reason = "it has no RDMA WRITE; use SEND";
            verdict = Verdict { posted: at, refusal: Some(PostRefusal::Profile(reason)) };
        }
        let whole = verdict.posted == batch.wrs.len();
        let (first, refused) = match &self.elsewhere {
            None if whole => self.inner.post_send(token, batch),
            elsewhere => {
                let (inline, numbered) = (batch.inline.clone(), batch.numbered);
                let mut part = SendBatch { inline, numbered, ..SendBatch::default() };
                for wr in batch.wrs.iter().take(verdict.posted) {
                    let mut wr = wr.clone();
                    if !wr.flags.contains(SendFlags::INLINE) {
                        let first = part.sges.len();
                        let sges = batch.operands(&wr).0;
                        match elsewhere {
                            Some(elsewhere) => self.aliased(sges, &**elsewhere, &mut part.sges),
                            None => part.sges.extend_from_slice(sges),
                        }
                        wr.first_sge = first as u32;
                        wr.num_sge = (part.sges.len() - first) as u32;
                    }
                    part.wrs.push(wr);
                }
                self.inner.post_send(token, &mut part)
            }
        };
        if let Some(frames) = &mut *frames {
            let posted = refused.as_ref().map_or(verdict.posted, |(index, _)| *index);
            frames.add(first, (0..posted).map(|at| bytes(sent(batch, at))));
        }
        verdict.outcome(first, refused)
    }

    fn post_recv(&self, batch: &mut ReceiveBatch) -> (u32, Option<Refused>) {
        if self.device.profile().switches.early_receive == EarlyReceive::Refused {
            let state = self.inner.query().qp_state;
            if matches!(state, QpState::Reset | QpState::Init | QpState::Rtr) {
                return (0, Some((0, PostRefusal::TooEarly(state))));
            }
        }
        let mut frames = lock(&self.receives);
        if let Some(frames) = &mut *frames {
            frames.retire(|number| self.inner.is_receive_retired(number));
        }
        batch.numbered |= frames.is_some();
        let verdict = self.judge(&frames, self.cap.max_recv_wr, batch.wrs.len(), |at| received(batch, at));
        let whole = verdict.posted == batch.wrs.len();
        let (first, refused) = match &self.elsewhere {
            None if whole => self.inner.post_recv(batch),
            elsewhere => {
                let mut part = ReceiveBatch { numbered: batch.numbered, ..ReceiveBatch::default() };
                for wr in batch.wrs.iter().take(verdict.posted) {
                    let first_sge = part.sges.len() as u32;
                    match elsewhere {
                        Some(elsewhere) => self.aliased(batch.sges_of(wr), &**elsewhere, &mut part.sges),
                        None => part.sges.extend_from_slice(batch.sges_of(wr)),
                    }
                    part.wrs.push(crate::device::ReceiveWr {
                        first_sge,
                        num_sge: part.sges.len() as u32 - first_sge,
                        ..*wr
                    });
                }
                self.inner.post_recv(&mut part)
            }
        };
        if let Some(frames) = &mut *frames {
            let posted = refused.as_ref().map_or(verdict.posted, |(index, _)| *index);
            frames.add(first, (0..posted).map(|at| bytes(received(batch, at))));
        }
        verdict.outcome(first, refused)
    }

    fn modify(&self, attr: &QpAttr, mask: QpAttrMask) -> Result<()> {
        let index = attr.ah_attr.sgid_index;
        let pretends = self.device.profile().switches.ipv4 != Presence::Natural;
        if pretends
            && mask.contains(QpAttrMask::AV)
            && self.device.gid(index.into()).is_none_or(|gid| gid.is_zero())
        {
            let reason = format!("sgid_index {index} holds no GID; has the port an IPv4 address?");
            return Err(Error::InvalidArgument { call: "modify_qp", reason });
        }
        self.inner.modify(attr, mask)?;
        if mask.contains(QpAttrMask::STATE) && attr.qp_state == QpState::Reset {
            for frames in [&self.sends, &self.receives] {
                if let Some(frames) = &mut *lock(frames) {
                    frames.clear();
                }
            }
        }
        Ok(())
    }

    fn query(&self) -> QpAttr {
        QpAttr { cap: self.cap, ..self.inner.query() }
    }

    fn sends_retired(&self) -> u32 {
        self.inner.sends_retired()
    }

    fn is_receive_retired(&self, number: u32) -> bool {
        self.inner.is_receive_retired(number)
    }

    fn destroy(&self) {
        self.inner.destroy();
    }
}
