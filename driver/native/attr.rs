//! Attributes of queue pairs, where the library does not tell them.

use tbrdma_proto::{QpAttr, QpAttrMask};

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
