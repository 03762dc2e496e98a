//! UC and UD: sent is done, and nobody answers.

mod requester_common;

use requester_common::{OWN, Rig, Setup, TIMEOUT, sge, to, wr};
use tbrdma_proto::transport::{Payload, PostFault, To};
use tbrdma_proto::wire::{Deth, NakCode, PacketOpcode as P};
use tbrdma_proto::{Opcode, PostErrorKind, QpType, Qpn, SendFlags, WcStatus};

const OK: WcStatus = WcStatus::Success;

#[test]
fn a_uc_message_is_done_when_its_last_packet_has_left() {
    let mut rig = Setup::of(QpType::Uc).rts();
    rig.send(1, 2000);
    rig.send(2, 8);
    assert!(rig.one().is_some());
    assert!(rig.completed().is_empty());
    assert!(rig.one().is_some());
    assert_eq!(rig.completed(), [(1, OK)]);
    assert_eq!(rig.sent().len(), 1);
    assert_eq!(rig.completed(), [(2, OK)]);
    assert!(!rig.sleep(TIMEOUT * 1000), "there is no timer");
}

#[test]
fn uc_sends_as_much_as_the_link_takes() {
    let mut rig = Setup::of(QpType::Uc).rts();
    rig.send(1, 1 << 24);
    assert_eq!(rig.sent().len(), 1 << 14);
    assert_eq!(rig.completed(), [(1, OK)]);
}

#[test]
fn answers_mean_nothing_to_uc() {
    let mut rig = Setup::of(QpType::Uc).rts();
    rig.send(1, 8);
    rig.sent();
    rig.take_actions();
    rig.ack(0);
    rig.nak(0, NakCode::InvalidRequest);
    rig.rnr(0, 3);
    assert!(rig.take_actions().is_empty());
    assert_eq!(rig.qp.counters().dropped_pkts, 3);
}

fn datagram(wr_id: u64, qkey: u32) -> tbrdma_proto::SendWr {
    let mut request = wr(wr_id, Opcode::Send);
    request.ud = to(17, 0x345, qkey);
    request
}

#[test]
fn a_datagram_goes_to_its_handle_with_the_key_it_names() {
    let mut rig = Setup::of(QpType::Ud).rts();
    let mut request = datagram(1, 0x1234);
    request.opcode = Opcode::SendWithImm;
    request.imm_data = 99;
    request.flags |= SendFlags::SOLICITED;
    rig.post(&request, &[sge(10)]);
    let sent = rig.sent();
    let headers = sent[0].headers;
    assert_eq!(sent[0].to, To::Handle(17));
    assert_eq!(headers.bth.opcode, P::UdSendOnlyWithImm);
    assert_eq!((headers.bth.dest_qpn.get(), headers.bth.pad, headers.bth.solicited), (0x345, 2, true));
    assert_eq!(headers.deth, Some(Deth { qkey: 0x1234, src_qpn: Qpn::new(OWN).unwrap() }));
    assert_eq!(headers.imm, Some(99));
    assert!(!headers.bth.ack_req);
    assert_eq!(sent[0].payload, Payload::Message { wq_index: 0, offset: 0, len: 10 });
    assert_eq!(rig.completed(), [(1, OK)]);
}

#[test]
fn the_top_bit_of_the_key_stands_for_the_senders_own() {
    let mut rig = Setup::of(QpType::Ud).rts();
    rig.post(&datagram(1, 0x8000_0001), &[sge(10)]);
    assert_eq!(rig.sent()[0].headers.deth.unwrap().qkey, 0x77);
}

#[test]
fn a_datagram_is_one_packet_of_the_port() {
    // The path MTU of a connection does not matter.
    let mut rig = Setup { qp_type: QpType::Ud, mtu: tbrdma_proto::Mtu::B256, ..Setup::default() }.rts();
    rig.post(&datagram(1, 1), &[sge(4096)]);
    assert_eq!(rig.sent().len(), 1);
    rig.post(&datagram(2, 1), &[sge(4097)]);
    assert!(rig.sent().is_empty());
    assert_eq!(rig.completed(), [(1, OK), (2, WcStatus::LocLenErr)]);
}

#[test]
fn a_datagram_without_destination_is_refused() {
    let mut rig = Setup::of(QpType::Ud).rts();
    let refused = rig.qp.post_send(rig.now, &wr(1, Opcode::Send), &[sge(8)], &[]);
    assert_eq!(refused, Err(PostFault::Request(PostErrorKind::MissingUdDestination)));
}

#[test]
fn a_fence_means_nothing_without_reads() {
    let mut rig: Rig = Setup::of(QpType::Uc).rts();
    let mut request = wr(1, Opcode::Send);
    request.flags |= SendFlags::FENCE;
    rig.post(&request, &[sge(8)]);
    rig.post(&request, &[sge(8)]);
    assert_eq!(rig.sent().len(), 2);
}
