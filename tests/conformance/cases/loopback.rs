//! A queue pair connected to itself, and two queue pairs of one context with each other.

use crate::case::cases;
use crate::common;
use crate::common::{Node, connection, join, pattern};
use tbrdma::{AsyncEventKind, Connection, QpInit, QpState, QpType, WcStatus};

cases! {
    Rc by "InfiniBand vol. 1, 9.4; ibv_modify_qp(3)" {
        a_queue_pair_connected_to_itself_does_everything: "A queue pair connected to itself does every operation", needs [Rc, Atomics];
        thousands_of_messages_to_itself: "Thousands of messages of a queue pair to itself arrive once and in order", needs [Rc];
        two_queue_pairs_on_one_completion_queue_answer_each_other: "Two queue pairs of one context on one completion queue answer each other", needs [Rc];
        overlapping_copies_within_one_region_stay_inside_it: "A WRITE whose source and target overlap touches nothing outside the target", needs [Rc];
    }
    Errors by "InfiniBand vol. 1, 10.3.1 and 9.7.5.2.8" {
        it_waits_for_its_own_receives: "A queue pair connected to itself waits for its own receive", needs [Rc];
        its_own_violation_ends_it_once: "A violation of its own memory ends it, once", needs [Rc];
        a_violation_does_not_outlive_its_connection: "RESET ends what an error has begun", needs [Rc];
    }
    Uc by "InfiniBand vol. 1, 9.8.2" {
        unreliable_connections_reach_themselves: "An unreliable queue pair connected to itself reaches its own receives, or drops", needs [Uc] as unacknowledged;
    }
}

fn itself(qp_type: QpType, with: &Connection) -> Node {
    let mut node = Node::new(qp_type);
    node.qp.connect_with(&node.qp.address(), with).unwrap();
    node
}

fn a_queue_pair_connected_to_itself_does_everything() {
    let mut a = itself(QpType::Rc, &common::patient());
    let bytes = pattern(1, 64);
    a.mr.write(0, &bytes);
    a.mr.store_u64(800, 40);
    a.post_recv(1, 100..200);
    a.qp.post_recv(|rq| _ = rq.recv_nothing().id(2)).unwrap();
    let (slice, word, to) = (a.mr.slice(0..64), a.mr.slice(808..816), a.mr.slice(600..664));
    let remote = a.mr.remote();
    a.qp.post(|wr| {
        wr.send(slice).id(10);
        wr.write(slice, remote.at(300)).id(11);
        wr.write_with_imm(slice, remote.at(400), 9).id(12);
        wr.read(to, remote.at(0)).id(13);
        wr.fetch_and_add(word, remote.at(800), 2).id(14);
    })
    .unwrap();
    let mut ids: Vec<_> = a.take(7).iter().map(|wc| wc.ok().unwrap().wr_id).collect();
    ids.sort_unstable();
    assert_eq!(ids, [1, 2, 10, 11, 12, 13, 14]);
    for at in [100, 300, 400, 600] {
        assert_eq!(a.bytes(at..at + 64), bytes);
    }
    assert_eq!((a.mr.load_u64(800), a.mr.load_u64(808)), (42, 40));
}

fn it_waits_for_its_own_receives() {
    let mut a = itself(QpType::Rc, &connection(|with| with.rnr_retry = 7));
    a.post_send(1, 0..8);
    a.expect_nothing();
    a.post_recv(2, 8..16);
    let mut ids: Vec<_> = a.take(2).iter().map(|wc| wc.ok().unwrap().wr_id).collect();
    ids.sort_unstable();
    assert_eq!(ids, [1, 2]);
}

/// The answer, or ERR at the responder, which here is the requester too and flushes what waits for the answer.
fn is_violation(status: WcStatus) -> bool {
    [WcStatus::RemAccessErr, WcStatus::WrFlushErr].contains(&status)
}

fn its_own_violation_ends_it_once() {
    let mut a = itself(QpType::Rc, &common::patient());
    a.post_recv(1, 0..8);
    let (slice, mut remote) = (a.mr.slice(0..8), a.mr.remote().at(0));
    remote.rkey ^= 1;
    a.qp.post(|wr| _ = wr.write(slice, remote).id(2)).unwrap();
    let mut ends: Vec<_> = a.take(2).iter().map(|wc| (wc.wr_id, wc.status)).collect();
    ends.sort_unstable();
    assert_eq!((ends[0], ends[1].0), ((1, WcStatus::WrFlushErr), 2));
    assert!(is_violation(ends[1].1), "{ends:?}");
    assert_eq!(a.qp.state(), QpState::Err);
    a.expect_nothing();
    // Both ends are the same queue pair, so it may or may not still be there to be told.
    while let Some(event) = a.ctx.async_events().try_next() {
        assert_eq!(event.kind, AsyncEventKind::QpAccessErr);
    }
    a.qp.reset().unwrap();
    a.qp.connect_with(&a.qp.address(), &common::patient()).unwrap();
    a.post_recv(3, 0..8);
    a.post_send(4, 0..8);
    for wc in a.take(2) {
        wc.ok().unwrap();
    }
}

fn unreliable_connections_reach_themselves() {
    let _alone = common::alone();
    let mut a = itself(QpType::Uc, &common::patient());
    a.post_send(1, 0..8);
    a.expect(1, WcStatus::Success);
    a.post_recv(2, 8..16);
    a.post_send(3, 0..8);
    let mut ids: Vec<_> = a.take(2).iter().map(|wc| wc.ok().unwrap().wr_id).collect();
    ids.sort_unstable();
    assert_eq!(ids, [2, 3]);
}

fn thousands_of_messages_to_itself() {
    let mut a = itself(QpType::Rc, &common::patient());
    let slices = [a.mr.slice(0..8), a.mr.slice(8..16)];
    for round in 0..3000 {
        a.mr.store_u64(0, round);
        a.qp.post_recv(|rq| _ = rq.recv(slices[1]).id(round)).unwrap();
        a.qp.post(|wr| _ = wr.send(slices[0]).unsignaled()).unwrap();
        a.expect(round, WcStatus::Success);
        assert_eq!(a.mr.load_u64(8), round);
        if round % 16 == 15 {
            a.qp.post(|wr| _ = wr.write(slices[0], a.mr.remote().at(16)).id(round)).unwrap();
            a.expect(round, WcStatus::Success);
        }
    }
}

fn two_queue_pairs_on_one_completion_queue_answer_each_other() {
    let ctx = common::open().unwrap();
    let (mut a, mut b) = (Node::of(&ctx, QpType::Rc, |init| init), Node::of(&ctx, QpType::Rc, |init| init));
    b.qp = b.pd.create_qp(QpInit::rc(&a.cq)).unwrap();
    join(&mut a, &mut b, &common::patient());
    for round in 0..2000_u64 {
        a.post_recv(round, 0..8);
        b.post_recv(round, 0..8);
        a.mr.store_u64(8, round);
        a.post_send(1_000_000 + round, 8..16);
        let mut wcs = a.take(2);
        wcs.sort_by_key(|wc| wc.wr_id);
        assert_eq!((wcs[0].wr_id, wcs[0].qp_num), (round, b.qp.qp_num()));
        assert_eq!((wcs[1].wr_id, wcs[1].qp_num), (1_000_000 + round, a.qp.qp_num()));
        b.post_send(2_000_000 + round, 0..8);
        let mut wcs = a.take(2);
        wcs.sort_by_key(|wc| wc.wr_id);
        assert_eq!((wcs[0].wr_id, wcs[0].qp_num), (round, a.qp.qp_num()));
        assert_eq!((wcs[1].wr_id, wcs[1].qp_num), (2_000_000 + round, b.qp.qp_num()));
        assert_eq!(a.mr.load_u64(0), round);
    }
}

fn overlapping_copies_within_one_region_stay_inside_it() {
    let mut a = itself(QpType::Rc, &common::patient());
    a.fill(0..4096, 1);
    a.fill(100..1100, 2);
    // What lies in the overlap is undefined, as on hardware; what lies outside is not.
    let (slice, remote) = (a.mr.slice(100..1100), a.mr.remote().at(150));
    a.qp.post(|wr| _ = wr.write(slice, remote).id(1)).unwrap();
    a.expect(1, WcStatus::Success);
    assert!(a.bytes(0..100).iter().all(|byte| *byte == 1));
    assert!(a.bytes(100..1150).iter().all(|byte| *byte == 2));
    assert!(a.bytes(1150..4096).iter().all(|byte| *byte == 1));
}

fn a_violation_does_not_outlive_its_connection() {
    // The service thread learns of the violation at some time: before, during or after the reset.
    let mut a = itself(QpType::Rc, &common::patient());
    let (slice, mut remote) = (a.mr.slice(0..8), a.mr.remote().at(0));
    remote.rkey ^= 1;
    for round in 0..1500 {
        a.qp.post(|wr| _ = wr.write(slice, remote).id(1)).unwrap();
        let wc = a.one();
        assert!(wc.wr_id == 1 && is_violation(wc.status), "{wc:?}");
        for _ in 0..round % 50 * 40 {
            std::hint::spin_loop();
        }
        a.qp.reset().unwrap();
        a.qp.connect_with(&a.qp.address(), &common::patient()).unwrap();
        assert_eq!(a.qp.state(), QpState::Rts, "round {round}");
    }
    a.expect_nothing();
    assert_eq!(a.qp.state(), QpState::Rts);
}
