//! The report at the end: limits that the program came near to.

#![allow(clippy::multiple_unsafe_ops_per_block, reason = "a C program has no blocks at all")]

mod common;
#[path = "common/program.rs"]
mod program;

use common::process::{role, say};
use common::verbs::*;
use core::ptr::null_mut;
use program::Program;

#[test]
fn child() {
    match role().as_deref() {
        None => {}
        Some("queues") => queues(),
        Some("objects") => objects(),
        Some(other) => panic!("{other}"),
    }
}

/// What the report of this program says.
fn report(role: &str, env: &[(&str, &str)]) -> String {
    let env: Vec<_> = env.iter().copied().chain([("TBRDMA_EXPLAIN", "1")]).collect();
    let (said, told, status) = Program::start(role, &env).end();
    assert!(said.contains("@done") && status.success(), "{said} {told}");
    told
}

/// Fills the queues of a queue pair that is connected to itself, more or less.
fn queues() {
    let context = Context::open(None);
    let (pd, cq) = (context.pd(), context.cq(null_mut()));
    let mr = reg_mr(pd, vec![0_u8; 4096].leak(), ALL_RIGHTS);
    let qp = Qp::create(pd, cq, 2, null_mut());
    qp.connect(context.gid(), context.port().lid, qp.c().qp_num);
    for id in 0..8 {
        qp.recv(id, &mut sge(mr, 0, 64));
    }
    let mut entries = [sge(mr, 1024, 8), sge(mr, 2048, 8)];
    for id in 0..7 {
        assert_eq!(qp.post_send(&mut send_wr(id, 2, entries.as_mut_ptr(), if id == 0 { 2 } else { 1 })).0, 0);
    }
    let mut inline = send_wr(7, 0, entries.as_mut_ptr(), 1);
    inline.send_flags |= 8;
    // SAFETY: alive.
    let own = unsafe { &*mr };
    inline.wr.rdma = ibv_send_wr_rdma { remote_addr: own.addr as u64, rkey: own.rkey };
    poll(cq, 14);
    assert_eq!(qp.post_send(&mut inline).0, 0);
    poll(cq, 1);
    say("done");
}

#[test]
fn queues_that_were_nearly_full_are_named() {
    let told = report("queues", &[]);
    for (count, what, near) in [
        ("8 of 8", "receives outstanding (max_recv_wr) on QP 0x", ": at the limit"),
        ("7 of 8", "send requests outstanding (max_send_wr) on QP 0x", ": near the limit"),
        ("2 of 2", "entries of a send request (max_send_sge) on QP 0x", ": at the limit"),
        ("1 of 2", "entries of a receive (max_recv_sge) on QP 0x", ""),
        ("8 of 32", "inline bytes of a send request (max_inline_data) on QP 0x", ""),
        ("14 of 64", "completions waiting to be polled (cqe) on CQ ", ""),
        ("64 of ", "completions asked for a queue (max_cqe) on mlx5_0", ""),
        ("8 of ", "work requests asked for a queue (max_qp_wr) on mlx5_0", ""),
    ] {
        let line = told.lines().find(|line| line.contains(what));
        let line = line.unwrap_or_else(|| panic!("{what} in\n{told}"));
        assert!(line.contains(&format!("at most {count}")), "{line}");
        assert!(line.ends_with(near) && (!near.is_empty() || !line.ends_with("limit")), "{line}");
    }
}

/// More queue pairs than the device has.
fn objects() {
    let context = Context::open(None);
    let (pd, cq) = (context.pd(), context.cq(null_mut()));
    let made: Vec<_> = (0..3).map(|_| Qp::create(pd, cq, 3, null_mut())).collect();
    let mut init = init(cq, 3, null_mut());
    assert!(
        call!(ibv_create_qp(pd => *mut ibv_pd, &mut init => *mut ibv_qp_init_attr) -> *mut ibv_qp).is_null()
    );
    // One less, and one more again: the most at a time is what counts.
    assert_eq!(made[0].destroy(), 0);
    Qp::create(pd, cq, 3, null_mut());
    say("done");
}

#[test]
fn objects_are_counted_at_a_time() {
    let told = report("objects", &[("TBRDMA_PROFILE", "plain,qps=3")]);
    assert!(told.contains("at most 3 of 3 queue pairs on mlx5_0: at the limit"), "{told}");
    assert!(told.contains("ibv_create_qp failed 1 times") && told.contains("3 not given back"), "{told}");
}
