//! What a queue pair's owner is told without asking: when, of what, and how often.

use crate::case::cases;
use crate::common;
use crate::common::{Node, next_event, pair};
use tbrdma::{
    AsyncEvent, AsyncEventKind, EventSource, QpAttr, QpAttrMask, QpInit, QpState, QpType, Qpn, QueuePair,
    SharedReceiveQueue, WcStatus,
};

cases! {
    Completions by "InfiniBand vol. 1, 11.6.3; ibv_get_async_event(3)" {
        a_message_before_the_queue_pair_can_send_establishes_communication_once:
            "The first message to a queue pair in RTR raises Communication Established, once", needs [Rc, Uc];
        nothing_is_said_of_messages_to_a_queue_pair_that_can_send:
            "Messages to a queue pair in RTS raise no event", needs [Rc];
        a_queue_pair_that_fails_says_so_first_and_the_end_of_the_shared_queues_use_once:
            "A member of a shared queue that fails raises its own error and then Last WQE Reached, once", needs [Rc, Srq];
    }
    Srq by "InfiniBand vol. 1, 10.2.9; ibv_get_async_event(3)" {
        the_end_of_a_shared_queues_use_is_said_once_a_life:
            "A member that goes to ERR raises Last WQE Reached once, after each RESET anew", needs [Rc, Uc, Ud, Srq];
        the_last_receive_that_fails_says_that_the_limit_was_reached_too:
            "A receive that fails counts as taken: the limit event comes beside the errors", needs [Rc, Srq];
    }
    Ud by "InfiniBand vol. 1, 11.4.2.1; ibv_poll_cq(3)" {
        a_datagrams_completion_says_where_it_came_from:
            "The completion of a datagram names the queue pair it came from and its LID", needs [Ud] as unacknowledged;
    }
}

/// Brings a queue pair to RTR, to receive from `from`.
fn ready_to_receive(node: &mut Node, from: &QueuePair) {
    let attr = QpAttr { qp_state: QpState::Init, port_num: 1, ..QpAttr::default() };
    let init = QpAttrMask::STATE | QpAttrMask::PKEY_INDEX | QpAttrMask::PORT | QpAttrMask::ACCESS_FLAGS;
    node.qp.modify(&attr, init).unwrap();
    let (attr, mask) = common::to_rtr(node, &from.address());
    node.qp.modify(&attr, mask).unwrap();
}

fn a_message_before_the_queue_pair_can_send_establishes_communication_once() {
    for qp_type in [QpType::Rc, QpType::Uc] {
        let (mut a, mut b) = (Node::new(qp_type), Node::new(qp_type));
        ready_to_receive(&mut b, &a.qp);
        a.qp.connect_with(&b.qp.address(), &common::patient()).unwrap();
        for id in 0..3 {
            b.post_recv(id, 0..8);
            a.post_send(10 + id, 0..8);
            b.expect(id, WcStatus::Success);
            a.expect(10 + id, WcStatus::Success);
        }
        b.expect_event(AsyncEventKind::CommEst);
        b.expect_no_event();
        a.expect_no_event();
    }
}

fn nothing_is_said_of_messages_to_a_queue_pair_that_can_send() {
    let (mut a, mut b) = pair("rc");
    b.post_recv(1, 0..8);
    a.post_send(2, 0..8);
    b.expect(1, WcStatus::Success);
    b.expect_no_event();
    a.expect_no_event();
}

fn event_of(kind: AsyncEventKind, qpn: Qpn) -> AsyncEvent {
    AsyncEvent { kind, source: EventSource::QueuePair(qpn) }
}

/// A queue pair of the node's that receives through `srq`.
fn sharing(node: &Node, qp_type: QpType, srq: &SharedReceiveQueue) -> QueuePair {
    node.pd.create_qp(QpInit::new(qp_type, &node.cq).srq(srq)).unwrap()
}

fn the_end_of_a_shared_queues_use_is_said_once_a_life() {
    for qp_type in [QpType::Rc, QpType::Uc, QpType::Ud] {
        let node = Node::new(qp_type);
        let srq = node.pd.create_srq(8, 1).unwrap();
        let mut qp = sharing(&node, qp_type, &srq);
        let last = event_of(AsyncEventKind::QpLastWqeReached, qp.qp_num());
        for _ in 0..3 {
            if qp_type == QpType::Ud {
                qp.activate_ud(1).unwrap();
            } else {
                qp.connect_with(&qp.address(), &common::patient()).unwrap();
            }
            qp.to_error().unwrap();
            assert_eq!(next_event(&node.ctx), last);
            qp.to_error().unwrap();
            node.expect_no_event();
            qp.reset().unwrap();
            node.expect_no_event();
        }
        // Who has receives of its own has no such event.
        let mut own = node.pd.create_qp(QpInit::new(qp_type, &node.cq)).unwrap();
        own.to_error().unwrap();
        node.expect_no_event();
    }
}

fn a_queue_pair_that_fails_says_so_first_and_the_end_of_the_shared_queues_use_once() {
    let home = Node::new(QpType::Rc);
    let mut srq = home.pd.create_srq(8, 1).unwrap();
    let mut qp = sharing(&home, QpType::Rc, &srq);
    let mut peer = Node::new(QpType::Rc);
    peer.qp.connect_with(&qp.address(), &common::patient()).unwrap();
    qp.connect_with(&peer.qp.address(), &common::patient()).unwrap();
    // A write to memory that is not there.
    let wrong = tbrdma::RemoteAddr { addr: 0, rkey: 0 };
    peer.qp.post(|wr| _ = wr.write_inline(b"x", wrong).id(1)).unwrap();
    peer.expect(1, WcStatus::RemAccessErr);
    assert_eq!(next_event(&home.ctx), event_of(AsyncEventKind::QpAccessErr, qp.qp_num()));
    assert_eq!(next_event(&home.ctx), event_of(AsyncEventKind::QpLastWqeReached, qp.qp_num()));
    qp.to_error().unwrap();
    home.expect_no_event();
    peer.expect_no_event();

    // A message that is longer than the receive it takes.
    let mut qp = sharing(&home, QpType::Rc, &srq);
    let mut peer = Node::new(QpType::Rc);
    peer.qp.connect_with(&qp.address(), &common::patient()).unwrap();
    qp.connect_with(&peer.qp.address(), &common::patient()).unwrap();
    srq.post_recv(|rq| _ = rq.recv(home.mr.slice(0..4)).id(1)).unwrap();
    peer.post_send(2, 0..8);
    peer.expect(2, WcStatus::RemInvReqErr);
    assert_eq!(home.one().status, WcStatus::LocLenErr);
    assert_eq!(next_event(&home.ctx), event_of(AsyncEventKind::QpReqErr, qp.qp_num()));
    assert_eq!(next_event(&home.ctx), event_of(AsyncEventKind::QpLastWqeReached, qp.qp_num()));
    home.expect_no_event();
}

fn the_last_receive_that_fails_says_that_the_limit_was_reached_too() {
    let home = Node::new(QpType::Rc);
    let mut srq = home.pd.create_srq(8, 1).unwrap();
    let mut qp = sharing(&home, QpType::Rc, &srq);
    let mut peer = Node::new(QpType::Rc);
    peer.qp.connect_with(&qp.address(), &common::patient()).unwrap();
    qp.connect_with(&peer.qp.address(), &common::patient()).unwrap();
    srq.post_recv(|rq| _ = rq.recv(home.mr.slice(0..4)).id(1)).unwrap();
    srq.set_limit(1).unwrap();
    peer.post_send(2, 0..8);
    peer.expect(2, WcStatus::RemInvReqErr);
    let mut kinds: Vec<_> = (0..3).map(|_| next_event(&home.ctx).kind).collect();
    kinds.sort_by_key(|kind| kind.raw());
    let all = [AsyncEventKind::QpReqErr, AsyncEventKind::SrqLimitReached, AsyncEventKind::QpLastWqeReached];
    assert_eq!(kinds, all);
    home.expect_no_event();
}

fn a_datagrams_completion_says_where_it_came_from() {
    let (mut a, mut b) = (Node::new(QpType::Ud), Node::new(QpType::Ud));
    for node in [&mut a, &mut b] {
        node.qp.activate_ud(5).unwrap();
    }
    let ah = a.pd.create_ah_to(&b.qp.address()).unwrap();
    let to = b.qp.qp_num();
    for id in 0..4 {
        b.post_recv(id, 0..64);
        let wc = common::datagram(&b.cq, || {
            a.qp.post(|wr| _ = wr.send_inline(b"hello").to(&ah, to, 5).unsignaled()).unwrap();
        });
        assert_eq!((wc.wr_id, wc.status), (id, WcStatus::Success));
        // Zero where ports have no LIDs.
        assert_eq!((wc.src_qp, wc.slid), (a.qp.qp_num(), a.ctx.query_port(1).unwrap().lid));
    }
}
