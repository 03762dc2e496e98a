//! Memory regions: pages of our own, or the application's memory in place.

use super::fault::{self, missing, refused};
use super::handle::Pd;
use super::lock;
use crate::device::{DeviceMemory, MemoryPath};
use crate::error::{Error, Result};
use crate::mem::{ForeignMemory, Place};
use crate::native::device::Core;
use core::ffi::c_int;
use core::ptr::NonNull;
use memmap2::{MmapMut, MmapRaw};
use std::sync::{Arc, Mutex};
use tbrdma_abi::*;
use tbrdma_proto::{Access, PdHandle, Region, RegionTableError};

/// `IBV_REREG_MR_CHANGE_PD` and `IBV_REREG_MR_CHANGE_ACCESS`.
const CHANGE: c_int = 2 | 4;

/// Where the bytes are.
enum Bytes {
    Own(MmapRaw),
    Foreign(ForeignMemory),
}

impl Bytes {
    fn address(&self) -> *mut u8 {
        match self {
            Self::Own(pages) => pages.as_mut_ptr(),
            Self::Foreign(memory) => memory.place().as_ptr(),
        }
    }

    /// Keeps the bytes for ever: the device may still write them.
    fn leak(self) {
        match self {
            Self::Own(pages) => std::mem::forget(pages),
            Self::Foreign(memory) => memory.leak(),
        }
    }
}

/// What is there while it is registered, and after.
struct State {
    mr: Option<NonNull<ibv_mr>>,
    foreign: Option<ForeignMemory>,
    /// While it is registered.
    pd: Option<Arc<Pd>>,
}

/// A registered memory region.
pub(super) struct NativeMemory {
    core: Arc<Core>,
    region: Region,
    rkey: u32,
    own: Option<MmapRaw>,
    state: Mutex<State>,
}

// SAFETY: the library's object is touched with the lock held only, or by nobody else; its bytes are reached as a `Place`.
unsafe impl Send for NativeMemory {}
// SAFETY: as above.
unsafe impl Sync for NativeMemory {}

impl NativeMemory {
    /// Allocates and registers.
    pub(super) fn allocate(core: &Arc<Core>, pd: PdHandle, len: usize, access: Access) -> Result<Arc<Self>> {
        let pages = MmapMut::map_anon(len).map_err(Error::os("alloc memory", "pages"))?;
        Self::register_bytes(core, pd, Bytes::Own(MmapRaw::from(pages)), len, access, None)
    }

    /// Registers the application's memory, to be named from `iova` on.
    pub(super) fn register(
        core: &Arc<Core>,
        pd: PdHandle,
        memory: ForeignMemory,
        access: Access,
        iova: u64,
    ) -> Result<Arc<Self>> {
        let len = memory.len();
        Self::register_bytes(core, pd, Bytes::Foreign(memory), len, access, Some(iova))
    }

    fn register_bytes(
        core: &Arc<Core>,
        pd: PdHandle,
        bytes: Bytes,
        len: usize,
        access: Access,
        iova: Option<u64>,
    ) -> Result<Arc<Self>> {
        let domain = core.pd(pd)?;
        let address = bytes.address();
        let zero_based = access.contains(Access::ZERO_BASED);
        let length = len as u64;
        let iova = if zero_based { 0 } else { iova.unwrap_or_else(|| address.addr() as u64) };
        if iova.checked_add(length).is_none() {
            return Err(RegionTableError::AddressOverflow { iova, length }.into());
        }
        let mr = Self::register_at(core, &domain, address, len, access, iova)?;
        // SAFETY: a region that was made just now.
        let lkey = unsafe { (*mr.as_ptr()).lkey };
        // SAFETY: as above.
        let rkey = unsafe { (*mr.as_ptr()).rkey };
        core.regions(|regions| regions.insert(lkey, mr.as_ptr().expose_provenance()));
        let region = Region { key: lkey, pd, access, iova, length: len as u64 };
        let (own, foreign) = match bytes {
            Bytes::Own(pages) => (Some(pages), None),
            Bytes::Foreign(memory) => (None, Some(memory)),
        };
        let state = Mutex::new(State { mr: Some(mr), foreign, pd: Some(domain) });
        Ok(Arc::new(Self { core: Arc::clone(core), region, rkey, own, state }))
    }

    /// The plain call where it will do, because every library has it. Rights that a device may ignore are only understood by the other.
    fn register_at(
        core: &Core,
        pd: &Pd,
        address: *mut u8,
        len: usize,
        access: Access,
        iova: u64,
    ) -> Result<NonNull<ibv_mr>> {
        let call = "reg_mr";
        let handle = &core.handle;
        let rights = access.difference(Access::ZERO_BASED).bits();
        let optional = rights & Access::OPTIONAL_RANGE;
        let plain = iova == address.addr() as u64;
        let mr = match handle.library.ibv_reg_mr_iova2 {
            Some(register) if optional != 0 || !plain => {
                // SAFETY: a domain of this context, and bytes that their owner keeps until the region is deregistered.
                unsafe { register(pd.as_ptr(), address.cast(), len, iova, rights) }
            }
            None if !plain => {
                return Err(missing(
                    call,
                    &handle.name,
                    "regions with addresses of their own (ibv_reg_mr_iova2)",
                ));
            }
            _ => {
                let rights = (rights & !optional) as c_int;
                // SAFETY: as above.
                unsafe { (handle.library.ibv_reg_mr)(pd.as_ptr(), address.cast(), len, rights) }
            }
        };
        fault::object(call, &handle.name, mr).map_err(|error| explained(error, len))
    }

    fn foreign_place(&self, use_place: &mut dyn FnMut(Place<'_>)) {
        if let Some(memory) = &lock(&self.state).foreign {
            use_place(memory.place());
        }
    }
}

/// Adds what usually stands behind a registration that is refused.
fn explained(error: Error, len: usize) -> Error {
    let Error::Refused { call, device, source, .. } = error else { return error };
    let advice = match source.raw_os_error() {
        Some(nix::libc::ENOMEM) => format!(
            "{len} bytes must be locked in memory: raise RLIMIT_MEMLOCK (ulimit -l), or register less; a Mac's port has 100 regions"
        ),
        Some(nix::libc::EFAULT) => "the memory must be mapped, and writable if the rights say so".to_owned(),
        _ => String::new(),
    };
    fault::refused_for(call, &device, source, advice)
}

impl DeviceMemory for NativeMemory {
    fn region(&self) -> &Region {
        &self.region
    }

    fn rkey(&self) -> u32 {
        self.rkey
    }

    fn with_place(&self, use_place: &mut dyn FnMut(Place<'_>)) {
        match self.segment_place() {
            Some(place) => use_place(place),
            None => self.foreign_place(use_place),
        }
    }

    fn segment_place(&self) -> Option<Place<'_>> {
        let pages = self.own.as_ref()?;
        // SAFETY: pages that stay mapped for as long as `self` lives, and that nobody has a reference to.
        Some(unsafe { Place::new(pages.as_mut_ptr(), self.region.length as usize) })
    }

    fn path(&self) -> MemoryPath {
        MemoryPath::Adapter
    }

    fn change_rights(&self, pd: PdHandle, access: Access) -> Result<()> {
        let call = "rereg_mr";
        let handle = &self.core.handle;
        let change = handle.needs(handle.library.ibv_rereg_mr, call, "a change of rights (ibv_rereg_mr)")?;
        let domain = self.core.pd(pd)?;
        let mut state = lock(&self.state);
        let gone = || refused(call, &handle.name, std::io::Error::from_raw_os_error(nix::libc::EINVAL));
        let mr = state.mr.ok_or_else(gone)?;
        let rights = access.difference(Access::ZERO_BASED).bits() & !Access::OPTIONAL_RANGE;
        let length = self.region.length as usize;
        let address = std::ptr::null_mut();
        // SAFETY: a live region of this context and a domain of it; the address does not count, since the translation stays.
        let done = unsafe { change(mr.as_ptr(), CHANGE, domain.as_ptr(), address, length, rights as c_int) };
        if done != 0 {
            // It tells how far it got, and `errno` tells why.
            return Err(refused(call, &handle.name, std::io::Error::last_os_error()));
        }
        state.pd = Some(domain);
        Ok(())
    }

    fn deregister(&self) -> Result<()> {
        let mut state = lock(&self.state);
        let Some(mr) = state.mr else { return Ok(()) };
        let handle = &self.core.handle;
        let keys = self.core.regions(|regions| regions.remove(&self.region.key));
        // SAFETY: a live region of this context; with the lock held nobody else ends it, and it is forgotten below.
        let returned = unsafe { (handle.library.ibv_dereg_mr)(mr.as_ptr()) };
        if let Some(source) = fault::failure(returned) {
            if let Some(keys) = keys {
                self.core.regions(|regions| regions.insert(self.region.key, keys));
            }
            let advice = "a memory window may be bound to it";
            return Err(fault::refused_for("dereg_mr", &handle.name, source, advice.to_owned()));
        }
        state.mr = None;
        state.pd = None;
        Ok(())
    }

    fn give_back_foreign(&self) -> Result<Option<ForeignMemory>> {
        self.deregister()?;
        Ok(lock(&self.state).foreign.take())
    }
}

impl Drop for NativeMemory {
    fn drop(&mut self) {
        if self.deregister().is_ok() {
            return;
        }
        // Windows that are bound to it go with it.
        let (region, mut gone) = (Some(self.region.key), Vec::new());
        self.core.windows(|windows| gone.extend(windows.extract_if(|_, window| window.region == region)));
        drop(gone);
        if self.deregister().is_ok() {
            return;
        }
        // The device still has it, so nobody else may.
        let pages = self.own.take().map(Bytes::Own);
        let foreign = lock(&self.state).foreign.take().map(Bytes::Foreign);
        for bytes in [pages, foreign].into_iter().flatten() {
            bytes.leak();
        }
    }
}
