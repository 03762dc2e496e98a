//! Captures of shared memory: the packets that an adapter would have sent, with right numbers, payloads and answers.
#![allow(clippy::panic, clippy::unwrap_used, reason = "a test may fail")]

use std::collections::BTreeSet;
use tbrdma::wire::ip::IpHeader;
use tbrdma::wire::{Headers, NakCode, PacketOpcode, Syndrome};
use tbrdma::{Mtu, Psn, QpType, RemoteRegion, WcStatus};

mod common;
use common::capture::{Capture, QKEY, every_datagram, every_message, tshark_agrees, whole};
use common::{Node, connection, join, pattern};

/// Two nodes, of which the first is captured.
fn nodes(capture: &Capture, qp_type: QpType) -> (Node, Node) {
    let there = tbrdma::open("shm").unwrap();
    (Node::of(&capture.open("shm"), qp_type, |init| init), Node::of(&there, qp_type, |init| init))
}

fn connected(capture: &Capture, qp_type: QpType) -> (Node, Node) {
    let (mut a, mut b) = nodes(capture, qp_type);
    join(&mut a, &mut b, &connection(|connection| connection.path_mtu = Mtu::B1024));
    (a, b)
}

/// The packets of a capture, headers and payload.
fn packets(capture: &Capture) -> Vec<(Headers, Vec<u8>)> {
    let all = capture.packets();
    all.iter().map(|bytes| whole(bytes)).map(|(_, headers, payload)| (headers, payload.to_vec())).collect()
}

fn opcodes(capture: &Capture) -> BTreeSet<PacketOpcode> {
    packets(capture).iter().map(|(headers, _)| headers.bth.opcode).collect()
}

#[test]
fn a_capture_has_every_opcode_whole() {
    let mut seen = BTreeSet::new();
    for qp_type in [QpType::Rc, QpType::Uc] {
        let capture = Capture::new(&format!("shm-opcodes-{qp_type:?}"));
        let (mut a, mut b) = connected(&capture, qp_type);
        every_message(&mut a, &mut b);
        drop((a, b));
        seen.extend(opcodes(&capture));
        if !tshark_agrees(&capture) {
            common::skip("tshark is not installed");
        }
    }
    let capture = Capture::new("shm-datagrams");
    let (mut a, mut b) = nodes(&capture, QpType::Ud);
    a.qp.activate_ud(QKEY).unwrap();
    b.qp.activate_ud(QKEY).unwrap();
    every_datagram(&mut a, &mut b);
    let to = b.qp.qp_num();
    let counted = a.ctx.counters();
    drop((a, b));
    assert_eq!(counted, [("captured_packets", 2)]);
    assert!(packets(&capture).iter().all(|(headers, _)| headers.bth.dest_qpn == to));
    seen.extend(opcodes(&capture));
    let elsewhere = [PacketOpcode::Cnp, PacketOpcode::UcCreditRequest, PacketOpcode::UcCredit];
    for opcode in PacketOpcode::ALL.iter().filter(|opcode| !elsewhere.contains(opcode)) {
        assert!(seen.contains(opcode), "{opcode:?} is missing");
    }
}

#[test]
fn packets_say_what_was_done() {
    let capture = Capture::new("shm-contents");
    let (mut a, b) = connected(&capture, QpType::Rc);
    let (ours, theirs) = (pattern(1, 2500), pattern(2, 1500));
    a.mr.write(0, &ours);
    b.mr.write(8192, &theirs);
    b.mr.write(16_384, &41_u64.to_ne_bytes());
    let (remote, slice) = (b.mr.remote(), a.mr.slice(0..2500));
    a.qp.post(|wr| {
        wr.write(slice, remote.at(100)).id(1);
        wr.read(a.mr.slice(4096..5596), remote.at(8192)).id(2);
        wr.fetch_and_add(a.mr.slice(6000..6008), remote.at(16_384), 3).id(3);
        wr.write_inline(b"inline", remote.at(4096)).id(4);
    })
    .unwrap();
    for id in 1..5 {
        a.expect(id, WcStatus::Success);
    }
    let (first, [qa, qb]) = (a.qp.address().psn, [&a, &b].map(|node| node.qp.qp_num()));
    let gids = [&a, &b].map(|node| node.ctx.query_gid(1, 0).unwrap());
    drop((a, b));
    let raw = capture.packets();
    for bytes in &raw {
        let (datagram, headers, _) = whole(bytes);
        let IpHeader::V6(ip) = datagram.ip else { panic!("{:?}", datagram.ip) };
        let [here, there] = gids.map(Into::into);
        let way = if headers.bth.dest_qpn == qb { (here, there) } else { (there, here) };
        assert_eq!((ip.source, ip.destination), way);
    }
    let psn = |add: u32| first.add(add);
    let all = packets(&capture);
    let said: Vec<_> = all
        .iter()
        .map(|(headers, payload)| {
            (headers.bth.opcode, headers.bth.dest_qpn, headers.bth.psn, payload.as_slice())
        })
        .collect();
    use PacketOpcode as P;
    let none = &[][..];
    assert_eq!(
        said,
        [
            (P::RcWriteFirst, qb, psn(0), &ours[..1024]),
            (P::RcWriteMiddle, qb, psn(1), &ours[1024..2048]),
            (P::RcWriteLast, qb, psn(2), &ours[2048..]),
            (P::RcAcknowledge, qa, psn(2), none),
            (P::RcReadRequest, qb, psn(3), none),
            (P::RcReadResponseFirst, qa, psn(3), &theirs[..1024]),
            (P::RcReadResponseLast, qa, psn(4), &theirs[1024..]),
            (P::RcFetchAdd, qb, psn(5), none),
            (P::RcAtomicAcknowledge, qa, psn(5), none),
            (P::RcWriteOnly, qb, psn(6), &b"inline"[..]),
            (P::RcAcknowledge, qa, psn(6), none),
        ]
    );
    let reth = all[0].0.reth.unwrap();
    assert_eq!((reth.addr, reth.rkey, reth.length), (remote.at(100).addr, remote.rkey, 2500));
    assert_eq!(all[7].0.atomic_eth.unwrap().swap_add, 3);
    assert_eq!(all[8].0.atomic_ack_eth, Some(41));
    let acknowledged: Vec<_> =
        all.iter().filter_map(|(headers, _)| headers.aeth).map(|aeth| aeth.msn).collect();
    assert_eq!(acknowledged, [1, 2, 2, 3, 4]);
}

#[test]
fn refusals_are_answers_too() {
    let capture = Capture::new("shm-refusals");
    let (mut a, mut b) = connected(&capture, QpType::Rc);
    // Not ready, until a receive is posted; then a key that nobody has.
    a.post_send(7, 0..8);
    a.expect_nothing();
    b.post_recv(7, 0..64);
    a.expect(7, WcStatus::Success);
    let nowhere = RemoteRegion { rkey: 0x00ba_d000, ..b.mr.remote() };
    let slice = a.mr.slice(0..8);
    a.qp.post(|wr| drop(wr.write(slice, nowhere.at(0)).id(8))).unwrap();
    a.expect(8, WcStatus::RemAccessErr);
    let first: Psn = a.qp.address().psn;
    drop((a, b));
    let said: Vec<_> = packets(&capture)
        .iter()
        .map(|(headers, _)| (headers.bth.opcode, headers.bth.psn, headers.aeth.map(|aeth| aeth.syndrome)))
        .collect();
    use PacketOpcode as P;
    let [(_, _, Some(Syndrome::RnrNak { timer })), ..] = said[1..] else { panic!("{said:?}") };
    let nak = Syndrome::Nak(NakCode::RemoteAccessError);
    assert_eq!(
        said,
        [
            (P::RcSendOnly, first, None),
            (P::RcAcknowledge, first, Some(Syndrome::RnrNak { timer })),
            (P::RcSendOnly, first, None),
            (P::RcAcknowledge, first, Some(Syndrome::ACK)),
            (P::RcWriteOnly, first.add(1), None),
            (P::RcAcknowledge, first.add(1), Some(nak)),
        ]
    );
}

#[test]
fn devices_of_a_process_share_a_file() {
    let capture = Capture::new("shm-shared");
    let [mut a, mut b] = ["shm", "b=shm"].map(|name| Node::of(&capture.open(name), QpType::Rc, |init| init));
    join(&mut a, &mut b, &connection(|_| ()));
    for node in [&mut a, &mut b] {
        node.post_recv(1, 0..64);
    }
    for node in [&mut a, &mut b] {
        node.post_send(2, 64..128);
        // The other's message, too, where it was first.
        node.take(1);
    }
    assert_eq!([&a, &b].map(|node| node.ctx.counters()), [[("captured_packets", 2)]; 2]);
    drop((a, b));
    // Each message and its acknowledgement.
    assert_eq!(packets(&capture).len(), 4);
}
