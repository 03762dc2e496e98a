//! Messages that do not fit their receive.

use crate::case::cases;
use crate::far::{self, Shape};
use tbrdma::{AsyncEventKind, QpState, WcStatus};

cases! {
    Errors by "InfiniBand vol. 1, 11.6.2" {
        a_message_longer_than_its_receive_fails_on_both_sides:
            "A message longer than its receive is a local length error there and an invalid request here", needs [Rc] as two_party;
        a_message_for_a_receive_without_memory_fails_on_both_sides: "A receive without memory takes only messages of no bytes", needs [Rc] as two_party;
        the_room_of_a_receive_is_that_of_its_whole_list: "The room of a receive is that of all its entries", needs [Rc] as two_party;
        messages_before_the_one_that_fails_are_whole: "Messages before the one that fails are not touched by it", needs [Rc] as two_party;
        a_send_that_fails_with_signaling_off_completes_all_the_same:
            "An unsignaled work request that fails completes all the same", by "ibv_post_send(3)", needs [Rc] as two_party;
    }
}

fn a_message_longer_than_its_receive_fails_on_both_sides() {
    for (mut a, b) in far::pairs("rc", Shape::default()) {
        b.fill(0..64, 6);
        b.post_recv(1, 0..15);
        b.post_recv(2, 16..64);
        a.post_send(3, 0..16);
        a.expect(3, WcStatus::RemInvReqErr);
        b.expect(1, WcStatus::LocLenErr);
        // The next receive is not used instead.
        b.expect(2, WcStatus::WrFlushErr);
        assert_eq!(a.qp.state(), QpState::Err);
        b.expect_event(AsyncEventKind::QpReqErr);
        b.await_state(QpState::Err);
        assert_eq!(b.bytes(0..64), [6; 64], "nothing may be placed");
        a.expect_nothing();
        b.expect_nothing();
    }
}

fn a_message_for_a_receive_without_memory_fails_on_both_sides() {
    let (mut a, b) = far::pair("rc");
    b.post_recv_list(1, &[]);
    a.post_send(2, 0..1);
    a.expect(2, WcStatus::RemInvReqErr);
    b.expect(1, WcStatus::LocLenErr);
}

fn the_room_of_a_receive_is_that_of_its_whole_list() {
    for (len, fits) in [(30, true), (31, false)] {
        let (mut a, b) = far::pair("rc");
        b.post_recv_list(1, &[0..10, 10..20, 30..40]);
        a.post_send(2, 0..len);
        a.expect(2, if fits { WcStatus::Success } else { WcStatus::RemInvReqErr });
        b.expect(1, if fits { WcStatus::Success } else { WcStatus::LocLenErr });
    }
}

fn messages_before_the_one_that_fails_are_whole() {
    let (mut a, b) = far::pair("rc");
    for id in 0..5 {
        let at = id as usize * 16;
        b.post_recv(id, at..at + 16);
    }
    a.qp.post(|wr| {
        for id in 0..3_u8 {
            wr.send_inline(&[id + 1; 16]).id(u64::from(id));
        }
        wr.send_inline(&[9; 17]).id(3);
        wr.send_inline(&[9; 16]).id(4);
    })
    .unwrap();
    for id in 0..3 {
        a.expect(id, WcStatus::Success);
        b.expect(id, WcStatus::Success);
        assert_eq!(b.bytes(id as usize * 16..id as usize * 16 + 16), [id as u8 + 1; 16]);
    }
    a.expect(3, WcStatus::RemInvReqErr);
    a.expect(4, WcStatus::WrFlushErr);
    b.expect(3, WcStatus::LocLenErr);
    b.expect(4, WcStatus::WrFlushErr);
    assert_eq!(b.bytes(48..80), [0; 32]);
}

fn a_send_that_fails_with_signaling_off_completes_all_the_same() {
    let (mut a, b) = far::pair("rc");
    b.post_recv(1, 0..4);
    a.qp.post(|wr| {
        wr.send_inline(b"longer than four").id(2).unsignaled();
        wr.send_inline(b"x").id(3).unsignaled();
    })
    .unwrap();
    a.expect(2, WcStatus::RemInvReqErr);
    a.expect(3, WcStatus::WrFlushErr);
}
