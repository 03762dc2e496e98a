//! Packets, each made by hand.

use crate::common::{Node, pattern};
use crate::hand::{self, ACK, Hand, MTU, PSN, connection, counter};
use tbrdma::{AsyncEventKind, QpState, QpType, RemoteAddr, WcStatus};
use tbrdma_proto::wire::NakCode;
use tbrdma_proto::wire::PacketOpcode as P;

fn met() -> (Node, Hand) {
    let mut node = hand::node(QpType::Rc);
    let hand = Hand::of(&mut node);
    (node, hand)
}

/// Asserts that a SEND arrives as if nothing had been before it.
#[track_caller]
fn goes_on(node: &mut Node, hand: &Hand) {
    assert_eq!(node.qp.state(), QpState::Rts);
    node.post_recv(99, 0..64);
    assert!(hand.ask(&[hand.packet(P::RcSendOnly, 0).payload(b"goes on").asking()]).is_ack());
    assert_eq!(node.expect(99, WcStatus::Success).byte_len, 7);
    node.expect_no_event();
}

#[test]
fn padding_longer_than_the_packet() {
    let (mut node, hand) = met();
    node.fill(0..4096, 0x77);
    for (opcode, payload) in
        [(P::RcSendOnly, 0), (P::RcSendLast, 0), (P::RcWriteOnly, 0), (P::RcAcknowledge, 0)]
    {
        for pad in 1..4 {
            let mut packet = hand.packet(opcode, 0).reth(node.mr.remote().at(0), 4).aeth(ACK);
            packet.payload = vec![0; payload];
            packet.headers.bth.pad = pad;
            hand.deliver(&node, "dropped_malformed", &hand.seal(&packet));
        }
    }
    hand.hear_nothing();
    assert_eq!(node.bytes(0..4096), [0x77; 4096]);
    goes_on(&mut node, &hand);
}

#[test]
fn packets_cut_within_their_headers() {
    let (mut node, hand) = met();
    let remote = node.mr.remote().at(0);
    let whole = [
        hand.packet(P::RcSendOnly, 0),
        hand.packet(P::RcSendOnlyWithInv, 0),
        hand.packet(P::RcWriteFirst, 0).reth(remote, 600),
        hand.packet(P::RcReadRequest, 0).reth(remote, 600),
        hand.packet(P::RcCompareSwap, 0).atomic(remote, 1, 0),
        hand.packet(P::RcAcknowledge, 0).aeth(ACK),
        hand.packet(P::RcReadResponseFirst, 0).aeth(ACK),
        hand.packet(P::RcAtomicAcknowledge, 0).aeth(ACK).old(1),
    ];
    for packet in whole {
        let bytes = hand.seal(&packet);
        // In the middle of a word as well as between two; the iCRC is right for what there is.
        for len in (16..bytes.len()).filter(|len| len % 4 == 0 || len % 5 == 0) {
            let mut cut = bytes[..len].to_vec();
            hand.seal_bytes(&mut cut);
            hand.deliver(&node, "dropped_malformed", &cut);
        }
    }
    // These name no queue pair, and so no device of those at the address.
    (0..8).for_each(|len| hand.send_bytes(&vec![4; len]));
    hand.hear_nothing();
    goes_on(&mut node, &hand);
}

#[test]
fn unknown_opcodes_and_wrong_icrcs() {
    let (mut node, hand) = met();
    node.fill(0..4096, 0x77);
    node.post_recv(1, 0..64);
    // What would be carried out, or refused and end the connection, if it were looked at.
    let send = hand.packet(P::RcSendOnly, 0).payload(b"good bytes").asking();
    let nonsense = hand.packet(P::RcSendMiddle, 0).payload(&[1; 256]).asking();
    for packet in [&send, &nonsense] {
        let bytes = hand.seal(packet);
        let mut swapped = bytes.clone();
        let end = swapped.len();
        swapped[end - 4..].reverse();
        let (mut flipped, mut other) = (bytes.clone(), bytes.clone());
        flipped[end - 5] ^= 1;
        other[end - 1] ^= 0x80;
        for wrong in [swapped, flipped, other] {
            hand.deliver(&node, "dropped_bad_icrc", &wrong);
        }
    }
    for opcode in [0x18, 0x1c, 0x1d, 0x1f, 0x3f, 0x84, 0xdf, 0xff] {
        for sealed in [true, false] {
            let mut bytes = hand.seal(&send);
            bytes[0] = opcode;
            if sealed {
                hand.seal_bytes(&mut bytes);
            }
            hand.deliver(&node, "dropped_malformed", &bytes);
        }
    }
    hand.hear_nothing();
    assert_eq!((node.qp.state(), node.bytes(0..4096)), (QpState::Rts, vec![0x77; 4096]));
    assert!(hand.ask(&[send]).is_ack());
    assert_eq!(node.expect(1, WcStatus::Success).byte_len, 10);
    node.expect_no_event();
}

#[test]
fn an_atomic_write_of_no_bytes() {
    const ATOMIC_WRITE: u8 = 0x1d;
    let (mut node, hand) = met();
    let mut packet = hand.seal(&hand.packet(P::RcWriteOnly, 0).reth(node.mr.remote().at(0), 0).asking());
    packet[0] = ATOMIC_WRITE;
    hand.seal_bytes(&mut packet);
    for _ in 0..100 {
        hand.deliver(&node, "dropped_malformed", &packet);
    }
    hand.hear_nothing();
    goes_on(&mut node, &hand);
}

#[test]
fn a_fatal_packet_and_many_receives() {
    const RECEIVES: u64 = 300;
    let ctx = tbrdma::open(hand::DEVICE).unwrap();
    let mut node = Node::of(&ctx, QpType::Rc, |init| init.max_recv_wr(RECEIVES as u32));
    let hand = Hand::of(&mut node);
    for id in 0..RECEIVES {
        node.post_recv(id, 0..8);
    }
    // Longer than its receive.
    let heard = hand.ask(&[hand.packet(P::RcSendOnly, 0).payload(&[1; 64]).asking()]);
    assert_eq!(heard.nak(), Some(NakCode::InvalidRequest));
    for id in 0..RECEIVES {
        node.expect(id, if id == 0 { WcStatus::LocLenErr } else { WcStatus::WrFlushErr });
    }
    node.expect_event(AsyncEventKind::QpReqErr);
    // And once is enough, however often it comes.
    hand.deliver(&node, "dropped_wrong_state", &hand.seal(&hand.packet(P::RcSendOnly, 0).payload(&[1; 64])));
    node.expect_nothing();
    node.expect_no_event();
    assert_eq!(counter(&node.ctx, "send_nak_err"), 1);
}

#[test]
fn an_atomic_whose_answer_is_lost() {
    // As responder: what comes again is answered with what was answered, whatever the word is by now.
    let (node, hand) = met();
    let remote = node.mr.remote().at(0);
    node.mr.store_u64(0, 41);
    let add = [hand.packet(P::RcFetchAdd, 0).atomic(remote, 1, 0).asking()];
    let swap = [hand.packet(P::RcCompareSwap, 1).atomic(remote, 7, 100).asking()];
    let old = |heard: hand::Heard| (heard.opcode(), heard.headers.atomic_ack_eth);
    assert_eq!(old(hand.ask(&add)), (P::RcAtomicAcknowledge, Some(41)));
    assert_eq!(node.mr.load_u64(0), 42);
    node.mr.store_u64(0, 100);
    assert_eq!(old(hand.ask(&swap)), (P::RcAtomicAcknowledge, Some(100)));
    assert_eq!(node.mr.load_u64(0), 7);
    node.mr.store_u64(0, 1000);
    for _ in 0..3 {
        assert_eq!(old(hand.ask(&add)), (P::RcAtomicAcknowledge, Some(41)));
        assert_eq!(old(hand.ask(&swap)), (P::RcAtomicAcknowledge, Some(100)));
    }
    assert_eq!(node.mr.load_u64(0), 1000, "and is not done again");
    // As requester: it is asked for again, and the answer placed once.
    let mut node = hand::node(QpType::Rc);
    let hand = Hand::with(&mut node, &connection(|with| with.timeout = 14));
    let into = node.mr.slice(0..8);
    node.qp.post(|wr| _ = wr.fetch_and_add(into, RemoteAddr { addr: 64, rkey: 9 }, 1).id(1)).unwrap();
    let mut asked = 0;
    let wc = hand.serve(&node, |hand, heard| {
        assert_eq!((heard.opcode(), heard.psn()), (P::RcFetchAdd, hand.theirs));
        asked += 1;
        if asked < 3 { vec![] } else { vec![hand.packet(P::RcAtomicAcknowledge, 0).aeth(ACK).old(41)] }
    });
    assert_eq!((wc.status, node.mr.load_u64(0)), (WcStatus::Success, 41));
}

#[test]
fn a_repeated_read_of_another_range() {
    let (mut node, hand) = met();
    let bytes = pattern(23, 2 * MTU);
    node.mr.write(0, &bytes);
    let remote = node.mr.remote();
    let first = hand.ask(&[hand.packet(P::RcReadRequest, 0).reth(remote.at(0), 2 * MTU as u32)]);
    assert_eq!(first.payload, bytes[..MTU]);
    while hand.hear(hand::QUIET).is_some() {}
    // The same number, and not within what it asked for: around the end of the address space, before, behind, longer, another key.
    let others = [
        (RemoteAddr { addr: u64::MAX - 7, ..remote.at(0) }, 16),
        (RemoteAddr { addr: u64::MAX, ..remote.at(0) }, u32::MAX),
        (RemoteAddr { addr: remote.addr - 1, ..remote.at(0) }, 2 * MTU as u32),
        (remote.at(MTU as u64), 2 * MTU as u32),
        (remote.at(0), 2 * MTU as u32 + 1),
        (RemoteAddr { rkey: remote.rkey ^ 1, ..remote.at(0) }, 2 * MTU as u32),
    ];
    for (at, length) in others {
        hand.tell(&node, &hand.packet(P::RcReadRequest, 0).reth(at, length));
        let heard = hand.hear(hand::QUIET);
        assert!(heard.is_none(), "{at:?} {length}: {heard:?}");
    }
    node.post_recv(1, 4096..8192);
    let next = hand.ask(&[hand.packet(P::RcSendOnly, 2).payload(b"next").asking()]);
    assert!(next.is_ack() && next.psn().get() == (PSN + 2) & 0xff_ffff);
    node.expect(1, WcStatus::Success);
}
