//! A peer that says nothing: asked again while there are retries, and given up when there are none (IBTA volume 1, section 9.9.2.4.1).

use crate::common::{patience, pattern};
use crate::hand::{self, Hand, PSN, connection, counter};
use crate::met;
use tbrdma::{QpState, QpType, WcStatus};
use tbrdma_proto::wire::PacketOpcode as P;

/// Retries of these connections.
const RETRIES: u8 = 4;

/// With so much patience for each: 4096 ns times 2 to this power.
fn impatient(timeout: u8) -> (crate::common::Node, Hand) {
    let mut node = hand::node(QpType::Rc);
    let with = connection(|with| {
        with.timeout = timeout;
        with.retry_cnt = RETRIES;
    });
    let hand = Hand::with(&mut node, &with);
    (node, hand)
}

#[test]
fn as_requester_below_the_limit_it_asks_again_and_succeeds() {
    // 67 ms, of which two run out each time; the others are for a machine that has other things to do.
    let (mut node, hand) = impatient(14);
    let bytes = pattern(5, 64);
    node.mr.write(0, &bytes);
    for id in 0..3 {
        node.post_send(id, 0..64);
        let wanted = counter(&node.ctx, "ack_timeout_err") + 2;
        let mut copies = 0;
        let ctx = node.ctx.clone();
        let wc = hand.serve(&node, |hand, heard| {
            let at = hand.at(heard.psn());
            if at < id as i32 {
                // A late copy of the one before.
                return vec![hand.ack(at)];
            }
            assert_eq!((at, &heard.payload), (id as i32, &bytes), "the same packet");
            copies += 1;
            if counter(&ctx, "ack_timeout_err") < wanted { vec![] } else { vec![hand.ack(id as i32)] }
        });
        // The retries of the one before are all there again.
        assert_eq!((wc.wr_id, wc.status, node.qp.state()), (id, WcStatus::Success, QpState::Rts));
        assert!(copies >= 3, "{copies} copies");
    }
    assert!(counter(&node.ctx, "ack_timeout_err") > RETRIES.into());
    assert_eq!(counter(&node.ctx, "retry_exceeded_err"), 0);
}

#[test]
fn as_requester_above_the_limit_it_gives_up() {
    let (mut node, hand) = impatient(10);
    node.post_send(1, 0..64);
    node.post_send(2, 0..64);
    let mut copies = 0;
    let wc = hand.serve(&node, |hand, heard| {
        copies += u32::from(hand.at(heard.psn()) == 0);
        vec![]
    });
    assert_eq!((wc.wr_id, wc.status), (1, WcStatus::RetryExcErr));
    node.expect(2, WcStatus::WrFlushErr);
    while let Some(heard) = hand.hear(hand::QUIET) {
        copies += u32::from(hand.at(heard.psn()) == 0);
    }
    assert!(copies > RETRIES.into(), "{copies} copies");
    assert_eq!(counter(&node.ctx, "ack_timeout_err"), u64::from(RETRIES) + 1);
    assert_eq!((counter(&node.ctx, "retry_exceeded_err"), node.qp.state()), (1, QpState::Err));
    // Whoever answers now is not heard any more.
    hand.deliver(&node, "dropped_wrong_state", &hand.seal(&hand.ack(0)));
    node.expect_nothing();
}

#[test]
fn as_responder_what_is_asked_again_is_acknowledged_again_and_done_once() {
    let (mut node, hand) = met();
    for id in 1..3 {
        node.post_recv(id, 0..64);
    }
    let remote = node.mr.remote().at(1024);
    let send = hand.packet(P::RcSendOnly, 0).payload(b"once").asking();
    let write = hand.packet(P::RcWriteOnly, 1).reth(remote, 4).payload(b"once").asking();
    for request in [&send, &write] {
        assert!(hand.ask(std::slice::from_ref(request)).is_ack());
    }
    node.expect(1, WcStatus::Success);
    assert_eq!(node.bytes(1024..1028), b"once");
    node.fill(0..4096, 0);
    let before = counter(&node.ctx, "duplicate_request");
    for request in [&send, &write] {
        let heard = hand.ask(std::slice::from_ref(request));
        assert!(heard.is_ack(), "{heard:?}");
    }
    assert!(counter(&node.ctx, "duplicate_request") >= before + 2);
    node.expect_nothing();
    assert_eq!(node.bytes(0..4096), [0; 4096]);
}

#[test]
fn as_responder_a_message_whose_end_never_comes_keeps_its_receive_until_that_is_flushed() {
    let (mut node, hand) = met();
    node.post_recv(1, 0..1024);
    let first = hand.packet(P::RcSendFirst, 0).payload(&[1; 256]).asking();
    assert!(hand.ask(&[first]).is_ack());
    node.expect_nothing();
    assert_eq!(node.qp.state(), QpState::Rts);
    node.qp.to_error().unwrap();
    node.expect(1, WcStatus::WrFlushErr);
    let end = hand.packet(P::RcSendLast, 1).payload(&[1; 4]).asking();
    hand.deliver(&node, "dropped_wrong_state", &hand.seal(&end));
    assert!(hand.hear(patience() / 1000).is_none_or(|heard| heard.psn().get() == PSN));
    node.expect_nothing();
}
