//! Receiver not ready: sends that find no receive wait, as long as `rnr_retry` says, and go on by themselves.

use crate::case::cases;
use crate::common::{Moment, connection, eventually, pair_with};
use crate::far::{self, Shape};
use std::time::Duration;
use tbrdma::{MrSlice, QpState, WcStatus, rnr_timer};

cases! {
    Errors by "InfiniBand vol. 1, 9.7.5.2.8; ibv_modify_qp(3), rnr_retry and min_rnr_timer" {
        without_retries_a_send_that_finds_no_receive_fails_at_once: "rnr_retry 0: a SEND without a receive fails at once, at the requester alone", needs [Rc] as two_party;
        retries_end_after_as_many_timers_and_what_follows_is_flushed: "rnr_retry 3 waits for three timers of the responder's, and no less", needs [Rc] as two_party;
        a_receive_within_the_retries_is_in_time: "A receive posted within the retries is in time", needs [Rc] as two_party;
        a_late_receive_is_filled_though_nobody_polls_the_sender: "Retries go on though nobody polls", needs [Rc] as two_party;
    }
    Ordering by "InfiniBand vol. 1, 9.7.5.2.8" {
        seven_retries_wait_for_ever_and_the_order_is_kept: "rnr_retry 7 is for ever, and nothing overtakes what waits", needs [Rc] as two_party;
        sends_that_wait_keep_their_place_in_the_queue: "Sends that wait hold their places in the queue", needs [Rc] as two_party;
        a_receiver_that_is_always_late_loses_nothing: "A receiver that is always late loses nothing", needs [Rc];
    }
}

/// 2.56 ms.
const TIMER: u8 = 16;

fn without_retries_a_send_that_finds_no_receive_fails_at_once() {
    let (mut a, b) = far::pair_with("rc", Shape::default(), &connection(|with| with.rnr_retry = 0));
    a.post_send(1, 0..8);
    a.expect(1, WcStatus::RnrRetryExcErr);
    assert_eq!(a.qp.state(), QpState::Err);
    // The peer has done nothing wrong.
    assert_eq!(b.state(), QpState::Rts);
    b.expect_nothing();
    b.expect_nothing();
}

fn retries_end_after_as_many_timers_and_what_follows_is_flushed() {
    let with = connection(|with| {
        with.rnr_retry = 3;
        with.min_rnr_timer = TIMER;
    });
    for polled in [true, false] {
        let (mut a, b) = far::pair_with("rc", Shape::default(), &with);
        let begun = Moment::now();
        let (slice, remote) = (a.mr.slice(0..8), b.remote().at(0));
        a.qp.post(|wr| {
            wr.send(slice).id(1);
            wr.write(slice, remote).id(2).unsignaled();
            wr.send(slice).id(3);
        })
        .unwrap();
        if polled {
            a.expect(1, WcStatus::RnrRetryExcErr);
        } else {
            // Nobody polls: the timers run all the same.
            eventually("the end of the retries", || a.qp.state() == QpState::Err);
            a.expect(1, WcStatus::RnrRetryExcErr);
        }
        assert!(begun.elapsed() >= 3 * rnr_timer(TIMER), "gave up after {:?}", begun.elapsed());
        a.expect(2, WcStatus::WrFlushErr);
        a.expect(3, WcStatus::WrFlushErr);
        a.expect_nothing();
        b.post_recv(4, 0..8);
        b.expect_nothing();
    }
}

fn a_receive_within_the_retries_is_in_time() {
    let with = connection(|with| {
        with.rnr_retry = 6;
        with.min_rnr_timer = 0; // 655 ms each
    });
    let (mut a, b) = far::pair_with("rc", Shape::default(), &with);
    a.post_send(1, 0..8);
    a.expect_nothing();
    b.post_recv(2, 0..8);
    a.expect(1, WcStatus::Success);
    b.expect(2, WcStatus::Success);
}

fn seven_retries_wait_for_ever_and_the_order_is_kept() {
    let with = connection(|with| {
        with.rnr_retry = 7;
        with.min_rnr_timer = 1; // 10 us
    });
    let (mut a, b) = far::pair_with("rc", Shape::default(), &with);
    let (slice, remote) = (a.mr.slice(0..8), b.remote());
    a.qp.post(|wr| {
        wr.send_inline(b"first").id(1);
        wr.write_inline(b"later", remote.at(100)).id(2);
        wr.send_inline(b"second").id(3);
        wr.read(slice, remote.at(200)).id(4);
        let nothing: [MrSlice; 0] = [];
        wr.write_with_imm(nothing, remote.at(0), 5).id(5);
    })
    .unwrap();
    let begun = Moment::now();
    while begun.elapsed() < Duration::from_millis(100) {
        a.expect_nothing();
    }
    assert_eq!(b.bytes(100..105), [0; 5], "a write overtook the send before it");
    b.store_u64(200, 0x55);
    b.post_recv(11, 0..8);
    a.expect(1, WcStatus::Success);
    a.expect(2, WcStatus::Success);
    assert_eq!(b.bytes(100..105), b"later");
    a.expect_nothing();
    b.post_recv(12, 8..16);
    b.post_recv(13, 16..24);
    for id in [3, 4, 5] {
        a.expect(id, WcStatus::Success);
    }
    assert_eq!(a.mr.load_u64(0), 0x55);
    for id in [11, 12, 13] {
        b.expect(id, WcStatus::Success);
    }
    assert_eq!(b.bytes(0..14), b"first\0\0\0second");
}

fn a_late_receive_is_filled_though_nobody_polls_the_sender() {
    let with = connection(|with| {
        with.rnr_retry = 7;
        with.min_rnr_timer = TIMER;
    });
    for round in 0..50 {
        let (mut a, b) = far::pair_with("rc", Shape::default(), &with);
        a.mr.store_u64(0, round);
        a.post_send(1, 0..8);
        b.post_recv(2, 0..8);
        // Only the receiver is looked at from here on.
        b.expect(2, WcStatus::Success);
        assert_eq!(b.load_u64(0), round);
        a.expect(1, WcStatus::Success);
    }
}

fn sends_that_wait_keep_their_place_in_the_queue() {
    let with = connection(|with| with.rnr_retry = 7);
    let (mut a, b) = far::pair_with("rc", Shape { max_send_wr: Some(4), ..Shape::default() }, &with);
    // At least as many as were asked for.
    let depth = u64::from(a.qp.cap().max_send_wr);
    for id in 0..depth {
        a.post_send(id, 0..8);
    }
    let slice = a.mr.slice(0..8);
    let error = a.qp.post(|wr| _ = wr.send(slice)).unwrap_err();
    assert!(matches!(error.reason, tbrdma::PostRefusal::QueueFull { .. }), "{error}");
    for id in 0..depth {
        b.post_recv(id, 0..8);
    }
    for id in 0..depth {
        a.expect(id, WcStatus::Success);
        b.expect(id, WcStatus::Success);
    }
}

fn a_receiver_that_is_always_late_loses_nothing() {
    let with = connection(|with| {
        with.rnr_retry = 7;
        with.min_rnr_timer = 1;
    });
    let (mut a, mut b) = pair_with("rc", |init| init.max_send_wr(8).max_recv_wr(2), &with);
    let receiver = std::thread::spawn(move || {
        for id in 0..3000_u64 {
            b.post_recv(id, 0..8);
            b.expect(id, WcStatus::Success);
            assert_eq!(b.mr.load_u64(0), id);
        }
        b
    });
    let (mut posted, mut done) = (0_u64, 0_u64);
    while done < 3000 {
        if posted < 3000 && posted < done + 8 {
            a.qp.post(|wr| _ = wr.send_inline(&posted.to_ne_bytes()).id(posted)).unwrap();
            posted += 1;
        } else {
            a.expect(done, WcStatus::Success);
            done += 1;
        }
    }
    receiver.join().unwrap();
}
