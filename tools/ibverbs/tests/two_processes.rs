//! Two programs in C's manner, in two processes: every operation, with work requests of which only what counts is initialised.

#![allow(clippy::multiple_unsafe_ops_per_block, reason = "a C program has no blocks at all")]

mod common;

use common::process::{Child, hear, role, say};
use common::verbs::*;
use core::ptr::null_mut;

/// The operations' numbers.
const WRITE: u32 = 0;
const WRITE_IMM: u32 = 1;
const SEND: u32 = 2;
const SEND_IMM: u32 = 3;
const READ: u32 = 4;
const CMP_SWP: u32 = 5;
const FETCH_ADD: u32 = 6;
const INLINE: u32 = 8;

/// Both devices, in the one list that a process has.
const DEVICES: &str = "shm=shm,udp=udp:lo";

/// The bytes that a side registers.
const BYTES: usize = 8192;

/// A side: one connected queue pair, and memory of the program's own.
struct Side {
    memory: Vec<u64>,
    mr: *mut ibv_mr,
    cq: *mut ibv_cq,
    qp: Qp,
    context: Context,
    pd: *mut ibv_pd,
}

impl Side {
    fn open(device: &str) -> Self {
        let context = Context::open(Some(device));
        let (pd, cq) = (context.pd(), context.cq(null_mut()));
        let mut memory = vec![0_u64; BYTES / 8];
        // SAFETY: the vector's own bytes.
        let bytes = unsafe { core::slice::from_raw_parts_mut(memory.as_mut_ptr().cast::<u8>(), BYTES) };
        let mr = reg_mr(pd, bytes, ALL_RIGHTS);
        let qp = Qp::create(pd, cq, 2, null_mut());
        Self { memory, mr, cq, qp, context, pd }
    }

    /// What the peer must know.
    fn address(&self) -> String {
        let gid: String = self.context.gid().raw.iter().map(|byte| format!("{byte:02x}")).collect();
        // SAFETY: alive.
        let mr = unsafe { &*self.mr };
        format!("{gid} {} {} {} {}", self.context.port().lid, self.qp.c().qp_num, mr.addr as u64, mr.rkey)
    }

    /// Connects; the peer's memory: its address and key.
    fn connect(&self, peer: &str) -> (u64, u32) {
        let words: Vec<_> = peer.split(' ').collect();
        let mut gid = ibv_gid::default();
        for (at, byte) in gid.raw.iter_mut().enumerate() {
            *byte = u8::from_str_radix(&words[0][2 * at..2 * at + 2], 16).expect("hexadecimal");
        }
        let number = |at: usize| words[at].parse::<u64>().expect("a number");
        self.qp.connect(gid, number(1) as u16, number(2) as u32);
        (number(3), number(4) as u32)
    }

    /// The word of the memory at this offset, as the device may have written it.
    fn word(&self, offset: usize) -> u64 {
        // SAFETY: inside.
        unsafe { self.memory.as_ptr().add(offset / 8).read_volatile() }
    }

    fn set(&mut self, offset: usize, value: u64) {
        // SAFETY: inside.
        unsafe { self.memory.as_mut_ptr().add(offset / 8).write_volatile(value) };
    }

    fn close(self) {
        assert_eq!(self.qp.destroy(), 0);
        assert_eq!(call!(ibv_dereg_mr(self.mr => *mut ibv_mr) -> core::ffi::c_int), 0);
        assert_eq!(call!(ibv_destroy_cq(self.cq => *mut ibv_cq) -> core::ffi::c_int), 0);
        assert_eq!(call!(ibv_dealloc_pd(self.pd => *mut ibv_pd) -> core::ffi::c_int), 0);
        self.context.close();
    }
}

/// The other process: does what it is told, line by line.
#[test]
fn child() {
    let Some(device) = role() else { return };
    devices(DEVICES);
    let mut side = Side::open(&device);
    say(side.address());
    side.connect(&hear());
    say("connected");
    loop {
        let line = hear();
        let words: Vec<_> = line.split(' ').collect();
        let number = |at: usize| words[at].parse::<u64>().expect("a number");
        match words[0] {
            "recv" => {
                let mut sge = sge(side.mr, number(2), number(3) as u32);
                side.qp.recv(number(1), &mut sge);
                say("ok");
            }
            "wait" => {
                let wc = poll(side.cq, 1)[0];
                let imm = if wc.wc_flags & 2 == 0 { 0 } else { u32::from_be(wc.imm_data) };
                say(format_args!("{} {} {} {} {imm}", wc.wr_id, wc.status, wc.opcode, wc.byte_len));
            }
            "word" => say(side.word(number(1) as usize)),
            "set" => {
                side.set(number(1) as usize, number(2));
                say("ok");
            }
            "close" => {
                side.close();
                say("closed");
                return;
            }
            other => panic!("{other}"),
        }
    }
}

/// All operations from this process to another.
fn every_operation(device: &str) {
    devices(DEVICES);
    let mut side = Side::open(device);
    let mut peer = Child::start(device);
    let (remote_addr, rkey) = side.connect(&peer.hear());
    assert_eq!(peer.ask(side.address()), "connected");
    side.set(0, 0x1122_3344_5566_7788);
    side.set(8, 0x99aa_bbcc_ddee_ff00);
    let mut own = sge(side.mr, 0, 16);
    let done = |side: &Side, wr_id: u64, opcode: u32| {
        let wc = poll(side.cq, 1)[0];
        assert_eq!((wc.wr_id, wc.status, wc.opcode, wc.qp_num), (wr_id, 0, opcode, side.qp.c().qp_num));
    };

    assert_eq!(peer.ask("recv 5 1024 64"), "ok");
    let mut wr = send_wr(1, SEND, &mut own, 1);
    assert_eq!(side.qp.post_send(&mut wr).0, 0);
    done(&side, 1, 0);
    assert_eq!(peer.ask("wait"), "5 0 128 16 0");
    assert_eq!(peer.ask("word 1032"), 0x99aa_bbcc_ddee_ff00_u64.to_string());

    // Inline bytes need no key, and may be changed as soon as the call returns; immediate data is big endian.
    assert_eq!(peer.ask("recv 6 2048 64"), "ok");
    let mut outside = 0xfeed_u64;
    let mut from = ibv_sge { addr: (&raw const outside) as u64, length: 8, lkey: 0x1234_5678 };
    let mut wr = send_wr(2, SEND_IMM, &mut from, 1);
    wr.send_flags |= INLINE;
    wr.imm_data.write(0xabcd_u32.to_be());
    assert_eq!(side.qp.post_send(&mut wr).0, 0);
    outside = 0;
    done(&side, 2, 0);
    assert_eq!(peer.ask("wait"), format!("6 0 128 8 {}", 0xabcd));
    assert_eq!(peer.ask("word 2048"), format!("{}", 0xfeed));
    assert_eq!(outside, 0);

    let to = |offset: u64| ibv_send_wr_rdma { remote_addr: remote_addr + offset, rkey };
    let mut wr = send_wr(3, WRITE, &mut own, 1);
    wr.wr.rdma = to(4096);
    assert_eq!(side.qp.post_send(&mut wr).0, 0);
    done(&side, 3, 1);
    assert_eq!(peer.ask("word 4096"), 0x1122_3344_5566_7788_u64.to_string());

    assert_eq!(peer.ask("recv 7 0 0"), "ok");
    let mut wr = send_wr(4, WRITE_IMM, &mut own, 1);
    wr.wr.rdma = to(5000 / 8 * 8);
    wr.imm_data.write(77_u32.to_be());
    assert_eq!(side.qp.post_send(&mut wr).0, 0);
    done(&side, 4, 1);
    assert_eq!(peer.ask("wait"), "7 0 129 16 77");

    assert_eq!(peer.ask("set 6000 424242"), "ok");
    let mut into = sge(side.mr, 512, 8);
    let mut wr = send_wr(5, READ, &mut into, 1);
    wr.wr.rdma = to(6000);
    assert_eq!(side.qp.post_send(&mut wr).0, 0);
    done(&side, 5, 2);
    assert_eq!(side.word(512), 424_242);

    let mut wr = send_wr(6, FETCH_ADD, &mut into, 1);
    wr.wr.atomic =
        ibv_send_wr_atomic { remote_addr: remote_addr + 6000, compare_add: 58, swap: u64::MAX, rkey };
    assert_eq!(side.qp.post_send(&mut wr).0, 0);
    done(&side, 6, 4);
    assert_eq!(side.word(512), 424_242);
    let mut wr = send_wr(7, CMP_SWP, &mut into, 1);
    wr.wr.atomic =
        ibv_send_wr_atomic { remote_addr: remote_addr + 6000, compare_add: 424_300, swap: 9, rkey };
    assert_eq!(side.qp.post_send(&mut wr).0, 0);
    done(&side, 7, 3);
    assert_eq!((side.word(512), peer.ask("word 6000")), (424_300, "9".to_owned()));

    assert_eq!(peer.ask("close"), "closed");
    side.close();
}

#[test]
fn every_operation_works_over_shared_memory() {
    every_operation("shm");
}

#[test]
fn every_operation_works_over_udp() {
    every_operation("udp");
}
