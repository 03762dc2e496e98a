//! What becomes of messages on a Mac's Thunderbolt port: credit, frames, what is lost, and where addresses go wrong.

#![allow(clippy::multiple_unsafe_ops_per_block, reason = "a C program has no blocks at all")]

mod common;
mod mac;

use common::verbs::*;
use core::ptr::null_mut;
use mac::port::*;
use mac::program;
use std::time::Instant;

const APPLE: &str = "apple-tb5";

#[test]
fn a_send_waits_for_its_receive_and_none_is_lost() {
    program(a_send_waits_for_its_receive_and_none_is_lost, APPLE, &[], || {
        for devices in PAIRS {
            let [mut a, mut b] = pair(devices, 32, 16 * FRAME);
            for id in 0..4 {
                a.put(id * FRAME, 10 + id as u8, FRAME);
                a.send(id as u64, id * FRAME, FRAME);
            }
            a.expect_nothing();
            for id in 0..4 {
                b.recv(id, FRAME * id as usize, FRAME);
                a.expect(id, SUCCESS);
                assert_eq!(b.expect(id, SUCCESS).byte_len as usize, FRAME);
                assert_eq!(b.get(FRAME * id as usize, FRAME), [10 + id as u8; FRAME]);
                a.expect_nothing();
            }
        }
    });
}

#[test]
fn a_send_waits_for_a_peer_that_is_not_ready() {
    program(a_send_waits_for_a_peer_that_is_not_ready, APPLE, &[], || {
        for devices in PAIRS {
            let mut ends = devices.map(|device| End::open(device, 32, 4 * FRAME));
            let [a, b] = &ends;
            assert_eq!([a.init(), b.init(), a.rtr(b), a.rts()], [0; 4]);
            // As programs do that post everything they have and then meet.
            a.send(1, 0, FRAME);
            b.recv(2, 0, FRAME);
            ends[0].expect_nothing();
            let [a, b] = &ends;
            assert_eq!([b.rtr(a), b.rts()], [0; 2]);
            ends[0].expect(1, SUCCESS);
            ends[1].expect(2, SUCCESS);
        }
    });
}

#[test]
fn both_sides_post_equally_many_frames_or_the_receiver_has_a_length_error() {
    let test = both_sides_post_equally_many_frames_or_the_receiver_has_a_length_error;
    program(test, APPLE, &[], || {
        for devices in PAIRS {
            let [mut a, mut b] = pair(devices, 32, 8 * FRAME);
            for (sent, room, status) in [
                (4 * FRAME, 4 * FRAME, SUCCESS),
                (4 * FRAME, FRAME, LOC_LEN_ERR),
                (4 * FRAME, 8 * FRAME, LOC_LEN_ERR),
                (3 * FRAME + 1, 4 * FRAME, SUCCESS),
                (5, FRAME, SUCCESS),
                (2 * FRAME, 2 * FRAME - 1, LOC_LEN_ERR),
            ] {
                b.recv(1, 0, room);
                a.send(2, 0, sent);
                // The sender does not learn it: its completion says that it was sent.
                a.expect(2, SUCCESS);
                b.expect(1, status);
            }
        }
    });
}

#[test]
fn a_send_completion_is_not_delivery() {
    let lossy = [("TBRDMA_FAULT", "loss=50%"), ("TBRDMA_SEED", "7")];
    program(a_send_completion_is_not_delivery, APPLE, &lossy, || {
        let [mut a, mut b] = pair(PAIRS[1], 1000, FRAME);
        (0..300).for_each(|id| b.recv(id, 0, 64));
        for id in 0..100 {
            a.send(id, 0, 64);
            a.expect(id, SUCCESS);
        }
        let begun = Instant::now();
        while b.look() == 0 {
            assert!(begun.elapsed() < common::process::PATIENCE, "nothing arrives at all");
        }
        // What was not lost is there by now, or will not be all the same.
        for _ in 0..1000 {
            b.look();
        }
        assert!(b.look() < 100, "half was lost");
    });
}

#[test]
fn a_write_completes_and_writes_nothing() {
    program(a_write_completes_and_writes_nothing, APPLE, &[], || {
        for devices in PAIRS {
            let [mut a, mut b] = pair(devices, 32, FRAME);
            a.put(0, 9, FRAME);
            let mut from = sge(a.mr, 0, 64);
            let mut wr = send_wr(1, WRITE, &mut from, 1);
            // SAFETY: alive.
            let (addr, rkey) = unsafe { ((*b.mr).addr as u64, (*b.mr).rkey) };
            wr.wr.rdma = ibv_send_wr_rdma { remote_addr: addr, rkey };
            assert_eq!(a.qp.post_send(&mut wr).0, 0);
            a.expect(1, SUCCESS);
            b.expect_nothing();
            assert_eq!(b.get(0, 64), [0; 64]);
        }
    });
}

#[test]
fn writes_can_be_found_by_refusing_them() {
    program(writes_can_be_found_by_refusing_them, "apple-tb5,write=refused", &[], || {
        let [mut a, b] = pair(PAIRS[0], 32, FRAME);
        b.recv(1, 0, 64);
        let mut from = sge(a.mr, 0, 64);
        let mut wrong = send_wr(2, WRITE, &mut from, 1);
        wrong.wr.rdma = ibv_send_wr_rdma { remote_addr: 0, rkey: 0 };
        let mut first = send_wr(1, SEND, &mut from, 1);
        first.next = &mut wrong;
        assert_eq!(a.qp.post_send(&mut first), (libc::EINVAL, &raw mut wrong));
        a.expect(1, SUCCESS);
    });
}

#[test]
fn an_empty_send_may_be_lost() {
    program(an_empty_send_may_be_lost, "apple-tb5,empty-send=lost", &[], || {
        for devices in PAIRS {
            let [mut a, mut b] = pair(devices, 32, FRAME);
            b.recv(1, 0, 64);
            a.send(2, 0, 0);
            a.expect(2, SUCCESS);
            b.expect_nothing();
        }
    });
}

#[test]
fn receives_before_rts_are_taken() {
    program(receives_before_rts_are_taken, APPLE, &[], || {
        for devices in PAIRS {
            let mut ends = devices.map(|device| End::open(device, 32, FRAME));
            assert_eq!(ends[1].init(), 0);
            ends[1].recv(1, 0, FRAME);
            assert_eq!(ends[1].qp.modify(&mut zeroed(), 1), 0);
            join(&ends);
            ends[1].recv(2, 0, FRAME);
            ends[0].send(3, 0, FRAME);
            ends[1].expect(2, SUCCESS);
        }
    });
}

#[test]
fn another_report_has_receives_before_rts_at_bad_addresses() {
    let test = another_report_has_receives_before_rts_at_bad_addresses;
    program(test, "apple-tb5,early-recv=refused", &[], || {
        for devices in PAIRS {
            let [a, b] = &devices.map(|device| End::open(device, 32, FRAME));
            assert_eq!(a.init(), 0);
            assert_eq!(a.try_recv(1, 0, FRAME), libc::EFAULT);
            assert_eq!(a.rtr(b), 0);
            assert_eq!(a.try_recv(1, 0, FRAME), libc::EFAULT);
            assert_eq!(a.rts(), 0);
            a.recv(1, 0, FRAME);
        }
    });
}

#[test]
fn without_an_ipv4_address_there_is_no_second_gid_and_no_connection_by_it() {
    let test = without_an_ipv4_address_there_is_no_second_gid_and_no_connection_by_it;
    program(test, "apple-tb5,ipv4=off", &[], || {
        for devices in PAIRS {
            let [a, b] = &devices.map(|device| End::open(device, 32, FRAME));
            assert_eq!(a.gid(1).raw, [0; 16]);
            assert_eq!(a.init(), 0);
            assert_eq!(a.rtr(b), libc::EINVAL);
        }
    });
}

/// Bytes on either side of a multiple of 4 GiB.
const BESIDE: usize = 64 << 10;

/// Memory of this process around a multiple of 4 GiB; `None` if all of them are taken.
fn across_4_gib() -> Option<*mut u8> {
    let (rights, flags) = (
        libc::PROT_READ | libc::PROT_WRITE,
        libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED_NOREPLACE,
    );
    (16..4096_usize).find_map(|number| {
        let at = core::ptr::without_provenance_mut::<libc::c_void>((number << 32) - BESIDE);
        // SAFETY: nothing that is mapped is replaced.
        let mapped = unsafe { libc::mmap(at, 2 * BESIDE, rights, flags, -1, 0) };
        // A kernel that does not know the flag takes the address as a wish.
        (mapped == at).then(|| mapped.cast())
    })
}

/// A message each way across the boundary: how many of the bytes that lie past it arrive.
fn arrive_past_the_boundary() -> Option<[usize; 2]> {
    let memory = across_4_gib()?;
    let mut ends =
        [End::with_memory("rdma_en2", 32, memory, 2 * BESIDE), End::open("rdma_en3", 32, 2 * BESIDE)];
    join(&ends);
    for end in &ends {
        end.put(0, 7, 2 * BESIDE);
    }
    let mut right = |from: usize, begin: [usize; 2]| {
        let to = 1 - from;
        ends[to].put(begin[to], 0, FRAME);
        ends[to].recv(1, begin[to], FRAME);
        ends[from].send(2, begin[from], FRAME);
        ends[from].expect(2, SUCCESS);
        // Nobody is told.
        assert_eq!(ends[to].expect(1, SUCCESS).byte_len as usize, FRAME);
        let bytes = ends[to].get(begin[to], FRAME);
        assert!(bytes[..1024].iter().all(|byte| *byte == 7), "what lies before the boundary is well");
        let right = bytes[1024..].iter().filter(|byte| **byte == 7).count();
        ends[to].put(begin[to], 7, FRAME);
        right
    };
    let across = [BESIDE - 1024, 0];
    Some([right(0, across), right(1, across)])
}

#[test]
fn what_lies_past_4_gib_goes_elsewhere() {
    program(what_lies_past_4_gib_goes_elsewhere, "apple-tb5,alias-4gib=on", &[], || {
        match arrive_past_the_boundary() {
            Some(right) => assert_eq!(right, [0; 2]),
            None => common::skip("no multiple of 4 GiB is free"),
        }
    });
}

#[test]
fn what_lies_past_4_gib_arrives_unless_the_switch_is_on() {
    program(what_lies_past_4_gib_arrives_unless_the_switch_is_on, APPLE, &[], || {
        match arrive_past_the_boundary() {
            Some(right) => assert_eq!(right, [FRAME - 1024; 2]),
            None => common::skip("no multiple of 4 GiB is free"),
        }
    });
}

#[test]
fn entries_past_4_gib_can_be_found_by_refusing_them() {
    program(entries_past_4_gib_can_be_found_by_refusing_them, "apple-tb5,alias-4gib=refused", &[], || {
        let Some(memory) = across_4_gib() else { return common::skip("no multiple of 4 GiB is free") };
        let ends = [End::with_memory("rdma_en2", 32, memory, 2 * BESIDE), End::open("rdma_en3", 32, FRAME)];
        join(&ends);
        let [a, _] = &ends;
        assert_eq!(a.try_recv(1, BESIDE - FRAME, FRAME), 0);
        assert_eq!(a.try_recv(2, BESIDE - FRAME, FRAME + 1), libc::EINVAL);
        let mut from = sge(a.mr, BESIDE as u64 - 8, 16);
        let mut wr = send_wr(3, SEND, &mut from, 1);
        wr.next = null_mut();
        assert_eq!(a.qp.post_send(&mut wr), (libc::EINVAL, &raw mut wr));
    });
}
