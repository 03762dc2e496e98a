//! Memory regions: the program's memory, registered where it is.

use crate::abi::*;
use crate::context::context_of;
use crate::errno::Errno;
use crate::export::{export, function};
use crate::object::{Object, Users, give, take_back};
use crate::pd::Pd;
use core::cell::UnsafeCell;
use core::ffi::{c_int, c_void};
use std::sync::Arc;
use tbrdma::{Access, ForeignMemory, MemoryRegion};

/// A memory region.
#[repr(C)]
pub(crate) struct Mr {
    c: UnsafeCell<ibv_mr>,
    inner: Arc<MemoryRegion>,
    /// Memory windows that are bound to it.
    pub(crate) users: Users,
    is_imported: bool,
}

// SAFETY: the C structure changes only in calls that the program makes one at a time, as the manual page demands.
unsafe impl Sync for Mr {}

impl Object for Mr {
    type C = ibv_mr;
}

impl Mr {
    fn c(&self) -> &ibv_mr {
        // SAFETY: it changes only in `ibv_rereg_mr`, beside which the program makes no other call on the region.
        unsafe { &*self.c.get() }
    }

    fn pd(&self) -> &Pd {
        // SAFETY: a region counts among the users of its domain.
        unsafe { &*Pd::of(self.c().pd) }
    }

    fn make(
        pd: &Pd,
        addr: *mut c_void,
        handle: u32,
        inner: Arc<MemoryRegion>,
        is_imported: bool,
    ) -> *mut ibv_mr {
        let c = ibv_mr {
            context: pd.context().c(),
            pd: pd.c(),
            addr,
            length: inner.len(),
            handle,
            lkey: inner.lkey(),
            rkey: inner.rkey(),
        };
        give(Box::new(Self { c: UnsafeCell::new(c), inner, users: Users::default(), is_imported })).cast()
    }
}

/// The rights that C's flags name. Bits that a device may ignore are left out, others that nobody knows are refused.
pub(crate) fn access(flags: c_int) -> Result<Access, Errno> {
    let access = Access::from_bits_retain(flags as u32);
    if access.unknown_bits() != 0 {
        return Err(Errno::EINVAL);
    }
    Ok(Access::from_bits_truncate(flags as u32))
}

fn register(
    pd: &Pd,
    addr: *mut c_void,
    length: usize,
    iova: u64,
    flags: c_int,
) -> Result<*mut ibv_mr, Errno> {
    let context = pd.context().own()?;
    let access = access(flags)?;
    // SAFETY: the program registers memory that stays its own and mapped until it deregisters it (`ibv_reg_mr(3)`). No Rust reference to it
    // exists: what is not the program's it may not register. While it registers, nobody else writes the memory but threads of its own.
    let memory = unsafe { ForeignMemory::from_raw(addr.cast(), length) }.adopt();
    let inner = Arc::new(pd.inner.register_foreign_at(memory, access, iova)?);
    let handle = context.opened.handle();
    context.handles().mrs.insert(handle, Arc::clone(&inner));
    pd.users.add();
    Ok(Mr::make(pd, addr, handle, inner, false))
}

export! {
    "IBVERBS_1.1" pointer fn ibv_reg_mr(pd: &Pd, addr: *mut c_void, length: usize, flags: c_int) -> *mut ibv_mr {
        register(pd, addr, length, addr.addr() as u64, flags)
    }

    "IBVERBS_1.7" pointer fn ibv_reg_mr_iova(
        pd: &Pd,
        addr: *mut c_void,
        length: usize,
        iova: u64,
        flags: c_int,
    ) -> *mut ibv_mr {
        register(pd, addr, length, iova, flags)
    }

    "IBVERBS_1.8" pointer fn ibv_reg_mr_iova2(
        pd: &Pd,
        addr: *mut c_void,
        length: usize,
        iova: u64,
        flags: u32,
    ) -> *mut ibv_mr {
        register(pd, addr, length, iova, flags as c_int)
    }

    "IBVERBS_1.12" pointer fn ibv_reg_dmabuf_mr(
        _pd: &Pd,
        _offset: u64,
        _length: usize,
        _iova: u64,
        _fd: c_int,
        _access: c_int,
    ) -> *mut ibv_mr {
        Err(Errno::EOPNOTSUPP)
    }

    "IBVERBS_1.1" errno fn ibv_rereg_mr(
        _mr: &Mr,
        _flags: c_int,
        _pd: *mut ibv_pd,
        _addr: *mut c_void,
        _length: usize,
        _access: c_int,
    ) -> c_int {
        Err(Errno::EOPNOTSUPP)
    }

    "IBVERBS_1.1" errno fn ibv_dereg_mr(mr: &Mr) -> c_int {
        // SAFETY: a region in use.
        let context = unsafe { context_of(mr.c().context) };
        if !context.is_own() {
            return Ok(());
        }
        mr.users.none()?;
        if !mr.is_imported {
            mr.inner.deregister()?;
            context.handles().mrs.remove(&mr.c().handle);
            mr.pd().users.remove();
        }
        // SAFETY: the program gives it back, and no window is bound to it.
        drop(unsafe { take_back(mr) });
        Ok(())
    }

    "IBVERBS_1.10" pointer fn ibv_import_mr(pd: &Pd, handle: u32) -> *mut ibv_mr {
        let inner = pd.context().own()?.handles().mrs.get(&handle).cloned().ok_or(Errno::ENOENT)?;
        // Where it lies is known only to who registered it.
        Ok(Mr::make(pd, core::ptr::null_mut(), handle, inner, true))
    }

    "IBVERBS_1.10" plain fn ibv_unimport_mr(mr: &Mr) {
        if mr.is_imported {
            // SAFETY: the program gives it back.
            drop(unsafe { take_back(mr) });
        }
        Ok(())
    }
}

function! {
    /// `ibv_advise_mr(3)`: memory is the kernel's, which needs no advice of ours; what cannot be right is refused.
    errno fn advise_mr(_pd: &Pd, advice: c_int, flags: u32, list: *mut ibv_sge, count: u32) -> c_int {
        /// `IBV_ADVISE_MR_ADVICE_PREFETCH_NO_FAULT`, the last there is.
        const LAST: c_int = 2;
        if !(0..=LAST).contains(&advice) || flags > 1 || count == 0 || list.is_null() {
            return Err(Errno::EINVAL);
        }
        Err(Errno::EOPNOTSUPP)
    }
}
