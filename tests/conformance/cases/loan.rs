//! Buffers lent to work requests: gone while the device has them, back with their completion, never lost, never early.

use crate::case::cases;
use crate::common;
use crate::common::{Node, connection, join, pair, pair_shaped, pair_with, pattern};
use std::panic::{AssertUnwindSafe, catch_unwind};
use tbrdma::{Buffer, PostRefusal, QpType, WcStatus, WorkCompletion};

cases! {
    Objects by "ibv_post_send(3), ibv_post_recv(3): memory is the device's until its completion is polled" {
        a_buffer_travels_with_its_work_request: "Memory lent to a work request is its owner's again with the completion, uncopied", needs [Rc];
        buffers_of_several_requests_come_back_each_with_its_own: "Each completion gives back the memory of its own work request", needs [Rc];
        a_refused_post_gives_the_buffers_back: "A post that is refused keeps nothing", needs [Rc];
        flushed_requests_give_their_buffers_back: "A flushed work request gives its memory back", needs [Rc];
        a_reset_gives_back_what_was_lent: "After RESET the device has nothing of what was posted", needs [Rc];
        a_forged_completion_gets_no_buffer_that_the_device_still_has: "No completion but the device's own gives memory back", needs [Rc];
        a_panic_while_building_a_list_loses_nothing_of_the_next: "A list that is never posted has no effect on the next", needs [Rc];
        dropping_everything_in_any_order_with_loans_outstanding_is_fine: "Objects may end in any order with work outstanding", needs [Rc];
        a_buffer_of_another_domain_is_refused_by_the_device: "Memory of another protection domain is a local protection error", needs [Rc];
    }
}

fn filled(node: &Node, len: usize, seed: u64) -> Buffer {
    let mut buffer = node.pd.alloc_buffer(len).unwrap();
    assert!(buffer.iter().all(|byte| *byte == 0));
    buffer.copy_from_slice(&pattern(seed, len));
    buffer
}

fn a_buffer_travels_with_its_work_request() {
    let (mut a, mut b) = pair("rc");
    for round in 0..200 {
        let (sent, received) = (filled(&a, 500, round), filled(&b, 600, 1000 + round));
        let (sent_at, received_at) = (sent.as_ptr(), received.as_ptr());
        b.qp.post_recv(|rq| _ = rq.recv_buffer(received).id(round)).unwrap();
        a.qp.post(|wr| _ = wr.send_buffer(sent, 400).id(round)).unwrap();
        let wc = a.expect(round, WcStatus::Success);
        let sent = a.qp.take_buffer(&wc).unwrap();
        assert_eq!((sent.as_ptr(), &sent[..]), (sent_at, &pattern(round, 500)[..]), "nothing is copied");
        assert!(a.qp.take_buffer(&wc).is_none());
        let wc = b.expect(round, WcStatus::Success);
        assert_eq!(wc.byte_len, 400);
        let received = b.qp.take_buffer(&wc).unwrap();
        assert_eq!(received.as_ptr(), received_at);
        assert_eq!(received[..400], pattern(round, 500)[..400]);
        assert_eq!(received[400..], pattern(1000 + round, 600)[400..]);
    }
}

fn buffers_of_several_requests_come_back_each_with_its_own() {
    let (mut a, mut b) = pair("rc");
    for id in 0..10 {
        let buffer = filled(&b, 100 + id as usize, id);
        b.qp.post_recv(|rq| _ = rq.recv_buffer(buffer).id(id)).unwrap();
    }
    let buffers: Vec<_> = (0..10).map(|id| filled(&a, 50 + id, id as u64)).collect();
    a.qp.post(|wr| {
        for (id, buffer) in buffers.into_iter().enumerate() {
            // Unsignaled makes no difference: a lent buffer needs a completion to come back.
            wr.send_buffer(buffer, usize::MAX).id(id as u64).unsignaled();
        }
    })
    .unwrap();
    let (sent, received) = (a.take(10), b.take(10));
    for id in (0..10).rev() {
        assert_eq!(a.qp.take_buffer(&sent[id]).unwrap().len(), 50 + id);
        let buffer = b.qp.take_buffer(&received[id]).unwrap();
        assert_eq!(buffer.len(), 100 + id);
        assert_eq!(buffer[..50 + id], pattern(id as u64, 50 + id));
    }
}

fn a_refused_post_gives_the_buffers_back() {
    let mut a = Node::new(QpType::Rc);
    let buffer = filled(&a, 64, 1);
    let error = a.qp.post(|wr| _ = wr.send_buffer(buffer, 64)).unwrap_err();
    assert_eq!(error.errno(), nix::libc::EINVAL);
    assert!(common::on_native() || matches!(error.reason, PostRefusal::State(_)));
    assert_eq!(error.buffers[0][..], pattern(1, 64));
    let buffer = filled(&a, 64, 2);
    let mut error = a.qp.post_recv(|rq| _ = rq.recv_buffer(buffer)).unwrap_err();
    assert_eq!(error.buffers.pop().unwrap()[..], pattern(2, 64));

    let (mut a, mut b) = pair_shaped("rc", |init| init.max_send_wr(2).max_recv_wr(2));
    let buffers: Vec<_> = (0..4).map(|seed| filled(&b, 64, seed)).collect();
    let error =
        b.qp.post_recv(|rq| buffers.into_iter().for_each(|buffer| _ = rq.recv_buffer(buffer))).unwrap_err();
    assert_eq!((error.index, error.buffers.len()), (2, 2));
    assert_eq!(error.buffers[0][..], pattern(2, 64));
    assert_eq!(error.buffers[1][..], pattern(3, 64));
    let buffers: Vec<_> = (0..4).map(|seed| filled(&a, 64, seed)).collect();
    let error =
        a.qp.post(|wr| buffers.into_iter().for_each(|buffer| _ = wr.send_buffer(buffer, 64))).unwrap_err();
    assert_eq!((error.index, error.buffers.len()), (2, 2));
    assert_eq!(error.buffers[0][..], pattern(2, 64));
    for _ in 0..2 {
        let (sent, received) = (a.one(), b.one());
        assert!(a.qp.take_buffer(&sent).is_some() && b.qp.take_buffer(&received).is_some());
    }
}

fn flushed_requests_give_their_buffers_back() {
    let (mut a, b) = pair_with("rc", |init| init, &connection(|with| with.rnr_retry = 7));
    let (send, receive) = (filled(&a, 64, 1), filled(&a, 64, 2));
    a.qp.post(|wr| _ = wr.send_buffer(send, 64)).unwrap();
    a.qp.post_recv(|rq| _ = rq.recv_buffer(receive)).unwrap();
    a.qp.to_error().unwrap();
    for _ in 0..2 {
        let wc = a.one();
        assert_eq!(wc.status, WcStatus::WrFlushErr);
        let buffer = a.qp.take_buffer(&wc).unwrap();
        assert_eq!(buffer[..], pattern(if wc.opcode.is_recv() { 2 } else { 1 }, 64));
    }
    drop(b);
}

fn a_reset_gives_back_what_was_lent() {
    let (mut a, mut b) = pair_with("rc", |init| init, &connection(|with| with.rnr_retry = 7));
    for seed in 0..3 {
        let (send, receive) = (filled(&a, 64, seed), filled(&a, 64, 10 + seed));
        a.qp.post(|wr| _ = wr.send_buffer(send, 64)).unwrap();
        a.qp.post_recv(|rq| _ = rq.recv_buffer(receive)).unwrap();
    }
    let (send, receive) = a.qp.halves();
    assert!(send.take_lent().is_empty() && receive.take_lent().is_empty(), "the device still has them");
    a.qp.reset().unwrap();
    let (send, receive) = a.qp.halves();
    for (buffers, first) in [(send.take_lent(), 0), (receive.take_lent(), 10)] {
        let mut found: Vec<_> = buffers.iter().map(|buffer| buffer.to_vec()).collect();
        let mut expected: Vec<_> = (first..first + 3).map(|seed| pattern(seed, 64)).collect();
        found.sort();
        expected.sort();
        assert_eq!(found, expected);
    }
    // In the new life nothing of the old one is confused with it.
    b.qp.reset().unwrap();
    join(&mut a, &mut b, &common::patient());
    b.post_recv(1, 0..64);
    let buffer = filled(&a, 64, 99);
    a.qp.post(|wr| _ = wr.send_buffer(buffer, 64).id(2)).unwrap();
    let wc = a.expect(2, WcStatus::Success);
    assert_eq!(a.qp.take_buffer(&wc).unwrap()[..], pattern(99, 64));
}

fn a_forged_completion_gets_no_buffer_that_the_device_still_has() {
    let (mut a, mut b) = pair_with("rc", |init| init, &connection(|with| with.rnr_retry = 7));
    // Some ordinary traffic first, so that numbers below the lent ones are retired.
    for id in 0..5 {
        a.post_recv(id, 0..8);
        b.post_recv(id, 0..8);
        a.post_send(id, 0..8);
        b.post_send(id, 0..8);
        a.take(2);
        b.take(2);
    }
    let (send, receive) = (filled(&a, 64, 1), filled(&a, 64, 2));
    a.qp.post(|wr| _ = wr.send_buffer(send, 64).id(7)).unwrap();
    a.qp.post_recv(|rq| _ = rq.recv_buffer(receive).id(8)).unwrap();
    let numbers = (0..200).chain([u32::MAX, u32::MAX - 1, 1 << 31, (1 << 31) - 1, (1 << 31) + 5]);
    for wq_index in numbers {
        for opcode in [tbrdma::WcOpcode::Send, tbrdma::WcOpcode::Recv] {
            for qp_num in [a.qp.qp_num(), b.qp.qp_num()] {
                let forged =
                    WorkCompletion { wr_id: 7, wq_index, opcode, qp_num, ..WorkCompletion::default() };
                assert!(a.qp.take_buffer(&forged).is_none(), "{forged:?}");
            }
        }
    }
    b.post_recv(9, 0..64);
    b.expect(9, WcStatus::Success);
    // It has completed, but nobody has polled that yet.
    let early = WorkCompletion { wq_index: 5, qp_num: a.qp.qp_num(), ..WorkCompletion::default() };
    assert!(a.qp.take_buffer(&early).is_none());
    let wc = a.expect(7, WcStatus::Success);
    assert_eq!(a.qp.take_buffer(&wc).unwrap()[..], pattern(1, 64));
}

fn a_panic_while_building_a_list_loses_nothing_of_the_next() {
    let (mut a, mut b) = pair("rc");
    for _ in 0..3 {
        let buffer = filled(&a, 64, 1);
        let outcome = catch_unwind(AssertUnwindSafe(|| {
            a.qp.post(|wr| {
                wr.send_inline(b"x");
                wr.send_buffer(buffer, 64);
                panic!("of the caller's own making");
            })
        }));
        assert!(outcome.is_err());
        let buffer = filled(&b, 64, 1);
        let outcome = catch_unwind(AssertUnwindSafe(|| {
            b.qp.post_recv(|rq| {
                rq.recv_nothing();
                rq.recv_buffer(buffer);
                panic!("of the caller's own making");
            })
        }));
        assert!(outcome.is_err());
        // Nothing of it has been posted.
        b.post_recv(2, 0..8);
        a.post_send(1, 0..8);
        a.expect(1, WcStatus::Success);
        b.expect(2, WcStatus::Success);
        a.expect_nothing();
    }
}

fn dropping_everything_in_any_order_with_loans_outstanding_is_fine() {
    for order in 0..4 {
        let (mut a, mut b) = pair_with("rc", |init| init, &connection(|with| with.rnr_retry = 7));
        for _ in 0..8 {
            let (send, receive) = (filled(&a, 4096, 1), filled(&a, 4096, 2));
            a.qp.post(|wr| _ = wr.send_buffer(send, 4096)).unwrap();
            a.qp.post_recv(|rq| _ = rq.recv_buffer(receive)).unwrap();
        }
        let Node { qp, mr, cq, pd, ctx } = a;
        match order {
            0 => drop(qp),
            1 => {
                drop((mr, cq, pd, ctx));
                let (send, receive) = qp.split();
                drop(send);
                // The receiving half lives on by itself. What the other had lent is not sent any more.
                b.post_send(1, 0..8);
                b.expect(1, WcStatus::Success);
                drop(receive);
            }
            2 => {
                drop((mr, cq, pd, ctx));
                let (send, receive) = qp.split();
                drop(receive);
                drop(send);
            }
            _ => drop(b),
        }
    }
}

fn a_buffer_of_another_domain_is_refused_by_the_device() {
    let (mut a, mut b) = pair("rc");
    let other = a.ctx.alloc_pd().unwrap();
    let buffer = other.alloc_buffer(64).unwrap();
    b.post_recv(1, 0..64);
    a.qp.post(|wr| _ = wr.send_buffer(buffer, 64).id(2)).unwrap();
    let wc = a.expect(2, WcStatus::LocProtErr);
    assert_eq!(a.qp.take_buffer(&wc).unwrap().len(), 64);
}
