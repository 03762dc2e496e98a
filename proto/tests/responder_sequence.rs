//! Requests that are missing, that come again, and that find no receive.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test may fail")]

mod responder_side;

use responder_side::*;
use tbrdma_proto::wire::NakCode;
use tbrdma_proto::wire::PacketOpcode::*;
use tbrdma_proto::*;

/// A queue pair with so many receives of 100 bytes, one behind the other.
fn with_receives(count: u64) -> (Side, Mr) {
    let mut side = Side::rc();
    let mr = side.region(ALL, 1000);
    for id in 0..count {
        side.post(id, &[mr.sge(100 * id, 100)]);
    }
    (side, mr)
}

#[test]
fn a_gap_is_reported_once_until_the_missing_packet_comes() {
    let (mut side, _) = with_receives(8);
    side.request(RcSendOnly).payload(b"0").ack().go();
    assert!(side.only_answer().unwrap().is_ack());
    for psn in [102, 103, 104, 102, 101 + 0x7f_fffe] {
        side.request(RcSendOnly).psn(psn).payload(b"x").ack().again();
    }
    let nak = side.only_answer().unwrap();
    assert_eq!((nak.nak(), nak.psn, nak.msn()), (Some(NakCode::PsnSequenceError), 101, 1));
    assert_eq!(side.completed().len(), 1);
    side.request(RcSendOnly).psn(101).payload(b"1").ack().go();
    assert!(side.only_answer().unwrap().is_ack());
    // Another gap is another report.
    side.request(RcSendOnly).psn(110).payload(b"x").ack().again();
    assert_eq!(side.only_answer().unwrap().psn, 102);
    assert_eq!((side.qp.counters().send_seq_err, side.qp.counters().out_of_seq_request), (2, 6));
    assert_eq!(side.qp.state(), QpState::Rts);
}

#[test]
fn a_report_that_has_become_untrue_is_not_sent() {
    let (mut side, _) = with_receives(2);
    side.request(RcSendOnly).psn(101).again();
    side.request(RcSendOnly).psn(100).ack().go();
    let ack = side.only_answer().unwrap();
    assert!(ack.is_ack() && ack.psn == 100);
}

#[test]
fn a_repeated_send_or_write_is_acknowledged_and_not_done_again() {
    let (mut side, mr) = with_receives(4);
    side.request(RcSendOnly).payload(b"one").ack().go();
    side.request(RcWriteOnly).reth(mr, 500, 3).payload(b"two").ack().go();
    side.request(RcSendOnly).payload(b"three").ack().go();
    let ack = side.only_answer().unwrap();
    assert_eq!((ack.psn, ack.msn()), (102, 3));
    assert_eq!(side.completed().len(), 2);
    let placed = side.placed;
    for psn in [100, 101, 102] {
        // With or without asking for it, and whatever it says now.
        let request = side.request(RcSendOnly).psn(psn).payload(b"copy");
        if psn == 101 {
            request.ack().again()
        } else {
            request.again()
        }
        let again = side.only_answer().unwrap();
        assert_eq!((again.is_ack(), again.psn, again.msn()), (true, 102, 3));
    }
    assert_eq!(side.completed(), []);
    assert_eq!(side.placed, placed);
    assert_eq!(side.qp.counters().duplicate_request, 3);
    side.request(RcSendOnly).payload(b"next").go();
    assert_eq!(side.completed(), [(2, WcStatus::Success, 4)]);
}

#[test]
fn a_packet_repeated_within_a_message_changes_nothing() {
    let mut side = Side::rc();
    let mr = side.region(ALL, 1000);
    side.post(1, &[mr.sge(0, 1000)]);
    let bytes = pattern(1, 600);
    side.request(RcSendFirst).payload(&bytes[..256]).go();
    side.request(RcSendFirst).psn(100).payload(&[0xff; 256]).again();
    side.request(RcSendMiddle).payload(&bytes[256..512]).go();
    side.request(RcSendFirst).psn(100).payload(&[0xff; 256]).again();
    side.request(RcSendMiddle).psn(101).payload(&[0xff; 256]).again();
    side.request(RcSendLast).payload(&bytes[512..]).go();
    side.request(RcSendLast).psn(102).payload(&[0xff; 88]).again();
    assert_eq!(side.completed(), [(1, WcStatus::Success, 600)]);
    assert_eq!(side.bytes(mr, 0, 600), bytes);
}

#[test]
fn what_was_never_received_is_not_acknowledged_as_a_repetition() {
    let (mut side, _) = with_receives(1);
    for psn in [99, 0, 100 + (1 << 23)] {
        side.request(RcSendOnly).psn(psn).ack().again();
        assert_eq!(side.answers(), [], "{psn}");
    }
    side.request(RcSendOnly).ack().go();
    side.answers();
    side.request(RcSendOnly).psn(99).ack().again();
    assert_eq!(side.answers(), []);
    side.request(RcSendOnly).psn(100).ack().again();
    assert_eq!(side.answers().len(), 1);
}

#[test]
fn a_repetition_is_known_across_the_wrap() {
    let mut side = Side::new(Setup { rq_psn: 0xff_ffff, ..Setup::default() });
    for id in 0..3 {
        side.post(id, &[]);
    }
    side.request(RcSendOnly).go();
    side.request(RcSendOnly).go();
    side.request(RcSendOnly).psn(0xff_ffff).ack().again();
    assert_eq!(side.only_answer().unwrap().psn, 0);
    assert_eq!(side.completed().len(), 2);
    side.request(RcSendOnly).psn(2).ack().again();
    assert_eq!(side.only_answer().unwrap().nak(), Some(NakCode::PsnSequenceError));
}

#[test]
fn without_a_receive_the_sender_is_told_to_wait_and_nothing_changes() {
    let mut side = Side::rc();
    let mr = side.region(ALL, 100);
    for _ in 0..2 {
        side.request(RcSendOnly).payload(b"early").ack().again();
        let rnr = side.only_answer().unwrap();
        assert_eq!((rnr.rnr(), rnr.psn, rnr.msn()), (Some(RNR_TIMER), 100, 0));
    }
    // What follows is dropped without a word.
    side.request(RcSendOnly).psn(101).payload(b"later").ack().again();
    assert_eq!(side.answers(), []);
    side.post(1, &[mr.sge(0, 100)]);
    side.request(RcSendOnly).payload(b"early").ack().go();
    assert_eq!(side.completed(), [(1, WcStatus::Success, 5)]);
    assert_eq!(side.bytes(mr, 0, 5), b"early");
    assert!(side.only_answer().unwrap().is_ack());
    assert_eq!(side.qp.counters().send_rnr_err, 2);
    assert_eq!((side.events.len(), side.qp.state()), (0, QpState::Rts));
}

#[test]
fn the_packet_of_a_write_that_needs_a_receive_waits_for_one() {
    let mut side = Side::rc();
    let mr = side.region(ALL, 1000);
    let bytes = pattern(4, 300);
    side.request(RcWriteOnlyWithImm).imm(1).reth(mr, 0, 4).payload(b"none").again();
    assert_eq!(side.only_answer().unwrap().rnr(), Some(RNR_TIMER));
    assert_eq!(side.placed, 0);
    side.request(RcWriteFirst).reth(mr, 0, 300).payload(&bytes[..256]).go();
    side.request(RcWriteLastWithImm).imm(2).payload(&bytes[256..]).again();
    let rnr = side.only_answer().unwrap();
    assert_eq!((rnr.rnr(), rnr.psn), (Some(RNR_TIMER), 101));
    assert_eq!(side.placed, 256);
    side.post(3, &[]);
    side.request(RcWriteLastWithImm).imm(2).payload(&bytes[256..]).ack().go();
    assert_eq!(side.completed(), [(3, WcStatus::Success, 300)]);
    assert_eq!(side.bytes(mr, 0, 300), bytes);
    assert_eq!(side.only_answer().unwrap().msn(), 1);
}

#[test]
fn a_receive_is_taken_once_however_often_its_message_comes() {
    let (mut side, _) = with_receives(3);
    for (psn, len) in [(100, 1), (100, 1), (101, 2), (100, 1), (101, 2), (102, 3), (102, 3)] {
        side.request(RcSendOnly).psn(psn).payload(&pattern(0, len)).go();
    }
    let ok = WcStatus::Success;
    assert_eq!(side.completed(), [(0, ok, 1), (1, ok, 2), (2, ok, 3)]);
}

#[test]
fn a_shared_queue_makes_senders_wait_too() {
    let mut side = Side::new(Setup { srq: true, ..Setup::default() });
    let mr = side.region_of(SRQ_PD, ALL, 100);
    side.request(RcSendOnly).payload(b"early").again();
    assert_eq!(side.only_answer().unwrap().rnr(), Some(RNR_TIMER));
    side.post(1, &[mr.sge(0, 100)]);
    side.request(RcSendOnly).payload(b"early").go();
    assert_eq!(side.completed(), [(1, WcStatus::Success, 5)]);
    assert_eq!(side.bytes(mr, 0, 5), b"early");
}
