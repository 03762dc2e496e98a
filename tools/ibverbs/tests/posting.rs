//! Lists of work requests: what is wrong with one stops the list there, says where and why, and what came before it is posted.

#![allow(clippy::multiple_unsafe_ops_per_block, reason = "a C program has no blocks at all")]

mod common;

use common::verbs::*;
use core::ffi::c_int;
use core::ptr::{null_mut, without_provenance_mut};

const SEND: u32 = 2;

/// A queue pair connected to itself, its completion queue, and a region.
fn looped() -> (Context, *mut ibv_pd, *mut ibv_cq, Qp, *mut ibv_mr) {
    let context = Context::open(None);
    let (pd, cq) = (context.pd(), context.cq(null_mut()));
    let bytes = vec![0_u8; 4096].leak();
    let mr = reg_mr(pd, bytes, ALL_RIGHTS);
    let qp = Qp::create(pd, cq, 2, null_mut());
    qp.connect(context.gid(), context.port().lid, qp.c().qp_num);
    (context, pd, cq, qp, mr)
}

#[test]
fn a_list_is_posted_up_to_what_is_wrong() {
    let (.., cq, qp, mr) = looped();
    let mut into = sge(mr, 0, 64);
    for id in 0..2 {
        qp.recv(10 + id, &mut into);
    }
    let mut from = sge(mr, 1024, 8);
    let mut wrong = [
        // An operation that there is not, and one that there is not for this.
        send_wr(9, 4711, &mut from, 1),
        send_wr(9, 10, &mut from, 1),
        // More entries than the queue pair takes, fewer than none, and a list that is not there.
        send_wr(9, SEND, &mut from, 3),
        send_wr(9, SEND, &mut from, -1),
        send_wr(9, SEND, null_mut(), 1),
        // More inline bytes than the queue pair takes.
        send_wr(9, SEND, &mut from, 1),
        // More entries than there are.
        send_wr(9, SEND, &mut from, c_int::MAX),
    ];
    let mut long = ibv_sge { addr: from.addr, length: 33, lkey: 0 };
    wrong[5].sg_list = &mut long;
    wrong[5].send_flags |= 8;
    for (at, wrong) in wrong.iter_mut().enumerate() {
        let mut after = send_wr(8, SEND, &mut from, 1);
        wrong.next = &mut after;
        let mut first = send_wr(7, SEND, &mut from, 1);
        first.next = wrong;
        if at > 1 {
            qp.recv(12, &mut into);
        }
        let (posted, bad) = qp.post_send(&mut first);
        assert_eq!(posted, libc::EINVAL, "{at}");
        assert!(core::ptr::eq(bad, wrong), "{at}");
        let ids: Vec<_> = poll(cq, 2).iter().map(|wc| (wc.wr_id, wc.status)).collect();
        assert!(ids.contains(&(7, 0)), "{at}: {ids:?}");
    }
}

#[test]
fn entries_beyond_what_a_queue_takes_are_not_read() {
    let (context, pd, .., qp, mr) = looped();
    let mut init = ibv_srq_init_attr {
        srq_context: null_mut(),
        attr: ibv_srq_attr { max_wr: 4, max_sge: 2, srq_limit: 0 },
    };
    let srq = call!(ibv_create_srq(pd => *mut ibv_pd, &mut init => *mut ibv_srq_init_attr) -> *mut ibv_srq);
    let mut into = sge(mr, 0, 64);
    let mut wr = ibv_recv_wr { wr_id: 1, next: null_mut(), sg_list: &mut into, num_sge: c_int::MAX };
    let (posted, bad) = qp.post_recv(&mut wr);
    assert_eq!((posted, bad), (libc::EINVAL, &raw mut wr));
    let mut bad = null_mut();
    // SAFETY: alive.
    let posted = unsafe { (context.c().ops.post_srq_recv)(srq, &mut wr, &mut bad) };
    assert_eq!((posted, bad), (libc::EINVAL, &raw mut wr));
}

#[test]
fn a_full_queue_says_enomem_at_the_first_that_does_not_fit() {
    let (.., cq, qp, mr) = looped();
    let mut into = sge(mr, 0, 64);
    let mut wrs: Vec<_> = (0..12)
        .map(|wr_id| ibv_recv_wr { wr_id, next: null_mut(), sg_list: &mut into, num_sge: 1 })
        .collect();
    for at in 0..11 {
        wrs[at].next = &mut wrs[at + 1];
    }
    let (posted, bad) = qp.post_recv(&mut wrs[0]);
    assert_eq!(posted, libc::ENOMEM);
    assert!(core::ptr::eq(bad, &raw const wrs[8]));
    // A circle of work requests is a list that does not fit.
    wrs[11].next = &mut wrs[8];
    assert_eq!(qp.post_recv(&mut wrs[8]).0, libc::ENOMEM);
    let mut from = sge(mr, 1024, 8);
    for id in 0..8 {
        assert_eq!(qp.post_send(&mut send_wr(100 + id, SEND, &mut from, 1)).0, 0);
    }
    let completed = poll(cq, 16);
    let received: Vec<_> = completed.iter().filter(|wc| wc.opcode == 128).map(|wc| wc.wr_id).collect();
    assert_eq!(received, Vec::from_iter(0..8));
}

#[test]
fn states_that_take_no_work_say_einval() {
    let context = Context::open(None);
    let (pd, cq) = (context.pd(), context.cq(null_mut()));
    let qp = Qp::create(pd, cq, 2, null_mut());
    let mut sge = ibv_sge::default();
    let mut send = send_wr(1, SEND, &mut sge, 0);
    assert_eq!(qp.post_send(&mut send), (libc::EINVAL, &raw mut send));
    let mut recv = ibv_recv_wr { wr_id: 1, next: null_mut(), sg_list: null_mut(), num_sge: 0 };
    assert_eq!(qp.post_recv(&mut recv), (libc::EINVAL, &raw mut recv));
    // Transitions that there are not, and states.
    let mut attr = zeroed::<ibv_qp_attr>();
    attr.qp_state = 3;
    assert_eq!(qp.modify(&mut attr, 1), libc::EINVAL);
    attr.qp_state = 17;
    assert_eq!(qp.modify(&mut attr, 1), libc::EINVAL);
    assert_eq!(qp.modify(&mut attr, 1 << 30), libc::EINVAL);
    assert_eq!(qp.c().state, 0);
}

#[test]
fn a_datagram_without_an_address_is_refused() {
    let context = Context::open(None);
    let (pd, cq) = (context.pd(), context.cq(null_mut()));
    let qp = Qp::create(pd, cq, 4, null_mut());
    let mut attr = nonsense::<ibv_qp_attr>();
    (attr.qp_state, attr.pkey_index, attr.port_num, attr.qkey) = (1, 0, 1, 5);
    assert_eq!(qp.modify(&mut attr, 1 | 1 << 4 | 1 << 5 | 1 << 6), 0);
    attr.qp_state = 2;
    assert_eq!(qp.modify(&mut attr, 1), 0);
    (attr.qp_state, attr.sq_psn) = (3, 0);
    assert_eq!(qp.modify(&mut attr, 1 | 1 << 16), 0);
    let mut wr = send_wr(1, SEND, null_mut(), 0);
    wr.wr.ud = ibv_send_wr_ud { ah: null_mut(), remote_qpn: 1, remote_qkey: 5 };
    assert_eq!(qp.post_send(&mut wr).0, libc::EINVAL);
    // `bad_wr` is where the program says, or nowhere.
    let context = context.c();
    // SAFETY: the list is alive.
    let posted = unsafe { (context.ops.post_send)(qp.0, &mut wr, null_mut()) };
    assert_eq!(posted, libc::EINVAL);
    // An empty list is posted at once.
    // SAFETY: there is none.
    let posted: c_int = unsafe { (context.ops.post_send)(qp.0, null_mut(), without_provenance_mut(8)) };
    assert_eq!(posted, 0);
}

#[test]
fn several_threads_post_to_one_queue_pair() {
    const EACH: u64 = 200;
    let (.., cq, qp, mr) = looped();
    let (mr, cq_address, qp_address) = (mr as usize, cq as usize, qp.0 as usize);
    std::thread::scope(|scope| {
        for thread in 0..3_u64 {
            scope.spawn(move || {
                let (mr, qp) = (mr as *mut ibv_mr, Qp(qp_address as *mut ibv_qp));
                // SAFETY: alive.
                let (addr, rkey) = unsafe { ((*mr).addr as u64, (*mr).rkey) };
                let mut from = sge(mr, 1024, 8);
                for at in 0..EACH {
                    let mut wr = send_wr(thread << 32 | at, 0, &mut from, 1);
                    wr.wr.rdma = ibv_send_wr_rdma { remote_addr: addr + 8 * thread, rkey };
                    let begun = std::time::Instant::now();
                    while qp.post_send(&mut wr).0 == libc::ENOMEM {
                        assert!(begun.elapsed().as_secs() < 30, "the queue stays full");
                        std::thread::yield_now();
                    }
                }
            });
        }
        scope.spawn(move || {
            let mut next = [0; 3];
            for _ in 0..3 * EACH {
                let wc = poll(cq_address as *mut ibv_cq, 1)[0];
                assert_eq!(wc.status, 0);
                let thread = (wc.wr_id >> 32) as usize;
                assert_eq!(wc.wr_id & 0xffff_ffff, next[thread], "each thread's are in order");
                next[thread] += 1;
            }
        });
    });
}
