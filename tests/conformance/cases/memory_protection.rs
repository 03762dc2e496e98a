//! What the keys protect: every way to name memory that one may not touch, and what becomes of both queue pairs.

use crate::case::cases;
use crate::common;
use crate::common::{MEMORY, Node, all_access, connection, join, pair, pair_with, pattern};
use crate::far::{self, FarNode, Shape};
use std::collections::HashSet;
use tbrdma::{
    Access, AsyncEventKind, MrSlice, QpInit, QpState, QpType, RawSge, RemoteAddr, SendWrs, Sge, WcStatus,
};

cases! {
    Memory by "InfiniBand vol. 1, 10.6.3 and 9.7.4.1.6" {
        a_key_that_names_nothing_is_refused: "An R_Key that names no region is a remote access error, and nothing is touched", needs [Rc, Atomics] as two_party;
        a_key_of_the_requesters_own_names_nothing_of_the_peers: "A key of the requester's own names nothing of the responder's", needs [Rc];
        a_region_of_another_protection_domain_is_refused: "A region is reached only through queue pairs of its protection domain", needs [Rc] as two_party;
        a_right_that_the_region_does_not_grant_is_refused: "A right that the region lacks is a remote access error", needs [Rc, Atomics] as two_party;
        one_byte_beyond_either_end_is_refused: "A single byte beyond either end of the region is refused", needs [Rc, Atomics] as two_party;
        a_long_write_that_runs_out_is_refused_before_its_first_byte: "A WRITE of many packets that ends beyond the region places nothing", needs [Rc] as two_party;
        an_address_that_overflows_is_refused: "An address and length that overflow 64 bits are refused", needs [Rc, Atomics] as two_party;
        a_deregistered_region_is_refused_and_its_key_does_not_come_back_soon:
            "A deregistered region's key is out of use at once", by "ibv_dereg_mr(3)", needs [Rc] as two_party;
        no_key_is_used_twice_in_tens_of_thousands_of_registrations: "Keys are not used again soon";
        what_the_queue_pair_does_not_allow_is_an_invalid_request_whatever_the_key_says:
            "A right that the queue pair lacks is an invalid request", by "InfiniBand vol. 1, 9.7.4; ibv_modify_qp(3), qp_access_flags", needs [Rc, Atomics] as two_party;
        a_bad_local_list_fails_here_and_the_peer_is_not_concerned:
            "A local entry that may not be used is a local protection error; the peer hears nothing", by "InfiniBand vol. 1, 11.6.2", needs [Rc, Atomics];
        a_bad_local_list_is_found_before_the_peer_is_asked: "A bad local entry is found though the peer has no receive", by "InfiniBand vol. 1, 11.6.2", needs [Rc];
        a_read_into_memory_that_may_not_be_written_fails_here: "READ needs the right to write locally, SEND does not", by "InfiniBand vol. 1, 11.6.2", needs [Rc];
        a_receive_with_a_bad_list_fails_on_both_sides:
            "A receive whose memory may not be written is a local protection error there and a remote operation error here",
            by "InfiniBand vol. 1, 11.6.2", needs [Rc];
        a_receive_is_checked_against_what_is_used_of_it: "Entries that a message does not reach are not checked", needs [Rc] as two_party;
        access_flags_that_contradict_each_other_are_refused: "Remote writing without local writing is refused", by "ibv_reg_mr(3)";
    }
    Errors by "InfiniBand vol. 1, 10.3.1" {
        the_survivors_of_a_violation_are_all_other_queue_pairs:
            "An error ends the queue pair it is about, and no other of the same domain or completion queue", needs [Rc];
    }
}

/// Posts one request at `remote`, and checks that it fails as a violation of the peer's memory does, touching nothing.
#[track_caller]
fn refused(a: &mut Node, b: &FarNode, post: impl FnOnce(&mut SendWrs<'_>)) {
    b.fill(0..MEMORY, 0x3c);
    let slice = a.mr.slice(0..8);
    let remote = b.remote().at(0);
    a.qp.post(|wr| {
        post(wr);
        wr.write(slice, remote).id(77);
    })
    .unwrap();
    let wc = a.one();
    assert_eq!(wc.status, WcStatus::RemAccessErr);
    assert_eq!(a.one().status, WcStatus::WrFlushErr, "what follows is flushed");
    assert_eq!(a.qp.state(), QpState::Err);
    b.expect_event(AsyncEventKind::QpAccessErr);
    b.await_state(QpState::Err);
    assert!(b.bytes(0..MEMORY).iter().all(|byte| *byte == 0x3c), "something was written");
}

/// The three one-sided operations at one remote address, each on a fresh pair.
#[track_caller]
fn all_refused(len: usize, at: impl Fn(&FarNode) -> RemoteAddr) {
    let (mut a, b) = far::pair("rc");
    let (slice, remote) = (a.mr.slice(0..len), at(&b));
    refused(&mut a, &b, |wr| _ = wr.write(slice, remote));
    let (mut a, b) = far::pair("rc");
    let (slice, remote) = (a.mr.slice(0..len), at(&b));
    refused(&mut a, &b, |wr| _ = wr.read(slice, remote));
    let (mut a, b) = far::pair("rc");
    let (slice, mut remote) = (a.mr.slice(0..8), at(&b));
    // Aligned, and so that it is not inside because of this.
    let down = remote.addr & !7;
    let inside = down.wrapping_sub(b.remote().addr) <= MEMORY as u64 - 8;
    remote.addr = if inside { down.wrapping_add(8) } else { down };
    if len >= 8 {
        refused(&mut a, &b, |wr| _ = wr.fetch_and_add(slice, remote, 1));
    }
}

fn a_key_that_names_nothing_is_refused() {
    for flip in [1, 0x8000, 0x1_0000, 0xffff_0000] {
        all_refused(8, |b| {
            let mut remote = b.remote().at(MEMORY as u64 - 8);
            remote.rkey ^= flip;
            remote
        });
    }
    all_refused(8, |b| RemoteAddr { rkey: 0, ..b.remote().at(0) });
}

fn a_key_of_the_requesters_own_names_nothing_of_the_peers() {
    let (mut a, b) = pair("rc");
    b.fill(0..64, 5);
    let (slice, remote) = (a.mr.slice(0..8), a.mr.remote().at(0));
    a.qp.post(|wr| _ = wr.write(slice, remote).id(1)).unwrap();
    a.expect(1, WcStatus::RemAccessErr);
    b.expect_event(AsyncEventKind::QpAccessErr);
    assert_eq!(b.bytes(0..64), [5; 64]);
}

fn a_region_of_another_protection_domain_is_refused() {
    for (mut a, b) in far::pairs("rc", Shape::default()) {
        let region = b.register(4096, all_access(), true);
        let (slice, remote) = (a.mr.slice(0..8), region.remote.at(0));
        refused(&mut a, &b, |wr| _ = wr.write(slice, remote));
        assert_eq!(b.bytes_of(&region, 0..8), [0; 8]);
    }
}

fn a_right_that_the_region_does_not_grant_is_refused() {
    let write = Access::LOCAL_WRITE | Access::REMOTE_WRITE;
    let atomic = Access::LOCAL_WRITE | Access::REMOTE_ATOMIC;
    for access in [Access::empty(), Access::LOCAL_WRITE, write, Access::REMOTE_READ, atomic] {
        for needed in [Access::REMOTE_WRITE, Access::REMOTE_READ, Access::REMOTE_ATOMIC] {
            let (mut a, b) = far::pair("rc");
            let region = b.register(4096, access, false);
            let (slice, remote) = (a.mr.slice(0..8), region.remote.at(0));
            let post = |wr: &mut SendWrs<'_>| match needed {
                Access::REMOTE_WRITE => _ = wr.write(slice, remote).id(1),
                Access::REMOTE_READ => _ = wr.read(slice, remote).id(1),
                _ => _ = wr.fetch_and_add(slice, remote, 1).id(1),
            };
            if access.contains(needed) {
                a.qp.post(post).unwrap();
                a.expect(1, WcStatus::Success);
            } else {
                refused(&mut a, &b, post);
            }
            let changed = access.contains(needed) && needed == Access::REMOTE_ATOMIC;
            assert_eq!(b.bytes_of(&region, 0..8), u64::from(changed).to_ne_bytes());
        }
    }
}

fn one_byte_beyond_either_end_is_refused() {
    all_refused(8, |b| b.remote().at(MEMORY as u64 - 7));
    all_refused(8, |b| b.remote().at(MEMORY as u64));
    all_refused(1, |b| b.remote().at(MEMORY as u64));
    all_refused(8, |b| b.remote().at(u64::MAX));
    all_refused(1, |b| b.remote().at(u64::MAX));
    let (mut a, b) = far::pair("rc");
    let region = b.register(4096, all_access(), false);
    let (one_more, at) = (a.mr.slice(0..4097), region.remote.at(0));
    refused(&mut a, &b, |wr| _ = wr.write(one_more, at));
    assert_eq!(b.bytes_of(&region, 4080..4096), [0; 16]);
}

fn a_long_write_that_runs_out_is_refused_before_its_first_byte() {
    const LONG: usize = 64 << 10;
    for missing in [1, LONG / 2] {
        let (mut a, b) = far::pair("rc");
        let (slice, remote) = (a.mr.slice(0..LONG), b.remote().at((MEMORY - LONG + missing) as u64));
        refused(&mut a, &b, |wr| _ = wr.write(slice, remote));
    }
}

fn an_address_that_overflows_is_refused() {
    for addr in [u64::MAX, u64::MAX - 6, u64::MAX - 7, 1 << 63] {
        all_refused(8, |b| RemoteAddr { addr, ..b.remote().at(0) });
    }
    let (mut a, b) = far::pair("rc");
    let (whole, remote) = (a.mr.slice(..), RemoteAddr { addr: u64::MAX - 10, ..b.remote().at(0) });
    refused(&mut a, &b, |wr| _ = wr.write(whole, remote));
}

fn a_deregistered_region_is_refused_and_its_key_does_not_come_back_soon() {
    let (mut a, b) = far::pair("rc");
    let region = b.register(4096, all_access(), false);
    let (slice, remote) = (a.mr.slice(0..8), region.remote.at(0));
    a.qp.post(|wr| _ = wr.write(slice, remote).id(1)).unwrap();
    a.expect(1, WcStatus::Success);
    b.deregister(&region);
    b.deregister(&region);
    // New regions take its place.
    for _ in 0..100 {
        b.register(4096, all_access(), false);
    }
    refused(&mut a, &b, |wr| _ = wr.write(slice, remote));
}

fn no_key_is_used_twice_in_tens_of_thousands_of_registrations() {
    let ctx = common::open().unwrap();
    let pd = ctx.alloc_pd().unwrap();
    let mut keys = HashSet::new();
    // More than the table has entries, so that they are used again.
    for round in 0..70_000 {
        let region = pd.register(vec![0_u8; 1], Access::REMOTE_READ).unwrap();
        assert!(keys.insert(region.rkey()), "a key was used again after {round} registrations");
    }
}

fn what_the_queue_pair_does_not_allow_is_an_invalid_request_whatever_the_key_says() {
    for forbidden in [Access::REMOTE_WRITE, Access::REMOTE_READ, Access::REMOTE_ATOMIC] {
        let (mut a, b) = far::pair_with(
            "rc",
            Shape::default(),
            &connection(|with| with.access = all_access() - forbidden),
        );
        b.fill(0..8, 1);
        let (slice, remote) = (a.mr.slice(0..8), b.remote().at(0));
        a.qp.post(|wr| match forbidden {
            Access::REMOTE_WRITE => _ = wr.write(slice, remote).id(1),
            Access::REMOTE_READ => _ = wr.read(slice, remote).id(1),
            _ => _ = wr.fetch_and_add(slice, remote, 1).id(1),
        })
        .unwrap();
        a.expect(1, WcStatus::RemInvReqErr);
        assert_eq!((a.bytes(0..8), b.bytes(0..8)), (vec![0; 8], vec![1; 8]));
        b.expect_event(AsyncEventKind::QpReqErr);
        b.await_state(QpState::Err);
    }
}

/// Lists that the requester's own device must refuse.
fn bad_lists(node: &Node) -> Vec<(&'static str, MrSlice)> {
    let good = node.mr.slice(0..8).sge();
    // SAFETY: none of these keys is that of a `Buffer`.
    let raw = |sge| MrSlice::from(unsafe { RawSge::new(sge) });
    let other_pd = node.ctx.alloc_pd().unwrap();
    let foreign = other_pd.alloc(4096, all_access()).unwrap();
    let gone = node.pd.alloc(4096, all_access()).unwrap();
    gone.deregister().unwrap();
    let lists = vec![
        ("wrong key", raw(Sge { lkey: good.lkey ^ 1, ..good })),
        ("key zero", raw(Sge { lkey: 0, ..good })),
        ("beyond the end", node.mr.slice(MEMORY - 7..MEMORY + 1)),
        ("before the beginning", raw(Sge { addr: good.addr - 1, ..good })),
        ("overflow", raw(Sge { addr: u64::MAX - 3, ..good })),
        ("other domain", foreign.slice(0..8)),
        ("deregistered", gone.slice(0..8)),
    ];
    // Kept registered as long as the test needs it.
    std::mem::forget(foreign);
    lists
}

fn a_bad_local_list_fails_here_and_the_peer_is_not_concerned() {
    for case in 0..7 {
        for operation in 0..4 {
            let (mut a, mut b) = pair("rc");
            b.fill(0..64, 5);
            b.post_recv(1, 0..64);
            let (what, bad) = bad_lists(&a).swap_remove(case);
            let (good, remote) = (a.mr.slice(0..8), b.mr.remote().at(0));
            a.qp.post(|wr| {
                match operation {
                    0 => wr.send(bad),
                    // The good part must not be sent alone.
                    1 => wr.write([good, bad], remote),
                    2 => wr.read(bad, remote),
                    _ => wr.fetch_and_add(bad, remote, 1),
                };
                wr.send(good).id(9);
            })
            .unwrap();
            assert_eq!(a.one().status, WcStatus::LocProtErr, "{what}, operation {operation}");
            a.expect(9, WcStatus::WrFlushErr);
            assert_eq!(a.qp.state(), QpState::Err);
            assert_eq!(b.bytes(0..64), [5; 64], "{what}, operation {operation}");
            b.expect_nothing();
            assert_eq!(b.qp.state(), QpState::Rts);
        }
    }
}

fn a_bad_local_list_is_found_before_the_peer_is_asked() {
    // On hardware the requester reads its own memory first, so the peer's readiness makes no difference.
    let (mut a, b) = pair_with("rc", |init| init, &connection(|with| with.rnr_retry = 7));
    let beyond = a.mr.slice(MEMORY..MEMORY + 8);
    a.qp.post(|wr| _ = wr.send(beyond).id(1)).unwrap();
    a.expect(1, WcStatus::LocProtErr);
    drop(b);
}

fn a_read_into_memory_that_may_not_be_written_fails_here() {
    let (mut a, b) = pair("rc");
    let read_only = a.pd.alloc(4096, Access::REMOTE_READ).unwrap();
    let (bad, remote) = (read_only.slice(0..8), b.mr.remote().at(0));
    b.fill(0..8, 7);
    a.qp.post(|wr| _ = wr.read(bad, remote).id(1)).unwrap();
    a.expect(1, WcStatus::LocProtErr);
    assert_eq!(read_only.load_u64(0), 0);
    // Sending from it is fine.
    let (mut a, mut b) = pair("rc");
    let read_only = a.pd.alloc(4096, Access::empty()).unwrap();
    b.post_recv(2, 0..8);
    a.qp.post(|wr| _ = wr.send(read_only.slice(0..8)).id(1)).unwrap();
    a.expect(1, WcStatus::Success);
    b.expect(2, WcStatus::Success);
}

fn a_receive_with_a_bad_list_fails_on_both_sides() {
    for case in 0..8 {
        for entries in [1, 2] {
            let (mut a, mut b) = pair("rc");
            let read_only = b.pd.alloc(4096, Access::REMOTE_READ).unwrap();
            let mut lists = bad_lists(&b);
            lists.push(("not writable", read_only.slice(0..8)));
            let (what, bad) = lists.swap_remove(case);
            let good = b.mr.slice(0..8);
            b.fill(0..64, 5);
            b.qp.post_recv(|rq| {
                if entries == 1 {
                    rq.recv(bad).id(1)
                } else {
                    rq.recv([good, bad]).id(1)
                };
                rq.recv(good).id(2);
            })
            .unwrap();
            a.post_send(3, 0..if entries == 1 { 8 } else { 16 });
            a.expect(3, WcStatus::RemOpErr);
            assert_eq!(a.qp.state(), QpState::Err);
            let wc = b.one();
            assert_eq!((wc.wr_id, wc.status), (1, WcStatus::LocProtErr), "{what}");
            b.expect(2, WcStatus::WrFlushErr);
            b.await_state(QpState::Err);
            assert_eq!(b.bytes(0..64), [5; 64], "{what}");
            assert_eq!(read_only.load_u64(0), 0);
        }
    }
}

fn a_receive_is_checked_against_what_is_used_of_it() {
    // A message that ends before the bad entry never touches it.
    let (mut a, b) = far::pair("rc");
    b.post_recv_list(1, &[0..8, MEMORY..MEMORY + 8]);
    a.post_send(2, 0..8);
    a.expect(2, WcStatus::Success);
    b.expect(1, WcStatus::Success);
}

fn the_survivors_of_a_violation_are_all_other_queue_pairs() {
    let ctx = common::open().unwrap();
    let (mut a, mut b) = (Node::new(QpType::Rc), Node::of(&ctx, QpType::Rc, |init| init));
    let (mut c, mut d) = (Node::of(&a.ctx, QpType::Rc, |init| init), Node::of(&ctx, QpType::Rc, |init| init));
    // The same completion queue, the same protection domain.
    c.qp = a.pd.create_qp(QpInit::rc(&a.cq)).unwrap();
    join(&mut a, &mut b, &common::patient());
    join(&mut c, &mut d, &common::patient());
    let (slice, remote) = (a.mr.slice(0..8), b.mr.remote().at(MEMORY as u64));
    a.qp.post(|wr| _ = wr.write(slice, remote).id(7)).unwrap();
    a.expect(7, WcStatus::RemAccessErr);
    b.expect_event(AsyncEventKind::QpAccessErr);
    b.await_state(QpState::Err);
    let bytes = pattern(4, 100);
    a.mr.write(0, &bytes);
    let (slice, remote) = (a.mr.slice(0..100), d.mr.remote().at(5));
    c.qp.post(|wr| _ = wr.write(slice, remote).id(8)).unwrap();
    let wc = a.one();
    assert_eq!((wc.wr_id, wc.status, wc.qp_num), (8, WcStatus::Success, c.qp.qp_num()));
    assert_eq!(d.bytes(5..105), bytes);
}

fn access_flags_that_contradict_each_other_are_refused() {
    let ctx = common::open().unwrap();
    let pd = ctx.alloc_pd().unwrap();
    for access in [Access::REMOTE_WRITE, Access::REMOTE_ATOMIC, Access::from_bits_retain(1 << 15)] {
        let error = pd.alloc(4096, access).unwrap_err();
        assert!(matches!(error, tbrdma::Error::InvalidArgument { .. }), "{error}");
        assert!(pd.register(vec![0_u8; 8], access).is_err());
    }
    assert!(pd.alloc(4096, Access::REMOTE_WRITE).unwrap_err().to_string().contains("LOCAL_WRITE"));
}
