//! Frames of 4 KiB: both sides post as many, queues are as deep as they hold, and messages as long.
#![allow(clippy::panic, clippy::unwrap_used, reason = "a test may fail")]

use nix::libc;
use tbrdma::{FRAME_BYTES, MAX_FRAMES, PostRefusal, WcStatus};

mod common;
use common::apple::{BACKENDS, pair, pair_shaped};

const FRAME: usize = FRAME_BYTES as usize;

#[test]
fn other_numbers_of_frames_are_local_length_errors_and_the_connection_goes_on() {
    let _alone = common::alone();
    for backend in BACKENDS {
        let (mut a, mut b) = pair(backend, "");
        for (sent, room, status) in [
            (4 * FRAME, 4 * FRAME, WcStatus::Success),
            (4 * FRAME, FRAME, WcStatus::LocLenErr),
            (4 * FRAME, 8 * FRAME, WcStatus::LocLenErr),
            (5, FRAME, WcStatus::Success),
            (3 * FRAME + 1, 4 * FRAME, WcStatus::Success),
        ] {
            b.post_recv(1, 0..room);
            a.post_send(2, 0..sent);
            // The sender is not told.
            a.expect(2, WcStatus::Success);
            let wc = b.one();
            assert_eq!((wc.wr_id, wc.status), (1, status), "{backend}: {sent} into {room}");
        }
    }
}

#[test]
fn a_queue_holds_as_many_frames_as_were_granted_and_no_more() {
    let _alone = common::alone();
    for backend in BACKENDS {
        let (mut a, mut b) = pair(backend, "");
        let depth = b.qp.cap().max_recv_wr as usize;
        assert_eq!(depth, 1023);
        // 63 times 16 frames, then 15 times one.
        for id in 0..63 {
            b.post_recv(id, 0..16 * FRAME);
        }
        for id in 63..78 {
            b.post_recv(id, 0..1);
        }
        let one = b.mr.slice(0..1);
        let error = b.qp.post_recv(|rq| _ = rq.recv(one)).unwrap_err();
        assert_eq!(error.errno(), libc::ENOMEM, "{error}");
        assert!(matches!(error.reason, PostRefusal::QueueFull { depth: 1023 }), "{error}");
        // A receive that completes and is polled makes room for its frames.
        a.post_send(1, 0..16 * FRAME);
        b.expect(0, WcStatus::Success);
        b.post_recv(100, 0..16 * FRAME);
        assert!(b.qp.post_recv(|rq| _ = rq.recv(one)).is_err());
        // Nothing is left of it after a reset.
        b.qp.reset().unwrap();
        b.qp.connect_with(&a.qp.address(), &common::patient()).unwrap();
        b.post_recv(101, 0..16 * FRAME);
    }
}

#[test]
fn sends_count_until_their_completion_is_polled() {
    let _alone = common::alone();
    let (mut a, _b) = pair_shaped("shm", "rounding=off", |init| init.max_send_wr(17).max_recv_wr(17));
    assert_eq!(a.qp.cap().max_send_wr, 16);
    // Nobody receives: they wait.
    a.post_send(1, 0..15 * FRAME);
    let (two, one) = (a.mr.slice(0..2 * FRAME), a.mr.slice(0..FRAME));
    let error =
        a.qp.post(|wr| {
            wr.send(one);
            wr.send(two);
        })
        .unwrap_err();
    assert_eq!((error.index, error.errno()), (1, libc::ENOMEM), "{error}");
}

#[test]
fn what_is_past_the_depth_is_lost_where_nobody_says_so() {
    let _alone = common::alone();
    for backend in BACKENDS {
        let (mut a, mut b) = pair_shaped(backend, "overrun=silent,rounding=off", |init| init.max_recv_wr(5));
        assert_eq!(b.qp.cap().max_recv_wr, 4);
        for id in 0..8 {
            b.post_recv(id, 64 * id as usize..64 * id as usize + 64);
        }
        for id in 0..4 {
            a.post_send(id, 0..8);
            b.expect(id, WcStatus::Success);
        }
        a.post_send(4, 0..8);
        b.expect_nothing();
        // The next receive is the one posted next.
        b.post_recv(9, 0..64);
        b.expect(9, WcStatus::Success);
    }
}

#[test]
fn the_longest_message_has_4095_frames() {
    let _alone = common::alone();
    let (mut a, mut b) =
        pair_shaped("shm", "mr-size=reported", |init| init.max_send_wr(4095).max_recv_wr(4095));
    let most = FRAME * MAX_FRAMES as usize;
    let regions = [&a, &b].map(|node| node.pd.alloc(most + FRAME, common::all_access()).unwrap());
    let [from, to] = &regions;
    from.store_u64(most - 8, 77);
    let (whole, room, more) = (from.slice(0..most), to.slice(0..most), from.slice(0..most + FRAME));
    b.qp.post_recv(|rq| _ = rq.recv(room).id(1)).unwrap();
    a.qp.post(|wr| _ = wr.send(whole).id(2)).unwrap();
    a.expect(2, WcStatus::Success);
    b.expect(1, WcStatus::Success);
    assert_eq!(to.load_u64(most - 8), 77);
    // One more frame has no room in any queue.
    let error = a.qp.post(|wr| _ = wr.send(more).id(3)).unwrap_err();
    assert_eq!(error.errno(), libc::ENOMEM, "{error}");
}
