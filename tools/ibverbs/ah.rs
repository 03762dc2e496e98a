//! Address handles, and the addresses that queue pairs connect to.

use crate::abi::*;
use crate::context::{Context, context_of};
use crate::errno::Errno;
use crate::export::export;
use crate::object::{Object, Out};
use crate::pd::Pd;
use core::ffi::c_int;
use tbrdma::AddressHandle;
use tbrdma_proto::{WcFlags, limits};

/// An address handle.
#[repr(C)]
pub(crate) struct Ah {
    c: ibv_ah,
    pub(crate) inner: AddressHandle,
}

// SAFETY: the C structure does not change once the program has it.
unsafe impl Sync for Ah {}

impl Object for Ah {
    type C = ibv_ah;
}

fn create(pd: &Pd, attr: &ibv_ah_attr) -> Result<*mut ibv_ah, Errno> {
    let context = pd.context().own()?;
    let inner = pd.inner.create_ah(&attr.into())?;
    pd.users.add();
    let c = ibv_ah { context: context.c(), pd: pd.c(), handle: inner.number() };
    Ok(context.given.give(Box::new(Ah { c, inner })).cast())
}

/// The way back to the sender of a datagram: from its completion, and the header in front of it.
fn way_back(context: &Context, port: u8, wc: &ibv_wc, grh: *mut ibv_grh) -> Result<ibv_ah_attr, Errno> {
    let mut attr = ibv_ah_attr {
        dlid: wc.slid,
        sl: wc.sl,
        src_path_bits: wc.dlid_path_bits,
        port_num: port,
        ..ibv_ah_attr::default()
    };
    if wc.wc_flags & WcFlags::GRH.bits() != 0 {
        if grh.is_null() {
            return Err(Errno::EINVAL);
        }
        // SAFETY: the program passes the first 40 bytes of the receive; they may lie anywhere.
        let grh = unsafe { grh.read_unaligned() };
        let word = u32::from_be(grh.version_tclass_flow);
        // Over IPv4 the header in front is IPv4's, in the last 20 of the 40 bytes.
        let (peer, own) = if word >> 28 == 6 {
            (grh.sgid, grh.dgid)
        } else {
            let mapped = |at: usize| {
                let mut gid = ibv_gid::default();
                gid.raw[10..12].fill(0xff);
                gid.raw[12..].copy_from_slice(&grh.dgid.raw[at..at + 4]);
                gid
            };
            (mapped(8), mapped(12))
        };
        attr.is_global = 1;
        attr.grh.dgid = peer;
        attr.grh.sgid_index = gid_index(context, port, own.raw).ok_or(Errno::EINVAL)?;
        attr.grh.hop_limit = 0xff;
        if word >> 28 == 6 {
            attr.grh.flow_label = word & limits::MAX_FLOW_LABEL;
            attr.grh.traffic_class = (word >> 20) as u8;
        }
    }
    Ok(attr)
}

/// Which entry of the port's table is this GID.
fn gid_index(context: &Context, port: u8, raw: [u8; 16]) -> Option<u8> {
    let length = context.inner().query_port(port).ok()?.gid_tbl_len;
    (0..length)
        .find(|&index| context.inner().query_gid(port, index).is_ok_and(|gid| gid.0 == raw))
        .and_then(|index| u8::try_from(index).ok())
}

export! {
    "IBVERBS_1.1" pointer fn ibv_create_ah(pd: &Pd, attr: &ibv_ah_attr) -> *mut ibv_ah {
        create(pd, attr)
    }

    "IBVERBS_1.1" pointer fn ibv_create_ah_from_wc(pd: &Pd, wc: &ibv_wc, grh: *mut ibv_grh, port: u8) -> *mut ibv_ah {
        create(pd, &way_back(pd.context(), port, wc, grh)?)
    }

    "IBVERBS_1.1" minus_one fn ibv_init_ah_from_wc(
        context: &Context,
        port: u8,
        wc: &ibv_wc,
        grh: *mut ibv_grh,
        attr: Out<'_, ibv_ah_attr>,
    ) -> c_int {
        attr.put(way_back(context, port, wc, grh)?);
        Ok(0)
    }

    "IBVERBS_1.1" errno fn ibv_destroy_ah(ah: &Ah) -> c_int {
        // SAFETY: an address handle in use.
        let context = unsafe { context_of(ah.c.context) };
        if !context.is_own() {
            return Ok(());
        }
        // SAFETY: it counts among the users of its domain.
        unsafe { &*Pd::of(ah.c.pd) }.users.remove();
        // SAFETY: the program gives it back.
        drop(unsafe { context.given.take_back(ah) });
        Ok(())
    }
}
