//! The size of a completion queue, changed.

use crate::case::cases;
use crate::common;
use crate::common::{Node, pair};
use tbrdma::{QpInit, QpType, WcStatus, limits};

cases! {
    Completions by "ibv_resize_cq(3)" {
        a_completion_queue_grows_and_shrinks: "A completion queue may be made larger and smaller", needs [ResizeCq];
        it_does_not_shrink_below_what_waits_to_be_polled: "It does not shrink below what waits in it", needs [Rc, ResizeCq];
        completed_sends_count: "Completed sends count among what waits", needs [Rc, ResizeCq];
        completions_of_a_shared_queue_and_flushed_receives_count: "So do completions of shared queues, and flushed ones", needs [Rc, Srq, ResizeCq];
    }
}

fn a_completion_queue_grows_and_shrinks() {
    let node = Node::new(QpType::Ud);
    let cq = node.ctx.create_cq(3).unwrap();
    for cqe in [1, 7, limits::MAX_CQE, 2] {
        cq.resize(cqe).unwrap();
        assert_eq!(cq.cqe(), cqe);
    }
    for cqe in [0, limits::MAX_CQE + 1] {
        assert_eq!(cq.resize(cqe).unwrap_err().errno(), nix::libc::EINVAL);
        assert_eq!(cq.cqe(), 2);
    }
}

fn it_does_not_shrink_below_what_waits_to_be_polled() {
    let (mut a, mut b) = pair("rc");
    for id in 0..6 {
        b.post_recv(id, 0..8);
        a.post_send(id, 0..8);
    }
    // What has been acknowledged has completed there.
    a.take(6);
    let told = |waiting| if common::on_native() { 0 } else { waiting };
    assert_eq!(b.cq.unpolled(), told(6));
    let error = b.cq.resize(5).unwrap_err();
    assert_eq!(error.errno(), nix::libc::EINVAL);
    assert!(common::on_native() || error.to_string().contains("6 completions wait"), "{error}");
    b.cq.resize(6).unwrap();
    b.expect(0, WcStatus::Success);
    assert_eq!(b.cq.unpolled(), told(5));
    b.cq.resize(5).unwrap();
    for id in 1..6 {
        b.expect(id, WcStatus::Success);
    }
    b.cq.resize(1).unwrap();
}

fn completed_sends_count() {
    let mut node = Node::new(QpType::Ud);
    node.qp.activate_ud(1).unwrap();
    let to = node.qp.address();
    let (ah, nothing) = (node.pd.create_ah_to(&to).unwrap(), node.mr.slice(0..0));
    for id in 0..3 {
        // Datagrams complete as they leave.
        node.qp.post(|wr| _ = wr.send(nothing).to(&ah, to.qpn, 1).id(id)).unwrap();
    }
    assert!(node.cq.resize(2).is_err());
    node.cq.resize(3).unwrap();
    node.take(3);
    node.cq.resize(1).unwrap();
}

fn completions_of_a_shared_queue_and_flushed_receives_count() {
    let node = Node::new(QpType::Rc);
    let mut srq = node.pd.create_srq(8, 1).unwrap();
    let mut a = Node::new(QpType::Rc);
    let mut qp = node.pd.create_qp(QpInit::rc(&node.cq).srq(&srq)).unwrap();
    a.qp.connect_with(&qp.address(), &common::patient()).unwrap();
    qp.connect_with(&a.qp.address(), &common::patient()).unwrap();
    for id in 0..3 {
        srq.post_recv(|rq| _ = rq.recv(node.mr.slice(0..8)).id(id)).unwrap();
        a.post_send(id, 0..8);
    }
    a.take(3);
    assert!(node.cq.resize(2).is_err());
    node.cq.resize(3).unwrap();
    for id in 0..3 {
        let wc = node.one();
        assert_eq!((wc.wr_id, wc.status), (id, WcStatus::Success), "in order all the same");
    }

    let (_a, mut b) = pair("rc");
    for id in 0..4 {
        b.post_recv(id, 0..8);
    }
    b.qp.to_error().unwrap();
    assert!(b.cq.resize(3).is_err());
    b.cq.resize(4).unwrap();
    for id in 0..4 {
        b.expect(id, WcStatus::WrFlushErr);
    }
}
