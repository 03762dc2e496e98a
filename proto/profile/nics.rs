//! Profiles of network cards. The numbers are what the devices report of themselves, or this crate's where those are smaller:
//! a profile narrows.

use super::{Profile, Switches};
use crate::limits::{
    self, AtomicCap, DEVICE_MEM_MGT_EXTENSIONS, DEVICE_MEM_WINDOW, DEVICE_MEM_WINDOW_TYPE_2B,
    DEVICE_PORT_ACTIVE_EVENT, DEVICE_RC_RNR_NAK_GEN, DEVICE_SYS_IMAGE_GUID, DeviceAttr, PortAttr,
};

impl Profile {
    /// Linux's software RoCE. Source: `drivers/infiniband/sw/rxe/rxe_param.h` of Linux 6.x, and what `ibv_devinfo -v` prints of it.
    pub fn rxe() -> Self {
        Self {
            name: Self::NAMES[1],
            device: DeviceAttr {
                fw_ver: "0.0.0".to_owned(),
                vendor_id: 0x00ff_ffff,
                page_size_cap: 0xffff_f000,
                device_cap_flags: NIC_FLAGS,
                max_sge: 32,
                max_sge_rd: 32,
                max_cqe: (1 << 15) - 1,
                max_qp_rd_atom: 128,
                max_qp_init_rd_atom: 128,
                max_ah: (1 << 15) - 1,
                max_srq_sge: 27,
                local_ca_ack_delay: 15,
                max_inline_data: 512,
                ..DeviceAttr::default()
            },
            port: PortAttr { active_width: 1, active_speed: 1, ..PortAttr::default() },
            switches: Switches::default(),
        }
    }

    /// An adapter like a ConnectX-5 on 100 Gb/s Ethernet. Source: `ibv_devinfo -v` in openucx/ucx#9830 and
    /// open-mpi/ompi#6137 (part 4119, MT27800).
    pub fn connectx() -> Self {
        Self {
            name: Self::NAMES[2],
            device: DeviceAttr {
                fw_ver: "16.27.1016".to_owned(),
                vendor_id: 0x02c9,
                vendor_part_id: 4119,
                page_size_cap: 0xffff_ffff_ffff_f000,
                device_cap_flags: NIC_FLAGS,
                max_sge: 30,
                max_sge_rd: 30,
                max_qp_rd_atom: 16,
                max_qp_init_rd_atom: 16,
                atomic_cap: AtomicCap::Hca,
                max_srq_sge: 31,
                local_ca_ack_delay: 16,
                ..DeviceAttr::default()
            },
            port: PortAttr {
                max_msg_sz: 0x4000_0000,
                // 4X at 25 Gb/s.
                active_width: 2,
                active_speed: 32,
                ..PortAttr::default()
            },
            switches: Switches::default(),
        }
    }
}

/// What both say they do, of that which there is here.
const NIC_FLAGS: u32 = DEVICE_PORT_ACTIVE_EVENT
    | DEVICE_SYS_IMAGE_GUID
    | DEVICE_RC_RNR_NAK_GEN
    | DEVICE_MEM_WINDOW
    | DEVICE_MEM_MGT_EXTENSIONS
    | DEVICE_MEM_WINDOW_TYPE_2B;

// Where the devices have more than this crate, its own bounds stand.
const _: () = assert!(limits::MAX_SGE >= 32 && limits::MAX_INLINE_DATA >= 512 && limits::MAX_CQE >= 1 << 15);
