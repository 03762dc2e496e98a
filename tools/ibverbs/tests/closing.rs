//! Objects that outlive what they were made from, which programs leave behind when they close a device or unimport a domain.

#![allow(clippy::multiple_unsafe_ops_per_block, reason = "a C program has no blocks at all")]

mod common;

use common::verbs::*;
use core::ffi::{c_int, c_void};
use core::ptr::null_mut;

/// Registered for as long as the process lives.
fn bytes() -> &'static mut [u8] {
    vec![0; 4096].leak()
}

/// A queue pair in a domain of its own, connected to another.
fn qp(context: Context) -> (Qp, *mut ibv_mr, *mut ibv_cq) {
    let (pd, cq) = (context.pd(), context.cq(context.channel()));
    (Qp::create(pd, cq, 2, null_mut()), reg_mr(pd, bytes(), ALL_RIGHTS), cq)
}

#[test]
fn what_was_made_from_a_closed_device_ends_with_it() {
    devices("shm=shm");
    let (closed, kept) = (Context::open(None), Context::open(None));
    let (gid, lid) = (kept.gid(), kept.port().lid);
    let ((theirs, mr, _), (ours, own, cq)) = (qp(closed), qp(kept));
    theirs.connect(gid, lid, ours.c().qp_num);
    ours.connect(gid, lid, theirs.c().qp_num);
    let write = |wr_id| {
        let mut entry = sge(own, 0, 8);
        let mut wr = send_wr(wr_id, 0, &mut entry, 1);
        // SAFETY: the structure is there for as long as the process lives, whether the region is alive or not.
        wr.wr.rdma = unsafe { ibv_send_wr_rdma { remote_addr: (*mr).addr as u64, rkey: (*mr).rkey } };
        assert_eq!(ours.post_send(&mut wr).0, 0);
        poll(cq, 1)[0].status
    };
    assert_eq!(write(1), 0);
    closed.close();
    // The kept one is told of events of its own only; nobody looks for the objects of the closed one.
    set_nonblocking(kept.c().async_fd);
    assert_ne!(write(2), 0, "a region of a closed device can be written to");
    let mut event = nonsense::<ibv_async_event>();
    while call!(ibv_get_async_event(kept.0 => *mut ibv_context, &mut event => *mut ibv_async_event) -> c_int)
        == 0
    {
        // SAFETY: with one queue pair, all events are its own.
        assert_eq!(unsafe { event.element.qp }, ours.0);
        call!(ibv_ack_async_event(&mut event => *mut ibv_async_event));
    }
    kept.close();
}

#[test]
fn what_was_made_in_an_imported_domain_outlives_it() {
    devices("shm=shm");
    let context = Context::open(None);
    let pd = context.pd();
    // SAFETY: alive.
    let handle = unsafe { (*pd).handle };
    let imported = call!(ibv_import_pd(context.0 => *mut ibv_context, handle => u32) -> *mut ibv_pd);
    let mr = reg_mr(imported, bytes(), ALL_RIGHTS);
    call!(ibv_unimport_pd(imported => *mut ibv_pd));
    assert_eq!(call!(ibv_dereg_mr(mr => *mut ibv_mr) -> c_int), 0);
    assert_eq!(call!(ibv_dealloc_pd(pd => *mut ibv_pd) -> c_int), 0);
    context.close();
}

#[test]
fn objects_of_two_contexts_do_not_mix() {
    devices("shm=shm");
    let (one, other) = (Context::open(None), Context::open(None));
    let (pd, cq) = (one.pd(), other.cq(null_mut()));
    let mut init = init(cq, 2, null_mut());
    let qp = call!(ibv_create_qp(pd => *mut ibv_pd, &mut init => *mut ibv_qp_init_attr) -> *mut ibv_qp);
    assert_eq!((qp, errno()), (null_mut(), libc::EINVAL));
    let channel = one.channel();
    let cq = call!(ibv_create_cq(
        other.0 => *mut ibv_context, 1 => c_int, null_mut() => *mut c_void, channel => *mut ibv_comp_channel,
        0 => c_int) -> *mut ibv_cq);
    assert_eq!((cq, errno()), (null_mut(), libc::EINVAL));
    one.close();
    other.close();
}
