//! Work requests. What a program leaves uninitialised because the operation does not need it is in unions, which nobody reads by accident.

use super::*;
use core::ffi::{c_int, c_uint, c_void};

/// `struct ibv_sge`, which proto's entry is laid out as.
pub(crate) type ibv_sge = tbrdma_proto::Sge;

/// The arm of `wr.rdma`.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct ibv_send_wr_rdma {
    pub(crate) remote_addr: u64,
    pub(crate) rkey: u32,
}

/// The arm of `wr.atomic`.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct ibv_send_wr_atomic {
    pub(crate) remote_addr: u64,
    pub(crate) compare_add: u64,
    pub(crate) swap: u64,
    pub(crate) rkey: u32,
}

/// The arm of `wr.ud`.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct ibv_send_wr_ud {
    pub(crate) ah: *mut ibv_ah,
    pub(crate) remote_qpn: u32,
    pub(crate) remote_qkey: u32,
}

/// `wr`: the arm follows from the operation and the kind of queue pair.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) union ibv_send_wr_to {
    pub(crate) rdma: ibv_send_wr_rdma,
    pub(crate) atomic: ibv_send_wr_atomic,
    pub(crate) ud: ibv_send_wr_ud,
}

/// The arm of `bind_mw`.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct ibv_send_wr_bind_mw {
    pub(crate) mw: *mut ibv_mw,
    pub(crate) rkey: u32,
    pub(crate) bind_info: ibv_mw_bind_info,
}

/// The arm of `tso`.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct ibv_send_wr_tso {
    pub(crate) hdr: *mut c_void,
    pub(crate) hdr_sz: u16,
    pub(crate) mss: u16,
}

/// The last union: the arm follows from the operation.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) union ibv_send_wr_more {
    pub(crate) bind_mw: ibv_send_wr_bind_mw,
    pub(crate) tso: ibv_send_wr_tso,
}

/// Four bytes that only some operations have.
pub(crate) type Optional32 = core::mem::MaybeUninit<u32>;

/// `struct ibv_send_wr`.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct ibv_send_wr {
    pub(crate) wr_id: u64,
    pub(crate) next: *mut ibv_send_wr,
    pub(crate) sg_list: *mut ibv_sge,
    pub(crate) num_sge: c_int,
    pub(crate) opcode: u32,
    pub(crate) send_flags: c_uint,
    /// Immediate data, big endian; or the key to invalidate.
    pub(crate) imm_data: Optional32,
    pub(crate) wr: ibv_send_wr_to,
    pub(crate) remote_srqn: Optional32,
    pub(crate) more: ibv_send_wr_more,
}

/// `struct ibv_recv_wr`.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct ibv_recv_wr {
    pub(crate) wr_id: u64,
    pub(crate) next: *mut ibv_recv_wr,
    pub(crate) sg_list: *mut ibv_sge,
    pub(crate) num_sge: c_int,
}

/// `struct ibv_data_buf`.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct ibv_data_buf {
    pub(crate) addr: *mut c_void,
    pub(crate) length: usize,
}
