//! The extended way of posting (`ibv_wr_post(3)`): start, one call for each work request and for each part of it, complete.

use crate::abi::*;
use crate::ah::Ah;
use crate::errno::Errno;
use crate::export::function;
use crate::lock::Held;
use crate::mw::binding;
use crate::object::Object;
use crate::pace::{Pace, step_aside};
use crate::post::bytes;
use crate::qp::Qp;
use crate::queues::{Sent, push_lost};
use crate::watch::{self, Entries, Request};
use core::ffi::{c_int, c_void};
use core::ptr;
use tbrdma::{RawSge, SendQueue};
use tbrdma_proto::{Opcode, QpType, Qpn, RemoteAddr, SendFlags, SendWr, Sge, UdDestination};

/// Data of a work request.
enum Data {
    Entries,
    Inline,
}

/// A send queue, and the work request that is being described to it.
pub(crate) struct Sends {
    pub(crate) queue: SendQueue,
    current: Option<SendWr>,
    data: Data,
    entries: Vec<Sge>,
    inline: Vec<u8>,
    /// What is wrong with the list: it is told when it is completed.
    wrong: Option<Errno>,
    /// Between a start and a completion.
    started: bool,
    /// The queue pair breaks when the list is completed.
    breaks: bool,
    /// The current work request never reaches the peer.
    lost: bool,
    /// Work requests of this list that somebody who watches was told of.
    told: usize,
    pub(crate) pace: Pace,
}

impl Sends {
    pub(crate) fn new(queue: SendQueue) -> Self {
        Self {
            queue,
            current: None,
            data: Data::Entries,
            entries: Vec::new(),
            inline: Vec::new(),
            wrong: None,
            started: false,
            breaks: false,
            lost: false,
            told: 0,
            pace: Pace::default(),
        }
    }

    /// Puts the current work request on the list, whole.
    fn push(&mut self, qp: &Qp) {
        let Some(wr) = self.current.take() else { return };
        let mut list = self.queue.list();
        if watch::is_on() {
            let signaled = wr.flags.contains(SendFlags::SIGNALED) || qp.reports_all();
            let lost = core::mem::take(&mut self.lost);
            match self.data {
                Data::Entries => watch::detail(format_args!("{}, {}", Request(&wr), Entries(&self.entries))),
                Data::Inline => {
                    watch::detail(format_args!("{}, {} bytes inline", Request(&wr), self.inline.len()))
                }
            }
            let sent = Sent { wr_id: wr.wr_id, opcode: wr.opcode, signaled, lost };
            qp.sends(sent, self.entries.len(), self.inline.len());
            self.told += 1;
            if lost {
                return push_lost(&mut list, qp.qp_type(), wr);
            }
        }
        match self.data {
            // SAFETY: keys of regions that are given away as Rust slices exist only in Rust programs.
            Data::Entries => list.raw(wr, unsafe { RawSge::list(&self.entries) }),
            Data::Inline => list.raw_inline(wr, [self.inline.as_slice()]),
        }
    }

    /// A new current work request.
    fn begin(&mut self, qp: &Qp, wr: SendWr) {
        self.push(qp);
        self.data = Data::Entries;
        self.entries.clear();
        self.inline.clear();
        self.current = Some(wr);
    }
}

/// A work request of which only this is known.
#[inline(always)]
pub(crate) fn work_request(wr_id: u64, opcode: Opcode, flags: SendFlags) -> SendWr {
    SendWr {
        wr_id,
        opcode,
        flags,
        imm_data: 0,
        remote: RemoteAddr::default(),
        compare_add: 0,
        swap: 0,
        ud: None,
        first_sge: 0,
        num_sge: 0,
    }
}

/// `enum ibv_qp_create_send_ops_flags`: one bit an operation, at the operation's number.
const fn bit(opcode: Opcode) -> u64 {
    1 << opcode.raw()
}

/// The operations that a queue pair of this type can be created with.
pub(crate) fn offered(qp_type: QpType) -> u64 {
    let all = Opcode::ALL.iter().filter(|opcode| qp_type.allows(**opcode));
    all.fold(0, |bits, opcode| bits | bit(*opcode))
}

/// The C structure of a queue pair, with the functions of the operations that it was created with.
pub(crate) fn table(base: ibv_qp, ops: u64, qp_type: QpType) -> ibv_qp_ex {
    fn slot<T>(ops: u64, opcode: Opcode, function: T) -> Option<T> {
        (ops & bit(opcode) != 0).then_some(function)
    }
    ibv_qp_ex {
        base,
        comp_mask: 0,
        wr_id: 0,
        wr_flags: 0,
        wr_atomic_cmp_swp: slot(ops, Opcode::AtomicCmpAndSwp, atomic_cmp_swp),
        wr_atomic_fetch_add: slot(ops, Opcode::AtomicFetchAndAdd, atomic_fetch_add),
        wr_bind_mw: slot(ops, Opcode::BindMw, bind_mw),
        wr_local_inv: slot(ops, Opcode::LocalInv, local_inv),
        wr_rdma_read: slot(ops, Opcode::RdmaRead, rdma_read),
        wr_rdma_write: slot(ops, Opcode::RdmaWrite, rdma_write),
        wr_rdma_write_imm: slot(ops, Opcode::RdmaWriteWithImm, rdma_write_imm),
        wr_send: slot(ops, Opcode::Send, send),
        wr_send_imm: slot(ops, Opcode::SendWithImm, send_imm),
        wr_send_inv: slot(ops, Opcode::SendWithInv, send_inv),
        wr_send_tso: ptr::null(),
        wr_set_ud_addr: (qp_type == QpType::Ud).then_some(set_ud_addr),
        wr_set_xrc_srqn: None,
        wr_set_inline_data: Some(set_inline_data),
        wr_set_inline_data_list: Some(set_inline_data_list),
        wr_set_sge: Some(set_sge),
        wr_set_sge_list: Some(set_sge_list),
        wr_start: Some(start),
        wr_complete: Some(complete),
        wr_abort: Some(abort),
        wr_atomic_write: ptr::null(),
    }
}

/// The extended queue pair in an argument, which is the same one.
#[repr(transparent)]
pub(crate) struct QpEx(Qp);

impl Object for QpEx {
    type C = ibv_qp_ex;
}

impl QpEx {
    /// The send queue, after a start.
    fn resume(&self) -> Held<'_, Sends> {
        // SAFETY: the program makes these calls between a start and a completion, which hold the lock for it.
        unsafe { self.0.sends.resume() }
    }

    /// Goes on with the list, if there is one.
    fn with(&self, change: impl FnOnce(&mut Sends) -> Result<(), Errno>) -> Result<(), Errno> {
        let mut sends = self.resume();
        if sends.started
            && let Err(errno) = change(&mut sends)
        {
            sends.wrong.get_or_insert(errno);
        }
        sends.keep();
        Ok(())
    }

    /// A new work request on the list.
    fn begin(&self, opcode: Opcode, fill: impl FnOnce(&mut SendWr)) -> Result<(), Errno> {
        let c = self.0.c.get();
        // SAFETY: the program has set this field, in this thread.
        let wr_id = unsafe { (*c).wr_id };
        // SAFETY: as above.
        let flags = unsafe { (*c).wr_flags };
        let flags = SendFlags::from_bits_truncate(flags) - SendFlags::INLINE;
        self.with(|sends| {
            let mut wr = work_request(wr_id, opcode, flags);
            fill(&mut wr);
            sends.begin(&self.0, wr);
            if watch::is_on() {
                sends.breaks |= watch::breaks();
                sends.lost = watch::loses(opcode);
            }
            Ok(())
        })
    }
}

function! {
    /// `ibv_wr_start(3)`: the send queue is this thread's until the list is completed or aborted.
    plain fn start(qp: &QpEx) {
        let mut sends = qp.0.sends.lock();
        let _ = sends.queue.start();
        sends.current = None;
        sends.wrong = None;
        sends.told = 0;
        sends.started = true;
        sends.keep_for_this_thread();
        Ok(())
    }

    /// `ibv_wr_complete(3)`: all of the list is posted, or nothing.
    errno fn complete(qp: &QpEx) -> c_int {
        let mut sends = qp.resume();
        if !sends.started {
            sends.keep();
            return Err(Errno::EINVAL);
        }
        sends.started = false;
        sends.keeps_no_longer();
        let ends_in_a_write = sends.current.as_ref().is_some_and(|wr| wr.opcode == Opcode::RdmaWrite);
        sends.push(&qp.0);
        if let Some(errno) = sends.wrong.take() {
            let _ = sends.queue.start();
            qp.0.sending.take_back(sends.told);
            return Err(errno);
        }
        let posted = sends.queue.complete();
        if let Err(error) = &posted {
            qp.0.sending.take_back(sends.told.saturating_sub(error.index));
        }
        let give_way = ends_in_a_write && sends.pace.posted();
        let breaks = core::mem::take(&mut sends.breaks);
        drop(sends);
        if breaks {
            qp.0.break_down();
        }
        if give_way {
            step_aside();
        }
        posted.map_err(|error| {
            crate::log::say(&error);
            Errno(error.errno())
        })
    }

    /// `ibv_wr_abort(3)`.
    plain fn abort(qp: &QpEx) {
        let mut sends = qp.resume();
        if !sends.started {
            sends.keep();
            return Ok(());
        }
        sends.started = false;
        sends.keeps_no_longer();
        sends.current = None;
        let _ = sends.queue.start();
        qp.0.sending.take_back(sends.told);
        Ok(())
    }

    /// SEND.
    plain fn send(qp: &QpEx) {
        qp.begin(Opcode::Send, |_| {})
    }

    /// SEND with immediate data.
    plain fn send_imm(qp: &QpEx, imm_data: u32) {
        qp.begin(Opcode::SendWithImm, |wr| wr.imm_data = u32::from_be(imm_data))
    }

    /// SEND that invalidates a key of the peer's.
    plain fn send_inv(qp: &QpEx, rkey: u32) {
        qp.begin(Opcode::SendWithInv, |wr| wr.imm_data = rkey)
    }

    /// Invalidates a key of ours.
    plain fn local_inv(qp: &QpEx, rkey: u32) {
        qp.begin(Opcode::LocalInv, |wr| wr.imm_data = rkey)
    }

    /// Binds a window.
    plain fn bind_mw(qp: &QpEx, mw: *mut ibv_mw, rkey: u32, info: &ibv_mw_bind_info) {
        match binding(mw, rkey, info) {
            Ok(bind) => qp.begin(Opcode::BindMw, |wr| wr.set_bind(&bind)),
            Err(errno) => qp.with(|_| Err(errno)),
        }
    }

    /// RDMA WRITE.
    plain fn rdma_write(qp: &QpEx, rkey: u32, addr: u64) {
        qp.begin(Opcode::RdmaWrite, |wr| wr.remote = RemoteAddr { addr, rkey })
    }

    /// RDMA WRITE with immediate data.
    plain fn rdma_write_imm(qp: &QpEx, rkey: u32, addr: u64, imm_data: u32) {
        qp.begin(Opcode::RdmaWriteWithImm, |wr| {
            wr.remote = RemoteAddr { addr, rkey };
            wr.imm_data = u32::from_be(imm_data);
        })
    }

    /// RDMA READ.
    plain fn rdma_read(qp: &QpEx, rkey: u32, addr: u64) {
        qp.begin(Opcode::RdmaRead, |wr| wr.remote = RemoteAddr { addr, rkey })
    }

    /// Compare and swap.
    plain fn atomic_cmp_swp(qp: &QpEx, rkey: u32, addr: u64, compare: u64, swap: u64) {
        qp.begin(Opcode::AtomicCmpAndSwp, |wr| {
            wr.remote = RemoteAddr { addr, rkey };
            (wr.compare_add, wr.swap) = (compare, swap);
        })
    }

    /// Fetch and add.
    plain fn atomic_fetch_add(qp: &QpEx, rkey: u32, addr: u64, add: u64) {
        qp.begin(Opcode::AtomicFetchAndAdd, |wr| {
            wr.remote = RemoteAddr { addr, rkey };
            wr.compare_add = add;
        })
    }

    /// Where the current datagram goes.
    plain fn set_ud_addr(qp: &QpEx, ah: &Ah, qpn: u32, qkey: u32) {
        qp.with(|sends| {
            let to = UdDestination { ah: ah.inner.number(), qpn: Qpn::masked(qpn), qkey };
            sends.current.as_mut().ok_or(Errno::EINVAL)?.ud = Some(to);
            Ok(())
        })
    }

    /// The data of the current work request: one entry.
    plain fn set_sge(qp: &QpEx, lkey: u32, addr: u64, length: u32) {
        qp.with(|sends| {
            sends.data = Data::Entries;
            sends.entries.clear();
            sends.entries.push(Sge { addr, length, lkey });
            Ok(())
        })
    }

    /// The data of the current work request: a list of entries.
    plain fn set_sge_list(qp: &QpEx, count: usize, list: *mut ibv_sge) {
        qp.with(|sends| {
            if count > qp.0.cap.max_send_sge as usize || list.is_null() && count != 0 {
                return Err(Errno::EINVAL);
            }
            sends.data = Data::Entries;
            sends.entries.clear();
            if count != 0 {
                // SAFETY: the program passes so many.
                sends.entries.extend_from_slice(unsafe { core::slice::from_raw_parts(list, count) });
            }
            Ok(())
        })
    }

    /// The data of the current work request: bytes, copied now.
    plain fn set_inline_data(qp: &QpEx, address: *mut c_void, length: usize) {
        qp.with(|sends| {
            sends.data = Data::Inline;
            sends.inline.clear();
            add_inline(&qp.0, sends, address, length)
        })
    }

    /// The data of the current work request: pieces, copied now.
    plain fn set_inline_data_list(qp: &QpEx, count: usize, list: *mut ibv_data_buf) {
        qp.with(|sends| {
            if list.is_null() && count != 0 {
                return Err(Errno::EINVAL);
            }
            sends.data = Data::Inline;
            sends.inline.clear();
            for at in 0..count {
                // SAFETY: the program passes so many, and this is one.
                let piece = unsafe { list.wrapping_add(at).read() };
                add_inline(&qp.0, sends, piece.addr, piece.length)?;
            }
            Ok(())
        })
    }
}

fn add_inline(qp: &Qp, sends: &mut Sends, address: *mut c_void, length: usize) -> Result<(), Errno> {
    let room = (qp.cap.max_inline_data as usize).saturating_sub(sends.inline.len());
    if length > room || address.is_null() && length != 0 {
        return Err(Errno::EINVAL);
    }
    // SAFETY: the program says that the bytes are there.
    sends.inline.extend_from_slice(unsafe { bytes(address.cast(), length) });
    Ok(())
}
