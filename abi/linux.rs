//! The compiler's check that every structure is laid out as programs were compiled with it on 64-bit Linux. `tests/layout.rs` asks a C compiler too.

#![cfg(all(target_os = "linux", target_arch = "x86_64"))]

use super::*;
use core::mem::offset_of;

holds! {
    ibv_device 664 { node_type 16, transport_type 20, name 24, dev_name 88, dev_path 152, ibdev_path 408 }
    ibv_context_ops 256 {
        alloc_mw 56, bind_mw 64, dealloc_mw 72, poll_cq 88, req_notify_cq 96, post_srq_recv 160, post_send 200,
        post_recv 208
    }
    ibv_context 328 {
        device 0, ops 8, cmd_fd 264, async_fd 268, num_comp_vectors 272, mutex 280, abi_compat 320
    }
    verbs_context 648 {
        query_port 0, alloc_parent_domain 112, dealloc_td 120, alloc_td 128, query_rt_values 192, create_cq_ex 200,
        query_device_ex 216, create_qp_ex 264, get_srq_num 272, create_srq_ex 280, sz 312, context 320
    }
    ibv_pd 16 { handle 8 }
    ibv_mr 48 { pd 8, addr 16, length 24, handle 32, lkey 36, rkey 40 }
    ibv_mw 32 { rkey 16, handle 20, type_ 24 }
    ibv_srq 128 { srq_context 8, pd 16, handle 24, mutex 32, cond 72, events_completed 120 }
    ibv_ah 24 { pd 8, handle 16 }
    ibv_td 8 { context 0 }
    ibv_dm 32 { handle 28 }
    ibv_comp_channel 16 { fd 8, refcnt 12 }
    ibv_cq 128 {
        channel 8, cq_context 16, handle 24, cqe 28, mutex 32, cond 72, comp_events_completed 120,
        async_events_completed 124
    }
    ibv_cq_ex 288 {
        base 0, comp_mask 128, status 132, wr_id 136, start_poll 144, next_poll 152, end_poll 160, read_opcode 168,
        read_vendor_err 176, read_byte_len 184, read_imm_data 192, read_qp_num 200, read_src_qp 208,
        read_wc_flags 216, read_slid 224, read_sl 232, read_dlid_path_bits 240, read_completion_ts 248,
        read_cvlan 256, read_flow_tag 264, read_tm_info 272, read_completion_wallclock_ns 280
    }
    ibv_qp 160 {
        qp_context 8, pd 16, send_cq 24, recv_cq 32, srq 40, handle 48, qp_num 52, state 56, qp_type 60, mutex 64,
        cond 104, events_completed 152
    }
    ibv_qp_ex 352 {
        comp_mask 160, wr_id 168, wr_flags 176, wr_atomic_cmp_swp 184, wr_atomic_fetch_add 192, wr_bind_mw 200,
        wr_local_inv 208, wr_rdma_read 216, wr_rdma_write 224, wr_rdma_write_imm 232, wr_send 240, wr_send_imm 248,
        wr_send_inv 256, wr_send_tso 264, wr_set_ud_addr 272, wr_set_xrc_srqn 280, wr_set_inline_data 288,
        wr_set_inline_data_list 296, wr_set_sge 304, wr_set_sge_list 312, wr_start 320, wr_complete 328,
        wr_abort 336, wr_atomic_write 344
    }
    ibv_wc 48 {
        status 8, opcode 12, vendor_err 16, byte_len 20, imm_data 24, qp_num 28, src_qp 32, wc_flags 36,
        pkey_index 40, slid 42, sl 44
    }
    ibv_send_wr 128 {
        next 8, sg_list 16, num_sge 24, opcode 28, send_flags 32, imm_data 36, wr.rdma.remote_addr 40,
        wr.rdma.rkey 48, wr.atomic.compare_add 48, wr.atomic.swap 56, wr.atomic.rkey 64, wr.ud.ah 40,
        wr.ud.remote_qpn 48, wr.ud.remote_qkey 52, remote_srqn 72, more.bind_mw 80
    }
    ibv_recv_wr 32 { next 8, sg_list 16, num_sge 24 }
    ibv_sge 16 { length 8, lkey 12 }
    ibv_qp_init_attr 64 { cap 32, qp_type 52, sq_sig_all 56 }
    ibv_qp_init_attr_ex 136 { comp_mask 60, pd 64, xrcd 72, create_flags 80, send_ops_flags 128 }
    ibv_qp_attr 144 { cap 36, ah_attr 56, alt_ah_attr 88, pkey_index 120, rate_limit 136 }
    ibv_ah_attr 32 { dlid 24, port_num 30 }
    ibv_device_attr 232 { node_guid 64, phys_port_cnt 227 }
    ibv_device_attr_ex 400 { comp_mask 232, odp_caps 240 }
    ibv_port_attr 52 { pkey_tbl_len 32, link_layer 46, flags 47, port_cap_flags2 48 }
    ibv_gid_entry 32 { gid_index 16 }
    ibv_cq_init_attr_ex 56 { wc_flags 32 }
    ibv_srq_init_attr 24 { attr 8 }
    ibv_srq_init_attr_ex 64 { comp_mask 20 }
    ibv_async_event 16 { event_type 8 }
}
