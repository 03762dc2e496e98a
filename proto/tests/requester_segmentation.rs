//! How messages become packets.

mod requester_common;

use requester_common::{LKEY, PEER, REMOTE, RKEY, Rig, SQ_PSN, Setup, TIMEOUT, index, sge, wr};
use tbrdma_proto::transport::{Payload, Span, To};
use tbrdma_proto::wire::{PacketOpcode as P, Reth};
use tbrdma_proto::{Mtu, Opcode, QpType, SendFlags, Sge, WcOpcode, WcStatus};

#[test]
fn every_length_at_every_mtu_is_cut_as_the_specification_says() {
    for mtu in [Mtu::B256, Mtu::B512, Mtu::B1024, Mtu::B2048, Mtu::B4096] {
        let size = mtu.bytes();
        for length in [0, 1, 3, size - 1, size, size + 1, 2 * size, 2 * size + 1, 9 * size, 10 * size - 1] {
            let mut rig = Setup { mtu, ..Setup::default() }.rts();
            rig.send(1, length);
            let sent = rig.sent();
            assert_eq!(sent.len() as u32, length.div_ceil(size).max(1), "{length} bytes at {size}");
            let mut offset = 0;
            for (number, transmit) in sent.iter().enumerate() {
                let bth = transmit.headers.bth;
                let (first, last) = (number == 0, number + 1 == sent.len());
                let expected = match (first, last) {
                    (true, true) => P::RcSendOnly,
                    (true, false) => P::RcSendFirst,
                    (false, false) => P::RcSendMiddle,
                    (false, true) => P::RcSendLast,
                };
                assert_eq!(bth.opcode, expected);
                assert_eq!(index(bth.psn), number as i32);
                assert_eq!(bth.dest_qpn.get(), PEER);
                assert_eq!((bth.pkey, bth.migrated), (0xffff, true));
                assert_eq!(transmit.to, To::Peer);
                let len = transmit.payload.len();
                assert_eq!(len, (length - offset).min(size));
                assert_eq!(u32::from(bth.pad), (4 - len % 4) % 4);
                if len > 0 {
                    assert_eq!(transmit.payload, Payload::Message { wq_index: 0, offset, len });
                }
                assert!(bth.ack_req || !last, "the last packet of a message wants an acknowledgement");
                offset += len;
            }
            rig.ack(sent.len() as i32 - 1);
            assert_eq!(rig.completed(), [(1, WcStatus::Success)]);
        }
    }
}

#[test]
fn the_longest_message_is_sent_whole() {
    let mut rig = Setup { mtu: Mtu::B4096, ..Setup::default() }.rts();
    let half = Sge { addr: 0x1_0000_0000, length: 1 << 30, lkey: LKEY };
    rig.post(&wr(1, Opcode::RdmaWrite), &[half, half]);
    let mut bytes = 0u64;
    let mut last = None;
    while rig.completed().is_empty() {
        let sent = rig.sent();
        bytes += sent.iter().map(|transmit| u64::from(transmit.payload.len())).sum::<u64>();
        last = sent.last().copied();
        rig.ack(index(last.unwrap().headers.bth.psn));
    }
    assert_eq!(bytes, 1 << 31);
    assert_eq!(last.unwrap().headers.bth.opcode, P::RcWriteLast);
}

#[test]
fn a_message_longer_than_the_longest_fails_when_its_turn_comes() {
    let mut rig = Rig::rc();
    let half = Sge { addr: 0, length: 1 << 30, lkey: LKEY };
    rig.send(1, 8);
    rig.post(&wr(2, Opcode::RdmaWrite), &[half, half, sge(1)]);
    assert_eq!(rig.sent().len(), 1);
    assert!(rig.completed().is_empty(), "the first is not acknowledged yet");
    rig.ack(0);
    assert_eq!(rig.completed(), [(1, WcStatus::Success), (2, WcStatus::LocLenErr)]);
}

#[test]
fn a_write_says_where_once_and_immediate_data_comes_last() {
    let mut rig = Rig::rc();
    let mut write = wr(1, Opcode::RdmaWriteWithImm);
    write.imm_data = 0xabcd;
    write.flags |= SendFlags::SOLICITED;
    rig.post(&write, &[sge(2500)]);
    let sent = rig.sent();
    let opcodes: Vec<_> = sent.iter().map(|transmit| transmit.headers.bth.opcode).collect();
    assert_eq!(opcodes, [P::RcWriteFirst, P::RcWriteMiddle, P::RcWriteLastWithImm]);
    assert_eq!(sent[0].headers.reth, Some(Reth { addr: REMOTE, rkey: RKEY, length: 2500 }));
    assert!(sent[1..].iter().all(|transmit| transmit.headers.reth.is_none()));
    assert_eq!(
        sent.iter().map(|transmit| transmit.headers.imm).collect::<Vec<_>>(),
        [None, None, Some(0xabcd)]
    );
    let solicited: Vec<_> = sent.iter().map(|transmit| transmit.headers.bth.solicited).collect();
    assert_eq!(solicited, [false, false, true]);
    rig.ack(2);
    let done = rig.completions();
    assert_eq!((done[0].opcode, done[0].byte_len), (WcOpcode::RdmaWrite, 2500));
}

#[test]
fn single_packet_forms_carry_every_header() {
    let mut rig = Rig::rc();
    let mut with_imm = wr(1, Opcode::SendWithImm);
    with_imm.imm_data = 5;
    let mut with_inv = wr(2, Opcode::SendWithInv);
    with_inv.imm_data = 0x77;
    let mut write = wr(3, Opcode::RdmaWriteWithImm);
    write.imm_data = 6;
    for request in [&with_imm, &with_inv, &write] {
        rig.post(request, &[sge(16)]);
    }
    rig.post(&with_inv, &[sge(1025)]);
    let sent = rig.sent();
    let opcodes: Vec<_> = sent.iter().map(|transmit| transmit.headers.bth.opcode).collect();
    assert_eq!(
        opcodes,
        [
            P::RcSendOnlyWithImm,
            P::RcSendOnlyWithInv,
            P::RcWriteOnlyWithImm,
            P::RcSendFirst,
            P::RcSendLastWithInv
        ]
    );
    assert_eq!(
        (sent[0].headers.imm, sent[1].headers.ieth, sent[2].headers.imm),
        (Some(5), Some(0x77), Some(6))
    );
    assert_eq!(sent[2].headers.reth, Some(Reth { addr: REMOTE, rkey: RKEY, length: 16 }));
    assert_eq!((sent[3].headers.ieth, sent[4].headers.ieth), (None, Some(0x77)));
}

#[test]
fn a_payload_is_gathered_from_every_entry_and_skips_empty_ones() {
    let mut rig = Rig::rc();
    let list = [(0x1000, 1000), (0x9000, 0), (0x5000, 30), (0x7000, 2000)].map(|(addr, length)| Sge {
        addr,
        length,
        lkey: LKEY,
    });
    rig.post(&wr(1, Opcode::Send), &list);
    let sent = rig.sent();
    assert_eq!(rig.gather(&sent[0]), [(0x1000, 1000), (0x5000, 24)]);
    assert_eq!(rig.gather(&sent[1]), [(0x5018, 6), (0x7000, 1018)]);
    assert_eq!(rig.gather(&sent[2]), [(0x7000 + 1018, 982)]);
}

#[test]
fn inline_bytes_are_kept_and_sent_again() {
    let mut rig = Setup { depth: 2, ..Setup::default() }.rts();
    for round in 0..6u8 {
        let mut request = wr(u64::from(round), Opcode::Send);
        request.flags |= SendFlags::INLINE;
        rig.qp.post_send(rig.now, &request, &[], &[round; 100]).unwrap();
        // Once, and again after the timeout.
        for _ in 0..2 {
            let transmit = rig.one().unwrap();
            let spans: Vec<_> = rig.qp.spans(&transmit.payload).collect();
            assert_eq!(spans, [Span::Bytes(&[round; 100])]);
            assert!(rig.sleep(2 * TIMEOUT));
        }
        rig.ack(i32::from(round));
        assert_eq!(rig.completed(), [(u64::from(round), WcStatus::Success)]);
    }
}

#[test]
fn unreliable_messages_have_their_own_opcodes_and_ask_for_nothing() {
    let mut rig = Setup::of(QpType::Uc).rts();
    rig.send(1, 2049);
    rig.post(&wr(2, Opcode::RdmaWrite), &[sge(1025)]);
    rig.post(&wr(3, Opcode::RdmaWriteWithImm), &[sge(1)]);
    rig.post(&wr(4, Opcode::SendWithImm), &[]);
    let sent = rig.sent();
    let opcodes: Vec<_> = sent.iter().map(|transmit| transmit.headers.bth.opcode).collect();
    assert_eq!(
        opcodes,
        [
            P::UcSendFirst,
            P::UcSendMiddle,
            P::UcSendLast,
            P::UcWriteFirst,
            P::UcWriteLast,
            P::UcWriteOnlyWithImm,
            P::UcSendOnlyWithImm
        ]
    );
    assert!(sent.iter().all(|transmit| !transmit.headers.bth.ack_req));
    let psns: Vec<_> = sent.iter().map(|transmit| transmit.headers.bth.psn.get() - SQ_PSN).collect();
    assert_eq!(psns, [0, 1, 2, 3, 4, 5, 6]);
}

#[test]
fn writes_apart_are_as_many_writes_as_packets() {
    let mut rig = Rig::rc();
    rig.qp.write_apart(true);
    rig.post(&wr(1, Opcode::RdmaWrite), &[sge(3500)]);
    rig.send(2, 8);
    let sent = rig.sent();
    let opcodes: Vec<_> = sent.iter().map(|transmit| transmit.headers.bth.opcode).collect();
    assert_eq!(opcodes, [P::RcWriteOnly, P::RcWriteOnly, P::RcWriteOnly, P::RcWriteOnly, P::RcSendOnly]);
    let reths: Vec<_> = sent.iter().map(|transmit| transmit.headers.reth).collect();
    let reth = |offset, length| Some(Reth { addr: REMOTE + offset, rkey: RKEY, length });
    assert_eq!(reths, [reth(0, 3500), reth(1024, 2476), reth(2048, 1452), reth(3072, 428), None]);
    let wanted: Vec<_> = sent.iter().map(|transmit| transmit.headers.bth.ack_req).collect();
    assert_eq!(wanted, [false, false, false, true, true], "it is one work request all the same");
    rig.ack(2);
    assert_eq!(rig.completed(), []);
    // The last is lost.
    assert!(rig.sleep(2 * TIMEOUT));
    let again = rig.one().unwrap();
    assert_eq!((index(again.headers.bth.psn), again.headers.reth), (3, reth(3072, 428)));
    rig.ack(4);
    assert_eq!(rig.completed(), [(1, WcStatus::Success), (2, WcStatus::Success)]);
}

#[test]
fn short_writes_and_those_with_a_word_at_their_end_stay_whole() {
    let mut rig = Rig::rc();
    rig.qp.write_apart(true);
    rig.post(&wr(1, Opcode::RdmaWriteWithImm), &[sge(4096)]);
    rig.post(&wr(2, Opcode::RdmaWrite), &[sge(3072)]);
    let opcodes: Vec<_> = rig.sent().iter().map(|transmit| transmit.headers.bth.opcode).collect();
    let first = [P::RcWriteFirst, P::RcWriteMiddle, P::RcWriteMiddle, P::RcWriteLastWithImm];
    assert_eq!(opcodes[..4], first);
    assert_eq!(opcodes[4..], [P::RcWriteFirst, P::RcWriteMiddle, P::RcWriteLast]);
    let mut rig = Setup::of(QpType::Uc).rts();
    rig.qp.write_apart(true);
    rig.post(&wr(1, Opcode::RdmaWrite), &[sge(4096)]);
    let opcodes: Vec<_> = rig.sent().iter().map(|transmit| transmit.headers.bth.opcode).collect();
    assert_eq!(
        opcodes,
        [P::UcWriteFirst, P::UcWriteMiddle, P::UcWriteMiddle, P::UcWriteLast],
        "it is delivered whole or not at all"
    );
}
