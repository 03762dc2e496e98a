//! Packets of another kind than is due (IBTA volume 1, sections 9.7.4.1.2 and 9.9.2.4.2).

use crate::hand::{ACK, Hand, Made, PSN, counter};
use crate::met;
use tbrdma::{AsyncEventKind, QpState, RemoteAddr, WcStatus};
use tbrdma_proto::wire::NakCode;
use tbrdma_proto::wire::PacketOpcode as P;

const REMOTE: RemoteAddr = RemoteAddr { addr: 0x1000, rkey: 0x77 };

#[test]
fn as_requester_data_in_answer_to_what_asks_for_none_is_a_bad_response() {
    let answers: [fn(&Hand) -> Made; 4] = [
        |hand| hand.packet(P::RcReadResponseOnly, 0).aeth(ACK).payload(&[9; 64]),
        |hand| hand.packet(P::RcReadResponseFirst, 0).aeth(ACK).payload(&[9; 256]),
        |hand| hand.packet(P::RcReadResponseMiddle, 0).payload(&[9; 256]),
        |hand| hand.packet(P::RcAtomicAcknowledge, 0).aeth(ACK).old(9),
    ];
    for write in [false, true] {
        for answer in answers {
            let (mut node, hand) = met();
            node.fill(0..4096, 0x33);
            let from = node.mr.slice(0..64);
            node.qp.post(|wr| _ = if write { wr.write(from, REMOTE) } else { wr.send(from) }.id(1)).unwrap();
            let wc = hand.serve(&node, |hand, _| vec![answer(hand)]);
            assert_eq!((wc.wr_id, wc.status, node.qp.state()), (1, WcStatus::BadRespErr, QpState::Err));
            assert_eq!(node.bytes(0..4096), [0x33; 4096]);
        }
    }
}

#[test]
fn as_requester_an_atomic_is_not_answered_by_bytes() {
    let (mut node, hand) = met();
    let into = node.mr.slice(0..8);
    node.qp.post(|wr| _ = wr.compare_and_swap(into, REMOTE, 1, 2).id(1)).unwrap();
    let wc =
        hand.serve(&node, |hand, _| vec![hand.packet(P::RcReadResponseOnly, 0).aeth(ACK).payload(&[9; 8])]);
    assert_eq!((wc.status, node.mr.load_u64(0)), (WcStatus::BadRespErr, 0));
}

#[test]
fn as_responder_a_packet_that_continues_nothing_is_an_invalid_request() {
    let packets = [
        P::RcSendMiddle,
        P::RcSendLast,
        P::RcSendLastWithImm,
        P::RcSendLastWithInv,
        P::RcWriteMiddle,
        P::RcWriteLast,
        P::RcWriteLastWithImm,
    ];
    for opcode in packets {
        let (mut node, hand) = met();
        node.fill(0..4096, 0x44);
        node.post_recv(1, 0..1024);
        let heard = hand.ask(&[hand.packet(opcode, 0).payload(&[1; 256]).asking()]);
        assert_eq!((heard.nak(), heard.psn().get()), (Some(NakCode::InvalidRequest), PSN), "{opcode}");
        node.expect_event(AsyncEventKind::QpReqErr);
        node.expect(1, WcStatus::WrFlushErr);
        assert_eq!((node.qp.state(), node.bytes(0..4096)), (QpState::Err, vec![0x44; 4096]));
        assert_eq!(counter(&node.ctx, "send_nak_err"), 1);
    }
}

#[test]
fn as_responder_a_message_within_another_is_an_invalid_request() {
    for opcode in
        [P::RcSendFirst, P::RcSendOnly, P::RcWriteOnly, P::RcWriteMiddle, P::RcReadRequest, P::RcFetchAdd]
    {
        let (mut node, hand) = met();
        node.post_recv(1, 0..1024);
        let remote = node.mr.remote().at(2048);
        assert!(hand.ask(&[hand.packet(P::RcSendFirst, 0).payload(&[1; 256]).asking()]).is_ack());
        let second = hand.packet(opcode, 1).reth(remote, 256).atomic(remote, 1, 0).asking();
        let second = if matches!(opcode, P::RcReadRequest | P::RcFetchAdd) {
            second
        } else {
            second.payload(&[2; 256])
        };
        let heard = hand.ask(&[second]);
        assert_eq!(heard.nak(), Some(NakCode::InvalidRequest), "{opcode}");
        node.expect_event(AsyncEventKind::QpReqErr);
        node.expect(1, WcStatus::WrFlushErr);
        assert_eq!(node.bytes(2048..4096), [0; 2048]);
    }
}

#[test]
fn packets_of_other_services_are_dropped_and_counted() {
    let (mut node, hand) = met();
    node.post_recv(1, 0..64);
    for opcode in [P::UcSendOnly, P::UcWriteOnly, P::UdSendOnly] {
        hand.deliver(&node, "dropped_wrong_service", &hand.seal(&hand.packet(opcode, 0).asking()));
    }
    hand.hear_nothing();
    assert!(hand.ask(&[hand.packet(P::RcSendOnly, 0).payload(b"rc").asking()]).is_ack());
    node.expect(1, WcStatus::Success);
}
