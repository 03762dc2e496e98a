//! Credit flow on a Mac's Thunderbolt port: a SEND waits for its receive, and what WRITEs and empty SENDs do.
#![allow(clippy::panic, clippy::unwrap_used, reason = "a test may fail")]

use tbrdma::{QpType, WcStatus, WorkCompletion};

mod common;
use common::apple::{BACKENDS, open, pair};
use common::{Node, expect_nothing, join, pattern};

#[test]
fn a_send_waits_until_there_is_a_receive() {
    let _alone = common::alone();
    for backend in BACKENDS {
        let (mut a, mut b) = pair(backend, "");
        let bytes = pattern(3, 4096);
        a.mr.write(0, &bytes);
        a.post_send(1, 0..4096);
        a.expect_nothing();
        b.post_recv(2, 4096..8192);
        // On the wire the sender hears of the receive while either side polls.
        a.expect(1, WcStatus::Success);
        assert_eq!(b.expect(2, WcStatus::Success).byte_len, 4096);
        assert_eq!(b.bytes(4096..8192), bytes, "{backend}");
    }
}

#[test]
fn many_sends_go_one_by_one_as_receives_come_and_none_is_lost() {
    let _alone = common::alone();
    for backend in BACKENDS {
        let (mut a, mut b) = pair(backend, "");
        let mut rng = common::Rng(11);
        let (mut sent, mut posted, mut arrived) = (0_u64, 0_u64, 0_u64);
        while arrived < 2000 {
            match rng.below(3) {
                0 if posted < arrived + 32 => {
                    let at = 64 * (posted as usize % 32);
                    b.post_recv(posted, at..at + 64);
                    posted += 1;
                }
                1 if sent < posted + 20 && sent < 2000 => {
                    // Each message is a place of its own, so that nothing is overwritten before it has gone.
                    let at = 8 * sent as usize;
                    a.mr.write(at, &sent.to_ne_bytes());
                    a.post_send(sent, at..at + 8);
                    sent += 1;
                }
                _ => {}
            }
            let mut wcs = [WorkCompletion::default(); 8];
            for wc in a.cq.poll(&mut wcs) {
                assert_eq!(wc.status, WcStatus::Success);
            }
            for wc in b.cq.poll(&mut wcs) {
                assert_eq!((wc.wr_id, wc.status), (arrived, WcStatus::Success), "{backend}");
                assert_eq!(b.mr.load_u64(64 * (arrived as usize % 32)), arrived, "{backend}");
                arrived += 1;
            }
        }
    }
}

#[test]
fn both_ends_may_send_first() {
    let _alone = common::alone();
    for backend in BACKENDS {
        let (mut a, mut b) = pair(backend, "");
        a.post_send(1, 0..8);
        b.post_send(1, 0..8);
        a.post_recv(2, 64..128);
        b.post_recv(2, 64..128);
        for node in [&a, &b] {
            let mut ids = node.take(2).iter().map(|wc| wc.ok().unwrap().wr_id).collect::<Vec<_>>();
            ids.sort_unstable();
            assert_eq!(ids, [1, 2], "{backend}");
        }
    }
}

#[test]
fn a_send_waits_for_a_peer_that_is_not_ready_yet() {
    let _alone = common::alone();
    for backend in BACKENDS {
        let mut nodes = [(); 2].map(|()| Node::of(&open(backend, "apple-tb5"), QpType::Uc, |init| init));
        let [a, b] = &mut nodes;
        a.qp.connect_with(&b.qp.address(), &common::patient()).unwrap();
        a.post_send(1, 0..64);
        a.post_send(2, 64..128);
        a.expect_nothing();
        b.qp.connect_with(&a.qp.address(), &common::patient()).unwrap();
        a.expect_nothing();
        b.post_recv(3, 0..64);
        b.post_recv(4, 64..128);
        for id in [1, 2] {
            a.expect(id, WcStatus::Success);
        }
        for id in [3, 4] {
            b.expect(id, WcStatus::Success);
        }
    }
}

#[test]
fn a_write_completes_and_remote_memory_is_unchanged() {
    let _alone = common::alone();
    for backend in BACKENDS {
        let (mut a, b) = pair(backend, "rkey=real");
        a.fill(0..64, 9);
        let (slice, remote) = (a.mr.slice(0..64), b.mr.remote().at(0));
        a.qp.post(|wr| _ = wr.write(slice, remote).id(1)).unwrap();
        a.expect(1, WcStatus::Success);
        expect_nothing(&b.cq);
        assert_eq!(b.bytes(0..64), [0; 64]);
    }
}

#[test]
fn writes_can_be_found_by_refusing_them() {
    let _alone = common::alone();
    let (mut a, mut b) = pair("shm", "write=refused");
    let (slice, remote) = (a.mr.slice(0..64), b.mr.remote().at(0));
    b.post_recv(1, 0..64);
    let error =
        a.qp.post(|wr| {
            wr.send(slice).id(2);
            wr.write(slice, remote).id(3);
            wr.send(slice).id(4);
        })
        .unwrap_err();
    assert_eq!((error.index, error.errno()), (1, nix::libc::EINVAL), "{error}");
    a.expect(2, WcStatus::Success);
    b.expect(1, WcStatus::Success);
    a.expect_nothing();
}

#[test]
fn an_empty_send_arrives_or_is_lost() {
    let _alone = common::alone();
    for backend in BACKENDS {
        let (mut a, mut b) = pair(backend, "");
        b.post_recv(1, 0..64);
        a.post_send(2, 0..0);
        a.expect(2, WcStatus::Success);
        assert_eq!(b.expect(1, WcStatus::Success).byte_len, 0);
        let (mut a, mut b) = pair(backend, "empty-send=lost");
        b.post_recv(1, 0..64);
        a.post_send(2, 0..0);
        a.expect(2, WcStatus::Success);
        b.expect_nothing();
    }
}

#[test]
fn without_the_switch_a_card_drops_what_finds_no_receive() {
    let _alone = common::alone();
    let (mut a, mut b) = pair("shm", "flow=drop");
    a.post_send(1, 0..8);
    a.expect(1, WcStatus::Success);
    b.post_recv(2, 0..8);
    b.expect_nothing();
}

#[test]
fn a_send_completion_is_not_delivery() {
    let _alone = common::alone();
    // All that one side sends is lost on the cable, but what it hears is not.
    let lossy = tbrdma::OpenOptions::new().profile("apple-tb5").fault("loss=50%").seed(7);
    let (mut a, mut b) = {
        let a = Node::of(&lossy.open("lossy_cable=udp:lo").unwrap(), QpType::Uc, |init| init);
        let b = Node::of(&open("udp:lo", "apple-tb5"), QpType::Uc, |init| init);
        (a, b)
    };
    join(&mut a, &mut b, &common::patient());
    for id in 0..200 {
        b.post_recv(id, 0..64);
    }
    for id in 0..100 {
        a.post_send(id, 0..64);
        a.expect(id, WcStatus::Success);
    }
    let mut wcs = [WorkCompletion::default(); 200];
    let mut arrived = 0;
    let begun = std::time::Instant::now();
    while begun.elapsed() < common::quiet() || (arrived == 0 && begun.elapsed() < common::patience()) {
        arrived += b.cq.poll(&mut wcs).len();
    }
    assert!((1..100).contains(&arrived), "{arrived} of 100 arrived");
}
