//! Completions, out of the queue and into the program: both ways of polling, and asking for events.

use crate::abi::*;
use crate::cq::Cq;
use crate::errno::Errno;
use crate::export::function;
use crate::lock::Held;
use crate::object::Object;
use crate::watch;
use core::ffi::{c_int, c_uint};
use core::sync::atomic::Ordering;
use tbrdma_proto::{WcFlags, WorkCompletion};

/// Completions that are taken out of the queue at a time: the array is filled before each poll, also before those that find nothing.
const BATCH: usize = 4;

/// Immediate data is in network order in C; a key that was invalidated is not.
#[inline(always)]
fn imm_data(wc: &WorkCompletion) -> u32 {
    if wc.wc_flags.contains(WcFlags::WITH_INV) { wc.imm_data } else { wc.imm_data.to_be() }
}

#[inline(always)]
fn completion(wc: &WorkCompletion) -> ibv_wc {
    ibv_wc {
        wr_id: wc.wr_id,
        status: wc.status.raw(),
        opcode: wc.opcode.raw(),
        vendor_err: wc.vendor_err,
        byte_len: wc.byte_len,
        imm_data: imm_data(wc),
        qp_num: wc.qp_num.get(),
        src_qp: wc.src_qp.get(),
        wc_flags: wc.wc_flags.bits(),
        pkey_index: wc.pkey_index,
        slid: wc.slid,
        sl: wc.sl,
        dlid_path_bits: wc.dlid_path_bits,
    }
}

function! {
    /// `ibv_poll_cq(3)`.
    plain fn poll_cq(cq: &Cq, room: c_int, to: *mut ibv_wc) -> c_int {
        let room = usize::try_from(room).unwrap_or(0);
        let mut batch = [WorkCompletion::default(); BATCH];
        let mut count = 0;
        let watched = watch::is_on();
        while count < room {
            let wanted = BATCH.min(room - count);
            let out = &mut batch[..wanted];
            let polled = if watched { cq.poll_watched(out) } else { cq.inner.poll(out).len() };
            for wc in &batch[..polled] {
                let to = to.wrapping_add(count);
                // SAFETY: the program has room for `room` completions, of which this is one.
                unsafe { to.write(completion(wc)) };
                count += 1;
            }
            if polled < wanted {
                break;
            }
        }
        Ok(count as c_int)
    }

    /// `ibv_req_notify_cq(3)`. Without a channel there is nobody to notify, which is no error.
    errno fn req_notify_cq(cq: &Cq, solicited_only: c_int) -> c_int {
        // SAFETY: this field does not change.
        if !unsafe { (*cq.c()).channel }.is_null() {
            cq.is_awaited.store(true, Ordering::Relaxed);
            cq.inner.req_notify(solicited_only != 0)?;
        }
        Ok(())
    }
}

/// The extended completion queue in an argument, which is the same one.
#[repr(transparent)]
pub(crate) struct CqEx(Cq);

impl Object for CqEx {
    type C = ibv_cq_ex;
}

impl CqEx {
    /// Takes one completion, and shows the program the two fields of it that it reads itself.
    fn take(&self, current: &mut Held<'_, WorkCompletion>) -> Result<(), Errno> {
        let mut one = [WorkCompletion::default()];
        let polled =
            if watch::is_on() { self.0.poll_watched(&mut one) } else { self.0.inner.poll(&mut one).len() };
        let wc = one[..polled].first().ok_or(Errno::ENOENT)?;
        **current = *wc;
        let c = self.0.c.get();
        // SAFETY: we hold the lock under which these fields change.
        unsafe { (*c).status = wc.status.raw() as c_int };
        // SAFETY: as above.
        unsafe { (*c).wr_id = wc.wr_id };
        Ok(())
    }

    /// The completion being read.
    fn current(&self) -> WorkCompletion {
        // SAFETY: the program reads between a start of polling that succeeded and the end of it, and so holds the lock.
        let current = unsafe { self.0.current.resume() };
        let wc = *current;
        current.keep();
        wc
    }
}

function! {
    /// `ibv_start_poll(3)`.
    errno fn start_poll(cq: &CqEx, attr: *mut ibv_poll_cq_attr) -> c_int {
        // SAFETY: the program passes the structure.
        if !attr.is_null() && unsafe { (*attr).comp_mask } != 0 {
            return Err(Errno::EINVAL);
        }
        let mut current = cq.0.current.lock();
        cq.take(&mut current)?;
        current.keep();
        Ok(())
    }

    /// `ibv_next_poll(3)`.
    errno fn next_poll(cq: &CqEx) -> c_int {
        // SAFETY: between a start and an end.
        let mut current = unsafe { cq.0.current.resume() };
        let taken = cq.take(&mut current);
        current.keep();
        taken
    }

    /// `ibv_end_poll(3)`.
    plain fn end_poll(cq: &CqEx) {
        // SAFETY: the end of what a start began.
        drop(unsafe { cq.0.current.resume() });
        Ok(())
    }

    /// `ibv_wc_read_opcode(3)`; so for the others.
    plain fn read_opcode(cq: &CqEx) -> c_int {
        Ok(cq.current().opcode.raw() as c_int)
    }

    /// The device's own code of an error.
    plain fn read_vendor_err(cq: &CqEx) -> u32 {
        Ok(cq.current().vendor_err)
    }

    /// How much came.
    plain fn read_byte_len(cq: &CqEx) -> u32 {
        Ok(cq.current().byte_len)
    }

    /// Immediate data, or the key that was invalidated.
    plain fn read_imm_data(cq: &CqEx) -> u32 {
        Ok(imm_data(&cq.current()))
    }

    /// Whose completion it is.
    plain fn read_qp_num(cq: &CqEx) -> u32 {
        Ok(cq.current().qp_num.get())
    }

    /// Who sent the datagram.
    plain fn read_src_qp(cq: &CqEx) -> u32 {
        Ok(cq.current().src_qp.get())
    }

    /// Which other fields count.
    plain fn read_wc_flags(cq: &CqEx) -> c_uint {
        Ok(cq.current().wc_flags.bits())
    }

    /// The sender's LID.
    plain fn read_slid(cq: &CqEx) -> u32 {
        Ok(cq.current().slid.into())
    }

    /// The service level.
    plain fn read_sl(cq: &CqEx) -> u8 {
        Ok(cq.current().sl)
    }

    /// Path bits of our LID.
    plain fn read_dlid_path_bits(cq: &CqEx) -> u8 {
        Ok(cq.current().dlid_path_bits)
    }
}
