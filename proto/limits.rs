//! Every bound in one place, and the two attribute structs that report them to applications.
//!
//! A profile may lower a bound for one device; nothing may raise one. Relations between the bounds are
//! checked when the crate is compiled.

use crate::ident::Guid;
use crate::qp::Mtu;
use crate::raw::raw_enum;
use crate::region::{QUARANTINE, RegionTable};
use crate::work::Sge;

/// Scatter/gather entries of one work request.
pub const MAX_SGE: u32 = 32;
/// Scatter/gather entries of one RDMA READ.
pub const MAX_SGE_RD: u32 = MAX_SGE;
/// Payload bytes that may be copied into a work request.
pub const MAX_INLINE_DATA: u32 = 512;
/// Outstanding work requests of one send or receive queue.
pub const MAX_QP_WR: u32 = 16_384;
/// Queue pairs of one device.
pub const MAX_QP: u32 = 16_000;
/// Entries of one completion queue.
pub const MAX_CQE: u32 = 1 << 20;
/// Completion queues of one device.
pub const MAX_CQ: u32 = 16_000;
/// Memory regions of one device, and memory windows: each takes the place of one of the other.
pub const MAX_MR: u32 = 65_535;
/// Bytes of one memory region: a process' half of a 48-bit address space.
pub const MAX_MR_SIZE: u64 = 1 << 47;
/// Bytes of one message: the most the InfiniBand transport carries.
pub const MAX_MSG_SIZE: u64 = 1 << 31;
/// RDMA READs and atomics that a queue pair may have outstanding, and may serve at once.
pub const MAX_QP_RD_ATOM: u32 = 128;
/// Shared receive queues of one device.
pub const MAX_SRQ: u32 = 1_024;
/// Outstanding receives of one shared receive queue.
pub const MAX_SRQ_WR: u32 = 16_384;
/// Scatter/gather entries of one receive in a shared receive queue.
pub const MAX_SRQ_SGE: u32 = MAX_SGE;
/// Address handles of one device.
pub const MAX_AH: u32 = 65_536;
/// Protection domains of one device.
pub const MAX_PD: u32 = 65_535;
/// Bytes in front of every UD receive that are reserved for a global routing header.
pub const GRH_BYTES: u32 = 40;
/// The number of the one port of a device; ports are counted from 1.
pub const PORT: u8 = 1;
/// Ports of a device.
pub const PHYS_PORT_CNT: u8 = 1;
/// Entries of the partition key table.
pub const PKEY_TABLE_LEN: u16 = 1;
/// The partition key every port is a full member of.
pub const DEFAULT_PKEY: u16 = 0xffff;
/// Entries of the GID table.
pub const GID_TABLE_LEN: u32 = 16;
/// Bytes an atomic works on.
pub const ATOMIC_BYTES: u32 = 8;
/// Largest `timeout` of a queue pair: five bits (IBTA volume 1, section 9.7.6.1.3).
pub const MAX_TIMEOUT: u8 = 31;
/// Largest `retry_cnt` of a queue pair: three bits.
pub const MAX_RETRY_CNT: u8 = 7;
/// Largest `rnr_retry` of a queue pair; it means to retry for ever.
pub const MAX_RNR_RETRY: u8 = 7;
/// Largest `min_rnr_timer` of a queue pair: five bits.
pub const MAX_MIN_RNR_TIMER: u8 = 31;
/// Largest service level: four bits.
pub const MAX_SL: u8 = 15;
/// Largest flow label: twenty bits.
pub const MAX_FLOW_LABEL: u32 = (1 << 20) - 1;

/// The device moves connections to alternate paths (`IBV_DEVICE_AUTO_PATH_MIG`).
pub const DEVICE_AUTO_PATH_MIG: u32 = 1 << 4;
/// The device checks the current state given to modify-QP (`IBV_DEVICE_CURR_QP_STATE_MOD`).
pub const DEVICE_CURR_QP_STATE_MOD: u32 = 1 << 7;
/// The device reports that its port came up (`IBV_DEVICE_PORT_ACTIVE_EVENT`).
pub const DEVICE_PORT_ACTIVE_EVENT: u32 = 1 << 10;
/// The device has a system image GUID (`IBV_DEVICE_SYS_IMAGE_GUID`).
pub const DEVICE_SYS_IMAGE_GUID: u32 = 1 << 11;
/// The device has memory windows of type 1 (`IBV_DEVICE_MEM_WINDOW`).
pub const DEVICE_MEM_WINDOW: u32 = 1 << 17;
/// The device invalidates keys, by itself and for peers (`IBV_DEVICE_MEM_MGT_EXTENSIONS`).
pub const DEVICE_MEM_MGT_EXTENSIONS: u32 = 1 << 21;
/// The device has memory windows of type 2B (`IBV_DEVICE_MEM_WINDOW_TYPE_2B`).
pub const DEVICE_MEM_WINDOW_TYPE_2B: u32 = 1 << 24;
/// RC responders send receiver-not-ready NAKs (`IBV_DEVICE_RC_RNR_NAK_GEN`).
pub const DEVICE_RC_RNR_NAK_GEN: u32 = 1 << 12;

// Queue pair numbers are 24 bits, and the management ones are taken.
const _: () = assert!(MAX_QP < (1 << 24) - 2);
// A completion queue can serve both queues of a queue pair at full depth.
const _: () = assert!(MAX_CQE >= 2 * MAX_QP_WR);
// Every region has an index in a key.
const _: () = assert!(MAX_MR as usize <= RegionTable::<()>::MAX_CAPACITY);
// Retired keys can rest while others are in use.
const _: () = assert!(MAX_MR as usize >= 2 * QUARANTINE);
// A message fits a region, and the u32 byte count of a completion.
const _: () = assert!(MAX_MSG_SIZE <= MAX_MR_SIZE && MAX_MSG_SIZE <= u32::MAX as u64);
// A scatter/gather list of the largest size cannot overflow the sum of its lengths.
const _: () = assert!((MAX_SGE as u64).checked_mul(u32::MAX as u64).is_some());
// Inline bytes fit where the scatter/gather list of the same request would be.
const _: () = assert!(MAX_INLINE_DATA as usize <= MAX_SGE as usize * size_of::<Sge>());
// Read depths are u8 attributes.
const _: () = assert!(MAX_QP_RD_ATOM <= u8::MAX as u32);
// GIDs are named by a u8 index.
const _: () = assert!(GID_TABLE_LEN <= 1 << 8);
const _: () = assert!(PORT >= 1 && PORT <= PHYS_PORT_CNT && PKEY_TABLE_LEN >= 1 && GID_TABLE_LEN >= 1);
const _: () = assert!(MAX_SGE_RD <= MAX_SGE && MAX_SRQ_SGE <= MAX_SGE && MAX_SRQ_WR <= MAX_CQE);

raw_enum! {
    /// With whom atomics are atomic (`enum ibv_atomic_cap`).
    #[derive(Default)]
    u32 pub enum AtomicCap {
        /// There are no atomics.
        #[default]
        None = 0,
        /// Among the queue pairs of this device.
        Hca = 1,
        /// Also with the CPUs and other devices of this machine.
        Glob = 2,
    }
}

/// On-demand paging works (`IBV_ODP_SUPPORT`).
pub const ODP_SUPPORT: u64 = 1;
/// Of SENDs from such memory (`IBV_ODP_SUPPORT_SEND`).
pub const ODP_SUPPORT_SEND: u32 = 1;
/// Of receives into it (`IBV_ODP_SUPPORT_RECV`).
pub const ODP_SUPPORT_RECV: u32 = 1 << 1;
/// Of RDMA WRITEs from and to it (`IBV_ODP_SUPPORT_WRITE`).
pub const ODP_SUPPORT_WRITE: u32 = 1 << 2;
/// Of RDMA READs (`IBV_ODP_SUPPORT_READ`).
pub const ODP_SUPPORT_READ: u32 = 1 << 3;
/// Of atomics (`IBV_ODP_SUPPORT_ATOMIC`).
pub const ODP_SUPPORT_ATOMIC: u32 = 1 << 4;
/// Of receives of a shared queue (`IBV_ODP_SUPPORT_SRQ_RECV`).
pub const ODP_SUPPORT_SRQ_RECV: u32 = 1 << 5;

/// What may be done with memory registered `ON_DEMAND` (`struct ibv_odp_caps`): here the CPU copies, so pages come by themselves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OdpCaps {
    /// [`ODP_SUPPORT`], or 0 for none at all.
    pub general: u64,
    /// `ODP_SUPPORT_*` bits by transport.
    pub rc: u32,
    /// As above.
    pub uc: u32,
    /// As above.
    pub ud: u32,
}

impl OdpCaps {
    /// There is no such memory.
    pub const NONE: Self = Self { general: 0, rc: 0, uc: 0, ud: 0 };
    /// Whatever a transport does.
    pub const ALL: Self = {
        let ud = ODP_SUPPORT_SEND | ODP_SUPPORT_RECV | ODP_SUPPORT_SRQ_RECV;
        let uc = ud | ODP_SUPPORT_WRITE;
        Self { general: ODP_SUPPORT, rc: uc | ODP_SUPPORT_READ | ODP_SUPPORT_ATOMIC, uc, ud }
    };
}

/// What a device can do (`struct ibv_device_attr`, and `max_inline_data` besides).
///
/// The default is every bound at the value in this module, and a device without names: whoever makes a
/// device fills in `fw_ver`, `node_guid` and `sys_image_guid`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceAttr {
    /// Version of the firmware, or of what stands for it.
    pub fw_ver: String,
    /// The device's GUID.
    pub node_guid: Guid,
    /// The GUID of the machine, or board, it is part of.
    pub sys_image_guid: Guid,
    /// Bytes of one memory region.
    pub max_mr_size: u64,
    /// Page sizes, as a set of powers of two in bytes.
    pub page_size_cap: u64,
    /// IEEE number of the vendor; 0 for none.
    pub vendor_id: u32,
    /// The vendor's number of the part.
    pub vendor_part_id: u32,
    /// Version of the hardware.
    pub hw_ver: u32,
    /// Queue pairs.
    pub max_qp: u32,
    /// Outstanding work requests of a send or receive queue.
    pub max_qp_wr: u32,
    /// `IBV_DEVICE_*` bits, of which this module names the ones with a meaning here.
    pub device_cap_flags: u32,
    /// Scatter/gather entries of a work request.
    pub max_sge: u32,
    /// Scatter/gather entries of an RDMA READ.
    pub max_sge_rd: u32,
    /// Completion queues.
    pub max_cq: u32,
    /// Entries of a completion queue.
    pub max_cqe: u32,
    /// Memory regions.
    pub max_mr: u32,
    /// Memory windows.
    pub max_mw: u32,
    /// Protection domains.
    pub max_pd: u32,
    /// RDMA READs and atomics a queue pair can serve at once (`max_dest_rd_atomic`).
    pub max_qp_rd_atom: u32,
    /// RDMA READs and atomics a queue pair can have outstanding (`max_rd_atomic`).
    pub max_qp_init_rd_atom: u32,
    /// With whom atomics are atomic.
    pub atomic_cap: AtomicCap,
    /// Address handles.
    pub max_ah: u32,
    /// Shared receive queues.
    pub max_srq: u32,
    /// Outstanding receives of a shared receive queue.
    pub max_srq_wr: u32,
    /// Scatter/gather entries of a receive in a shared receive queue.
    pub max_srq_sge: u32,
    /// Partition keys.
    pub max_pkeys: u16,
    /// How long the device may take to acknowledge: 4.096 us * 2^n.
    pub local_ca_ack_delay: u8,
    /// Ports.
    pub phys_port_cnt: u8,
    /// Payload bytes that may be copied into a work request.
    pub max_inline_data: u32,
    /// What may be done with memory registered `ON_DEMAND`.
    pub odp_caps: OdpCaps,
}

impl Default for DeviceAttr {
    fn default() -> Self {
        Self {
            fw_ver: String::new(),
            node_guid: Guid(0),
            sys_image_guid: Guid(0),
            max_mr_size: MAX_MR_SIZE,
            page_size_cap: 0xffff_f000,
            // Of nobody, as rdma_rxe has it: programs take 0 for a device that does not answer.
            vendor_id: 0x00ff_ffff,
            vendor_part_id: 0,
            hw_ver: 0,
            max_qp: MAX_QP,
            max_qp_wr: MAX_QP_WR,
            device_cap_flags: DEVICE_CURR_QP_STATE_MOD
                | DEVICE_PORT_ACTIVE_EVENT
                | DEVICE_SYS_IMAGE_GUID
                | DEVICE_RC_RNR_NAK_GEN
                | DEVICE_MEM_WINDOW
                | DEVICE_MEM_MGT_EXTENSIONS
                | DEVICE_MEM_WINDOW_TYPE_2B,
            max_sge: MAX_SGE,
            max_sge_rd: MAX_SGE_RD,
            max_cq: MAX_CQ,
            max_cqe: MAX_CQE,
            max_mr: MAX_MR,
            max_mw: MAX_MR,
            max_pd: MAX_PD,
            max_qp_rd_atom: MAX_QP_RD_ATOM,
            max_qp_init_rd_atom: MAX_QP_RD_ATOM,
            atomic_cap: AtomicCap::Hca,
            max_ah: MAX_AH,
            max_srq: MAX_SRQ,
            max_srq_wr: MAX_SRQ_WR,
            max_srq_sge: MAX_SRQ_SGE,
            max_pkeys: PKEY_TABLE_LEN,
            local_ca_ack_delay: 15,
            phys_port_cnt: PHYS_PORT_CNT,
            max_inline_data: MAX_INLINE_DATA,
            odp_caps: OdpCaps::ALL,
        }
    }
}

raw_enum! {
    /// The logical state of a port (`enum ibv_port_state`).
    #[derive(Default)]
    u32 pub enum PortState {
        /// No change of state; only in requests.
        #[default]
        Nop = 0,
        /// Down.
        Down = 1,
        /// Up physically; only management can pass.
        Init = 2,
        /// Ready to become active.
        Armed = 3,
        /// Data can pass.
        Active = 4,
        /// Active, with the physical link being recovered.
        ActiveDefer = 5,
    }
}

raw_enum! {
    /// What kind of link a port is on (`IBV_LINK_LAYER_*`).
    ///
    /// The first three values are rdma-core's. `Thunderbolt` is the value Apple's librdma reports.
    #[derive(Default)]
    u32 pub enum LinkLayer {
        /// Not said; programs read it as InfiniBand.
        #[default]
        Unspecified = 0,
        /// InfiniBand: peers are named by LID, and by GID across subnets.
        InfiniBand = 1,
        /// Ethernet (RoCE): peers are named by GID.
        Ethernet = 2,
        /// Thunderbolt, on macOS.
        Thunderbolt = 100,
    }
}

/// What a port can do and how it is (`struct ibv_port_attr`).
///
/// The default is an active RoCE port at the bounds of this module. Width and speed have the lowest codes
/// there are, since a link that nobody measured must not boast.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PortAttr {
    /// Logical state.
    pub state: PortState,
    /// Largest path MTU the port supports.
    pub max_mtu: Mtu,
    /// Largest path MTU that can be used now.
    pub active_mtu: Mtu,
    /// Entries of the GID table.
    pub gid_tbl_len: u32,
    /// `IBV_PORT_*` bits.
    pub port_cap_flags: u32,
    /// Bytes of the largest message.
    pub max_msg_sz: u32,
    /// Packets refused for their partition key.
    pub bad_pkey_cntr: u32,
    /// Packets refused for their queue key.
    pub qkey_viol_cntr: u32,
    /// Entries of the partition key table.
    pub pkey_tbl_len: u16,
    /// The port's LID; 0 on RoCE.
    pub lid: u16,
    /// The subnet manager's LID; 0 on RoCE.
    pub sm_lid: u16,
    /// How many low bits of the LID may vary.
    pub lmc: u8,
    /// Code of the number of virtual lanes.
    pub max_vl_num: u8,
    /// The subnet manager's service level.
    pub sm_sl: u8,
    /// Code of the longest delay through the subnet.
    pub subnet_timeout: u8,
    /// How the subnet manager initialised the port.
    pub init_type_reply: u8,
    /// Code of the link's width: 1 is 1X, 2 is 4X, 4 is 8X, 8 is 12X, 16 is 2X.
    pub active_width: u8,
    /// Code of the speed of a lane: 1 is 2.5 Gb/s, 2 is 5, 4 and 8 are 10, 16 is 14, 32 is 25, 64 is 50.
    pub active_speed: u8,
    /// Physical state; 5 is "link up", 3 is "disabled".
    pub phys_state: u8,
    /// What kind of link it is.
    pub link_layer: LinkLayer,
}

impl PortAttr {
    /// The port while it is down.
    #[must_use]
    pub fn down(self) -> Self {
        /// The physical state "disabled".
        const DISABLED: u8 = 3;
        Self { state: PortState::Down, phys_state: DISABLED, ..self }
    }
}

impl Default for PortAttr {
    fn default() -> Self {
        Self {
            state: PortState::Active,
            max_mtu: Mtu::B4096,
            active_mtu: Mtu::B4096,
            gid_tbl_len: GID_TABLE_LEN,
            port_cap_flags: 0,
            max_msg_sz: MAX_MSG_SIZE as u32,
            bad_pkey_cntr: 0,
            qkey_viol_cntr: 0,
            pkey_tbl_len: PKEY_TABLE_LEN,
            lid: 0,
            sm_lid: 0,
            lmc: 0,
            max_vl_num: 1,
            sm_sl: 0,
            subnet_timeout: 0,
            init_type_reply: 0,
            active_width: 1,
            active_speed: 1,
            phys_state: 5,
            link_layer: LinkLayer::Ethernet,
        }
    }
}
