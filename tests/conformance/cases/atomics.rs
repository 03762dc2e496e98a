//! The 8-byte atomics: their results, their atomicity, and what they refuse.

use crate::case::cases;
use crate::common;
use crate::common::{Node, all_access, join, next_of, pair};
use crate::far::{self, Shape};
use std::sync::{Arc, Barrier};
use tbrdma::{
    AsyncEventKind, MrSlice, Opcode, PostErrorKind, PostRefusal, QpState, QpType, RemoteAddr, SendQueue,
    WcOpcode, WcStatus,
};

cases! {
    Atomics by "InfiniBand vol. 1, 9.4.5" {
        fetch_and_add_returns_the_old_value_and_wraps:
            "FetchAdd stores the sum modulo 2^64 and returns what was there", needs [Rc, Atomics] as two_party;
        compare_and_swap_swaps_only_what_is_equal_and_returns_the_old_value:
            "CmpSwap swaps only what equals the comparand, and returns what was there", needs [Rc, Atomics] as two_party;
        the_result_may_go_to_an_unaligned_place:
            "Only the remote address must be aligned, not that of the result", needs [Rc, Atomics] as two_party;
        a_misaligned_address_is_an_invalid_request:
            "A remote address that is no multiple of 8 is an invalid request, and nothing is changed", needs [Rc, Atomics] as two_party;
        a_result_list_that_is_not_one_entry_of_eight_bytes_is_refused:
            "The result of an atomic is 8 bytes in one entry", by "ibv_post_send(3)", needs [Rc, Atomics];
        unreliable_connections_have_no_reads_and_no_atomics:
            "Unreliable connections have neither READs nor atomics", by "ibv_post_send(3)", needs [Uc];
        additions_of_several_queue_pairs_are_never_lost:
            "Atomics of several queue pairs on one word are each one step", needs [Rc, Atomics];
        a_lock_made_of_compare_and_swap_excludes:
            "CmpSwap excludes others, and READs and WRITEs under such a lock are seen in order", needs [Rc, Atomics];
    }
}

fn fetch_add(send: &mut SendQueue, result: MrSlice, remote: RemoteAddr, add: u64) {
    send.post(|wr| _ = wr.fetch_and_add(result, remote, add).id(add)).unwrap();
}

fn fetch_and_add_returns_the_old_value_and_wraps() {
    for (mut a, b) in far::pairs("rc", Shape::default()) {
        let (result, remote) = (a.mr.slice(24..32), b.remote().at(64));
        b.store_u64(56, 1);
        b.store_u64(64, u64::MAX - 1);
        b.store_u64(72, 2);
        for (add, old, new) in
            [(1, u64::MAX - 1, u64::MAX), (3, u64::MAX, 2), (0, 2, 2), (1 << 63, 2, 2 + (1 << 63))]
        {
            fetch_add(a.qp.halves().0, result, remote, add);
            let wc = a.expect(add, WcStatus::Success);
            assert_eq!((wc.opcode, wc.byte_len), (WcOpcode::FetchAdd, 8));
            assert_eq!((a.mr.load_u64(24), b.load_u64(64)), (old, new));
        }
        assert_eq!((b.load_u64(56), b.load_u64(72)), (1, 2));
        assert_eq!((a.mr.load_u64(16), a.mr.load_u64(32)), (0, 0));
    }
}

fn compare_and_swap_swaps_only_what_is_equal_and_returns_the_old_value() {
    for (mut a, b) in far::pairs("rc", Shape::default()) {
        let (result, remote) = (a.mr.slice(0..8), b.remote().at(8));
        b.store_u64(8, 10);
        for (compare, swap, old, new) in
            [(11, 99, 10, 10), (10, u64::MAX, 10, u64::MAX), (u64::MAX, 0, u64::MAX, 0)]
        {
            a.qp.post(|wr| _ = wr.compare_and_swap(result, remote, compare, swap).id(swap)).unwrap();
            let wc = a.expect(swap, WcStatus::Success);
            assert_eq!((wc.opcode, wc.byte_len), (WcOpcode::CompSwap, 8));
            assert_eq!((a.mr.load_u64(0), b.load_u64(8)), (old, new));
        }
    }
}

fn the_result_may_go_to_an_unaligned_place() {
    let (mut a, b) = far::pair("rc");
    b.store_u64(0, 0x0102_0304_0506_0708);
    let (result, remote) = (a.mr.slice(3..11), b.remote().at(0));
    fetch_add(a.qp.halves().0, result, remote, 1);
    a.expect(1, WcStatus::Success);
    assert_eq!(a.bytes(3..11), 0x0102_0304_0506_0708_u64.to_ne_bytes());
}

fn a_misaligned_address_is_an_invalid_request() {
    for offset in [1, 4, 7] {
        let (mut a, b) = far::pair("rc");
        b.store_u64(0, 5);
        let (result, remote) = (a.mr.slice(0..8), b.remote().at(offset));
        a.mr.store_u64(0, 77);
        fetch_add(a.qp.halves().0, result, remote, 1);
        a.expect(1, WcStatus::RemInvReqErr);
        assert_eq!((a.mr.load_u64(0), b.load_u64(0)), (77, 5));
        a.await_state(QpState::Err);
        b.expect_event(AsyncEventKind::QpReqErr);
        b.await_state(QpState::Err);
    }
}

fn a_result_list_that_is_not_one_entry_of_eight_bytes_is_refused() {
    let (mut a, b) = pair("rc");
    let remote = b.mr.remote().at(0);
    for len in [0, 4, 7, 9, 16] {
        let result = a.mr.slice(0..len);
        let error = a.qp.post(|wr| _ = wr.fetch_and_add(result, remote, 1)).unwrap_err();
        let PostRefusal::WorkRequest(kind) = error.reason else { unreachable!("{error}") };
        assert_eq!(kind, PostErrorKind::AtomicLength { count: 1, length: len as u64 });
    }
    assert_eq!(b.mr.load_u64(0), 0);
    // Nothing has happened to the queue pair.
    let result = a.mr.slice(0..8);
    fetch_add(a.qp.halves().0, result, remote, 1);
    a.expect(1, WcStatus::Success);
}

fn unreliable_connections_have_no_reads_and_no_atomics() {
    let (mut a, b) = pair("uc");
    let (word, remote) = (a.mr.slice(0..8), b.mr.remote().at(0));
    let refusals = [
        (a.qp.post(|wr| _ = wr.fetch_and_add(word, remote, 1)), Opcode::AtomicFetchAndAdd),
        (a.qp.post(|wr| _ = wr.compare_and_swap(word, remote, 1, 2)), Opcode::AtomicCmpAndSwp),
        (a.qp.post(|wr| _ = wr.read(word, remote)), Opcode::RdmaRead),
    ];
    for (refusal, opcode) in refusals {
        let PostRefusal::WorkRequest(kind) = refusal.unwrap_err().reason else { unreachable!("{opcode:?}") };
        assert_eq!(kind, PostErrorKind::OpcodeNotSupported { opcode, qp_type: QpType::Uc });
    }
}

fn additions_of_several_queue_pairs_are_never_lost() {
    const THREADS: usize = 4;
    const ROUNDS: u64 = 2000;
    let target = common::open().unwrap();
    let pd = target.alloc_pd().unwrap();
    let mr = pd.alloc(64, all_access()).unwrap();
    let cq = target.create_cq(16).unwrap();
    let start = Arc::new(Barrier::new(THREADS));
    let mut responders = Vec::new();
    let threads: Vec<_> = (0..THREADS)
        .map(|_| {
            let mut node = Node::new(QpType::Rc);
            let mut responder = pd.create_qp(tbrdma::QpInit::rc(&cq)).unwrap();
            node.qp.connect_with(&responder.address(), &common::patient()).unwrap();
            responder.connect_with(&node.qp.address(), &common::patient()).unwrap();
            responders.push(responder);
            let (remote, start) = (mr.remote().at(8), Arc::clone(&start));
            std::thread::spawn(move || {
                start.wait();
                let word = node.mr.slice(0..8);
                let mut before = None;
                for _ in 0..ROUNDS {
                    fetch_add(node.qp.halves().0, word, remote, 1);
                    node.expect(1, WcStatus::Success);
                    let old = node.mr.load_u64(0);
                    assert!(before.is_none_or(|before| before < old), "the counter went backwards");
                    before = Some(old);
                }
            })
        })
        .collect();
    // The owner's own atomic additions count as well.
    for thread in threads {
        thread.join().unwrap();
    }
    assert_eq!(mr.load_u64(8), THREADS as u64 * ROUNDS);
}

fn a_lock_made_of_compare_and_swap_excludes() {
    let shared = common::open().unwrap();
    let home = Node::of(&shared, QpType::Rc, |init| init);
    let mut responders = Vec::new();
    let threads: Vec<_> = (0..3_u64)
        .map(|id| {
            let (mut node, mut responder) =
                (Node::new(QpType::Rc), Node::of(&shared, QpType::Rc, |init| init));
            // The lock is in the home node's domain, so the responder's queue pair must be there too.
            responder.qp = home.pd.create_qp(tbrdma::QpInit::rc(&responder.cq)).unwrap();
            join(&mut node, &mut responder, &common::patient());
            responders.push(responder);
            let remote = home.mr.remote();
            std::thread::spawn(move || {
                let (word, counter) = (node.mr.slice(0..8), node.mr.slice(8..16));
                for _ in 0..300 {
                    loop {
                        node.qp.post(|wr| _ = wr.compare_and_swap(word, remote.at(0), 0, id + 1)).unwrap();
                        next_of(&node.cq).ok().unwrap();
                        if node.mr.load_u64(0) == 0 {
                            break;
                        }
                        std::thread::yield_now();
                    }
                    node.qp.post(|wr| _ = wr.read(counter, remote.at(8))).unwrap();
                    next_of(&node.cq).ok().unwrap();
                    let next = node.mr.load_u64(8) + 1;
                    node.qp
                        .post(|wr| {
                            wr.write_inline(&next.to_ne_bytes(), remote.at(8)).unsignaled();
                            wr.compare_and_swap(word, remote.at(0), id + 1, 0);
                        })
                        .unwrap();
                    next_of(&node.cq).ok().unwrap();
                    assert_eq!(node.mr.load_u64(0), id + 1, "somebody else took the lock");
                }
            })
        })
        .collect();
    for thread in threads {
        thread.join().unwrap();
    }
    assert_eq!(home.mr.load_u64(8), 900);
}
