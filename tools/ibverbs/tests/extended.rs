//! The extended interfaces: work requests by calls, completions by readers, objects shared by handles.

#![allow(clippy::multiple_unsafe_ops_per_block, reason = "a C program has no blocks at all")]

mod common;

use common::verbs::*;
use core::ffi::c_int;
use core::ptr::null_mut;

/// An extended queue pair connected to itself, with an extended completion queue, and a region.
fn looped() -> (Context, *mut ibv_pd, *mut ibv_cq_ex, *mut ibv_qp_ex, *mut ibv_mr) {
    let context = Context::open(None);
    let pd = context.pd();
    let mut attr = zeroed::<ibv_cq_init_attr_ex>();
    attr.cqe = 32;
    attr.wc_flags = 0x7f;
    let create = context.verbs().create_cq_ex.expect("offered");
    // SAFETY: the structure is whole.
    let cq = unsafe { create(context.0, &mut attr) };
    assert!(!cq.is_null());
    let base = init(cq.cast(), 2, null_mut());
    let mut attr = zeroed::<ibv_qp_init_attr_ex>();
    (attr.send_cq, attr.recv_cq, attr.cap, attr.qp_type) =
        (base.send_cq, base.recv_cq, base.cap, base.qp_type);
    (attr.comp_mask, attr.pd, attr.send_ops_flags) = (1 | 1 << 6, pd, 0x7f);
    let create = context.verbs().create_qp_ex.expect("offered");
    // SAFETY: as above.
    let qp = unsafe { create(context.0, &mut attr) };
    assert!(!qp.is_null(), "errno {}", errno());
    let extended = call!(ibv_qp_to_qp_ex(qp => *mut ibv_qp) -> *mut ibv_qp_ex);
    assert!(!extended.is_null());
    Qp(qp).connect(context.gid(), context.port().lid, Qp(qp).c().qp_num);
    let mr = reg_mr(pd, vec![7_u8; 4096].leak(), ALL_RIGHTS);
    (context, pd, cq, extended, mr)
}

/// Calls a function of the queue pair's own table.
macro_rules! wr {
    ($qp:ident.$slot:ident($($value:expr),*)) => {{
        // SAFETY: alive, and created with this operation.
        let function = unsafe { (*$qp).$slot }.expect("offered");
        // SAFETY: as above.
        unsafe { function($qp, $($value),*) }
    }};
}

/// Reads from the current completion.
macro_rules! read {
    ($cq:ident.$slot:ident()) => {{
        // SAFETY: alive.
        let function = unsafe { (*$cq).$slot }.expect("offered");
        // SAFETY: between a start and an end.
        unsafe { function($cq) }
    }};
}

fn set(qp: *mut ibv_qp_ex, wr_id: u64, flags: u32) {
    // SAFETY: a program writes these two.
    unsafe { (*qp).wr_id = wr_id };
    // SAFETY: as above.
    unsafe { (*qp).wr_flags = flags };
}

/// Starts polling once there is something.
fn start(cq: *mut ibv_cq_ex) {
    let begun = std::time::Instant::now();
    // SAFETY: alive.
    let start = unsafe { (*cq).start_poll }.expect("offered");
    let mut attr = ibv_poll_cq_attr { comp_mask: 0 };
    loop {
        // SAFETY: the structure is whole.
        match unsafe { start(cq, &mut attr) } {
            0 => return,
            other => assert_eq!(other, libc::ENOENT),
        }
        assert!(begun.elapsed().as_secs() < 30, "nothing completes");
    }
}

fn status(cq: *mut ibv_cq_ex) -> (u64, c_int) {
    // SAFETY: between a start and an end.
    unsafe { ((*cq).wr_id, (*cq).status) }
}

#[test]
fn a_list_by_calls_is_posted_whole() {
    let (_, _, cq, qp, mr) = looped();
    // SAFETY: alive.
    let (addr, key) = unsafe { ((*mr).addr as u64, (*mr).lkey) };
    let mut into = sge(mr, 1024, 64);
    Qp(qp.cast()).recv(50, &mut into);
    wr!(qp.wr_start());
    set(qp, 1, 0);
    wr!(qp.wr_rdma_write(key, addr + 2048));
    wr!(qp.wr_set_sge(key, addr, 32));
    set(qp, 2, 2);
    wr!(qp.wr_send_imm(0x1234_u32.to_be()));
    wr!(qp.wr_set_inline_data(c"inline".as_ptr().cast_mut().cast(), 6));
    set(qp, 3, 2);
    wr!(qp.wr_atomic_fetch_add(key, addr + 3072, 5));
    wr!(qp.wr_set_sge(key, addr + 3080, 8));
    assert_eq!(wr!(qp.wr_complete()), 0);
    let mut seen = Vec::new();
    start(cq);
    loop {
        seen.push((status(cq), read!(cq.read_opcode())));
        if status(cq).0 == 50 {
            assert_eq!(read!(cq.read_byte_len()), 6);
            assert_eq!(u32::from_be(read!(cq.read_imm_data())), 0x1234);
            assert_eq!(read!(cq.read_wc_flags()), 2);
            // SAFETY: alive.
            assert_eq!(read!(cq.read_qp_num()), unsafe { (*qp).base.qp_num });
        }
        if seen.len() == 3 {
            break;
        }
        let begun = std::time::Instant::now();
        while read!(cq.next_poll()) != 0 {
            assert!(begun.elapsed().as_secs() < 30, "nothing completes");
        }
    }
    assert_eq!(read!(cq.next_poll()), libc::ENOENT);
    read!(cq.end_poll());
    seen.sort_unstable();
    assert_eq!(seen, [((2, 0), 0), ((3, 0), 4), ((50, 0), 128)]);
    // SAFETY: inside the region.
    let word = |offset: usize| unsafe { ((*mr).addr.cast::<u8>().add(offset).cast::<u64>()).read_volatile() };
    assert_eq!((word(2048), word(3080)), (0x0707_0707_0707_0707, 0x0707_0707_0707_0707));
    assert_eq!(word(3072), 0x0707_0707_0707_0707 + 5);
}

#[test]
fn what_is_wrong_with_a_list_is_told_when_it_is_completed_and_nothing_is_posted() {
    let (_, _, cq, qp, mr) = looped();
    // SAFETY: alive.
    let (addr, key) = unsafe { ((*mr).addr as u64, (*mr).lkey) };
    let too_long = [0_u8; 64];
    wr!(qp.wr_start());
    set(qp, 1, 2);
    wr!(qp.wr_rdma_write(key, addr + 2048));
    wr!(qp.wr_set_sge(key, addr, 32));
    set(qp, 2, 2);
    wr!(qp.wr_rdma_write(key, addr + 2048));
    wr!(qp.wr_set_inline_data(too_long.as_ptr().cast_mut().cast(), too_long.len()));
    assert_eq!(wr!(qp.wr_complete()), libc::EINVAL);
    wr!(qp.wr_start());
    set(qp, 3, 2);
    wr!(qp.wr_rdma_write(key, addr + 2048));
    wr!(qp.wr_abort());
    // The queue is free again, and only this is on it.
    wr!(qp.wr_start());
    set(qp, 4, 2);
    wr!(qp.wr_rdma_read(key, addr));
    wr!(qp.wr_set_sge(key, addr + 512, 32));
    assert_eq!(wr!(qp.wr_complete()), 0);
    let wc = poll(cq.cast(), 1)[0];
    assert_eq!((wc.wr_id, wc.status, wc.opcode), (4, 0, 2));
    let mut none = [zeroed::<ibv_wc>()];
    // SAFETY: alive.
    let ops = unsafe { &(*(*cq).base.context).ops };
    // SAFETY: room for one.
    assert_eq!(unsafe { (ops.poll_cq)(cq.cast(), 1, none.as_mut_ptr()) }, 0);
}

#[test]
fn a_queue_pair_changes_its_state_in_the_middle_of_a_list() {
    let (_, _, cq, qp, mr) = looped();
    // SAFETY: alive.
    let (addr, key) = unsafe { ((*mr).addr as u64, (*mr).lkey) };
    let mut attr = zeroed::<ibv_qp_attr>();
    for (state, posted) in [(6, 0), (0, libc::EINVAL)] {
        wr!(qp.wr_start());
        set(qp, 7, 2);
        wr!(qp.wr_send());
        attr.qp_state = state;
        assert_eq!(Qp(qp.cast()).modify(&mut attr, 1), 0);
        wr!(qp.wr_set_sge(key, addr, 8));
        assert_eq!(wr!(qp.wr_complete()), posted);
        if posted == 0 {
            let wc = poll(cq.cast(), 1)[0];
            assert_eq!((wc.wr_id, wc.status), (7, 5));
        }
    }
}

#[test]
fn a_plain_queue_pair_has_no_calls_and_what_is_not_offered_is_refused() {
    let (context, pd, cq, ..) = looped();
    let qp = Qp::create(pd, cq.cast(), 2, null_mut());
    assert!(call!(ibv_qp_to_qp_ex(qp.0 => *mut ibv_qp) -> *mut ibv_qp_ex).is_null());
    let mut attr = zeroed::<ibv_qp_init_attr_ex>();
    (attr.send_cq, attr.recv_cq, attr.qp_type) = (cq.cast(), cq.cast(), 2);
    (attr.comp_mask, attr.pd) = (1 | 1 << 6, pd);
    for (qp_type, flags) in [(2, 1 << 10), (2, 1 << 12), (4, 1)] {
        (attr.qp_type, attr.send_ops_flags) = (qp_type, flags);
        // SAFETY: the structure is whole.
        let qp = unsafe { context.verbs().create_qp_ex.expect("offered")(context.0, &mut attr) };
        assert!(qp.is_null());
        assert_eq!(errno(), libc::EOPNOTSUPP, "{qp_type} {flags:#x}");
    }
}

#[test]
fn a_device_its_domain_and_its_region_are_imported() {
    use std::os::fd::{AsRawFd, BorrowedFd};
    let (context, pd, _, _, mr) = looped();
    // SAFETY: open.
    let command =
        unsafe { BorrowedFd::borrow_raw(context.c().cmd_fd) }.try_clone_to_owned().expect("a descriptor");
    let imported = Context(call!(ibv_import_device(command.as_raw_fd() => c_int) -> *mut ibv_context));
    assert!(!imported.0.is_null(), "errno {}", errno());
    // SAFETY: alive.
    let (pd_handle, mr_handle) = unsafe { ((*pd).handle, (*mr).handle) };
    let other = call!(ibv_import_pd(imported.0 => *mut ibv_context, pd_handle => u32) -> *mut ibv_pd);
    let region = call!(ibv_import_mr(other => *mut ibv_pd, mr_handle => u32) -> *mut ibv_mr);
    // SAFETY: alive.
    assert_eq!(unsafe { ((*region).lkey, (*region).length) }, unsafe { ((*mr).lkey, (*mr).length) });
    assert!(call!(ibv_import_pd(imported.0 => *mut ibv_context, 4711 => u32) -> *mut ibv_pd).is_null());
    assert_eq!(errno(), libc::ENOENT);
    call!(ibv_unimport_mr(region => *mut ibv_mr));
    call!(ibv_unimport_pd(other => *mut ibv_pd));
    imported.close();
    // Another descriptor is no device.
    let null = std::fs::File::open("/dev/null").expect("a file");
    assert!(call!(ibv_import_device(null.as_raw_fd() => c_int) -> *mut ibv_context).is_null());
    assert_eq!(errno(), libc::EINVAL);
}

#[test]
fn the_devices_clock_counts_nanoseconds_and_what_else_is_asked_for_is_not_told() {
    let context = Context::open(None);
    let query = context.verbs().query_rt_values.expect("offered");
    let clock = |asked| {
        let mut values = zeroed::<ibv_values_ex>();
        values.comp_mask = asked;
        // SAFETY: the structure is whole.
        assert_eq!(unsafe { query(context.0, &mut values) }, 0);
        (values.comp_mask, values.raw_clock.tv_sec, values.raw_clock.tv_nsec)
    };
    let begun = std::time::Instant::now();
    let (mask, seconds, first) = clock(IBV_VALUES_MASK_RAW_CLOCK | 1 << 5);
    assert_eq!((mask, seconds), (IBV_VALUES_MASK_RAW_CLOCK, 0));
    std::thread::sleep(std::time::Duration::from_millis(2));
    let passed = i128::from(clock(IBV_VALUES_MASK_RAW_CLOCK).2) - i128::from(first);
    assert!((2_000_000..=begun.elapsed().as_nanos() as i128).contains(&passed), "{passed} ns");
    assert_eq!(clock(1 << 5), (0, 0, 0));
    // SAFETY: no structure.
    assert_eq!(unsafe { query(context.0, null_mut()) }, libc::EINVAL);
    let mut attr = zeroed::<ibv_device_attr_ex>();
    let ask = context.verbs().query_device_ex.expect("offered");
    // SAFETY: room for the answer, and nothing more asked for.
    assert_eq!(unsafe { ask(context.0, null_mut(), &mut attr, size_of::<ibv_device_attr_ex>()) }, 0);
    assert_eq!(attr.hca_core_clock, 1_000_000, "kHz");
}
