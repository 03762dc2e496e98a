//! Shared receive queues: many queue pairs, one queue of receives.

use crate::case::cases;
use crate::common;
use crate::common::{MEMORY, Node, connection, expect_nothing, next_event, next_of, pattern};
use std::collections::{HashMap, HashSet};
use tbrdma::{
    AsyncEvent, AsyncEventKind, Connection, EventSource, PostRefusal, QpInit, QpState, QpType, QueuePair,
    SharedReceiveQueue, WcStatus,
};

cases! {
    Srq by "InfiniBand vol. 1, 10.2.9; ibv_create_srq(3), ibv_post_srq_recv(3)" {
        messages_of_several_peers_take_receives_in_their_order: "Messages of all members take the receives in the order of posting", needs [Rc, Srq];
        receives_are_not_posted_to_a_member: "A member takes no receives of its own", by "ibv_post_recv(3)", needs [Rc, Srq];
        a_full_queue_and_a_long_list_are_refused_at_their_position: "A full shared queue, and a list that is too long, are refused at their position", needs [Rc, Srq];
        two_completion_queues_share_one_queue_and_get_their_own_messages: "A receive completes into the completion queue of the member that took it", needs [Rc, Srq];
        the_limit_event_comes_once_when_fewer_receives_are_left: "The limit event comes once when fewer receives than the limit are left", by "ibv_modify_srq(3)", needs [Rc, Srq];
        datagrams_take_from_a_shared_queue_too_and_raise_its_limit_event: "Datagrams take from a shared queue too", needs [Ud, Srq] as unacknowledged;
        a_member_in_error_reports_its_last_receive_and_leaves_the_rest_to_the_others: "A member in ERR leaves the receives to the others", needs [Rc, Srq];
        a_member_that_a_peer_breaks_reports_both: "A member that fails raises its error and Last WQE Reached", by "ibv_get_async_event(3)", needs [Rc, Srq];
        an_empty_queue_makes_senders_wait_and_a_receive_wakes_one: "An empty shared queue is receiver not ready; a receive wakes one sender", needs [Rc, Srq];
        an_empty_queue_ends_finite_retries: "An empty shared queue ends finite retries", needs [Rc, Srq];
        a_queue_may_be_of_another_domain_than_its_members: "Receives of a shared queue are judged by its own protection domain", needs [Rc, Srq];
        a_sender_that_fails_by_its_own_fault_leaves_the_receive_to_the_others: "A sender's own fault takes no receive", needs [Rc, Srq];
        what_a_member_had_received_before_its_reset_is_forgotten: "RESET of a member drops its completions", needs [Rc, Srq];
        messages_of_a_destroyed_member_free_their_receives: "The end of a member frees the places its messages took", needs [Rc, Srq];
        many_threads_send_to_one_queue_and_every_message_arrives_in_its_order: "Each sender's messages arrive in order, whoever else sends", needs [Rc, Srq];
        lent_buffers_of_a_shared_queue_come_back_with_their_completions: "Memory lent to a shared queue comes back with its completion", needs [Rc, Srq];
    }
}

const SLOT: usize = 256;

fn post(srq: &mut SharedReceiveQueue, node: &Node, id: u64) {
    let slice = node.mr.slice(id as usize * SLOT..(id as usize + 1) * SLOT);
    srq.post_recv(|rq| _ = rq.recv(slice).id(id)).unwrap();
}

/// A queue pair of `home` that takes its receives from `srq`, connected to a new node.
fn member(home: &Node, srq: &SharedReceiveQueue, with: &Connection) -> (QueuePair, Node) {
    let mut qp = home.pd.create_qp(QpInit::rc(&home.cq).srq(srq)).unwrap();
    let mut peer = Node::new(QpType::Rc);
    qp.connect_with(&peer.qp.address(), with).unwrap();
    peer.qp.connect_with(&qp.address(), with).unwrap();
    (qp, peer)
}

fn messages_of_several_peers_take_receives_in_their_order() {
    let home = Node::new(QpType::Rc);
    let mut srq = home.pd.create_srq(16, 2).unwrap();
    let mut members: Vec<_> = (0..3).map(|_| member(&home, &srq, &common::patient())).collect();
    for id in 0..12 {
        post(&mut srq, &home, id);
    }
    for id in 0..12_u64 {
        let (qp, peer) = &mut members[(id * 5 % 3) as usize];
        let bytes = pattern(id, 100);
        peer.mr.write(0, &bytes);
        peer.post_send(id, 0..100);
        peer.expect(id, WcStatus::Success);
        let wc = home.one();
        assert_eq!((wc.wr_id, wc.status, wc.byte_len), (id, WcStatus::Success, 100));
        assert_eq!(wc.qp_num, qp.qp_num());
        if common::on_shm() {
            assert_eq!(wc.src_qp, peer.qp.qp_num());
        }
        assert_eq!(home.bytes(id as usize * SLOT..id as usize * SLOT + 100), bytes);
    }
    home.expect_nothing();
}

fn receives_are_not_posted_to_a_member() {
    let home = Node::new(QpType::Rc);
    let srq = home.pd.create_srq(16, 2).unwrap();
    let (mut qp, _peer) = member(&home, &srq, &common::patient());
    let error = qp.post_recv(|rq| _ = rq.recv_nothing()).unwrap_err();
    assert!(matches!(error.reason, PostRefusal::UsesSharedReceiveQueue), "{error}");
    assert_eq!(qp.cap().max_recv_wr, 0);
}

fn a_full_queue_and_a_long_list_are_refused_at_their_position() {
    let home = Node::new(QpType::Rc);
    let mut srq = home.pd.create_srq(4, 2).unwrap();
    let depth = srq.max_wr();
    let slice = home.mr.slice(0..8);
    let error = srq.post_recv(|rq| _ = rq.recv(vec![slice; srq_sges(&home) + 1])).unwrap_err();
    assert!(matches!(error.reason, PostRefusal::WorkRequest(_)), "{error}");
    let error = srq
        .post_recv(|rq| {
            for id in 0..=u64::from(depth) {
                rq.recv(slice).id(id);
            }
        })
        .unwrap_err();
    assert_eq!(error.index, depth as usize);
    assert!(matches!(error.reason, PostRefusal::QueueFull { .. }), "{error}");
    let (_qp, mut peer) = member(&home, &srq, &common::patient());
    for id in 0..u64::from(depth) {
        peer.post_send(id, 0..8);
        peer.expect(id, WcStatus::Success);
        assert_eq!(home.one().wr_id, id);
        srq.post_recv(|rq| _ = rq.recv(slice).id(id)).unwrap();
    }
}

fn srq_sges(home: &Node) -> usize {
    home.pd.create_srq(4, 2).unwrap().max_sge() as usize
}

fn two_completion_queues_share_one_queue_and_get_their_own_messages() {
    let home = Node::new(QpType::Rc);
    let mut srq = home.pd.create_srq(64, 1).unwrap();
    let cqs: Vec<_> = (0..2).map(|_| home.ctx.create_cq(64).unwrap()).collect();
    let mut members: Vec<_> = (0..4)
        .map(|at: usize| {
            let mut qp = home.pd.create_qp(QpInit::rc(&cqs[at % 2]).srq(&srq)).unwrap();
            let mut peer = Node::new(QpType::Rc);
            qp.connect_with(&peer.qp.address(), &common::patient()).unwrap();
            peer.qp.connect_with(&qp.address(), &common::patient()).unwrap();
            (qp, peer)
        })
        .collect();
    for id in 0..64 {
        post(&mut srq, &home, id);
    }
    let mut rng = common::Rng(3);
    let mut sent = [0_u64; 4];
    let mut expected: HashMap<_, u64> = HashMap::new();
    let mut seen = 0;
    for round in 0..3000 {
        let at = rng.below(4) as usize;
        let (_, peer) = &mut members[at];
        peer.mr.store_u64(0, sent[at]);
        peer.post_send(round, 0..8);
        peer.expect(round, WcStatus::Success);
        sent[at] += 1;
        // One queue lags behind the other.
        let cq = &cqs[usize::from(rng.below(4) == 0 && round < 2990)];
        let mut wcs = [tbrdma::WorkCompletion::default(); 3];
        let mut polled = cq.poll(&mut wcs).to_vec();
        if round % 16 == 15 || round == 2999 {
            for cq in &cqs {
                let mut more = [tbrdma::WorkCompletion::default(); 64];
                polled.extend_from_slice(cq.poll(&mut more));
            }
        }
        for wc in polled {
            wc.ok().unwrap();
            let next = expected.entry(wc.qp_num).or_default();
            assert_eq!(home.mr.load_u64(wc.wr_id as usize * SLOT), *next, "the order within a queue pair");
            *next += 1;
            seen += 1;
            post(&mut srq, &home, wc.wr_id);
        }
    }
    common::eventually("all messages", || {
        let mut wcs = [tbrdma::WorkCompletion::default(); 8];
        seen += cqs[0].poll(&mut wcs).len() + cqs[1].poll(&mut wcs).len();
        seen == 3000
    });
    for (at, (qp, _)) in members.iter().enumerate() {
        let of_this = expected.get(&qp.qp_num()).copied().unwrap_or(0);
        assert!(of_this <= sent[at]);
    }
}

fn the_limit_event_comes_once_when_fewer_receives_are_left() {
    let home = Node::new(QpType::Rc);
    let mut srq = home.pd.create_srq(16, 1).unwrap();
    let (_qp, mut peer) = member(&home, &srq, &common::patient());
    let mut id = 0;
    let mut consume = |srq: &mut SharedReceiveQueue, again: bool| {
        peer.post_send(0, 0..8);
        peer.expect(0, WcStatus::Success);
        let wc = home.one();
        if again {
            post(srq, &home, wc.wr_id);
        }
        id += 1;
    };
    for id in 0..8 {
        post(&mut srq, &home, id);
    }
    let error = srq.set_limit(srq.max_wr() + 1).unwrap_err();
    assert_eq!((error.errno(), srq.limit()), (nix::libc::EINVAL, 0), "{error}");
    srq.set_limit(6).unwrap();
    assert_eq!(srq.limit(), 6);
    consume(&mut srq, false);
    consume(&mut srq, false);
    assert_eq!(home.ctx.async_events().next(Some(common::quiet())).unwrap(), None, "six are left");
    consume(&mut srq, false);
    let event = AsyncEvent {
        kind: AsyncEventKind::SrqLimitReached,
        source: EventSource::SharedReceiveQueue(srq.number()),
    };
    assert_eq!(next_event(&home.ctx), event);
    assert_eq!(srq.limit(), 0);
    consume(&mut srq, false);
    home.expect_no_event();
    // Armed again.
    for id in 0..4 {
        post(&mut srq, &home, id);
    }
    srq.set_limit(8).unwrap();
    consume(&mut srq, true);
    assert_eq!(next_event(&home.ctx), event);
    consume(&mut srq, true);
    home.expect_no_event();
}

fn datagrams_take_from_a_shared_queue_too_and_raise_its_limit_event() {
    let home = Node::new(QpType::Rc);
    let mut srq = home.pd.create_srq(16, 1).unwrap();
    let mut qps: Vec<_> = (0..2)
        .map(|_| {
            let mut qp = home.pd.create_qp(QpInit::ud(&home.cq).srq(&srq)).unwrap();
            qp.activate_ud(5).unwrap();
            qp
        })
        .collect();
    let mut sender = Node::new(QpType::Ud);
    sender.qp.activate_ud(5).unwrap();
    let ah = sender.pd.create_ah_to(&qps[0].address()).unwrap();
    for id in 0..4 {
        post(&mut srq, &home, id);
    }
    srq.set_limit(2).unwrap();
    for id in 0..4 {
        let qpn = qps[id as usize % 2].qp_num();
        let wc = common::datagram(&home.cq, || {
            sender.qp.post(|wr| _ = wr.send_inline(&[id; 7]).to(&ah, qpn, 5)).unwrap();
            sender.expect(0, WcStatus::Success);
        });
        assert_eq!((wc.wr_id, wc.qp_num, wc.byte_len), (u64::from(id), qpn, 47));
        assert_eq!(home.bytes(id as usize * SLOT + 40..id as usize * SLOT + 47), [id; 7]);
    }
    assert_eq!(next_event(&home.ctx).kind, AsyncEventKind::SrqLimitReached);
    qps.pop();
    home.expect_nothing();
}

fn a_member_in_error_reports_its_last_receive_and_leaves_the_rest_to_the_others() {
    let home = Node::new(QpType::Rc);
    let mut srq = home.pd.create_srq(16, 1).unwrap();
    let (mut qp, mut peer) = member(&home, &srq, &common::patient());
    let (_other, mut other_peer) = member(&home, &srq, &common::patient());
    for id in 0..4 {
        post(&mut srq, &home, id);
    }
    peer.post_send(0, 0..8);
    peer.expect(0, WcStatus::Success);
    qp.to_error().unwrap();
    let source = EventSource::QueuePair(qp.qp_num());
    assert_eq!(next_event(&home.ctx), AsyncEvent { kind: AsyncEventKind::QpLastWqeReached, source });
    assert_eq!(home.one().wr_id, 0);
    // No flushes: these receives are not its own.
    home.expect_nothing();
    for id in 1..4 {
        other_peer.post_send(id, 0..8);
        other_peer.expect(id, WcStatus::Success);
        assert_eq!(home.one().wr_id, id);
    }
    // Once in a life.
    home.expect_no_event();
    qp.reset().unwrap();
    qp.connect_with(&peer.qp.address(), &common::patient()).unwrap();
    qp.to_error().unwrap();
    assert_eq!(next_event(&home.ctx).kind, AsyncEventKind::QpLastWqeReached);
}

fn a_member_that_a_peer_breaks_reports_both() {
    let home = Node::new(QpType::Rc);
    let mut srq = home.pd.create_srq(16, 1).unwrap();
    let (qp, mut peer) = member(&home, &srq, &common::patient());
    post(&mut srq, &home, 0);
    post(&mut srq, &home, 1);
    peer.post_send(1, 0..SLOT + 1);
    peer.expect(1, WcStatus::RemInvReqErr);
    let wc = home.one();
    assert_eq!((wc.wr_id, wc.status, wc.qp_num), (0, WcStatus::LocLenErr, qp.qp_num()));
    let kinds: HashSet<_> = (0..2).map(|_| next_event(&home.ctx).kind).collect();
    assert_eq!(kinds, HashSet::from([AsyncEventKind::QpReqErr, AsyncEventKind::QpLastWqeReached]));
    assert_eq!(qp.state(), QpState::Err);
    let (_other, mut peer) = member(&home, &srq, &common::patient());
    peer.post_send(2, 0..8);
    peer.expect(2, WcStatus::Success);
    assert_eq!(home.one().wr_id, 1);
}

fn an_empty_queue_makes_senders_wait_and_a_receive_wakes_one() {
    let home = Node::new(QpType::Rc);
    let mut srq = home.pd.create_srq(16, 1).unwrap();
    let with = connection(|with| with.rnr_retry = 7);
    let mut members: Vec<_> = (0..5).map(|_| member(&home, &srq, &with)).collect();
    for (at, (_, peer)) in members.iter_mut().enumerate() {
        peer.mr.store_u64(0, at as u64);
        peer.post_send(9, 0..8);
    }
    home.expect_nothing();
    let mut seen = HashSet::new();
    for id in 0..5 {
        post(&mut srq, &home, id);
        // Nobody polls the senders.
        let wc = home.one();
        assert_eq!(wc.wr_id, id);
        assert!(seen.insert(home.mr.load_u64(id as usize * SLOT)));
        home.expect_nothing();
    }
    for (_, peer) in &members {
        peer.expect(9, WcStatus::Success);
    }
}

fn an_empty_queue_ends_finite_retries() {
    let home = Node::new(QpType::Rc);
    let srq = home.pd.create_srq(16, 1).unwrap();
    let (_qp, mut peer) = member(&home, &srq, &connection(|with| with.rnr_retry = 0));
    peer.post_send(1, 0..8);
    peer.expect(1, WcStatus::RnrRetryExcErr);
}

fn a_queue_may_be_of_another_domain_than_its_members() {
    let home = Node::new(QpType::Rc);
    let pd = home.ctx.alloc_pd().unwrap();
    let region = pd.alloc(4096, common::all_access()).unwrap();
    let mut srq = pd.create_srq(16, 1).unwrap();
    let (_qp, mut peer) = member(&home, &srq, &common::patient());
    let slice = region.slice(0..8);
    srq.post_recv(|rq| _ = rq.recv(slice).id(1)).unwrap();
    peer.mr.store_u64(0, 0x77);
    peer.post_send(2, 0..8);
    peer.expect(2, WcStatus::Success);
    assert_eq!(home.one().wr_id, 1);
    assert_eq!(region.load_u64(0), 0x77);
    // Memory of the member's domain does not fit the queue's.
    post(&mut srq, &home, 2);
    peer.post_send(3, 0..8);
    peer.expect(3, WcStatus::RemOpErr);
    let wc = home.one();
    assert_eq!((wc.wr_id, wc.status), (2, WcStatus::LocProtErr));
}

fn a_sender_that_fails_by_its_own_fault_leaves_the_receive_to_the_others() {
    let home = Node::new(QpType::Rc);
    let mut srq = home.pd.create_srq(16, 1).unwrap();
    let (_qp, mut bad) = member(&home, &srq, &common::patient());
    let (_other, mut good) = member(&home, &srq, &connection(|with| with.rnr_retry = 7));
    post(&mut srq, &home, 3);
    let beyond = bad.mr.slice(MEMORY..MEMORY + 8);
    bad.qp.post(|wr| _ = wr.send(beyond).id(1)).unwrap();
    bad.expect(1, WcStatus::LocProtErr);
    home.expect_nothing();
    good.post_send(2, 0..8);
    good.expect(2, WcStatus::Success);
    let wc = home.one();
    assert_eq!((wc.wr_id, wc.status), (3, WcStatus::Success));
    home.expect_nothing();
}

fn what_a_member_had_received_before_its_reset_is_forgotten() {
    let home = Node::new(QpType::Rc);
    let mut srq = home.pd.create_srq(16, 1).unwrap();
    let (mut qp, mut peer) = member(&home, &srq, &common::patient());
    for id in 0..16 {
        post(&mut srq, &home, id);
    }
    // Eight messages, of which two are polled.
    for id in 0..8 {
        peer.post_send(id, 0..8);
        peer.expect(id, WcStatus::Success);
    }
    assert_eq!((home.one().wr_id, home.one().wr_id), (0, 1));
    qp.reset().unwrap();
    peer.qp.reset().unwrap();
    qp.connect_with(&peer.qp.address(), &common::patient()).unwrap();
    peer.qp.connect_with(&qp.address(), &common::patient()).unwrap();
    for id in 8..16 {
        peer.mr.store_u64(0, id);
        peer.post_send(id, 0..8);
        peer.expect(id, WcStatus::Success);
    }
    for id in 8..16 {
        let wc = home.one();
        assert_eq!((wc.wr_id, wc.status), (id, WcStatus::Success));
        assert_eq!(home.mr.load_u64(id as usize * SLOT), id);
    }
    home.expect_nothing();
    // The whole queue can be used again.
    for id in 0..16 {
        post(&mut srq, &home, id);
    }
}

fn messages_of_a_destroyed_member_free_their_receives() {
    let home = Node::new(QpType::Rc);
    let mut srq = home.pd.create_srq(8, 1).unwrap();
    let (qp, mut peer) = member(&home, &srq, &common::patient());
    let (_other, mut other) = member(&home, &srq, &common::patient());
    for id in 0..8 {
        post(&mut srq, &home, id);
    }
    for id in 0..4 {
        peer.post_send(id, 0..8);
        peer.expect(id, WcStatus::Success);
    }
    drop(qp);
    for id in 4..8 {
        other.post_send(id, 0..8);
        other.expect(id, WcStatus::Success);
        assert_eq!(home.one().wr_id, id);
    }
    expect_nothing(&home.cq);
    for id in 0..8 {
        post(&mut srq, &home, id);
    }
}

fn many_threads_send_to_one_queue_and_every_message_arrives_in_its_order() {
    const SENDERS: u64 = 4;
    const EACH: u64 = 3000;
    let home = Node::new(QpType::Rc);
    let mut srq = home.pd.create_srq(64, 1).unwrap();
    for id in 0..64 {
        post(&mut srq, &home, id);
    }
    let with = connection(|with| {
        with.rnr_retry = 7;
        with.min_rnr_timer = 1;
    });
    let mut qps = Vec::new();
    let senders: Vec<_> = (0..SENDERS)
        .map(|_| {
            let (qp, mut peer) = member(&home, &srq, &with);
            qps.push(qp);
            std::thread::spawn(move || {
                for number in 0..EACH {
                    peer.qp.post(|wr| _ = wr.send_inline(&number.to_ne_bytes()).id(number)).unwrap();
                    let wc = next_of(&peer.cq);
                    assert_eq!((wc.wr_id, wc.status), (number, WcStatus::Success));
                }
            })
        })
        .collect();
    let mut next: HashMap<_, u64> = HashMap::new();
    for _ in 0..SENDERS * EACH {
        let wc = home.one();
        wc.ok().unwrap();
        let next = next.entry(wc.qp_num).or_default();
        assert_eq!(home.mr.load_u64(wc.wr_id as usize * SLOT), *next);
        *next += 1;
        post(&mut srq, &home, wc.wr_id);
    }
    for sender in senders {
        sender.join().unwrap();
    }
    home.expect_nothing();
}

fn lent_buffers_of_a_shared_queue_come_back_with_their_completions() {
    let home = Node::new(QpType::Rc);
    let mut srq = home.pd.create_srq(8, 1).unwrap();
    let (_qp, mut peer) = member(&home, &srq, &connection(|with| with.rnr_retry = 7));
    let (_bad_qp, mut bad) = member(&home, &srq, &common::patient());
    for id in 0..3 {
        let buffer = home.pd.alloc_buffer(64).unwrap();
        srq.post_recv(|rq| _ = rq.recv_buffer(buffer).id(id)).unwrap();
    }
    // This one wanders to the end of the queue.
    let beyond = bad.mr.slice(MEMORY..MEMORY + 8);
    bad.qp.post(|wr| _ = wr.send(beyond).id(1)).unwrap();
    bad.expect(1, WcStatus::LocProtErr);
    home.expect_nothing();
    // Forged: nothing has completed.
    for wq_index in 0..8 {
        let forged = tbrdma::WorkCompletion { wq_index, ..tbrdma::WorkCompletion::default() };
        assert!(srq.take_buffer(&forged).is_none(), "a buffer that the device still has");
    }
    let mut ids = HashSet::new();
    for number in 0..3_u8 {
        peer.qp.post(|wr| _ = wr.send_inline(&[number + 1; 10]).id(2)).unwrap();
        peer.expect(2, WcStatus::Success);
        let wc = home.one();
        wc.ok().unwrap();
        let buffer = srq.take_buffer(&wc).expect("the buffer of a completed receive");
        assert_eq!(buffer[..11], [&[number + 1; 10][..], &[0]].concat());
        assert!(srq.take_buffer(&wc).is_none());
        assert!(ids.insert(wc.wr_id));
    }
}
