//! Between C's structures and proto's values, in both directions. Numbers of C's that proto has no word for become the word that promises least.

use super::*;
use core::ffi::{c_char, c_int};
use tbrdma_proto::{
    Access, AddressVector, AtomicCap, DeviceAttr, Gid, Guid, LinkLayer, Mtu, OdpCaps, PortAttr, PortState,
    Psn, QpAttr, QpCap, QpState, Qpn,
};

/// Both directions of structures whose fields have the same names: those that are the same in both, those that C has as `int`s, and the others.
macro_rules! convert {
    (
        $c:ident $ours:ident:
        same { $($same:ident)* } counts { $($count:ident)* }
        to_c |$from_ours:ident| { $($of_c:tt)* } from_c |$from_c:ident| { $($of_ours:tt)* }
    ) => {
        impl From<&$ours> for $c {
            fn from($from_ours: &$ours) -> Self {
                Self { $($same: $from_ours.$same,)* $($count: to_int($from_ours.$count),)* $($of_c)* }
            }
        }

        impl From<&$c> for $ours {
            fn from($from_c: &$c) -> Self {
                Self { $($same: $from_c.$same,)* $($count: from_int($from_c.$count),)* $($of_ours)* }
            }
        }
    };
}

fn to_int(count: u32) -> c_int {
    c_int::try_from(count).unwrap_or(c_int::MAX)
}

/// A number of C's that cannot be negative.
fn from_int(number: c_int) -> u32 {
    u32::try_from(number).unwrap_or(0)
}

/// A text in a field of fixed size, cut off where it does not fit.
pub fn text_to_c<const N: usize>(text: &str) -> [c_char; N] {
    let mut field = [0; N];
    for (to, from) in field.iter_mut().zip(text.bytes().take(N.saturating_sub(1))) {
        *to = from as c_char;
    }
    field
}

/// The text in a field of fixed size.
pub fn text_from_c(field: &[c_char]) -> String {
    let bytes: Vec<u8> = field.iter().map(|c| *c as u8).take_while(|byte| *byte != 0).collect();
    String::from_utf8_lossy(&bytes).into_owned()
}

convert! {
    ibv_qp_cap QpCap:
    same { max_send_wr max_recv_wr max_send_sge max_recv_sge max_inline_data } counts {}
    to_c |_ours| {} from_c |_c| {}
}

convert! {
    ibv_ah_attr AddressVector:
    same { dlid sl src_path_bits port_num } counts {}
    to_c |ours| {
        grh: ibv_global_route {
            dgid: ibv_gid { raw: ours.dgid.0 },
            flow_label: ours.flow_label,
            sgid_index: ours.sgid_index,
            hop_limit: ours.hop_limit,
            traffic_class: ours.traffic_class,
        },
        static_rate: 0,
        is_global: ours.is_global.into(),
    }
    from_c |c| {
        dgid: Gid(c.grh.dgid.raw),
        flow_label: c.grh.flow_label,
        sgid_index: c.grh.sgid_index,
        hop_limit: c.grh.hop_limit,
        traffic_class: c.grh.traffic_class,
        is_global: c.is_global != 0,
    }
}

convert! {
    ibv_qp_attr QpAttr:
    same { qkey pkey_index max_rd_atomic max_dest_rd_atomic min_rnr_timer port_num timeout retry_cnt rnr_retry } counts {}
    to_c |ours| {
        qp_state: ours.qp_state.raw(),
        cur_qp_state: ours.cur_qp_state.raw(),
        path_mtu: ours.path_mtu.raw(),
        rq_psn: ours.rq_psn.get(),
        sq_psn: ours.sq_psn.get(),
        dest_qp_num: ours.dest_qp_num.get(),
        qp_access_flags: ours.qp_access_flags.bits(),
        cap: (&ours.cap).into(),
        ah_attr: (&ours.ah_attr).into(),
        en_sqd_async_notify: ours.en_sqd_async_notify.into(),
        sq_draining: ours.sq_draining.into(),
        // No device here has another path, or a rate.
        path_mig_state: 0,
        alt_ah_attr: ibv_ah_attr::default(),
        alt_pkey_index: 0,
        alt_port_num: 0,
        alt_timeout: 0,
        rate_limit: 0,
    }
    from_c |c| {
        qp_state: QpState::from_raw(c.qp_state).unwrap_or(QpState::Err),
        cur_qp_state: QpState::from_raw(c.cur_qp_state).unwrap_or(QpState::Err),
        path_mtu: Mtu::from_raw(c.path_mtu).unwrap_or_default(),
        rq_psn: Psn::masked(c.rq_psn),
        sq_psn: Psn::masked(c.sq_psn),
        dest_qp_num: Qpn::masked(c.dest_qp_num),
        qp_access_flags: Access::from_bits_retain(c.qp_access_flags),
        cap: (&c.cap).into(),
        ah_attr: (&c.ah_attr).into(),
        en_sqd_async_notify: c.en_sqd_async_notify != 0,
        sq_draining: c.sq_draining != 0,
    }
}

convert! {
    ibv_port_attr PortAttr:
    same {
        port_cap_flags max_msg_sz bad_pkey_cntr qkey_viol_cntr pkey_tbl_len lid sm_lid lmc max_vl_num sm_sl subnet_timeout init_type_reply
        active_width active_speed phys_state
    }
    counts { gid_tbl_len }
    to_c |ours| {
        state: to_int(ours.state.raw()),
        max_mtu: to_int(ours.max_mtu.raw()),
        active_mtu: to_int(ours.active_mtu.raw()),
        link_layer: ours.link_layer.raw() as u8,
        flags: 0,
        port_cap_flags2: 0,
    }
    from_c |c| {
        state: PortState::from_raw(from_int(c.state)).unwrap_or_default(),
        max_mtu: Mtu::from_raw(from_int(c.max_mtu)).unwrap_or_default(),
        active_mtu: Mtu::from_raw(from_int(c.active_mtu)).unwrap_or_default(),
        link_layer: LinkLayer::from_raw(c.link_layer.into()).unwrap_or_default(),
    }
}

// What C's structure does not have, inline bytes and paging, is said to be none.
convert! {
    ibv_device_attr DeviceAttr:
    same {
        max_mr_size page_size_cap vendor_id vendor_part_id hw_ver device_cap_flags max_pkeys local_ca_ack_delay phys_port_cnt
    }
    counts {
        max_qp max_qp_wr max_sge max_sge_rd max_cq max_cqe max_mr max_mw max_pd max_qp_rd_atom max_qp_init_rd_atom max_ah max_srq max_srq_wr
        max_srq_sge
    }
    to_c |ours| {
        fw_ver: text_to_c(&ours.fw_ver),
        node_guid: ours.node_guid.0.to_be(),
        sys_image_guid: ours.sys_image_guid.0.to_be(),
        atomic_cap: to_int(ours.atomic_cap.raw()),
        max_res_rd_atom: to_int(ours.max_qp_rd_atom.saturating_mul(ours.max_qp)),
        max_ee_rd_atom: 0,
        max_ee_init_rd_atom: 0,
        max_ee: 0,
        max_rdd: 0,
        max_raw_ipv6_qp: 0,
        max_raw_ethy_qp: 0,
        max_mcast_grp: 0,
        max_mcast_qp_attach: 0,
        max_total_mcast_qp_attach: 0,
        max_fmr: 0,
        max_map_per_fmr: 0,
    }
    from_c |c| {
        fw_ver: text_from_c(&c.fw_ver),
        node_guid: Guid(u64::from_be(c.node_guid)),
        sys_image_guid: Guid(u64::from_be(c.sys_image_guid)),
        atomic_cap: AtomicCap::from_raw(from_int(c.atomic_cap)).unwrap_or_default(),
        max_inline_data: 0,
        odp_caps: OdpCaps::NONE,
    }
}
