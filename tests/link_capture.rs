//! Captures: every packet of every opcode is in the file, whole, with right checksums and iCRC, and tshark agrees.
#![allow(clippy::panic, clippy::unwrap_used, reason = "a test may fail")]

use std::collections::BTreeSet;
use tbrdma::wire::PacketOpcode;
use tbrdma::wire::ip::IpHeader;
use tbrdma::{Mtu, QpAddress, QpType, RemoteRegion, WcStatus};

mod common;
use common::capture::{Capture, QKEY, every_datagram, every_message, tshark_agrees, whole};
use common::{Node, connection, eventually};

/// Drives every opcode over IPv4 and IPv6, and the two negative answers.
fn run(capture: &Capture) {
    let ctx = capture.open("udp:lo");
    let there = tbrdma::open("udp:lo").unwrap();
    for sgid_index in [1, 0] {
        let with = connection(|connection| {
            connection.path_mtu = Mtu::B1024;
            connection.sgid_index = Some(sgid_index);
        });
        for qp_type in [QpType::Rc, QpType::Uc] {
            let (mut a, mut b) =
                (Node::of(&ctx, qp_type, |init| init), Node::of(&there, qp_type, |init| init));
            let gid = ctx.query_gid(1, u32::from(sgid_index)).unwrap();
            let [to_a, to_b] = [&a, &b].map(|node| QpAddress { gid, ..node.qp.address() });
            a.qp.connect_with(&to_b, &with).unwrap();
            b.qp.connect_with(&to_a, &with).unwrap();
            every_message(&mut a, &mut b);
            if qp_type == QpType::Rc {
                // Not ready, until a receive is posted; then a key that nobody has.
                let slice = a.mr.slice(0..8);
                a.qp.post(|wr| drop(wr.send(slice).id(7))).unwrap();
                let before = a.ctx.counters();
                let count = |counters: &[(&str, u64)]| {
                    counters.iter().find(|(name, _)| *name == "rcvd_rnr_err").map_or(0, |(_, count)| *count)
                };
                eventually("a receiver that is not ready", || {
                    a.cq.poll(&mut [Default::default()]);
                    count(&a.ctx.counters()) > count(&before)
                });
                b.post_recv(7, 0..64);
                a.expect(7, WcStatus::Success);
                let nowhere = RemoteRegion { rkey: 0x00ba_d000, ..b.mr.remote() };
                a.qp.post(|wr| drop(wr.write(slice, nowhere.at(0)).id(8))).unwrap();
                a.expect(8, WcStatus::RemAccessErr);
            }
        }
    }
    let (mut a, mut b) = (Node::of(&ctx, QpType::Ud, |init| init), Node::of(&there, QpType::Ud, |init| init));
    a.qp.activate_ud(QKEY).unwrap();
    b.qp.activate_ud(QKEY).unwrap();
    every_datagram(&mut a, &mut b);
}

#[test]
fn a_capture_has_every_opcode_whole() {
    let capture = Capture::new("opcodes");
    run(&capture);
    let packets = capture.packets();
    let seen: BTreeSet<_> = packets
        .iter()
        .map(|bytes| {
            let (whole, headers, _) = whole(bytes);
            (headers.bth.opcode, matches!(whole.ip, IpHeader::V6(_)))
        })
        .collect();
    // A congestion notification is sent when a network marks packets, which loopback does not; credits are for devices that hold their sends.
    let elsewhere = [PacketOpcode::Cnp, PacketOpcode::UcCreditRequest, PacketOpcode::UcCredit];
    for opcode in PacketOpcode::ALL.iter().filter(|opcode| !elsewhere.contains(opcode)) {
        let families = [false, true].map(|v6| seen.contains(&(*opcode, v6)));
        let datagram = matches!(opcode, PacketOpcode::UdSendOnly | PacketOpcode::UdSendOnlyWithImm);
        // Datagrams went the default way only.
        assert!(families[1] && (families[0] || datagram), "{opcode:?} is missing: {families:?}");
    }
}

#[test]
fn tshark_reads_a_capture() {
    let capture = Capture::new("tshark");
    run(&capture);
    if !tshark_agrees(&capture) {
        common::skip("tshark is not installed");
    }
}
