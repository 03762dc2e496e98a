//! READs: what is asked for, where the bytes go, what is asked for again, and answers that do not fit.

mod requester_common;

use requester_common::{LKEY, REMOTE, RKEY, Rig, Setup, wr};
use tbrdma_proto::transport::Action;
use tbrdma_proto::wire::{NakCode, PacketOpcode as P, Reth, Syndrome};
use tbrdma_proto::{Opcode, QpState, Sge, WcStatus};

const OK: WcStatus = WcStatus::Success;

#[test]
fn the_bytes_go_where_the_list_says_across_its_entries() {
    let mut rig = Rig::rc();
    let list =
        [(0x1000, 1000), (0x5000, 30), (0x7000, 470)].map(|(addr, length)| Sge { addr, length, lkey: LKEY });
    rig.post(&wr(1, Opcode::RdmaRead), &list);
    let sent = rig.sent();
    assert_eq!(sent.len(), 1);
    assert_eq!(sent[0].headers.bth.opcode, P::RcReadRequest);
    assert_eq!(sent[0].headers.reth, Some(Reth { addr: REMOTE, rkey: RKEY, length: 1500 }));
    rig.response(0, P::RcReadResponseFirst, 1024);
    rig.response(1, P::RcReadResponseLast, 476);
    let placed: Vec<_> = rig
        .actions
        .iter()
        .filter_map(|action| match *action {
            Action::Place { key: LKEY, addr, offset, len } => Some((addr, offset, len)),
            _ => None,
        })
        .collect();
    assert_eq!(placed, [(0x1000, 0, 1000), (0x5000, 1000, 24), (0x5018, 0, 6), (0x7000, 6, 470)]);
    let done = rig.completions();
    assert_eq!((done[0].wr_id, done[0].status, done[0].byte_len), (1, OK, 1500));
}

#[test]
fn a_read_of_nothing_is_asked_and_answered() {
    let mut rig = Rig::rc();
    rig.post(&wr(1, Opcode::RdmaRead), &[]);
    assert_eq!(rig.sent()[0].headers.reth.unwrap().length, 0);
    rig.response(0, P::RcReadResponseOnly, 0);
    assert_eq!(rig.completed(), [(1, OK)]);
}

#[test]
fn a_long_read_is_several_requests_that_together_ask_for_all_of_it() {
    let mut rig = Setup { max_rd_atomic: 2, ..Setup::default() }.rts();
    let length = 1_000_001;
    rig.read(1, length);
    let (mut asked, mut next) = (0, 0);
    while rig.completed().is_empty() {
        let sent = rig.sent();
        assert!(sent.len() <= 2, "no more than max_rd_atomic");
        for transmit in &sent {
            let reth = transmit.headers.reth.unwrap();
            assert_eq!(reth.addr, REMOTE + u64::from(asked));
            asked += reth.length;
        }
        for transmit in sent {
            let packets = transmit.headers.reth.unwrap().length.div_ceil(1024) as i32;
            assert_eq!(requester_common::index(transmit.headers.bth.psn), next);
            for packet in 0..packets {
                let len = (length - next as u32 * 1024).min(1024);
                rig.response(next, response(packet == 0, packet + 1 == packets), len as usize);
                next += 1;
            }
        }
    }
    assert_eq!(asked, length);
}

const fn response(first: bool, last: bool) -> P {
    match (first, last) {
        (true, true) => P::RcReadResponseOnly,
        (true, false) => P::RcReadResponseFirst,
        (false, true) => P::RcReadResponseLast,
        (false, false) => P::RcReadResponseMiddle,
    }
}

#[test]
fn what_is_missing_is_read_again_from_where_it_is_missing() {
    let mut rig = Rig::rc();
    rig.read(1, 5000);
    rig.send(2, 8);
    assert_eq!(rig.sent_psns(), [0, 5]);
    rig.response(0, P::RcReadResponseFirst, 1024);
    rig.response(1, P::RcReadResponseMiddle, 1024);
    // 2 is lost.
    rig.response(3, P::RcReadResponseMiddle, 1024);
    let sent = rig.sent();
    assert_eq!(sent[0].headers.reth, Some(Reth { addr: REMOTE + 2048, rkey: RKEY, length: 5000 - 2048 }));
    assert_eq!(requester_common::index(sent[0].headers.bth.psn), 2);
    assert_eq!(requester_common::index(sent[1].headers.bth.psn), 5);
    // The rest of the first answer is an echo of the same loss.
    rig.response(4, P::RcReadResponseLast, 5000 - 4096);
    assert!(rig.sent().is_empty());
    rig.response(2, P::RcReadResponseFirst, 1024);
    rig.response(3, P::RcReadResponseMiddle, 1024);
    rig.response(4, P::RcReadResponseLast, 5000 - 4096);
    rig.ack(5);
    assert_eq!(rig.completed(), [(1, OK), (2, OK)]);
    assert_eq!(rig.qp.counters().completer_retry_err, 1);
}

#[test]
fn late_answers_to_the_first_request_are_as_good_as_those_to_the_second() {
    let mut rig = Rig::rc();
    rig.read(1, 4096);
    rig.sent();
    rig.response(0, P::RcReadResponseFirst, 1024);
    while rig.sent().is_empty() {
        assert!(rig.sleep(10 * requester_common::TIMEOUT));
    }
    rig.response(1, P::RcReadResponseMiddle, 1024);
    rig.response(2, P::RcReadResponseFirst, 1024);
    rig.response(3, P::RcReadResponseLast, 1024);
    rig.response(1, P::RcReadResponseFirst, 1024);
    assert_eq!(rig.actions.iter().filter(|action| matches!(action, Action::Place { .. })).count(), 4);
    assert_eq!(rig.completed(), [(1, OK)]);
}

#[test]
fn a_read_that_is_answered_twice_is_placed_once() {
    let mut rig = Rig::rc();
    rig.read(1, 2048);
    rig.read(2, 8);
    rig.sent();
    for _ in 0..2 {
        rig.response(0, P::RcReadResponseFirst, 1024);
        rig.response(1, P::RcReadResponseLast, 1024);
    }
    assert_eq!(rig.actions.iter().filter(|action| matches!(action, Action::Place { .. })).count(), 2);
    assert_eq!(rig.completed(), [(1, OK)]);
    assert!(rig.sent().is_empty());
}

#[test]
fn answers_that_do_not_fit_the_request_are_bad_responses() {
    let bad: [(&str, P, usize); 6] = [
        ("longer than the packet may be", P::RcReadResponseFirst, 1025),
        ("shorter", P::RcReadResponseFirst, 1023),
        ("empty", P::RcReadResponseFirst, 0),
        ("not the first", P::RcReadResponseMiddle, 1024),
        ("too soon the last", P::RcReadResponseOnly, 1024),
        ("of an atomic", P::RcAtomicAcknowledge, 0),
    ];
    for (what, opcode, len) in bad {
        let mut rig = Rig::rc();
        rig.read(1, 2000);
        rig.read(2, 8);
        rig.sent();
        rig.response(0, opcode, len);
        let completed = rig.completed();
        assert_eq!(completed, [(1, WcStatus::BadRespErr), (2, WcStatus::WrFlushErr)], "{what}");
        assert_eq!(rig.qp.state(), QpState::Err);
    }
}

#[test]
fn more_than_was_asked_for_is_never_placed() {
    let mut rig = Rig::rc();
    rig.read(1, 1500);
    rig.sent();
    rig.response(0, P::RcReadResponseFirst, 1024);
    rig.response(1, P::RcReadResponseLast, 1024);
    assert_eq!(rig.actions.iter().filter(|action| matches!(action, Action::Place { .. })).count(), 1);
    assert_eq!(rig.completed(), [(1, WcStatus::BadRespErr)]);
}

#[test]
fn an_answer_to_what_was_no_question_is_a_bad_response() {
    for opcode in [P::RcReadResponseOnly, P::RcAtomicAcknowledge] {
        let mut rig = Rig::rc();
        rig.send(1, 8);
        rig.sent();
        let mut headers =
            requester_common::aeth(opcode, requester_common::psn(0), Syndrome::Ack { credits: 31 }, 1);
        headers.atomic_ack_eth = Some(3);
        rig.answer(headers, if opcode == P::RcReadResponseOnly { &[0; 8] } else { &[] });
        assert_eq!(rig.completed(), [(1, WcStatus::BadRespErr)]);
    }
}

#[test]
fn a_refused_read_fails_with_the_reason() {
    let mut rig = Rig::rc();
    rig.read(1, 1 << 20);
    rig.sent();
    rig.response(0, P::RcReadResponseFirst, 1024);
    rig.nak(16, NakCode::RemoteAccessError);
    assert_eq!(rig.completed(), [(1, WcStatus::RemAccessErr)]);
}

#[test]
fn a_target_that_goes_away_fails_the_read_and_is_not_written() {
    let mut rig = Rig::rc();
    rig.read(1, 2048);
    rig.sent();
    rig.response(0, P::RcReadResponseFirst, 1024);
    rig.take_actions();
    rig.host.bad.push(LKEY);
    rig.response(1, P::RcReadResponseLast, 1024);
    assert!(!rig.actions.iter().any(|action| matches!(action, Action::Place { .. })));
    assert_eq!(rig.completed(), [(1, WcStatus::LocProtErr)]);
}
