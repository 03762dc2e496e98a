//! Memory windows.

use crate::abi::*;
use crate::context::context_of;
use crate::errno::Errno;
use crate::export::function;
use crate::mr::Mr;
use crate::object::Object;
use crate::pd::Pd;
use crate::qp::Qp;
use crate::queues::Sent;
use crate::watch;
use crate::wr::work_request;
use core::cell::UnsafeCell;
use core::ffi::{c_int, c_uint};
use tbrdma::MemoryWindow;
use tbrdma_proto::{Access, MwBind, MwType, Opcode, SendFlags, inc_rkey};

/// A memory window.
#[repr(C)]
pub(crate) struct Mw {
    c: UnsafeCell<ibv_mw>,
    inner: MemoryWindow,
}

// SAFETY: the key in the C structure changes only in `ibv_bind_mw`, beside which the program makes no other call on the window.
unsafe impl Sync for Mw {}

impl Object for Mw {
    type C = ibv_mw;
}

impl Mw {
    fn c(&self) -> &ibv_mw {
        // SAFETY: it changes only in `ibv_bind_mw`.
        unsafe { &*self.c.get() }
    }
}

/// What a binding asks for, under a new key. A binding without a region takes away what there was.
pub(crate) fn binding(mw: *mut ibv_mw, rkey: u32, info: &ibv_mw_bind_info) -> Result<MwBind, Errno> {
    // SAFETY: a window of the program's, or NULL.
    let mw = unsafe { Mw::of(mw).as_ref() }.ok_or(Errno::EINVAL)?;
    // SAFETY: a region of the program's, or NULL.
    let mr = unsafe { Mr::of(info.mr).as_ref() };
    if mr.is_none() && info.length != 0 {
        return Err(Errno::EINVAL);
    }
    Ok(MwBind {
        window: mw.inner.rkey(),
        rkey,
        lkey: mr.map_or(0, Mr::lkey),
        addr: info.addr,
        length: info.length,
        access: access(info.mw_access_flags)?,
    })
}

fn access(flags: c_uint) -> Result<Access, Errno> {
    crate::mr::access(flags as c_int)
}

function! {
    /// `ibv_alloc_mw(3)`.
    pointer fn alloc_mw(pd: &Pd, kind: c_int) -> *mut ibv_mw {
        let context = pd.context().own()?;
        let mw_type = u32::try_from(kind).ok().and_then(MwType::from_raw).ok_or(Errno::EINVAL)?;
        let inner = pd.inner.alloc_mw(mw_type)?;
        pd.users.add();
        let c = ibv_mw {
            context: context.c(),
            pd: pd.c(),
            rkey: inner.rkey(),
            handle: context.opened.handle(),
            type_: kind,
        };
        Ok(context.given.give(Box::new(Mw { c: UnsafeCell::new(c), inner })).cast())
    }

    /// `ibv_bind_mw(3)`, for windows of type 1.
    errno fn bind_mw(qp: &Qp, mw: &Mw, bind: &ibv_mw_bind) -> c_int {
        if mw.inner.mw_type() != MwType::Type1 {
            return Err(Errno::EINVAL);
        }
        let rkey = inc_rkey(mw.inner.rkey());
        let mut wr = work_request(bind.wr_id, Opcode::BindMw, SendFlags::from_bits_truncate(bind.send_flags));
        wr.set_bind(&binding(mw.c.get(), rkey, &bind.bind_info)?);
        let mut sends = qp.sends.lock();
        if watch::is_on() {
            let signaled = wr.flags.contains(SendFlags::SIGNALED) || qp.reports_all();
            qp.sends(Sent { wr_id: wr.wr_id, opcode: wr.opcode, signaled, lost: false }, 0, 0);
        }
        sends.queue.post(|list| list.raw(wr, &[])).map_err(|error| {
            qp.sending.take_back(1);
            crate::log::say(&error);
            Errno(error.errno())
        })?;
        // SAFETY: this call is the only one on the window.
        unsafe { (*mw.c.get()).rkey = rkey };
        Ok(())
    }

    /// `ibv_dealloc_mw(3)`.
    errno fn dealloc_mw(mw: &Mw) -> c_int {
        let c = mw.c();
        // SAFETY: a window in use.
        let context = unsafe { context_of(c.context) };
        if !context.is_own() {
            return Ok(());
        }
        // SAFETY: it counts among the users of its domain.
        unsafe { &*Pd::of(c.pd) }.users.remove();
        // SAFETY: the program gives it back.
        drop(unsafe { context.given.take_back(mw) });
        Ok(())
    }
}
