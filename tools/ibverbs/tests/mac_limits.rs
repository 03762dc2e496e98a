//! How much there is of everything on a Mac's Thunderbolt port, what it says of itself, and what a program hears that wants more.

#![allow(clippy::multiple_unsafe_ops_per_block, reason = "a C program has no blocks at all")]

mod common;
mod mac;

use common::process::{Child, hear, role, say};
use common::verbs::*;
use core::ffi::{CStr, c_int};
use core::ptr::null_mut;
use mac::port::*;
use mac::program;

const APPLE: &str = "apple-tb5";

/// A device, with one of each.
fn port(device: &str) -> (Context, *mut ibv_pd, *mut ibv_cq) {
    let context = Context::open(Some(device));
    (context, context.pd(), context.cq(null_mut()))
}

/// Makes objects until one is refused: how many there were, and why not more.
fn exhaust<T>(mut make: impl FnMut() -> Result<T, i32>) -> (Vec<T>, i32) {
    let mut made = Vec::new();
    loop {
        match make() {
            Ok(one) => made.push(one),
            Err(errno) => return (made, errno),
        }
        assert!(made.len() < 1000, "no end of them");
    }
}

fn try_pd(context: Context) -> Result<*mut ibv_pd, i32> {
    let pd = call!(ibv_alloc_pd(context.0 => *mut ibv_context) -> *mut ibv_pd);
    if pd.is_null() { Err(errno()) } else { Ok(pd) }
}

#[test]
fn unreliable_connections_are_all_there_is() {
    program(unreliable_connections_are_all_there_is, APPLE, &[], || {
        for device in PAIRS.map(|pair| pair[0]) {
            let (_, pd, cq) = port(device);
            for qp_type in [RC, UD] {
                let refused = create_qp(pd, &mut ibv_qp_init_attr { qp_type, ..uc(cq, 32) });
                assert_eq!(refused.err(), Some(libc::EOPNOTSUPP), "{qp_type}");
            }
            assert!(create_qp(pd, &mut uc(cq, 32)).is_ok());
            let mut init = zeroed::<ibv_srq_init_attr>();
            (init.attr.max_wr, init.attr.max_sge) = (1, 1);
            let srq =
                call!(ibv_create_srq(pd => *mut ibv_pd, &mut init => *mut ibv_srq_init_attr) -> *mut ibv_srq);
            assert!(srq.is_null());
            assert_eq!(errno(), libc::EOPNOTSUPP);
        }
    });
}

#[test]
fn one_entry_and_no_inline_bytes() {
    program(one_entry_and_no_inline_bytes, APPLE, &[], || {
        for device in PAIRS.map(|pair| pair[0]) {
            let end = End::open(device, 32, FRAME);
            for change in [
                |cap: &mut ibv_qp_cap| cap.max_send_sge = 2,
                |cap: &mut ibv_qp_cap| cap.max_recv_sge = 2,
                |cap: &mut ibv_qp_cap| cap.max_inline_data = 1,
            ] {
                let mut wrong = uc(end.cq, 32);
                change(&mut wrong.cap);
                assert_eq!(create_qp(end.pd, &mut wrong).err(), Some(libc::EINVAL));
            }
            let [cap, _] = end.granted();
            assert_eq!((cap.max_send_sge, cap.max_recv_sge, cap.max_inline_data), (1, 1, 0));
        }
        let [a, b] = &pair(PAIRS[0], 32, FRAME);
        let mut two = [sge(a.mr, 0, 8), sge(a.mr, 8, 8)];
        let mut wr = send_wr(1, SEND, two.as_mut_ptr(), 2);
        assert_eq!(a.qp.post_send(&mut wr), (libc::EINVAL, &raw mut wr));
        let mut wr = send_wr(1, SEND, two.as_mut_ptr(), 1);
        wr.send_flags |= 8;
        assert_eq!(a.qp.post_send(&mut wr), (libc::EINVAL, &raw mut wr));
        let mut two = [sge(b.mr, 0, 8), sge(b.mr, 8, 8)];
        let mut wr = ibv_recv_wr { wr_id: 1, next: null_mut(), sg_list: two.as_mut_ptr(), num_sge: 2 };
        assert_eq!(b.qp.post_recv(&mut wr), (libc::EINVAL, &raw mut wr));
    });
}

/// Depths of both queues.
fn depths(cap: ibv_qp_cap) -> (u32, u32) {
    (cap.max_send_wr, cap.max_recv_wr)
}

#[test]
fn depths_count_frames_and_are_read_back() {
    program(depths_count_frames_and_are_read_back, APPLE, &[], || {
        for device in PAIRS.map(|pair| pair[0]) {
            let (_, pd, cq) = port(device);
            for (asked, granted) in [(1, 1023), (32, 1023), (256, 1023), (1024, 2047), (4095, 4095)] {
                let mut init = uc(cq, asked);
                init.cap.max_recv_wr = 32;
                let qp = create_qp(pd, &mut init).expect("a queue pair");
                // Also what was passed says what was granted.
                assert_eq!(depths(init.cap), (granted, 1023));
                assert_eq!(qp.destroy(), 0);
            }
            assert_eq!(create_qp(pd, &mut uc(cq, 4096)).err(), Some(libc::EINVAL));
        }
        for device in PAIRS.map(|pair| pair[0]) {
            assert_eq!(End::open(device, 1024, FRAME).granted().map(depths), [(2047, 2047); 2]);
        }
    });
}

#[test]
fn another_build_grants_one_frame_less_than_was_asked() {
    program(another_build_grants_one_frame_less_than_was_asked, "apple-tb5,rounding=off", &[], || {
        let [a, mut b] = pair(PAIRS[0], 64, 64 * FRAME);
        assert_eq!(a.granted().map(depths), [(63, 63); 2]);
        // 60 frames and three, and then none.
        b.recv(1, 0, 60 * FRAME);
        (2..5).for_each(|id| b.recv(id, 0, 1));
        assert_eq!(b.try_recv(5, 0, 1), libc::ENOMEM);
        // What was polled makes room.
        a.send(9, 0, 60 * FRAME);
        b.expect(1, SUCCESS);
        b.recv(6, 0, 60 * FRAME);
        assert_eq!(b.try_recv(7, 0, 1), libc::ENOMEM);
    });
}

#[test]
fn more_than_was_granted_may_be_lost_silently() {
    program(more_than_was_granted_may_be_lost_silently, "apple-tb5,rounding=off,overrun=silent", &[], || {
        for devices in PAIRS {
            let [a, mut b] = pair(devices, 5, 16 * FRAME);
            (0..8).for_each(|id| b.recv(id, 0, FRAME));
            for id in 0..4 {
                a.send(id, 0, FRAME);
                b.expect(id, SUCCESS);
            }
            a.send(4, 0, FRAME);
            b.expect_nothing();
        }
    });
}

#[test]
fn the_longest_message_has_4095_frames() {
    program(the_longest_message_has_4095_frames, "apple-tb5,mr-size=reported", &[], || {
        const LONGEST: usize = MAX_FRAMES * FRAME;
        let [mut a, mut b] = pair(PAIRS[0], 4095, LONGEST + FRAME);
        assert_eq!(a.context.port().max_msg_sz, 16_773_120);
        a.put(LONGEST - 1, 77, 2);
        b.recv(1, 0, LONGEST);
        a.send(2, 0, LONGEST);
        a.expect(2, SUCCESS);
        assert_eq!(b.expect(1, SUCCESS).byte_len as usize, LONGEST);
        assert_eq!(b.get(LONGEST - 1, 2), [77, 0]);
        assert_eq!(a.try_send(3, 0, LONGEST + 1), libc::ENOMEM);
        assert_eq!(b.try_recv(4, 0, LONGEST + 1), libc::ENOMEM);
    });
}

#[test]
fn ten_queue_pairs_of_each_device_then_busy() {
    program(ten_queue_pairs_of_each_device_then_busy, APPLE, &[], || {
        for device in ["rdma_en2", "rdma_en3", "rdma_en4"] {
            let (context, pd, cq) = port(device);
            let mut attr = nonsense::<ibv_device_attr>();
            let asked = call!(ibv_query_device(context.0 => *mut ibv_context, &mut attr => *mut ibv_device_attr) -> c_int);
            assert_eq!((asked, attr.max_qp), (0, 11));
            let (qps, errno) = exhaust(|| create_qp(pd, &mut uc(cq, 32)));
            assert_eq!((qps.len(), errno), (10, libc::EBUSY), "{device}");
            // Who opens it once more has the same port, and gets none either.
            let (_again, pd, cq) = port(device);
            assert_eq!(create_qp(pd, &mut uc(cq, 32)).err(), Some(libc::EBUSY));
            assert_eq!(qps[3].destroy(), 0);
            assert!(create_qp(pd, &mut uc(cq, 32)).is_ok());
        }
    });
}

#[test]
fn a_hundred_regions_of_each_device_then_none() {
    program(a_hundred_regions_of_each_device_then_none, APPLE, &[], || {
        let memory = vec![0_u8; 101 * FRAME].leak().as_mut_ptr();
        for device in ["rdma_en2", "rdma_en3", "rdma_en4"] {
            let (_, pd, _) = port(device);
            let mut at = 0..;
            let mut next = || memory.wrapping_add(at.next().expect("a number") % 101 * FRAME);
            let (mrs, errno) = exhaust(|| register(pd, next(), FRAME, 0x7));
            assert_eq!((mrs.len(), errno), (100, libc::ENOMEM), "{device}");
            assert_eq!(call!(ibv_dereg_mr(mrs[7] => *mut ibv_mr) -> c_int), 0);
            assert!(register(pd, memory, FRAME, 0x7).is_ok());
        }
    });
}

#[test]
fn eleven_domains_and_eleven_completion_queues() {
    program(eleven_domains_and_eleven_completion_queues, APPLE, &[], || {
        for device in ["rdma_en2", "rdma_en4"] {
            let context = Context::open(Some(device));
            let (pds, pd_errno) = exhaust(|| try_pd(context));
            assert_eq!((pds.len(), pd_errno), (11, libc::ENOMEM), "{device}");
            let (cqs, cq_errno) = exhaust(|| {
                let cq = call!(ibv_create_cq(
                    context.0 => *mut ibv_context, 64 => c_int, null_mut() => *mut core::ffi::c_void,
                    null_mut() => *mut ibv_comp_channel, 0 => c_int) -> *mut ibv_cq);
                if cq.is_null() { Err(errno()) } else { Ok(cq) }
            });
            assert_eq!((cqs.len(), cq_errno), (11, libc::ENOMEM), "{device}");
        }
    });
}

#[test]
fn what_the_device_and_its_port_say_of_themselves() {
    program(what_the_device_and_its_port_say_of_themselves, APPLE, &[], || {
        let mut count = 0;
        let list = call!(ibv_get_device_list(&mut count => *mut c_int) -> *mut *mut ibv_device);
        let names: Vec<_> = (0..count as usize)
            .map(|at| {
                // SAFETY: so many devices.
                let device = unsafe { &**list.add(at) };
                assert_eq!(device.transport_type, 100, "Thunderbolt");
                // SAFETY: a text in the device.
                unsafe { CStr::from_ptr(device.name.as_ptr()) }.to_str().expect("ASCII")
            })
            .collect();
        assert_eq!(names, ["rdma_en2", "rdma_en3", "rdma_en4", "rdma_en5"]);
        for device in names {
            let end = End::open(device, 32, FRAME);
            let mut attr = nonsense::<ibv_device_attr>();
            let context = end.context.0;
            assert_eq!(
                call!(ibv_query_device(context => *mut ibv_context, &mut attr => *mut ibv_device_attr) -> c_int),
                0
            );
            assert_eq!((attr.vendor_id, attr.vendor_part_id, attr.max_mr_size), (0, 0, 16_384_000));
            assert_eq!((attr.max_pd, attr.max_cq, attr.max_mr, attr.max_qp), (11, 11, 100, 11));
            assert_eq!((attr.max_sge, attr.max_qp_wr, attr.max_srq, attr.max_qp_rd_atom), (1, 4095, 0, 0));
            let port = end.context.port();
            // Active; 4096 bytes.
            assert_eq!((port.state, port.active_mtu, port.link_layer), (4, 5, 100));
            // Programs that are not on Ethernet end without one.
            assert_ne!(port.lid, 0, "{device}");
            // Of a link, as all GIDs of a cable are; the loopback interface has no such address.
            if PAIRS[0].contains(&device) {
                assert_eq!(end.gid(0).raw[..8], [0xfe, 0x80, 0, 0, 0, 0, 0, 0], "{device}");
            }
            assert_eq!(end.gid(1).raw[..12], [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff], "{device}");
            // SAFETY: alive.
            assert_eq!(unsafe { (*end.mr).rkey }, 0);
        }
    });
}

#[test]
fn regions_that_are_too_long_and_regions_for_local_writing() {
    let test = regions_that_are_too_long_and_regions_for_local_writing;
    program(test, APPLE, &[], || {
        const LONGEST: usize = 16_384_000;
        let memory = vec![0_u8; LONGEST + 1].leak().as_mut_ptr();
        let (_, pd, _) = port("rdma_en2");
        assert_eq!(register(pd, memory, LONGEST + 1, 0x7).err(), Some(libc::EINVAL));
        assert!(register(pd, memory, LONGEST, 0x7).is_ok());
        assert!(register(pd, memory, FRAME, 1).is_ok());
    });
}

#[test]
fn another_report_has_local_writing_alone_refused() {
    program(another_report_has_local_writing_alone_refused, "apple-tb5,local-only-mr=refused", &[], || {
        let memory = vec![0_u8; FRAME].leak().as_mut_ptr();
        let (_, pd, _) = port("rdma_en2");
        assert_eq!(register(pd, memory, FRAME, 1).err(), Some(libc::EINVAL));
        assert!(register(pd, memory, FRAME, 0x7).is_ok());
    });
}

/// A program that makes queue pairs when it is told to.
#[test]
fn child() {
    if role().as_deref() != Some("holder") {
        return;
    }
    let _library = mac::load();
    let (_, pd, cq) = port("rdma_en2");
    loop {
        let line = hear();
        match line.split_once(' ').expect("two words") {
            ("create", count) => {
                let mut left = count.parse::<u32>().expect("a number");
                let (made, errno) = exhaust(|| {
                    left = left.checked_sub(1).ok_or(0)?;
                    create_qp(pd, &mut uc(cq, 32))
                });
                say(format_args!("{} {errno}", made.len()));
            }
            ("clear", _) => say(tbrdma::ledger::clear().expect("a ledger")),
            (other, _) => panic!("{other}"),
        }
    }
}

#[test]
fn what_a_killed_program_held_stays_taken_until_the_ledger_is_cleared() {
    let file = std::env::temp_dir().join(format!("tbrdma-test-{}-mac", std::process::id())).join("ledger");
    let start = || {
        let mut environment = mac::environment("apple-tb5,ledger=on", PORTS);
        environment.push(("TBRDMA_LEDGER", file.to_str().expect("UTF-8").to_owned()));
        let environment: Vec<_> = environment.iter().map(|(name, value)| (*name, value.as_str())).collect();
        Child::start_with("holder", &environment)
    };
    let mut victim = start();
    assert_eq!(victim.ask("create 7"), "7 0");
    victim.bury();
    // One that ends without giving anything back leaves it as well.
    let mut careless = start();
    assert_eq!(careless.ask("create 2"), "2 0");
    assert!(careless.reap().success());
    let mut next = start();
    assert_eq!(next.ask("create 10"), format!("1 {}", libc::EBUSY));
    assert_eq!(next.ask("clear now"), "2");
    assert_eq!(next.ask("create 10"), format!("9 {}", libc::EBUSY));
    drop(next);
    std::fs::remove_dir_all(file.parent().expect("a folder")).expect("it is ours");
}
