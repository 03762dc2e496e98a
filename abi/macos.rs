//! The compiler's check of the layouts on a Mac. Apple's header has the fields of the common structures in the same order; what moves them is
//! that `pthread_mutex_t` has 64 bytes there and `pthread_cond_t` 48. Nothing is said of the extended structures (`verbs_context`,
//! `ibv_qp_ex` and the like): Apple's header lacks part of them, so nobody may look for them around or behind the common ones.

#![cfg(target_os = "macos")]

use super::*;
use core::mem::offset_of;

holds! {
    ibv_device 664 { node_type 16, transport_type 20, name 24, dev_name 88, dev_path 152, ibdev_path 408 }
    ibv_context_ops 256 {
        alloc_mw 56, bind_mw 64, dealloc_mw 72, poll_cq 88, req_notify_cq 96, post_srq_recv 160, post_send 200,
        post_recv 208
    }
    ibv_context 352 {
        device 0, ops 8, cmd_fd 264, async_fd 268, num_comp_vectors 272, mutex 280, abi_compat 344
    }
    ibv_pd 16 { handle 8 }
    ibv_mr 48 { pd 8, addr 16, length 24, handle 32, lkey 36, rkey 40 }
    ibv_ah 24 { pd 8, handle 16 }
    ibv_comp_channel 16 { fd 8, refcnt 12 }
    ibv_cq 152 {
        channel 8, cq_context 16, handle 24, cqe 28, mutex 32, cond 96, comp_events_completed 144,
        async_events_completed 148
    }
    ibv_qp 184 {
        qp_context 8, pd 16, send_cq 24, recv_cq 32, srq 40, handle 48, qp_num 52, state 56, qp_type 60, mutex 64,
        cond 128, events_completed 176
    }
    ibv_wc 48 {
        status 8, opcode 12, vendor_err 16, byte_len 20, imm_data 24, qp_num 28, src_qp 32, wc_flags 36,
        pkey_index 40, slid 42, sl 44
    }
    ibv_send_wr 128 {
        next 8, sg_list 16, num_sge 24, opcode 28, send_flags 32, imm_data 36, wr.rdma.remote_addr 40,
        wr.rdma.rkey 48
    }
    ibv_recv_wr 32 { next 8, sg_list 16, num_sge 24 }
    ibv_sge 16 { length 8, lkey 12 }
    ibv_qp_init_attr 64 { cap 32, qp_type 52, sq_sig_all 56 }
    ibv_qp_attr 144 { cap 36, ah_attr 56, alt_ah_attr 88, pkey_index 120, rate_limit 136 }
    ibv_ah_attr 32 { dlid 24, port_num 30 }
    ibv_device_attr 232 { node_guid 64, phys_port_cnt 227 }
    ibv_port_attr 52 { pkey_tbl_len 32, link_layer 46, flags 47, port_cap_flags2 48 }
    ibv_async_event 16 { event_type 8 }
}
