//! RDMA WRITE on reliable connections: the bytes, their bounds, and writes that also complete a receive.

use crate::case::cases;
use crate::common;
use crate::common::{MEMORY, pair, pattern};
use crate::far::{self, Shape};
use tbrdma::{MrSlice, WcFlags, WcOpcode, WcStatus};

cases! {
    Rc by "InfiniBand vol. 1, 9.4.3" {
        a_write_places_its_bytes_and_tells_only_the_writer: "WRITE places its bytes, and completes at the requester alone", needs [Rc] as two_party;
        a_write_with_immediate_completes_a_receive_that_it_does_not_fill:
            "WRITE with immediate takes a receive and leaves its memory alone", needs [Rc] as two_party;
        a_write_with_immediate_and_no_receive_writes_nothing_until_there_is_one:
            "WRITE with immediate that finds no receive waits for one", by "InfiniBand vol. 1, 9.7.5.2.8", needs [Rc] as two_party;
    }
    Shapes by "ibv_post_send(3)" {
        inline_writes_are_taken_when_posted: "Inline bytes of a WRITE may be changed as soon as the post returns", needs [Rc] as two_party;
        many_entries_are_gathered_in_order: "WRITE gathers from many entries in their order, empty ones among them", needs [Rc] as two_party;
    }
    Memory by "InfiniBand vol. 1, 10.6.3" {
        a_write_of_no_bytes_checks_no_key: "Without bytes no key is checked", by "InfiniBand vol. 1, 9.7.4.1.5 and C9-88", needs [Rc] as two_party;
        the_last_byte_of_a_region_can_be_written: "A region can be written to its last byte", needs [Rc] as two_party;
        zero_based_regions_are_named_by_offsets: "A zero-based region is named by offsets", by "ibv_reg_mr(3)", needs [Rc];
    }
    Ordering by "InfiniBand vol. 1, 9.5" {
        writes_of_a_list_land_in_order: "WRITEs to one place land in the order of their posting", needs [Rc] as two_party;
    }
}

fn a_write_places_its_bytes_and_tells_only_the_writer() {
    for (mut a, b) in far::pairs("rc", Shape::default()) {
        b.post_recv(9, 0..8);
        b.fill(0..4096, 0xaa);
        let bytes = pattern(1, 1000);
        a.mr.write(13, &bytes);
        let (from, to) = (a.mr.slice(13..1013), b.remote().at(77));
        a.qp.post(|wr| _ = wr.write(from, to).id(5)).unwrap();
        assert_eq!(a.expect(5, WcStatus::Success).opcode, WcOpcode::RdmaWrite);
        assert_eq!(b.bytes(77..1077), bytes);
        assert!(b.bytes(0..77).iter().chain(&b.bytes(1077..4096)).all(|byte| *byte == 0xaa));
        b.expect_nothing();
    }
}

fn a_write_with_immediate_completes_a_receive_that_it_does_not_fill() {
    for (mut a, b) in far::pairs("rc", Shape::default()) {
        b.fill(0..256, 0xaa);
        b.post_recv(1, 0..64);
        b.post_recv_list(2, &[]);
        a.fill(0..100, 7);
        let (from, to) = (a.mr.slice(0..100), b.remote());
        a.qp.post(|wr| {
            wr.write_with_imm(from, to.at(128), 0xfeed_f00d).id(3);
            let nothing: [MrSlice; 0] = [];
            wr.write_with_imm(nothing, to.at(0), 4).id(4);
        })
        .unwrap();
        assert_eq!(a.expect(3, WcStatus::Success).opcode, WcOpcode::RdmaWrite);
        a.expect(4, WcStatus::Success);
        let wc = b.expect(1, WcStatus::Success);
        assert_eq!((wc.opcode, wc.imm_data, wc.byte_len), (WcOpcode::RecvRdmaWithImm, 0xfeed_f00d, 100));
        assert_eq!(wc.wc_flags, WcFlags::WITH_IMM);
        let wc = b.expect(2, WcStatus::Success);
        assert_eq!((wc.imm_data, wc.byte_len), (4, 0));
        assert!(b.bytes(0..128).iter().all(|byte| *byte == 0xaa));
        assert_eq!(b.bytes(128..228), [7; 100]);
        assert!(b.bytes(228..256).iter().all(|byte| *byte == 0xaa));
    }
}

fn a_write_with_immediate_and_no_receive_writes_nothing_until_there_is_one() {
    let (mut a, b) = far::pair("rc");
    a.fill(0..8, 1);
    let (from, to) = (a.mr.slice(0..8), b.remote().at(0));
    a.qp.post(|wr| _ = wr.write_with_imm(from, to, 1).id(1)).unwrap();
    a.expect_nothing();
    b.post_recv_list(2, &[]);
    a.expect(1, WcStatus::Success);
    b.expect(2, WcStatus::Success);
    assert_eq!(b.bytes(0..8), [1; 8]);
}

fn inline_writes_are_taken_when_posted() {
    let (mut a, b) = far::pair_shaped("rc", Shape { max_inline_data: Some(300), ..Shape::default() });
    for len in [0, 1, 7, 64, 65, 300] {
        let mut bytes = pattern(len as u64, len);
        let to = b.remote().at(10);
        b.fill(0..400, 0);
        let sent = bytes.clone();
        a.qp.post(|wr| _ = wr.write_inline(&bytes, to).id(len as u64)).unwrap();
        bytes.fill(0xff);
        a.expect(len as u64, WcStatus::Success);
        assert_eq!(b.bytes(10..10 + len), sent);
        assert_eq!(b.bytes(10 + len..10 + len + 1), [0]);
    }
}

fn many_entries_are_gathered_in_order() {
    let (mut a, b) = far::pair_shaped("rc", Shape { max_sge: Some(32), ..Shape::default() });
    let bytes = pattern(3, 8192);
    a.mr.write(0, &bytes);
    let mut list = Vec::new();
    let mut expected = Vec::new();
    for entry in 0..32 {
        // From the end of the memory to its beginning, with lengths from 1 to 125 and an empty entry now and then.
        let (at, len) = ((31 - entry) * 256 + entry, if entry % 7 == 6 { 0 } else { 1 + entry * 4 });
        list.push(a.mr.slice(at..at + len));
        expected.extend_from_slice(&bytes[at..at + len]);
    }
    let to = b.remote().at(1);
    a.qp.post(|wr| _ = wr.write(list, to).id(1)).unwrap();
    a.expect(1, WcStatus::Success);
    assert_eq!(b.bytes(1..1 + expected.len()), expected);
    assert_eq!(b.bytes(1 + expected.len()..2 + expected.len()), [0]);
}

fn a_write_of_no_bytes_checks_no_key() {
    // IBTA volume 1, C9-88: the key of an RDMA WRITE of no bytes is not looked at.
    let (mut a, b) = far::pair("rc");
    let mut to = b.remote().at(u64::MAX);
    to.rkey ^= 0xffff;
    let nothing = a.mr.slice(0..0);
    a.qp.post(|wr| {
        wr.write(nothing, to).id(1);
        wr.write_inline(b"", to).id(2);
    })
    .unwrap();
    a.expect(1, WcStatus::Success);
    a.expect(2, WcStatus::Success);
    b.expect_nothing();
}

fn the_last_byte_of_a_region_can_be_written() {
    let (mut a, b) = far::pair("rc");
    a.fill(0..4096, 0x5a);
    let one = a.mr.slice(0..1);
    let page = a.mr.slice(0..4096);
    let remote = b.remote();
    a.qp.post(|wr| {
        wr.write(one, remote.at(MEMORY as u64 - 1)).id(1);
    })
    .unwrap();
    a.expect(1, WcStatus::Success);
    assert_eq!(b.bytes(MEMORY - 2..MEMORY), [0, 0x5a]);
    a.qp.post(|wr| _ = wr.write(page, remote.at(MEMORY as u64 - 4096)).id(2)).unwrap();
    a.expect(2, WcStatus::Success);
    assert_eq!(b.bytes(MEMORY - 4097..MEMORY - 4095), [0, 0x5a]);
}

fn writes_of_a_list_land_in_order() {
    let (mut a, b) = far::pair_shaped("rc", Shape { max_send_wr: Some(64), ..Shape::default() });
    let to = b.remote().at(0);
    for round in 0..200_u64 {
        a.qp.post(|wr| {
            for step in 0..10 {
                wr.write_inline(&(round * 10 + step).to_ne_bytes(), to).unsignaled();
            }
            wr.write_inline(&(round * 10 + 10).to_ne_bytes(), to).id(round);
        })
        .unwrap();
        a.expect(round, WcStatus::Success);
        assert_eq!(b.load_u64(0), round * 10 + 10);
    }
}

fn zero_based_regions_are_named_by_offsets() {
    let (mut a, b) = pair("rc");
    let region = b.pd.alloc(4096, common::all_access() | tbrdma::Access::ZERO_BASED).unwrap();
    assert_eq!(region.addr(), 0);
    let to = region.remote().at(100);
    assert_eq!(to.addr, 100);
    a.qp.post(|wr| _ = wr.write_inline(b"offset", to).id(1)).unwrap();
    a.expect(1, WcStatus::Success);
    let mut bytes = [0; 6];
    region.read(100, &mut bytes);
    assert_eq!(&bytes, b"offset");
}
