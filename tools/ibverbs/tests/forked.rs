//! A child of a process with open devices: it may use devices of its own, and does its parent no harm.

#![allow(clippy::multiple_unsafe_ops_per_block, reason = "a C program has no blocks at all")]

mod common;

use common::process::{Child, hear, role, say};
use common::verbs::*;
use core::ffi::c_int;
use core::ptr::null_mut;
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{ForkResult, fork};

/// The process that forks: it has no threads of the test harness that the child would miss.
#[test]
fn child() {
    if role().is_none() {
        return;
    }
    let context = Context::open(None);
    let (pd, cq) = (context.pd(), context.cq(null_mut()));
    let mr = reg_mr(pd, vec![0_u8; 4096].leak(), ALL_RIGHTS);
    let qp = Qp::create(pd, cq, 2, null_mut());
    qp.connect(context.gid(), context.port().lid, qp.c().qp_num);
    // SAFETY: the harness waits for this thread, and holds no lock that the child needs.
    match unsafe { fork() }.expect("a child") {
        ForkResult::Child => {
            // An orderly end, as a program's own cleaning up would have it.
            assert_eq!(qp.destroy(), 0);
            assert_eq!(call!(ibv_dereg_mr(mr => *mut ibv_mr) -> c_int), 0);
            assert_eq!(call!(ibv_destroy_cq(cq => *mut ibv_cq) -> c_int), 0);
            assert_eq!(call!(ibv_dealloc_pd(pd => *mut ibv_pd) -> c_int), 0);
            assert!(call!(ibv_alloc_pd(context.0 => *mut ibv_context) -> *mut ibv_pd).is_null());
            assert_eq!(errno(), libc::ENODEV);
            context.close();
            // A device of its own works.
            let own = Context::open(None);
            let (pd, cq) = (own.pd(), own.cq(null_mut()));
            let qp = Qp::create(pd, cq, 2, null_mut());
            qp.connect(own.gid(), own.port().lid, qp.c().qp_num);
            let mut recv = ibv_recv_wr { wr_id: 1, next: null_mut(), sg_list: null_mut(), num_sge: 0 };
            assert_eq!(qp.post_recv(&mut recv).0, 0);
            assert_eq!(qp.post_send(&mut send_wr(2, 2, null_mut(), 0)).0, 0);
            poll(cq, 2);
            // SAFETY: ends the child, whose harness is the parent's.
            unsafe { libc::_exit(23) };
        }
        ForkResult::Parent { child } => {
            let WaitStatus::Exited(_, status) = waitpid(child, None).expect("an end") else {
                panic!("the child was killed");
            };
            assert_eq!(status, 23, "the child's own assertions");
        }
    }
    // All is as it was.
    let mut from = sge(mr, 0, 8);
    let mut into = sge(mr, 64, 8);
    qp.recv(1, &mut into);
    assert_eq!(qp.post_send(&mut send_wr(2, 2, &mut from, 1)).0, 0);
    assert!(poll(cq, 2).iter().all(|wc| wc.status == 0));
    say("as it was");
    hear();
}

#[test]
fn a_childs_end_leaves_the_parents_objects_alone() {
    let forking = Child::start("fork");
    assert_eq!(forking.hear(), "as it was");
    assert!(forking.reap().success());
}
