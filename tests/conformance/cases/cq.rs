//! Completion queues: one or two for a queue pair, hundreds of queue pairs on one, tiny polls, many pollers.

use crate::case::cases;
use crate::common;
use crate::common::{Node, expect_nothing, join, next_event, next_of, pair, pair_shaped};
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tbrdma::{AsyncEvent, AsyncEventKind, EventSource, QpInit, QpType, QueuePair, WcStatus, WorkCompletion};

cases! {
    Completions by "InfiniBand vol. 1, 11.4.2.1; ibv_create_cq(3), ibv_poll_cq(3)" {
        sends_and_receives_may_complete_into_different_queues: "Sends and receives may complete into different queues", needs [Rc];
        hundreds_of_queue_pairs_on_one_queue_lose_nothing_and_keep_their_order: "Any number of queue pairs may share a queue: each keeps its order, and nothing is lost", needs [Rc];
        tiny_polls_of_busy_queue_pairs_starve_nobody: "A completion is polled however busy the other queue pairs of its queue are", needs [Rc];
        polls_of_every_size_return_everything_once: "A poll returns at most as many as it was given room for, and each once", needs [Rc];
        a_full_completion_queue_loses_completions_and_says_so_once:
            "A completion more than a queue has room for is lost, and an event says so", by "InfiniBand vol. 1, 11.6.3; ibv_get_async_event(3)", needs [Rc, CqOverrun];
        many_threads_may_poll_one_queue: "Threads that poll one queue share its completions among them", needs [Rc];
    }
    Objects by "ibv_destroy_qp(3)" {
        a_destroyed_queue_pair_takes_its_completions_with_it: "The completions of a destroyed queue pair are not polled any more", needs [Rc];
        queue_pairs_come_and_go_on_one_queue: "Queue pairs may come and go on one completion queue", needs [Rc];
    }
}

fn sends_and_receives_may_complete_into_different_queues() {
    let ctx = common::open().unwrap();
    let (send_cq, recv_cq) = (ctx.create_cq(16).unwrap(), ctx.create_cq(16).unwrap());
    let mut a = Node::of(&ctx, QpType::Rc, |init| init);
    a.qp = a.pd.create_qp(QpInit::rc(&send_cq).recv_cq(&recv_cq)).unwrap();
    let mut b = Node::new(QpType::Rc);
    join(&mut a, &mut b, &common::patient());
    for round in 0..100 {
        a.post_recv(round, 0..8);
        b.post_recv(round, 0..8);
        a.post_send(1000 + round, 0..8);
        b.post_send(2000 + round, 0..8);
        assert_eq!(next_of(&send_cq).wr_id, 1000 + round);
        assert_eq!(next_of(&recv_cq).wr_id, round);
        expect_nothing_now(&send_cq);
        expect_nothing_now(&recv_cq);
        b.take(2);
    }
    assert_eq!(*a.qp.send_cq(), send_cq);
    assert_eq!(*a.qp.recv_cq(), recv_cq);
    assert_ne!(send_cq.number(), recv_cq.number());
}

fn expect_nothing_now(cq: &tbrdma::CompletionQueue) {
    assert!(cq.poll(&mut [WorkCompletion::default(); 4]).is_empty());
}

/// `count` queue pairs of one context, each connected to one of another, all of a side on one completion queue.
fn crowd(count: usize) -> (Node, Node, Vec<QueuePair>, Vec<QueuePair>) {
    let (a, b) = (Node::new(QpType::Rc), Node::new(QpType::Rc));
    let make = |node: &Node| node.pd.create_qp(QpInit::rc(&node.cq).max_send_wr(16).max_recv_wr(16)).unwrap();
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for _ in 0..count {
        let (mut x, mut y) = (make(&a), make(&b));
        x.connect_with(&y.address(), &common::patient()).unwrap();
        y.connect_with(&x.address(), &common::patient()).unwrap();
        ours.push(x);
        theirs.push(y);
    }
    (a, b, ours, theirs)
}

fn receive(qp: &mut QueuePair, node: &Node, id: u64) {
    let slice = node.mr.slice(id as usize * 8..id as usize * 8 + 8);
    qp.post_recv(|rq| _ = rq.recv(slice).id(id)).unwrap();
}

fn hundreds_of_queue_pairs_on_one_queue_lose_nothing_and_keep_their_order() {
    const QPS: usize = 300;
    let (a, b, mut ours, mut theirs) = crowd(QPS);
    let index: HashMap<_, _> = theirs.iter().enumerate().map(|(at, qp)| (qp.qp_num(), at)).collect();
    let mut rng = common::Rng(11);
    for (at, qp) in theirs.iter_mut().enumerate() {
        for step in 0..4 {
            receive(qp, &b, (at * 4 + step) as u64);
        }
    }
    let mut seen = [0_u64; QPS];
    for round in 0..6_u64 {
        // Round robin, and in between a few that are much busier than the rest.
        for at in 0..QPS {
            let at = if round % 3 == 2 { rng.below(6) as usize * (at % 2) + at * (1 - at % 2) } else { at };
            let number = at as u64;
            ours[at].post(|wr| _ = wr.send_inline(&number.to_ne_bytes()).id(number)).unwrap();
            // As soon as it has arrived the receive is posted again, so that none runs out of them.
            let sent = a.one();
            assert_eq!(
                (sent.wr_id, sent.status, sent.qp_num),
                (number, WcStatus::Success, ours[at].qp_num())
            );
            if rng.below(3) == 0 || round % 3 == 2 {
                let mut wcs = [WorkCompletion::default(); 7];
                for wc in b.cq.poll(&mut wcs) {
                    settle(wc, &index, &mut seen, &mut theirs, &b);
                }
            }
        }
        let total = u64::from(round as u32 + 1) * QPS as u64;
        common::eventually("every message of the round", || {
            let mut wcs = [WorkCompletion::default(); 16];
            for wc in b.cq.poll(&mut wcs) {
                settle(wc, &index, &mut seen, &mut theirs, &b);
            }
            seen.iter().sum::<u64>() == total
        });
    }
    expect_nothing(&a.cq);
    expect_nothing(&b.cq);
}

fn settle(
    wc: &WorkCompletion,
    index: &HashMap<tbrdma::Qpn, usize>,
    seen: &mut [u64],
    theirs: &mut [QueuePair],
    b: &Node,
) {
    wc.ok().unwrap();
    let at = index[&wc.qp_num];
    assert_eq!(wc.wr_id, at as u64 * 4 + seen[at] % 4, "the order within queue pair {at}");
    assert_eq!(b.mr.load_u64(wc.wr_id as usize * 8), at as u64);
    seen[at] += 1;
    receive(&mut theirs[at], b, wc.wr_id);
}

fn tiny_polls_of_busy_queue_pairs_starve_nobody() {
    // More busy queue pairs than a poll returns completions, kept busy for ever, and one that has a single completion.
    let (a, b, mut ours, mut theirs) = crowd(12);
    for (at, qp) in theirs.iter_mut().enumerate() {
        for _ in 0..if at == 11 { 1 } else { 8 } {
            receive(qp, &b, at as u64);
        }
    }
    let index: HashMap<_, _> = theirs.iter().enumerate().map(|(at, qp)| (qp.qp_num(), at)).collect();
    let send = |qp: &mut QueuePair, cq: &tbrdma::CompletionQueue| {
        qp.post(|wr| _ = wr.send_inline(b"x")).unwrap();
        next_of(cq).ok().unwrap();
    };
    // The busy ones have been busy for a while.
    for _ in 0..50 {
        for qp in &mut ours[..11] {
            send(qp, &a.cq);
            let wc = next_of(&b.cq);
            receive(&mut theirs[index[&wc.qp_num]], &b, wc.wr_id);
        }
    }
    for _ in 0..6 {
        for qp in &mut ours[..11] {
            send(qp, &a.cq);
        }
    }
    send(&mut ours[11], &a.cq);
    for turn in 0..20_000 {
        let wc = next_of(&b.cq);
        let at = index[&wc.qp_num];
        if at == 11 {
            assert!(turn < 10_000, "polled only after {turn} others");
            return;
        }
        receive(&mut theirs[at], &b, wc.wr_id);
        send(&mut ours[at], &a.cq);
    }
    panic!("a completion was never polled beside others that kept coming");
}

fn polls_of_every_size_return_everything_once() {
    let (mut a, mut b) = pair_shaped("rc", |init| init.max_send_wr(64).max_recv_wr(64));
    for size in 0..10 {
        for id in 0..60 {
            b.post_recv(id, 0..8);
            a.post_send(id, 0..8);
        }
        let mut wcs = vec![WorkCompletion::default(); size];
        if size == 0 {
            assert!(a.cq.poll(&mut wcs).is_empty());
            a.take(60);
            b.take(60);
            continue;
        }
        for cq in [&a.cq, &b.cq] {
            let mut next = 0;
            common::eventually("sixty completions", || {
                for wc in cq.poll(&mut wcs) {
                    assert_eq!((wc.wr_id, wc.status), (next, WcStatus::Success));
                    next += 1;
                }
                next == 60
            });
            expect_nothing_now(cq);
        }
    }
}

fn a_destroyed_queue_pair_takes_its_completions_with_it() {
    for round in 0..100 {
        let (mut a, mut b) = pair("rc");
        let mut other = a.pd.create_qp(QpInit::rc(&a.cq)).unwrap();
        other.connect_with(&other.address(), &common::patient()).unwrap();
        for id in 0..8 {
            b.post_recv(id, 0..8);
            a.post_send(id, 0..8);
        }
        a.expect(0, WcStatus::Success);
        for id in 0..8 {
            b.expect(id, WcStatus::Success);
        }
        let Node { qp, mr, cq, pd, ctx } = a;
        drop(qp);
        expect_nothing_now(&cq);
        // What others have in the queue stays.
        other.post_recv(|rq| _ = rq.recv_nothing().id(round)).unwrap();
        other.post(|wr| _ = wr.send_inline(b"").id(round)).unwrap();
        assert_eq!((next_of(&cq).wr_id, next_of(&cq).wr_id), (round, round));
        drop((mr, pd, ctx));
    }
}

fn queue_pairs_come_and_go_on_one_queue() {
    let home = Node::new(QpType::Rc);
    let mut alive: Vec<(QueuePair, u64)> = Vec::new();
    let mut rng = common::Rng(5);
    for step in 0..2000_u64 {
        if alive.len() < 20 && rng.below(2) == 0 {
            let mut qp = home.pd.create_qp(QpInit::rc(&home.cq)).unwrap();
            qp.connect_with(&qp.address(), &common::patient()).unwrap();
            alive.push((qp, step));
        } else if !alive.is_empty() {
            let at = rng.below(alive.len() as u64) as usize;
            let (qp, id) = &mut alive[at];
            qp.post_recv(|rq| _ = rq.recv_nothing().id(*id)).unwrap();
            qp.post(|wr| _ = wr.send_inline(b"").id(*id)).unwrap();
            if rng.below(3) == 0 {
                // Destroyed with two completions in the queue.
                alive.swap_remove(at);
            } else {
                for _ in 0..2 {
                    let wc = next_of(&home.cq);
                    assert_eq!((wc.wr_id, wc.status, wc.qp_num), (*id, WcStatus::Success, qp.qp_num()));
                }
            }
            expect_nothing_now(&home.cq);
        }
    }
}

fn many_threads_may_poll_one_queue() {
    const MESSAGES: u64 = 8000;
    let (a, b, mut ours, mut theirs) = crowd(6);
    for (at, qp) in theirs.iter_mut().enumerate() {
        for _ in 0..16 {
            receive(qp, &b, at as u64);
        }
    }
    let received: Arc<Vec<AtomicU64>> = Arc::new((0..6).map(|_| AtomicU64::new(0)).collect());
    let total = Arc::new(AtomicU64::new(0));
    let pollers: Vec<_> = (0..4)
        .map(|_| {
            let (cq, received, total) = (b.cq.clone(), Arc::clone(&received), Arc::clone(&total));
            std::thread::spawn(move || {
                let mut wcs = [WorkCompletion::default(); 3];
                let begun = common::Moment::now();
                while total.load(Ordering::Acquire) < MESSAGES {
                    assert!(begun.elapsed() < common::patience() * 3, "messages are missing");
                    for wc in cq.poll(&mut wcs) {
                        wc.ok().unwrap();
                        received[wc.wr_id as usize].fetch_add(1, Ordering::AcqRel);
                        total.fetch_add(1, Ordering::AcqRel);
                    }
                }
            })
        })
        .collect();
    // This thread posts receives for what the others have polled, and sends.
    let (mut sent, mut posted) = ([0_u64; 6], [16_u64; 6]);
    let mut at = 0;
    while sent.iter().sum::<u64>() < MESSAGES {
        at = (at + 1) % 6;
        let polled = received[at].load(Ordering::Acquire);
        while posted[at] < polled + 16 {
            receive(&mut theirs[at], &b, at as u64);
            posted[at] += 1;
        }
        if sent[at] < posted[at] {
            ours[at].post(|wr| _ = wr.send_inline(b"x")).unwrap();
            next_of(&a.cq).ok().unwrap();
            sent[at] += 1;
        }
    }
    for poller in pollers {
        poller.join().unwrap();
    }
    for at in 0..6 {
        assert_eq!(received[at].load(Ordering::Acquire), sent[at]);
    }
    expect_nothing(&b.cq);
}

fn a_full_completion_queue_loses_completions_and_says_so_once() {
    let (mut a, mut b) = (Node::new(QpType::Rc), Node::new(QpType::Rc));
    let small = b.ctx.create_cq(4).unwrap();
    b.qp = b.pd.create_qp(QpInit::rc(&b.cq).recv_cq(&small)).unwrap();
    join(&mut a, &mut b, &common::patient());
    for id in 0..16 {
        b.post_recv(id, 0..8);
    }
    for id in 0..16 {
        a.post_send(id, 0..8);
        a.expect(id, WcStatus::Success);
    }
    let source = EventSource::CompletionQueue(small.number());
    assert_eq!(next_event(&b.ctx), AsyncEvent { kind: AsyncEventKind::CqErr, source });
    let mut wcs = [WorkCompletion::default(); 16];
    let kept: Vec<u64> = small.poll(&mut wcs).iter().map(|wc| wc.wr_id).collect();
    assert_eq!(kept, [0, 1, 2, 3]);
    b.expect_no_event();
}
