//! Which packets get to a queue pair at all.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test may fail")]

use tbrdma_proto::transport::{DropCounters, DropReason, QpView, admit, pkeys_match};
use tbrdma_proto::wire::{Bth, Deth, Headers, PacketOpcode, Service};
use tbrdma_proto::{Gid, Psn, QpState, QpType, Qpn};

const PEER: Gid = Gid([1; 16]);
const OWN: Gid = Gid([2; 16]);
const OTHER: Gid = Gid([3; 16]);
const QKEY: u32 = 77;

fn headers(opcode: PacketOpcode) -> Headers {
    let mut headers = Headers::new(Bth::new(opcode, Qpn::default(), Psn::default()));
    headers.deth = opcode.has_deth().then_some(Deth { qkey: QKEY, src_qpn: Qpn::default() });
    headers
}

fn view(qp_type: QpType) -> QpView {
    let path = qp_type.is_connected().then_some((PEER, OWN));
    QpView { qp_type, state: QpState::Rts, pkey: 0xffff, qkey: QKEY, path }
}

fn of_service(service: Service) -> QpType {
    match service {
        Service::Rc | Service::Cnp => QpType::Rc,
        Service::Uc => QpType::Uc,
        Service::Ud => QpType::Ud,
    }
}

#[test]
fn every_packet_gets_to_a_queue_pair_of_its_service_only() {
    for &opcode in PacketOpcode::ALL {
        for qp_type in [QpType::Rc, QpType::Uc, QpType::Ud] {
            let fits = opcode.service() == Service::Cnp || qp_type == of_service(opcode.service());
            let expected = if fits { Ok(()) } else { Err(DropReason::Service) };
            assert_eq!(admit(&headers(opcode), &PEER, &OWN, &view(qp_type)), expected, "{opcode} {qp_type}");
        }
    }
}

#[test]
fn requests_need_a_state_that_receives_and_answers_one_that_sends() {
    use QpState::{Err as Error, Init, Reset, Rtr, Rts, Sqd, Sqe};
    for state in [Reset, Init, Rtr, Rts, Sqd, Sqe, Error] {
        let qp = QpView { state, ..view(QpType::Rc) };
        let judge = |opcode| admit(&headers(opcode), &PEER, &OWN, &qp) == Err(DropReason::State);
        assert_eq!(judge(PacketOpcode::RcSendOnly), matches!(state, Reset | Init | Error), "{state}");
        let answers = [PacketOpcode::RcAcknowledge, PacketOpcode::RcReadResponseMiddle];
        for opcode in answers {
            assert_eq!(judge(opcode), matches!(state, Reset | Init | Rtr | Error), "{state}");
        }
    }
}

#[test]
fn partitions_must_be_the_same_with_a_full_member_among_the_two() {
    for (one, other, expected) in [
        (0xffff, 0xffff, true),
        (0xffff, 0x7fff, true),
        (0x7fff, 0xffff, true),
        (0x7fff, 0x7fff, false),
        (0x8001, 0x0001, true),
        (0x8001, 0x8002, false),
        (0x8000, 0x8000, false),
        (0, 0, false),
    ] {
        assert_eq!(pkeys_match(one, other), expected, "{one:x} {other:x}");
        let mut headers = headers(PacketOpcode::RcSendOnly);
        headers.bth.pkey = one;
        let verdict = admit(&headers, &PEER, &OWN, &QpView { pkey: other, ..view(QpType::Rc) });
        assert_eq!(verdict.is_ok(), expected);
        assert!(expected || verdict == Err(DropReason::Pkey));
    }
}

#[test]
fn datagrams_need_the_queue_key_and_may_come_from_anywhere() {
    let good = headers(PacketOpcode::UdSendOnly);
    let mut bad = good;
    bad.deth = Some(Deth { qkey: QKEY + 1, ..Deth::default() });
    let mut none = good;
    none.deth = None;
    assert_eq!(admit(&good, &OTHER, &OTHER, &view(QpType::Ud)), Ok(()));
    assert_eq!(admit(&bad, &PEER, &OWN, &view(QpType::Ud)), Err(DropReason::Qkey));
    assert_eq!(admit(&none, &PEER, &OWN, &view(QpType::Ud)), Err(DropReason::Qkey));
}

#[test]
fn a_connection_hears_only_its_peer_at_the_address_it_uses() {
    for qp_type in [QpType::Rc, QpType::Uc] {
        let opcode = if qp_type == QpType::Rc { PacketOpcode::RcSendOnly } else { PacketOpcode::UcSendOnly };
        let judge = |from, to| admit(&headers(opcode), from, to, &view(qp_type));
        assert_eq!(judge(&PEER, &OWN), Ok(()));
        assert_eq!(judge(&OTHER, &OWN), Err(DropReason::Address));
        assert_eq!(judge(&PEER, &OTHER), Err(DropReason::Address));
        assert_eq!(judge(&OWN, &PEER), Err(DropReason::Address));
    }
}

#[test]
fn the_first_rule_broken_is_the_one_that_counts() {
    let mut headers = headers(PacketOpcode::UdSendOnly);
    headers.bth.pkey = 1;
    headers.deth = Some(Deth::default());
    let mut qp = QpView { state: QpState::Init, path: Some((PEER, OWN)), ..view(QpType::Rc) };
    let mut judge = |change: fn(&mut QpView, &mut Headers)| {
        change(&mut qp, &mut headers);
        admit(&headers, &OTHER, &OTHER, &qp)
    };
    assert_eq!(judge(|_, _| ()), Err(DropReason::Service));
    assert_eq!(judge(|qp, _| qp.qp_type = QpType::Ud), Err(DropReason::State));
    assert_eq!(judge(|qp, _| qp.state = QpState::Rtr), Err(DropReason::Pkey));
    assert_eq!(judge(|_, headers| headers.bth.pkey = 0x7fff), Err(DropReason::Qkey));
    assert_eq!(judge(|qp, _| qp.qkey = 0), Err(DropReason::Address));
    assert_eq!(judge(|qp, _| qp.path = None), Ok(()));
}

#[test]
fn what_is_dropped_is_counted_by_reason() {
    let mut counters = DropCounters::new();
    for (count, &reason) in DropReason::ALL.iter().enumerate() {
        for _ in 0..count {
            counters.count(reason);
        }
    }
    let total: u64 = (0..DropReason::ALL.len() as u64).sum();
    assert_eq!(counters.total(), total);
    assert_eq!(counters.get(DropReason::Service), 3);
    let names: std::collections::HashSet<_> = counters.iter().map(|(name, _)| name).collect();
    assert_eq!(names.len(), DropReason::ALL.len());
    assert_eq!(counters.iter().map(|(_, count)| count).sum::<u64>(), total);
    assert_eq!(DropReason::Icrc.to_string(), "dropped_bad_icrc");
}
