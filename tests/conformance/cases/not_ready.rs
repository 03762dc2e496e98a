//! Sends to a queue pair that is not there yet, or is somebody else's.

use crate::case::cases;
use crate::common;
use crate::common::{Node, connection, next_event, pair};
use tbrdma::{AsyncEventKind, Gid, QpAddress, QpAttr, QpAttrMask, QpState, QpType, WcStatus, ack_timeout};

cases! {
    States by "InfiniBand vol. 1, 9.6.1 and 10.3.1" {
        a_send_before_the_peer_is_ready_to_receive_waits_for_it: "A SEND to a queue pair in RESET or INIT is sent again until it is in RTR", needs [Rc];
    }
    Errors by "InfiniBand vol. 1, 9.7.6.1.3; ibv_modify_qp(3), timeout and retry_cnt" {
        a_peer_that_never_becomes_ready_ends_the_retries_within_their_bound: "Retries end no sooner than the timeouts that were asked for", needs [Rc];
        every_operation_is_bounded_by_the_retries: "Every operation ends with the retries", needs [Rc, Atomics];
        a_peer_that_is_connected_to_another_never_acknowledges: "A queue pair answers only the peer it is connected to", needs [Rc];
        without_a_timeout_a_send_waits_for_ever: "Timeout 0 is none: what is not acknowledged waits until the queue pair is taken out of service", needs [Rc];
    }
    Objects by "ibv_modify_qp(3), ibv_create_ah(3)" {
        a_peer_may_be_named_by_its_lid_alone: "Where ports have LIDs, a LID names a peer", needs [Rc, Lid];
    }
    Completions by "ibv_get_async_event(3)" {
        an_event_says_what_and_of_which: "An event says what happened, and to which queue pair", needs [Rc];
    }
}

fn a_send_before_the_peer_is_ready_to_receive_waits_for_it() {
    for init_first in [false, true] {
        let (mut a, mut b) = (Node::new(QpType::Rc), Node::new(QpType::Rc));
        a.qp.connect_with(&b.qp.address(), &common::patient()).unwrap();
        if init_first {
            let attr = QpAttr { qp_state: QpState::Init, port_num: 1, ..QpAttr::default() };
            let mask =
                QpAttrMask::STATE | QpAttrMask::PKEY_INDEX | QpAttrMask::PORT | QpAttrMask::ACCESS_FLAGS;
            b.qp.modify(&attr, mask).unwrap();
            b.post_recv(1, 0..8);
        }
        a.fill(0..8, 4);
        a.post_send(2, 0..8);
        a.expect_nothing();
        b.qp.connect_with(&a.qp.address(), &common::patient()).unwrap();
        if !init_first {
            b.post_recv(1, 0..8);
        }
        b.expect(1, WcStatus::Success);
        a.expect(2, WcStatus::Success);
        assert_eq!(b.bytes(0..8), [4; 8]);
    }
}

fn a_peer_that_never_becomes_ready_ends_the_retries_within_their_bound() {
    let (mut a, b) = (Node::new(QpType::Rc), Node::new(QpType::Rc));
    let with = connection(|with| {
        with.timeout = 12; // 16.8 ms
        with.retry_cnt = 3;
    });
    a.qp.connect_with(&b.qp.address(), &with).unwrap();
    let begun = common::Moment::now();
    a.post_send(1, 0..8);
    a.post_send(2, 0..8);
    a.expect(1, WcStatus::RetryExcErr);
    assert!(begun.elapsed() >= 4 * ack_timeout(12).unwrap(), "gave up after {:?}", begun.elapsed());
    a.expect(2, WcStatus::WrFlushErr);
    assert_eq!(a.qp.state(), QpState::Err);
    assert_eq!(b.qp.state(), QpState::Reset);
}

fn every_operation_is_bounded_by_the_retries() {
    for operation in 0..4 {
        let (mut a, b) = (Node::new(QpType::Rc), Node::new(QpType::Rc));
        let with = connection(|with| {
            with.timeout = 8;
            with.retry_cnt = 0;
        });
        a.qp.connect_with(&b.qp.address(), &with).unwrap();
        let (slice, remote) = (a.mr.slice(0..8), b.mr.remote().at(0));
        a.qp.post(|wr| match operation {
            0 => _ = wr.send(slice).id(1),
            1 => _ = wr.write(slice, remote).id(1),
            2 => _ = wr.read(slice, remote).id(1),
            _ => _ = wr.fetch_and_add(slice, remote, 1).id(1),
        })
        .unwrap();
        a.expect(1, WcStatus::RetryExcErr);
    }
}

fn a_peer_that_is_connected_to_another_never_acknowledges() {
    let (mut a, mut b, c) = (Node::new(QpType::Rc), Node::new(QpType::Rc), Node::new(QpType::Rc));
    b.qp.connect_with(&c.qp.address(), &common::patient()).unwrap();
    b.post_recv(1, 0..8);
    let with = connection(|with| {
        with.timeout = 10;
        with.retry_cnt = 1;
    });
    a.qp.connect_with(&b.qp.address(), &with).unwrap();
    let (slice, remote) = (a.mr.slice(0..8), b.mr.remote().at(0));
    b.fill(0..8, 1);
    a.fill(0..8, 2);
    a.qp.post(|wr| _ = wr.write(slice, remote).id(2)).unwrap();
    a.expect(2, WcStatus::RetryExcErr);
    assert_eq!(b.bytes(0..8), [1; 8]);
    b.expect_nothing();
}

fn without_a_timeout_a_send_waits_for_ever() {
    let (mut a, b) = (Node::new(QpType::Rc), Node::new(QpType::Rc));
    let with = connection(|with| {
        with.timeout = 0;
        with.retry_cnt = 0;
    });
    a.qp.connect_with(&b.qp.address(), &with).unwrap();
    a.post_send(1, 0..8);
    let begun = common::Moment::now();
    while begun.elapsed() < std::time::Duration::from_millis(300) {
        a.expect_nothing();
    }
    assert_eq!(a.qp.state(), QpState::Rts);
    a.qp.to_error().unwrap();
    a.expect(1, WcStatus::WrFlushErr);
}

fn a_peer_may_be_named_by_its_lid_alone() {
    let (mut a, mut b) = (Node::new(QpType::Rc), Node::new(QpType::Rc));
    let by_lid = |address: QpAddress| QpAddress { gid: Gid::default(), ..address };
    a.qp.connect_with(&by_lid(b.qp.address()), &common::patient()).unwrap();
    b.qp.connect_with(&by_lid(a.qp.address()), &common::patient()).unwrap();
    b.post_recv(1, 0..8);
    a.post_send(2, 0..8);
    a.expect(2, WcStatus::Success);
    b.expect(1, WcStatus::Success);
}

fn an_event_says_what_and_of_which() {
    let (mut a, b) = pair("rc");
    let (slice, mut remote) = (a.mr.slice(0..8), b.mr.remote().at(0));
    remote.rkey ^= 1;
    a.qp.post(|wr| _ = wr.write(slice, remote)).unwrap();
    let event = next_event(&b.ctx);
    assert_eq!(event.kind, AsyncEventKind::QpAccessErr);
    assert!(event.to_string().contains(&b.qp.qp_num().to_string()), "{event}");
    assert!(event.to_string().contains("memory protection"), "{event}");
    assert_eq!(b.ctx.async_events().next(Some(std::time::Duration::ZERO)).unwrap(), None);
}
