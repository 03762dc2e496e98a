//! What a device says of itself, in our words.

use super::fault::{check, missing, refused};
use super::handle::Handle;
use super::platform;
use crate::error::{Error, Result};
use core::ffi::c_int;
use core::mem::MaybeUninit;
use core::ptr::null_mut;
use tbrdma_abi::*;
use tbrdma_proto::{DeviceAttr, Gid, MAX_INLINE_DATA, PORT, PortAttr, Profile, QpType};

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
        Ok(DeviceAttr { phys_port_cnt: PORT, ..DeviceAttr::from(&attr) })
    }

    /// The port as it is now.
    pub(super) fn query_port(&self) -> Result<PortAttr> {
        let mut attr = MaybeUninit::<ibv_port_attr>::zeroed();
        // SAFETY: an open context, and room for the answer, of which this function fills the part that all programs know.
        let returned = unsafe { (self.library.ibv_query_port)(self.context(), PORT, attr.as_mut_ptr()) };
        check("query_port", &self.name, returned)?;
        // SAFETY: numbers, of which any bits are some.
        let attr = unsafe { attr.assume_init() };
        Ok(PortAttr::from(&attr))
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
