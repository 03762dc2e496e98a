//! Every structure and every field, against a C compiler that has libibverbs' headers.
//!
//! They are taken from the system, or from where `TBRDMA_VERBS_INCLUDE` says.

#[path = "../../tests/common/skip.rs"]
mod skip;

use core::mem::offset_of;
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use tbrdma_abi::*;

/// A field: its name in C, its offset, its size.
type Field = (&'static str, usize, usize);

/// A structure: its name in C, its size, and its fields.
struct Layout {
    name: &'static str,
    size: usize,
    fields: Vec<Field>,
}

fn size_of_field<S, T>(_: impl Fn(&S) -> &T) -> usize {
    size_of::<T>()
}

/// The name in C of a field whose name here is another: a keyword, a part of a union, a part that has no name there.
fn name_in_c(structure: &'static str, field: &'static str) -> &'static str {
    match (structure, field) {
        (_, "type_") => "type",
        ("struct ibv_device", "ops") => "_ops",
        ("struct ibv_qp_ex", "base") => "qp_base",
        ("struct ibv_send_wr", "remote_srqn") => "qp_type.xrc.remote_srqn",
        ("struct ibv_send_wr", "more") => "bind_mw",
        ("struct ibv_odp_caps", "rc_odp_caps") => "per_transport_caps.rc_odp_caps",
        ("struct ibv_odp_caps", "uc_odp_caps") => "per_transport_caps.uc_odp_caps",
        ("struct ibv_odp_caps", "ud_odp_caps") => "per_transport_caps.ud_odp_caps",
        ("struct verbs_context", "private") => "priv",
        ("struct verbs_context", "destroy_flow") => "ibv_destroy_flow",
        ("struct verbs_context", "create_flow") => "ibv_create_flow",
        ("struct verbs_context", "placeholder1") => "ABI_placeholder1",
        ("struct verbs_context", "placeholder2") => "ABI_placeholder2",
        ("struct verbs_context", "placeholder3") => "_ABI_placeholder3",
        (_, same) => same,
    }
}

macro_rules! layouts {
    ($( $name:ident { $($field:ident)+ } )+) => {
        /// Every structure of this module, but for the parts that are only names for a run of slots.
        fn layouts() -> Vec<Layout> {
            vec![$( {
                let name = concat!("struct ", stringify!($name));
                let fields = vec![$( (
                    name_in_c(name, stringify!($field)),
                    offset_of!($name, $field),
                    size_of_field(|structure: &$name| &structure.$field),
                ) ),+];
                Layout { name, size: size_of::<$name>(), fields }
            } ),+]
        }
    };
}

layouts! {
    ibv_device { ops node_type transport_type name dev_name dev_path ibdev_path }
    ibv_device_attr {
        fw_ver node_guid sys_image_guid max_mr_size page_size_cap vendor_id vendor_part_id hw_ver max_qp max_qp_wr
        device_cap_flags max_sge max_sge_rd max_cq max_cqe max_mr max_pd max_qp_rd_atom max_ee_rd_atom max_res_rd_atom
        max_qp_init_rd_atom max_ee_init_rd_atom atomic_cap max_ee max_rdd max_mw max_raw_ipv6_qp max_raw_ethy_qp
        max_mcast_grp max_mcast_qp_attach max_total_mcast_qp_attach max_ah max_fmr max_map_per_fmr max_srq max_srq_wr
        max_srq_sge max_pkeys local_ca_ack_delay phys_port_cnt
    }
    ibv_odp_caps { general_caps rc_odp_caps uc_odp_caps ud_odp_caps }
    ibv_tso_caps { max_tso supported_qpts }
    ibv_rss_caps {
        supported_qpts max_rwq_indirection_tables max_rwq_indirection_table_size rx_hash_fields_mask rx_hash_function
    }
    ibv_packet_pacing_caps { qp_rate_limit_min qp_rate_limit_max supported_qpts }
    ibv_tm_caps { max_rndv_hdr_size max_num_tags flags max_ops max_sge }
    ibv_cq_moderation_caps { max_cq_count max_cq_period }
    ibv_pci_atomic_caps { fetch_add swap compare_swap }
    ibv_device_attr_ex {
        orig_attr comp_mask odp_caps completion_timestamp_mask hca_core_clock device_cap_flags_ex tso_caps rss_caps
        max_wq_type_rq packet_pacing_caps raw_packet_caps tm_caps cq_mod_caps max_dm_size pci_atomic_caps xrc_odp_caps
        phys_port_cnt_ex
    }
    ibv_query_device_ex_input { comp_mask }
    ibv_port_attr {
        state max_mtu active_mtu gid_tbl_len port_cap_flags max_msg_sz bad_pkey_cntr qkey_viol_cntr pkey_tbl_len lid sm_lid
        lmc max_vl_num sm_sl subnet_timeout init_type_reply active_width active_speed phys_state link_layer flags
        port_cap_flags2
    }
    ibv_gid_entry { gid gid_index port_num gid_type ndev_ifindex }
    ibv_context_ops { alloc_mw bind_mw dealloc_mw poll_cq req_notify_cq post_srq_recv post_send post_recv }
    ibv_context { device ops cmd_fd async_fd num_comp_vectors mutex abi_compat }
    verbs_context {
        query_port advise_mr alloc_null_mr read_counters attach_counters_point_flow create_counters destroy_counters
        reg_dm_mr alloc_dm free_dm modify_flow_action_esp destroy_flow_action create_flow_action_esp modify_qp_rate_limit
        alloc_parent_domain dealloc_td alloc_td modify_cq post_srq_ops destroy_rwq_ind_table create_rwq_ind_table
        destroy_wq modify_wq create_wq query_rt_values create_cq_ex private query_device_ex destroy_flow placeholder2
        create_flow placeholder1 open_qp create_qp_ex get_srq_num create_srq_ex open_xrcd close_xrcd placeholder3 sz context
    }
    ibv_values_ex { comp_mask raw_clock }
    ibv_pd { context handle }
    ibv_td_init_attr { comp_mask }
    ibv_td { context }
    ibv_parent_domain_init_attr { pd td comp_mask alloc free pd_context }
    ibv_mr { context pd addr length handle lkey rkey }
    ibv_mw { context pd rkey handle type_ }
    ibv_mw_bind_info { mr addr length mw_access_flags }
    ibv_mw_bind { wr_id send_flags bind_info }
    ibv_alloc_dm_attr { length log_align_req comp_mask }
    ibv_dm { context memcpy_to_dm memcpy_from_dm comp_mask handle }
    ibv_comp_channel { context fd refcnt }
    ibv_cq {
        context channel cq_context handle cqe mutex cond comp_events_completed async_events_completed
    }
    ibv_poll_cq_attr { comp_mask }
    ibv_cq_ex {
        comp_mask status wr_id start_poll next_poll end_poll read_opcode read_vendor_err read_byte_len read_imm_data
        read_qp_num read_src_qp read_wc_flags read_slid read_sl read_dlid_path_bits read_completion_ts read_cvlan
        read_flow_tag read_tm_info read_completion_wallclock_ns
    }
    ibv_cq_init_attr_ex { cqe cq_context channel comp_vector wc_flags comp_mask flags parent_domain }
    ibv_wc {
        wr_id status opcode vendor_err byte_len imm_data qp_num src_qp wc_flags pkey_index slid sl dlid_path_bits
    }
    ibv_async_event { element event_type }
    ibv_srq { context srq_context pd handle mutex cond events_completed }
    ibv_srq_attr { max_wr max_sge srq_limit }
    ibv_srq_init_attr { srq_context attr }
    ibv_tm_cap { max_num_tags max_ops }
    ibv_srq_init_attr_ex { srq_context attr comp_mask srq_type pd xrcd cq tm_cap }
    ibv_sge { addr length lkey }
    ibv_send_wr { wr_id next sg_list num_sge opcode send_flags imm_data wr remote_srqn more }
    ibv_recv_wr { wr_id next sg_list num_sge }
    ibv_data_buf { addr length }
    ibv_global_route { dgid flow_label sgid_index hop_limit traffic_class }
    ibv_grh { version_tclass_flow paylen next_hdr hop_limit sgid dgid }
    ibv_ah_attr { grh dlid sl src_path_bits static_rate is_global port_num }
    ibv_ah { context pd handle }
    ibv_qp_cap { max_send_wr max_recv_wr max_send_sge max_recv_sge max_inline_data }
    ibv_qp_init_attr { qp_context send_cq recv_cq srq cap qp_type sq_sig_all }
    ibv_rx_hash_conf { rx_hash_function rx_hash_key_len rx_hash_key rx_hash_fields_mask }
    ibv_qp_init_attr_ex {
        qp_context send_cq recv_cq srq cap qp_type sq_sig_all comp_mask pd xrcd create_flags max_tso_header rwq_ind_tbl rx_hash_conf source_qpn send_ops_flags
    }
    ibv_qp_attr {
        qp_state cur_qp_state path_mtu path_mig_state qkey rq_psn sq_psn dest_qp_num qp_access_flags cap ah_attr alt_ah_attr
        pkey_index alt_pkey_index en_sqd_async_notify sq_draining max_rd_atomic max_dest_rd_atomic min_rnr_timer port_num
        timeout retry_cnt rnr_retry alt_port_num alt_timeout rate_limit
    }
    ibv_ece { vendor_id options comp_mask }
    ibv_qp {
        context qp_context pd send_cq recv_cq srq handle qp_num state qp_type mutex cond events_completed
    }
    ibv_qp_ex {
        base comp_mask wr_id wr_flags wr_atomic_cmp_swp wr_atomic_fetch_add wr_bind_mw wr_local_inv wr_rdma_read
        wr_rdma_write wr_rdma_write_imm wr_send wr_send_imm wr_send_inv wr_send_tso wr_set_ud_addr wr_set_xrc_srqn
        wr_set_inline_data wr_set_inline_data_list wr_set_sge wr_set_sge_list wr_start wr_complete wr_abort
        wr_atomic_write
    }
}

/// A C program that prints each place that the table has.
fn program(layouts: &[Layout]) -> String {
    let mut lines = String::new();
    for layout in layouts {
        let name = layout.name;
        lines += &format!("    printf(\"{name} - %zu 0\\n\", sizeof({name}));\n");
        for (field, ..) in &layout.fields {
            lines += &format!(
                "    printf(\"{name} {field} %zu %zu\\n\", offsetof({name}, {field}), sizeof((({name} *)0)->{field}));\n"
            );
        }
    }
    format!(
        "#include <stddef.h>\n#include <stdio.h>\n#include <infiniband/verbs.h>\nint main(void)\n{{\n{lines}    return 0;\n}}\n"
    )
}

/// What the C compiler says: by structure and field, the offset and the size.
fn in_c(layouts: &[Layout], include: &Path, folder: &Path) -> HashMap<(String, String), (usize, usize)> {
    let source = folder.join("layout.c");
    let binary = folder.join("layout");
    std::fs::write(&source, program(layouts)).expect("a source file");
    let compiled =
        Command::new("cc").arg("-I").arg(include).arg("-o").arg(&binary).arg(&source).output().expect("cc");
    assert!(compiled.status.success(), "{}", String::from_utf8_lossy(&compiled.stderr));
    let printed = Command::new(&binary).output().expect("the program");
    let printed = String::from_utf8_lossy(&printed.stdout).into_owned();
    let place = |line: &str| {
        let mut words = line.rsplitn(4, ' ');
        let (size, offset, field, name) = (words.next()?, words.next()?, words.next()?, words.next()?);
        Some(((name.to_owned(), field.to_owned()), (offset.parse().ok()?, size.parse().ok()?)))
    };
    printed.lines().filter_map(place).collect()
}

#[test]
fn a_c_compiler_agrees_on_every_field() {
    let include =
        std::env::var_os("TBRDMA_VERBS_INCLUDE").map_or_else(|| PathBuf::from("/usr/include"), PathBuf::from);
    if !include.join("infiniband/verbs.h").exists() {
        skip::skip(format_args!("no infiniband/verbs.h in {} (package libibverbs-dev)", include.display()));
        return;
    }
    if Command::new("cc").arg("--version").output().is_err() {
        skip::skip("no C compiler");
        return;
    }
    let layouts = layouts();
    let folder = std::env::temp_dir().join(format!("tbrdma-layout-{}", std::process::id()));
    std::fs::create_dir_all(&folder).expect("a folder of our own");
    let c = in_c(&layouts, &include, &folder);
    let _ = std::fs::remove_dir_all(&folder);
    let mut compared = 0;
    for layout in &layouts {
        let size = c[&(layout.name.to_owned(), "-".to_owned())].0;
        assert_eq!(layout.size, size, "size of {}", layout.name);
        for (field, offset, size) in &layout.fields {
            let in_c = c[&(layout.name.to_owned(), (*field).to_owned())];
            assert_eq!(in_c.0, *offset, "offset of {} in {}", field, layout.name);
            // An arm that is not alone in its union is as large as the union.
            let is_union = matches!((layout.name, *field), ("struct ibv_send_wr", "bind_mw"));
            assert!(
                in_c.1 == *size || is_union,
                "size of {} in {}: {size}, in C {}",
                field,
                layout.name,
                in_c.1
            );
            compared += 1;
        }
    }
    assert!(compared > 350, "{compared}");
}
