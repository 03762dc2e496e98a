//! A C program's view of the library: loaded by its file, called through its symbols and the tables in its structures.
//!
//! What is `unsafe` in C is hidden here, behind calls that take what they are given. The tests keep what they pass alive.
#![allow(dead_code, reason = "each test file uses its own part")]
#![allow(clippy::multiple_unsafe_ops_per_block, reason = "a C program has no blocks at all")]

use core::ffi::{c_int, c_void};
use core::ptr::{null, null_mut};
use libloading::os::unix::Library;
use std::sync::OnceLock;
#[allow(unused_imports)]
pub(crate) use tbrdma_abi as abi;
pub(crate) use tbrdma_abi::*;

/// The library, loaded once.
fn library() -> &'static Library {
    static LIBRARY: OnceLock<Library> = OnceLock::new();
    LIBRARY.get_or_init(|| {
        // SAFETY: our own library, whose constructors do nothing.
        unsafe { Library::new(super::library()) }.expect("the library loads")
    })
}

/// Calls a function of the library: `call!(ibv_alloc_pd(context: *mut ibv_context) -> *mut ibv_pd)`.
#[macro_export]
macro_rules! call {
    ($name:ident($($value:expr => $ty:ty),* $(,)?) $(-> $ret:ty)?) => {{
        type Function = unsafe extern "C" fn($($ty),*) $(-> $ret)?;
        let function = $crate::common::verbs::symbol::<Function>(concat!(stringify!($name), "\0"));
        #[allow(clippy::macro_metavars_in_unsafe, reason = "what is passed to C is plain values")]
        // SAFETY: the function has this type, and the values are what it takes or what it must survive.
        let returned = unsafe { function($($value),*) };
        returned
    }};
}

/// A function of the library.
pub(crate) fn symbol<F: Copy>(name: &str) -> F {
    // SAFETY: the callers name the type that the function has in `infiniband/verbs.h`.
    *unsafe { library().get::<F>(name.as_bytes()) }.unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// `errno`, as the last call left it.
pub(crate) fn errno() -> i32 {
    nix::errno::Errno::last_raw()
}

/// Sets the environment of the devices: each test of a file calls this first, with the same list.
pub(crate) fn devices(list: &str) {
    static ONCE: std::sync::Once = std::sync::Once::new();
    // SAFETY: before any thread has called the library, which reads it; other tests wait here meanwhile.
    ONCE.call_once(|| unsafe { std::env::set_var("TBRDMA_DEVICES", list) });
}

/// A value of all zeroes, as C programs begin with.
pub(crate) fn zeroed<T>() -> T {
    // SAFETY: C's structures of numbers and pointers.
    unsafe { core::mem::zeroed() }
}

/// A value of nonsense, as C programs leave on their stack.
pub(crate) fn nonsense<T>() -> T {
    let mut value = core::mem::MaybeUninit::<T>::uninit();
    // SAFETY: all of the value's bytes.
    unsafe { value.as_mut_ptr().cast::<u8>().write_bytes(0xa5, size_of::<T>()) };
    // SAFETY: C's structures of numbers and pointers.
    unsafe { value.assume_init() }
}

/// An open device.
#[derive(Clone, Copy)]
pub(crate) struct Context(pub(crate) *mut ibv_context);

// SAFETY: programs use contexts from any thread.
unsafe impl Send for Context {}

impl Context {
    /// Opens the first device, or that of this name.
    pub(crate) fn open(name: Option<&str>) -> Self {
        let mut count = 0;
        let list = call!(ibv_get_device_list(&mut count => *mut c_int) -> *mut *mut ibv_device);
        assert!(!list.is_null());
        for at in 0..count as usize {
            // SAFETY: so many devices.
            let device = unsafe { *list.add(at) };
            // SAFETY: a text in the device.
            let own = unsafe { core::ffi::CStr::from_ptr((*device).name.as_ptr()) };
            if name.is_none_or(|name| own.to_bytes() == name.as_bytes()) {
                let context = call!(ibv_open_device(device => *mut ibv_device) -> *mut ibv_context);
                call!(ibv_free_device_list(list => *mut *mut ibv_device));
                assert!(!context.is_null(), "errno {}", errno());
                return Self(context);
            }
        }
        panic!("no device {name:?}");
    }

    pub(crate) fn close(self) {
        assert_eq!(call!(ibv_close_device(self.0 => *mut ibv_context) -> c_int), 0);
    }

    /// The structure.
    pub(crate) fn c(&self) -> &ibv_context {
        // SAFETY: open.
        unsafe { &*self.0 }
    }

    /// The extended calls, found as the header's inline functions do.
    pub(crate) fn verbs(&self) -> &verbs_context {
        assert_eq!(self.c().abi_compat, VERBS_ABI_IS_EXTENDED);
        let around =
            self.0.wrapping_byte_sub(core::mem::offset_of!(verbs_context, context)).cast::<verbs_context>();
        // SAFETY: it says so itself.
        let verbs = unsafe { &*around };
        assert_eq!(verbs.sz, 648);
        verbs
    }

    pub(crate) fn pd(&self) -> *mut ibv_pd {
        let pd = call!(ibv_alloc_pd(self.0 => *mut ibv_context) -> *mut ibv_pd);
        assert!(!pd.is_null());
        pd
    }

    pub(crate) fn channel(&self) -> *mut ibv_comp_channel {
        let channel = call!(ibv_create_comp_channel(self.0 => *mut ibv_context) -> *mut ibv_comp_channel);
        assert!(!channel.is_null());
        channel
    }

    pub(crate) fn cq(&self, channel: *mut ibv_comp_channel) -> *mut ibv_cq {
        let cq = call!(ibv_create_cq(
            self.0 => *mut ibv_context, 64 => c_int, 77 as *mut c_void => *mut c_void,
            channel => *mut ibv_comp_channel, 0 => c_int) -> *mut ibv_cq);
        assert!(!cq.is_null(), "errno {}", errno());
        cq
    }

    pub(crate) fn gid(&self) -> ibv_gid {
        let mut gid = ibv_gid::default();
        let got = call!(ibv_query_gid(
            self.0 => *mut ibv_context, 1 => u8, 0 => c_int, &mut gid => *mut ibv_gid) -> c_int);
        assert_eq!(got, 0);
        gid
    }

    pub(crate) fn port(&self) -> ibv_port_attr {
        let mut attr = nonsense::<ibv_port_attr>();
        let query = self.verbs().query_port.expect("offered");
        // SAFETY: room for the structure.
        assert_eq!(unsafe { query(self.0, 1, &mut attr, size_of::<ibv_port_attr>()) }, 0);
        attr
    }
}

/// All rights.
pub(crate) const ALL_RIGHTS: c_int = 0xf;

/// Registers bytes, which stay where they are and are never looked at as a slice while a device may write them.
pub(crate) fn reg_mr(pd: *mut ibv_pd, bytes: &mut [u8], access: c_int) -> *mut ibv_mr {
    let mr = call!(ibv_reg_mr(
        pd => *mut ibv_pd, bytes.as_mut_ptr().cast() => *mut c_void, bytes.len() => usize, access => c_int) -> *mut ibv_mr);
    assert!(!mr.is_null(), "errno {}", errno());
    mr
}

/// A queue pair.
#[derive(Clone, Copy)]
pub(crate) struct Qp(pub(crate) *mut ibv_qp);

impl Qp {
    /// One with both halves in one completion queue.
    pub(crate) fn create(pd: *mut ibv_pd, cq: *mut ibv_cq, qp_type: u32, srq: *mut ibv_srq) -> Self {
        let mut init = init(cq, qp_type, srq);
        let qp = call!(ibv_create_qp(pd => *mut ibv_pd, &mut init => *mut ibv_qp_init_attr) -> *mut ibv_qp);
        assert!(!qp.is_null(), "errno {}", errno());
        Self(qp)
    }

    pub(crate) fn c(&self) -> &ibv_qp {
        // SAFETY: alive.
        unsafe { &*self.0 }
    }

    fn context(&self) -> &ibv_context {
        // SAFETY: open.
        unsafe { &*self.c().context }
    }

    pub(crate) fn modify(&self, attr: &mut ibv_qp_attr, mask: c_int) -> c_int {
        call!(ibv_modify_qp(self.0 => *mut ibv_qp, attr => *mut ibv_qp_attr, mask => c_int) -> c_int)
    }

    /// To the state of sending, connected to a peer.
    pub(crate) fn connect(&self, gid: ibv_gid, lid: u16, qp_num: u32) {
        self.connect_with(gid, lid, qp_num, 7);
    }

    /// The same, with so many retries where the peer is not ready.
    pub(crate) fn connect_with(&self, gid: ibv_gid, lid: u16, qp_num: u32, rnr_retry: u8) {
        let mut attr = nonsense::<ibv_qp_attr>();
        attr.qp_state = 1;
        attr.pkey_index = 0;
        attr.port_num = 1;
        attr.qp_access_flags = ALL_RIGHTS as u32;
        assert_eq!(self.modify(&mut attr, 1 | 1 << 3 | 1 << 4 | 1 << 5), 0);
        attr.qp_state = 2;
        attr.path_mtu = 3;
        attr.dest_qp_num = qp_num;
        attr.rq_psn = 7;
        attr.max_dest_rd_atomic = 4;
        attr.min_rnr_timer = 12;
        attr.ah_attr = ibv_ah_attr { dlid: lid, is_global: 1, port_num: 1, ..ibv_ah_attr::default() };
        attr.ah_attr.grh.dgid = gid;
        attr.ah_attr.grh.hop_limit = 64;
        let reliable = self.c().qp_type == 2;
        let mask = 1 | 1 << 7 | 1 << 8 | 1 << 12 | 1 << 20 | if reliable { 1 << 15 | 1 << 17 } else { 0 };
        assert_eq!(self.modify(&mut attr, mask), 0);
        attr.qp_state = 3;
        attr.sq_psn = 7;
        // Four seconds in all: a peer may wait for a core.
        attr.timeout = 17;
        attr.retry_cnt = 7;
        attr.rnr_retry = rnr_retry;
        attr.max_rd_atomic = 4;
        let mask = 1 | 1 << 16 | if reliable { 1 << 9 | 1 << 10 | 1 << 11 | 1 << 13 } else { 0 };
        assert_eq!(self.modify(&mut attr, mask), 0);
        assert_eq!(self.c().state, 3);
    }

    pub(crate) fn post_send(&self, wr: &mut ibv_send_wr) -> (c_int, *mut ibv_send_wr) {
        let mut bad = null_mut();
        // SAFETY: a list of the test's.
        let posted = unsafe { (self.context().ops.post_send)(self.0, wr, &mut bad) };
        (posted, bad)
    }

    pub(crate) fn post_recv(&self, wr: &mut ibv_recv_wr) -> (c_int, *mut ibv_recv_wr) {
        let mut bad = null_mut();
        // SAFETY: a list of the test's.
        let posted = unsafe { (self.context().ops.post_recv)(self.0, wr, &mut bad) };
        (posted, bad)
    }

    /// A receive into one entry.
    pub(crate) fn recv(&self, wr_id: u64, sge: &mut ibv_sge) {
        let mut wr = ibv_recv_wr { wr_id, next: null_mut(), sg_list: sge, num_sge: 1 };
        assert_eq!(self.post_recv(&mut wr).0, 0);
    }

    pub(crate) fn destroy(self) -> c_int {
        call!(ibv_destroy_qp(self.0 => *mut ibv_qp) -> c_int)
    }
}

/// What a queue pair is created with.
pub(crate) fn init(cq: *mut ibv_cq, qp_type: u32, srq: *mut ibv_srq) -> ibv_qp_init_attr {
    let cap =
        ibv_qp_cap { max_send_wr: 8, max_recv_wr: 8, max_send_sge: 2, max_recv_sge: 2, max_inline_data: 32 };
    ibv_qp_init_attr { qp_context: null_mut(), send_cq: cq, recv_cq: cq, srq, cap, qp_type, sq_sig_all: 0 }
}

/// A send work request as a C program has it on its stack: only what the operation needs is set.
pub(crate) fn send_wr(wr_id: u64, opcode: u32, sge: *mut ibv_sge, count: c_int) -> ibv_send_wr {
    let mut wr = nonsense::<ibv_send_wr>();
    wr.wr_id = wr_id;
    wr.next = null_mut();
    wr.sg_list = sge;
    wr.num_sge = count;
    wr.opcode = opcode;
    wr.send_flags = 2;
    wr
}

/// One entry of a region.
pub(crate) fn sge(mr: *mut ibv_mr, offset: u64, length: u32) -> ibv_sge {
    // SAFETY: alive.
    let mr = unsafe { &*mr };
    ibv_sge { addr: mr.addr as u64 + offset, length, lkey: mr.lkey }
}

/// Polls until so many completions have come.
pub(crate) fn poll(cq: *mut ibv_cq, count: usize) -> Vec<ibv_wc> {
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(30);
    let mut found = Vec::new();
    while found.len() < count {
        let mut wcs = [nonsense::<ibv_wc>(); 3];
        // SAFETY: alive.
        let context = unsafe { &*(*cq).context };
        let room = 3.min(count - found.len()) as c_int;
        // SAFETY: room for three.
        let polled = unsafe { (context.ops.poll_cq)(cq, room, wcs.as_mut_ptr()) };
        found.extend_from_slice(&wcs[..usize::try_from(polled).expect("no error")]);
        assert!(std::time::Instant::now() < deadline, "{} of {count} completions came", found.len());
    }
    found
}

/// Whether a descriptor is readable within this time.
pub(crate) fn is_readable(fd: c_int, timeout_ms: u16) -> bool {
    // SAFETY: open for the test's time.
    let fd = unsafe { std::os::fd::BorrowedFd::borrow_raw(fd) };
    let mut fds = [nix::poll::PollFd::new(fd, nix::poll::PollFlags::POLLIN)];
    nix::poll::poll(&mut fds, timeout_ms).expect("poll") == 1
}

/// Makes a descriptor non-blocking.
pub(crate) fn set_nonblocking(fd: c_int) {
    use nix::fcntl::{FcntlArg, OFlag, fcntl};
    // SAFETY: open for the test's time.
    let fd = unsafe { std::os::fd::BorrowedFd::borrow_raw(fd) };
    fcntl(fd, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).expect("a flag");
}

/// Nothing of this type.
pub(crate) fn nothing<T>() -> *const T {
    null()
}
