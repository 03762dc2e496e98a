//! The common shapes of a work request, done with as few instructions as they need: SEND to a connected queue pair's own receives and
//! WRITE, one entry or inline bytes, to memory of the peer's that we map.
//!
//! Nothing is decided here that `execute` does not decide as well. Whatever is not just so is left to it, untouched: other operations,
//! lists, memory that is reached another way, everything that waits and everything that fails.

use super::qp::ShmQp;
use super::remote::Remote;
use super::send::Doorbell;
use super::transfer::Local;
use crate::device::SendBatch;
use crate::mem::{Copies, Place, entry_of};
use crate::ring::receive::Delivery;
use crate::sync::Ordering;
use tbrdma_proto::{Access, Opcode, PdHandle, SendFlags, SendWr, Sge, WcFlags, WcOpcode, WcStatus};

/// A region of which everything may be used.
struct Whole<'a> {
    key: u32,
    iova: u64,
    place: Place<'a>,
}

impl Whole<'_> {
    #[inline(always)]
    fn offset(&self, addr: u64) -> usize {
        addr.wrapping_sub(self.iova) as usize
    }
}

impl ShmQp {
    /// Executes the work request if it is of a common shape and nothing stands in its way: the bytes moved. Else nothing has been touched.
    /// The peer has been found ready.
    #[inline(always)]
    pub(crate) fn execute_directly(
        &self,
        remote: &Remote,
        wr: &SendWr,
        batch: &SendBatch,
        doorbell: &mut Doorbell<'_>,
    ) -> Option<u64> {
        match batch.only_sge(wr) {
            Some(sge) => {
                // The rules ask no more of one entry of these operations than what `is_plain` says.
                let list = std::slice::from_ref(sge);
                self.move_directly(remote, wr, Local::List(list), sge.length.into(), doorbell)
            }
            None => self.execute_inline_directly(remote, wr, batch, doorbell),
        }
    }

    /// Apart, so that each of the two is shorter.
    #[inline(never)]
    fn execute_inline_directly(
        &self,
        remote: &Remote,
        wr: &SendWr,
        batch: &SendBatch,
        doorbell: &mut Doorbell<'_>,
    ) -> Option<u64> {
        let (&[], bytes) = batch.operands(wr) else { return None };
        let length = self.rules.check(wr, &[], bytes.len()).ok()?;
        self.move_directly(remote, wr, Local::Inline(bytes), length, doorbell)
    }

    #[inline(always)]
    fn move_directly(
        &self,
        remote: &Remote,
        wr: &SendWr,
        local: Local<'_>,
        length: u64,
        doorbell: &mut Doorbell<'_>,
    ) -> Option<u64> {
        // Without bytes no key is checked, and a message may be too long.
        if length.wrapping_sub(1) >= self.rules.max_msg_size {
            return None;
        }
        let moved = match wr.opcode {
            Opcode::RdmaWrite => self.write_directly(remote, wr, local, length, doorbell),
            Opcode::Send | Opcode::SendWithImm => self.send_directly(remote, wr, local, length, doorbell),
            _ => false,
        };
        moved.then_some(length)
    }

    #[inline(never)]
    fn write_directly(
        &self,
        remote: &Remote,
        wr: &SendWr,
        local: Local<'_>,
        length: u64,
        doorbell: &mut Doorbell<'_>,
    ) -> bool {
        let needed = Access::REMOTE_WRITE;
        let Some(pd) = remote.grants(needed) else { return false };
        self.put_directly(remote, local, (wr.remote.rkey, wr.remote.addr), length, (pd, needed), doorbell)
    }

    /// Executes those of `rest` that are WRITEs like `model`, which has just been executed: of as many bytes, from and to the same regions. How
    /// many that were, from the first on. The regions are looked at once: what a doorbell has found holds until it ends.
    #[inline(never)]
    pub(crate) fn write_on(
        &self,
        remote: &Remote,
        batch: &SendBatch,
        model: &SendWr,
        rest: &[SendWr],
        first: u32,
        room: u32,
        doorbell: &mut Doorbell<'_>,
    ) -> usize {
        let Some(sge) = batch.only_sge(model).filter(|_| model.opcode == Opcode::RdmaWrite) else { return 0 };
        let Some((ours, theirs)) = self.whole_regions(remote, sge, model, doorbell) else { return 0 };
        let length = sge.length;
        let Some(copies) = Copies::new(ours.place, theirs.place, length as usize) else { return 0 };
        let next = model.first_sge.wrapping_add(1);
        let sges = batch.sges.get(next as usize..).unwrap_or(&[]);
        let most = rest.len().min(room as usize).min(sges.len());
        let (rest, sges) = (rest.get(..most).unwrap_or(rest), sges.get(..most).unwrap_or(sges));
        let mut done = 0;
        for (wr, sge) in rest.iter().zip(sges) {
            let at = next.wrapping_add(done);
            let is_alike = wr.opcode == Opcode::RdmaWrite
                && (wr.flags ^ model.flags) - SendFlags::SIGNALED == SendFlags::empty()
                && (wr.first_sge, wr.num_sge) == (at, 1)
                && (wr.remote.rkey, sge.lkey, sge.length) == (theirs.key, ours.key, length);
            if !is_alike || !copies.copy(ours.offset(sge.addr), theirs.offset(wr.remote.addr)) {
                break;
            }
            self.complete(wr, first.wrapping_add(done), WcStatus::Success, length, doorbell);
            done += 1;
        }
        done as usize
    }

    /// All of the two regions that a WRITE is about, if either may be used whole.
    fn whole_regions<'a>(
        &'a self,
        remote: &'a Remote,
        sge: &Sge,
        model: &SendWr,
        doorbell: &mut Doorbell<'_>,
    ) -> Option<(Whole<'a>, Whole<'a>)> {
        let (needed, key) = (Access::REMOTE_WRITE, model.remote.rkey);
        let pd = remote.grants(needed)?;
        let found = entry_of(&remote.peer.regions, key).find(key, &mut doorbell.seen.theirs)?;
        let region = &found.region;
        let base = found.backing.in_segment(0, region.length, region.length)?;
        region.check(pd, needed, region.iova, region.length).ok()?;
        // What the peer says of its memory is believed only as far as it lies within its segment.
        let place = remote.peer.segment.place(base, region.length)?;
        let theirs = Whole { key, iova: region.iova, place };
        let (region, place) = self.core.regions.find(sge.lkey)?;
        region.check(self.pd, Access::empty(), region.iova, region.length).ok()?;
        Some((Whole { key: sge.lkey, iova: region.iova, place }, theirs))
    }

    #[inline(never)]
    fn send_directly(
        &self,
        remote: &Remote,
        wr: &SendWr,
        local: Local<'_>,
        length: u64,
        doorbell: &mut Doorbell<'_>,
    ) -> bool {
        let Some(queue) = remote.queue() else { return false };
        if queue.srq.is_some() {
            return false;
        }
        let ring = queue.ring();
        let next = &remote.words.next_receive;
        let number = next.load(Ordering::Relaxed) as u32;
        let Some(sge) = ring.posted_one(number) else { return false };
        let rights = (queue.pd, Access::LOCAL_WRITE);
        if u64::from(sge.length) < length
            || !self.put_directly(remote, local, (sge.lkey, sge.addr), length, rights, doorbell)
        {
            return false;
        }
        let with_imm = wr.opcode == Opcode::SendWithImm;
        let delivery = Delivery {
            status: WcStatus::Success,
            opcode: WcOpcode::Recv,
            flags: if with_imm { WcFlags::WITH_IMM } else { WcFlags::empty() },
            byte_len: length as u32,
            imm_data: wr.imm_data,
            src_qp: self.qpn.get(),
        };
        ring.deliver(number, &delivery, remote.qpn);
        let following = number.wrapping_add(1);
        next.store(u64::from(following), Ordering::Relaxed);
        ring.prefetch(following);
        doorbell.received = true;
        doorbell.solicited |= wr.flags.contains(SendFlags::SOLICITED);
        true
    }

    /// Copies to the peer's memory under `key` at `addr`, if both sides' rules allow it and the memory is mapped here.
    #[inline(always)]
    fn put_directly(
        &self,
        remote: &Remote,
        local: Local<'_>,
        (key, addr): (u32, u64),
        length: u64,
        (pd, needed): (PdHandle, Access),
        doorbell: &mut Doorbell<'_>,
    ) -> bool {
        let seen = &mut *doorbell.seen;
        let Some(found) = entry_of(&remote.peer.regions, key).find(key, &mut seen.theirs) else {
            return false;
        };
        let Ok(at) = found.region.check(pd, needed, addr, length) else { return false };
        let Some(at) = found.backing.in_segment(at, length, found.region.length) else { return false };
        // What the peer says of its memory is believed only as far as it lies within its segment.
        let Some(theirs) = remote.peer.segment.place(at, length) else { return false };
        match local {
            Local::List([sge]) => {
                let ours = self.core.regions.place(
                    &mut seen.ours,
                    self.pd,
                    sge.lkey,
                    Access::empty(),
                    sge.addr,
                    length,
                );
                let Ok(ours) = ours else { return false };
                theirs.copy_from(ours);
            }
            Local::Inline(bytes) => {
                theirs.write_from(bytes);
            }
            Local::List(_) => return false,
        }
        true
    }
}
