//! What was interrupted goes on in the middle: a WRITE with the packet that is missing, a READ with the bytes that are (IBTA volume 1, sections
//! 9.7.5.1.4 and 9.4.4).

use crate::common::pattern;
use crate::hand::{self, ACK, Hand, MTU, connection, counter};
use crate::met;
use tbrdma::{QpType, RemoteAddr, WcStatus};
use tbrdma_proto::wire::PacketOpcode as P;
use tbrdma_proto::wire::Reth;

const REMOTE: RemoteAddr = RemoteAddr { addr: 0x1000, rkey: 0x77 };
/// Four packets.
const LEN: usize = 3 * MTU + 100;

fn impatient() -> (crate::common::Node, Hand) {
    let mut node = hand::node(QpType::Rc);
    let hand = Hand::with(&mut node, &connection(|with| with.timeout = 15));
    (node, hand)
}

#[test]
fn as_requester_a_write_goes_on_behind_what_was_acknowledged() {
    let (mut node, hand) = impatient();
    let bytes = pattern(11, LEN);
    node.mr.write(0, &bytes);
    let from = node.mr.slice(0..LEN);
    node.qp.post(|wr| _ = wr.write(from, REMOTE).id(1)).unwrap();
    let (mut run, mut resumed) = (0..=0, false);
    let wc = hand.serve(&node, |hand, heard| {
        let at = hand.at(heard.psn());
        let part = &bytes[at as usize * MTU..LEN.min((at as usize + 1) * MTU)];
        assert_eq!(heard.payload, part, "packet {at} has its own bytes whenever it comes");
        run = if at == run.end() + 1 { *run.start()..=at } else { at..=at };
        resumed |= run == (2..=3);
        match at {
            // The first half arrived; of the second nobody hears until it comes by itself.
            3 if !resumed => vec![hand.ack(1)],
            3 => vec![hand.ack(3)],
            _ => vec![],
        }
    });
    assert_eq!((wc.status, wc.byte_len, resumed), (WcStatus::Success, LEN as u32, true));
    assert!(counter(&node.ctx, "retransmitted_pkts") >= 2);
}

#[test]
fn as_requester_a_read_asks_for_the_rest_alone() {
    let (mut node, hand) = impatient();
    node.fill(0..4096, 0);
    let into = node.mr.slice(0..LEN);
    node.qp.post(|wr| _ = wr.read(into, REMOTE).id(1)).unwrap();
    let bytes = pattern(13, LEN);
    let part = |at: usize| &bytes[at * MTU..LEN.min((at + 1) * MTU)];
    let mut asked = Vec::new();
    let wc = hand.serve(&node, |hand, heard| {
        let at = hand.at(heard.psn());
        asked.push((at, heard.headers.reth.unwrap()));
        // Of each answer only so much arrives.
        if at == 0 {
            return vec![
                hand.packet(P::RcReadResponseFirst, 0).aeth(ACK).payload(part(0)),
                hand.packet(P::RcReadResponseMiddle, 1).payload(part(1)),
            ];
        }
        vec![
            hand.packet(P::RcReadResponseFirst, 2).aeth(ACK).payload(part(2)),
            hand.packet(P::RcReadResponseLast, 3).aeth(ACK).payload(part(3)),
        ]
    });
    assert_eq!((wc.status, wc.byte_len, node.bytes(0..LEN)), (WcStatus::Success, LEN as u32, bytes));
    assert_eq!(asked[0], (0, Reth { addr: REMOTE.addr, rkey: REMOTE.rkey, length: LEN as u32 }));
    let half = 2 * MTU as u64;
    let rest = Reth { addr: REMOTE.addr + half, rkey: REMOTE.rkey, length: LEN as u32 - half as u32 };
    assert_eq!(asked.last(), Some(&(2, rest)));
}

#[test]
fn as_responder_a_read_is_given_again_from_where_it_is_asked() {
    let (node, hand) = met();
    let bytes = pattern(17, LEN);
    node.mr.write(0, &bytes);
    let remote = node.mr.remote();
    let whole = hand.packet(P::RcReadRequest, 0).reth(remote.at(0), LEN as u32);
    let rest = hand.packet(P::RcReadRequest, 2).reth(remote.at(2 * MTU as u64), (LEN - 2 * MTU) as u32);
    let first = hand.ask(std::slice::from_ref(&whole));
    assert_eq!((first.opcode(), &first.payload[..]), (P::RcReadResponseFirst, &bytes[..MTU]));
    while hand.hear(hand::QUIET).is_some() {}
    let again = hand.ask(&[rest]);
    assert_eq!((again.opcode(), &again.payload[..]), (P::RcReadResponseFirst, &bytes[2 * MTU..3 * MTU]));
    let last = hand.hear(crate::common::patience()).unwrap();
    assert_eq!((last.opcode(), &last.payload[..]), (P::RcReadResponseLast, &bytes[3 * MTU..]));
    assert!(counter(&node.ctx, "duplicate_request") >= 1);
}

#[test]
fn as_responder_a_write_goes_on_where_it_was_interrupted_and_repeated_parts_are_not_written_again() {
    let (node, hand) = met();
    let (bytes, remote) = (pattern(19, LEN), node.mr.remote().at(0));
    let part = |at: usize| &bytes[at * MTU..LEN.min((at + 1) * MTU)];
    let first = hand.packet(P::RcWriteFirst, 0).reth(remote, LEN as u32).payload(part(0));
    let second = hand.packet(P::RcWriteMiddle, 1).payload(part(1)).asking();
    assert!(hand.ask(&[first.clone(), second.clone()]).is_ack());
    node.fill(0..2 * MTU, 0xee);
    // They come again, and then the rest.
    hand.tell(&node, &first);
    hand.tell(&node, &second);
    let third = hand.packet(P::RcWriteMiddle, 2).payload(part(2));
    let last = hand.packet(P::RcWriteLast, 3).payload(part(3)).asking();
    assert!(hand.ask(&[third, last]).is_ack());
    assert_eq!(node.bytes(0..2 * MTU), [0xee; 2 * MTU]);
    assert_eq!(node.bytes(2 * MTU..LEN), bytes[2 * MTU..]);
    assert!(counter(&node.ctx, "duplicate_request") >= 2);
}
