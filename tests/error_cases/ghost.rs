//! Acknowledgements of what was never sent, or has been acknowledged long since (IBTA volume 1, sections 9.7.5.1.2 and 9.9.2.2.3).

use crate::common::pattern;
use crate::hand::{self, ACK, PSN, counter};
use crate::met;
use tbrdma::{QpState, WcStatus};
use tbrdma_proto::wire::PacketOpcode as P;
use tbrdma_proto::wire::{NakCode, Syndrome};

/// Every answer there is, at a place.
fn answers(hand: &hand::Hand, at: i32) -> Vec<hand::Made> {
    let mut answers: Vec<_> = NakCode::ALL.iter().map(|code| hand.nak(at, *code)).collect();
    answers.extend([
        hand.ack(at),
        hand.answer(at, Syndrome::RnrNak { timer: 1 }),
        hand.packet(P::RcReadResponseOnly, at).aeth(ACK).payload(&[9; 64]),
        hand.packet(P::RcReadResponseMiddle, at).payload(&[9; 256]),
        hand.packet(P::RcAtomicAcknowledge, at).aeth(ACK).old(9),
    ]);
    answers
}

#[test]
fn as_requester_ghosts_and_stale_ones_complete_and_fail_nothing() {
    let (mut node, hand) = met();
    let bytes = pattern(1, 4096);
    node.mr.write(0, &bytes);
    node.post_send(1, 0..64);
    hand.serve(&node, |hand, heard| vec![hand.ack(hand.at(heard.psn()))]);
    node.post_send(2, 0..64);
    assert!(hand.hear(crate::common::patience()).is_some());
    // What was acknowledged is place 0, what is outstanding place 1.
    for at in [0, -1, -4_000_000, 2, 3, 4_000_000] {
        for answer in answers(&hand, at) {
            hand.tell(&node, &answer);
        }
    }
    node.expect_nothing();
    assert_eq!((node.qp.state(), node.bytes(0..4096)), (QpState::Rts, bytes));
    for failure in ["rcvd_nak_err", "rcvd_rnr_err", "rcvd_seq_err"] {
        assert_eq!(counter(&node.ctx, failure), 0, "{failure}");
    }
    let wc = hand.serve(&node, |hand, heard| vec![hand.ack(hand.at(heard.psn()))]);
    assert_eq!((wc.wr_id, wc.status), (2, WcStatus::Success));
    node.expect_no_event();
}

#[test]
fn as_responder_answers_to_what_was_never_asked_change_nothing() {
    let (mut node, hand) = met();
    node.post_recv(1, 0..64);
    node.fill(0..4096, 0x5a);
    for at in [-1, 0, 1] {
        for answer in answers(&hand, at) {
            hand.tell(&node, &answer);
        }
    }
    hand.hear_nothing();
    assert_eq!((node.qp.state(), node.bytes(0..4096)), (QpState::Rts, vec![0x5a; 4096]));
    let heard = hand.ask(&[hand.packet(P::RcSendOnly, 0).payload(b"for all that").asking()]);
    assert!(heard.is_ack() && heard.psn().get() == PSN, "{heard:?}");
    assert_eq!(node.expect(1, WcStatus::Success).byte_len, 12);
    node.expect_no_event();
}
