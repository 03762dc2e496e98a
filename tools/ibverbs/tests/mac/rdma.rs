//! The library as such a program knows it: sixteen functions by name, and three that the header finds in the context. A connection is a device
//! opened once more, with a queue pair of its own, and buffers of every size registered for it.

use super::load;
use super::port::uc;
use crate::common::verbs::abi::*;
use crate::common::verbs::{nonsense, zeroed};
use core::ffi::{CStr, c_char, c_int, c_void};
use core::ptr::null_mut;
use libloading::os::unix::Library;

/// Declares the functions, and finds all of them in the library: one that is missing and the program has no RDMA.
macro_rules! functions {
    ($( $name:ident($($ty:ty),*) $(-> $ret:ty)?; )+) => {
        /// The functions by name.
        #[allow(non_snake_case, reason = "C's names")]
        pub(crate) struct Rdma {
            $( $name: unsafe extern "C" fn($($ty),*) $(-> $ret)?, )+
            _library: Library,
        }

        impl Rdma {
            pub(crate) fn load() -> Self {
                let library = load();
                $(
                    // SAFETY: the type that the function has in `infiniband/verbs.h`.
                    let $name = *unsafe { library.get(concat!(stringify!($name), "\0").as_bytes()) }.expect(stringify!($name));
                )+
                Self { $( $name, )+ _library: library }
            }
        }
    };
}

functions! {
    ibv_get_device_list(*mut c_int) -> *mut *mut ibv_device;
    ibv_get_device_name(*mut ibv_device) -> *const c_char;
    ibv_open_device(*mut ibv_device) -> *mut ibv_context;
    ibv_free_device_list(*mut *mut ibv_device);
    ibv_close_device(*mut ibv_context) -> c_int;
    ibv_alloc_pd(*mut ibv_context) -> *mut ibv_pd;
    ibv_dealloc_pd(*mut ibv_pd) -> c_int;
    ibv_create_cq(*mut ibv_context, c_int, *mut c_void, *mut ibv_comp_channel, c_int) -> *mut ibv_cq;
    ibv_destroy_cq(*mut ibv_cq) -> c_int;
    ibv_create_qp(*mut ibv_pd, *mut ibv_qp_init_attr) -> *mut ibv_qp;
    ibv_destroy_qp(*mut ibv_qp) -> c_int;
    ibv_modify_qp(*mut ibv_qp, *mut ibv_qp_attr, c_int) -> c_int;
    ibv_query_port(*mut ibv_context, u8, *mut ibv_port_attr) -> c_int;
    ibv_query_gid(*mut ibv_context, u8, c_int, *mut ibv_gid) -> c_int;
    ibv_reg_mr(*mut ibv_pd, *mut c_void, usize, c_int) -> *mut ibv_mr;
    ibv_dereg_mr(*mut ibv_mr) -> c_int;
}

/// `IBV_WR_SEND`.
const SEND: u32 = 2;
/// `IBV_SEND_SIGNALED`.
const SIGNALED: u32 = 2;
/// `IBV_ACCESS_LOCAL_WRITE`, `_REMOTE_WRITE` and `_REMOTE_READ`.
const RIGHTS: c_int = 1 | 1 << 1 | 1 << 2;

/// `IBV_QP_*` as they go with the three transitions.
const TO_INIT: c_int = 1 | 1 << 3 | 1 << 4 | 1 << 5;
const TO_RTR: c_int = 1 | 1 << 7 | 1 << 8 | 1 << 12 | 1 << 20;
const TO_RTS: c_int = 1 | 1 << 16;

/// What both sides begin to count from.
const PSN: u32 = 7;
/// Work requests that a queue is asked to hold, whatever their size.
const WORK: u32 = 32;
/// A page of an Apple processor.
const PAGE: usize = 16 << 10;

/// Sizes of buffers: 4 KiB to 512 KiB.
pub(crate) const SIZES: [usize; 8] =
    [4 << 10, 8 << 10, 16 << 10, 32 << 10, 64 << 10, 128 << 10, 256 << 10, 512 << 10];
/// Buffers of each size and use.
pub(crate) const BUFFERS: usize = 2;

/// What a peer must know of a queue pair.
#[derive(Clone, Copy)]
pub(crate) struct Address {
    lid: u16,
    qp_num: u32,
    psn: u32,
    gid: ibv_gid,
}

impl Address {
    pub(crate) const BYTES: usize = 26;

    pub(crate) fn to_bytes(self) -> [u8; Self::BYTES] {
        let mut bytes = [0; Self::BYTES];
        bytes[..2].copy_from_slice(&self.lid.to_ne_bytes());
        bytes[2..6].copy_from_slice(&self.qp_num.to_ne_bytes());
        bytes[6..10].copy_from_slice(&self.psn.to_ne_bytes());
        bytes[10..].copy_from_slice(&self.gid.raw);
        bytes
    }

    pub(crate) fn from_bytes(bytes: &[u8]) -> Self {
        let word = |at: usize| u32::from_ne_bytes(bytes[at..at + 4].try_into().expect("four bytes"));
        let lid = u16::from_ne_bytes(bytes[..2].try_into().expect("two bytes"));
        let gid = ibv_gid { raw: bytes[10..26].try_into().expect("sixteen bytes") };
        Self { lid, qp_num: word(2), psn: word(6), gid }
    }
}

/// A buffer, and its region.
struct Registered {
    bytes: *mut u8,
    length: usize,
    mr: *mut ibv_mr,
}

/// What a buffer is for. Half of them are for the second phase of an operation that has two.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Use {
    Send,
    Recv,
    ScatterSend,
    ScatterRecv,
}

/// A connection to one peer.
pub(crate) struct Connection<'a> {
    rdma: &'a Rdma,
    context: *mut ibv_context,
    pd: *mut ibv_pd,
    cq: *mut ibv_cq,
    qp: *mut ibv_qp,
    buffers: Vec<Registered>,
}

impl<'a> Connection<'a> {
    /// Opens the device of this name.
    pub(crate) fn open(rdma: &'a Rdma, device: &str) -> Self {
        let mut count = 0;
        // SAFETY: room for the number.
        let list = unsafe { (rdma.ibv_get_device_list)(&mut count) };
        let all = (0..count as usize).map(|at| {
            // SAFETY: so many devices.
            unsafe { *list.add(at) }
        });
        let name = |device: &*mut ibv_device| {
            // SAFETY: one of the list, whose name is a text.
            unsafe { CStr::from_ptr((rdma.ibv_get_device_name)(*device)) }.to_str().expect("ASCII")
        };
        let found = { all }.find(|own| name(own) == device).unwrap_or_else(|| panic!("no device {device}"));
        // SAFETY: one of the list.
        let context = unsafe { (rdma.ibv_open_device)(found) };
        // SAFETY: the list, which nobody uses any more.
        unsafe { (rdma.ibv_free_device_list)(list) };
        assert!(!context.is_null(), "{device} does not open");
        // SAFETY: an open device.
        let pd = unsafe { (rdma.ibv_alloc_pd)(context) };
        // SAFETY: an open device; no channel.
        let cq = unsafe { (rdma.ibv_create_cq)(context, 2 * WORK as c_int, null_mut(), null_mut(), 0) };
        assert!(!pd.is_null() && !cq.is_null(), "{device}");
        let mut init = uc(cq, WORK);
        init.qp_context = context.cast();
        // SAFETY: what it needs is set.
        let qp = unsafe { (rdma.ibv_create_qp)(pd, &mut init) };
        assert!(!qp.is_null(), "{device}");
        let mut connection = Self { rdma, context, pd, cq, qp, buffers: Vec::new() };
        connection.register();
        connection
    }

    /// Buffers for each use, two of each size, at pages.
    fn register(&mut self) {
        for _use in 0..4 {
            for length in SIZES {
                for _ in 0..BUFFERS {
                    let mut bytes = null_mut();
                    // SAFETY: room for the address.
                    assert_eq!(unsafe { libc::posix_memalign(&mut bytes, PAGE, length) }, 0);
                    // SAFETY: as much as was allocated.
                    let mr = unsafe { (self.rdma.ibv_reg_mr)(self.pd, bytes, length, RIGHTS) };
                    assert!(!mr.is_null(), "region {} is refused", self.buffers.len());
                    self.buffers.push(Registered { bytes: bytes.cast(), length, mr });
                }
            }
        }
    }

    fn buffer(&self, of: Use, size: usize, number: usize) -> &Registered {
        &self.buffers[(of as usize * SIZES.len() + size) * BUFFERS + number]
    }

    /// To INIT, and what the peer must know.
    pub(crate) fn begin(&self) -> Address {
        let mut attr = zeroed::<ibv_qp_attr>();
        (attr.qp_state, attr.pkey_index, attr.port_num) = (1, 0, 1);
        attr.qp_access_flags = RIGHTS as u32;
        self.modify(&mut attr, TO_INIT);
        let mut port = zeroed::<ibv_port_attr>();
        // SAFETY: room for the structure.
        assert_eq!(unsafe { (self.rdma.ibv_query_port)(self.context, 1, &mut port) }, 0);
        let gids = (0..port.gid_tbl_len).map(|index| {
            let mut gid = ibv_gid::default();
            // SAFETY: room for the GID.
            assert_eq!(unsafe { (self.rdma.ibv_query_gid)(self.context, 1, index, &mut gid) }, 0);
            gid
        });
        let is_ipv4 = |gid: &ibv_gid| gid.raw[..10] == [0; 10] && gid.raw[10..12] == [0xff; 2];
        let gid = { gids }.find(is_ipv4).expect("the port has an IPv4 address");
        // SAFETY: alive.
        let qp_num = unsafe { (*self.qp).qp_num };
        Address { lid: port.lid, qp_num, psn: PSN, gid }
    }

    /// To RTS.
    pub(crate) fn connect(&self, peer: Address) {
        let mut attr = zeroed::<ibv_qp_attr>();
        (attr.qp_state, attr.path_mtu) = (2, 3);
        (attr.rq_psn, attr.dest_qp_num) = (peer.psn, peer.qp_num);
        attr.ah_attr = ibv_ah_attr { dlid: peer.lid, is_global: 1, port_num: 1, ..ibv_ah_attr::default() };
        attr.ah_attr.grh =
            ibv_global_route { dgid: peer.gid, hop_limit: 1, sgid_index: 1, ..ibv_global_route::default() };
        self.modify(&mut attr, TO_RTR);
        let mut attr = zeroed::<ibv_qp_attr>();
        (attr.qp_state, attr.sq_psn) = (3, PSN);
        self.modify(&mut attr, TO_RTS);
    }

    fn modify(&self, attr: &mut ibv_qp_attr, mask: c_int) {
        // SAFETY: alive.
        assert_eq!(unsafe { (self.rdma.ibv_modify_qp)(self.qp, attr, mask) }, 0);
    }

    fn ops(&self) -> &ibv_context_ops {
        // SAFETY: open.
        unsafe { &(*self.context).ops }
    }

    /// A whole buffer, whatever of it counts.
    fn whole(buffer: &Registered) -> ibv_sge {
        // SAFETY: registered.
        let lkey = unsafe { (*buffer.mr).lkey };
        ibv_sge { addr: buffer.bytes as u64, length: buffer.length as u32, lkey }
    }

    /// Puts bytes in a buffer and sends it.
    pub(crate) fn send(&self, of: Use, size: usize, number: usize, bytes: &[u8], wr_id: u64) {
        let buffer = self.buffer(of, size, number);
        assert!(bytes.len() <= buffer.length);
        // SAFETY: inside the buffer, which nobody uses now.
        unsafe { core::ptr::copy_nonoverlapping(bytes.as_ptr(), buffer.bytes, bytes.len()) };
        let mut sge = Self::whole(buffer);
        let mut wr = nonsense::<ibv_send_wr>();
        (wr.wr_id, wr.next, wr.sg_list, wr.num_sge) = (wr_id, null_mut(), &mut sge, 1);
        (wr.opcode, wr.send_flags) = (SEND, SIGNALED);
        let mut bad = null_mut();
        // SAFETY: a list of one.
        assert_eq!(unsafe { (self.ops().post_send)(self.qp, &mut wr, &mut bad) }, 0);
    }

    pub(crate) fn recv(&self, of: Use, size: usize, number: usize, wr_id: u64) {
        let mut sge = Self::whole(self.buffer(of, size, number));
        let mut wr = nonsense::<ibv_recv_wr>();
        (wr.wr_id, wr.next, wr.sg_list, wr.num_sge) = (wr_id, null_mut(), &mut sge, 1);
        let mut bad = null_mut();
        // SAFETY: a list of one.
        assert_eq!(unsafe { (self.ops().post_recv)(self.qp, &mut wr, &mut bad) }, 0);
    }

    /// What a receive got.
    pub(crate) fn received(&self, of: Use, size: usize, number: usize, into: &mut [u8]) {
        let buffer = self.buffer(of, size, number);
        assert!(into.len() <= buffer.length);
        // SAFETY: inside the buffer, which nobody uses now.
        unsafe { core::ptr::copy_nonoverlapping(buffer.bytes, into.as_mut_ptr(), into.len()) };
    }

    /// Identifiers of what has completed.
    pub(crate) fn poll(&self, completed: &mut Vec<u64>) {
        let mut wcs = [nonsense::<ibv_wc>(); 8];
        // SAFETY: room for so many.
        let count = unsafe { (self.ops().poll_cq)(self.cq, wcs.len() as c_int, wcs.as_mut_ptr()) };
        for wc in &wcs[..usize::try_from(count).expect("no error")] {
            assert_eq!(wc.status, 0, "{:#x}", wc.wr_id);
            completed.push(wc.wr_id);
        }
    }
}

impl Drop for Connection<'_> {
    /// Regions go first, as members of a class do.
    fn drop(&mut self) {
        let Self { rdma, context, pd, cq, qp, .. } = *self;
        for buffer in &self.buffers {
            // SAFETY: registered, and nothing is posted any more.
            assert_eq!(unsafe { (rdma.ibv_dereg_mr)(buffer.mr) }, 0);
            // SAFETY: allocated so.
            unsafe { libc::free(buffer.bytes.cast()) };
        }
        // SAFETY: all alive, and each goes before what it was made in.
        let ends = unsafe {
            [
                (rdma.ibv_destroy_qp)(qp),
                (rdma.ibv_destroy_cq)(cq),
                (rdma.ibv_dealloc_pd)(pd),
                (rdma.ibv_close_device)(context),
            ]
        };
        assert_eq!(ends, [0; 4]);
    }
}
