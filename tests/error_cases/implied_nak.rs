//! An acknowledgement of a later request says that the answer to an earlier one was lost (IBTA volume 1, section 9.7.5.1.3).

use crate::common::{eventually, patience, pattern};
use crate::hand::{ACK, PSN, counter};
use crate::met;
use tbrdma::{QpState, RemoteAddr, WcStatus};
use tbrdma_proto::wire::PacketOpcode as P;

const REMOTE: RemoteAddr = RemoteAddr { addr: 0x1000, rkey: 0x77 };

#[test]
fn as_requester_a_read_that_was_passed_over_is_asked_again() {
    let (mut node, hand) = met();
    let (into, from) = (node.mr.slice(0..100), node.mr.slice(1024..1032));
    node.qp
        .post(|wr| {
            wr.read(into, REMOTE).id(1);
            wr.send(from).id(2);
        })
        .unwrap();
    let mut reads = 0;
    let wc = hand.serve(&node, |hand, heard| match heard.opcode() {
        P::RcReadRequest => {
            reads += 1;
            let answer = hand.packet(P::RcReadResponseOnly, 0).aeth(ACK).payload(&[7; 100]);
            if reads == 1 { vec![] } else { vec![answer] }
        }
        // The acknowledgement of what is behind the READ.
        _ => vec![hand.ack(1)],
    });
    assert_eq!((wc.wr_id, wc.status), (1, WcStatus::Success));
    let second = hand.serve(&node, |hand, _| vec![hand.ack(1)]);
    assert_eq!((second.wr_id, second.status), (2, WcStatus::Success));
    assert!(reads >= 2);
    assert_eq!(node.bytes(0..100), [7; 100]);
    // Not by a timer, which is at half a second.
    assert!(counter(&node.ctx, "completer_retry_err") >= 1);
}

#[test]
fn as_requester_an_atomic_that_was_passed_over_is_asked_again_and_not_believed_done() {
    let (mut node, hand) = met();
    let (into, from) = (node.mr.slice(0..8), node.mr.slice(1024..1032));
    node.qp
        .post(|wr| {
            wr.fetch_and_add(into, REMOTE, 5).id(1);
            wr.send(from).id(2);
        })
        .unwrap();
    let mut atomics = Vec::new();
    let wc = hand.serve(&node, |hand, heard| match heard.opcode() {
        P::RcFetchAdd => {
            atomics.push((heard.psn(), heard.headers.atomic_eth));
            let answer = hand.packet(P::RcAtomicAcknowledge, 0).aeth(ACK).old(41);
            if atomics.len() == 1 { vec![] } else { vec![answer] }
        }
        _ => vec![hand.ack(1)],
    });
    assert_eq!((wc.wr_id, wc.status, node.mr.load_u64(0)), (1, WcStatus::Success, 41));
    assert!(atomics.len() >= 2 && atomics.iter().all(|again| *again == atomics[0]), "{atomics:?}");
}

#[test]
fn as_responder_answers_come_in_the_order_of_their_requests_so_that_none_implies_a_loss() {
    let (mut node, hand) = met();
    let bytes = pattern(3, 600);
    node.mr.write(0, &bytes);
    node.post_recv(1, 1024..2048);
    let remote = node.mr.remote().at(0);
    let requests = [
        hand.packet(P::RcReadRequest, 0).reth(remote, 600),
        hand.packet(P::RcSendOnly, 3).payload(b"behind").asking(),
    ];
    // Both are there before either is answered, or are taken for a gap and come again.
    let mut heard = Vec::new();
    eventually("the answers", || {
        requests.iter().for_each(|request| hand.send(request));
        heard.clear();
        while let Some(packet) = hand.hear(patience() / 100) {
            heard.push(packet);
            if heard.last().unwrap().is_ack() {
                break;
            }
        }
        heard.len() >= 4
    });
    let answers: Vec<_> = heard.iter().map(|heard| (heard.opcode(), heard.psn().get())).collect();
    let psn = |at| (PSN + at) & 0xff_ffff;
    assert_eq!(
        answers[answers.len() - 4..],
        [
            (P::RcReadResponseFirst, psn(0)),
            (P::RcReadResponseMiddle, psn(1)),
            (P::RcReadResponseLast, psn(2)),
            (P::RcAcknowledge, psn(3)),
        ]
    );
    let payload: Vec<u8> = heard[heard.len() - 4..].iter().flat_map(|heard| heard.payload.clone()).collect();
    assert_eq!((payload, node.qp.state()), (bytes, QpState::Rts));
    node.expect(1, WcStatus::Success);
}
