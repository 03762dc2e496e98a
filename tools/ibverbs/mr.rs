//! Memory regions: the program's memory, registered where it is.

use crate::abi::*;
use crate::context::{Known, context_of, lock};
use crate::dm::Dm;
use crate::errno::Errno;
use crate::export::{export, function};
use crate::object::Object;
use crate::pd::Pd;
use crate::watch::{self, Use};
use core::cell::UnsafeCell;
use core::ffi::{c_int, c_void};
use std::sync::{Arc, Mutex, Weak};
use tbrdma::{Access, ForeignMemory, MemoryRegion};

/// A memory region.
#[repr(C)]
pub(crate) struct Mr {
    c: UnsafeCell<ibv_mr>,
    inner: Registered,
    kind: Kind,
}

/// A region, of those that hold it: who registered it, and who imported it.
pub(crate) type Registered = Arc<Mutex<MemoryRegion>>;

/// Whose it is.
enum Kind {
    /// Of the program's memory, or of device memory.
    Own(Option<Known<Dm>>),
    Imported,
}

// SAFETY: the C structure changes only in `ibv_rereg_mr`, beside which the program makes no other call on the region.
unsafe impl Sync for Mr {}

impl Object for Mr {
    type C = ibv_mr;
}

impl Mr {
    fn c(&self) -> &ibv_mr {
        // SAFETY: it changes only in `ibv_rereg_mr`.
        unsafe { &*self.c.get() }
    }

    pub(crate) fn lkey(&self) -> u32 {
        self.c().lkey
    }

    fn pd(&self) -> &Pd {
        // SAFETY: a region counts among the users of its domain.
        unsafe { &*Pd::of(self.c().pd) }
    }

    fn make(
        pd: &Pd,
        addr: *mut c_void,
        length: usize,
        handle: u32,
        inner: Registered,
        kind: Kind,
    ) -> *mut ibv_mr {
        let region = lock(&inner);
        let c = ibv_mr {
            context: pd.context().c(),
            pd: pd.c(),
            addr,
            length,
            handle,
            lkey: region.lkey(),
            rkey: region.rkey(),
        };
        drop(region);
        pd.context().given.give(Box::new(Self { c: UnsafeCell::new(c), inner, kind })).cast()
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

/// Memory of the program's, to be reached by peers as fast as can be.
fn memory(addr: *mut c_void, length: usize) -> ForeignMemory {
    // SAFETY: the program registers memory that stays its own and mapped until it deregisters it (`ibv_reg_mr(3)`). No Rust reference to it
    // exists: what is not the program's it may not register.
    unsafe { ForeignMemory::from_raw(addr.cast(), length) }.adopt()
}

/// Registers memory, of the program's or of a device's.
pub(crate) fn register(
    pd: &Pd,
    addr: *mut c_void,
    length: usize,
    iova: u64,
    flags: c_int,
    dm: Option<&Dm>,
) -> Result<*mut ibv_mr, Errno> {
    let context = pd.context().own()?;
    let mut access = access(flags)?;
    let mut registered = length;
    if dm.is_some() && length == 0 {
        // Of device memory there may be regions of no bytes, which the driver has not: it gets one that grants nothing to anyone.
        (access, registered) = (Access::ZERO_BASED, 1);
    }
    let region = pd.inner.register_foreign_at(memory(addr, registered), access, iova)?;
    crate::log::say(&format_args!("reg_mr: {length} bytes at {addr:p} are reached so: {:?}", region.path()));
    let inner = Arc::new(Mutex::new(region));
    let handle = context.opened.handle();
    context.handles().mrs.insert(handle, Arc::downgrade(&inner));
    if watch::is_explained() {
        context.uses(Use::Mrs, context.handles().mrs.len());
    }
    pd.users.add();
    if let Some(dm) = dm {
        dm.users.add();
    }
    // The address of device memory is nobody's business.
    let shown = if dm.is_some() { core::ptr::null_mut() } else { addr };
    Ok(Mr::make(pd, shown, length, handle, inner, Kind::Own(dm.map(|dm| Known(dm)))))
}

/// What `ibv_rereg_mr` changes.
const CHANGE_TRANSLATION: c_int = 1;
const CHANGE_PD: c_int = 2;
const CHANGE_ACCESS: c_int = 4;

export! {
    "IBVERBS_1.1" pointer fn ibv_reg_mr(pd: &Pd, addr: *mut c_void, length: usize, flags: c_int) -> *mut ibv_mr {
        register(pd, addr, length, addr.addr() as u64, flags, None)
    }

    "IBVERBS_1.7" pointer fn ibv_reg_mr_iova(
        pd: &Pd,
        addr: *mut c_void,
        length: usize,
        iova: u64,
        flags: c_int,
    ) -> *mut ibv_mr {
        register(pd, addr, length, iova, flags, None)
    }

    "IBVERBS_1.8" pointer fn ibv_reg_mr_iova2(
        pd: &Pd,
        addr: *mut c_void,
        length: usize,
        iova: u64,
        flags: u32,
    ) -> *mut ibv_mr {
        register(pd, addr, length, iova, flags as c_int, None)
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

    /// Failures are negative here, as `enum ibv_rereg_mr_err_code` has them: the region is as it was.
    "IBVERBS_1.1" plain fn ibv_rereg_mr(
        mr: &Mr,
        flags: c_int,
        pd: *mut ibv_pd,
        addr: *mut c_void,
        length: usize,
        access: c_int,
    ) -> c_int {
        Ok(rereg(mr, flags, pd, addr, length, access).err().map_or(0, |code| code))
    }

    "IBVERBS_1.1" errno fn ibv_dereg_mr(mr: &Mr) -> c_int {
        // SAFETY: a region in use.
        let context = unsafe { context_of(mr.c().context) };
        if !context.is_own() {
            return Ok(());
        }
        if let Kind::Own(dm) = &mr.kind {
            lock(&mr.inner).deregister()?;
            context.handles().mrs.remove(&mr.c().handle);
            mr.pd().users.remove();
            if let Some(dm) = dm {
                // SAFETY: we are among its users.
                unsafe { &*dm.0 }.users.remove();
            }
        }
        // SAFETY: the program gives it back, and no window is bound to it.
        drop(unsafe { context.given.take_back(mr) });
        Ok(())
    }

    "IBVERBS_1.10" pointer fn ibv_import_mr(pd: &Pd, handle: u32) -> *mut ibv_mr {
        let inner = pd.context().own()?.handles().mrs.get(&handle).and_then(Weak::upgrade).ok_or(Errno::ENOENT)?;
        // Where it lies is known only to who registered it.
        let length = lock(&inner).len();
        Ok(Mr::make(pd, core::ptr::null_mut(), length, handle, inner, Kind::Imported))
    }

    "IBVERBS_1.10" plain fn ibv_unimport_mr(mr: &Mr) {
        if matches!(mr.kind, Kind::Imported) {
            // SAFETY: a region in use.
            let context = unsafe { context_of(mr.c().context) };
            // SAFETY: the program gives it back.
            drop(unsafe { context.given.take_back(mr) });
        }
        Ok(())
    }
}

function! {
    /// `ibv_advise_mr(3)`: what is to be prefetched must be registered for it. The pages come when they are used.
    errno fn advise_mr(pd: &Pd, advice: c_int, flags: u32, list: *mut ibv_sge, count: u32) -> c_int {
        /// `IBV_ADVISE_MR_ADVICE_PREFETCH_NO_FAULT`, the last there is.
        const LAST: c_int = 2;
        /// What the kernel takes at a time: 64 KiB of them.
        const MOST: u32 = (u16::MAX as usize / size_of::<ibv_sge>()) as u32;
        if !(0..=LAST).contains(&advice) || flags > 1 || count == 0 || count > MOST || list.is_null() {
            return Err(Errno::EINVAL);
        }
        // SAFETY: the program passes so many entries.
        let list = unsafe { core::slice::from_raw_parts(list, count as usize) };
        let handles = pd.context().own()?.handles();
        let covers = |region: &Registered, sge: &ibv_sge| {
            let region = lock(region);
            let offset = sge.addr.wrapping_sub(region.addr());
            region.lkey() == sge.lkey
                && region.access().contains(Access::ON_DEMAND)
                && offset <= region.len() as u64
                && u64::from(sge.length) <= region.len() as u64 - offset
        };
        let is_known = |sge: &ibv_sge| handles.mrs.values().filter_map(Weak::upgrade).any(|region| covers(&region, sge));
        if list.iter().all(is_known) { Ok(()) } else { Err(Errno::ENOENT) }
    }
}

/// Changes a region; the code of what went wrong.
fn rereg(
    mr: &Mr,
    flags: c_int,
    pd: *mut ibv_pd,
    addr: *mut c_void,
    length: usize,
    flags_of_access: c_int,
) -> Result<(), c_int> {
    /// `IBV_REREG_MR_ERR_INPUT`.
    const INPUT: c_int = -1;
    /// `IBV_REREG_MR_ERR_CMD`: nothing has changed.
    const COMMAND: c_int = -4;
    if crate::happen::is_removed() {
        return Err(COMMAND);
    }
    let wrong = |errno: Errno, code| {
        errno.set();
        code
    };
    if flags == 0 || flags & !(CHANGE_TRANSLATION | CHANGE_PD | CHANGE_ACCESS) != 0 {
        return Err(wrong(Errno::EINVAL, INPUT));
    }
    if flags & CHANGE_TRANSLATION != 0 && (addr.is_null() || length == 0)
        || !matches!(mr.kind, Kind::Own(None))
    {
        return Err(wrong(Errno::EINVAL, INPUT));
    }
    // SAFETY: a domain of the program's, or NULL, if it is to change; else the program need not have said anything.
    let new_pd = if flags & CHANGE_PD == 0 { None } else { unsafe { Pd::of(pd).as_ref() } };
    if flags & CHANGE_PD != 0 && new_pd.is_none() {
        return Err(wrong(Errno::EINVAL, INPUT));
    }
    if let Some(pd) = new_pd {
        let context = mr.pd().context();
        context.expect("protection domain", pd.context()).map_err(|errno| wrong(errno, INPUT))?;
    }
    let new_access = match flags & CHANGE_ACCESS {
        0 => None,
        _ => Some(access(flags_of_access).map_err(|errno| wrong(errno, INPUT))?),
    };
    let mut region = lock(&mr.inner);
    let inner_pd = new_pd.map(|pd| &pd.inner);
    let changed = if flags & CHANGE_TRANSLATION == 0 {
        region.change(inner_pd, new_access)
    } else {
        region.replace(memory(addr, length), addr.addr() as u64, inner_pd, new_access)
    };
    changed.map_err(|error| wrong(error.into(), COMMAND))?;
    let old_pd = mr.pd();
    // SAFETY: this call is the only one on the region.
    let c = unsafe { &mut *mr.c.get() };
    (c.lkey, c.rkey) = (region.lkey(), region.rkey());
    if flags & CHANGE_TRANSLATION != 0 {
        (c.addr, c.length) = (addr, length);
    }
    if let Some(pd) = new_pd {
        c.pd = pd.c();
        pd.users.add();
        old_pd.users.remove();
    }
    Ok(())
}
