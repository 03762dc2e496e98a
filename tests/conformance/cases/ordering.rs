//! In which order work requests take effect and complete, with the fence and without.

use crate::case::cases;
use crate::common::{Node, connection, pair_with, pattern};
use crate::far::{self, Shape};
use tbrdma::{QpType, WcOpcode, WcStatus};

cases! {
    Ordering by "InfiniBand vol. 1, 9.5 and 10.8; ibv_post_send(3)" {
        a_fenced_send_carries_what_the_read_before_it_fetched:
            "With the fence, a SEND begins when the READs before it have ended, and carries what they fetched", needs [Rc] as two_party;
        a_fenced_write_carries_what_the_atomic_before_it_returned:
            "With the fence, a WRITE carries the result of the atomic before it", needs [Rc, Atomics] as two_party;
        a_fence_with_nothing_before_it_is_none: "A fence without READs or atomics before it holds nothing back", needs [Rc] as two_party;
        reads_and_writes_complete_in_the_order_of_posting:
            "Work requests of every kind complete in the order of their posting", needs [Rc, Atomics] as two_party;
        an_atomic_sees_the_write_posted_before_it: "An atomic acts on what the WRITE before it left", needs [Rc, Atomics] as two_party;
        the_write_before_a_send_is_there_when_the_receive_completes:
            "When a receive completes, the WRITEs before its SEND are in memory", needs [Rc] as two_party;
        the_write_with_immediate_is_there_when_its_receive_completes:
            "When the receive of a WRITE with immediate completes, its bytes are in memory", needs [Rc] as two_party;
        receives_are_taken_in_the_order_of_their_posting: "Receives are taken in the order of their posting, whatever takes them", needs [Rc] as two_party;
        many_reads_at_a_time_return_each_its_own_bytes:
            "More READs than may be outstanding are carried out in turn, each with its own bytes", by "ibv_modify_qp(3), max_rd_atomic", needs [Rc] as two_party;
        queue_pairs_do_not_wait_for_each_other: "What waits on one queue pair holds back no other", needs [Rc];
    }
    Completions by "ibv_poll_cq(3), ibv_post_send(3)" {
        unsignaled_work_completes_unseen_and_in_order: "Unsignaled work requests of every kind take effect in order, and are not polled", needs [Rc, Atomics] as two_party;
        a_completion_names_its_operation: "A completion names the operation of its work request", needs [Rc, Atomics] as two_party;
    }
}

fn a_fenced_send_carries_what_the_read_before_it_fetched() {
    let (mut a, b) = far::pair("rc");
    let bytes = pattern(1, 60_000);
    b.write(0, &bytes);
    for round in 0..10 {
        a.fill(0..60_000, 0);
        b.post_recv(round, 100_000..160_000);
        let (fetched, from) = (a.mr.slice(0..60_000), b.remote().at(0));
        a.qp.post(|wr| {
            wr.read(fetched, from).id(1).unsignaled();
            wr.send(fetched).id(2).fence();
        })
        .unwrap();
        a.expect(2, WcStatus::Success);
        b.expect(round, WcStatus::Success);
        assert!(b.bytes(100_000..160_000) == bytes, "round {round}: sent before it was there");
    }
}

fn a_fenced_write_carries_what_the_atomic_before_it_returned() {
    let (mut a, b) = far::pair("rc");
    for round in 0..50_u64 {
        b.store_u64(0, round * 3);
        let (word, remote) = (a.mr.slice(0..8), b.remote());
        a.mr.store_u64(0, u64::MAX);
        a.qp.post(|wr| {
            wr.fetch_and_add(word, remote.at(0), 1).unsignaled();
            wr.write(word, remote.at(64)).id(round).fence();
        })
        .unwrap();
        a.expect(round, WcStatus::Success);
        assert_eq!((b.load_u64(0), b.load_u64(64)), (round * 3 + 1, round * 3));
    }
}

fn a_fence_with_nothing_before_it_is_none() {
    let (mut a, b) = far::pair("rc");
    b.post_recv(1, 0..8);
    let remote = b.remote().at(64);
    a.qp.post(|wr| {
        wr.send_inline(b"fenced").id(2).fence();
        wr.write_inline(b"and again", remote).id(3).fence();
    })
    .unwrap();
    a.expect(2, WcStatus::Success);
    a.expect(3, WcStatus::Success);
    b.expect(1, WcStatus::Success);
    assert_eq!((b.bytes(0..6), b.bytes(64..73)), (b"fenced".to_vec(), b"and again".to_vec()));
}

fn reads_and_writes_complete_in_the_order_of_posting() {
    let (mut a, b) = far::pair("rc");
    b.post_recv(9, 0..64);
    let (slice, large, remote) = (a.mr.slice(0..8), a.mr.slice(1000..90_000), b.remote());
    for round in 0..10 {
        let id = |step: u64| round * 10 + step;
        a.qp.post(|wr| {
            wr.read(large, remote.at(1000)).id(id(0));
            wr.write(slice, remote.at(0)).id(id(1));
            wr.fetch_and_add(slice, remote.at(0), 1).id(id(2));
            wr.write(large, remote.at(1000)).id(id(3));
            wr.read(slice, remote.at(64)).id(id(4));
        })
        .unwrap();
        for step in 0..5 {
            a.expect(id(step), WcStatus::Success);
        }
    }
}

fn an_atomic_sees_the_write_posted_before_it() {
    let (mut a, b) = far::pair("rc");
    let (word, remote) = (a.mr.slice(0..8), b.remote().at(128));
    for round in 0..50_u64 {
        a.qp.post(|wr| {
            wr.write_inline(&(round * 5).to_ne_bytes(), remote).unsignaled();
            wr.fetch_and_add(word, remote, 2).id(round);
        })
        .unwrap();
        a.expect(round, WcStatus::Success);
        assert_eq!((a.mr.load_u64(0), b.load_u64(128)), (round * 5, round * 5 + 2));
    }
}

fn the_write_before_a_send_is_there_when_the_receive_completes() {
    let (mut a, b) = far::pair("rc");
    for round in 1..40_u8 {
        a.fill(0..20_000, round);
        b.post_recv(1, 0..8);
        let (slice, remote) = (a.mr.slice(0..20_000), b.remote().at(4096));
        a.qp.post(|wr| {
            wr.write(slice, remote).unsignaled();
            wr.send_inline(b"done").id(2);
        })
        .unwrap();
        b.expect(1, WcStatus::Success);
        assert!(b.bytes(4096..24_096).iter().all(|byte| *byte == round), "round {round}");
        a.expect(2, WcStatus::Success);
    }
}

fn the_write_with_immediate_is_there_when_its_receive_completes() {
    let (mut a, b) = far::pair("rc");
    for round in 1..40_u8 {
        a.fill(0..20_000, round);
        b.post_recv_list(1, &[]);
        let (slice, remote) = (a.mr.slice(0..20_000), b.remote().at(4096));
        a.qp.post(|wr| _ = wr.write_with_imm(slice, remote, round.into()).id(2)).unwrap();
        let wc = b.expect(1, WcStatus::Success);
        assert_eq!((wc.imm_data, wc.byte_len, wc.opcode), (round.into(), 20_000, WcOpcode::RecvRdmaWithImm));
        assert!(b.bytes(4096..24_096).iter().all(|byte| *byte == round), "round {round}");
        a.expect(2, WcStatus::Success);
    }
}

fn receives_are_taken_in_the_order_of_their_posting() {
    let (mut a, b) = far::pair("rc");
    for id in 0..9 {
        b.post_recv(id, id as usize * 64..id as usize * 64 + 64);
    }
    let (nothing, remote) = (a.mr.slice(0..0), b.remote().at(4096));
    a.qp.post(|wr| {
        for turn in 0..3_u32 {
            wr.send_inline(b"plain").unsignaled();
            wr.send_inline_with_imm(b"with", turn).unsignaled();
            wr.write_with_imm(nothing, remote, 100 + turn).id(turn.into());
        }
    })
    .unwrap();
    for id in 0..9_u64 {
        let wc = b.expect(id, WcStatus::Success);
        let (turn, kind) = ((id / 3) as u32, id % 3);
        let imm_data = [wc.imm_data, turn, 100 + turn][kind as usize];
        assert_eq!((wc.imm_data, wc.byte_len), (imm_data, [5, 4, 0][kind as usize]));
    }
    for turn in 0..3 {
        a.expect(turn, WcStatus::Success);
    }
}

fn many_reads_at_a_time_return_each_its_own_bytes() {
    let with = connection(|with| (with.max_rd_atomic, with.max_dest_rd_atomic) = (2, 2));
    let (mut a, b) = far::pair_with("rc", Shape::default(), &with);
    let bytes = pattern(7, 40 * 3000);
    b.write(0, &bytes);
    let (slices, remote): (Vec<_>, _) =
        ((0..40).map(|at| a.mr.slice(at * 3000..(at + 1) * 3000)).collect(), b.remote());
    a.qp.post(|wr| {
        for (at, slice) in slices.iter().enumerate() {
            wr.read(*slice, remote.at(at as u64 * 3000)).id(at as u64);
        }
    })
    .unwrap();
    for id in 0..40 {
        a.expect(id, WcStatus::Success);
    }
    assert!(a.bytes(0..bytes.len()) == bytes);
}

fn queue_pairs_do_not_wait_for_each_other() {
    let (mut a, mut b) = pair_with("rc", |init| init, &connection(|with| with.rnr_retry = 7));
    let (mut c, mut d) =
        (Node::of(&a.ctx, QpType::Rc, |init| init), Node::of(&b.ctx, QpType::Rc, |init| init));
    crate::common::join(&mut c, &mut d, &connection(|_| ()));
    // This one waits for a receive.
    a.post_send(1, 0..8);
    for id in 0..20 {
        d.post_recv(id, 0..8);
        c.post_send(id, 0..8);
        c.expect(id, WcStatus::Success);
        d.expect(id, WcStatus::Success);
    }
    a.expect_nothing();
    b.post_recv(2, 0..8);
    a.expect(1, WcStatus::Success);
    b.expect(2, WcStatus::Success);
}

fn unsignaled_work_completes_unseen_and_in_order() {
    let (mut a, b) = far::pair("rc");
    b.store_u64(0, 5);
    let (word, copy, remote) = (a.mr.slice(0..8), a.mr.slice(8..16), b.remote());
    a.qp.post(|wr| {
        wr.write_inline(&6_u64.to_ne_bytes(), remote.at(0)).id(1).unsignaled();
        wr.fetch_and_add(word, remote.at(0), 10).id(2).unsignaled();
        wr.read(copy, remote.at(0)).id(3).unsignaled();
        // What a READ fetched may be fetched again, unless the next waits for it.
        wr.compare_and_swap(word, remote.at(0), 16, 20).id(4).fence();
    })
    .unwrap();
    a.expect(4, WcStatus::Success);
    assert_eq!((a.mr.load_u64(0), a.mr.load_u64(8), b.load_u64(0)), (16, 16, 20));
    a.expect_nothing();
}

fn a_completion_names_its_operation() {
    let (mut a, b) = far::pair("rc");
    b.post_recv(1, 0..8);
    b.post_recv_list(2, &[]);
    let (word, remote) = (a.mr.slice(0..8), b.remote().at(64));
    a.qp.post(|wr| {
        wr.send(word).id(0);
        wr.write(word, remote).id(1);
        wr.write_with_imm(word, remote, 3).id(2);
        wr.read(word, remote).id(3);
        wr.fetch_and_add(word, remote, 1).id(4);
        wr.compare_and_swap(word, remote, 1, 2).id(5);
    })
    .unwrap();
    use WcOpcode::{CompSwap, FetchAdd, RdmaRead, RdmaWrite, Recv, RecvRdmaWithImm, Send};
    for (id, opcode) in [Send, RdmaWrite, RdmaWrite, RdmaRead, FetchAdd, CompSwap].into_iter().enumerate() {
        assert_eq!(a.expect(id as u64, WcStatus::Success).opcode, opcode);
    }
    assert_eq!(b.expect(1, WcStatus::Success).opcode, Recv);
    assert_eq!(b.expect(2, WcStatus::Success).opcode, RecvRdmaWithImm);
}
