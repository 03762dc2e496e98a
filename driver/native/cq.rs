//! Completion queues.

use super::channel::NativeChannel;
use super::device::Core;
use super::fault;
use super::lock;
use crate::backoff::Backoff;
use crate::device::{Channel, CqRequest, DeviceCq};
use crate::error::Result;
use crate::sync::{AtomicBool, AtomicU32, Ordering};
use crate::verbs::event::{AsyncEvent, EventSource};
use core::ffi::c_int;
use core::mem::MaybeUninit;
use core::ptr::{NonNull, null_mut, without_provenance_mut};
use std::sync::{Arc, Mutex};
use tbrdma_abi::*;
use tbrdma_proto::{AsyncEventKind, Qpn, WcFlags, WcOpcode, WcStatus, WorkCompletion};

/// Completions asked for at a time.
const BATCH: usize = 16;

/// A completion queue.
pub(super) struct NativeCq {
    core: Arc<Core>,
    cq: NonNull<ibv_cq>,
    poll: unsafe extern "C" fn(*mut ibv_cq, c_int, *mut ibv_wc) -> c_int,
    index: u32,
    /// Polls in a row that found nothing, so that one which finds something looks at no lock.
    idle: AtomicU32,
    backoff: Mutex<Backoff>,
    /// The library said that polling failed. It is said once.
    failed: AtomicBool,
    channel: Option<Arc<NativeChannel>>,
}

// SAFETY: libibverbs lets several threads use a completion queue.
unsafe impl Send for NativeCq {}
// SAFETY: as above.
unsafe impl Sync for NativeCq {}

impl NativeCq {
    pub(super) fn create(core: &Arc<Core>, request: &CqRequest) -> Result<Arc<Self>> {
        let call = "create_cq";
        let handle = &core.handle;
        let poll = handle.needs(handle.ops.poll_cq, call, "polling")?;
        let channel = match &request.channel {
            Some(Channel::Device(channel)) => Some(core.own_channel(channel)?),
            Some(Channel::Counter(_)) | None => None,
        };
        let (index, _) = lock(&core.cqs).claim(call, "completion queues")?;
        let (cqe, place) =
            (c_int::try_from(request.cqe).unwrap_or(c_int::MAX), without_provenance_mut(index as usize));
        let on = channel.as_ref().map_or(null_mut(), |channel| channel.as_ptr());
        // SAFETY: an open context, and a channel of it or none. What the queue carries as its context is a number.
        let cq = unsafe { (handle.library.ibv_create_cq)(handle.context(), cqe, place, on, 0) };
        let cq = fault::object(call, &handle.name, cq).inspect_err(|_| {
            lock(&core.cqs).release(index);
        })?;
        let cq = Arc::new(Self {
            core: Arc::clone(core),
            cq,
            poll,
            index,
            idle: AtomicU32::new(0),
            backoff: Mutex::default(),
            failed: AtomicBool::new(false),
            channel,
        });
        lock(&core.cqs).fill(index, Arc::downgrade(&cq));
        Ok(cq)
    }

    pub(super) fn as_ptr(&self) -> *mut ibv_cq {
        self.cq.as_ptr()
    }

    #[cold]
    fn found_nothing(&self) {
        // Whether one poll more or less is counted does not matter.
        self.idle.store(1, Ordering::Relaxed);
        if lock(&self.backoff).idle() {
            crate::sys::process::yield_now();
        }
    }

    #[cold]
    fn found_something(&self) {
        self.idle.store(0, Ordering::Relaxed);
        lock(&self.backoff).reset();
    }

    #[cold]
    fn has_failed(&self) {
        if !self.failed.swap(true, Ordering::AcqRel) {
            let source = EventSource::CompletionQueue(self.index);
            self.core.events.raise(AsyncEvent { kind: AsyncEventKind::CqErr, source });
        }
    }
}

/// A completion in our words. Of a failed one only some fields mean something, and the others may be anything.
#[inline(always)]
fn completion(wc: &ibv_wc) -> WorkCompletion {
    let wc_flags = WcFlags::from_bits_truncate(wc.wc_flags);
    let imm_data = if wc_flags.contains(WcFlags::WITH_IMM) { u32::from_be(wc.imm_data) } else { wc.imm_data };
    WorkCompletion {
        wr_id: wc.wr_id,
        status: WcStatus::from_raw(wc.status).unwrap_or(WcStatus::GeneralErr),
        opcode: WcOpcode::from_raw(wc.opcode).unwrap_or_default(),
        vendor_err: wc.vendor_err,
        byte_len: wc.byte_len,
        imm_data,
        qp_num: Qpn::masked(wc.qp_num),
        src_qp: Qpn::masked(wc.src_qp),
        wc_flags,
        pkey_index: wc.pkey_index,
        slid: wc.slid,
        sl: wc.sl,
        dlid_path_bits: wc.dlid_path_bits,
        wq_index: 0,
    }
}

impl DeviceCq for NativeCq {
    fn cqe(&self) -> u32 {
        // SAFETY: a live queue; the library writes this when the queue is made or resized only.
        let cqe = unsafe { (*self.as_ptr()).cqe };
        u32::try_from(cqe).unwrap_or(0)
    }

    fn unpolled(&self) -> usize {
        // An adapter does not tell.
        0
    }

    fn resize(&self, cqe: u32) -> Result<()> {
        let call = "resize_cq";
        let handle = &self.core.handle;
        let resize = handle.needs(handle.library.ibv_resize_cq, call, "another size (ibv_resize_cq)")?;
        let cqe = c_int::try_from(cqe).unwrap_or(c_int::MAX);
        // SAFETY: a live queue.
        fault::check(call, &handle.name, unsafe { resize(self.as_ptr(), cqe) })
    }

    #[inline]
    fn poll(&self, out: &mut [WorkCompletion]) -> usize {
        let mut wcs = [const { MaybeUninit::<ibv_wc>::uninit() }; BATCH];
        let mut taken = 0;
        while taken < out.len() {
            let asked = (out.len() - taken).min(BATCH);
            // SAFETY: a live queue, and room for so many completions: no more than `BATCH` are asked for.
            let found = unsafe { (self.poll)(self.as_ptr(), asked as c_int, wcs.as_mut_ptr().cast()) };
            if found < 0 {
                self.has_failed();
                break;
            }
            let found = (found as usize).min(asked);
            for wc in &wcs[..found] {
                // SAFETY: the library has filled so many of them.
                out[taken] = completion(unsafe { wc.assume_init_ref() });
                taken += 1;
            }
            if found < asked {
                break;
            }
        }
        if taken == 0 {
            self.found_nothing();
            return 0;
        }
        if self.idle.load(Ordering::Relaxed) != 0 {
            self.found_something();
        }
        self.core.tickets.settle(&mut out[..taken], |bound| self.core.is_bound(bound));
        taken
    }

    fn arm(&self, solicited_only: bool) -> Result<()> {
        let call = "req_notify_cq";
        let handle = &self.core.handle;
        let arm = handle.needs(handle.ops.req_notify_cq, call, "completion events")?;
        // SAFETY: a live queue.
        fault::check(call, &handle.name, unsafe { arm(self.as_ptr(), solicited_only.into()) })
    }

    fn event_order(&self) -> Option<u64> {
        None
    }

    fn take_event(&self) -> bool {
        false
    }

    fn index(&self) -> u32 {
        self.index
    }

    fn context(&self) -> u64 {
        self.core.identity
    }
}

impl Drop for NativeCq {
    fn drop(&mut self) {
        // SAFETY: ours, destroyed once; the queue pairs that complete here are gone, since they held it, and its events have been acknowledged.
        unsafe { (self.core.handle.library.ibv_destroy_cq)(self.as_ptr()) };
        lock(&self.core.cqs).release(self.index);
        // Only now: a channel outlives its queues.
        drop(self.channel.take());
    }
}
