//! What a device says of itself, in our words.

use super::fault::{check, missing, refused};
use super::handle::Handle;
use super::platform;
use crate::error::{Error, Result};
use core::ffi::{c_char, c_int};
use core::mem::MaybeUninit;
use core::ptr::null_mut;
use tbrdma_abi::*;
use tbrdma_proto::{
    AtomicCap, DeviceAttr, Gid, Guid, LinkLayer, MAX_INLINE_DATA, Mtu, OdpCaps, PORT, PortAttr, PortState,
    Profile, QpType,
};

/// A number of C's that cannot be negative.
fn count(number: c_int) -> u32 {
    u32::try_from(number).unwrap_or(0)
}

/// The text in an array of characters.
fn text(characters: &[c_char]) -> String {
    let bytes: Vec<u8> = characters.iter().map(|c| *c as u8).take_while(|byte| *byte != 0).collect();
    String::from_utf8_lossy(&bytes).into_owned()
}

impl Handle {
    /// Capabilities and limits; the number of inline bytes is none of them. One port is told of: a context has the first.
    pub(super) fn query_device(&self) -> Result<DeviceAttr> {
        let call = "query_device";
        let Some(query) = self.library.ibv_query_device else {
            // A Mac's programs know its limits without asking.
            return Ok(Profile::apple_tb5().device);
        };
        let mut attr = MaybeUninit::<ibv_device_attr>::zeroed();
        // SAFETY: an open context, and room for the answer.
        check(call, &self.name, unsafe { query(self.context(), attr.as_mut_ptr()) })?;
        // SAFETY: numbers and characters, of which any bits are some.
        let attr = unsafe { attr.assume_init() };
        Ok(DeviceAttr {
            fw_ver: text(&attr.fw_ver),
            node_guid: Guid(u64::from_be(attr.node_guid)),
            sys_image_guid: Guid(u64::from_be(attr.sys_image_guid)),
            max_mr_size: attr.max_mr_size,
            page_size_cap: attr.page_size_cap,
            vendor_id: attr.vendor_id,
            vendor_part_id: attr.vendor_part_id,
            hw_ver: attr.hw_ver,
            max_qp: count(attr.max_qp),
            max_qp_wr: count(attr.max_qp_wr),
            device_cap_flags: attr.device_cap_flags,
            max_sge: count(attr.max_sge),
            max_sge_rd: count(attr.max_sge_rd),
            max_cq: count(attr.max_cq),
            max_cqe: count(attr.max_cqe),
            max_mr: count(attr.max_mr),
            max_mw: count(attr.max_mw),
            max_pd: count(attr.max_pd),
            max_qp_rd_atom: count(attr.max_qp_rd_atom),
            max_qp_init_rd_atom: count(attr.max_qp_init_rd_atom),
            atomic_cap: AtomicCap::from_raw(attr.atomic_cap as u32).unwrap_or_default(),
            max_ah: count(attr.max_ah),
            max_srq: count(attr.max_srq),
            max_srq_wr: count(attr.max_srq_wr),
            max_srq_sge: count(attr.max_srq_sge),
            max_pkeys: attr.max_pkeys,
            local_ca_ack_delay: attr.local_ca_ack_delay,
            phys_port_cnt: PORT,
            max_inline_data: 0,
            odp_caps: OdpCaps::NONE,
        })
    }

    /// The port as it is now.
    pub(super) fn query_port(&self) -> Result<PortAttr> {
        let mut attr = MaybeUninit::<ibv_port_attr>::zeroed();
        // SAFETY: an open context, and room for the answer, of which this function fills the part that all programs know.
        let returned = unsafe { (self.library.ibv_query_port)(self.context(), PORT, attr.as_mut_ptr()) };
        check("query_port", &self.name, returned)?;
        // SAFETY: numbers, of which any bits are some.
        let attr = unsafe { attr.assume_init() };
        let mtu = |code: c_int| Mtu::from_raw(count(code)).unwrap_or_default();
        Ok(PortAttr {
            state: PortState::from_raw(count(attr.state)).unwrap_or_default(),
            max_mtu: mtu(attr.max_mtu),
            active_mtu: mtu(attr.active_mtu),
            gid_tbl_len: count(attr.gid_tbl_len),
            port_cap_flags: attr.port_cap_flags,
            max_msg_sz: attr.max_msg_sz,
            bad_pkey_cntr: attr.bad_pkey_cntr,
            qkey_viol_cntr: attr.qkey_viol_cntr,
            pkey_tbl_len: attr.pkey_tbl_len,
            lid: attr.lid,
            sm_lid: attr.sm_lid,
            lmc: attr.lmc,
            max_vl_num: attr.max_vl_num,
            sm_sl: attr.sm_sl,
            subnet_timeout: attr.subnet_timeout,
            init_type_reply: attr.init_type_reply,
            active_width: attr.active_width,
            active_speed: attr.active_speed,
            phys_state: attr.phys_state,
            link_layer: LinkLayer::from_raw(attr.link_layer.into()).unwrap_or_default(),
        })
    }

    /// An entry of the port's GID table; zero if it is not used.
    pub(super) fn query_gid(&self, index: u32) -> Result<Gid> {
        let mut gid = ibv_gid::default();
        let index = c_int::try_from(index).unwrap_or(c_int::MAX);
        // SAFETY: an open context, and room for the answer.
        let returned = unsafe { (self.library.ibv_query_gid)(self.context(), PORT, index, &raw mut gid) };
        check("query_gid", &self.name, returned)?;
        Ok(Gid(gid.raw))
    }

    /// An entry of the port's P_Key table.
    pub(super) fn query_pkey(&self, index: u16) -> Result<u16> {
        let call = "query_pkey";
        let query = self.library.ibv_query_pkey.ok_or_else(|| missing(call, &self.name, "P_Keys"))?;
        let mut pkey = 0;
        // SAFETY: an open context, and room for the answer.
        let returned = unsafe { query(self.context(), PORT, index.into(), &raw mut pkey) };
        check(call, &self.name, returned)?;
        Ok(u16::from_be(pkey))
    }

    /// Most inline bytes of a send. No call tells, so it is tried: the most of the sizes that programs ask for with which a queue pair can be made.
    pub(super) fn try_inline(&self) -> u32 {
        if !platform::TRIES_INLINE {
            return 0;
        }
        let sizes = [MAX_INLINE_DATA, 400, 256, 220, 128, 96, 64, 32];
        let tried = || -> Result<u32, Error> {
            // SAFETY: the context is open.
            let pd = unsafe { (self.library.ibv_alloc_pd)(self.context()) };
            if pd.is_null() {
                return Err(refused("alloc_pd", &self.name, std::io::Error::last_os_error()));
            }
            // SAFETY: the context is open; no channel and no context of ours.
            let cq = unsafe { (self.library.ibv_create_cq)(self.context(), 1, null_mut(), null_mut(), 0) };
            let found = if cq.is_null() { 0 } else { self.largest_inline(pd, cq, &sizes) };
            if !cq.is_null() {
                // SAFETY: made above, and its queue pairs are gone.
                unsafe { (self.library.ibv_destroy_cq)(cq) };
            }
            // SAFETY: made above, and what was in it is gone.
            unsafe { (self.library.ibv_dealloc_pd)(pd) };
            Ok(found)
        };
        tried().unwrap_or(0)
    }

    fn largest_inline(&self, pd: *mut ibv_pd, cq: *mut ibv_cq, sizes: &[u32]) -> u32 {
        let fits = |bytes: &&u32| {
            let cap = ibv_qp_cap {
                max_send_wr: 1,
                max_recv_wr: 1,
                max_send_sge: 1,
                max_recv_sge: 1,
                max_inline_data: **bytes,
            };
            let mut init = ibv_qp_init_attr {
                qp_context: null_mut(),
                send_cq: cq,
                recv_cq: cq,
                srq: null_mut(),
                cap,
                qp_type: QpType::Rc.raw(),
                sq_sig_all: 0,
            };
            // SAFETY: a domain and a completion queue of this context.
            let qp = unsafe { (self.library.ibv_create_qp)(pd, &raw mut init) };
            if qp.is_null() {
                return false;
            }
            // SAFETY: made just now.
            unsafe { (self.library.ibv_destroy_qp)(qp) };
            true
        };
        sizes.iter().find(fits).copied().unwrap_or(0)
    }
}
