//! The attributes of a queue pair, their mask, and the codes some of them are written in.

use core::fmt;
use core::time::Duration;

use bitflags::bitflags;

use crate::flags::{Access, display_flags};
use crate::ident::{Gid, Psn, Qpn};
use crate::qp::QpState;
use crate::raw::raw_enum;

bitflags! {
    /// Which fields of a [`QpAttr`] a call is about (`enum ibv_qp_attr_mask`).
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
    pub struct QpAttrMask: u32 {
        /// `qp_state`.
        const STATE = 1;
        /// `cur_qp_state`: the caller's belief, to be checked.
        const CUR_STATE = 1 << 1;
        /// `en_sqd_async_notify`.
        const EN_SQD_ASYNC_NOTIFY = 1 << 2;
        /// `qp_access_flags`.
        const ACCESS_FLAGS = 1 << 3;
        /// `pkey_index`.
        const PKEY_INDEX = 1 << 4;
        /// `port_num`.
        const PORT = 1 << 5;
        /// `qkey`.
        const QKEY = 1 << 6;
        /// `ah_attr`.
        const AV = 1 << 7;
        /// `path_mtu`.
        const PATH_MTU = 1 << 8;
        /// `timeout`.
        const TIMEOUT = 1 << 9;
        /// `retry_cnt`.
        const RETRY_CNT = 1 << 10;
        /// `rnr_retry`.
        const RNR_RETRY = 1 << 11;
        /// `rq_psn`.
        const RQ_PSN = 1 << 12;
        /// `max_rd_atomic`.
        const MAX_QP_RD_ATOMIC = 1 << 13;
        /// The alternate path; no device here has one.
        const ALT_PATH = 1 << 14;
        /// `min_rnr_timer`.
        const MIN_RNR_TIMER = 1 << 15;
        /// `sq_psn`.
        const SQ_PSN = 1 << 16;
        /// `max_dest_rd_atomic`.
        const MAX_DEST_RD_ATOMIC = 1 << 17;
        /// The state of path migration; no device here has it.
        const PATH_MIG_STATE = 1 << 18;
        /// `cap`: resizing the queues; no device here does it.
        const CAP = 1 << 19;
        /// `dest_qp_num`.
        const DEST_QPN = 1 << 20;
        /// A packet pacing rate (raw packet queue pairs only).
        const RATE_LIMIT = 1 << 25;
    }
}

display_flags!(QpAttrMask);

raw_enum! {
    /// A path MTU: the payload bytes of a full packet (`enum ibv_mtu`).
    #[derive(Default)]
    u32 pub enum Mtu {
        /// 256 bytes.
        B256 = 1,
        /// 512 bytes.
        B512 = 2,
        /// 1024 bytes.
        #[default]
        B1024 = 3,
        /// 2048 bytes.
        B2048 = 4,
        /// 4096 bytes.
        B4096 = 5,
    }
}

impl Mtu {
    /// The size in bytes.
    #[inline]
    pub const fn bytes(self) -> u32 {
        128 << self.raw()
    }

    /// The MTU of exactly this many bytes, if there is one.
    pub const fn from_bytes(bytes: u32) -> Option<Self> {
        match bytes {
            256 => Some(Self::B256),
            512 => Some(Self::B512),
            1024 => Some(Self::B1024),
            2048 => Some(Self::B2048),
            4096 => Some(Self::B4096),
            _ => None,
        }
    }
}

impl fmt::Display for Mtu {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.bytes(), f)
    }
}

/// The way to a peer's port (`struct ibv_ah_attr`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct AddressVector {
    /// The peer's LID; not used on RoCE.
    pub dlid: u16,
    /// Service level, in `0..16`.
    pub sl: u8,
    /// Whether the fields of the global routing header below mean something. On RoCE they must.
    pub is_global: bool,
    /// The peer's GID.
    pub dgid: Gid,
    /// Which of our port's GIDs is the source.
    pub sgid_index: u8,
    /// Flow label, 20 bits.
    pub flow_label: u32,
    /// Hop limit.
    pub hop_limit: u8,
    /// Traffic class.
    pub traffic_class: u8,
    /// Our port, counted from 1.
    pub port_num: u8,
    /// Path bits of the source LID.
    pub src_path_bits: u8,
}

/// The size of a queue pair (`struct ibv_qp_cap`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct QpCap {
    /// Outstanding sends.
    pub max_send_wr: u32,
    /// Outstanding receives.
    pub max_recv_wr: u32,
    /// Scatter/gather entries of a send.
    pub max_send_sge: u32,
    /// Scatter/gather entries of a receive.
    pub max_recv_sge: u32,
    /// Inline bytes of a send.
    pub max_inline_data: u32,
}

/// The attributes of a queue pair (`struct ibv_qp_attr`).
///
/// Which fields count is said by a [`QpAttrMask`] beside it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct QpAttr {
    /// The state to go to, or the one it is in.
    pub qp_state: QpState,
    /// The state the caller believes it is in.
    pub cur_qp_state: QpState,
    /// Payload bytes of a full packet.
    pub path_mtu: Mtu,
    /// UD: the Q_Key packets must carry to be received.
    pub qkey: u32,
    /// The first PSN expected.
    pub rq_psn: Psn,
    /// The first PSN sent.
    pub sq_psn: Psn,
    /// The peer's queue pair.
    pub dest_qp_num: Qpn,
    /// What the peer may do through this queue pair; only the remote rights count.
    pub qp_access_flags: Access,
    /// The size of its queues.
    pub cap: QpCap,
    /// The way to the peer.
    pub ah_attr: AddressVector,
    /// Which partition key of the port.
    pub pkey_index: u16,
    /// Whether to raise [`SqDrained`](crate::AsyncEventKind::SqDrained) when SQD is drained.
    pub en_sqd_async_notify: bool,
    /// Only when queried: whether SQD is still draining.
    pub sq_draining: bool,
    /// RDMA READs and atomics it may have outstanding.
    pub max_rd_atomic: u8,
    /// RDMA READs and atomics it serves at once.
    pub max_dest_rd_atomic: u8,
    /// How long a peer must wait after a receiver-not-ready NAK, as a code: see [`rnr_timer`].
    pub min_rnr_timer: u8,
    /// Its port, counted from 1.
    pub port_num: u8,
    /// How long to wait for an acknowledgement, as a code: see [`ack_timeout`].
    pub timeout: u8,
    /// How often to retry after a timeout or sequence error, at most 7.
    pub retry_cnt: u8,
    /// How often to retry after a receiver-not-ready NAK, 7 being for ever.
    pub rnr_retry: u8,
}

/// The delays of a receiver-not-ready NAK by code, in units of 10 microseconds (IBTA volume 1, table 45).
const RNR_TIMER_10_US: [u64; 32] = [
    65_536, 1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512, 768, 1_024, 1_536, 2_048,
    3_072, 4_096, 6_144, 8_192, 12_288, 16_384, 24_576, 32_768, 49_152,
];

/// The delay that `min_rnr_timer` code `code` stands for; only its low five bits count.
///
/// Code 0 is the longest, 655.36 ms; 1 to 31 go from 10 us to 491.52 ms.
#[inline]
pub const fn rnr_timer(code: u8) -> Duration {
    Duration::from_micros(RNR_TIMER_10_US[(code & 31) as usize] * 10)
}

/// The acknowledgement timeout that `timeout` code `code` stands for: 4.096 us * 2^code, or `None`, which is
/// for ever, for code 0 (IBTA volume 1, section 9.7.6.1.3). Only the low five bits count.
#[inline]
pub const fn ack_timeout(code: u8) -> Option<Duration> {
    match code & 31 {
        0 => None,
        code => Some(Duration::from_nanos(4_096 << code)),
    }
}
