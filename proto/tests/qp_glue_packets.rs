//! Which packets a queue pair takes at all, what it says of congestion, and how its halves share the link.

mod requester_common;

use core::time::Duration;
use requester_common::{LKEY, PEER, Rig, SQ_PSN, Setup, aeth, bth, psn, sge, wr};
use tbrdma_proto::transport::{Incoming, Payload, Pending};
use tbrdma_proto::wire::{Headers, Packet, PacketOpcode as P, Reth, Syndrome};
use tbrdma_proto::{AsyncEventKind, ModifyError, Opcode, Psn, QpAttr, QpAttrMask, QpState, QpType, Sge};

const ACK: Syndrome = Syndrome::Ack { credits: 31 };

/// A one-packet WRITE of nothing from the peer; its PSNs begin at 5.
fn write_of_nothing(index: u32) -> Headers {
    let mut headers = Headers::new(bth(P::RcWriteOnly, Psn::masked(5 + index)));
    headers.bth.ack_req = true;
    headers.reth = Some(Reth::default());
    headers
}

#[test]
fn packets_of_another_partition_or_service_are_dropped() {
    let mut rig = Rig::rc();
    rig.send(1, 8);
    rig.sent();
    for pkey in [0, 1, 0x1234, 0x8001, 0xfffe] {
        let mut headers = aeth(P::RcAcknowledge, psn(0), ACK, 1);
        headers.bth.pkey = pkey;
        rig.answer(headers, &[]);
        assert!(rig.completed().is_empty(), "{pkey:#x}");
    }
    for opcode in [P::UcSendOnly, P::UdSendOnly, P::UcWriteFirst] {
        rig.answer(Headers::new(bth(opcode, Psn::masked(5))), &[]);
    }
    assert!(rig.sent().is_empty());
    assert_eq!((rig.qp.counters().dropped_pkts, rig.qp.counters().rcvd_pkts), (8, 0));
    // A limited member of our partition.
    let mut headers = aeth(P::RcAcknowledge, psn(0), ACK, 1);
    headers.bth.pkey = 0x7fff;
    rig.answer(headers, &[]);
    assert_eq!(rig.completed().len(), 1);
}

#[test]
fn nothing_is_taken_in_reset_and_err() {
    let mut failed = Rig::rc();
    failed.modify(QpState::Err);
    for mut rig in [Setup::default().reset(), failed] {
        rig.answer(write_of_nothing(0), &[]);
        assert!(rig.sent().is_empty());
        assert!(rig.take_actions().is_empty());
        assert_eq!(rig.qp.counters().dropped_pkts, 1);
    }
}

#[test]
fn the_first_packet_before_rts_is_reported_once() {
    let mut rig = Setup::default().rtr();
    rig.answer(write_of_nothing(0), &[]);
    assert_eq!(rig.events(), [AsyncEventKind::CommEst]);
    rig.answer(write_of_nothing(1), &[]);
    assert!(rig.events().is_empty());
    assert!(!rig.sent().is_empty(), "it is acknowledged all the same");
}

#[test]
fn marks_are_counted_and_told_to_the_sender_now_and_then() {
    let mut rig = Rig::rc();
    let take = |rig: &mut Rig, index| {
        let packet = Packet { headers: write_of_nothing(index), payload: &[] };
        let incoming = Incoming { packet: &packet, grh: &[0; 40], congestion: true };
        rig.qp.handle_packet(rig.now, &incoming, &mut rig.host);
        let sent = rig.sent();
        sent.iter().filter(|transmit| transmit.headers.bth.opcode == P::Cnp).copied().collect::<Vec<_>>()
    };
    let notices = take(&mut rig, 0);
    assert_eq!(notices.len(), 1);
    assert_eq!((notices[0].headers.bth.dest_qpn.get(), notices[0].headers.bth.becn), (PEER, true));
    assert!(take(&mut rig, 1).is_empty(), "not for every packet");
    rig.now = rig.now + Duration::from_millis(1);
    assert_eq!(take(&mut rig, 2).len(), 1);
    assert_eq!((rig.qp.counters().rcvd_ecn_marked, rig.qp.counters().sent_cnp), (3, 2));
}

#[test]
fn a_notice_of_congestion_narrows_the_window() {
    let mut rig = Rig::rc();
    rig.send(1, 1 << 30);
    let before = rig.sent().len() as i32;
    rig.answer(Headers::cnp(tbrdma_proto::Qpn::new(requester_common::OWN).unwrap()), &[]);
    assert_eq!(rig.qp.counters().rcvd_cnp, 1);
    rig.ack(before / 2);
    assert!((rig.sent().len() as i32) < before / 2);
}

#[test]
fn both_halves_get_their_turn_and_an_acknowledgement_comes_last() {
    let mut rig = Rig::rc();
    rig.send(1, 60 * 1024);
    let mut read = Headers::new(bth(P::RcReadRequest, Psn::masked(5)));
    read.reth = Some(Reth { addr: 0, rkey: LKEY, length: 60 * 1024 });
    rig.answer(read, &[]);
    rig.answer(write_of_nothing(60), &[]);
    let sent = rig.sent();
    let ours: Vec<_> = sent.iter().map(|transmit| transmit.headers.bth.opcode.is_request()).collect();
    assert_eq!(ours.iter().filter(|&&ours| ours).count(), 60);
    assert!(sent.len() >= 121);
    let runs = ours.chunk_by(|before, after| before == after).map(<[bool]>::len).collect::<Vec<_>>();
    assert!(runs.iter().rev().skip(1).all(|&run| run <= 32), "{runs:?}");
    assert!(runs.len() >= 6, "{runs:?}");
    assert_eq!(sent.last().unwrap().headers.bth.opcode, P::RcAcknowledge);
}

#[test]
fn a_mere_acknowledgement_is_told_from_what_is_urgent() {
    let mut rig = Rig::rc();
    assert_eq!(rig.qp.pending(rig.now), Pending::Nothing);
    rig.answer(write_of_nothing(0), &[]);
    assert_eq!(rig.qp.pending(rig.now), Pending::AckOnly);
    rig.send(1, 8);
    assert_eq!(rig.qp.pending(rig.now), Pending::More);
    let sent = rig.sent();
    assert_eq!(sent.len(), 2);
    assert_eq!(sent[1].headers.bth.opcode, P::RcAcknowledge);
    assert_eq!(sent[1].payload, Payload::Empty);
    assert_eq!(rig.qp.pending(rig.now), Pending::Nothing);
}

#[test]
fn a_fault_the_peer_commits_ends_both_halves() {
    let mut rig = Rig::rc();
    rig.qp.post_recv(rig.now, 7, &[sge(64)]).unwrap();
    rig.send(1, 8);
    rig.sent();
    let mut write = Headers::new(bth(P::RcWriteOnly, Psn::masked(5)));
    write.reth = Some(Reth { addr: 0, rkey: 0xbad, length: 8 });
    rig.host.bad.push(0xbad);
    rig.answer(write, &[0; 8]);
    assert_eq!(rig.qp.state(), QpState::Err);
    let actions = rig.take_actions();
    assert!(
        actions.contains(&tbrdma_proto::transport::Action::Event(AsyncEventKind::QpAccessErr)),
        "{actions:?}"
    );
    let ended = actions.iter().filter(|action| {
        matches!(action, tbrdma_proto::transport::Action::Complete { wc, solicited: true, .. }
            if wc.status == tbrdma_proto::WcStatus::WrFlushErr)
    });
    assert_eq!(ended.count(), 2, "a send and a receive: {actions:?}");
    let refusal = rig.sent();
    assert_eq!(refusal.len(), 1, "the peer is told, also now");
    assert!(matches!(refusal[0].headers.aeth.unwrap().syndrome, Syndrome::Nak(_)));
}

#[test]
fn a_query_tells_the_numbers_of_the_next_packets() {
    let mut rig = Rig::rc();
    assert_eq!(rig.qp.query().sq_psn.get(), SQ_PSN);
    rig.send(1, 3000);
    rig.sent();
    rig.answer(write_of_nothing(0), &[]);
    let attr = rig.qp.query();
    assert_eq!((attr.sq_psn.get(), attr.rq_psn.get()), (SQ_PSN + 3, 6));
    assert_eq!((attr.qp_state, attr.cur_qp_state), (QpState::Rts, QpState::Rts));
    assert_eq!((attr.timeout, attr.retry_cnt, attr.dest_qp_num.get()), (14, 7, PEER));
}

#[test]
fn a_modification_that_is_refused_changes_nothing() {
    let mut rig = Rig::rc();
    let before = rig.qp.query();
    let attr = QpAttr { qp_state: QpState::Sqd, cur_qp_state: QpState::Init, ..QpAttr::default() };
    let mask = QpAttrMask::STATE | QpAttrMask::CUR_STATE;
    assert_eq!(
        rig.qp.modify(rig.now, &attr, mask),
        Err(ModifyError::WrongCurrentState { current: QpState::Rts, believed: QpState::Init })
    );
    let attr = QpAttr { qp_state: QpState::Init, ..QpAttr::default() };
    assert!(rig.qp.modify(rig.now, &attr, QpAttrMask::STATE).is_err());
    let attr = QpAttr { qp_state: QpState::Rts, min_rnr_timer: 99, ..QpAttr::default() };
    assert!(rig.qp.modify(rig.now, &attr, QpAttrMask::STATE | QpAttrMask::MIN_RNR_TIMER).is_err());
    assert_eq!(rig.qp.query(), before);
}

#[test]
fn after_a_reset_it_is_as_new_and_connects_again() {
    let setup = Setup::default();
    let mut rig = setup.rts();
    rig.send(1, 8000);
    rig.qp.post_recv(rig.now, 7, &[Sge::default()]).unwrap();
    rig.sent();
    rig.modify(QpState::Reset);
    assert!(rig.take_actions().is_empty());
    assert!(rig.sent().is_empty());
    assert_eq!(rig.qp.poll_timeout(), None);
    let fresh = setup.reset().qp.query();
    assert_eq!(rig.qp.query(), fresh);
}

#[test]
fn each_type_starts_with_its_first_number() {
    for qp_type in [QpType::Rc, QpType::Uc, QpType::Ud] {
        let mut rig = Setup { qp_type, sq_psn: 77, ..Setup::default() }.rts();
        let mut request = wr(1, Opcode::Send);
        request.ud = requester_common::to(1, 2, 3);
        rig.post(&request, &[sge(8)]);
        assert_eq!(rig.sent()[0].headers.bth.psn.get(), 77);
    }
}
