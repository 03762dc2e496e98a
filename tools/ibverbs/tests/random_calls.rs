//! Calls in any order, with values that make sense and values that do not: nothing crashes, and in the end everything can be destroyed.
//!
//! A failure names the seed of its sequence; `TBRDMA_SEED` runs that one alone.

#![allow(clippy::multiple_unsafe_ops_per_block, reason = "a C program has no blocks at all")]

mod common;

use common::verbs::*;
use core::ffi::{c_int, c_void};
use core::ptr::null_mut;

/// Sequences of a run, and calls of a sequence.
const SEQUENCES: u64 = 60;
const CALLS: u32 = 150;

/// A small generator of numbers (SplitMix64).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ mixed >> 31
    }

    fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound as u64) as usize
    }

    /// Mostly one of these, at times anything.
    fn of(&mut self, usual: &[u32]) -> u32 {
        if self.below(8) == 0 { self.next() as u32 } else { usual[self.below(usual.len())] }
    }

    /// Mostly one of a list, at times NULL.
    fn pick<T>(&mut self, list: &[*mut T]) -> *mut T {
        if list.is_empty() || self.below(16) == 0 { null_mut() } else { list[self.below(list.len())] }
    }
}

/// What a sequence has made.
#[derive(Default)]
struct World {
    pds: Vec<*mut ibv_pd>,
    mrs: Vec<*mut ibv_mr>,
    channels: Vec<*mut ibv_comp_channel>,
    cqs: Vec<*mut ibv_cq>,
    srqs: Vec<*mut ibv_srq>,
    qps: Vec<*mut ibv_qp>,
    ahs: Vec<*mut ibv_ah>,
}

fn keep<T>(made: *mut T, list: &mut Vec<*mut T>) {
    if made.is_null() {
        assert_ne!(errno(), 0);
    } else {
        list.push(made);
    }
}

/// Destroys a random one; it leaves the list if that worked.
fn destroy<T>(random: &mut Random, list: &mut Vec<*mut T>, destroy: impl Fn(*mut T) -> c_int) {
    let object = random.pick(list);
    match destroy(object) {
        0 => list.retain(|known| *known != object),
        libc::EBUSY => {}
        libc::EINVAL => assert!(object.is_null()),
        other => panic!("{other}"),
    }
}

impl World {
    fn entry(&self, random: &mut Random) -> ibv_sge {
        let mr = random.pick(&self.mrs);
        if mr.is_null() {
            return ibv_sge { addr: random.next(), length: random.next() as u32, lkey: random.next() as u32 };
        }
        let length = random.of(&[0, 1, 8, 64, 4096, 4097]);
        sge(mr, random.below(4096) as u64, length)
    }

    fn create_qp(&mut self, random: &mut Random) {
        let (cq, srq) =
            (random.pick(&self.cqs), if random.below(3) == 0 { random.pick(&self.srqs) } else { null_mut() });
        let mut init = init(cq, random.of(&[2, 3, 4, 2]), srq);
        init.cap.max_send_wr = random.of(&[0, 1, 16, 1 << 20]);
        init.cap.max_recv_sge = random.of(&[0, 1, 4, 100]);
        init.cap.max_inline_data = random.of(&[0, 64, 1 << 16]);
        let pd = random.pick(&self.pds);
        keep(
            call!(ibv_create_qp(pd => *mut ibv_pd, &mut init => *mut ibv_qp_init_attr) -> *mut ibv_qp),
            &mut self.qps,
        );
    }

    /// Connects a queue pair to another of this device, or to nowhere.
    fn modify(&self, random: &mut Random, context: Context) {
        let (qp, peer) = (random.pick(&self.qps), random.pick(&self.qps));
        let mut attr = zeroed::<ibv_qp_attr>();
        attr.qp_state = random.of(&[1, 2, 3, 3, 6, 0]);
        attr.port_num = 1;
        attr.path_mtu = 3;
        attr.qkey = 5;
        attr.dest_qp_num = if peer.is_null() { random.next() as u32 } else { Qp(peer).c().qp_num };
        attr.ah_attr =
            ibv_ah_attr { dlid: context.port().lid, is_global: 1, port_num: 1, ..ibv_ah_attr::default() };
        attr.ah_attr.grh.dgid = context.gid();
        attr.timeout = 10;
        let kind = if qp.is_null() { 2 } else { Qp(qp).c().qp_type };
        let usual = match (attr.qp_state, kind) {
            (1, 4) => 0x71,
            (1, _) => 0x39,
            (2, 2) => 0x0012_9181 | 1 << 15 | 1 << 17,
            (2, 3) => 0x0010_1181,
            (3, 2) => 0x0001_2e01,
            (3, _) => 0x0001_0001,
            _ => 1,
        };
        let mask = random.of(&[usual, usual, usual, usual ^ 1 << 12]) as c_int;
        let changed =
            call!(ibv_modify_qp(qp => *mut ibv_qp, &mut attr => *mut ibv_qp_attr, mask => c_int) -> c_int);
        assert!(changed >= 0, "{changed}");
    }

    fn post(&self, random: &mut Random, context: Context) {
        let qp = random.pick(&self.qps);
        let mut sges = [self.entry(random), self.entry(random), self.entry(random)];
        if random.below(2) == 0 {
            let count = random.of(&[0, 1, 1, 3]) as c_int;
            let mut wr = ibv_recv_wr {
                wr_id: random.next(),
                next: null_mut(),
                sg_list: sges.as_mut_ptr(),
                num_sge: count.min(3),
            };
            let srq = random.pick(&self.srqs);
            let mut bad = null_mut();
            // SAFETY: the list is alive.
            let posted = unsafe {
                if random.below(2) == 0 {
                    (context.c().ops.post_srq_recv)(srq, &mut wr, &mut bad)
                } else {
                    (context.c().ops.post_recv)(qp, &mut wr, &mut bad)
                }
            };
            assert!(posted >= 0);
            return;
        }
        let mut wr = nonsense::<ibv_send_wr>();
        wr.wr_id = random.next();
        wr.next = null_mut();
        wr.sg_list = if random.below(16) == 0 { null_mut() } else { sges.as_mut_ptr() };
        wr.num_sge = (random.of(&[0, 1, 1, 2]) as c_int).min(3);
        wr.opcode = random.of(&[0, 1, 2, 3, 4, 5, 6, 7, 9]);
        // Inline bytes are read where the program says: they must be there.
        wr.send_flags = random.of(&[0, 2, 2, 6]) & !8;
        wr.imm_data.write(random.next() as u32);
        let peer = random.pick(&self.mrs);
        if !peer.is_null() {
            // SAFETY: alive.
            let (remote_addr, rkey) = unsafe { ((*peer).addr as u64, (*peer).rkey) };
            wr.wr.atomic = ibv_send_wr_atomic { remote_addr, compare_add: 1, swap: 2, rkey };
            if random.below(2) == 0 {
                wr.wr.rdma = ibv_send_wr_rdma { remote_addr, rkey };
            }
        }
        // Datagrams need an address that is one, or none.
        if !qp.is_null() && Qp(qp).c().qp_type == 4 {
            wr.wr.ud =
                ibv_send_wr_ud { ah: random.pick(&self.ahs), remote_qpn: Qp(qp).c().qp_num, remote_qkey: 5 };
        }
        let mut bad = null_mut();
        // SAFETY: the list is alive.
        assert!(unsafe { (context.c().ops.post_send)(qp, &mut wr, &mut bad) } >= 0);
    }

    fn look(&self, random: &mut Random, context: Context) {
        let cq = random.pick(&self.cqs);
        let mut wcs = [nonsense::<ibv_wc>(); 4];
        // SAFETY: room for four.
        unsafe { (context.c().ops.poll_cq)(cq, 4, wcs.as_mut_ptr()) };
        // SAFETY: alive, or NULL.
        unsafe { (context.c().ops.req_notify_cq)(cq, (random.below(2) == 0).into()) };
        let channel = random.pick(&self.channels);
        let (mut raised, mut cq_context) = (null_mut::<ibv_cq>(), null_mut::<c_void>());
        let got = call!(ibv_get_cq_event(
            channel => *mut ibv_comp_channel, &mut raised => *mut *mut ibv_cq, &mut cq_context => *mut *mut c_void) -> c_int);
        if got == 0 {
            assert!(self.cqs.contains(&raised));
            call!(ibv_ack_cq_events(raised => *mut ibv_cq, 1 => u32));
        }
        let mut event = nonsense::<ibv_async_event>();
        while call!(ibv_get_async_event(context.0 => *mut ibv_context, &mut event => *mut ibv_async_event) -> c_int)
            == 0
        {
            call!(ibv_ack_async_event(&mut event => *mut ibv_async_event));
        }
        let (mut attr, mut init) = (nonsense::<ibv_qp_attr>(), nonsense::<ibv_qp_init_attr>());
        let qp = random.pick(&self.qps);
        call!(ibv_query_qp(
            qp => *mut ibv_qp, &mut attr => *mut ibv_qp_attr, -1 => c_int, &mut init => *mut ibv_qp_init_attr) -> c_int);
    }

    /// One call, or a few.
    fn step(&mut self, random: &mut Random, context: Context) {
        match random.below(20) {
            0 => keep(call!(ibv_alloc_pd(context.0 => *mut ibv_context) -> *mut ibv_pd), &mut self.pds),
            1 => {
                let (pd, access) = (random.pick(&self.pds), random.of(&[0, 1, 0xf, 0x1f, 2]) as c_int);
                let bytes = vec![0_u8; 8192].leak().as_mut_ptr();
                let length = random.of(&[1, 4096, 8192]).min(8192) as usize;
                keep(
                    call!(ibv_reg_mr(pd => *mut ibv_pd, bytes.cast() => *mut c_void, length => usize, access => c_int) -> *mut ibv_mr),
                    &mut self.mrs,
                );
            }
            2 => {
                let channel =
                    call!(ibv_create_comp_channel(context.0 => *mut ibv_context) -> *mut ibv_comp_channel);
                // SAFETY: just made.
                set_nonblocking(unsafe { (*channel).fd });
                self.channels.push(channel);
            }
            3 | 4 => {
                let (cqe, channel) = (random.of(&[1, 16, 64, 0]) as c_int, random.pick(&self.channels));
                keep(
                    call!(ibv_create_cq(
                        context.0 => *mut ibv_context, cqe => c_int, null_mut() => *mut c_void,
                        channel => *mut ibv_comp_channel, 0 => c_int) -> *mut ibv_cq),
                    &mut self.cqs,
                );
            }
            5 => {
                let attr = ibv_srq_attr {
                    max_wr: random.of(&[1, 16, 1 << 20]),
                    max_sge: random.of(&[1, 3]),
                    srq_limit: 0,
                };
                let mut init = ibv_srq_init_attr { srq_context: null_mut(), attr };
                let pd = random.pick(&self.pds);
                keep(
                    call!(ibv_create_srq(pd => *mut ibv_pd, &mut init => *mut ibv_srq_init_attr) -> *mut ibv_srq),
                    &mut self.srqs,
                );
            }
            6 | 7 => self.create_qp(random),
            8 => {
                let mut attr = ibv_ah_attr {
                    dlid: context.port().lid,
                    is_global: 1,
                    port_num: 1,
                    ..ibv_ah_attr::default()
                };
                attr.grh.dgid = context.gid();
                let pd = random.pick(&self.pds);
                keep(
                    call!(ibv_create_ah(pd => *mut ibv_pd, &mut attr => *mut ibv_ah_attr) -> *mut ibv_ah),
                    &mut self.ahs,
                );
            }
            9..=11 => self.modify(random, context),
            12..=15 => self.post(random, context),
            16 | 17 => self.look(random, context),
            _ => self.destroy_one(random),
        }
    }

    fn destroy_one(&mut self, random: &mut Random) {
        match random.below(7) {
            0 => destroy(random, &mut self.pds, |pd| call!(ibv_dealloc_pd(pd => *mut ibv_pd) -> c_int)),
            1 => destroy(random, &mut self.mrs, |mr| call!(ibv_dereg_mr(mr => *mut ibv_mr) -> c_int)),
            2 => destroy(
                random,
                &mut self.channels,
                |c| call!(ibv_destroy_comp_channel(c => *mut ibv_comp_channel) -> c_int),
            ),
            3 => destroy(random, &mut self.cqs, |cq| call!(ibv_destroy_cq(cq => *mut ibv_cq) -> c_int)),
            4 => destroy(random, &mut self.srqs, |srq| call!(ibv_destroy_srq(srq => *mut ibv_srq) -> c_int)),
            5 => destroy(random, &mut self.qps, |qp| call!(ibv_destroy_qp(qp => *mut ibv_qp) -> c_int)),
            _ => destroy(random, &mut self.ahs, |ah| call!(ibv_destroy_ah(ah => *mut ibv_ah) -> c_int)),
        }
    }

    /// Everything, in an order that must work.
    fn end(self) {
        let gone = |result: c_int| assert_eq!(result, 0);
        self.qps.into_iter().for_each(|qp| gone(call!(ibv_destroy_qp(qp => *mut ibv_qp) -> c_int)));
        self.ahs.into_iter().for_each(|ah| gone(call!(ibv_destroy_ah(ah => *mut ibv_ah) -> c_int)));
        self.srqs.into_iter().for_each(|srq| gone(call!(ibv_destroy_srq(srq => *mut ibv_srq) -> c_int)));
        self.cqs.into_iter().for_each(|cq| gone(call!(ibv_destroy_cq(cq => *mut ibv_cq) -> c_int)));
        self.channels
            .into_iter()
            .for_each(|c| gone(call!(ibv_destroy_comp_channel(c => *mut ibv_comp_channel) -> c_int)));
        self.mrs.into_iter().for_each(|mr| gone(call!(ibv_dereg_mr(mr => *mut ibv_mr) -> c_int)));
        self.pds.into_iter().for_each(|pd| gone(call!(ibv_dealloc_pd(pd => *mut ibv_pd) -> c_int)));
    }
}

fn sequences(device: &str) {
    devices("shm=shm,udp=udp:lo");
    let alone = std::env::var("TBRDMA_SEED").ok().and_then(|seed| seed.parse().ok());
    for seed in alone.map_or(0..SEQUENCES, |seed: u64| seed..seed + 1) {
        println!("seed {seed}");
        let context = Context::open(Some(device));
        set_nonblocking(context.c().async_fd);
        let (mut random, mut world) = (Random(seed), World::default());
        for _ in 0..CALLS {
            world.step(&mut random, context);
        }
        world.end();
        context.close();
    }
}

#[test]
fn over_shared_memory() {
    sequences("shm");
}

#[test]
fn over_udp() {
    sequences("udp");
}
