//! Sends to a queue pair that is not there yet, not there any more, or expects somebody else.
#![allow(clippy::panic, clippy::unwrap_used, reason = "a test may fail")]

use std::time::Duration;
use tbrdma::{
    AddressVector, AsyncEventKind, Error, Gid, Psn, QpAddress, QpAttr, QpAttrMask, QpState, QpType, WcStatus,
    ack_timeout,
};

mod common;
use common::{Node, connection, next_event, pair, pair_with};

#[test]
fn a_send_before_the_peer_is_ready_to_receive_waits_for_it() {
    for init_first in [false, true] {
        let (mut a, mut b) = (Node::new(QpType::Rc), Node::new(QpType::Rc));
        a.qp.connect_with(&b.qp.address(), &connection(|with| with.timeout = 22)).unwrap();
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
        b.qp.connect(&a.qp.address()).unwrap();
        if !init_first {
            b.post_recv(1, 0..8);
        }
        b.expect(1, WcStatus::Success);
        a.expect(2, WcStatus::Success);
        assert_eq!(b.bytes(0..8), [4; 8]);
    }
}

#[test]
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

#[test]
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

#[test]
fn a_peer_that_expects_another_first_packet_never_acknowledges() {
    let (mut a, mut b) = (Node::new(QpType::Rc), Node::new(QpType::Rc));
    let with = connection(|with| {
        with.timeout = 10;
        with.retry_cnt = 1;
    });
    let wrong = QpAddress { psn: Psn::masked(a.qp.address().psn.get() + 1), ..a.qp.address() };
    b.qp.connect_with(&wrong, &with).unwrap();
    a.qp.connect_with(&b.qp.address(), &with).unwrap();
    b.post_recv(1, 0..8);
    a.post_send(2, 0..8);
    a.expect(2, WcStatus::RetryExcErr);
    b.expect_nothing();
    // The other direction was right all the time.
    assert_eq!(b.qp.state(), QpState::Rts);
}

#[test]
fn a_peer_that_is_connected_to_another_never_acknowledges() {
    let (mut a, mut b, c) = (Node::new(QpType::Rc), Node::new(QpType::Rc), Node::new(QpType::Rc));
    b.qp.connect(&c.qp.address()).unwrap();
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

#[test]
fn a_destroyed_peer_queue_pair_never_acknowledges() {
    let (mut a, b) = pair("rc");
    let Node { qp, mr, cq, pd, ctx } = b;
    drop(qp);
    let remote = mr.remote().at(0);
    a.fill(0..8, 2);
    let slice = a.mr.slice(0..8);
    a.qp.post(|wr| _ = wr.write(slice, remote).id(1)).unwrap();
    a.expect(1, WcStatus::RetryExcErr);
    assert_eq!(mr.load_u64(0), 0);
    drop((cq, pd, ctx));
}

#[test]
fn a_send_that_waits_ends_when_the_peer_queue_pair_is_destroyed() {
    // With retries and timeouts that would last for ever.
    let with = connection(|with| {
        with.rnr_retry = 7;
        with.timeout = 0;
    });
    let (mut a, b) = pair_with("rc", |init| init, &with);
    a.post_send(1, 0..8);
    a.post_send(2, 0..8);
    a.expect_nothing();
    drop(b.qp);
    a.expect(1, WcStatus::RetryExcErr);
    a.expect(2, WcStatus::WrFlushErr);
}

#[test]
fn a_peer_in_the_error_state_never_acknowledges() {
    let (mut a, mut b) = pair("rc");
    b.qp.to_error().unwrap();
    a.post_send(1, 0..8);
    a.expect(1, WcStatus::RetryExcErr);
    b.expect_nothing();
}

#[test]
fn without_a_timeout_a_send_waits_for_ever() {
    let (mut a, mut b) = (Node::new(QpType::Rc), Node::new(QpType::Rc));
    let with = connection(|with| {
        with.timeout = 0;
        with.retry_cnt = 0;
    });
    a.qp.connect_with(&b.qp.address(), &with).unwrap();
    a.post_send(1, 0..8);
    let begun = common::Moment::now();
    while begun.elapsed() < Duration::from_millis(300) {
        a.expect_nothing();
    }
    b.qp.connect(&a.qp.address()).unwrap();
    b.post_recv(2, 0..8);
    a.expect(1, WcStatus::Success);
    b.expect(2, WcStatus::Success);
}

#[test]
fn a_context_that_is_closed_ends_its_peers_queue_pairs() {
    let (mut a, b) = pair("rc");
    let (mut c, mut d) = (Node::of(&a.ctx, QpType::Rc, |init| init), Node::new(QpType::Rc));
    common::join(&mut c, &mut d, &tbrdma::Connection::default());
    a.post_recv(1, 0..8);
    drop(b);
    a.expect(1, WcStatus::WrFlushErr);
    assert_eq!(a.qp.state(), QpState::Err);
    a.expect_event(AsyncEventKind::QpFatal);
    a.post_send(2, 0..8);
    a.expect(2, WcStatus::WrFlushErr);
    // The other connection of the context goes on.
    d.post_recv(3, 0..8);
    c.post_send(4, 0..8);
    c.expect(4, WcStatus::Success);
    d.expect(3, WcStatus::Success);
    assert_eq!(c.ctx.async_events().try_next(), None);
}

#[test]
fn an_address_that_leads_nowhere_is_an_error_of_the_call() {
    let mut a = Node::new(QpType::Rc);
    let gone = Node::new(QpType::Rc).qp.address();
    let not_ours = QpAddress { gid: "fd00::1".parse::<Gid>().unwrap(), ..a.qp.address() };
    for peer in [gone, not_ours] {
        let error = a.qp.connect(&peer).unwrap_err();
        assert!(matches!(error, Error::Peer { .. }), "{error}");
        assert!(error.to_string().contains(&peer.gid.to_string()), "{error}");
        // It was brought to INIT and no further.
        assert_eq!(a.qp.state(), QpState::Init);
        let ah = AddressVector { ..peer.address_vector() };
        assert!(matches!(a.pd.create_ah(&ah), Err(Error::Peer { .. })));
    }
    // Nothing is lost: a right address works from there.
    let mut b = Node::new(QpType::Rc);
    a.qp.connect(&b.qp.address()).unwrap();
    b.qp.connect(&a.qp.address()).unwrap();
    b.post_recv(1, 0..8);
    a.post_send(2, 0..8);
    a.expect(2, WcStatus::Success);
    b.expect(1, WcStatus::Success);
}

#[test]
fn a_peer_may_be_named_by_its_lid_alone() {
    let (mut a, mut b) = (Node::new(QpType::Rc), Node::new(QpType::Rc));
    let by_lid = |address: QpAddress| QpAddress { gid: Gid::default(), ..address };
    a.qp.connect(&by_lid(b.qp.address())).unwrap();
    b.qp.connect(&by_lid(a.qp.address())).unwrap();
    b.post_recv(1, 0..8);
    a.post_send(2, 0..8);
    a.expect(2, WcStatus::Success);
    b.expect(1, WcStatus::Success);
}

#[test]
fn the_event_descriptor_tells_of_events() {
    let (mut a, b) = pair("rc");
    let (slice, mut remote) = (a.mr.slice(0..8), b.mr.remote().at(0));
    remote.rkey ^= 1;
    a.qp.post(|wr| _ = wr.write(slice, remote)).unwrap();
    let event = next_event(&b.ctx);
    assert_eq!(event.kind, AsyncEventKind::QpAccessErr);
    assert!(event.to_string().contains(&b.qp.qp_num().to_string()), "{event}");
    assert!(event.to_string().contains("memory protection"), "{event}");
    assert_eq!(b.ctx.async_events().next(Some(Duration::ZERO)).unwrap(), None);
}
