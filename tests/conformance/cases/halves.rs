//! The two halves of a queue pair on two threads, both directions at full speed, every byte checked.

use crate::case::cases;
use crate::common;
use crate::common::{Node, Rng, connection, next_of, pattern};
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tbrdma::{
    CompletionQueue, MemoryRegion, QpInit, QpState, QpType, ReceiveQueue, SendQueue, WcStatus, WorkCompletion,
};

cases! {
    Rc by "InfiniBand vol. 1, 10.2.4; verbs are thread safe: ibv_post_send(3)" {
        four_threads_exchange_messages_between_two_contexts:
            "The send queue and the receive queue of a queue pair are independent: four threads, every byte checked", needs [Rc];
        four_threads_exchange_messages_within_one_context: "The same between two queue pairs of one context", needs [Rc];
        writes_and_sends_may_go_on_while_receives_are_posted_elsewhere:
            "Receives may be posted by one thread while another sends and a third polls", needs [Rc];
    }
    Objects by "ibv_destroy_qp(3)" {
        the_queue_pair_lives_until_both_halves_are_gone: "A queue pair lives as long as a half of it is held, and then answers no more", needs [Rc];
    }
}

const MESSAGES: u64 = 20_000;
const DEPTH: u64 = 32;
const SLOT: usize = 512;

/// Sends numbered messages of many sizes, some inline, some unsignaled.
fn sender(mut queue: SendQueue, mr: MemoryRegion, cq: CompletionQueue, seed: u64) -> SendQueue {
    let mut rng = Rng(seed);
    let mut outstanding = VecDeque::new();
    let (mut posted, mut retired) = (0, 0);
    while retired < MESSAGES {
        if posted < MESSAGES && posted - retired < DEPTH {
            let len = 8 + rng.below(SLOT as u64 - 8) as usize;
            let at = (posted % DEPTH) as usize * SLOT;
            let bytes = message(seed, posted, len);
            // A third is unsignaled, but never the last that fits.
            let silent = rng.below(3) == 0 && posted - retired < DEPTH - 2 && posted + 1 < MESSAGES;
            queue
                .post(|wr| {
                    let wr = if len <= 64 {
                        wr.send_inline(&bytes)
                    } else {
                        mr.write(at, &bytes);
                        wr.send(mr.slice(at..at + len))
                    };
                    let wr = wr.id(posted);
                    _ = if silent { wr.unsignaled() } else { wr };
                })
                .unwrap();
            if !silent {
                outstanding.push_back(posted);
            }
            posted += 1;
        } else {
            let wc = next_of(&cq);
            assert_eq!((wc.wr_id, wc.status), (outstanding.pop_front().unwrap(), WcStatus::Success));
            retired = wc.wr_id + 1;
        }
    }
    queue
}

/// Receives and checks them.
fn receiver(mut queue: ReceiveQueue, mr: MemoryRegion, cq: CompletionQueue, seed: u64) -> ReceiveQueue {
    let post = |queue: &mut ReceiveQueue, id: u64| {
        let at = (id % DEPTH) as usize * SLOT;
        queue.post_recv(|rq| _ = rq.recv(mr.slice(at..at + SLOT)).id(id)).unwrap();
    };
    for id in 0..DEPTH {
        post(&mut queue, id);
    }
    let mut bytes = [0; SLOT];
    for id in 0..MESSAGES {
        let wc = next_of(&cq);
        assert_eq!((wc.wr_id, wc.status), (id, WcStatus::Success));
        let len = wc.byte_len as usize;
        mr.read((id % DEPTH) as usize * SLOT, &mut bytes[..len]);
        assert!(bytes[..len] == message(seed, id, len), "message {id} of {len} bytes is damaged");
        post(&mut queue, id + DEPTH);
    }
    queue
}

fn message(seed: u64, number: u64, len: usize) -> Vec<u8> {
    pattern(seed.wrapping_mul(0x1_0001) + number, len)
}

fn exchange(same_context: bool) {
    let with = connection(|with| {
        with.rnr_retry = 7;
        with.min_rnr_timer = 1;
    });
    let ctx = common::open().unwrap();
    let other = common::open().unwrap();
    let make = |ctx: &tbrdma::Context| {
        let node = Node::of(ctx, QpType::Rc, |init| init);
        let recv_cq = ctx.create_cq(64).unwrap();
        let recv_mr = node.pd.alloc(DEPTH as usize * SLOT, common::all_access()).unwrap();
        let init = QpInit::rc(&node.cq).recv_cq(&recv_cq).max_send_wr(DEPTH as u32).max_recv_wr(DEPTH as u32);
        let qp = node.pd.create_qp(init).unwrap();
        (Node { qp, ..node }, recv_cq, recv_mr)
    };
    let (mut a, a_cq, a_mr) = make(&ctx);
    let (mut b, b_cq, b_mr) = make(if same_context { &ctx } else { &other });
    common::join(&mut a, &mut b, &with);
    let ((a_send, a_recv), (b_send, b_recv)) = (a.qp.split(), b.qp.split());
    let (a_send_mr, a_send_cq, b_send_mr, b_send_cq) = (a.mr, a.cq, b.mr, b.cq);
    let threads = [
        std::thread::spawn(move || drop(receiver(a_recv, a_mr, a_cq, 2))),
        std::thread::spawn(move || drop(receiver(b_recv, b_mr, b_cq, 1))),
        std::thread::spawn(move || drop(sender(a_send, a_send_mr, a_send_cq, 1))),
        std::thread::spawn(move || drop(sender(b_send, b_send_mr, b_send_cq, 2))),
    ];
    for thread in threads {
        thread.join().unwrap();
    }
}

fn four_threads_exchange_messages_between_two_contexts() {
    exchange(false);
}

fn four_threads_exchange_messages_within_one_context() {
    exchange(true);
}

fn writes_and_sends_may_go_on_while_receives_are_posted_elsewhere() {
    // One queue of completions for both halves, polled by a third thread.
    // The thread that posts receives may have to wait for a core.
    let with = connection(|with| with.rnr_retry = 7);
    let (a, mut b) = common::pair_with("rc", |init| init, &with);
    let stop = Arc::new(AtomicBool::new(false));
    let (mut send, mut recv) = a.qp.split();
    let poster = {
        let stop = Arc::clone(&stop);
        std::thread::spawn(move || {
            let mut posted = 0_u64;
            while !stop.load(Ordering::Relaxed) {
                match recv.post_recv(|rq| _ = rq.recv_nothing().id(posted)) {
                    Ok(()) => posted += 1,
                    Err(error) => {
                        assert!(matches!(error.reason, tbrdma::PostRefusal::QueueFull { .. }), "{error}");
                        std::thread::yield_now();
                    }
                }
            }
            (recv, posted)
        })
    };
    let remote = b.mr.remote().at(0);
    let (mut received, mut sent, mut acknowledged) = (0, 0, 0);
    let mut settle = |a_cq: &CompletionQueue, b_cq: &CompletionQueue| {
        let mut wcs = [WorkCompletion::default(); 4];
        for wc in a_cq.poll(&mut wcs) {
            wc.ok().unwrap();
            let next = if wc.opcode.is_recv() { &mut received } else { &mut sent };
            assert_eq!(wc.wr_id, *next);
            *next += 1;
        }
        for wc in b_cq.poll(&mut wcs) {
            assert_eq!((wc.wr_id, wc.status), (acknowledged * 16 + 15, WcStatus::Success));
            acknowledged += 1;
        }
        (received, sent, acknowledged)
    };
    for round in 0..5000_u64 {
        send.post(|wr| _ = wr.write_inline(&round.to_ne_bytes(), remote).id(round)).unwrap();
        b.qp.post(|wr| {
            let wr = wr.send_inline(b"").id(round);
            _ = if round % 16 == 15 { wr } else { wr.unsignaled() };
        })
        .unwrap();
        common::eventually("the completions of a round", || {
            let (_, sent, acknowledged) = settle(&a.cq, &b.cq);
            sent == round + 1 && acknowledged == (round + 1) / 16
        });
        assert_eq!(b.mr.load_u64(0), round);
    }
    common::eventually("all messages", || settle(&a.cq, &b.cq).0 == 5000);
    stop.store(true, Ordering::Relaxed);
    let (recv, posted) = poster.join().unwrap();
    assert!(posted >= received);
    assert_eq!(recv.qp_num(), send.qp_num());
}

fn the_queue_pair_lives_until_both_halves_are_gone() {
    let (a, mut b) = common::pair("rc");
    let (send, mut recv) = a.qp.split();
    drop(send);
    recv.post_recv(|rq| _ = rq.recv_nothing().id(1)).unwrap();
    b.post_send(2, 0..0);
    b.expect(2, WcStatus::Success);
    assert_eq!(next_of(&a.cq).wr_id, 1);
    drop(recv);
    b.post_send(3, 0..0);
    b.expect(3, WcStatus::RetryExcErr);
    assert_eq!(b.qp.state(), QpState::Err);
}
