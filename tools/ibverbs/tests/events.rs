//! Asynchronous events: who gets them, how often, and what destroying an object does about them.

#![allow(clippy::multiple_unsafe_ops_per_block, reason = "a C program has no blocks at all")]

mod common;

use common::verbs::*;
use core::ffi::c_int;
use core::ptr::null_mut;
use std::time::Duration;

const QP_LAST_WQE_REACHED: u32 = 16;
const SRQ_LIMIT_REACHED: u32 = 15;

fn srq(pd: *mut ibv_pd) -> *mut ibv_srq {
    let attr = ibv_srq_attr { max_wr: 8, max_sge: 1, srq_limit: 0 };
    let mut init = ibv_srq_init_attr { srq_context: null_mut(), attr };
    let srq = call!(ibv_create_srq(pd => *mut ibv_pd, &mut init => *mut ibv_srq_init_attr) -> *mut ibv_srq);
    assert!(!srq.is_null());
    assert!(init.attr.max_wr >= 8);
    srq
}

fn event(context: Context) -> Result<ibv_async_event, i32> {
    let mut event = nonsense::<ibv_async_event>();
    match call!(ibv_get_async_event(context.0 => *mut ibv_context, &mut event => *mut ibv_async_event) -> c_int)
    {
        0 => Ok(event),
        _ => Err(errno()),
    }
}

/// The next event, waited for. One of another context's, of which other tests have some, makes the descriptor readable too until somebody looks.
fn next(context: Context) -> ibv_async_event {
    loop {
        assert!(is_readable(context.c().async_fd, 10_000), "an event");
        if let Ok(event) = event(context) {
            return event;
        }
    }
}

fn acknowledge(mut event: ibv_async_event) {
    call!(ibv_ack_async_event(&mut event => *mut ibv_async_event));
}

fn to_error(qp: Qp) {
    let mut attr = nonsense::<ibv_qp_attr>();
    attr.qp_state = 6;
    assert_eq!(qp.modify(&mut attr, 1), 0);
}

#[test]
fn a_queue_pair_in_error_reaches_its_last_entry_once() {
    let context = Context::open(None);
    let (pd, cq) = (context.pd(), context.cq(null_mut()));
    let srq = srq(pd);
    let qp = Qp::create(pd, cq, 2, srq);
    qp.connect(context.gid(), context.port().lid, qp.c().qp_num);
    let fd = context.c().async_fd;
    set_nonblocking(fd);
    while let Ok(event) = event(context) {
        // Being connected to itself, it may have been told that communication is established.
        acknowledge(event);
    }
    to_error(qp);
    let told = next(context);
    assert_eq!(told.event_type, QP_LAST_WQE_REACHED);
    // SAFETY: the arm of this event.
    assert_eq!(unsafe { told.element.qp }, qp.0);
    to_error(qp);
    is_readable(fd, 50);
    assert!(event(context).is_err(), "once is enough");
    // Destroying waits for the acknowledgement.
    let address = qp.0 as usize;
    let destroying = std::thread::spawn(move || Qp(address as *mut ibv_qp).destroy());
    std::thread::sleep(Duration::from_millis(50));
    assert!(!destroying.is_finished());
    acknowledge(told);
    assert_eq!(destroying.join().expect("destroyed"), 0);
    assert_eq!(call!(ibv_destroy_srq(srq => *mut ibv_srq) -> c_int), 0);
}

#[test]
fn each_context_reads_the_events_of_its_own_objects() {
    let (first, second) = (Context::open(None), Context::open(None));
    assert_eq!(first.gid().raw, second.gid().raw, "one device, one port");
    let made = |context: Context| {
        let (pd, cq) = (context.pd(), context.cq(null_mut()));
        let srq = srq(pd);
        let attr = ibv_srq_attr { max_wr: 0, max_sge: 0, srq_limit: 1 };
        let mut attr_now = attr;
        assert_eq!(
            call!(ibv_modify_srq(srq => *mut ibv_srq, &mut attr_now => *mut ibv_srq_attr, 2 => c_int) -> c_int),
            0
        );
        let qp = Qp::create(pd, cq, 2, srq);
        set_nonblocking(context.c().async_fd);
        (srq, qp)
    };
    let ((_, first_qp), (second_srq, second_qp)) = (made(first), made(second));
    // Nothing is posted to the second's queue: one receive there and gone, and the limit is reached.
    first_qp.connect(second.gid(), second.port().lid, second_qp.c().qp_num);
    second_qp.connect(first.gid(), first.port().lid, first_qp.c().qp_num);
    let mut recv = ibv_recv_wr { wr_id: 1, next: null_mut(), sg_list: null_mut(), num_sge: 0 };
    let mut bad = null_mut();
    // SAFETY: alive.
    assert_eq!(unsafe { (second.c().ops.post_srq_recv)(second_srq, &mut recv, &mut bad) }, 0);
    assert_eq!(first_qp.post_send(&mut send_wr(1, 2, null_mut(), 0)).0, 0);
    poll(second_qp.c().recv_cq, 1);
    assert!(is_readable(second.c().async_fd, 10_000));
    let mut told = Vec::new();
    // The first context looks first: it hands the event on to whom it is for.
    while let Ok(event) = event(first) {
        told.push(event.event_type);
        acknowledge(event);
    }
    assert!(!told.contains(&SRQ_LIMIT_REACHED), "{told:?}");
    let mut seen = 0;
    while seen != SRQ_LIMIT_REACHED {
        let event = next(second);
        seen = event.event_type;
        acknowledge(event);
    }
    for qp in [first_qp, second_qp] {
        assert_eq!(qp.destroy(), 0);
    }
}

#[test]
fn unread_events_go_with_their_object() {
    let context = Context::open(None);
    let (pd, cq) = (context.pd(), context.cq(null_mut()));
    let qp = Qp::create(pd, cq, 2, srq(pd));
    qp.connect(context.gid(), context.port().lid, qp.c().qp_num);
    set_nonblocking(context.c().async_fd);
    to_error(qp);
    assert!(is_readable(context.c().async_fd, 10_000));
    assert_eq!(qp.destroy(), 0);
    assert_eq!(event(context).err(), Some(libc::EAGAIN));
    assert!(!is_readable(context.c().async_fd, 0));
}
