//! What a program gets back that asks wrongly: each call fails in libibverbs' way, and none crashes.

mod common;

use common::verbs::*;
use core::ffi::{c_int, c_void};
use core::ptr::null_mut;

/// The calls that return an object, with NULL for the object that they take.
#[test]
fn null_objects_give_null_and_einval() {
    macro_rules! null_and_einval {
        ($( $name:ident($($value:expr => $ty:ty),*) )+) => { $(
            nix::errno::Errno::set_raw(0);
            let made = call!($name($($value => $ty),*) -> *mut c_void);
            assert!(made.is_null(), stringify!($name));
            assert_eq!(errno(), libc::EINVAL, stringify!($name));
        )+ };
    }
    let null = null_mut::<c_void>();
    null_and_einval! {
        ibv_open_device(null => *mut c_void)
        ibv_alloc_pd(null => *mut c_void)
        ibv_reg_mr(null => *mut c_void, null => *mut c_void, 4096 => usize, 1 => c_int)
        ibv_reg_mr_iova2(null => *mut c_void, null => *mut c_void, 4096 => usize, 0 => u64, 1 => u32)
        ibv_create_comp_channel(null => *mut c_void)
        ibv_create_cq(null => *mut c_void, 1 => c_int, null => *mut c_void, null => *mut c_void, 0 => c_int)
        ibv_create_srq(null => *mut c_void, null => *mut c_void)
        ibv_create_qp(null => *mut c_void, null => *mut c_void)
        ibv_create_ah(null => *mut c_void, null => *mut c_void)
        ibv_import_pd(null => *mut c_void, 0 => u32)
        ibv_import_mr(null => *mut c_void, 0 => u32)
        ibv_import_device(-1 => c_int)
    }
}

/// The calls that return a positive number.
#[test]
fn null_objects_give_einval_as_a_number() {
    macro_rules! einval {
        ($( $name:ident($($value:expr => $ty:ty),*) )+) => { $(
            assert_eq!(call!($name($($value => $ty),*) -> c_int), libc::EINVAL, stringify!($name));
        )+ };
    }
    let null = null_mut::<c_void>();
    einval! {
        ibv_close_device(null => *mut c_void)
        ibv_query_device(null => *mut c_void, null => *mut c_void)
        ibv_query_port(null => *mut c_void, 1 => u8, null => *mut c_void)
        ibv_dealloc_pd(null => *mut c_void)
        ibv_dereg_mr(null => *mut c_void)
        ibv_destroy_cq(null => *mut c_void)
        ibv_resize_cq(null => *mut c_void, 1 => c_int)
        ibv_destroy_comp_channel(null => *mut c_void)
        ibv_modify_srq(null => *mut c_void, null => *mut c_void, 0 => c_int)
        ibv_query_srq(null => *mut c_void, null => *mut c_void)
        ibv_destroy_srq(null => *mut c_void)
        ibv_modify_qp(null => *mut c_void, null => *mut c_void, 0 => c_int)
        ibv_query_qp(null => *mut c_void, null => *mut c_void, 0 => c_int, null => *mut c_void)
        ibv_destroy_qp(null => *mut c_void)
        ibv_destroy_ah(null => *mut c_void)
        ibv_attach_mcast(null => *mut c_void, null => *mut c_void, 0 => u16)
    }
}

/// The calls that return -1.
#[test]
fn null_objects_give_minus_one_and_einval() {
    macro_rules! minus_one {
        ($( $name:ident($($value:expr => $ty:ty),*) )+) => { $(
            nix::errno::Errno::set_raw(0);
            assert_eq!(call!($name($($value => $ty),*) -> c_int), -1, stringify!($name));
            assert_eq!(errno(), libc::EINVAL, stringify!($name));
        )+ };
    }
    let null = null_mut::<c_void>();
    minus_one! {
        ibv_query_gid(null => *mut c_void, 1 => u8, 0 => c_int, null => *mut c_void)
        ibv_query_pkey(null => *mut c_void, 1 => u8, 0 => c_int, null => *mut c_void)
        ibv_get_cq_event(null => *mut c_void, null => *mut c_void, null => *mut c_void)
        ibv_get_async_event(null => *mut c_void, null => *mut c_void)
        ibv_get_pkey_index(null => *mut c_void, 1 => u8, 0xffff => u16)
    }
    assert_eq!(
        call!(ibv_read_sysfs_file(null => *mut c_void, null => *mut c_void, null => *mut c_void, 0 => usize) -> c_int),
        -1
    );
    // These return nothing.
    call!(ibv_free_device_list(null => *mut c_void));
    call!(ibv_ack_cq_events(null => *mut c_void, 1 => u32));
    call!(ibv_ack_async_event(null => *mut c_void));
    call!(ibv_unimport_pd(null => *mut c_void));
    call!(ibv_unimport_mr(null => *mut c_void));
}

#[test]
fn values_out_of_range_are_refused() {
    let context = Context::open(None);
    let pd = context.pd();
    let null = null_mut::<c_void>();
    let mut gid = ibv_gid::default();
    for (port, index) in [(0, 0), (2, 0), (1, -1), (1, 100_000)] {
        let got = call!(ibv_query_gid(context.0 => *mut ibv_context, port => u8, index => c_int, &mut gid => *mut ibv_gid) -> c_int);
        assert_eq!((got, errno()), (-1, libc::EINVAL), "{port} {index}");
    }
    for (cqe, vector) in [(0, 0), (-1, 0), (c_int::MAX, 0), (16, 1), (16, -1)] {
        let cq = call!(ibv_create_cq(
            context.0 => *mut ibv_context, cqe => c_int, null => *mut c_void, null => *mut c_void, vector => c_int) -> *mut ibv_cq);
        assert!(cq.is_null(), "{cqe} {vector}");
        assert_eq!(errno(), libc::EINVAL);
    }
    let mut bytes = vec![0; 4096];
    // A peer may write what we may not, and a flag that nobody knows.
    for access in [2, 1 << 15] {
        let mr = call!(ibv_reg_mr(
            pd => *mut ibv_pd, bytes.as_mut_ptr().cast() => *mut c_void, 4096 => usize, access => c_int) -> *mut ibv_mr);
        assert!(mr.is_null(), "{access}");
        assert_eq!(errno(), libc::EINVAL);
    }
    // Optional rights that nobody knows are left out.
    let mr = reg_mr(pd, &mut bytes, 1 | 1 << 25);
    assert_eq!(call!(ibv_dereg_mr(mr => *mut ibv_mr) -> c_int), 0);
    // Memory that is not there.
    let mr = call!(ibv_reg_mr(pd => *mut ibv_pd, 4096 as *mut c_void => *mut c_void, 4096 => usize, 1 => c_int) -> *mut ibv_mr);
    assert!(mr.is_null());
    assert_eq!(errno(), libc::EFAULT);
    assert_eq!(call!(ibv_dealloc_pd(pd => *mut ibv_pd) -> c_int), 0);
    context.close();
}

#[test]
fn what_is_in_use_is_not_destroyed() {
    let context = Context::open(None);
    let pd = context.pd();
    let channel = context.channel();
    let cq = context.cq(channel);
    let qp = Qp::create(pd, cq, 2, null_mut());
    let busy = |what: &str, result: c_int| assert_eq!(result, libc::EBUSY, "{what}");
    busy("domain", call!(ibv_dealloc_pd(pd => *mut ibv_pd) -> c_int));
    busy("completion queue", call!(ibv_destroy_cq(cq => *mut ibv_cq) -> c_int));
    busy("channel", call!(ibv_destroy_comp_channel(channel => *mut ibv_comp_channel) -> c_int));
    assert_eq!(qp.destroy(), 0);
    assert_eq!(call!(ibv_destroy_cq(cq => *mut ibv_cq) -> c_int), 0);
    assert_eq!(call!(ibv_destroy_comp_channel(channel => *mut ibv_comp_channel) -> c_int), 0);
    assert_eq!(call!(ibv_dealloc_pd(pd => *mut ibv_pd) -> c_int), 0);
    context.close();
}

#[test]
fn what_is_not_offered_says_so() {
    let context = Context::open(None);
    let (pd, cq) = (context.pd(), context.cq(null_mut()));
    // A queue pair of raw packets, and one of XRC.
    for qp_type in [8, 9, 10, 0xff] {
        let mut init = init(cq, qp_type, null_mut());
        let qp = call!(ibv_create_qp(pd => *mut ibv_pd, &mut init => *mut ibv_qp_init_attr) -> *mut ibv_qp);
        assert!(qp.is_null());
        assert_eq!(errno(), libc::EOPNOTSUPP);
    }
    let verbs = context.verbs();
    assert!(verbs.open_xrcd.is_null() && verbs.create_flow.is_null() && verbs.create_wq.is_null());
    let mr = call!(ibv_reg_dmabuf_mr(
        pd => *mut ibv_pd, 0 => u64, 4096 => usize, 0 => u64, 0 => c_int, 1 => c_int) -> *mut ibv_mr);
    assert!(mr.is_null());
    assert_eq!(errno(), libc::EOPNOTSUPP);
    // What drivers would call.
    assert_eq!(call!(ibv_cmd_create_qp() -> c_int), libc::EOPNOTSUPP);
    assert!(call!(verbs_open_device() -> *mut c_void).is_null());
    assert_eq!(call!(ibv_destroy_cq(cq => *mut ibv_cq) -> c_int), 0);
    assert_eq!(call!(ibv_dealloc_pd(pd => *mut ibv_pd) -> c_int), 0);
    context.close();
}
