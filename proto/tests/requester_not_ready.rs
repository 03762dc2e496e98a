//! A peer without a receive: its NAK, its timer, and how often to try.

mod requester_common;

use core::time::Duration;
use requester_common::{Rig, Setup, TIMEOUT};
use tbrdma_proto::wire::NakCode;
use tbrdma_proto::{QpState, Time, WcStatus, rnr_timer};

const OK: WcStatus = WcStatus::Success;

#[test]
fn sending_waits_as_long_as_the_peer_says_and_resumes_with_the_refused_packet() {
    for code in 0..32 {
        let mut rig = Rig::rc();
        for wr_id in 0..3 {
            rig.send(wr_id, 8);
        }
        rig.sent();
        rig.rnr(1, code);
        assert_eq!(rig.completed(), [(0, OK)], "what is before is acknowledged");
        assert!(rig.sent().is_empty());
        let wait = rnr_timer(code);
        assert_eq!(rig.qp.poll_timeout(), Some(rig.now + wait));
        assert!(!rig.sleep(wait - Duration::from_nanos(1)));
        rig.qp.handle_timeout(rig.now, &mut rig.host);
        assert!(rig.sent().is_empty(), "too early");
        assert!(rig.sleep(Duration::from_nanos(1)));
        assert_eq!(rig.sent_psns(), [1, 2]);
        rig.ack(2);
        assert_eq!(rig.completed(), [(1, OK), (2, OK)]);
    }
}

#[test]
fn new_work_waits_too() {
    let mut rig = Rig::rc();
    rig.send(1, 8);
    rig.sent();
    rig.rnr(0, 20);
    rig.send(2, 8);
    assert!(rig.sent().is_empty());
    assert!(rig.sleep(rnr_timer(20)));
    assert_eq!(rig.sent_psns(), [0, 1]);
}

#[test]
fn after_rnr_retry_retries_it_fails() {
    for rnr_retry in 0..7 {
        let mut rig = Setup { rnr_retry, ..Setup::default() }.rts();
        rig.send(1, 8);
        rig.send(2, 8);
        for _ in 0..rnr_retry {
            assert_eq!(rig.sent_psns(), [0, 1]);
            rig.rnr(0, 5);
            assert!(rig.sleep(rnr_timer(5)));
        }
        assert_eq!(rig.sent_psns(), [0, 1]);
        assert!(rig.completed().is_empty());
        rig.rnr(0, 5);
        assert_eq!(rig.completed(), [(1, WcStatus::RnrRetryExcErr), (2, WcStatus::WrFlushErr)]);
        assert_eq!(rig.qp.state(), QpState::Err);
        assert_eq!(rig.qp.counters().retry_rnr_exceeded_err, 1);
    }
}

#[test]
fn seven_retries_are_for_ever() {
    let mut rig = Setup { rnr_retry: 7, ..Setup::default() }.rts();
    rig.send(1, 8);
    for _ in 0..1000 {
        assert_eq!(rig.sent_psns(), [0]);
        rig.rnr(0, 12);
        assert!(rig.sleep(rnr_timer(12)));
    }
    assert_eq!(rig.sent_psns(), [0]);
    rig.ack(0);
    assert_eq!(rig.completed(), [(1, OK)]);
}

#[test]
fn progress_gives_all_retries_back() {
    let mut rig = Setup { rnr_retry: 1, ..Setup::default() }.rts();
    for wr_id in 0..10 {
        rig.send(wr_id, 8);
    }
    for index in 0..10 {
        rig.sent();
        rig.rnr(index, 3);
        assert!(rig.sleep(rnr_timer(3)));
    }
    rig.sent();
    rig.ack(9);
    assert_eq!(rig.completed().len(), 10);
    assert_eq!(rig.qp.counters().rcvd_rnr_err, 10);
}

#[test]
fn the_same_refusal_twice_counts_once() {
    let mut rig = Setup { rnr_retry: 1, ..Setup::default() }.rts();
    rig.send(1, 8);
    rig.sent();
    for _ in 0..5 {
        rig.rnr(0, 12);
    }
    assert_eq!(rig.qp.poll_timeout(), Some(rig.now + rnr_timer(12)), "and does not wait longer either");
    assert!(rig.sleep(rnr_timer(12)));
    rig.rnr(0, 12);
    assert_eq!(rig.sent_psns(), [0], "it came before the repetition left");
    rig.ack(0);
    assert_eq!(rig.completed(), [(1, OK)]);
}

#[test]
fn the_timeout_does_not_run_meanwhile() {
    let mut rig = Setup { retry_cnt: 0, ..Setup::default() }.rts();
    rig.send(1, 8);
    rig.sent();
    // 655 ms, against a timeout of 67.
    rig.rnr(0, 0);
    let until = rig.now + rnr_timer(0);
    assert!(rnr_timer(0) > TIMEOUT);
    assert!(rig.sleep(rnr_timer(0)));
    assert_eq!(rig.now, until);
    assert_eq!(rig.sent_psns(), [0]);
    assert!(rig.completed().is_empty());
    assert!(rig.qp.poll_timeout() > Some(Time::ZERO), "from now on it does");
}

#[test]
fn a_refusal_after_going_back_for_another_packet_is_waited_for() {
    let mut rig = Rig::rc();
    for wr_id in 0..6 {
        rig.send(wr_id, 8);
    }
    rig.sent();
    rig.nak(2, NakCode::PsnSequenceError);
    // Number 2 leaves again, alone. What was sent before goes on to be answered.
    rig.one();
    rig.rnr(3, 12);
    assert_eq!(rig.completed(), [(0, OK), (1, OK), (2, OK)]);
    assert!(rig.sent().is_empty());
    assert_eq!(rig.qp.poll_timeout(), Some(rig.now + rnr_timer(12)));
    assert!(rig.sleep(rnr_timer(12)));
    assert_eq!(rig.sent_psns(), [3, 4, 5]);
}
