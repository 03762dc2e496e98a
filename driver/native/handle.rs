//! The list of devices, and an open context: what all objects of a device hold, so that it is closed last.

use super::fault;
use super::library::Library;
use crate::error::Result;
use crate::sync::{AtomicBool, Ordering};
use core::ffi::CStr;
use core::ptr::NonNull;
use std::sync::Arc;
use tbrdma_abi::*;

/// The call that opens.
pub(super) const OPEN: &str = "open_device";

/// The library's list of devices, while it is held.
pub(super) struct Listed<'a> {
    library: &'a Library,
    list: NonNull<*mut ibv_device>,
    count: usize,
}

impl<'a> Listed<'a> {
    /// All devices.
    pub(super) fn all(library: &'a Library) -> Result<Self> {
        let mut count = 0;
        // SAFETY: a number for the library to fill.
        let list = unsafe { (library.ibv_get_device_list)(&raw mut count) };
        let list = fault::object("get_device_list", library.name(), list)?;
        Ok(Self { library, list, count: usize::try_from(count).unwrap_or(0) })
    }

    fn devices(&self) -> impl Iterator<Item = *mut ibv_device> {
        // SAFETY: the list has so many entries, and is ours until it is freed, which ends this borrow.
        unsafe { core::slice::from_raw_parts(self.list.as_ptr(), self.count) }.iter().copied()
    }

    fn name_of(&self, device: *mut ibv_device) -> String {
        // SAFETY: a device of the list.
        let name = unsafe { (self.library.ibv_get_device_name)(device) };
        if name.is_null() {
            return String::new();
        }
        // SAFETY: a string of the device's, which stays as long as the device is listed.
        unsafe { CStr::from_ptr(name) }.to_string_lossy().into_owned()
    }

    /// Their names.
    pub(super) fn names(&self) -> impl Iterator<Item = String> {
        self.devices().map(|device| self.name_of(device))
    }

    /// The device of this name.
    fn find(&self, name: &str) -> Option<*mut ibv_device> {
        self.devices().find(|device| self.name_of(*device) == name)
    }
}

impl Drop for Listed<'_> {
    fn drop(&mut self) {
        // SAFETY: the list that was given to us, freed once; devices that are open stay.
        unsafe { (self.library.ibv_free_device_list)(self.list.as_ptr()) };
    }
}

/// The table of functions of an open context: those slots that are filled. A Mac's table may have empty ones.
#[derive(Clone, Copy)]
pub(super) struct Ops {
    pub(super) alloc_mw: Option<unsafe extern "C" fn(*mut ibv_pd, core::ffi::c_int) -> *mut ibv_mw>,
    pub(super) bind_mw:
        Option<unsafe extern "C" fn(*mut ibv_qp, *mut ibv_mw, *mut ibv_mw_bind) -> core::ffi::c_int>,
    pub(super) dealloc_mw: Option<unsafe extern "C" fn(*mut ibv_mw) -> core::ffi::c_int>,
    pub(super) poll_cq:
        Option<unsafe extern "C" fn(*mut ibv_cq, core::ffi::c_int, *mut ibv_wc) -> core::ffi::c_int>,
    pub(super) req_notify_cq: Option<unsafe extern "C" fn(*mut ibv_cq, core::ffi::c_int) -> core::ffi::c_int>,
    pub(super) post_srq_recv: Option<
        unsafe extern "C" fn(*mut ibv_srq, *mut ibv_recv_wr, *mut *mut ibv_recv_wr) -> core::ffi::c_int,
    >,
    pub(super) post_send: Option<
        unsafe extern "C" fn(*mut ibv_qp, *mut ibv_send_wr, *mut *mut ibv_send_wr) -> core::ffi::c_int,
    >,
    pub(super) post_recv: Option<
        unsafe extern "C" fn(*mut ibv_qp, *mut ibv_recv_wr, *mut *mut ibv_recv_wr) -> core::ffi::c_int,
    >,
}

macro_rules! slots {
    ($context:ident: $($slot:ident)+) => {
        Ops { $(
            // SAFETY: a slot of an open context's table: a function of this type, or null, which is what `Option` makes of it.
            $slot: unsafe { (&raw const (*$context).ops.$slot).cast::<Option<_>>().read() },
        )+ }
    };
}

/// An open context. The last that holds it closes it.
pub(super) struct Handle {
    pub(super) library: Arc<Library>,
    pub(super) context: NonNull<ibv_context>,
    pub(super) ops: Ops,
    pub(super) name: String,
    closed: AtomicBool,
}

// SAFETY: libibverbs lets any thread make calls on a context, also several at a time (rdma-core's Documentation, "libibverbs.md", on thread safety).
unsafe impl Send for Handle {}
// SAFETY: as above.
unsafe impl Sync for Handle {}

impl Handle {
    /// Opens a device; `None` if there is none of this name.
    pub(super) fn open(library: &Arc<Library>, name: &str) -> Result<Option<Self>> {
        let listed = Listed::all(library)?;
        let Some(device) = listed.find(name) else { return Ok(None) };
        // SAFETY: a device of the list, which is still held.
        let context = unsafe { (library.ibv_open_device)(device) };
        let context = fault::object(OPEN, name, context)?;
        let table = context.as_ptr().cast_const();
        #[allow(clippy::multiple_unsafe_ops_per_block, reason = "a place in a structure, and its value")]
        let ops = slots!(table: alloc_mw bind_mw dealloc_mw poll_cq req_notify_cq post_srq_recv post_send post_recv);
        Ok(Some(Self {
            library: Arc::clone(library),
            context,
            ops,
            name: name.to_owned(),
            closed: AtomicBool::new(false),
        }))
    }

    /// The context as the library's calls take it.
    pub(super) fn context(&self) -> *mut ibv_context {
        self.context.as_ptr()
    }

    /// A function that the library may lack.
    pub(super) fn needs<F>(&self, function: Option<F>, call: &'static str, what: &'static str) -> Result<F> {
        function.ok_or_else(|| fault::missing(call, &self.name, what))
    }
}

impl Handle {
    /// Closes it now, once; whoever holds us makes no calls any more.
    pub(super) fn close(&self) {
        if !self.closed.swap(true, Ordering::AcqRel) {
            // SAFETY: opened by us, and closed here alone. Everything that was made from it is gone: it held us, or its holder says so.
            unsafe { (self.library.ibv_close_device)(self.context()) };
        }
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.close();
    }
}

/// A protection domain.
pub(super) struct Pd {
    pub(super) handle: Arc<Handle>,
    pd: NonNull<ibv_pd>,
}

// SAFETY: as for `Handle`.
unsafe impl Send for Pd {}
// SAFETY: as for `Handle`.
unsafe impl Sync for Pd {}

impl Pd {
    pub(super) fn new(handle: &Arc<Handle>) -> Result<Self> {
        // SAFETY: the context is open.
        let pd = unsafe { (handle.library.ibv_alloc_pd)(handle.context()) };
        Ok(Self { handle: Arc::clone(handle), pd: fault::object("alloc_pd", &handle.name, pd)? })
    }

    pub(super) fn as_ptr(&self) -> *mut ibv_pd {
        self.pd.as_ptr()
    }
}

impl Drop for Pd {
    fn drop(&mut self) {
        // SAFETY: ours, given back once, and everything in it is gone: it held us.
        unsafe { (self.handle.library.ibv_dealloc_pd)(self.as_ptr()) };
    }
}
