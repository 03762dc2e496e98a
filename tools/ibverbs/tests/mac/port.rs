//! One end of a cable, as a C program has it: a device, a connection of the only kind there is, and memory of its own.

use crate::call;
use crate::common::verbs::*;
use core::ffi::c_int;
use core::ptr::null_mut;
use std::time::{Duration, Instant};

/// Two ends of a cable through shared memory, and two ports that speak over UDP on loopback.
pub(crate) const PORTS: &str = "rdma_en2=shm@mac:0,rdma_en3=shm@mac:1,rdma_en4=udp:lo,rdma_en5=udp:lo";
/// Those that reach each other.
pub(crate) const PAIRS: [[&str; 2]; 2] = [["rdma_en2", "rdma_en3"], ["rdma_en4", "rdma_en5"]];

pub(crate) const RC: u32 = 2;
pub(crate) const UC: u32 = 3;
pub(crate) const UD: u32 = 4;

pub(crate) const WRITE: u32 = 0;
pub(crate) const SEND: u32 = 2;

/// `IBV_WC_SUCCESS`.
pub(crate) const SUCCESS: u32 = 0;
/// `IBV_WC_LOC_LEN_ERR`.
pub(crate) const LOC_LEN_ERR: u32 = 1;

pub(crate) const FRAME: usize = 4096;
/// The most frames of a queue, and of a message.
pub(crate) const MAX_FRAMES: usize = 4095;

/// In this time something would have happened.
const QUIET: Duration = Duration::from_millis(60);

/// What a queue pair is created with where nobody cares about more.
pub(crate) fn uc(cq: *mut ibv_cq, depth: u32) -> ibv_qp_init_attr {
    let mut init = nonsense::<ibv_qp_init_attr>();
    (init.send_cq, init.recv_cq, init.srq) = (cq, cq, null_mut());
    init.cap = ibv_qp_cap {
        max_send_wr: depth,
        max_recv_wr: depth,
        max_send_sge: 1,
        max_recv_sge: 1,
        max_inline_data: 0,
    };
    (init.qp_type, init.sq_sig_all) = (UC, 0);
    init
}

/// Creates a queue pair: it, or why not.
pub(crate) fn create_qp(pd: *mut ibv_pd, init: &mut ibv_qp_init_attr) -> Result<Qp, i32> {
    let qp = call!(ibv_create_qp(pd => *mut ibv_pd, init => *mut ibv_qp_init_attr) -> *mut ibv_qp);
    if qp.is_null() { Err(errno()) } else { Ok(Qp(qp)) }
}

/// Registers memory: the region, or why not.
pub(crate) fn register(
    pd: *mut ibv_pd,
    at: *mut u8,
    length: usize,
    access: c_int,
) -> Result<*mut ibv_mr, i32> {
    let mr = call!(ibv_reg_mr(
        pd => *mut ibv_pd, at.cast() => *mut core::ffi::c_void, length => usize, access => c_int) -> *mut ibv_mr);
    if mr.is_null() { Err(errno()) } else { Ok(mr) }
}

/// An end.
pub(crate) struct End {
    pub(crate) context: Context,
    pub(crate) pd: *mut ibv_pd,
    pub(crate) cq: *mut ibv_cq,
    pub(crate) qp: Qp,
    pub(crate) mr: *mut ibv_mr,
    /// Completions that came while others were waited for.
    early: Vec<ibv_wc>,
}

impl End {
    /// A device with a queue pair of so many frames and so much memory.
    pub(crate) fn open(device: &str, depth: u32, bytes: usize) -> Self {
        let mut memory = null_mut();
        // SAFETY: room for the address.
        assert_eq!(unsafe { libc::posix_memalign(&mut memory, 16 << 10, bytes) }, 0);
        // SAFETY: as much as was allocated.
        unsafe { memory.write_bytes(0, bytes) };
        Self::with_memory(device, depth, memory.cast(), bytes)
    }

    /// With memory of the caller's, which stays for the life of the process.
    pub(crate) fn with_memory(device: &str, depth: u32, memory: *mut u8, bytes: usize) -> Self {
        let context = Context::open(Some(device));
        let (pd, cq) = (context.pd(), context.cq(null_mut()));
        let qp = create_qp(pd, &mut uc(cq, depth)).expect("a queue pair");
        let mr = register(pd, memory, bytes, 0x7).expect("a region");
        Self { context, pd, cq, qp, mr, early: Vec::new() }
    }

    /// An entry of the port's table.
    pub(crate) fn gid(&self, index: c_int) -> ibv_gid {
        let mut gid = ibv_gid::default();
        let got = call!(ibv_query_gid(
            self.context.0 => *mut ibv_context, 1 => u8, index => c_int, &mut gid => *mut ibv_gid) -> c_int);
        assert_eq!(got, 0);
        gid
    }

    pub(crate) fn init(&self) -> c_int {
        let mut attr = nonsense::<ibv_qp_attr>();
        (attr.qp_state, attr.pkey_index, attr.port_num, attr.qp_access_flags) = (1, 0, 1, 0x7);
        self.qp.modify(&mut attr, 1 | 1 << 3 | 1 << 4 | 1 << 5)
    }

    /// To RTR, by the second entries of both tables, which is where IPv4 addresses are.
    pub(crate) fn rtr(&self, peer: &Self) -> c_int {
        let mut attr = nonsense::<ibv_qp_attr>();
        (attr.qp_state, attr.path_mtu, attr.rq_psn, attr.dest_qp_num) = (2, 5, 7, peer.qp.c().qp_num);
        attr.ah_attr = ibv_ah_attr {
            dlid: peer.context.port().lid,
            is_global: 1,
            port_num: 1,
            ..ibv_ah_attr::default()
        };
        attr.ah_attr.grh = ibv_global_route {
            dgid: peer.gid(1),
            hop_limit: 1,
            sgid_index: 1,
            ..ibv_global_route::default()
        };
        self.qp.modify(&mut attr, 1 | 1 << 7 | 1 << 8 | 1 << 12 | 1 << 20)
    }

    pub(crate) fn rts(&self) -> c_int {
        let mut attr = nonsense::<ibv_qp_attr>();
        (attr.qp_state, attr.sq_psn) = (3, 7);
        self.qp.modify(&mut attr, 1 | 1 << 16)
    }

    /// What the queue pair was granted, as `ibv_query_qp` has it.
    pub(crate) fn granted(&self) -> [ibv_qp_cap; 2] {
        let (mut attr, mut init) = (nonsense::<ibv_qp_attr>(), nonsense::<ibv_qp_init_attr>());
        let asked = call!(ibv_query_qp(
            self.qp.0 => *mut ibv_qp, &mut attr => *mut ibv_qp_attr, 1 << 19 => c_int,
            &mut init => *mut ibv_qp_init_attr) -> c_int);
        assert_eq!(asked, 0);
        [attr.cap, init.cap]
    }

    /// Posts a SEND of this part of the memory, or why not.
    pub(crate) fn try_send(&self, wr_id: u64, offset: usize, length: usize) -> c_int {
        let mut sge = sge(self.mr, offset as u64, length as u32);
        self.qp.post_send(&mut send_wr(wr_id, SEND, &mut sge, 1)).0
    }

    pub(crate) fn send(&self, wr_id: u64, offset: usize, length: usize) {
        assert_eq!(self.try_send(wr_id, offset, length), 0, "SEND {wr_id}");
    }

    /// Posts a receive into this part of the memory, or why not.
    pub(crate) fn try_recv(&self, wr_id: u64, offset: usize, length: usize) -> c_int {
        let mut sge = sge(self.mr, offset as u64, length as u32);
        let mut wr = ibv_recv_wr { wr_id, next: null_mut(), sg_list: &mut sge, num_sge: 1 };
        self.qp.post_recv(&mut wr).0
    }

    pub(crate) fn recv(&self, wr_id: u64, offset: usize, length: usize) {
        assert_eq!(self.try_recv(wr_id, offset, length), 0, "receive {wr_id}");
    }

    fn at(&self, offset: usize) -> *mut u8 {
        // SAFETY: alive.
        let memory = unsafe { (*self.mr).addr };
        memory.cast::<u8>().wrapping_add(offset)
    }

    pub(crate) fn put(&self, offset: usize, byte: u8, count: usize) {
        // SAFETY: inside the region, which nobody uses now.
        unsafe { self.at(offset).write_bytes(byte, count) };
    }

    pub(crate) fn get(&self, offset: usize, count: usize) -> Vec<u8> {
        // SAFETY: inside the region, which nobody uses now.
        unsafe { core::slice::from_raw_parts(self.at(offset), count) }.to_vec()
    }

    /// The next completion.
    pub(crate) fn one(&mut self) -> ibv_wc {
        match self.early.is_empty() {
            true => poll(self.cq, 1)[0],
            false => self.early.remove(0),
        }
    }

    /// The next completion, which must be this.
    pub(crate) fn expect(&mut self, wr_id: u64, status: u32) -> ibv_wc {
        let wc = self.one();
        assert_eq!((wc.wr_id, wc.status), (wr_id, status));
        wc
    }

    /// For a while nothing completes.
    pub(crate) fn expect_nothing(&mut self) {
        let begun = Instant::now();
        while begun.elapsed() < QUIET {
            self.look();
            assert!(self.early.is_empty(), "work request {} has completed", self.early[0].wr_id);
            std::thread::yield_now();
        }
    }

    /// Takes what has completed, for later.
    pub(crate) fn look(&mut self) -> usize {
        let mut wcs = [nonsense::<ibv_wc>(); 16];
        // SAFETY: room for sixteen.
        let count = unsafe { (self.context.c().ops.poll_cq)(self.cq, 16, wcs.as_mut_ptr()) };
        self.early.extend_from_slice(&wcs[..usize::try_from(count).expect("no error")]);
        self.early.len()
    }
}

/// Two connected ends.
pub(crate) fn pair(devices: [&str; 2], depth: u32, bytes: usize) -> [End; 2] {
    let ends = devices.map(|device| End::open(device, depth, bytes));
    join(&ends);
    ends
}

/// Connects two ends.
pub(crate) fn join(ends: &[End; 2]) {
    for (end, peer) in [(&ends[0], &ends[1]), (&ends[1], &ends[0])] {
        assert_eq!([end.init(), end.rtr(peer), end.rts()], [0; 3]);
    }
}
