//! Silence: when it ends in sending again, and when in failure.

mod requester_common;

use core::time::Duration;
use requester_common::{Rig, Setup, TIMEOUT};
use tbrdma_proto::{QpState, WcStatus, ack_timeout};

const OK: WcStatus = WcStatus::Success;

#[test]
fn a_peer_that_never_answers_is_given_up_after_the_last_retry() {
    for retry_cnt in 0..8 {
        for timeout in [1, 8, 14, 20] {
            let patience = ack_timeout(timeout).unwrap();
            let mut rig = Setup { retry_cnt, timeout, ..Setup::default() }.rts();
            rig.send(1, 3000);
            rig.read(2, 8);
            let start = rig.now;
            assert_eq!(rig.sent_psns(), [0, 1, 2, 3]);
            while rig.qp.state() == QpState::Rts {
                assert!(rig.sleep(patience));
                let again = rig.sent_psns();
                assert!(
                    again == [0, 1, 2, 3] || rig.qp.state() == QpState::Err,
                    "all of it, each time: {again:?}"
                );
            }
            assert_eq!(rig.qp.counters().ack_timeout_err, u64::from(retry_cnt) + 1);
            assert_eq!(rig.completed(), [(1, WcStatus::RetryExcErr), (2, WcStatus::WrFlushErr)]);
            assert_eq!(rig.now, start + patience * (u32::from(retry_cnt) + 1));
            assert_eq!(rig.qp.state(), QpState::Err);
            assert_eq!(rig.qp.poll_timeout(), None);
            assert_eq!(rig.qp.counters().retry_exceeded_err, 1);
        }
    }
}

#[test]
fn without_a_timeout_it_waits_for_ever() {
    let mut rig = Setup { timeout: 0, ..Setup::default() }.rts();
    rig.send(1, 8);
    rig.sent();
    assert_eq!(rig.qp.poll_timeout(), None);
    rig.now = rig.now + Duration::from_secs(1_000_000_000);
    rig.qp.handle_timeout(rig.now, &mut rig.host);
    assert!(rig.sent().is_empty());
    rig.ack(0);
    assert_eq!(rig.completed(), [(1, OK)]);
}

#[test]
fn nothing_runs_while_nothing_is_outstanding() {
    let mut rig = Rig::rc();
    assert_eq!(rig.qp.poll_timeout(), None);
    rig.send(1, 8);
    assert_eq!(rig.qp.poll_timeout(), None, "posted, not sent");
    rig.sent();
    assert!(rig.qp.poll_timeout().is_some_and(|deadline| deadline <= rig.now + TIMEOUT));
    rig.ack(0);
    assert_eq!(rig.qp.poll_timeout(), None);
}

#[test]
fn progress_starts_the_clock_anew_and_gives_all_retries_back() {
    let mut rig = Setup { retry_cnt: 1, ..Setup::default() }.rts();
    for wr_id in 0..10 {
        rig.send(wr_id, 8);
    }
    rig.sent();
    for index in 0..10 {
        let end = rig.now + TIMEOUT;
        while rig.qp.counters().ack_timeout_err == u64::try_from(index).unwrap() {
            assert!(rig.sleep(TIMEOUT));
            rig.sent();
        }
        assert_eq!(rig.now, end);
        rig.ack(index);
    }
    assert_eq!(rig.completed().len(), 10);
}

#[test]
fn a_lost_packet_is_found_out_long_before_the_timeout_once_the_path_is_known() {
    let mut rig = Setup { retry_cnt: 0, ..Setup::default() }.rts();
    let round_trip = Duration::from_micros(50);
    for index in 0..20 {
        rig.send(1, 8);
        rig.sent();
        rig.now = rig.now + round_trip;
        rig.ack(index);
    }
    rig.take_actions();
    rig.send(2, 8);
    rig.sent();
    let lost = rig.now;
    assert!(rig.sleep(TIMEOUT));
    assert!(rig.now.since(lost) < TIMEOUT / 10, "after {:?}", rig.now.since(lost));
    assert_eq!(rig.sent_psns(), [20]);
    rig.ack(20);
    assert_eq!(rig.completed(), [(2, OK)], "that was no retry, of which there are none");
}

#[test]
fn such_tries_become_rarer_and_do_not_postpone_the_end() {
    let mut rig = Setup { retry_cnt: 2, ..Setup::default() }.rts();
    rig.send(1, 8);
    rig.sent();
    rig.now = rig.now + Duration::from_micros(5);
    rig.ack(0);
    rig.send(2, 8);
    let start = rig.now;
    let mut packets = 0;
    loop {
        packets += rig.sent().len();
        assert!(rig.sleep(TIMEOUT));
        if rig.qp.state() == QpState::Err {
            break;
        }
    }
    assert_eq!(rig.now, start + TIMEOUT * 3);
    assert!((4..100).contains(&packets), "{packets} packets");
    assert_eq!(rig.completed(), [(1, OK), (2, WcStatus::RetryExcErr)]);
}

#[test]
fn an_acknowledgement_that_comes_late_is_taken() {
    let mut rig = Rig::rc();
    for wr_id in 0..6 {
        rig.send(wr_id, 8);
    }
    rig.sent();
    assert!(rig.sleep(TIMEOUT));
    assert_eq!(rig.one().map(|transmit| requester_common::index(transmit.headers.bth.psn)), Some(0));
    rig.ack(5);
    assert_eq!(rig.completed().len(), 6);
    assert!(rig.sent().is_empty(), "what has been acknowledged is not sent again");
    rig.send(6, 8);
    assert_eq!(rig.sent_psns(), [6]);
}

#[test]
fn after_a_needless_try_sending_goes_on_where_it_was() {
    let mut rig = Rig::rc();
    rig.send(1, 200 * 1024);
    let first = rig.sent().len() as i32;
    assert!(first > 20);
    assert!(rig.sleep(TIMEOUT));
    let again = rig.sent().len() as i32;
    assert!(again < first / 2, "after a silence only a few packets are tried: {again}");
    // It was only slow: the first half had arrived.
    rig.ack(first / 2);
    let more = rig.sent_psns();
    assert_eq!(more.first(), Some(&first), "the other half is on its way, and not sent again");
    assert_eq!(rig.qp.counters().retransmitted_pkts, again as u64);
}

#[test]
fn what_was_lost_is_sent_again_all_the_same() {
    let mut rig = Rig::rc();
    rig.send(1, 40 * 1024);
    assert_eq!(rig.sent().len(), 40);
    assert!(rig.sleep(TIMEOUT));
    let again = rig.sent().len() as i32;
    rig.ack(again - 1);
    assert_eq!(rig.sent_psns().first(), Some(&again), "nothing says that the rest has arrived");
    rig.ack(39);
    assert_eq!(rig.completed(), [(1, OK)]);
}

#[test]
fn a_peer_that_is_slow_to_answer_is_given_more_time() {
    let mut rig = Rig::rc();
    // It answers within 20 us, or after 800.
    for index in 0..200 {
        rig.send(1, 8);
        rig.sent();
        rig.now = rig.now + Duration::from_micros(20);
        if index % 4 == 3 {
            let answered = rig.now + Duration::from_micros(780);
            while rig.sleep(answered.since(rig.now)) {
                rig.sent();
            }
            rig.ack(index);
        }
        rig.ack(index);
    }
    assert!(rig.qp.counters().retransmitted_pkts < 20, "{:?}", rig.qp.counters());
}

#[test]
fn a_message_that_asked_nobody_is_given_longer_and_then_asks() {
    let mut rig = Rig::rc();
    for index in 0..10 {
        rig.send(1, 8);
        rig.sent();
        rig.now = rig.now + Duration::from_micros(20);
        rig.ack(index);
    }
    let mut quiet = requester_common::wr(2, tbrdma_proto::Opcode::Send);
    quiet.flags = tbrdma_proto::SendFlags::empty();
    rig.post(&quiet, &[requester_common::sge(8)]);
    let first = rig.sent();
    assert!(!first[0].headers.bth.ack_req, "nobody waits for it");
    let begun = rig.now;
    let mut again = Vec::new();
    while again.is_empty() {
        assert!(rig.sleep(TIMEOUT));
        again = rig.sent();
    }
    let after = rig.now.since(begun);
    assert!(after > Duration::from_millis(1) && after < TIMEOUT / 4, "after {after:?}");
    assert!(again[0].headers.bth.ack_req);
}

#[test]
fn a_peer_that_was_not_asked_has_not_failed_to_answer() {
    let mut rig = Setup { retry_cnt: 0, timeout: 5, ..Setup::default() }.rts();
    let mut quiet = requester_common::wr(1, tbrdma_proto::Opcode::Send);
    quiet.flags = tbrdma_proto::SendFlags::empty();
    rig.post(&quiet, &[requester_common::sge(8)]);
    assert!(!rig.sent()[0].headers.bth.ack_req);
    while rig.qp.counters().ack_timeout_err == 0 {
        assert!(rig.sleep(TIMEOUT));
        rig.sent();
    }
    assert_eq!(rig.qp.state(), QpState::Rts, "it is asked first");
    assert!(rig.qp.counters().retransmitted_pkts > 0);
    assert!(rig.sleep(TIMEOUT));
    while rig.qp.state() == QpState::Rts {
        rig.sent();
        assert!(rig.sleep(TIMEOUT));
    }
    assert_eq!(rig.completed(), [(1, WcStatus::RetryExcErr)], "and given up then");
}
