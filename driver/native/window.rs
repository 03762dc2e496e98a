//! Memory windows, by the part of their keys that stays.

use super::device::Core;
use super::fault;
use super::handle::Pd;
use crate::error::Result;
use core::ffi::c_int;
use core::ptr::NonNull;
use std::sync::Arc;
use tbrdma_abi::*;
use tbrdma_proto::{MwType, PdHandle};

/// A window.
pub(super) struct Window {
    pd: Arc<Pd>,
    mw: NonNull<ibv_mw>,
    pub(super) mw_type: MwType,
    /// The key it has, as far as was asked for.
    pub(super) key: u32,
    /// The local key of the region that it was bound to last.
    pub(super) region: Option<u32>,
}

// SAFETY: the library's object is touched with the table's lock held only.
unsafe impl Send for Window {}

impl Window {
    pub(super) fn as_ptr(&self) -> *mut ibv_mw {
        self.mw.as_ptr()
    }

    /// The key that the library says it has.
    pub(super) fn library_key(&self) -> u32 {
        // SAFETY: a live window.
        unsafe { (*self.as_ptr()).rkey }
    }
}

impl Drop for Window {
    fn drop(&mut self) {
        if let Some(dealloc) = self.pd.handle.ops.dealloc_mw {
            // SAFETY: ours, given back once.
            unsafe { dealloc(self.as_ptr()) };
        }
    }
}

/// The part of a key that a window has for ever.
pub(super) const fn lasting(key: u32) -> u32 {
    key >> 8
}

impl Core {
    pub(super) fn alloc_window(&self, pd: PdHandle, mw_type: MwType) -> Result<u32> {
        let call = "alloc_mw";
        let handle = &self.handle;
        let pd = self.pd(pd)?;
        let alloc = handle.needs(handle.ops.alloc_mw, call, "memory windows")?;
        // SAFETY: a domain of this context.
        let mw = unsafe { alloc(pd.as_ptr(), mw_type.raw() as c_int) };
        let mw = fault::object(call, &handle.name, mw)?;
        let mut window = Window { pd, mw, mw_type, key: 0, region: None };
        window.key = window.library_key();
        let key = window.key;
        self.windows(|windows| windows.insert(lasting(key), window));
        Ok(key)
    }
}
