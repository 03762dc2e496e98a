//! Posting: from lists of the program's to the device, with one doorbell a list.

use crate::abi::*;
use crate::ah::Ah;
use crate::errno::Errno;
use crate::export::function;
use crate::mw::binding;
use crate::object::Object;
use crate::pace::step_aside;
use crate::qp::Qp;
use crate::queues::{Receiving, Sent, push_lost};
use crate::srq::Srq;
use crate::watch::{self, Entries, Request, Use};
use crate::wr::work_request;
use core::ffi::c_int;
use core::ptr;
use std::time::Instant;
use tbrdma::{PostError, RawSge, ReceiveWrs, SendWrs};
use tbrdma_proto::{Opcode, QpState, Qpn, RemoteAddr, SendFlags, SendWr, UdDestination};

/// The list of entries of a work request, which may be as long as its queue takes: a longer one is not looked at, because its length may be a mistake.
#[inline(always)]
fn entries<'a>(list: *mut ibv_sge, count: c_int, limit: u32) -> Result<&'a [RawSge], Errno> {
    if count == 0 {
        return Ok(&[]);
    }
    if count as u32 > limit || list.is_null() {
        return Err(Errno::EINVAL);
    }
    // SAFETY: the program passes so many entries.
    let entries = unsafe { core::slice::from_raw_parts(list, count as usize) };
    // SAFETY: keys of regions that are given away as Rust slices exist only in Rust programs.
    Ok(unsafe { RawSge::list(entries) })
}

/// Bytes of the program's, to be copied now.
///
/// # Safety
/// The program says that there are so many.
pub(crate) unsafe fn bytes<'a>(address: *const u8, length: usize) -> &'a [u8] {
    if length == 0 {
        return &[];
    }
    // SAFETY: our caller's promise; nothing else of this library's looks at them.
    unsafe { core::slice::from_raw_parts(address, length) }
}

/// What a work request asks for, but for its data. Reads only what its operation has.
#[inline(always)]
fn request(qp: &Qp, wr: &ibv_send_wr) -> Result<SendWr, Errno> {
    let opcode = Opcode::from_raw(wr.opcode).ok_or(Errno::EINVAL)?;
    let flags = SendFlags::from_bits_truncate(wr.send_flags);
    let mut to = work_request(wr.wr_id, opcode, flags);
    if opcode.has_imm() {
        // SAFETY: the operation has immediate data.
        to.imm_data = u32::from_be(unsafe { wr.imm_data.assume_init() });
    }
    match opcode {
        Opcode::RdmaWrite | Opcode::RdmaWriteWithImm | Opcode::RdmaRead => {
            // SAFETY: the operation has this arm.
            let rdma = unsafe { wr.wr.rdma };
            to.remote = RemoteAddr { addr: rdma.remote_addr, rkey: rdma.rkey };
        }
        Opcode::AtomicCmpAndSwp | Opcode::AtomicFetchAndAdd => {
            // SAFETY: the operation has this arm, though adding needs no value to swap.
            let atomic = unsafe { wr.wr.atomic };
            to.remote = RemoteAddr { addr: atomic.remote_addr, rkey: atomic.rkey };
            (to.compare_add, to.swap) = (atomic.compare_add, atomic.swap);
        }
        // SAFETY: these have a key there.
        Opcode::SendWithInv | Opcode::LocalInv => to.imm_data = unsafe { wr.imm_data.assume_init() },
        Opcode::BindMw => {
            // SAFETY: the operation has this arm.
            let bind = unsafe { wr.more.bind_mw };
            to.set_bind(&binding(bind.mw, bind.rkey, &bind.bind_info)?);
            return Ok(to);
        }
        Opcode::Send | Opcode::SendWithImm => {}
    }
    if qp.is_datagram {
        // SAFETY: datagrams have this arm.
        let ud = unsafe { wr.wr.ud };
        // SAFETY: an address handle of the program's, or NULL, which the device refuses.
        to.ud = unsafe { Ah::of(ud.ah).as_ref() }.map(|ah| UdDestination {
            ah: ah.inner.number(),
            qpn: Qpn::masked(ud.remote_qpn),
            qkey: ud.remote_qkey,
        });
    }
    Ok(to)
}

/// Puts a work request on the list, with its data.
#[inline(always)]
fn push_send(list: &mut SendWrs<'_>, qp: &Qp, to: SendWr, wr: &ibv_send_wr) -> Result<(), Errno> {
    if to.opcode == Opcode::BindMw {
        list.raw(to, &[]);
        return Ok(());
    }
    let entries = entries(wr.sg_list, wr.num_sge, qp.cap.max_send_sge)?;
    if !to.flags.contains(SendFlags::INLINE) {
        list.raw(to, entries);
        return Ok(());
    }
    let length: u64 = entries.iter().map(|entry| u64::from(entry.sge().length)).sum();
    if length > u64::from(qp.cap.max_inline_data) || !to.opcode.gathers() {
        return Err(Errno::EINVAL);
    }
    list.raw_inline(
        to,
        entries.iter().map(|entry| {
            let entry = entry.sge();
            // SAFETY: the program says that the bytes are there.
            unsafe { bytes(ptr::with_exposed_provenance(entry.addr as usize), entry.length as usize) }
        }),
    );
    Ok(())
}

/// Puts a work request on the list, watched: it may be lost, and its queue pair may break.
#[cold]
fn push_watched(list: &mut SendWrs<'_>, qp: &Qp, wr: &ibv_send_wr, breaks: &mut bool) -> Result<(), Errno> {
    *breaks |= watch::breaks();
    let to = request(qp, wr)?;
    let (wr_id, opcode) = (to.wr_id, to.opcode);
    let signaled = to.flags.contains(SendFlags::SIGNALED) || qp.reports_all();
    let inline = to.flags.contains(SendFlags::INLINE);
    let data = match opcode {
        Opcode::BindMw => &[],
        _ => entries(wr.sg_list, wr.num_sge, qp.cap.max_send_sge)?,
    };
    if watch::is_traced() {
        let entries = data.iter().map(|entry| entry.sge()).collect::<Vec<_>>();
        watch::detail(format_args!("{}, {}", Request(&to), Entries(&entries)));
    }
    let lost = watch::loses(opcode);
    if lost {
        push_lost(list, qp.qp_type(), to);
    } else {
        push_send(list, qp, to, wr)?;
    }
    let inline = if inline { data.iter().map(|entry| entry.sge().length as usize).sum() } else { 0 };
    qp.sends(Sent { wr_id, opcode, signaled, lost }, data.len(), inline);
    Ok(())
}

/// A list in C: each element points to the next.
trait Linked {
    fn next(&self) -> *mut Self;
}

impl Linked for ibv_send_wr {
    fn next(&self) -> *mut Self {
        self.next
    }
}

impl Linked for ibv_recv_wr {
    fn next(&self) -> *mut Self {
        self.next
    }
}

/// What a list came to: the first element that was not posted, and why.
type Refused<W> = Option<(*mut W, Errno)>;

/// Puts elements on our list until one is refused, or until there are more than the queue can hold, which is one more than the device
/// will take.
#[inline(always)]
fn push_all<W: Linked>(
    first: *mut W,
    limit: u32,
    mut push: impl FnMut(&W) -> Result<(), Errno>,
) -> Refused<W> {
    let mut at = first;
    let mut count = 0;
    // SAFETY: the program passes a list, whose end is NULL.
    while let Some(wr) = unsafe { at.as_ref() } {
        if let Err(errno) = push(wr) {
            return Some((at, errno));
        }
        if count == limit {
            break;
        }
        count += 1;
        at = wr.next();
    }
    None
}

/// The element at a position, which the device has refused.
#[cold]
fn element<W: Linked>(first: *mut W, position: usize) -> *mut W {
    let mut at = first;
    for _ in 0..position {
        // SAFETY: the device was given at least so many of the list.
        at = unsafe { &*at }.next();
    }
    at
}

/// Tells the program.
#[inline(always)]
fn report<W>(refused: Refused<W>, bad: *mut *mut W) -> Result<(), Errno> {
    let Some((at, errno)) = refused else { return Ok(()) };
    if !bad.is_null() {
        // SAFETY: the program passes room for a pointer.
        unsafe { bad.write(at) };
    }
    Err(errno)
}

#[inline(always)]
fn push_receives(
    list: &mut ReceiveWrs<'_>,
    first: *mut ibv_recv_wr,
    max_wr: u32,
    max_sge: u32,
) -> Refused<ibv_recv_wr> {
    push_all(first, max_wr, |wr| {
        list.raw(wr.wr_id, entries(wr.sg_list, wr.num_sge, max_sge)?);
        Ok(())
    })
}

/// What the device refused comes before what we did.
#[inline(always)]
fn outcome<W: Linked>(first: *mut W, posted: Result<(), PostError>, refused: Refused<W>) -> Refused<W> {
    match posted {
        Ok(()) => refused,
        Err(error) => {
            crate::log::say(&error);
            Some((element(first, error.index), Errno(error.errno())))
        }
    }
}

/// Posts receives one by one, watched: some may be hidden from the device.
#[cold]
fn receive_watched(
    receiving: &Receiving,
    first: *mut ibv_recv_wr,
    (max_wr, max_sge): (u32, u32),
    may_hide: bool,
    (uses, whose): (Use, core::fmt::Arguments<'_>),
    later: impl Fn(Instant),
    mut post: impl FnMut(u64, &[RawSge]) -> Result<(), PostError>,
) -> Refused<ibv_recv_wr> {
    push_all(first, max_wr, |wr| {
        let entries = entries(wr.sg_list, wr.num_sge, max_sge)?;
        if watch::is_traced() {
            let list = entries.iter().map(|entry| entry.sge()).collect::<Vec<_>>();
            watch::detail(format_args!("wr_id {}: {}", wr.wr_id, Entries(&list)));
        }
        if may_hide {
            // What the device would refuse, if it had all of them.
            if receiving.count_if_hiding().is_some_and(|count| count >= max_wr as usize) {
                return Err(Errno::ENOMEM);
            }
            if receiving.hides(wr.wr_id, entries, &later) {
                return Ok(());
            }
        }
        if let Err(error) = post(wr.wr_id, entries) {
            crate::log::say(&error);
            return Err(Errno(error.errno()));
        }
        let count = receiving.add(1) as usize;
        if watch::is_explained() {
            watch::uses(uses, count, max_wr, whose);
            watch::uses(Use::ReceiveSges, entries.len(), max_sge, whose);
        }
        Ok(())
    })
}

#[cold]
fn post_recv_watched(qp: &Qp, first: *mut ibv_recv_wr) -> Refused<ibv_recv_wr> {
    let mut receives = qp.receives.lock();
    let sizes = (qp.cap.max_recv_wr, qp.cap.max_recv_sge);
    // What a queue pair refuses or flushes is not hidden.
    let may_hide = watch::hides_receives() && !matches!(qp.state(), QpState::Reset | QpState::Err);
    let later = |due| qp.show_receives_at(due);
    let number = receives.qp_num();
    let whose = (Use::Receives, format_args!("QP {number}"));
    receive_watched(&qp.receiving, first, sizes, may_hide, whose, later, |wr_id, entries| {
        receives.post_recv(|list| list.raw(wr_id, entries))
    })
}

#[cold]
fn post_srq_recv_watched(srq: &Srq, first: *mut ibv_recv_wr) -> Refused<ibv_recv_wr> {
    let mut inner = srq.inner.lock();
    let sizes = (srq.max_wr, srq.max_sge);
    let later = |due| srq.show_receives_at(due);
    let number = inner.number();
    let whose = (Use::SharedReceives, format_args!("SRQ {number}"));
    receive_watched(&srq.receiving, first, sizes, watch::hides_receives(), whose, later, |wr_id, entries| {
        inner.post_recv(|list| list.raw(wr_id, entries))
    })
}

function! {
    /// `ibv_post_send(3)`.
    errno fn post_send(qp: &Qp, first: *mut ibv_send_wr, bad: *mut *mut ibv_send_wr) -> c_int {
        let mut sends = qp.sends.lock();
        let mut list = sends.queue.start();
        let mut ends_in_a_write = false;
        let (mut breaks, mut count) = (false, 0);
        let watched = watch::is_on();
        let refused = push_all(first, qp.cap.max_send_wr, |wr| {
            ends_in_a_write = wr.opcode == Opcode::RdmaWrite.raw();
            if watched {
                push_watched(&mut list, qp, wr, &mut breaks)?;
                count += 1;
                return Ok(());
            }
            push_send(&mut list, qp, request(qp, wr)?, wr)
        });
        let posted = sends.queue.complete();
        if watched && let Err(error) = &posted {
            qp.sending.take_back(count - error.index);
        }
        let give_way = ends_in_a_write && sends.pace.posted();
        drop(sends);
        if breaks {
            qp.break_down();
        }
        if give_way {
            step_aside();
        }
        report(outcome(first, posted, refused), bad)
    }

    /// `ibv_post_recv(3)`.
    errno fn post_recv(qp: &Qp, first: *mut ibv_recv_wr, bad: *mut *mut ibv_recv_wr) -> c_int {
        if watch::is_on() {
            return report(post_recv_watched(qp, first), bad);
        }
        let mut refused = None;
        let posted = qp.receives.lock().post_recv(|list| {
            refused = push_receives(list, first, qp.cap.max_recv_wr, qp.cap.max_recv_sge);
        });
        report(outcome(first, posted, refused), bad)
    }

    /// `ibv_post_srq_recv(3)`.
    errno fn post_srq_recv(srq: &Srq, first: *mut ibv_recv_wr, bad: *mut *mut ibv_recv_wr) -> c_int {
        if watch::is_on() {
            return report(post_srq_recv_watched(srq, first), bad);
        }
        let mut refused = None;
        let posted = srq.inner.lock().post_recv(|list| {
            refused = push_receives(list, first, srq.max_wr, srq.max_sge);
        });
        report(outcome(first, posted, refused), bad)
    }
}
