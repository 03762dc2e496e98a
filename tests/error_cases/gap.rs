//! Packets that are missing between others (IBTA volume 1, section 9.7.5.2.8, PSN sequence error).

use crate::common::pattern;
use crate::hand::{ACK, PSN, counter};
use crate::met;
use tbrdma::{QpState, WcStatus};
use tbrdma_proto::wire::NakCode;
use tbrdma_proto::wire::PacketOpcode as P;

#[test]
fn as_requester_it_goes_on_with_the_missing_packet() {
    let (mut node, hand) = met();
    let bytes = pattern(7, 1024);
    node.mr.write(0, &bytes);
    node.post_send(1, 0..1024);
    let (mut arrived, mut expected, mut lost) = (Vec::new(), 0, false);
    let wc = hand.serve(&node, |hand, heard| {
        let at = hand.at(heard.psn());
        if at == 1 && !lost {
            lost = true;
            return vec![];
        }
        if at > expected {
            return vec![hand.nak(expected, NakCode::PsnSequenceError)];
        }
        if at == expected {
            arrived.extend(&heard.payload);
            expected += 1;
        }
        if heard.headers.bth.ack_req { vec![hand.answer(expected - 1, ACK)] } else { vec![] }
    });
    assert_eq!((wc.status, arrived), (WcStatus::Success, bytes));
    assert!(counter(&node.ctx, "rcvd_seq_err") >= 1);
    // From the missing one on, and not from the beginning.
    assert!(counter(&node.ctx, "retransmitted_pkts") >= 3);
    assert_eq!((counter(&node.ctx, "retry_exceeded_err"), node.qp.state()), (0, QpState::Rts));
}

#[test]
fn as_responder_it_says_once_which_is_missing_and_takes_nothing_behind_it() {
    let (mut node, hand) = met();
    node.fill(0..4096, 0x22);
    node.post_recv(1, 0..64);
    node.post_recv(2, 64..128);
    let (one, two) =
        (hand.packet(P::RcSendOnly, 0).payload(b"one"), hand.packet(P::RcSendOnly, 1).payload(b"two"));
    let heard = hand.ask(&[two.clone().asking()]);
    assert_eq!((heard.nak(), heard.psn().get()), (Some(NakCode::PsnSequenceError), PSN));
    let said = counter(&node.ctx, "send_seq_err");
    for _ in 0..3 {
        hand.tell(&node, &two);
    }
    hand.hear_nothing();
    assert_eq!(counter(&node.ctx, "send_seq_err"), said, "once");
    assert!(counter(&node.ctx, "out_of_seq_request") >= 4);
    node.expect_nothing();
    assert_eq!((node.qp.state(), node.bytes(0..4096)), (QpState::Rts, vec![0x22; 4096]));
    assert!(hand.ask(&[one.asking()]).is_ack());
    assert!(hand.ask(&[two.asking()]).is_ack());
    for (id, bytes) in [(1, b"one"), (2, b"two")] {
        assert_eq!(node.expect(id, WcStatus::Success).byte_len, 3);
        assert_eq!(node.bytes(64 * (id as usize - 1)..64 * (id as usize - 1) + 3), bytes);
    }
    node.expect_no_event();
}
