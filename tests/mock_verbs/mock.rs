//! The library. The name of a device says what fails on it: `create_qp-12` refuses every `ibv_create_qp` with error 12, `destroy_qp-busy` lets no queue pair go, and `plain` refuses nothing. `second` takes the
//! first work request of a list of sends and no other, and the completions of `noisy` are full of bits that mean nothing. Everything else works: a queue pair takes
//! any attribute, and a send completes at once and goes nowhere; its completion tells what it was. `bad_pkey_cntr` of any port tells how many
//! objects there are, of all devices, and `qkey_viol_cntr` how many contexts.

#![allow(missing_docs, unreachable_pub, reason = "exported to C")]
#![allow(
    unsafe_code,
    clippy::undocumented_unsafe_blocks,
    clippy::multiple_unsafe_ops_per_block,
    clippy::missing_safety_doc
)]
#![allow(clippy::not_unsafe_ptr_arg_deref, reason = "a C library trusts the pointers that it is given")]

use core::ffi::{c_char, c_int, c_uint, c_void};
use core::ptr::{null, null_mut};
use core::sync::atomic::{AtomicI64, AtomicU32, Ordering};
use std::collections::VecDeque;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::{Mutex, OnceLock};
use tbrdma_abi::*;

/// The calls that can be told to fail, and with what.
const CALLS: [&str; 20] = [
    "open_device",
    "query_device",
    "query_port",
    "alloc_pd",
    "reg_mr",
    "reg_mr_iova2",
    "rereg_mr",
    "dereg_mr",
    "create_comp_channel",
    "create_cq",
    "resize_cq",
    "req_notify_cq",
    "create_srq",
    "modify_srq",
    "post_srq_recv",
    "create_qp",
    "modify_qp",
    "post_send",
    "post_recv",
    "create_ah",
];
const MORE: [&str; 3] = ["alloc_mw", "bind_mw", "poll_cq"];
/// Those that can be told to fail with `EBUSY`, and of which a program learns nothing: the object stays.
const ENDS: [&str; 9] = [
    "destroy_qp",
    "destroy_srq",
    "destroy_cq",
    "destroy_comp_channel",
    "destroy_ah",
    "dealloc_mw",
    "dealloc_pd",
    "close_device",
    "query_gid",
];
const ERRORS: [i32; 4] = [libc::EINVAL, libc::ENOMEM, libc::EBUSY, libc::ETIMEDOUT];

static OBJECTS: AtomicI64 = AtomicI64::new(0);
static CONTEXTS: AtomicI64 = AtomicI64::new(0);
static NUMBER: AtomicU32 = AtomicU32::new(1);

fn names() -> Vec<String> {
    let failing = CALLS.iter().chain(&MORE).flat_map(|call| ERRORS.map(|error| format!("{call}-{error}")));
    let ending = ENDS.map(|call| format!("{call}-busy"));
    ["plain", "second", "noisy"].map(str::to_owned).into_iter().chain(ending).chain(failing).collect()
}

/// The devices, for the life of the process.
fn devices() -> &'static [usize] {
    static DEVICES: OnceLock<Vec<usize>> = OnceLock::new();
    DEVICES.get_or_init(|| {
        let device = |name: String| {
            let mut device: Box<ibv_device> = Box::new(unsafe { core::mem::zeroed() });
            for (place, byte) in device.name.iter_mut().zip(name.bytes()) {
                *place = byte as c_char;
            }
            Box::into_raw(device).expose_provenance()
        };
        names().into_iter().map(device).collect()
    })
}

/// A context, and what fails in it.
#[repr(C)]
struct Context {
    c: ibv_context,
    call: String,
    error: i32,
    /// A region that could not be deregistered is, the second time.
    refused: bool,
    _events: OwnedFd,
}

/// A queue, and the completions in it.
#[repr(C)]
struct Cq {
    c: ibv_cq,
    completions: Mutex<VecDeque<ibv_wc>>,
}

/// A channel, and its descriptor.
#[repr(C)]
struct CompChannel {
    c: ibv_comp_channel,
    _fd: OwnedFd,
}

/// The error that this call is to fail with.
unsafe fn told(context: *mut ibv_context, call: &str) -> Option<i32> {
    let context = unsafe { &*context.cast::<Context>() };
    (context.call == call).then_some(context.error)
}

fn set_errno(error: i32) {
    nix::errno::Errno::set_raw(error);
}

unsafe fn make<T>(context: *mut ibv_context, call: &str, object: T) -> *mut T {
    if !context.is_null()
        && let Some(error) = unsafe { told(context, call) }
    {
        set_errno(error);
        return null_mut();
    }
    OBJECTS.fetch_add(1, Ordering::SeqCst);
    Box::into_raw(Box::new(object))
}

unsafe fn unmake<T: ?Sized>(object: *mut T) -> c_int {
    OBJECTS.fetch_sub(1, Ordering::SeqCst);
    drop(unsafe { Box::from_raw(object) });
    0
}

/// Ends an object, unless that is to fail.
unsafe fn end<T: ?Sized>(context: *mut ibv_context, call: &str, object: *mut T) -> c_int {
    match unsafe { told(context, call) } {
        Some(error) => error,
        None => unsafe { unmake(object) },
    }
}

unsafe fn does(context: *mut ibv_context, call: &str) -> c_int {
    unsafe { told(context, call) }.unwrap_or(0)
}

fn number() -> u32 {
    NUMBER.fetch_add(1, Ordering::SeqCst)
}

fn descriptor() -> OwnedFd {
    // One that never has anything to read.
    let (reader, writer) = std::io::pipe().expect("a pipe");
    std::mem::forget(writer);
    reader.into()
}

#[unsafe(no_mangle)]
pub extern "C" fn ibv_get_device_list(count: *mut c_int) -> *mut *mut ibv_device {
    let all = devices();
    if !count.is_null() {
        unsafe { *count = all.len() as c_int };
    }
    let list: Vec<*mut ibv_device> = all
        .iter()
        .map(|address| core::ptr::with_exposed_provenance_mut(*address))
        .chain([null_mut()])
        .collect();
    OBJECTS.fetch_add(1, Ordering::SeqCst);
    Box::into_raw(list.into_boxed_slice()).cast()
}

#[unsafe(no_mangle)]
pub extern "C" fn ibv_free_device_list(list: *mut *mut ibv_device) {
    let list = core::ptr::slice_from_raw_parts_mut(list, devices().len() + 1);
    unsafe { unmake(list) };
}

#[unsafe(no_mangle)]
pub extern "C" fn ibv_get_device_name(device: *mut ibv_device) -> *const c_char {
    unsafe { (&raw const (*device).name).cast() }
}

#[unsafe(no_mangle)]
pub extern "C" fn ibv_open_device(device: *mut ibv_device) -> *mut ibv_context {
    let name =
        unsafe { core::ffi::CStr::from_ptr(ibv_get_device_name(device)) }.to_string_lossy().into_owned();
    let (call, error) = name.rsplit_once('-').unwrap_or((&name, "0"));
    let error = if error == "busy" { libc::EBUSY } else { error.parse().expect("a number") };
    if call == "open_device" {
        set_errno(error);
        return null_mut();
    }
    let events = descriptor();
    let c = ibv_context {
        device,
        ops: ibv_context_ops {
            compat0: [null(); 7],
            alloc_mw,
            bind_mw,
            dealloc_mw,
            compat10: null(),
            poll_cq,
            req_notify_cq,
            compat13: [null(); 7],
            post_srq_recv,
            compat21: [null(); 4],
            post_send,
            post_recv,
            compat27: [null(); 5],
        },
        cmd_fd: -1,
        async_fd: events.as_raw_fd(),
        num_comp_vectors: 1,
        mutex: unsafe { core::mem::zeroed() },
        abi_compat: null_mut(),
    };
    CONTEXTS.fetch_add(1, Ordering::SeqCst);
    let context = Context { c, call: call.to_owned(), error, refused: false, _events: events };
    let context: *mut ibv_context = Box::into_raw(Box::new(context)).cast();
    if !crate::HAS_ALL {
        macro_rules! empty {
            ($($slot:ident)+) => { $( unsafe { (&raw mut (*context).ops.$slot).cast::<Slot>().write(null()) }; )+ };
        }
        empty!(alloc_mw bind_mw dealloc_mw req_notify_cq post_srq_recv);
    }
    context
}

#[unsafe(no_mangle)]
pub extern "C" fn ibv_close_device(context: *mut ibv_context) -> c_int {
    let failed = unsafe { does(context, "close_device") };
    if failed == 0 {
        CONTEXTS.fetch_sub(1, Ordering::SeqCst);
        drop(unsafe { Box::from_raw(context.cast::<Context>()) });
    }
    failed
}

#[unsafe(no_mangle)]
pub extern "C" fn ibv_query_port(context: *mut ibv_context, _port: u8, attr: *mut ibv_port_attr) -> c_int {
    let attr = unsafe { &mut *attr };
    (attr.state, attr.max_mtu, attr.active_mtu) = (4, 5, 3);
    (attr.gid_tbl_len, attr.pkey_tbl_len, attr.link_layer, attr.max_msg_sz) = (2, 1, 2, 1 << 30);
    attr.bad_pkey_cntr = OBJECTS.load(Ordering::SeqCst) as u32;
    attr.qkey_viol_cntr = CONTEXTS.load(Ordering::SeqCst) as u32;
    unsafe { does(context, "query_port") }
}

#[unsafe(no_mangle)]
pub extern "C" fn ibv_query_gid(context: *mut ibv_context, _: u8, index: c_int, gid: *mut ibv_gid) -> c_int {
    if let Some(error) = unsafe { told(context, "query_gid") } {
        set_errno(error);
        return -1;
    }
    let address = if index == 0 { "fe80::1" } else { "::ffff:127.0.0.1" };
    let address: std::net::Ipv6Addr = address.parse().expect("an address");
    unsafe { *gid = ibv_gid { raw: address.octets() } };
    0
}

#[unsafe(no_mangle)]
pub extern "C" fn ibv_alloc_pd(context: *mut ibv_context) -> *mut ibv_pd {
    unsafe { make(context, "alloc_pd", ibv_pd { context, handle: number() }) }
}

#[unsafe(no_mangle)]
pub extern "C" fn ibv_dealloc_pd(pd: *mut ibv_pd) -> c_int {
    unsafe { end((*pd).context, "dealloc_pd", pd) }
}

fn register(pd: *mut ibv_pd, call: &str, addr: *mut c_void, length: usize) -> *mut ibv_mr {
    let context = unsafe { (*pd).context };
    let key = number();
    // As with adapters, one key is not the other.
    let mr = ibv_mr { context, pd, addr, length, handle: key, lkey: key, rkey: key | 1 << 31 };
    unsafe { make(context, call, mr) }
}

#[unsafe(no_mangle)]
pub extern "C" fn ibv_reg_mr(pd: *mut ibv_pd, addr: *mut c_void, length: usize, _: c_int) -> *mut ibv_mr {
    register(pd, "reg_mr", addr, length)
}

#[unsafe(no_mangle)]
pub extern "C" fn ibv_dereg_mr(mr: *mut ibv_mr) -> c_int {
    let context = unsafe { &mut *(*mr).context.cast::<Context>() };
    if context.call == "dereg_mr" && !std::mem::replace(&mut context.refused, true) {
        return context.error;
    }
    unsafe { unmake(mr) }
}

#[unsafe(no_mangle)]
pub extern "C" fn ibv_create_cq(
    context: *mut ibv_context,
    cqe: c_int,
    cq_context: *mut c_void,
    channel: *mut ibv_comp_channel,
    _vector: c_int,
) -> *mut ibv_cq {
    let zeroed = unsafe { core::mem::zeroed::<ibv_cq>() };
    let c = ibv_cq { context, channel, cq_context, cqe, ..zeroed };
    unsafe { make(context, "create_cq", Cq { c, completions: Mutex::default() }) }.cast()
}

#[unsafe(no_mangle)]
pub extern "C" fn ibv_destroy_cq(cq: *mut ibv_cq) -> c_int {
    unsafe { end((*cq).context, "destroy_cq", cq.cast::<Cq>()) }
}

#[unsafe(no_mangle)]
pub extern "C" fn ibv_create_qp(pd: *mut ibv_pd, init: *mut ibv_qp_init_attr) -> *mut ibv_qp {
    let (context, init) = unsafe { ((*pd).context, &*init) };
    let ibv_qp_init_attr { qp_context, send_cq, recv_cq, srq, qp_type, .. } = *init;
    let zeroed = unsafe { core::mem::zeroed::<ibv_qp>() };
    let qp_num = number();
    let qp = ibv_qp { context, qp_context, pd, send_cq, recv_cq, srq, qp_num, qp_type, ..zeroed };
    unsafe { make(context, "create_qp", qp) }
}

#[unsafe(no_mangle)]
pub extern "C" fn ibv_modify_qp(qp: *mut ibv_qp, attr: *mut ibv_qp_attr, mask: c_int) -> c_int {
    let qp = unsafe { &mut *qp };
    let failed = unsafe { does(qp.context, "modify_qp") };
    if failed == 0 && mask & 1 != 0 {
        qp.state = unsafe { (*attr).qp_state };
    }
    failed
}

#[unsafe(no_mangle)]
pub extern "C" fn ibv_destroy_qp(qp: *mut ibv_qp) -> c_int {
    unsafe { end((*qp).context, "destroy_qp", qp) }
}

unsafe extern "C" fn poll_cq(cq: *mut ibv_cq, count: c_int, out: *mut ibv_wc) -> c_int {
    // As a driver may that finds out in the middle.
    let noise =
        unsafe { core::mem::transmute::<[u8; size_of::<ibv_wc>()], ibv_wc>([0xfe; size_of::<ibv_wc>()]) };
    if unsafe { told((*cq).context, "poll_cq") }.is_some() {
        unsafe { out.write(noise) };
        return -1;
    }
    let is_noisy = unsafe { told((*cq).context, "noisy") }.is_some();
    let mut completions = unsafe { &(*cq.cast::<Cq>()).completions }.lock().expect("nobody panics");
    let found = completions.len().min(count as usize);
    for (place, wc) in completions.drain(..found).enumerate() {
        let wc = if is_noisy { ibv_wc { wr_id: wc.wr_id, ..noise } } else { wc };
        unsafe { out.add(place).write(wc) };
    }
    found as c_int
}

unsafe extern "C" fn post_send(qp: *mut ibv_qp, wr: *mut ibv_send_wr, bad: *mut *mut ibv_send_wr) -> c_int {
    let qp = unsafe { &*qp };
    let failed = unsafe { does(qp.context, "post_send") };
    if failed != 0 {
        unsafe { *bad = wr };
        return failed;
    }
    let cq = unsafe { &(*qp.send_cq.cast::<Cq>()).completions };
    let mut next = wr;
    while let Some(wr) = unsafe { next.as_ref() } {
        if wr.send_flags & 2 != 0 {
            cq.lock().expect("nobody panics").push_back(unsafe { echo(qp, wr) });
        }
        next = wr.next;
        if !next.is_null() && unsafe { told(qp.context, "second") }.is_some() {
            unsafe { *bad = next };
            return libc::ENOMEM;
        }
    }
    0
}

/// A completion that tells what the work request was: its bytes, and how many entries they were in; its immediate data; the low bits of its place at the peer.
unsafe fn echo(qp: &ibv_qp, wr: &ibv_send_wr) -> ibv_wc {
    let mut wc: ibv_wc = unsafe { core::mem::zeroed() };
    (wc.wr_id, wc.qp_num, wc.vendor_err) = (wr.wr_id, qp.qp_num, wr.num_sge as u32);
    if wr.num_sge > 0 {
        let entries = unsafe { core::slice::from_raw_parts(wr.sg_list, wr.num_sge as usize) };
        wc.byte_len = entries.iter().map(|entry| entry.length).sum();
    }
    let (is_write, has_imm) = (wr.opcode < 2, wr.opcode == 1 || wr.opcode == 3);
    if is_write {
        wc.opcode = 1;
        let rdma = unsafe { wr.wr.rdma };
        (wc.src_qp, wc.slid) = (rdma.rkey, rdma.remote_addr as u16);
    }
    if has_imm {
        wc.wc_flags = 2;
        wc.imm_data = unsafe { wr.imm_data.assume_init() };
    }
    wc
}

unsafe extern "C" fn post_recv(qp: *mut ibv_qp, wr: *mut ibv_recv_wr, bad: *mut *mut ibv_recv_wr) -> c_int {
    unsafe { *bad = wr };
    unsafe { does((*qp).context, "post_recv") }
}

unsafe extern "C" fn post_srq_recv(
    srq: *mut ibv_srq,
    wr: *mut ibv_recv_wr,
    bad: *mut *mut ibv_recv_wr,
) -> c_int {
    unsafe { *bad = wr };
    unsafe { does((*srq).context, "post_srq_recv") }
}

unsafe extern "C" fn req_notify_cq(cq: *mut ibv_cq, _: c_int) -> c_int {
    unsafe { does((*cq).context, "req_notify_cq") }
}

unsafe extern "C" fn alloc_mw(pd: *mut ibv_pd, type_: c_int) -> *mut ibv_mw {
    let context = unsafe { (*pd).context };
    let mw = ibv_mw { context, pd, rkey: number() << 8, handle: 0, type_ };
    unsafe { make(context, "alloc_mw", mw) }
}

unsafe extern "C" fn bind_mw(qp: *mut ibv_qp, mw: *mut ibv_mw, _: *mut ibv_mw_bind) -> c_int {
    unsafe { (*mw).rkey += 1 };
    unsafe { does((*qp).context, "bind_mw") }
}

unsafe extern "C" fn dealloc_mw(mw: *mut ibv_mw) -> c_int {
    unsafe { end((*mw).context, "dealloc_mw", mw) }
}

optional! {
    pub extern "C" fn ibv_query_device(context: *mut ibv_context, attr: *mut ibv_device_attr) -> c_int {
        let attr = unsafe { &mut *attr };
        (attr.max_qp, attr.max_qp_wr, attr.max_sge, attr.max_cqe, attr.phys_port_cnt) = (10, 64, 2, 1 << 10, 1);
        (attr.max_srq, attr.max_srq_wr, attr.max_srq_sge) = (4, 64, 4);
        unsafe { does(context, "query_device") }
    }

    pub extern "C" fn ibv_reg_mr_iova2(
        pd: *mut ibv_pd,
        addr: *mut c_void,
        length: usize,
        _iova: u64,
        _access: c_uint,
    ) -> *mut ibv_mr {
        register(pd, "reg_mr_iova2", addr, length)
    }

    pub extern "C" fn ibv_rereg_mr(
        mr: *mut ibv_mr,
        _flags: c_int,
        _pd: *mut ibv_pd,
        _addr: *mut c_void,
        _length: usize,
        _access: c_int,
    ) -> c_int {
        match unsafe { told((*mr).context, "rereg_mr") } {
            None => 0,
            Some(error) => {
                set_errno(error);
                -4
            }
        }
    }

    pub extern "C" fn ibv_create_comp_channel(context: *mut ibv_context) -> *mut ibv_comp_channel {
        let fd = descriptor();
        let c = ibv_comp_channel { context, fd: fd.as_raw_fd(), refcnt: 0 };
        unsafe { make(context, "create_comp_channel", CompChannel { c, _fd: fd }) }.cast()
    }

    pub extern "C" fn ibv_destroy_comp_channel(channel: *mut ibv_comp_channel) -> c_int {
        unsafe { end((*channel).context, "destroy_comp_channel", channel.cast::<CompChannel>()) }
    }

    pub extern "C" fn ibv_get_cq_event(
        _: *mut ibv_comp_channel,
        _: *mut *mut ibv_cq,
        _: *mut *mut c_void,
    ) -> c_int {
        set_errno(libc::EAGAIN);
        -1
    }

    pub extern "C" fn ibv_ack_cq_events(_: *mut ibv_cq, _: c_uint) {}

    pub extern "C" fn ibv_get_async_event(_: *mut ibv_context, _: *mut ibv_async_event) -> c_int {
        set_errno(libc::EAGAIN);
        -1
    }

    pub extern "C" fn ibv_ack_async_event(_: *mut ibv_async_event) {}

    pub extern "C" fn ibv_resize_cq(cq: *mut ibv_cq, cqe: c_int) -> c_int {
        let cq = unsafe { &mut *cq };
        let failed = unsafe { does(cq.context, "resize_cq") };
        if failed == 0 {
            cq.cqe = cqe;
        }
        failed
    }

    pub extern "C" fn ibv_create_srq(pd: *mut ibv_pd, init: *mut ibv_srq_init_attr) -> *mut ibv_srq {
        let (context, srq_context) = unsafe { ((*pd).context, (*init).srq_context) };
        let zeroed = unsafe { core::mem::zeroed::<ibv_srq>() };
        unsafe { make(context, "create_srq", ibv_srq { context, srq_context, pd, ..zeroed }) }
    }

    pub extern "C" fn ibv_modify_srq(srq: *mut ibv_srq, _: *mut ibv_srq_attr, _: c_int) -> c_int {
        unsafe { does((*srq).context, "modify_srq") }
    }

    pub extern "C" fn ibv_destroy_srq(srq: *mut ibv_srq) -> c_int {
        unsafe { end((*srq).context, "destroy_srq", srq) }
    }

    pub extern "C" fn ibv_create_ah(pd: *mut ibv_pd, _: *mut ibv_ah_attr) -> *mut ibv_ah {
        let context = unsafe { (*pd).context };
        unsafe { make(context, "create_ah", ibv_ah { context, pd, handle: 0 }) }
    }

    pub extern "C" fn ibv_destroy_ah(ah: *mut ibv_ah) -> c_int {
        unsafe { end((*ah).context, "destroy_ah", ah) }
    }
}
