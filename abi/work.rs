//! Work requests. What a program leaves uninitialised because the operation does not need it is in unions, which nobody reads by accident.

use super::*;
use core::ffi::{c_int, c_uint, c_void};

/// `struct ibv_sge`, which proto's entry is laid out as.
pub type ibv_sge = tbrdma_proto::Sge;

/// The arm of `wr.rdma`.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct ibv_send_wr_rdma {
    pub remote_addr: u64,
    pub rkey: u32,
}

/// The arm of `wr.atomic`.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct ibv_send_wr_atomic {
    pub remote_addr: u64,
    pub compare_add: u64,
    pub swap: u64,
    pub rkey: u32,
}

/// The arm of `wr.ud`.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct ibv_send_wr_ud {
    pub ah: *mut ibv_ah,
    pub remote_qpn: u32,
    pub remote_qkey: u32,
}

/// `wr`: the arm follows from the operation and the kind of queue pair.
#[repr(C)]
#[derive(Clone, Copy)]
pub union ibv_send_wr_to {
    /// Of operations that need none.
    pub nothing: (),
    pub rdma: ibv_send_wr_rdma,
    pub atomic: ibv_send_wr_atomic,
    pub ud: ibv_send_wr_ud,
}

/// The arm of `bind_mw`.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct ibv_send_wr_bind_mw {
    pub mw: *mut ibv_mw,
    pub rkey: u32,
    pub bind_info: ibv_mw_bind_info,
}

/// The arm of `tso`.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct ibv_send_wr_tso {
    pub hdr: *mut c_void,
    pub hdr_sz: u16,
    pub mss: u16,
}

/// The last union: the arm follows from the operation.
#[repr(C)]
#[derive(Clone, Copy)]
pub union ibv_send_wr_more {
    /// Of operations that need none.
    pub nothing: (),
    pub bind_mw: ibv_send_wr_bind_mw,
    pub tso: ibv_send_wr_tso,
}

/// Four bytes that only some operations have.
pub type Optional32 = core::mem::MaybeUninit<u32>;

/// `struct ibv_send_wr`.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct ibv_send_wr {
    pub wr_id: u64,
    pub next: *mut ibv_send_wr,
    pub sg_list: *mut ibv_sge,
    pub num_sge: c_int,
    pub opcode: u32,
    pub send_flags: c_uint,
    /// Immediate data, big endian; or the key to invalidate.
    pub imm_data: Optional32,
    pub wr: ibv_send_wr_to,
    pub remote_srqn: Optional32,
    pub more: ibv_send_wr_more,
}

/// `struct ibv_recv_wr`.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct ibv_recv_wr {
    pub wr_id: u64,
    pub next: *mut ibv_recv_wr,
    pub sg_list: *mut ibv_sge,
    pub num_sge: c_int,
}

/// `struct ibv_data_buf`.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct ibv_data_buf {
    pub addr: *mut c_void,
    pub length: usize,
}
