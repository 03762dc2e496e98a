//! The short way: what programs do with every message goes from them to the library's functions, past the traits that devices have in common.
//!
//! A list of plain work becomes C's list where it is, since a work request of ours lies as one of C's does: its links are written over fields that plain work
//! does not need. Completions are written by the library where the program wants them, in C's form, and become ours there. In neither is a value looked at
//! while it may be none of its type: what may be anything is read and written as C's plain numbers.

use super::cq::NativeCq;
use super::fault;
use super::post::position_of;
use super::qp::NativeQp;
use crate::device::{Refused, SendBatch, Shape};
use crate::sync::Ordering;
use core::ffi::c_int;
use core::mem::offset_of;
use core::ptr::null_mut;
use tbrdma_abi::*;
use tbrdma_proto::{Qpn, RemoteAddr, SendWr, WcFlags, WcOpcode, WcStatus, WorkCompletion};

/// Fields of ours that lie where C's do.
macro_rules! lies_as {
    ($ours:ty, $c:ty: $($($field:ident).+ = $($of_c:ident).+),+) => { $(
        const _: () = assert!(offset_of!($ours, $($field).+) == offset_of!($c, $($of_c).+), stringify!($($field).+));
    )+ };
}

lies_as! {
    SendWr, ibv_send_wr:
    wr_id = wr_id, first_sge = next, compare_add = sg_list, num_sge = num_sge, opcode = opcode, flags = send_flags, imm_data = imm_data, remote = wr
}
lies_as! { RemoteAddr, ibv_send_wr_rdma: addr = remote_addr, rkey = rkey }
lies_as! {
    WorkCompletion, ibv_wc:
    wr_id = wr_id, status = status, opcode = opcode, vendor_err = vendor_err, byte_len = byte_len, imm_data = imm_data, qp_num = qp_num,
    src_qp = src_qp, wc_flags = wc_flags, pkey_index = pkey_index, slid = slid, sl = sl, dlid_path_bits = dlid_path_bits
}
// Nothing of a work request of C's is outside ours, and what C has between two fields is ours to write.
const _: () = assert!(size_of::<SendWr>() == size_of::<ibv_send_wr>());
const _: () =
    assert!(offset_of!(SendWr, compare_add) - offset_of!(SendWr, first_sge) == size_of::<*mut ibv_send_wr>());
// An array of ours has room for as many of C's.
const _: () = assert!(size_of::<WorkCompletion>() >= size_of::<ibv_wc>());
const _: () = assert!(offset_of!(WorkCompletion, wq_index) >= offset_of!(ibv_wc, dlid_path_bits));

/// What has become of a list that was to be posted directly.
pub(crate) enum Posted {
    /// It was posted.
    All,
    /// It is more than one plain work request: nothing was done.
    Nothing,
    /// The library returned this number, and where it stopped.
    Refused(c_int, *mut ibv_send_wr),
}

impl NativeQp {
    /// Posts a list of one plain work request on a connected queue pair. The list is C's afterwards.
    #[inline(always)]
    pub(crate) fn post_one_directly(&self, batch: &mut SendBatch) -> Posted {
        if batch.shape != Shape::Plain || batch.wrs.len() != 1 {
            return Posted::Nothing;
        }
        let entries = batch.sges.as_mut_ptr();
        let only: *mut SendWr = batch.wrs.as_mut_ptr();
        // SAFETY: the list has one work request.
        let sg_list = entries.wrapping_add(unsafe { (*only).first_sge } as usize);
        // SAFETY: as above.
        let only = unsafe { linked(only, null_mut(), sg_list) };
        self.call(only)
    }

    /// Posts a list of plain work, which may have immediate data; where it stopped and why, if it did.
    pub(crate) fn post_list_directly(&self, batch: &mut SendBatch, posted: Posted) -> Option<Refused> {
        let (returned, bad) = match posted {
            Posted::All => return None,
            Posted::Refused(returned, bad) => (returned, bad),
            Posted::Nothing => {
                let entries = batch.sges.as_mut_ptr();
                let first: *mut SendWr = batch.wrs.as_mut_ptr();
                let mut next = null_mut();
                for position in (0..batch.wrs.len()).rev() {
                    let wr = first.wrapping_add(position);
                    // SAFETY: the list has so many work requests.
                    let here = unsafe { &mut *wr };
                    if here.opcode.has_imm() {
                        here.imm_data = here.imm_data.to_be();
                    }
                    let sg_list = entries.wrapping_add(here.first_sge as usize);
                    // SAFETY: as above.
                    next = unsafe { linked(wr, next, sg_list) };
                }
                match self.call(next) {
                    Posted::Refused(returned, bad) => (returned, bad),
                    Posted::All | Posted::Nothing => return None,
                }
            }
        };
        self.refused_directly(batch, returned, bad)
    }

    /// Gives a list to the library.
    #[inline(always)]
    fn call(&self, first: *mut ibv_send_wr) -> Posted {
        if first.is_null() {
            return Posted::All;
        }
        let mut bad = null_mut();
        // SAFETY: a live queue pair whose only poster we are, and a list that ends, whose entries the batch keeps meanwhile.
        let returned = unsafe { (self.send.post)(self.send.qp.as_ptr(), first, &raw mut bad) };
        if returned == 0 { Posted::All } else { Posted::Refused(returned, bad) }
    }

    /// Why the library did not take all of a list that is C's: ours again, so that it can be looked at.
    #[cold]
    fn refused_directly(
        &self,
        batch: &mut SendBatch,
        returned: c_int,
        bad: *mut ibv_send_wr,
    ) -> Option<Refused> {
        let error = fault::failure(returned)?;
        let position = position_of(bad.cast(), batch.wrs.as_mut_ptr(), batch.wrs.len());
        let entries = batch.sges.as_ptr().addr();
        for wr in &mut batch.wrs {
            let c: *const ibv_send_wr = (&raw const *wr).cast();
            // SAFETY: the work request, in which the link was written.
            let sg_list = unsafe { (*c).sg_list }.addr();
            wr.first_sge = (sg_list.wrapping_sub(entries) / size_of::<ibv_sge>()) as u32;
            wr.compare_add = 0;
            if wr.opcode.has_imm() {
                wr.imm_data = u32::from_be(wr.imm_data);
            }
        }
        Some(self.refused_send(batch, position, error))
    }
}

/// Makes a work request C's, where it is.
///
/// # Safety
/// The work request is there.
#[inline(always)]
unsafe fn linked(wr: *mut SendWr, next: *mut ibv_send_wr, sg_list: *mut ibv_sge) -> *mut ibv_send_wr {
    let wr: *mut ibv_send_wr = wr.cast();
    // SAFETY: our caller's promise, and it lies as C's does. Any bits are values of the fields of ours that this replaces.
    unsafe { (*wr).next = next };
    // SAFETY: as above.
    unsafe { (*wr).sg_list = sg_list };
    wr
}

impl NativeCq {
    /// Takes completions, as [`DeviceCq::poll`](crate::device::DeviceCq::poll) does.
    #[inline(always)]
    pub(crate) fn poll_directly(&self, out: &mut [WorkCompletion]) -> usize {
        if out.is_empty() {
            return 0;
        }
        let first = out.as_mut_ptr();
        let asked = c_int::try_from(out.len()).unwrap_or(c_int::MAX);
        // SAFETY: a live queue, and room for so many completions, since C's are not larger than ours.
        let found = unsafe { (self.poll)(self.as_ptr(), asked, first.cast()) };
        // SAFETY: a place of the slice. Numbers, of which any bits are some.
        let wc = unsafe { &mut *first.cast::<ibv_wc>() };
        if found == 1 && is_plain(wc) && self.is_calm() {
            // SAFETY: a success without optional fields.
            unsafe { finish(first) };
            return 1;
        }
        self.poll_rest(out, found)
    }

    /// Whether there is nothing more to do about a completion: no spell of empty polls has ended, and no work has a number.
    #[inline(always)]
    fn is_calm(&self) -> bool {
        self.idle.load(Ordering::Relaxed) | self.core.tickets.outstanding() == 0
    }

    /// Where the library has found none, several, one that is not the plainest, or no answer.
    #[inline(never)]
    fn poll_rest(&self, out: &mut [WorkCompletion], found: c_int) -> usize {
        let first = out.as_mut_ptr();
        let Ok(found) = usize::try_from(found) else {
            // It may have written some before it failed.
            for position in 0..out.len() {
                // SAFETY: a place of the slice.
                unsafe { first.wrapping_add(position).write(WorkCompletion::default()) };
            }
            self.has_failed();
            return 0;
        };
        if found == 0 {
            self.found_nothing();
            return 0;
        }
        let found = found.min(out.len());
        let packed: *const ibv_wc = first.cast_const().cast();
        // From the last on, so that none is moved over one that is still to be.
        for position in (0..found).rev() {
            let place = first.wrapping_add(position);
            // SAFETY: the library has filled so many, and the slice has as many places. The two may overlap.
            unsafe { packed.wrapping_add(position).copy_to(place.cast(), 1) };
            // SAFETY: one that the library has filled.
            unsafe { make_ours(place) };
        }
        if self.idle.load(Ordering::Relaxed) != 0 {
            self.found_something();
        }
        self.settle(&mut out[..found]);
        found
    }
}

/// Whether what the library wrote is a success without optional fields.
#[inline(always)]
fn is_plain(wc: &ibv_wc) -> bool {
    wc.status | wc.wc_flags == 0 && WcOpcode::from_raw(wc.opcode).is_some()
}

/// Makes what the library wrote a completion of ours, where it lies. Of a failure only some fields mean something, and the others may be anything.
///
/// # Safety
/// The place is one of ours.
unsafe fn make_ours(place: *mut WorkCompletion) {
    // SAFETY: our caller's promise: numbers, of which any bits are some.
    let wc = unsafe { &mut *place.cast::<ibv_wc>() };
    wc.status = WcStatus::from_raw(wc.status).unwrap_or(WcStatus::GeneralErr).raw();
    wc.opcode = WcOpcode::from_raw(wc.opcode).unwrap_or_default().raw();
    let flags = WcFlags::from_bits_truncate(wc.wc_flags);
    wc.wc_flags = flags.bits();
    if flags.contains(WcFlags::WITH_IMM) {
        wc.imm_data = u32::from_be(wc.imm_data);
    }
    // SAFETY: our caller's promise, and its enumerations have values of theirs.
    unsafe { finish(place) };
}

/// What is left to do once the enumerations of a completion have values of theirs.
///
/// # Safety
/// The place is one of ours, and they have.
#[inline(always)]
unsafe fn finish(place: *mut WorkCompletion) {
    // SAFETY: our caller's promise.
    let wc = unsafe { &mut *place };
    (wc.qp_num, wc.src_qp) = (Qpn::masked(wc.qp_num.get()), Qpn::masked(wc.src_qp.get()));
    wc.wq_index = 0;
}
