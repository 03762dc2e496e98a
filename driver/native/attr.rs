//! Attributes of queue pairs, from our form into C's and back.

use core::mem::MaybeUninit;
use tbrdma_abi::*;
use tbrdma_proto::{Access, AddressVector, Gid, Mtu, Psn, QpAttr, QpAttrMask, QpCap, QpState, Qpn};

/// The way to a peer.
pub(super) fn ah_to_c(av: &AddressVector) -> ibv_ah_attr {
    ibv_ah_attr {
        grh: ibv_global_route {
            dgid: ibv_gid { raw: av.dgid.0 },
            flow_label: av.flow_label,
            sgid_index: av.sgid_index,
            hop_limit: av.hop_limit,
            traffic_class: av.traffic_class,
        },
        dlid: av.dlid,
        sl: av.sl,
        src_path_bits: av.src_path_bits,
        static_rate: 0,
        is_global: av.is_global.into(),
        port_num: av.port_num,
    }
}

fn ah_from_c(ah: &ibv_ah_attr) -> AddressVector {
    AddressVector {
        dlid: ah.dlid,
        sl: ah.sl,
        is_global: ah.is_global != 0,
        dgid: Gid(ah.grh.dgid.raw),
        sgid_index: ah.grh.sgid_index,
        flow_label: ah.grh.flow_label,
        hop_limit: ah.grh.hop_limit,
        traffic_class: ah.grh.traffic_class,
        port_num: ah.port_num,
        src_path_bits: ah.src_path_bits,
    }
}

pub(super) fn cap_to_c(cap: &QpCap) -> ibv_qp_cap {
    ibv_qp_cap {
        max_send_wr: cap.max_send_wr,
        max_recv_wr: cap.max_recv_wr,
        max_send_sge: cap.max_send_sge,
        max_recv_sge: cap.max_recv_sge,
        max_inline_data: cap.max_inline_data,
    }
}

pub(super) fn cap_from_c(cap: &ibv_qp_cap) -> QpCap {
    QpCap {
        max_send_wr: cap.max_send_wr,
        max_recv_wr: cap.max_recv_wr,
        max_send_sge: cap.max_send_sge,
        max_recv_sge: cap.max_recv_sge,
        max_inline_data: cap.max_inline_data,
    }
}

/// Attributes that say nothing.
pub(super) fn nothing() -> ibv_qp_attr {
    // SAFETY: numbers, of which all zeroes are some.
    unsafe { MaybeUninit::<ibv_qp_attr>::zeroed().assume_init() }
}

/// Attributes as `ibv_modify_qp` takes them.
pub(super) fn to_c(attr: &QpAttr) -> ibv_qp_attr {
    ibv_qp_attr {
        qp_state: attr.qp_state.raw(),
        cur_qp_state: attr.cur_qp_state.raw(),
        path_mtu: attr.path_mtu.raw(),
        qkey: attr.qkey,
        rq_psn: attr.rq_psn.get(),
        sq_psn: attr.sq_psn.get(),
        dest_qp_num: attr.dest_qp_num.get(),
        qp_access_flags: attr.qp_access_flags.bits(),
        cap: cap_to_c(&attr.cap),
        ah_attr: ah_to_c(&attr.ah_attr),
        pkey_index: attr.pkey_index,
        en_sqd_async_notify: attr.en_sqd_async_notify.into(),
        max_rd_atomic: attr.max_rd_atomic,
        max_dest_rd_atomic: attr.max_dest_rd_atomic,
        min_rnr_timer: attr.min_rnr_timer,
        port_num: attr.port_num,
        timeout: attr.timeout,
        retry_cnt: attr.retry_cnt,
        rnr_retry: attr.rnr_retry,
        ..nothing()
    }
}

/// Attributes as `ibv_query_qp` gives them.
pub(super) fn from_c(attr: &ibv_qp_attr) -> QpAttr {
    let state = |raw| QpState::from_raw(raw).unwrap_or(QpState::Err);
    QpAttr {
        qp_state: state(attr.qp_state),
        cur_qp_state: state(attr.cur_qp_state),
        path_mtu: Mtu::from_raw(attr.path_mtu).unwrap_or_default(),
        qkey: attr.qkey,
        rq_psn: Psn::masked(attr.rq_psn),
        sq_psn: Psn::masked(attr.sq_psn),
        dest_qp_num: Qpn::masked(attr.dest_qp_num),
        qp_access_flags: Access::from_bits_retain(attr.qp_access_flags),
        cap: cap_from_c(&attr.cap),
        ah_attr: ah_from_c(&attr.ah_attr),
        pkey_index: attr.pkey_index,
        en_sqd_async_notify: attr.en_sqd_async_notify != 0,
        sq_draining: attr.sq_draining != 0,
        max_rd_atomic: attr.max_rd_atomic,
        max_dest_rd_atomic: attr.max_dest_rd_atomic,
        min_rnr_timer: attr.min_rnr_timer,
        port_num: attr.port_num,
        timeout: attr.timeout,
        retry_cnt: attr.retry_cnt,
        rnr_retry: attr.rnr_retry,
    }
}

/// What a queue pair is known to have after `mask` of `new` was set, for libraries that do not answer.
pub(super) fn remember(known: &mut QpAttr, new: &QpAttr, mask: QpAttrMask) {
    macro_rules! keep {
        ($($bit:ident $field:ident)+) => { $( if mask.contains(QpAttrMask::$bit) { known.$field = new.$field; } )+ };
    }
    keep! {
        STATE qp_state ACCESS_FLAGS qp_access_flags PKEY_INDEX pkey_index PORT port_num QKEY qkey AV ah_attr
        PATH_MTU path_mtu TIMEOUT timeout RETRY_CNT retry_cnt RNR_RETRY rnr_retry RQ_PSN rq_psn
        MAX_QP_RD_ATOMIC max_rd_atomic MIN_RNR_TIMER min_rnr_timer SQ_PSN sq_psn
        MAX_DEST_RD_ATOMIC max_dest_rd_atomic DEST_QPN dest_qp_num
    }
    known.cur_qp_state = known.qp_state;
}
