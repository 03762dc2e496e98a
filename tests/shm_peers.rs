//! What shared memory knows of a peer without a message: that it is gone, that there is nobody at an address, who is in the middle of a copy.
#![allow(clippy::panic, clippy::unwrap_used, reason = "a test may fail")]

use tbrdma::{AddressVector, AsyncEventKind, Error, Gid, QpAddress, QpState, QpType, WcStatus};

mod common;
use common::{Node, all_access, connection, pair, pair_with};

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
fn a_closed_peer_ends_an_unreliable_connection_too() {
    let (mut a, b) = pair("uc");
    a.post_recv(1, 0..8);
    drop(b);
    a.expect(1, WcStatus::WrFlushErr);
    a.expect_event(AsyncEventKind::QpFatal);
}

#[test]
fn deregistering_while_our_own_queue_reads_into_it_waits_for_the_end() {
    const LEN: usize = 64 << 20;
    let (mut a, b) = pair("rc");
    let far = b.pd.alloc(LEN, all_access()).unwrap();
    far.write(0, &vec![0xff; LEN]);
    let region = a.pd.register(vec![0_u8; LEN], all_access()).unwrap();
    let (slice, remote) = (region.slice(..), far.remote().at(0));
    let reader = std::thread::spawn(move || {
        a.qp.post(|wr| _ = wr.read(slice, remote).id(1)).unwrap();
        a.one().status
    });
    common::eventually("the first bytes", || {
        let mut byte = [0];
        region.read(0, &mut byte);
        byte[0] == 0xff
    });
    let mut bytes = region.into_bytes().unwrap();
    bytes.fill(0x11);
    assert_eq!(reader.join().unwrap(), WcStatus::Success);
    assert!(bytes.iter().all(|byte| *byte == 0x11), "written after it had been given back");
}
