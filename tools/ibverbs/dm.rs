//! Device memory (`ibv_alloc_dm(3)`): an emulated device has none of its own, so it is pages of this process that the program reaches only
//! as it would reach a device's.

use crate::abi::*;
use crate::context::{Context, context_of};
use crate::errno::Errno;
use crate::export::{export, function};
use crate::mr;
use crate::object::{Object, Users};
use crate::pd::Pd;
use core::ffi::{c_int, c_uint, c_void};
use core::num::NonZeroUsize;
use core::ptr::NonNull;
use nix::sys::mman::{MapFlags, ProtFlags, mmap_anonymous, munmap};
use std::sync::{Arc, Weak};
use tbrdma_proto::Access;

/// Bytes that one piece may have.
pub(crate) const MAX_DM_SIZE: u64 = 1 << 20;

/// The pages of a piece: of whoever allocated it, and of those who imported it.
pub(crate) struct Pages {
    at: NonNull<c_void>,
    length: usize,
}

// SAFETY: an address; what the pages hold is between the program and its peers.
unsafe impl Sync for Pages {}
// SAFETY: as above.
unsafe impl Send for Pages {}

impl Drop for Pages {
    fn drop(&mut self) {
        // SAFETY: mapped in `alloc_dm`; no region has them any more.
        let _ = unsafe { munmap(self.at, self.length) };
    }
}

/// A piece of device memory.
#[repr(C)]
pub(crate) struct Dm {
    c: ibv_dm,
    pages: Arc<Pages>,
    is_imported: bool,
    /// Regions.
    pub(crate) users: Users,
}

// SAFETY: the C structure does not change once the program has it.
unsafe impl Sync for Dm {}

impl Object for Dm {
    type C = ibv_dm;
}

impl Dm {
    fn make(context: &Context, handle: u32, pages: Arc<Pages>, is_imported: bool) -> *mut ibv_dm {
        let c = ibv_dm {
            context: context.c(),
            memcpy_to_dm: memcpy_to_dm as *const c_void,
            memcpy_from_dm: memcpy_from_dm as *const c_void,
            comp_mask: 0,
            handle,
        };
        context.given.give(Box::new(Self { c, pages, is_imported, users: Users::default() })).cast()
    }

    /// The address of a part, if it lies inside.
    fn part(&self, offset: u64, length: usize) -> Result<*mut u8, Errno> {
        let offset = usize::try_from(offset).map_err(|_| Errno::EINVAL)?;
        let end = offset.checked_add(length).ok_or(Errno::EINVAL)?;
        if end > self.pages.length {
            return Err(Errno::EINVAL);
        }
        Ok(self.pages.at.as_ptr().cast::<u8>().wrapping_add(offset))
    }

    /// The address of a part that the program copies: as on devices that have such memory, of whole words of four bytes.
    fn words(&self, offset: u64, length: usize) -> Result<*mut u8, Errno> {
        if !offset.is_multiple_of(4) || !length.is_multiple_of(4) {
            return Err(Errno::EINVAL);
        }
        self.part(offset, length)
    }
}

export! {
    "IBVERBS_1.13" pointer fn ibv_import_dm(context: &Context, handle: u32) -> *mut ibv_dm {
        let pages = context.own()?.handles().dms.get(&handle).and_then(Weak::upgrade).ok_or(Errno::ENOENT)?;
        Ok(Dm::make(context, handle, pages, true))
    }

    "IBVERBS_1.13" plain fn ibv_unimport_dm(dm: &Dm) {
        if dm.is_imported && dm.users.none().is_ok() {
            // SAFETY: device memory in use.
            let context = unsafe { context_of(dm.c.context) };
            // SAFETY: the program gives it back, and no region has it.
            drop(unsafe { context.given.take_back(dm) });
        }
        Ok(())
    }
}

function! {
    /// `ibv_alloc_dm(3)`.
    pointer fn alloc_dm(context: &Context, attr: &ibv_alloc_dm_attr) -> *mut ibv_dm {
        // Pages are aligned to 2^12 bytes.
        if attr.comp_mask != 0 || attr.log_align_req > 12 {
            return Err(Errno::EINVAL);
        }
        let length = NonZeroUsize::new(attr.length).ok_or(Errno::EINVAL)?;
        if attr.length as u64 > MAX_DM_SIZE {
            return Err(Errno(libc::ENOMEM));
        }
        let access = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
        // SAFETY: pages of our own, wherever there is room.
        let at = unsafe { mmap_anonymous(None, length, access, MapFlags::MAP_PRIVATE) }?;
        let pages = Arc::new(Pages { at, length: attr.length });
        let handle = context.opened.handle();
        context.handles().dms.insert(handle, Arc::downgrade(&pages));
        Ok(Dm::make(context, handle, pages, false))
    }

    /// `ibv_free_dm(3)`.
    errno fn free_dm(dm: &Dm) -> c_int {
        // SAFETY: device memory in use.
        let context = unsafe { context_of(dm.c.context) };
        if !context.is_own() {
            return Ok(());
        }
        dm.users.none()?;
        context.handles().dms.remove(&dm.c.handle);
        // SAFETY: the program gives it back, and no region has it.
        drop(unsafe { context.given.take_back(dm) });
        Ok(())
    }

    /// `ibv_reg_dm_mr(3)`: a region that is named by offsets into it.
    pointer fn reg_dm_mr(pd: &Pd, dm: &Dm, offset: u64, length: usize, flags: c_uint) -> *mut ibv_mr {
        if !Access::from_bits_retain(flags).contains(Access::ZERO_BASED) {
            return Err(Errno::EINVAL);
        }
        // SAFETY: device memory in use.
        pd.context().expect("device memory", unsafe { context_of(dm.c.context) })?;
        mr::register(pd, dm.part(offset, length)?.cast(), length, 0, flags as c_int, Some(dm))
    }

    /// `ibv_memcpy_to_dm(3)`.
    errno fn memcpy_to_dm(dm: &Dm, offset: u64, from: *mut c_void, length: usize) -> c_int {
        let to = dm.words(offset, length)?;
        // SAFETY: inside the pages, and the program says that so many bytes are there. It sees to it that no peer writes meanwhile.
        unsafe { core::ptr::copy_nonoverlapping(from.cast::<u8>(), to, length) };
        Ok(())
    }

    /// `ibv_memcpy_from_dm(3)`.
    errno fn memcpy_from_dm(to: *mut c_void, dm: &Dm, offset: u64, length: usize) -> c_int {
        let from = dm.words(offset, length)?;
        // SAFETY: as above, the other way.
        unsafe { core::ptr::copy_nonoverlapping(from, to.cast::<u8>(), length) };
        Ok(())
    }
}
