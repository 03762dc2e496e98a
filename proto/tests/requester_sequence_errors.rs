//! NAKs for a missing packet: where sending resumes, what is an echo, and when it is given up.

mod requester_common;

use core::time::Duration;
use requester_common::{Rig, Setup, TIMEOUT};
use tbrdma_proto::WcStatus;
use tbrdma_proto::wire::NakCode;

const OK: WcStatus = WcStatus::Success;

#[test]
fn sending_resumes_with_the_missing_packet_and_goes_on_to_the_end() {
    let mut rig = Rig::rc();
    rig.send(1, 4096);
    rig.send(2, 4096);
    rig.sent();
    rig.nak(5, NakCode::PsnSequenceError);
    assert_eq!(rig.completed(), [(1, OK)]);
    let again = rig.sent();
    let offsets: Vec<_> = again.iter().map(|transmit| rig.gather(transmit)[0].0 - 0x1000).collect();
    assert_eq!(offsets, [1024, 2048, 3072]);
    assert!(again[0].headers.bth.ack_req, "it must be found out soon whether it has come");
    rig.ack(7);
    assert_eq!(rig.completed(), [(2, OK)]);
    let counters = rig.qp.counters();
    assert_eq!((counters.rcvd_seq_err, counters.retransmitted_pkts, counters.sent_pkts), (1, 3, 11));
}

#[test]
fn the_same_one_again_is_an_echo() {
    let mut rig = Setup { retry_cnt: 1, ..Setup::default() }.rts();
    rig.send(1, 8192);
    rig.sent();
    rig.nak(2, NakCode::PsnSequenceError);
    assert_eq!(rig.sent_psns(), [2, 3, 4, 5, 6, 7]);
    for _ in 0..10 {
        rig.nak(2, NakCode::PsnSequenceError);
        assert!(rig.sent().is_empty());
    }
    rig.ack(7);
    assert_eq!(rig.completed(), [(1, OK)]);
}

#[test]
fn retries_without_progress_are_counted() {
    let mut rig = Setup { retry_cnt: 3, timeout: 20, ..Setup::default() }.rts();
    rig.send(1, 8);
    rig.sent();
    rig.now = rig.now + Duration::from_micros(20);
    rig.ack(0);
    rig.take_actions();
    rig.send(2, 2048);
    for attempt in 0..4 {
        rig.sent();
        assert!(rig.completed().is_empty());
        // Too long after for an echo, too short for a timeout.
        rig.now = rig.now + Duration::from_millis(5 << (2 * attempt));
        rig.nak(1, NakCode::PsnSequenceError);
    }
    assert_eq!(rig.completed(), [(2, WcStatus::RetryExcErr)]);
}

#[test]
fn retries_with_progress_are_not() {
    let mut rig = Setup { retry_cnt: 1, ..Setup::default() }.rts();
    rig.send(1, 64 * 1024);
    for index in 0..60 {
        rig.sent();
        rig.nak(index, NakCode::PsnSequenceError);
    }
    rig.sent();
    rig.ack(63);
    assert_eq!(rig.completed(), [(1, OK)]);
}

#[test]
fn a_read_before_the_missing_packet_is_asked_again() {
    let mut rig = Rig::rc();
    rig.read(1, 100);
    rig.send(2, 8);
    assert_eq!(rig.sent_psns(), [0, 1]);
    rig.nak(1, NakCode::PsnSequenceError);
    assert_eq!(rig.sent_psns(), [0, 1]);
    assert!(rig.completed().is_empty());
}

#[test]
fn the_window_shrinks_with_loss_and_grows_again() {
    let mut rig = Rig::rc();
    rig.send(1, 1 << 30);
    let before = rig.sent().len() as i32;
    rig.nak(0, NakCode::PsnSequenceError);
    let after = rig.sent().len() as i32;
    assert!(after < before, "{after} packets at once after a loss, {before} before");
    let mut at = after;
    for _ in 0..100 {
        rig.now = rig.now + Duration::from_micros(50);
        rig.ack(at - 1);
        at += rig.sent().len() as i32;
    }
    rig.ack(at - 1);
    assert!(rig.sent().len() as i32 > after);
    assert!(!rig.sleep(TIMEOUT / 1000));
}
