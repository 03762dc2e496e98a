//! RDMA READ on reliable connections.

use crate::case::cases;
use crate::common::{MEMORY, connection, pair_with, pattern};
use crate::far::{self, Shape};
use tbrdma::{MrSlice, WcOpcode, WcStatus};

cases! {
    Rc by "InfiniBand vol. 1, 9.4.4" {
        a_read_fetches_the_bytes_and_the_peer_is_not_told: "READ fetches the bytes, and completes at the requester alone", needs [Rc] as two_party;
        the_last_byte_and_the_whole_region_can_be_read: "A region can be read to its last byte, and whole", needs [Rc] as two_party;
    }
    Shapes by "ibv_post_send(3)" {
        many_entries_are_scattered_in_order: "READ scatters to many entries in their order, empty ones among them", needs [Rc] as two_party;
    }
    Memory by "InfiniBand vol. 1, 9.7.4.1.5 and C9-88" {
        a_read_of_no_bytes_checks_no_key: "Without bytes no key is checked", needs [Rc] as two_party;
    }
    Ordering by "InfiniBand vol. 1, 9.5" {
        a_read_sees_the_writes_posted_before_it: "A READ sees the WRITEs posted before it on its queue pair", needs [Rc] as two_party;
    }
    Errors by "ibv_modify_qp(3), max_dest_rd_atomic" {
        a_responder_without_resources_for_reads_refuses_them: "A responder without resources for READs answers with an invalid request", needs [Rc, Atomics];
    }
}

fn a_read_fetches_the_bytes_and_the_peer_is_not_told() {
    for (mut a, b) in far::pairs("rc", Shape::default()) {
        b.post_recv(9, 0..8);
        let bytes = pattern(5, 3000);
        b.write(99, &bytes);
        a.fill(0..4096, 0xaa);
        let (to, from) = (a.mr.slice(3..3003), b.remote().at(99));
        a.qp.post(|wr| _ = wr.read(to, from).id(1)).unwrap();
        let wc = a.expect(1, WcStatus::Success);
        assert_eq!((wc.opcode, wc.byte_len), (WcOpcode::RdmaRead, 3000));
        assert_eq!(a.bytes(3..3003), bytes);
        assert!(a.bytes(0..3).iter().chain(&a.bytes(3003..4096)).all(|byte| *byte == 0xaa));
        b.expect_nothing();
    }
}

fn many_entries_are_scattered_in_order() {
    let (mut a, b) = far::pair_shaped("rc", Shape { max_sge: Some(32), ..Shape::default() });
    let bytes = pattern(6, 4096);
    b.write(1, &bytes);
    let (mut list, mut places) = (Vec::new(), Vec::new());
    for entry in 0..32 {
        let (at, len) = ((31 - entry) * 256 + entry, if entry % 5 == 4 { 0 } else { 1 + entry * 3 });
        list.push(a.mr.slice(at..at + len));
        places.extend(at..at + len);
    }
    let from = b.remote().at(1);
    a.qp.post(|wr| _ = wr.read(list, from).id(1)).unwrap();
    assert_eq!(a.expect(1, WcStatus::Success).byte_len as usize, places.len());
    let mut expected = vec![0; 8192];
    for (place, byte) in places.iter().zip(&bytes) {
        expected[*place] = *byte;
    }
    assert!(a.bytes(0..8192) == expected);
}

fn the_last_byte_and_the_whole_region_can_be_read() {
    let (mut a, b) = far::pair("rc");
    let bytes = pattern(7, MEMORY);
    b.write(0, &bytes);
    let (one, all) = (a.mr.slice(0..1), a.mr.slice(..));
    let remote = b.remote();
    a.qp.post(|wr| _ = wr.read(one, remote.at(MEMORY as u64 - 1)).id(1)).unwrap();
    a.expect(1, WcStatus::Success);
    assert_eq!(a.bytes(0..1), bytes[MEMORY - 1..]);
    a.qp.post(|wr| _ = wr.read(all, remote.at(0)).id(2)).unwrap();
    a.expect(2, WcStatus::Success);
    assert!(a.bytes(0..MEMORY) == bytes);
}

fn a_read_of_no_bytes_checks_no_key() {
    let (mut a, b) = far::pair("rc");
    let mut from = b.remote().at(0);
    from.rkey ^= 0xffff;
    a.qp.post(|wr| {
        let nothing: [MrSlice; 0] = [];
        wr.read(nothing, from).id(1);
    })
    .unwrap();
    assert_eq!(a.expect(1, WcStatus::Success).byte_len, 0);
}

fn a_read_sees_the_writes_posted_before_it() {
    let (mut a, b) = far::pair("rc");
    let (word, remote) = (a.mr.slice(0..8), b.remote().at(8));
    for value in 0..500_u64 {
        a.qp.post(|wr| {
            wr.write_inline(&value.to_ne_bytes(), remote).unsignaled();
            wr.read(word, remote).id(value).fence();
        })
        .unwrap();
        a.expect(value, WcStatus::Success);
        assert_eq!(a.mr.load_u64(0), value);
    }
}

fn a_responder_without_resources_for_reads_refuses_them() {
    let (mut a, b) = pair_with("rc", |init| init, &connection(|with| with.max_dest_rd_atomic = 0));
    let (word, remote) = (a.mr.slice(0..8), b.mr.remote().at(0));
    a.fill(0..8, 3);
    a.qp.post(|wr| _ = wr.read(word, remote).id(1)).unwrap();
    a.expect(1, WcStatus::RemInvReqErr);
    assert_eq!(a.bytes(0..8), [3; 8]);
    b.expect_event(tbrdma::AsyncEventKind::QpReqErr);
    b.await_state(tbrdma::QpState::Err);
}
