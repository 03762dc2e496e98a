//! What our API costs over C on a native device, in instructions: `cargo bench -p tbrdma-ibverbs --bench native`.
//!
//! The same WRITE and the same poll, on the same library, our own libibverbs on shared memory: once through the device's own calls as a C program makes
//! them, once through `tbrdma` and its `native` device. The difference is what is counted and bounded.

#[path = "../../../benches/common/callgrind.rs"]
mod callgrind;
#[path = "../tests/common/mod.rs"]
mod common;

use common::verbs::*;
use core::ffi::{c_int, c_void};
use core::mem::MaybeUninit;
use core::ptr::null_mut;
use std::process::ExitCode;
use tbrdma::{Access, QpInit, WorkCompletion};

/// Work requests a queue holds.
const DEPTH: usize = 128;
/// Bytes of a message.
const BYTES: usize = 8;

/// Rounds of the shorter run; the longer one has twice as many.
const ROUNDS: u64 = 5_000;
/// Most instructions that a message may take through our API beyond those it takes in C: what it took when this was last set (46), and a fifth.
const CEILING: f64 = 55.0;

/// `IBV_QPT_RC`, `IBV_WR_RDMA_WRITE` and `IBV_SEND_SIGNALED`.
const RC: u32 = 2;
const WRITE: u32 = 0;
const SIGNALED: u32 = 2;
/// `IBV_ACCESS_LOCAL_WRITE` and `IBV_ACCESS_REMOTE_WRITE`.
const LOCAL_AND_REMOTE_WRITE: c_int = 1 | 1 << 1;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let [role, case, rounds] = &arguments[..]
        && role == "--count"
    {
        let rounds = rounds.parse().expect("a number");
        if case == "c" {
            in_c(rounds)
        } else {
            through_us(rounds)
        }
        return ExitCode::SUCCESS;
    }
    if let Some(code) = callgrind::cannot(&arguments) {
        return code;
    }
    let library = common::library();
    let variables = [("TBRDMA_VERBS_LIBRARY", library.as_os_str())];
    let count = |case| callgrind::of_a_round(case, ROUNDS, &variables);
    let (c, ours) = match (count("c"), count("ours")) {
        (Ok(c), Ok(ours)) => (c, ours),
        (Err(error), _) | (_, Err(error)) => {
            eprintln!("{error}");
            return ExitCode::FAILURE;
        }
    };
    let over = ours - c;
    println!(
        "write, poll: {c:.1} instructions in C, {ours:.1} through us; {over:.1} more; ceiling {CEILING}"
    );
    if over > CEILING { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

/// A WRITE and a poll a round, by the calls of the context's table.
fn in_c(rounds: u64) {
    let context = Context::open(Some("shm"));
    // Of the sizes that the pair through our API has: the library's own work is to be the same.
    let cq = call!(ibv_create_cq(
        context.0 => *mut ibv_context, 4 * DEPTH as c_int => c_int, null_mut() => *mut c_void,
        null_mut() => *mut ibv_comp_channel, 0 => c_int) -> *mut ibv_cq);
    let pd = context.pd();
    // Whole pages, as those are that our API allocates.
    let pages = Box::leak(vec![0_u8; 1 << 20].into_boxed_slice());
    let begin = pages.as_ptr().align_offset(4096);
    let bytes = &mut pages[begin..begin + 64 * DEPTH];
    let mr = reg_mr(pd, bytes, LOCAL_AND_REMOTE_WRITE);
    let depth = DEPTH as u32;
    let cap = ibv_qp_cap {
        max_send_wr: depth,
        max_recv_wr: depth,
        max_send_sge: 16,
        max_recv_sge: 3,
        max_inline_data: 64,
    };
    let [a, b] = [(); 2].map(|()| {
        let mut init = ibv_qp_init_attr { cap, ..init(cq, RC, null_mut()) };
        Qp(call!(ibv_create_qp(pd => *mut ibv_pd, &mut init => *mut ibv_qp_init_attr) -> *mut ibv_qp))
    });
    let (gid, lid) = (context.gid(), context.port().lid);
    a.connect(gid, lid, b.c().qp_num);
    b.connect(gid, lid, a.c().qp_num);
    let ops = &context.c().ops;
    // SAFETY: alive.
    let mr = unsafe { &*mr };
    let (rkey, lkey, address) = (mr.rkey, mr.lkey, mr.addr as u64);
    for _ in 0..rounds {
        let mut entry = ibv_sge { addr: address, length: BYTES as u32, lkey };
        let mut wr = ibv_send_wr {
            wr_id: 0,
            next: null_mut(),
            sg_list: &raw mut entry,
            num_sge: 1,
            opcode: WRITE,
            send_flags: SIGNALED,
            imm_data: MaybeUninit::uninit(),
            wr: ibv_send_wr_to { rdma: ibv_send_wr_rdma { remote_addr: address + 64, rkey } },
            remote_srqn: MaybeUninit::uninit(),
            more: ibv_send_wr_more { nothing: () },
        };
        let mut bad = null_mut();
        // SAFETY: a list of one, whose entry is alive.
        let posted = unsafe { (ops.post_send)(a.0, &raw mut wr, &raw mut bad) };
        assert_eq!(posted, 0);
        let mut wc = MaybeUninit::<ibv_wc>::uninit();
        // SAFETY: room for one.
        let polled = unsafe { (ops.poll_cq)(cq, 1, wc.as_mut_ptr()) };
        assert_eq!(polled, 1);
        // SAFETY: filled.
        assert_eq!(unsafe { wc.assume_init() }.status, 0);
    }
}

/// The same through our API, over the library that the environment names.
fn through_us(rounds: u64) {
    let ctx = tbrdma::open("native:shm").expect("the library's device");
    let pd = ctx.alloc_pd().expect("a protection domain");
    let cq = ctx.create_cq(4 * DEPTH as u32).expect("a completion queue");
    let init = || QpInit::rc(&cq).max_send_wr(DEPTH as u32).max_recv_wr(DEPTH as u32);
    let [mut a, mut b] = [(); 2].map(|()| pd.create_qp(init()).expect("a queue pair"));
    a.connect(&b.address()).expect("a finds b");
    b.connect(&a.address()).expect("b finds a");
    let mr = pd.alloc(64 * DEPTH, Access::LOCAL_WRITE | Access::REMOTE_WRITE).expect("memory");
    let peer = mr.remote();
    let mut wcs = [WorkCompletion::default()];
    for _ in 0..rounds {
        let posted = a.post(|wr| {
            wr.write(mr.slice(..BYTES), peer.at(64));
        });
        posted.expect("there is room");
        let polled = cq.poll(&mut wcs);
        assert_eq!(polled.len(), 1);
        polled[0].ok().expect("it succeeded");
    }
}
