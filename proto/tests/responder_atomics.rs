//! Atomics: done once, answered as often as asked.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test may fail")]

mod responder_side;

use responder_side::*;
use tbrdma_proto::transport::Pending;
use tbrdma_proto::wire::PacketOpcode::*;

fn value(side: &Side, mr: Mr) -> u64 {
    u64::from_ne_bytes(side.bytes(mr, 8, 8).try_into().unwrap())
}

#[test]
fn atomics_answer_the_old_value() {
    let mut side = Side::rc();
    let mr = side.region(ALL, 64);
    side.request(RcFetchAdd).atomic(mr, 8, 0, 5).go();
    side.request(RcFetchAdd).atomic(mr, 8, 0, u64::MAX).go();
    side.request(RcCompareSwap).atomic(mr, 8, 4, 70).go();
    side.request(RcCompareSwap).atomic(mr, 8, 4, 80).go();
    let answers = side.answers();
    assert!(answers.iter().all(|answer| answer.opcode == RcAtomicAcknowledge));
    assert_eq!(answers.iter().map(|answer| answer.old.unwrap()).collect::<Vec<_>>(), [0, 5, 4, 70]);
    assert_eq!(
        answers.iter().map(|answer| (answer.psn, answer.msn())).collect::<Vec<_>>(),
        [(100, 1), (101, 2), (102, 3), (103, 4)]
    );
    assert_eq!(value(&side, mr), 70);
    assert_eq!(side.completions, []);
}

#[test]
fn a_repeated_atomic_is_answered_from_what_was_saved() {
    let mut side = Side::rc();
    let mr = side.region(ALL, 64);
    side.request(RcFetchAdd).atomic(mr, 8, 0, 5).go();
    side.request(RcCompareSwap).atomic(mr, 8, 5, 9).go();
    assert_eq!(side.answers().len(), 2);
    // The value has changed meanwhile.
    side.request(RcFetchAdd).atomic(mr, 8, 0, 100).go();
    side.answers();
    for _ in 0..3 {
        side.request(RcFetchAdd).psn(100).atomic(mr, 8, 0, 5).again();
        side.request(RcCompareSwap).psn(101).atomic(mr, 8, 5, 9).again();
        // A copy of the copy is answered once.
        side.request(RcFetchAdd).psn(100).atomic(mr, 8, 0, 5).again();
        let answers = side.answers();
        let seen: Vec<_> = answers.iter().map(|answer| (answer.psn, answer.old, answer.msn())).collect();
        assert_eq!(seen, [(100, Some(0), 1), (101, Some(5), 2)]);
    }
    assert_eq!((side.atomics, value(&side, mr)), (3, 109));
}

#[test]
fn what_is_not_the_same_atomic_is_dropped() {
    let mut side = Side::rc();
    let mr = side.region(ALL, 64);
    side.request(RcCompareSwap).atomic(mr, 8, 0, 5).go();
    side.answers();
    side.request(RcCompareSwap).psn(100).atomic(mr, 16, 0, 5).again();
    side.request(RcCompareSwap).psn(100).atomic(mr, 8, 1, 5).again();
    side.request(RcCompareSwap).psn(100).atomic(mr, 8, 0, 6).again();
    side.request(RcFetchAdd).psn(100).atomic(mr, 8, 0, 5).again();
    side.request(RcReadRequest).psn(100).reth(mr, 8, 8).again();
    side.request(RcWriteOnly).psn(100).reth(mr, 8, 8).payload(&[0; 8]).ack().again();
    assert_eq!(side.answers(), []);
    assert_eq!((side.atomics, value(&side, mr)), (1, 5));
}

#[test]
fn an_atomic_is_answered_when_its_value_is_known() {
    let mut side = Side::rc();
    let mr = side.region(ALL, 64);
    side.hold_atomics = true;
    side.request(RcFetchAdd).atomic(mr, 8, 0, 5).go();
    side.request(RcFetchAdd).atomic(mr, 8, 0, 6).go();
    side.request(RcWriteOnly).reth(mr, 0, 1).payload(b"x").ack().go();
    side.request(RcFetchAdd).psn(100).atomic(mr, 8, 0, 5).again();
    // What comes after it waits as well.
    assert_eq!((side.pending(), side.answers()), (Pending::Nothing, vec![]));
    side.qp.atomic_done(side.held[0]);
    assert_eq!(side.only_answer().unwrap().old, Some(0));
    side.qp.atomic_done(side.held[1]);
    let answers = side.answers();
    assert_eq!((answers[0].old, answers[1].psn, answers.len()), (Some(5), 102, 2));
    // Told once too often.
    side.qp.atomic_done(77);
    side.request(RcFetchAdd).psn(101).atomic(mr, 8, 0, 6).again();
    assert_eq!(side.only_answer().unwrap().old, Some(5));
}
