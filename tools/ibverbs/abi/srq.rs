//! Shared receive queues.

use super::*;
use core::ffi::{c_int, c_void};

/// `struct ibv_srq`.
#[repr(C)]
pub(crate) struct ibv_srq {
    pub(crate) context: *mut ibv_context,
    pub(crate) srq_context: *mut c_void,
    pub(crate) pd: *mut ibv_pd,
    pub(crate) handle: u32,
    pub(crate) mutex: Mutex,
    pub(crate) cond: Cond,
    pub(crate) events_completed: u32,
}

/// `struct ibv_srq_attr`.
#[repr(C)]
#[derive(Clone, Copy, Default)]
pub(crate) struct ibv_srq_attr {
    pub(crate) max_wr: u32,
    pub(crate) max_sge: u32,
    pub(crate) srq_limit: u32,
}

/// `IBV_SRQ_MAX_WR`.
pub(crate) const IBV_SRQ_MAX_WR: c_int = 1;
/// `IBV_SRQ_LIMIT`.
pub(crate) const IBV_SRQ_LIMIT: c_int = 2;

/// `struct ibv_srq_init_attr`.
#[repr(C)]
pub(crate) struct ibv_srq_init_attr {
    pub(crate) srq_context: *mut c_void,
    pub(crate) attr: ibv_srq_attr,
}

/// `IBV_SRQT_BASIC`.
pub(crate) const IBV_SRQT_BASIC: u32 = 0;
/// `IBV_SRQ_INIT_ATTR_TYPE`.
pub(crate) const IBV_SRQ_INIT_ATTR_TYPE: u32 = 1;
/// `IBV_SRQ_INIT_ATTR_PD`.
pub(crate) const IBV_SRQ_INIT_ATTR_PD: u32 = 2;

/// `struct ibv_tm_cap`.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct ibv_tm_cap {
    pub(crate) max_num_tags: u32,
    pub(crate) max_ops: u32,
}

/// `struct ibv_srq_init_attr_ex`.
#[repr(C)]
pub(crate) struct ibv_srq_init_attr_ex {
    pub(crate) srq_context: *mut c_void,
    pub(crate) attr: ibv_srq_attr,
    pub(crate) comp_mask: u32,
    pub(crate) srq_type: u32,
    pub(crate) pd: *mut ibv_pd,
    pub(crate) xrcd: *mut c_void,
    pub(crate) cq: *mut ibv_cq,
    pub(crate) tm_cap: ibv_tm_cap,
}
