//! Answers that do not fit their question (IBTA volume 1, section 9.9.2.4.2), and requests that do not fit themselves.

use crate::common::{Node, patience};
use crate::hand::{ACK, Hand, Heard, Made, counter};
use crate::met;
use tbrdma::{AsyncEventKind, QpState, RemoteAddr, WcStatus};
use tbrdma_proto::wire::NakCode;
use tbrdma_proto::wire::PacketOpcode as P;

/// Where the peer's memory is, as far as anybody knows.
const REMOTE: RemoteAddr = RemoteAddr { addr: 0x1000, rkey: 0x77 };
/// A READ's bytes: three packets, the last of which is short.
const LEN: usize = 600;
/// Where they go, with others around them.
const AT: usize = 1024;

/// Posts a READ and a SEND, and answers the READ so.
fn read_answered(answer: impl Fn(&Hand, i32) -> Vec<Made>) -> (Node, Hand, WcStatus) {
    let (mut node, hand) = met();
    node.fill(0..4096, 0xc3);
    let (into, from) = (node.mr.slice(AT..AT + LEN), node.mr.slice(0..8));
    node.qp
        .post(|wr| {
            wr.read(into, REMOTE).id(1);
            wr.send(from).id(2);
        })
        .unwrap();
    let reply = |hand: &Hand, heard: &Heard| match heard.opcode() {
        P::RcReadRequest => answer(hand, hand.at(heard.psn())),
        _ => vec![],
    };
    let wc = hand.serve(&node, reply);
    assert_eq!(wc.wr_id, 1);
    (node, hand, wc.status)
}

/// Asserts that the READ ended so, what was behind it is flushed, and no byte but of the READ's was touched.
#[track_caller]
fn bad(node: &Node, status: WcStatus) {
    assert_eq!(status, WcStatus::BadRespErr);
    node.expect(2, WcStatus::WrFlushErr);
    assert_eq!(node.qp.state(), QpState::Err);
    let bytes = node.bytes(0..4096);
    assert!(bytes[..AT].iter().chain(&bytes[AT + LEN..]).all(|byte| *byte == 0xc3));
}

fn first(hand: &Hand, at: i32) -> Made {
    hand.packet(P::RcReadResponseFirst, at).aeth(ACK).payload(&[1; 256])
}

fn middle(hand: &Hand, at: i32) -> Made {
    hand.packet(P::RcReadResponseMiddle, at).payload(&[2; 256])
}

fn last(hand: &Hand, at: i32, len: usize) -> Made {
    hand.packet(P::RcReadResponseLast, at).aeth(ACK).payload(&vec![3; len])
}

#[test]
fn as_requester_a_wrong_opcode_is_a_bad_response() {
    type Answer = fn(&Hand, i32) -> Vec<Made>;
    let answers: [Answer; 4] = [
        |hand, at| vec![middle(hand, at)],
        |hand, at| vec![hand.packet(P::RcReadResponseOnly, at).aeth(ACK).payload(&[1; 256])],
        |hand, at| vec![hand.packet(P::RcAtomicAcknowledge, at).aeth(ACK).old(1)],
        |hand, at| vec![first(hand, at), last(hand, at + 1, 256)],
    ];
    for answer in answers {
        let (node, _, status) = read_answered(answer);
        bad(&node, status);
    }
}

#[test]
fn as_requester_a_wrong_length_is_a_bad_response() {
    type Answer = fn(&Hand, i32) -> Vec<Made>;
    let answers: [Answer; 5] = [
        |hand, at| vec![first(hand, at).payload(&[1; 255])],
        |hand, at| vec![first(hand, at).payload(&[1; 257])],
        |hand, at| vec![first(hand, at).payload(&[])],
        |hand, at| vec![first(hand, at), middle(hand, at + 1), last(hand, at + 2, LEN - 512 - 1)],
        // Beyond what was asked for, within a packet.
        |hand, at| vec![first(hand, at), middle(hand, at + 1), last(hand, at + 2, LEN - 512 + 1)],
    ];
    for answer in answers {
        let (node, _, status) = read_answered(answer);
        bad(&node, status);
    }
}

#[test]
fn as_requester_what_comes_beyond_the_last_packet_asked_for_is_a_ghost() {
    // The SEND takes the number behind the READ's last: who answers that with data has not understood.
    let (node, _, status) = read_answered(|hand, at| {
        vec![
            first(hand, at),
            middle(hand, at + 1),
            // In place of the last one.
            middle(hand, at + 2),
            last(hand, at + 3, 256),
        ]
    });
    bad(&node, status);
    // Those whose numbers nobody asked for are not even looked at.
    let (node, _, status) = read_answered(|hand, at| {
        vec![
            last(hand, at + 40, 256),
            first(hand, at),
            middle(hand, at + 1),
            last(hand, at + 2, LEN - 512),
            middle(hand, at + 41),
        ]
    });
    assert_eq!((status, node.qp.state()), (WcStatus::Success, QpState::Rts));
    assert_eq!(node.bytes(AT + LEN..4096), vec![0xc3; 4096 - AT - LEN]);
}

#[test]
fn as_requester_an_answer_out_of_its_turn_is_asked_for_again() {
    let mut asked = 0;
    let (mut node, hand) = met();
    let into = node.mr.slice(AT..AT + LEN);
    node.qp.post(|wr| _ = wr.read(into, REMOTE).id(1)).unwrap();
    let wc = hand.serve(&node, |hand, heard| {
        asked += 1;
        if hand.at(heard.psn()) == 0 {
            // The one in the middle is missing.
            return vec![first(hand, 0), last(hand, 2, LEN - 512)];
        }
        assert_eq!((heard.opcode(), hand.at(heard.psn())), (P::RcReadRequest, 1), "from where it is missing");
        vec![hand.packet(P::RcReadResponseFirst, 1).aeth(ACK).payload(&[2; 256]), last(hand, 2, LEN - 512)]
    });
    assert_eq!(wc.status, WcStatus::Success);
    assert!(asked >= 2 && counter(&node.ctx, "completer_retry_err") >= 1);
    let bytes = node.bytes(AT..AT + LEN);
    assert!(bytes[..256] == [1; 256] && bytes[256..512] == [2; 256] && bytes[512..] == [3; LEN - 512]);
}

#[test]
fn as_responder_requests_whose_parts_do_not_fit_are_invalid() {
    type Ask = fn(&Hand, RemoteAddr) -> Vec<Made>;
    let asks: [(Ask, i32); 6] = [
        (|hand, to| vec![hand.packet(P::RcWriteOnly, 0).reth(to, 9).payload(&[1; 8])], 0),
        (|hand, to| vec![hand.packet(P::RcWriteOnly, 0).reth(to, 7).payload(&[1; 8])], 0),
        (|hand, to| vec![hand.packet(P::RcWriteFirst, 0).reth(to, 600).payload(&[1; 255])], 0),
        (|hand, _| vec![hand.packet(P::RcSendOnly, 0).payload(&[1; 257])], 0),
        (|hand, to| vec![hand.packet(P::RcReadRequest, 0).reth(to, 8).payload(&[1; 4])], 0),
        (
            |hand, to| {
                vec![hand.packet(P::RcFetchAdd, 0).atomic(RemoteAddr { addr: to.addr + 4, ..to }, 1, 0)]
            },
            0,
        ),
    ];
    for (ask, at) in asks {
        let (mut node, hand) = met();
        node.fill(0..4096, 0xc3);
        node.post_recv(1, 0..1024);
        let mut requests = ask(&hand, node.mr.remote().at(0));
        let last = requests.pop().unwrap().asking();
        requests.push(last);
        let heard = hand.ask(&requests);
        assert_eq!(
            (heard.nak(), heard.psn()),
            (Some(NakCode::InvalidRequest), requests[at as usize].headers.bth.psn)
        );
        assert_eq!(counter(&node.ctx, "send_nak_err"), 1);
        node.expect_event(AsyncEventKind::QpReqErr);
        node.expect(1, WcStatus::WrFlushErr);
        assert_eq!((node.qp.state(), node.bytes(0..4096)), (QpState::Err, vec![0xc3; 4096]));
        assert!(hand.hear(patience() / 1000).is_none(), "and no more is said");
    }
}
