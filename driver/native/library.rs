//! The system's verbs library: finding it, and its functions by name.
//!
//! Sixteen functions must be there: those that programs for Macs use. Each of the others is an `Option`, and who needs one that is missing says
//! which. The library is never unloaded: its threads and its drivers' outlive whoever closes the last device.

use super::platform::{LIBRARIES, MAC};
use crate::error::{Error, Result};
use crate::sync::{AtomicBool, Ordering};
use core::ffi::{c_char, c_int, c_uint, c_void};
use std::ffi::OsString;
use std::path::Path;
use std::sync::{Arc, OnceLock};
use tbrdma_abi::*;

/// The variable that names the library.
const VARIABLE: &str = "TBRDMA_VERBS_LIBRARY";

/// Whether this process is the verbs library.
static FORBIDDEN: AtomicBool = AtomicBool::new(false);

/// From now on there are no native devices: this process, or this copy of the crate, is itself what programs take for the system's library, and
/// would find itself.
pub(crate) fn forbid() {
    FORBIDDEN.store(true, Ordering::Release);
}

/// The library that was named.
pub(super) fn named() -> Option<OsString> {
    std::env::var_os(VARIABLE).filter(|path| !path.is_empty())
}

macro_rules! functions {
    (
        required { $( $must:ident($($must_in:ty),*) $(-> $must_out:ty)?; )+ }
        optional { $( $may:ident($($may_in:ty),*) $(-> $may_out:ty)?; )+ }
    ) => {
        /// The library's functions.
        pub(super) struct Library {
            name: String,
            _library: libloading::Library,
            $( pub(super) $must: unsafe extern "C" fn($($must_in),*) $(-> $must_out)?, )+
            $( pub(super) $may: Option<unsafe extern "C" fn($($may_in),*) $(-> $may_out)?>, )+
        }

        impl Library {
            fn find(name: String, library: libloading::Library) -> Result<Self, String> {
                $(
                    // SAFETY: the type that the function has in `infiniband/verbs.h`, on either platform.
                    let found = unsafe { library.get(concat!(stringify!($must), "\0").as_bytes()) };
                    let $must = *found.map_err(|_| format!("{name} has no {}", stringify!($must)))?;
                )+
                $(
                    // SAFETY: as above.
                    let found = unsafe { library.get(concat!(stringify!($may), "\0").as_bytes()) };
                    let $may = found.ok().map(|found| *found);
                )+
                Ok(Self { name, _library: library, $( $must, )+ $( $may, )+ })
            }
        }
    };
}

functions! {
    required {
        ibv_get_device_list(*mut c_int) -> *mut *mut ibv_device;
        ibv_get_device_name(*mut ibv_device) -> *const c_char;
        ibv_free_device_list(*mut *mut ibv_device);
        ibv_open_device(*mut ibv_device) -> *mut ibv_context;
        ibv_close_device(*mut ibv_context) -> c_int;
        ibv_query_port(*mut ibv_context, u8, *mut ibv_port_attr) -> c_int;
        ibv_query_gid(*mut ibv_context, u8, c_int, *mut ibv_gid) -> c_int;
        ibv_alloc_pd(*mut ibv_context) -> *mut ibv_pd;
        ibv_dealloc_pd(*mut ibv_pd) -> c_int;
        ibv_reg_mr(*mut ibv_pd, *mut c_void, usize, c_int) -> *mut ibv_mr;
        ibv_dereg_mr(*mut ibv_mr) -> c_int;
        ibv_create_cq(*mut ibv_context, c_int, *mut c_void, *mut ibv_comp_channel, c_int) -> *mut ibv_cq;
        ibv_destroy_cq(*mut ibv_cq) -> c_int;
        ibv_create_qp(*mut ibv_pd, *mut ibv_qp_init_attr) -> *mut ibv_qp;
        ibv_modify_qp(*mut ibv_qp, *mut ibv_qp_attr, c_int) -> c_int;
        ibv_destroy_qp(*mut ibv_qp) -> c_int;
    }
    optional {
        ibv_query_device(*mut ibv_context, *mut ibv_device_attr) -> c_int;
        ibv_query_pkey(*mut ibv_context, u8, c_int, *mut u16) -> c_int;
        ibv_query_qp(*mut ibv_qp, *mut ibv_qp_attr, c_int, *mut ibv_qp_init_attr) -> c_int;
        _ibv_query_gid_table(*mut ibv_context, *mut ibv_gid_entry, usize, u32, usize) -> isize;
        ibv_reg_mr_iova2(*mut ibv_pd, *mut c_void, usize, u64, c_uint) -> *mut ibv_mr;
        ibv_rereg_mr(*mut ibv_mr, c_int, *mut ibv_pd, *mut c_void, usize, c_int) -> c_int;
        ibv_create_comp_channel(*mut ibv_context) -> *mut ibv_comp_channel;
        ibv_destroy_comp_channel(*mut ibv_comp_channel) -> c_int;
        ibv_get_cq_event(*mut ibv_comp_channel, *mut *mut ibv_cq, *mut *mut c_void) -> c_int;
        ibv_ack_cq_events(*mut ibv_cq, c_uint);
        ibv_resize_cq(*mut ibv_cq, c_int) -> c_int;
        ibv_get_async_event(*mut ibv_context, *mut ibv_async_event) -> c_int;
        ibv_ack_async_event(*mut ibv_async_event);
        ibv_create_srq(*mut ibv_pd, *mut ibv_srq_init_attr) -> *mut ibv_srq;
        ibv_modify_srq(*mut ibv_srq, *mut ibv_srq_attr, c_int) -> c_int;
        ibv_query_srq(*mut ibv_srq, *mut ibv_srq_attr) -> c_int;
        ibv_destroy_srq(*mut ibv_srq) -> c_int;
        ibv_create_ah(*mut ibv_pd, *mut ibv_ah_attr) -> *mut ibv_ah;
        ibv_destroy_ah(*mut ibv_ah) -> c_int;
    }
}

impl Library {
    /// The library, loaded if it is not yet. What was found the first time holds for the life of the process.
    ///
    /// # Errors
    /// There is none, it is not one, or this process is it.
    pub(super) fn get(call: &'static str) -> Result<Arc<Self>> {
        static FOUND: OnceLock<Result<Arc<Library>, String>> = OnceLock::new();
        if FORBIDDEN.load(Ordering::Acquire) {
            let reason = "this process is itself the verbs library of a program".to_owned();
            return Err(Error::Library { call, reason });
        }
        let found = FOUND.get_or_init(|| Self::load().map(Arc::new));
        found.clone().map_err(|reason| Error::Library { call, reason })
    }

    fn load() -> Result<Self, String> {
        let named = named().map(|name| vec![name]);
        let is_named = named.is_some();
        let names = named.unwrap_or_else(|| LIBRARIES.iter().map(OsString::from).collect());
        let mut reason = String::new();
        for name in names {
            // SAFETY: loading runs the library's constructors, which is what every program that is linked with it lets happen. Who names
            // another one by the variable answers for it.
            match unsafe { libloading::Library::new(&name) } {
                Ok(library) => return Self::find(Path::new(&name).display().to_string(), library),
                Err(error) => reason = format!("{} cannot be loaded: {error}", Path::new(&name).display()),
            }
        }
        let remedy = match (is_named, MAC) {
            (true, _) => "; TBRDMA_VERBS_LIBRARY names it",
            (false, true) => "; it comes with macOS 26.2 and later",
            (false, false) => "; install it (package libibverbs1 and, for the drivers, ibverbs-providers)",
        };
        Err(reason + remedy)
    }

    /// The name it was loaded by.
    pub(super) fn name(&self) -> &str {
        &self.name
    }
}
