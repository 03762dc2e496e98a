//! Lists of work in the form of C, where `direct.rs` does not serve: one list a doorbell, linked as the library wants it, in room that the queue keeps.
//!
//! Scatter/gather entries are laid out alike and stay where they are. What an operation does not need is left out of the C structure, in unions,
//! where nobody looks at it.

use super::ah::Remembered;
use super::device::Core;
use super::window::lasting;
use crate::device::{ReceiveBatch, Refused, SendBatch};
use crate::error::PostRefusal;
use core::ffi::{c_int, c_uint};
use core::mem::MaybeUninit;
use core::ptr::{NonNull, null_mut, with_exposed_provenance_mut};
use std::fmt;
use std::io;
use std::ops::Range;
use tbrdma_abi::*;
use tbrdma_proto::{MwBind, Opcode, PostErrorKind, SendFlags, SendWr, Sge};

/// A send queue's room for lists in C's form.
#[derive(Default)]
pub(crate) struct SendRoom {
    wrs: Vec<ibv_send_wr>,
    /// Entries that stand for inline bytes.
    inline: Vec<Sge>,
    /// The tickets of the list, where it is numbered: by position.
    pub(super) tickets: Vec<(usize, u64)>,
    /// Destinations of earlier lists.
    remembered: Remembered,
}

// SAFETY: its pointers are followed during the call that has set them only.
unsafe impl Send for SendRoom {}
// SAFETY: as above.
unsafe impl Sync for SendRoom {}

impl fmt::Debug for SendRoom {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SendRoom for {}", self.wrs.capacity())
    }
}

/// A receive queue's room for lists in C's form.
#[derive(Default)]
pub(crate) struct ReceiveRoom {
    wrs: Vec<ibv_recv_wr>,
    pub(super) tickets: Vec<(usize, u64)>,
}

// SAFETY: as for `SendRoom`.
unsafe impl Send for ReceiveRoom {}
// SAFETY: as for `SendRoom`.
unsafe impl Sync for ReceiveRoom {}

impl fmt::Debug for ReceiveRoom {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ReceiveRoom for {}", self.wrs.capacity())
    }
}

/// What has to be looked up for a work request before it can be posted.
#[derive(Clone, Copy)]
pub(super) enum Extra {
    None,
    /// The destination of a datagram.
    Datagram(ibv_send_wr_ud),
    /// The window and the region of a binding.
    Bind(ibv_send_wr_bind_mw),
}

/// A work request in C's form, not yet linked to the next.
#[inline(always)]
fn in_c(wr: &SendWr, wr_id: u64, sg_list: *mut Sge, num_sge: usize, extra: Extra) -> ibv_send_wr {
    let imm_data = match wr.opcode {
        Opcode::SendWithImm | Opcode::RdmaWriteWithImm => wr.imm_data.to_be(),
        // rdma_rxe refuses one that has any.
        Opcode::BindMw => 0,
        _ => wr.imm_data,
    };
    let to = match extra {
        Extra::Datagram(ud) => ibv_send_wr_to { ud },
        _ if wr.opcode.is_atomic() => {
            let (remote_addr, rkey) = (wr.remote.addr, wr.remote.rkey);
            let atomic = ibv_send_wr_atomic { remote_addr, compare_add: wr.compare_add, swap: wr.swap, rkey };
            ibv_send_wr_to { atomic }
        }
        _ => ibv_send_wr_to { rdma: ibv_send_wr_rdma { remote_addr: wr.remote.addr, rkey: wr.remote.rkey } },
    };
    let more = match extra {
        Extra::Bind(bind_mw) => ibv_send_wr_more { bind_mw },
        _ => ibv_send_wr_more { nothing: () },
    };
    ibv_send_wr {
        wr_id,
        next: null_mut(),
        sg_list,
        num_sge: num_sge as c_int,
        opcode: wr.opcode.raw(),
        send_flags: wr.flags.bits(),
        imm_data: MaybeUninit::new(imm_data),
        wr: to,
        remote_srqn: MaybeUninit::uninit(),
        more,
    }
}

/// The entries of a work request that is not inline.
#[inline(always)]
fn entries(batch: &SendBatch, wr: &SendWr) -> (*mut Sge, usize) {
    let sges = batch.sges.get(wr.operands()).unwrap_or(&[]);
    (sges.as_ptr().cast_mut(), sges.len())
}

/// How the library is asked to post to a send queue.
#[derive(Clone, Copy)]
pub(super) struct SendCall {
    pub(super) qp: NonNull<ibv_qp>,
    pub(super) post: unsafe extern "C" fn(*mut ibv_qp, *mut ibv_send_wr, *mut *mut ibv_send_wr) -> c_int,
}

impl SendCall {
    /// Posts a list: where it stopped and the library's reason, if it did.
    pub(super) fn post_list(
        &self,
        core: &Core,
        batch: &mut SendBatch,
        range: Range<usize>,
        mut extra: impl FnMut(&SendWr, &mut Remembered) -> Result<Extra, PostRefusal>,
    ) -> Option<(usize, Result<io::Error, PostRefusal>)> {
        let mut room = std::mem::take(&mut batch.room);
        room.wrs.clear();
        room.inline.clear();
        room.inline.reserve(batch.wrs.len());
        room.remembered.begin(core);
        let mut refused = None;
        let mut tickets = room.tickets.iter().copied().skip_while(|(at, _)| *at < range.start).peekable();
        for (position, wr) in batch.wrs.iter().enumerate().take(range.end).skip(range.start) {
            let found = match extra(wr, &mut room.remembered) {
                Ok(found) => found,
                Err(refusal) => {
                    refused = Some((position, Err(refusal)));
                    break;
                }
            };
            let (sg_list, num_sge) = if wr.flags.contains(SendFlags::INLINE) {
                let (_, bytes) = batch.operands(wr);
                let addr = bytes.as_ptr().expose_provenance() as u64;
                room.inline.push(Sge { addr, length: bytes.len() as u32, lkey: 0 });
                // Within what was reserved, so it does not move.
                let entry: *mut Sge = room.inline.as_mut_ptr().wrapping_add(room.inline.len() - 1);
                (entry, usize::from(!bytes.is_empty()))
            } else {
                entries(batch, wr)
            };
            let wr_id = tickets.next_if(|(at, _)| *at == position).map_or(wr.wr_id, |(_, ticket)| ticket);
            room.wrs.push(in_c(wr, wr_id, sg_list, num_sge, found));
        }
        let first = room.wrs.as_mut_ptr();
        for (position, wr) in room.wrs.iter_mut().enumerate().rev().skip(1) {
            wr.next = first.wrapping_add(position + 1);
        }
        if !room.wrs.is_empty() {
            let mut bad = null_mut();
            // SAFETY: a live queue pair whose only poster we are, and a list that ends, whose entries and bytes the batch and the room keep meanwhile.
            let returned = unsafe { (self.post)(self.qp.as_ptr(), first, &raw mut bad) };
            if let Some(error) = super::fault::failure(returned) {
                refused = Some((range.start + position_of(bad, first, room.wrs.len()), Ok(error)));
            }
        }
        batch.room = room;
        refused
    }
}

/// How the library is asked to post to a receive queue: of a queue pair, or a shared one.
#[derive(Clone, Copy)]
pub(super) struct ReceiveCall<Q> {
    pub(super) queue: NonNull<Q>,
    pub(super) post: unsafe extern "C" fn(*mut Q, *mut ibv_recv_wr, *mut *mut ibv_recv_wr) -> c_int,
}

impl<Q> ReceiveCall<Q> {
    /// Posts a list: where it stopped and the library's reason, if it did.
    #[inline]
    pub(super) fn post_list(&self, batch: &mut ReceiveBatch) -> Option<(usize, io::Error)> {
        let mut room = std::mem::take(&mut batch.room);
        room.wrs.clear();
        let mut tickets = room.tickets.iter().copied().peekable();
        for (position, wr) in batch.wrs.iter().enumerate() {
            let sges = batch.sges_of(wr);
            let wr_id = tickets.next_if(|(at, _)| *at == position).map_or(wr.wr_id, |(_, ticket)| ticket);
            room.wrs.push(ibv_recv_wr {
                wr_id,
                next: null_mut(),
                sg_list: sges.as_ptr().cast_mut(),
                num_sge: sges.len() as c_int,
            });
        }
        let first = room.wrs.as_mut_ptr();
        for (position, wr) in room.wrs.iter_mut().enumerate().rev().skip(1) {
            wr.next = first.wrapping_add(position + 1);
        }
        let mut refused = None;
        if !room.wrs.is_empty() {
            let mut bad = null_mut();
            // SAFETY: a live queue whose only poster we are, and a list that ends, whose entries the batch keeps meanwhile.
            let returned = unsafe { (self.post)(self.queue.as_ptr(), first, &raw mut bad) };
            refused =
                super::fault::failure(returned).map(|error| (position_of(bad, first, room.wrs.len()), error));
        }
        batch.room = room;
        refused
    }
}

/// Where in a list the first work request is that was not posted. A library that does not tell has posted none.
pub(super) fn position_of<T>(bad: *mut T, first: *mut T, count: usize) -> usize {
    let position = bad.addr().wrapping_sub(first.addr()) / size_of::<T>();
    if position < count { position } else { 0 }
}

/// Why the library did not post, as far as can be told.
pub(super) fn refusal(error: io::Error, depth: u32, wrong: Option<PostErrorKind>) -> PostRefusal {
    match wrong {
        Some(wrong) => PostRefusal::WorkRequest(wrong),
        None if error.raw_os_error() == Some(nix::libc::ENOMEM) => PostRefusal::QueueFull { depth },
        None => PostRefusal::Device(error),
    }
}

impl Core {
    /// What a BIND_MW names.
    pub(super) fn bind(&self, bind: &MwBind) -> Result<Extra, PostRefusal> {
        let unknown = |what| PostRefusal::Device(io::Error::new(io::ErrorKind::InvalidInput, what));
        let mr: *mut ibv_mr = match self.regions(|regions| regions.get(&bind.lkey).copied()) {
            Some(address) => with_exposed_provenance_mut(address),
            None => return Err(unknown("no region has the local key of the binding")),
        };
        let mw =
            self.windows(|windows| windows.get(&lasting(bind.window)).map(super::window::Window::as_ptr));
        let mw = mw.ok_or_else(|| unknown("no window has the key of the binding"))?;
        let mw_access_flags: c_uint = bind.access.bits();
        let bind_info = ibv_mw_bind_info { mr, addr: bind.addr, length: bind.length, mw_access_flags };
        Ok(Extra::Bind(ibv_send_wr_bind_mw { mw, rkey: bind.rkey, bind_info }))
    }
}

/// The refusal of the work request at this position.
pub(super) fn at(position: usize, refusal: PostRefusal) -> Option<Refused> {
    Some((position, refusal))
}
