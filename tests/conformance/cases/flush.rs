//! Error state and reset: what is posted comes back flushed, or not at all, and the queue pair can be used again.

use crate::case::cases;
use crate::common;
use crate::common::{Node, connection, join, next_of, pair, pair_with};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tbrdma::{PostRefusal, QpInit, QpState, QpType, WcOpcode, WcStatus, WorkCompletion};

cases! {
    Errors by "InfiniBand vol. 1, 10.3.1; ibv_modify_qp(3)" {
        the_error_state_flushes_sends_and_receives_in_order:
            "In ERR every work request completes as flushed, unsignaled ones too, in the order of its queue", needs [Rc, Atomics];
        the_request_that_failed_completes_before_what_is_flushed_for_it:
            "The work request that failed completes first, with its reason; those behind it are flushed", needs [Rc];
        what_is_posted_in_the_error_state_is_flushed: "Work posted in ERR is taken, and flushed", needs [Rc];
        messages_that_arrived_before_the_error_are_not_flushed:
            "What had completed before the error is polled as it completed", needs [Rc];
        tiny_polls_get_every_flushed_request: "Every flushed work request completes, however few a poll takes", needs [Rc];
        datagram_queue_pairs_flush_their_receives_too: "Datagram queue pairs flush as connected ones do", needs [Ud];
        two_completion_queues_flush_their_own_half: "Sends are flushed to the send queue's completion queue, receives to the other", needs [Rc];
    }
    States by "InfiniBand vol. 1, 10.3.1; ibv_modify_qp(3)" {
        reset_forgets_what_was_posted_and_what_had_completed:
            "RESET drops work and completions; the queues are empty afterwards", needs [Rc];
        a_queue_pair_can_be_reset_and_connected_again_many_times: "From RESET a queue pair can be connected again", needs [Rc];
        a_queue_pair_can_find_another_peer_after_a_reset: "After RESET the peer may be another", needs [Rc];
        resets_while_another_thread_polls_leave_the_queues_usable: "A completion queue may be polled while its queue pairs are reset", needs [Rc];
    }
}

fn the_error_state_flushes_sends_and_receives_in_order() {
    let (mut a, mut b) = pair_with("rc", |init| init, &connection(|with| with.rnr_retry = 7));
    for id in 0..10 {
        a.post_recv(100 + id, 0..8);
    }
    let (slice, remote) = (a.mr.slice(0..8), b.mr.remote().at(0));
    a.qp.post(|wr| {
        wr.send(slice).id(0);
        wr.write(slice, remote).id(1).unsignaled();
        wr.read(slice, remote).id(2);
        wr.fetch_and_add(slice, remote, 1).id(3).unsignaled();
        wr.send_inline(b"x").id(4);
    })
    .unwrap();
    a.expect_nothing();
    a.qp.to_error().unwrap();
    assert_eq!(a.qp.state(), QpState::Err);
    let all = a.take(15);
    let sends: Vec<_> = all.iter().filter(|wc| !wc.opcode.is_recv()).map(|wc| wc.wr_id).collect();
    let receives: Vec<_> = all.iter().filter(|wc| wc.opcode.is_recv()).map(|wc| wc.wr_id).collect();
    assert_eq!(sends, [0, 1, 2, 3, 4]);
    assert_eq!(receives, Vec::from_iter(100..110));
    assert!(all.iter().all(|wc| wc.status == WcStatus::WrFlushErr && wc.qp_num == a.qp.qp_num()));
    a.expect_nothing();
    // A program that asks for the error state needs no event to know of it.
    a.expect_no_event();
    b.post_recv(1, 0..8);
    b.expect_nothing();
}

fn the_request_that_failed_completes_before_what_is_flushed_for_it() {
    let (mut a, b) = pair("rc");
    for id in 0..4 {
        a.post_recv(100 + id, 0..8);
    }
    let (slice, beyond) = (a.mr.slice(0..8), b.mr.remote().at(u64::MAX / 2));
    a.qp.post(|wr| {
        wr.write(slice, beyond).id(1);
        wr.send_inline(b"x").id(2);
    })
    .unwrap();
    let all = a.take(6);
    assert_eq!((all[0].wr_id, all[0].status), (1, WcStatus::RemAccessErr));
    assert!(all[1..].iter().all(|wc| wc.status == WcStatus::WrFlushErr));
}

fn what_is_posted_in_the_error_state_is_flushed() {
    let (mut a, _b) = pair("rc");
    a.qp.to_error().unwrap();
    for round in 0..100 {
        a.post_send(round, 0..8);
        let wc = a.expect(round, WcStatus::WrFlushErr);
        assert_eq!(wc.opcode, WcOpcode::Send);
        a.post_recv(round, 0..8);
        let wc = a.expect(round, WcStatus::WrFlushErr);
        assert!(wc.opcode.is_recv());
    }
    let slice = a.mr.slice(0..8);
    a.qp.post(|wr| _ = wr.send(slice).id(1).unsignaled()).unwrap();
    a.expect(1, WcStatus::WrFlushErr);
}

fn messages_that_arrived_before_the_error_are_not_flushed() {
    // Enough queue pairs on one completion queue that not all are looked at in every poll.
    for others in [0, 12] {
        let (mut a, mut b) = (Node::new(QpType::Rc), Node::new(QpType::Rc));
        let _others: Vec<_> = (0..others).map(|_| b.pd.create_qp(QpInit::rc(&b.cq)).unwrap()).collect();
        b.qp = b.pd.create_qp(QpInit::rc(&b.cq)).unwrap();
        join(&mut a, &mut b, &common::patient());
        for id in 0..6 {
            b.post_recv(id, 0..8);
        }
        for id in 0..2 {
            a.post_send(id, 0..8);
            a.expect(id, WcStatus::Success);
        }
        b.qp.to_error().unwrap();
        let mut wcs = [WorkCompletion::default(); 16];
        let mut all = Vec::new();
        common::eventually("six completions", || {
            all.extend_from_slice(b.cq.poll(&mut wcs));
            all.len() >= 6
        });
        let ends: Vec<_> = all.iter().map(|wc| (wc.wr_id, wc.status)).collect();
        let expected: Vec<_> =
            (0..6).map(|id| (id, if id < 2 { WcStatus::Success } else { WcStatus::WrFlushErr })).collect();
        assert_eq!(ends, expected);
    }
}

fn tiny_polls_get_every_flushed_request() {
    let (mut a, _b) = pair("rc");
    for id in 0..64 {
        a.post_recv(id, 0..8);
    }
    a.qp.to_error().unwrap();
    for id in 0..64 {
        a.expect(id, WcStatus::WrFlushErr);
    }
    a.expect_nothing();
}

fn reset_forgets_what_was_posted_and_what_had_completed() {
    let (mut a, mut b) =
        pair_with("rc", |init| init.max_send_wr(8).max_recv_wr(8), &connection(|with| with.rnr_retry = 7));
    for id in 0..8 {
        a.post_recv(id, 0..8);
        a.post_send(id, 0..8);
    }
    b.post_recv(0, 0..8);
    b.expect(0, WcStatus::Success);
    b.post_send(0, 0..8);
    a.qp.reset().unwrap();
    assert_eq!(a.qp.state(), QpState::Reset);
    a.expect_nothing();
    let slice = a.mr.slice(0..8);
    for error in [
        a.qp.post(|wr| _ = wr.send(slice)).unwrap_err(),
        a.qp.post_recv(|rq| _ = rq.recv(slice)).unwrap_err(),
    ] {
        assert_eq!(error.errno(), nix::libc::EINVAL);
        assert!(common::on_native() || matches!(error.reason, PostRefusal::State(QpState::Reset)), "{error}");
    }
    // The queues are empty: as much can be posted as at the beginning.
    b.qp.reset().unwrap();
    join(&mut a, &mut b, &common::patient());
    for id in 0..8 {
        b.post_recv(id, 0..8);
        a.post_send(id, 0..8);
    }
    for id in 0..8 {
        a.expect(id, WcStatus::Success);
        b.expect(id, WcStatus::Success);
    }
}

fn a_queue_pair_can_be_reset_and_connected_again_many_times() {
    let (mut a, mut b) = (Node::new(QpType::Rc), Node::new(QpType::Rc));
    for round in 0..300_u64 {
        join(&mut a, &mut b, &common::patient());
        for id in 0..round % 5 {
            b.post_recv(id, 0..8);
        }
        b.post_recv(9, 8..16);
        for id in 0..=round % 5 {
            a.mr.store_u64(0, round * 10 + id);
            a.post_send(id, 0..8);
            a.expect(id, WcStatus::Success);
        }
        for id in 0..round % 5 {
            b.expect(id, WcStatus::Success);
        }
        b.expect(9, WcStatus::Success);
        assert_eq!(b.mr.load_u64(8), round * 10 + round % 5);
        // In every way there is.
        if round % 3 == 0 {
            a.qp.to_error().unwrap();
        }
        if round % 2 == 0 {
            a.qp.reset().unwrap();
            b.qp.reset().unwrap();
        } else {
            b.qp.to_error().unwrap();
            b.qp.reset().unwrap();
            a.qp.reset().unwrap();
        }
    }
}

fn a_queue_pair_can_find_another_peer_after_a_reset() {
    let (mut a, mut b) = pair("rc");
    let mut c = Node::new(QpType::Rc);
    b.post_recv(1, 0..8);
    a.post_send(1, 0..8);
    a.expect(1, WcStatus::Success);
    a.qp.reset().unwrap();
    join(&mut a, &mut c, &common::patient());
    c.post_recv(2, 0..8);
    a.post_send(2, 0..8);
    a.expect(2, WcStatus::Success);
    c.expect(2, WcStatus::Success);
    b.expect(1, WcStatus::Success);
    b.expect_nothing();
}

fn resets_while_another_thread_polls_leave_the_queues_usable() {
    let (mut a, mut b) = (Node::new(QpType::Rc), Node::new(QpType::Rc));
    let stop = Arc::new(AtomicBool::new(false));
    let pollers: Vec<_> = [a.cq.clone(), b.cq.clone()]
        .into_iter()
        .map(|cq| {
            let stop = Arc::clone(&stop);
            std::thread::spawn(move || {
                let mut wcs = [WorkCompletion::default(); 4];
                while !stop.load(Ordering::Relaxed) {
                    cq.poll(&mut wcs);
                }
            })
        })
        .collect();
    let begun = common::Moment::now();
    for round in 0..500 {
        if begun.elapsed() > common::patience() / 4 {
            // On a busy machine fewer rounds must do.
            break;
        }
        join(&mut a, &mut b, &common::patient());
        for id in 0..16 {
            b.post_recv(id, 0..8);
        }
        let slice = a.mr.slice(0..8);
        // More than can be lost without the queue filling up would be refused here.
        let posted = a.qp.post(|wr| {
            for id in 0..16 {
                wr.send(slice).id(id);
            }
        });
        assert!(posted.is_ok(), "round {round}: {}", posted.unwrap_err());
        a.qp.reset().unwrap();
        b.qp.reset().unwrap();
    }
    stop.store(true, Ordering::Relaxed);
    for poller in pollers {
        poller.join().unwrap();
    }
    // All of the queue is still there.
    join(&mut a, &mut b, &common::patient());
    while !a.cq.poll(&mut [WorkCompletion::default(); 16]).is_empty() {}
    while !b.cq.poll(&mut [WorkCompletion::default(); 16]).is_empty() {}
    for id in 0..64 {
        b.post_recv(id, 0..8);
        a.post_send(id, 0..8);
    }
    for id in 0..64 {
        a.expect(id, WcStatus::Success);
        b.expect(id, WcStatus::Success);
    }
}

fn datagram_queue_pairs_flush_their_receives_too() {
    let mut a = Node::new(QpType::Ud);
    a.qp.activate_ud(7).unwrap();
    for id in 0..5 {
        a.post_recv(id, 0..64);
    }
    a.qp.to_error().unwrap();
    for id in 0..5 {
        a.expect(id, WcStatus::WrFlushErr);
    }
    a.expect_nothing();
    for id in 5..100 {
        a.post_recv(id, 0..64);
        a.expect(id, WcStatus::WrFlushErr);
    }
    a.qp.reset().unwrap();
    a.qp.activate_ud(7).unwrap();
    for id in 0..64 {
        a.post_recv(id, 0..64);
    }
    a.qp.to_error().unwrap();
    for id in 0..64 {
        a.expect(id, WcStatus::WrFlushErr);
    }
}

fn two_completion_queues_flush_their_own_half() {
    let ctx = common::open().unwrap();
    let pd = ctx.alloc_pd().unwrap();
    let (send_cq, recv_cq) = (ctx.create_cq(64).unwrap(), ctx.create_cq(64).unwrap());
    let mut qp = pd.create_qp(QpInit::rc(&send_cq).recv_cq(&recv_cq)).unwrap();
    let mut peer = Node::new(QpType::Rc);
    qp.connect_with(&peer.qp.address(), &connection(|with| with.rnr_retry = 7)).unwrap();
    peer.qp.connect_with(&qp.address(), &common::patient()).unwrap();
    qp.post_recv(|rq| _ = rq.recv_nothing().id(1)).unwrap();
    qp.post(|wr| _ = wr.send_inline(b"x").id(2)).unwrap();
    qp.to_error().unwrap();
    assert_eq!(next_of(&send_cq).wr_id, 2);
    assert_eq!(next_of(&recv_cq).wr_id, 1);
    common::expect_nothing(&send_cq);
    common::expect_nothing(&recv_cq);
}
