//! The trace: what calls were given, readably; and what is kept of it, told at a signal that stays the program's.

#![allow(clippy::multiple_unsafe_ops_per_block, reason = "a C program has no blocks at all")]

mod common;
#[path = "common/program.rs"]
mod program;

use common::process::{go_on_alone, role, say};
use common::verbs::*;
use core::ffi::{c_int, c_void};
use core::ptr::null_mut;
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, kill, raise, sigaction};
use nix::unistd::getpid;
use program::Program;
use std::os::unix::process::ExitStatusExt;
use std::sync::atomic::{AtomicU32, Ordering};

#[test]
fn child() {
    let Some(role) = role() else { return };
    program::signals_are_as_usual();
    no_core();
    match role.as_str() {
        "write" => write(),
        "hang" => hang(),
        "own_before" => own_handler(true),
        "own_after" => own_handler(false),
        "sigwait" => sigwait(),
        other => panic!("{other}"),
    }
}

/// A signal that ends this process leaves no file.
fn no_core() {
    let none = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: a structure to read.
    assert_eq!(unsafe { libc::setrlimit(libc::RLIMIT_CORE, &none) }, 0);
}

/// A queue pair connected to itself that writes once.
fn write() {
    let context = Context::open(None);
    let (pd, cq) = (context.pd(), context.cq(null_mut()));
    let mr = reg_mr(pd, vec![0_u8; 4096].leak(), ALL_RIGHTS);
    let qp = Qp::create(pd, cq, 2, null_mut());
    qp.connect(context.gid(), context.port().lid, qp.c().qp_num);
    qp.recv(4, &mut sge(mr, 0, 64));
    let mut wr = send_wr(7, 1, &mut sge(mr, 1024, 8), 1);
    // SAFETY: alive.
    let own = unsafe { &*mr };
    wr.wr.rdma = ibv_send_wr_rdma { remote_addr: own.addr as u64 + 2048, rkey: own.rkey };
    wr.imm_data.write(0x1234_u32.to_be());
    assert_eq!(qp.post_send(&mut wr).0, 0);
    poll(cq, 2);
    assert_eq!(qp.destroy(), 0);
    say("written");
}

#[test]
fn calls_are_written_with_what_they_were_given() {
    let path = std::env::temp_dir().join(format!("tbrdma-trace-{}", std::process::id()));
    let mut program = Program::start("write", &[("TBRDMA_TRACE", path.to_str().expect("UTF-8"))]);
    program.until_said("written");
    let text = std::fs::read_to_string(&path).expect("a trace");
    std::fs::remove_file(&path).expect("it is there");
    let mut lines = text.lines();
    for expected in [
        &["ibv_alloc_pd(context=mlx5_0) = PD "][..],
        &["ibv_reg_mr(", "length=4096, flags=15) = MR {4096 bytes at ", "rkey "],
        &["ibv_create_qp(pd=PD ", "init={Rc, send_cq CQ ", "max_send_wr 8, ", ") = QP 0x"],
        &["ibv_modify_qp(qp=QP 0x"],
        &[
            "    to Init, access LOCAL_WRITE | REMOTE_WRITE | REMOTE_READ | REMOTE_ATOMIC, pkey_index 0, port 1",
        ],
        &["    to Rtr, ", "dgid fe80::", "path_mtu ", "rq_psn ", "min_rnr_timer 12"],
        &["    to Rts, timeout ", ", retry_cnt 7, rnr_retry 7, "],
        &["post_recv(qp=QP 0x"],
        &["    wr_id 4: 64 bytes at 0x"],
        &["post_send(qp=QP 0x", ") = 0 <0.0"],
        &["    wr_id 7: RdmaWriteWithImm SIGNALED, peer's 0x", "imm 0x1234, 8 bytes at 0x", " (lkey 0x"],
        &["    completion on QP ", "wr_id "],
        &["ibv_destroy_qp(qp=QP 0x", ") = 0"],
    ] {
        let found = lines.any(|line| expected.iter().all(|part| line.contains(part)));
        assert!(found, "{expected:?} in its place in\n{text}");
    }
}

/// Waits for an event that never comes.
fn hang() {
    let context = Context::open(None);
    for _ in 0..20 {
        context.gid();
    }
    let channel = context.channel();
    say("waiting");
    let (mut cq, mut cq_context) = (null_mut(), null_mut());
    call!(ibv_get_cq_event(
        channel => *mut ibv_comp_channel, &mut cq => *mut *mut ibv_cq, &mut cq_context => *mut *mut c_void) -> c_int);
}

#[test]
fn who_hangs_tells_the_last_calls_and_the_one_it_is_in() {
    let env = [("TBRDMA_TRACE_LAST", "10"), ("TBRDMA_TRACE_SIGNAL", "URG")];
    let mut program = Program::start("hang", &env);
    program.until_said("waiting");
    // It is about to make the call. The signal does nothing by itself, so it can be asked again.
    let trace = loop {
        program.signal(Signal::SIGURG);
        let trace = program.trace();
        if trace.iter().any(|line| line.contains("has been in ibv_get_cq_event(channel=channel ")) {
            break trace;
        }
    };
    assert!(trace[0].contains("the last 10 of "), "{trace:?}");
    assert_eq!(
        trace.iter().filter(|line| line.contains("ibv_query_gid(context=mlx5_0")).count(),
        9,
        "{trace:?}"
    );
    assert!(trace[10].contains("ibv_create_comp_channel(context=mlx5_0) = channel "), "{trace:?}");
}

#[test]
fn the_signal_ends_a_program_that_does_not_handle_it() {
    let mut program = Program::start("hang", &[("TBRDMA_TRACE_LAST", "10")]);
    program.until_said("waiting");
    program.signal(Signal::SIGQUIT);
    let trace = program.trace();
    assert!(trace[0].contains("the last 10 of "), "{trace:?}");
    let (_, _, status) = program.end();
    assert_eq!(status.signal(), Some(libc::SIGQUIT));
}

static HANDLED: AtomicU32 = AtomicU32::new(0);

extern "C" fn handle(_: c_int) {
    HANDLED.fetch_add(1, Ordering::Relaxed);
}

/// Handles the signal itself, from before or after it uses verbs on.
fn own_handler(before: bool) {
    let install = || {
        let action = SigAction::new(SigHandler::Handler(handle), SaFlags::empty(), SigSet::empty());
        // SAFETY: the handler only counts.
        unsafe { sigaction(Signal::SIGQUIT, &action) }.expect("a handler");
    };
    if before {
        install();
    }
    let context = Context::open(None);
    if !before {
        install();
    }
    context.gid();
    for _ in 0..3 {
        raise(Signal::SIGQUIT).expect("a signal");
    }
    context.close();
    say(format_args!("handled {}", HANDLED.load(Ordering::Relaxed)));
}

/// Takes the signal as programs with threads do: blocked everywhere, waited for in one.
fn sigwait() {
    go_on_alone();
    let mut signals = SigSet::empty();
    signals.add(Signal::SIGQUIT);
    signals.thread_block().expect("a mask");
    let context = Context::open(None);
    context.gid();
    kill(getpid(), Signal::SIGQUIT).expect("a signal");
    assert_eq!(signals.wait().expect("the signal"), Signal::SIGQUIT);
    context.close();
    say("handled 3");
    // Of a process that forked there is no thread of the test harness that would end it.
    std::process::exit(0);
}

#[test]
fn a_program_that_handles_the_signal_keeps_it() {
    for role in ["own_before", "own_after", "sigwait"] {
        let program = Program::start(role, &[("TBRDMA_TRACE_LAST", "10")]);
        let (said, _, status) = program.end();
        assert!(said.contains("@handled 3") && status.success(), "{role}: {status:?}: {said}");
    }
}
