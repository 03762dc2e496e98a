//! A responder without a receive: waited for while there are retries (IBTA volume 1, section 9.7.5.2.8).

use crate::common::Node;
use crate::hand::{self, Hand, PSN, connection, counter};
use std::time::{Duration, Instant};
use tbrdma::{QpState, QpType, WcStatus, rnr_timer};
use tbrdma_proto::wire::PacketOpcode as P;
use tbrdma_proto::wire::Syndrome;

/// Retries of these connections.
const RETRIES: u8 = 4;
/// Code of 1.28 ms.
const TIMER: u8 = 15;

fn met() -> (Node, Hand) {
    let mut node = hand::node(QpType::Rc);
    let with = connection(|with| {
        with.rnr_retry = RETRIES;
        with.min_rnr_timer = TIMER;
    });
    let hand = Hand::with(&mut node, &with);
    (node, hand)
}

/// Sends a message to a peer that refuses it so often, with this timer: the completion's status and how many packets came.
fn refused(node: &mut Node, hand: &Hand, times: u32, timer: u8) -> (WcStatus, u32) {
    let begun = Instant::now();
    node.post_send(1, 0..64);
    let mut copies = 0;
    let wc = hand.serve(node, |hand, heard| {
        assert_eq!((heard.opcode(), hand.at(heard.psn())), (P::RcSendOnly, 0));
        copies += 1;
        vec![if copies > times { hand.ack(0) } else { hand.answer(0, Syndrome::RnrNak { timer }) }]
    });
    assert!(
        begun.elapsed() >= rnr_timer(timer) * RETRIES.into(),
        "it waits as long as it is told: {:?}",
        begun.elapsed()
    );
    // Where this thread has to wait for a core, some are sent again because of that.
    assert!(copies > RETRIES.into() && copies < 3 * u32::from(RETRIES), "{copies} copies");
    (wc.status, copies)
}

#[test]
fn as_requester_below_the_limit_it_waits_as_long_as_it_is_told_and_succeeds() {
    let (mut node, hand) = met();
    let (status, _) = refused(&mut node, &hand, RETRIES.into(), TIMER);
    assert_eq!(status, WcStatus::Success);
    assert!(counter(&node.ctx, "rcvd_rnr_err") >= RETRIES.into());
    assert_eq!((counter(&node.ctx, "retry_rnr_exceeded_err"), node.qp.state()), (0, QpState::Rts));
}

#[test]
fn as_requester_above_the_limit_it_gives_up_and_does_not_storm() {
    // The shortest timer there is, 10 us: a peer that is never ready gets so many copies and no more.
    for timer in [1, TIMER] {
        let (mut node, hand) = met();
        let (status, copies) = refused(&mut node, &hand, u32::MAX, timer);
        assert_eq!(status, WcStatus::RnrRetryExcErr);
        assert_eq!((counter(&node.ctx, "retry_rnr_exceeded_err"), node.qp.state()), (1, QpState::Err));
        assert!(counter(&node.ctx, "rcvd_rnr_err") <= copies.into());
        assert!(hand.hear(Duration::from_millis(5)).is_none());
    }
}

#[test]
fn as_responder_it_says_how_long_to_wait_and_changes_nothing_until_it_is_ready() {
    let (mut node, hand) = met();
    node.fill(0..4096, 0x11);
    let send = [hand.packet(P::RcSendOnly, 0).payload(b"patience").asking()];
    for _ in 0..3 {
        let heard = hand.ask(&send);
        assert_eq!((heard.syndrome(), heard.psn().get()), (Some(Syndrome::RnrNak { timer: TIMER }), PSN));
    }
    assert!(counter(&node.ctx, "send_rnr_err") >= 3);
    // Neither does a WRITE with immediate data write before it can complete a receive.
    let remote = node.mr.remote().at(0);
    let mut write = hand.packet(P::RcWriteOnlyWithImm, 0).reth(remote, 4).payload(b"soon").asking();
    write.headers.imm = Some(7);
    let heard = hand.ask(&[write]);
    assert_eq!(heard.syndrome(), Some(Syndrome::RnrNak { timer: TIMER }));
    node.expect_nothing();
    assert_eq!((node.qp.state(), node.bytes(0..4096)), (QpState::Rts, vec![0x11; 4096]));
    node.post_recv(1, 64..128);
    // Those that are late may still be refused.
    while !hand.ask(&send).is_ack() {}
    assert_eq!(node.expect(1, WcStatus::Success).byte_len, 8);
    assert_eq!(node.bytes(64..72), b"patience");
    node.expect_nothing();
}

#[test]
fn as_responder_it_is_in_no_hurry_however_often_it_is_asked() {
    // The limit is the requester's: whoever asks more often than it allows is refused each time, and the connection goes on.
    let (node, hand) = met();
    let send = [hand.packet(P::RcSendOnly, 0).payload(b"now?").asking()];
    for _ in 0..100 {
        assert_eq!(hand.ask(&send).syndrome(), Some(Syndrome::RnrNak { timer: TIMER }));
    }
    assert_eq!(node.qp.state(), QpState::Rts);
    node.expect_no_event();
}
