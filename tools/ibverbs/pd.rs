//! Protection domains, those that are parents' (`ibv_alloc_parent_domain(3)`), and thread domains.

use crate::abi::*;
use crate::context::{Context, context_of};
use crate::errno::Errno;
use crate::export::{export, function};
use crate::object::{Object, Users};
use crate::watch::{self, Use};
use core::ffi::c_int;
use tbrdma::ProtectionDomain;

/// A protection domain.
#[repr(C)]
pub(crate) struct Pd {
    c: ibv_pd,
    pub(crate) inner: ProtectionDomain,
    /// Objects made in it.
    pub(crate) users: Users,
    kind: Kind,
}

/// How it came to be.
enum Kind {
    Allocated,
    /// From a handle: nothing ends with it.
    Imported,
    /// Another name for this domain, with this thread domain.
    Parent(*const Pd, *const Td),
}

// SAFETY: the C structure does not change once the program has it; the pointers are followed once, when the domain is given back.
unsafe impl Sync for Pd {}

impl Object for Pd {
    type C = ibv_pd;
}

impl Pd {
    fn make(context: &Context, inner: ProtectionDomain, handle: u32, kind: Kind) -> *mut ibv_pd {
        let c = ibv_pd { context: context.c(), handle };
        context.given.give(Box::new(Self { c, inner, users: Users::default(), kind })).cast()
    }

    pub(crate) fn c(&self) -> *mut ibv_pd {
        core::ptr::from_ref(&self.c).cast_mut()
    }

    pub(crate) fn context(&self) -> &Context {
        // SAFETY: a protection domain in use.
        unsafe { context_of(self.c.context) }
    }
}

/// A thread domain: a promise of the program's that one thread at a time uses what is made with it. Our locks cost little enough without.
#[repr(C)]
pub(crate) struct Td {
    c: ibv_td,
    users: Users,
}

// SAFETY: the C structure does not change once the program has it.
unsafe impl Sync for Td {}

impl Object for Td {
    type C = ibv_td;
}

export! {
    "IBVERBS_1.1" pointer fn ibv_alloc_pd(context: &Context) -> *mut ibv_pd {
        let inner = context.own()?.inner().alloc_pd()?;
        let handle = context.opened.handle();
        context.handles().pds.insert(handle, inner.clone());
        if watch::is_explained() {
            context.uses(Use::Pds, context.handles().pds.len());
        }
        Ok(Pd::make(context, inner, handle, Kind::Allocated))
    }

    "IBVERBS_1.1" errno fn ibv_dealloc_pd(pd: &Pd) -> c_int {
        if !pd.context().is_own() {
            return Ok(());
        }
        pd.users.none()?;
        match pd.kind {
            Kind::Allocated => drop(pd.context().handles().pds.remove(&pd.c.handle)),
            Kind::Imported => {}
            Kind::Parent(of, td) => {
                // SAFETY: we are among its users, so it has not been given back.
                unsafe { &*of }.users.remove();
                // SAFETY: likewise, if there is one.
                if let Some(td) = unsafe { td.as_ref() } {
                    td.users.remove();
                }
            }
        }
        // SAFETY: the program gives it back, and nothing was made in it that still is.
        drop(unsafe { pd.context().given.take_back(pd) });
        Ok(())
    }

    "IBVERBS_1.10" pointer fn ibv_import_pd(context: &Context, handle: u32) -> *mut ibv_pd {
        let inner = context.own()?.handles().pds.get(&handle).cloned().ok_or(Errno::ENOENT)?;
        Ok(Pd::make(context, inner, handle, Kind::Imported))
    }

    "IBVERBS_1.10" plain fn ibv_unimport_pd(pd: &Pd) {
        // What was made in it may outlive it: then it stays, for that, until the device is closed.
        if matches!(pd.kind, Kind::Imported) && pd.users.none().is_ok() {
            // SAFETY: the program gives it back, and nothing was made in it that still is.
            drop(unsafe { pd.context().given.take_back(pd) });
        }
        Ok(())
    }
}

function! {
    /// `ibv_alloc_td(3)`.
    pointer fn alloc_td(context: &Context, attr: &ibv_td_init_attr) -> *mut ibv_td {
        if attr.comp_mask != 0 {
            return Err(Errno::EINVAL);
        }
        let c = ibv_td { context: context.own()?.c() };
        Ok(context.given.give(Box::new(Td { c, users: Users::default() })).cast())
    }

    /// `ibv_dealloc_td(3)`.
    errno fn dealloc_td(td: &Td) -> c_int {
        td.users.none()?;
        // SAFETY: a thread domain in use.
        let context = unsafe { context_of(td.c.context) };
        // SAFETY: the program gives it back, and no parent domain has it.
        drop(unsafe { context.given.take_back(td) });
        Ok(())
    }

    /// `ibv_alloc_parent_domain(3)`. An allocator of the program's is for memory that drivers of hardware need, and is never asked.
    pointer fn alloc_parent_domain(context: &Context, attr: &ibv_parent_domain_init_attr) -> *mut ibv_pd {
        if attr.comp_mask & !IBV_PARENT_DOMAIN_INIT_ATTR_MASK != 0 {
            return Err(Errno::EOPNOTSUPP);
        }
        if attr.pd.is_null() {
            return Err(Errno::EINVAL);
        }
        // SAFETY: a protection domain of the program's, not NULL.
        let pd = unsafe { &*Pd::of(attr.pd) };
        // SAFETY: a thread domain of the program's, or NULL.
        let td = unsafe { Td::of(attr.td).as_ref() };
        context.expect("protection domain", pd.context())?;
        if let Some(td) = td {
            // SAFETY: a thread domain in use.
            context.expect("thread domain", unsafe { context_of(td.c.context) })?;
        }
        pd.users.add();
        if let Some(td) = td {
            td.users.add();
        }
        let kind = Kind::Parent(pd, td.map_or(core::ptr::null(), core::ptr::from_ref));
        Ok(Pd::make(context, pd.inner.clone(), pd.c.handle, kind))
    }
}
