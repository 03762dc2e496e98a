//! Attributes of queue pairs, between C's structure and ours.

use crate::abi::*;
use crate::errno::Errno;
use core::ffi::c_int;
use tbrdma_proto::{Access, Mtu, Psn, QpAttr, QpAttrMask, QpCap, QpState, Qpn};

/// The fields that `mask` names: the program need not have initialised others.
pub(crate) fn from_c(attr: &ibv_qp_attr, mask: c_int) -> Result<(QpAttr, QpAttrMask), Errno> {
    let mask = QpAttrMask::from_bits(mask as u32).ok_or(Errno::EINVAL)?;
    let mut to = QpAttr::default();
    let state = |raw| QpState::from_raw(raw).ok_or(Errno::EINVAL);
    for field in mask.iter() {
        match field {
            QpAttrMask::STATE => to.qp_state = state(attr.qp_state)?,
            QpAttrMask::CUR_STATE => to.cur_qp_state = state(attr.cur_qp_state)?,
            QpAttrMask::EN_SQD_ASYNC_NOTIFY => to.en_sqd_async_notify = attr.en_sqd_async_notify != 0,
            QpAttrMask::ACCESS_FLAGS => to.qp_access_flags = Access::from_bits_truncate(attr.qp_access_flags),
            QpAttrMask::PKEY_INDEX => to.pkey_index = attr.pkey_index,
            QpAttrMask::PORT => to.port_num = attr.port_num,
            QpAttrMask::QKEY => to.qkey = attr.qkey,
            QpAttrMask::AV => to.ah_attr = (&attr.ah_attr).into(),
            QpAttrMask::PATH_MTU => to.path_mtu = Mtu::from_raw(attr.path_mtu).ok_or(Errno::EINVAL)?,
            QpAttrMask::TIMEOUT => to.timeout = attr.timeout,
            QpAttrMask::RETRY_CNT => to.retry_cnt = attr.retry_cnt,
            QpAttrMask::RNR_RETRY => to.rnr_retry = attr.rnr_retry,
            QpAttrMask::RQ_PSN => to.rq_psn = Psn::masked(attr.rq_psn),
            QpAttrMask::MAX_QP_RD_ATOMIC => to.max_rd_atomic = attr.max_rd_atomic,
            QpAttrMask::MIN_RNR_TIMER => to.min_rnr_timer = attr.min_rnr_timer,
            QpAttrMask::SQ_PSN => to.sq_psn = Psn::masked(attr.sq_psn),
            QpAttrMask::MAX_DEST_RD_ATOMIC => to.max_dest_rd_atomic = attr.max_dest_rd_atomic,
            QpAttrMask::CAP => to.cap = (&attr.cap).into(),
            QpAttrMask::DEST_QPN => to.dest_qp_num = Qpn::new(attr.dest_qp_num).ok_or(Errno::EINVAL)?,
            // The alternate path, its state, a rate: no device here has them, and the transition will be refused.
            _ => {}
        }
    }
    Ok((to, mask))
}

/// All fields.
pub(crate) fn to_c(attr: &QpAttr, cap: &QpCap) -> ibv_qp_attr {
    ibv_qp_attr { cur_qp_state: attr.qp_state.raw(), cap: cap.into(), ..attr.into() }
}
