//! What libibverbs offers to its drivers, and to nobody else: the other libraries of rdma-core ask for these names when they are loaded.
//!
//! Here no driver is registered, so none of them is ever called in earnest; who calls one all the same learns that it is not supported. In C
//! a function may be called with more arguments than it takes.

use crate::errno::Errno;
use crate::export::export;
use core::ffi::{c_int, c_void};

macro_rules! refused {
    ($($name:ident)+) => { export! { $(
        "IBVERBS_PRIVATE_34" errno fn $name() -> c_int {
            Err(Errno::EOPNOTSUPP)
        }
    )+ } };
}

refused! {
    execute_ioctl ibv_cmd_advise_mr ibv_cmd_alloc_dm ibv_cmd_alloc_mw ibv_cmd_alloc_pd ibv_cmd_attach_mcast
    ibv_cmd_close_xrcd ibv_cmd_create_ah ibv_cmd_create_counters ibv_cmd_create_cq ibv_cmd_create_cq_ex
    ibv_cmd_create_flow ibv_cmd_create_flow_action_esp ibv_cmd_create_qp ibv_cmd_create_qp_ex2
    ibv_cmd_create_qp_ex ibv_cmd_create_rwq_ind_table ibv_cmd_create_srq ibv_cmd_create_srq_ex
    ibv_cmd_create_wq ibv_cmd_dealloc_mw ibv_cmd_dealloc_pd ibv_cmd_dereg_mr ibv_cmd_destroy_ah
    ibv_cmd_destroy_counters ibv_cmd_destroy_cq ibv_cmd_destroy_flow ibv_cmd_destroy_flow_action
    ibv_cmd_destroy_qp ibv_cmd_destroy_rwq_ind_table ibv_cmd_destroy_srq ibv_cmd_destroy_wq
    ibv_cmd_detach_mcast ibv_cmd_free_dm ibv_cmd_get_context ibv_cmd_modify_cq
    ibv_cmd_modify_flow_action_esp ibv_cmd_modify_qp ibv_cmd_modify_qp_ex ibv_cmd_modify_srq
    ibv_cmd_modify_wq ibv_cmd_open_qp ibv_cmd_open_xrcd ibv_cmd_poll_cq ibv_cmd_post_recv ibv_cmd_post_send
    ibv_cmd_post_srq_recv ibv_cmd_query_context ibv_cmd_query_device_any ibv_cmd_query_mr ibv_cmd_query_port
    ibv_cmd_query_qp ibv_cmd_query_srq ibv_cmd_read_counters ibv_cmd_reg_dm_mr ibv_cmd_reg_dmabuf_mr
    ibv_cmd_reg_mr ibv_cmd_req_notify_cq ibv_cmd_rereg_mr ibv_cmd_resize_cq
}

export! {
    "IBVERBS_PRIVATE_34" pointer fn _verbs_init_and_alloc_context() -> *mut c_void {
        Err(Errno::EOPNOTSUPP)
    }

    "IBVERBS_PRIVATE_34" pointer fn verbs_open_device() -> *mut c_void {
        Err(Errno::EOPNOTSUPP)
    }

    "IBVERBS_PRIVATE_34" minus_one fn ibv_read_ibdev_sysfs_file() -> c_int {
        Err(Errno::EOPNOTSUPP)
    }

    "IBVERBS_PRIVATE_34" plain fn __ioctl_final_num_attrs() -> u32 {
        Ok(0)
    }

    "IBVERBS_PRIVATE_34" plain fn __verbs_log() {
        Ok(())
    }

    "IBVERBS_PRIVATE_34" plain fn verbs_init_cq() {
        Ok(())
    }

    /// Called by each driver's library when it is loaded: its devices are not ours.
    "IBVERBS_PRIVATE_34" plain fn verbs_register_driver_34() {
        Ok(())
    }

    "IBVERBS_PRIVATE_34" plain fn verbs_set_ops() {
        Ok(())
    }

    "IBVERBS_PRIVATE_34" plain fn verbs_uninit_context() {
        Ok(())
    }
}

/// A switch of the drivers' ("may a device go while it is used"), of one byte.
#[unsafe(no_mangle)]
static verbs_allow_disassociate_destroy: u8 = 0;

#[cfg(versioned)]
core::arch::global_asm!(
    ".symver verbs_allow_disassociate_destroy, verbs_allow_disassociate_destroy@@IBVERBS_PRIVATE_34"
);
