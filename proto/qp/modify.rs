//! Changing a queue pair: which transitions exist, which attributes each needs and admits, which values are
//! in range (IBTA volume 1, sections 10.3.1 and 11.2.5; `ibv_modify_qp(3)`).

use core::fmt;

use crate::flags::Access;
use crate::limits::{
    DEVICE_AUTO_PATH_MIG, DeviceAttr, MAX_FLOW_LABEL, MAX_MIN_RNR_TIMER, MAX_RETRY_CNT, MAX_RNR_RETRY,
    MAX_SL, MAX_TIMEOUT, PortAttr,
};
use crate::qp::{AddressVector, QpAttr, QpAttrMask, QpCap, QpState, QpType};

/// The attributes a legal transition must have, and those it may have. `STATE` itself is in neither.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TransitionAttrs {
    /// Must all be given.
    pub required: QpAttrMask,
    /// May be given.
    pub optional: QpAttrMask,
}

/// The attributes of the transition `from` -> `to`, or `None` if a queue pair of this type cannot make it.
///
/// RESET and ERR can be reached from everywhere. Staying in INIT, RTS or SQD is a transition too, which only
/// changes attributes. The error states are also reached without a call, and then nothing of this applies:
/// SQE, in particular, is only ever reached that way, and never by RC.
pub const fn transition(qp_type: QpType, from: QpState, to: QpState) -> Option<TransitionAttrs> {
    use QpState::{Err, Init, Reset, Rtr, Rts, Sqd, Sqe};

    let [mut required, mut optional] = [QpAttrMask::empty(); 2];
    match (from, to) {
        (_, Reset | Err) => {}
        (Reset, Init) => required = INIT.of(qp_type),
        (Init, Init) => optional = INIT.of(qp_type),
        (Init, Rtr) => {
            required = RTR.of(qp_type);
            optional = RTR_MAY.of(qp_type);
        }
        (Rtr, Rts) => {
            required = RTS.of(qp_type);
            optional = RTS_MAY.of(qp_type);
        }
        (Rts | Sqd, Rts) => optional = RTS_MAY.of(qp_type),
        (Rts, Sqd) => optional = QpAttrMask::EN_SQD_ASYNC_NOTIFY,
        (Sqd, Sqd) => optional = SQD_MAY.of(qp_type),
        (Sqe, Rts) if !matches!(qp_type, QpType::Rc) => optional = SQE_MAY.of(qp_type),
        _ => return None,
    }
    Some(TransitionAttrs { required, optional })
}

/// Attributes by transport: what UD has, what both connected transports have, what RC has besides.
struct ByType {
    ud: QpAttrMask,
    connected: QpAttrMask,
    rc_too: QpAttrMask,
}

impl ByType {
    const fn of(&self, qp_type: QpType) -> QpAttrMask {
        match qp_type {
            QpType::Ud => self.ud,
            QpType::Uc => self.connected,
            QpType::Rc => self.connected.union(self.rc_too),
        }
    }
}

/// The union of the masks given by name.
macro_rules! mask {
    ($($name:ident)*) => { QpAttrMask::empty()$(.union(QpAttrMask::$name))* };
}

const INIT: ByType = ByType {
    ud: mask!(PKEY_INDEX PORT QKEY),
    connected: mask!(PKEY_INDEX PORT ACCESS_FLAGS),
    rc_too: mask!(),
};
const RTR: ByType = ByType {
    ud: mask!(),
    connected: mask!(AV PATH_MTU DEST_QPN RQ_PSN),
    rc_too: mask!(MAX_DEST_RD_ATOMIC MIN_RNR_TIMER),
};
const RTR_MAY: ByType = ByType {
    ud: mask!(PKEY_INDEX QKEY),
    connected: mask!(PKEY_INDEX ACCESS_FLAGS ALT_PATH),
    rc_too: mask!(),
};
const RTS: ByType = ByType {
    ud: mask!(SQ_PSN),
    connected: mask!(SQ_PSN),
    rc_too: mask!(TIMEOUT RETRY_CNT RNR_RETRY MAX_QP_RD_ATOMIC),
};
const RTS_MAY: ByType = ByType {
    ud: mask!(CUR_STATE QKEY),
    connected: mask!(CUR_STATE ACCESS_FLAGS ALT_PATH PATH_MIG_STATE),
    rc_too: mask!(MIN_RNR_TIMER),
};
const SQD_MAY: ByType = ByType {
    ud: mask!(PKEY_INDEX QKEY),
    connected: mask!(PKEY_INDEX ACCESS_FLAGS AV ALT_PATH PATH_MIG_STATE),
    rc_too: mask!(PORT TIMEOUT RETRY_CNT RNR_RETRY MAX_QP_RD_ATOMIC MAX_DEST_RD_ATOMIC MIN_RNR_TIMER),
};
const SQE_MAY: ByType =
    ByType { ud: mask!(CUR_STATE QKEY), connected: mask!(CUR_STATE ACCESS_FLAGS), rc_too: mask!() };

/// Whether a queue pair may go from `cur` to `next` with the attributes in `mask`.
///
/// `STATE` may be missing if `next` is `cur`. Where `CUR_STATE` is given, the caller compares
/// `cur_qp_state` with the state the queue pair really has before it asks here.
///
/// # Errors
///
/// No such transition, a required attribute missing, or one given that has no place in it. If anything is
/// wrong nothing may be changed.
pub fn check_modify(
    qp_type: QpType,
    cur: QpState,
    next: QpState,
    mask: QpAttrMask,
) -> Result<(), ModifyError> {
    let step = Transition { qp_type, from: cur, to: next };
    let Some(TransitionAttrs { mut required, optional }) = transition(qp_type, cur, next) else {
        return Err(ModifyError::IllegalTransition { step });
    };
    if cur != next {
        required |= QpAttrMask::STATE;
    }
    let missing = required - mask;
    if !missing.is_empty() {
        return Err(ModifyError::MissingAttributes { step, missing });
    }
    // Not `mask - known`, which would drop bits that have no name.
    let known = required | optional | QpAttrMask::STATE;
    let invalid = QpAttrMask::from_bits_retain(mask.bits() & !known.bits());
    if !invalid.is_empty() {
        return Err(ModifyError::InvalidAttributes { step, invalid });
    }
    Ok(())
}

/// Whether the attributes in `mask` have values that the device and its port can take.
///
/// # Errors
///
/// The first value out of range, or an attribute that the device has no use for.
pub fn check_values(
    attr: &QpAttr,
    mask: QpAttrMask,
    limits: &DeviceAttr,
    port: &PortAttr,
) -> Result<(), ModifyError> {
    let within = |bit: QpAttrMask, attribute, value: u64, min: u64, max: u64| {
        if mask.contains(bit) { in_range(attribute, value, min, max) } else { Ok(()) }
    };
    let unsupported = mask & unsupported(limits);
    if !unsupported.is_empty() {
        return Err(ModifyError::Unsupported(unsupported));
    }
    if mask.contains(QpAttrMask::ACCESS_FLAGS) && attr.qp_access_flags.unknown_bits() != 0 {
        return Err(ModifyError::UnknownAccess {
            access: attr.qp_access_flags,
            unknown: attr.qp_access_flags.unknown_bits(),
        });
    }
    let last_pkey = u64::from(port.pkey_tbl_len).saturating_sub(1);
    within(QpAttrMask::PKEY_INDEX, "pkey_index", attr.pkey_index.into(), 0, last_pkey)?;
    within(QpAttrMask::PORT, "port_num", attr.port_num.into(), 1, limits.phys_port_cnt.into())?;
    if mask.contains(QpAttrMask::AV) {
        check_address_vector(&attr.ah_attr, limits, port)?;
    }
    let mtu = u64::from(attr.path_mtu.bytes());
    within(QpAttrMask::PATH_MTU, "path_mtu", mtu, 256, port.active_mtu.bytes().into())?;
    within(QpAttrMask::TIMEOUT, "timeout", attr.timeout.into(), 0, MAX_TIMEOUT.into())?;
    within(QpAttrMask::RETRY_CNT, "retry_cnt", attr.retry_cnt.into(), 0, MAX_RETRY_CNT.into())?;
    within(QpAttrMask::RNR_RETRY, "rnr_retry", attr.rnr_retry.into(), 0, MAX_RNR_RETRY.into())?;
    let timer = u64::from(attr.min_rnr_timer);
    within(QpAttrMask::MIN_RNR_TIMER, "min_rnr_timer", timer, 0, MAX_MIN_RNR_TIMER.into())?;
    let depth = u64::from(attr.max_rd_atomic);
    within(QpAttrMask::MAX_QP_RD_ATOMIC, "max_rd_atomic", depth, 0, limits.max_qp_init_rd_atom.into())?;
    let depth = u64::from(attr.max_dest_rd_atomic);
    within(QpAttrMask::MAX_DEST_RD_ATOMIC, "max_dest_rd_atomic", depth, 0, limits.max_qp_rd_atom.into())
}

/// Whether an address vector, of a queue pair or of an address handle, can be used on this port.
///
/// # Errors
///
/// The first value out of range.
pub fn check_address_vector(
    av: &AddressVector,
    limits: &DeviceAttr,
    port: &PortAttr,
) -> Result<(), ModifyError> {
    in_range("ah_attr.port_num", av.port_num.into(), 1, limits.phys_port_cnt.into())?;
    in_range("ah_attr.sl", av.sl.into(), 0, MAX_SL.into())?;
    if av.is_global {
        let last_gid = u64::from(port.gid_tbl_len).saturating_sub(1);
        in_range("ah_attr.sgid_index", av.sgid_index.into(), 0, last_gid)?;
        in_range("ah_attr.flow_label", av.flow_label.into(), 0, MAX_FLOW_LABEL.into())?;
    }
    Ok(())
}

/// Whether a queue pair of this size can be created on the device (`ibv_create_qp(3)`).
///
/// # Errors
///
/// The first size that is more than the device has.
pub fn check_cap(cap: &QpCap, limits: &DeviceAttr) -> Result<(), ModifyError> {
    in_range("cap.max_send_wr", cap.max_send_wr.into(), 0, limits.max_qp_wr.into())?;
    in_range("cap.max_recv_wr", cap.max_recv_wr.into(), 0, limits.max_qp_wr.into())?;
    in_range("cap.max_send_sge", cap.max_send_sge.into(), 0, limits.max_sge.into())?;
    in_range("cap.max_recv_sge", cap.max_recv_sge.into(), 0, limits.max_sge.into())?;
    in_range("cap.max_inline_data", cap.max_inline_data.into(), 0, limits.max_inline_data.into())
}

/// What a device has no use for, even where the transition would admit it.
const fn unsupported(limits: &DeviceAttr) -> QpAttrMask {
    if limits.device_cap_flags & DEVICE_AUTO_PATH_MIG == 0 {
        mask!(ALT_PATH PATH_MIG_STATE CAP RATE_LIMIT)
    } else {
        mask!(CAP RATE_LIMIT)
    }
}

const fn in_range(attribute: &'static str, value: u64, min: u64, max: u64) -> Result<(), ModifyError> {
    if value >= min && value <= max {
        Ok(())
    } else {
        Err(ModifyError::OutOfRange { attribute, value, min, max })
    }
}

/// A step from one state of a queue pair to another, as error messages name it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Transition {
    /// The transport service.
    pub qp_type: QpType,
    /// The state it is in.
    pub from: QpState,
    /// The state asked for.
    pub to: QpState,
}

impl fmt::Display for Transition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} queue pair from {} to {}", self.qp_type, self.from, self.to)
    }
}

/// Why a queue pair is not changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ModifyError {
    /// There is no such transition.
    #[error(
        "taking a {step} is no legal transition: from {} it can go to {}",
        .step.from, Successors(*.step)
    )]
    IllegalTransition {
        /// The transition asked for.
        step: Transition,
    },
    /// The queue pair is not in the state that the caller believes.
    #[error(
        "the queue pair is in {current} and not in {believed} as cur_qp_state says: query its state and decide again"
    )]
    WrongCurrentState {
        /// The state it is in.
        current: QpState,
        /// The state the caller gave.
        believed: QpState,
    },
    /// Attributes are missing that the transition needs.
    #[error("taking a {step} also needs {missing}: set those attributes and their bits in the mask")]
    MissingAttributes {
        /// The transition asked for.
        step: Transition,
        /// What is missing.
        missing: QpAttrMask,
    },
    /// Attributes are given that cannot be changed in the transition.
    #[error("taking a {step} cannot change {invalid}: clear those bits of the mask")]
    InvalidAttributes {
        /// The transition asked for.
        step: Transition,
        /// What has no place in it.
        invalid: QpAttrMask,
    },
    /// Attributes are given that this device does not have.
    #[error("this device cannot change {0}: it has no such feature; clear those bits of the mask")]
    Unsupported(QpAttrMask),
    /// Access rights with bits that mean nothing.
    #[error("qp_access_flags {access} contain unknown bits {unknown:#x}: clear them")]
    UnknownAccess {
        /// The rights asked for.
        access: Access,
        /// Only the bits that are not understood.
        unknown: u32,
    },
    /// A value outside what device and port can take.
    #[error("{attribute} is {value}, but this device takes {min} to {max}: choose a value in that range")]
    OutOfRange {
        /// The attribute, as the field is named.
        attribute: &'static str,
        /// The value given.
        value: u64,
        /// The smallest that is taken.
        min: u64,
        /// The largest that is taken.
        max: u64,
    },
}

/// Prints the states a queue pair can go to from where it is.
struct Successors(Transition);

impl fmt::Display for Successors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Transition { qp_type, from, .. } = self.0;
        let legal = QpState::ALL.iter().filter(|&&to| transition(qp_type, from, to).is_some());
        for (position, state) in legal.enumerate() {
            let separator = if position == 0 { "" } else { ", " };
            write!(f, "{separator}{state}")?;
        }
        Ok(())
    }
}
