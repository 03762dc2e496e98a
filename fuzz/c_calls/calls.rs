//! The functions of the library that a program of the fuzzer's calls by name.

use super::abi::*;
use core::ffi::{c_char, c_int, c_uint, c_void};

/// Hands each function's name and type to another macro: how they are found differs between the fuzzer and the replay.
macro_rules! every_call {
    ($then:ident) => {
        $then! {
            ibv_get_device_list(*mut c_int) -> *mut *mut ibv_device;
            ibv_free_device_list(*mut *mut ibv_device);
            ibv_get_device_name(*mut ibv_device) -> *const c_char;
            ibv_get_device_guid(*mut ibv_device) -> u64;
            ibv_get_device_index(*mut ibv_device) -> c_int;
            ibv_open_device(*mut ibv_device) -> *mut ibv_context;
            ibv_close_device(*mut ibv_context) -> c_int;
            ibv_import_device(c_int) -> *mut ibv_context;
            ibv_query_device(*mut ibv_context, *mut ibv_device_attr) -> c_int;
            ibv_query_port(*mut ibv_context, u8, *mut ibv_port_attr) -> c_int;
            ibv_query_gid(*mut ibv_context, u8, c_int, *mut ibv_gid) -> c_int;
            ibv_query_pkey(*mut ibv_context, u8, c_int, *mut u16) -> c_int;
            ibv_get_pkey_index(*mut ibv_context, u8, u16) -> c_int;
            ibv_query_gid_type(*mut ibv_context, u8, c_uint, *mut c_int) -> c_int;
            _ibv_query_gid_ex(*mut ibv_context, u32, u32, *mut ibv_gid_entry, u32, usize) -> c_int;
            _ibv_query_gid_table(*mut ibv_context, *mut ibv_gid_entry, usize, u32, usize) -> isize;
            ibv_get_async_event(*mut ibv_context, *mut ibv_async_event) -> c_int;
            ibv_ack_async_event(*mut ibv_async_event);
            ibv_alloc_pd(*mut ibv_context) -> *mut ibv_pd;
            ibv_dealloc_pd(*mut ibv_pd) -> c_int;
            ibv_import_pd(*mut ibv_context, u32) -> *mut ibv_pd;
            ibv_unimport_pd(*mut ibv_pd);
            ibv_reg_mr(*mut ibv_pd, *mut c_void, usize, c_int) -> *mut ibv_mr;
            ibv_reg_mr_iova2(*mut ibv_pd, *mut c_void, usize, u64, c_uint) -> *mut ibv_mr;
            ibv_reg_dmabuf_mr(*mut ibv_pd, u64, usize, u64, c_int, c_int) -> *mut ibv_mr;
            ibv_rereg_mr(*mut ibv_mr, c_int, *mut ibv_pd, *mut c_void, usize, c_int) -> c_int;
            ibv_dereg_mr(*mut ibv_mr) -> c_int;
            ibv_import_mr(*mut ibv_pd, u32) -> *mut ibv_mr;
            ibv_unimport_mr(*mut ibv_mr);
            ibv_create_comp_channel(*mut ibv_context) -> *mut ibv_comp_channel;
            ibv_destroy_comp_channel(*mut ibv_comp_channel) -> c_int;
            ibv_create_cq(*mut ibv_context, c_int, *mut c_void, *mut ibv_comp_channel, c_int) -> *mut ibv_cq;
            ibv_resize_cq(*mut ibv_cq, c_int) -> c_int;
            ibv_destroy_cq(*mut ibv_cq) -> c_int;
            ibv_get_cq_event(*mut ibv_comp_channel, *mut *mut ibv_cq, *mut *mut c_void) -> c_int;
            ibv_ack_cq_events(*mut ibv_cq, c_uint);
            ibv_create_srq(*mut ibv_pd, *mut ibv_srq_init_attr) -> *mut ibv_srq;
            ibv_modify_srq(*mut ibv_srq, *mut ibv_srq_attr, c_int) -> c_int;
            ibv_query_srq(*mut ibv_srq, *mut ibv_srq_attr) -> c_int;
            ibv_destroy_srq(*mut ibv_srq) -> c_int;
            ibv_create_qp(*mut ibv_pd, *mut ibv_qp_init_attr) -> *mut ibv_qp;
            ibv_modify_qp(*mut ibv_qp, *mut ibv_qp_attr, c_int) -> c_int;
            ibv_query_qp(*mut ibv_qp, *mut ibv_qp_attr, c_int, *mut ibv_qp_init_attr) -> c_int;
            ibv_destroy_qp(*mut ibv_qp) -> c_int;
            ibv_qp_to_qp_ex(*mut ibv_qp) -> *mut ibv_qp_ex;
            ibv_query_qp_data_in_order(*mut ibv_qp, c_uint, c_uint) -> c_int;
            ibv_query_ece(*mut ibv_qp, *mut ibv_ece) -> c_int;
            ibv_attach_mcast(*mut ibv_qp, *mut ibv_gid, u16) -> c_int;
            ibv_create_ah(*mut ibv_pd, *mut ibv_ah_attr) -> *mut ibv_ah;
            ibv_create_ah_from_wc(*mut ibv_pd, *mut ibv_wc, *mut ibv_grh, u8) -> *mut ibv_ah;
            ibv_init_ah_from_wc(*mut ibv_context, u8, *mut ibv_wc, *mut ibv_grh, *mut ibv_ah_attr) -> c_int;
            ibv_destroy_ah(*mut ibv_ah) -> c_int;
            ibv_wc_status_str(c_int) -> *const c_char;
            ibv_event_type_str(c_int) -> *const c_char;
            ibv_node_type_str(c_int) -> *const c_char;
            ibv_port_state_str(c_int) -> *const c_char;
            ibv_rate_to_mult(c_int) -> c_int;
            mult_to_ibv_rate(c_int) -> c_int;
            ibv_rate_to_mbps(c_int) -> c_int;
            mbps_to_ibv_rate(c_int) -> c_int;
            ibv_read_sysfs_file(*const c_char, *const c_char, *mut c_char, usize) -> c_int;
        }
    };
}

macro_rules! table {
    ($($name:ident($($ty:ty),*) $(-> $ret:ty)?;)+) => {
        /// The functions.
        pub(crate) struct Calls {
            $( pub(crate) $name: unsafe extern "C" fn($($ty),*) $(-> $ret)?, )+
        }

        impl Calls {
            /// Each by its name.
            ///
            /// # Safety
            /// What is found has the type that `infiniband/verbs.h` says.
            #[allow(dead_code, reason = "the fuzzer has them linked in")]
            pub(crate) unsafe fn find(symbol: impl Fn(&str) -> *const c_void) -> Self {
                Self { $(
                    $name: {
                        let found = symbol(stringify!($name));
                        assert!(!found.is_null(), stringify!($name));
                        // SAFETY: the caller's promise.
                        unsafe { core::mem::transmute::<*const c_void, unsafe extern "C" fn($($ty),*) $(-> $ret)?>(found) }
                    },
                )+ }
            }
        }
    };
}

every_call!(table);

/// A call, after which `errno` says what this call left there.
macro_rules! call {
    ($function:expr; $($argument:expr),* $(,)?) => {{
        nix::errno::Errno::clear();
        #[allow(clippy::macro_metavars_in_unsafe, reason = "what is passed to C is plain values")]
        // SAFETY: none that can be given: whether the library survives these arguments is what is being asked. All objects are alive, and what a
        // structure or a list points to is there.
        let returned = unsafe { $function($($argument),*) };
        returned
    }};
}

pub(super) use call;
#[allow(unused_imports, reason = "the replay finds functions in the table")]
pub(crate) use every_call;
