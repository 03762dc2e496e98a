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
use core::ptr::{NonNull, null_mut, without_provenance_mut};
use std::sync::{Arc, Mutex};
use tbrdma_abi::*;
use tbrdma_proto::{AsyncEventKind, WorkCompletion};

/// A completion queue.
pub(crate) struct NativeCq {
    pub(super) core: Arc<Core>,
    cq: NonNull<ibv_cq>,
    pub(super) poll: unsafe extern "C" fn(*mut ibv_cq, c_int, *mut ibv_wc) -> c_int,
    index: u32,
    /// Polls in a row that found nothing, so that one which finds something looks at no lock.
    pub(super) idle: AtomicU32,
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

    /// Gives the completions of numbered work their numbers.
    #[inline(always)]
    pub(super) fn settle(&self, completions: &mut [WorkCompletion]) {
        self.core.tickets.settle(completions, |bound| self.core.is_bound(bound));
    }

    #[inline(always)]
    pub(super) fn as_ptr(&self) -> *mut ibv_cq {
        self.cq.as_ptr()
    }

    #[cold]
    pub(super) fn found_nothing(&self) {
        // Whether one poll more or less is counted does not matter.
        self.idle.store(1, Ordering::Relaxed);
        if lock(&self.backoff).idle() {
            crate::sys::process::yield_now();
        }
    }

    #[cold]
    pub(super) fn found_something(&self) {
        self.idle.store(0, Ordering::Relaxed);
        lock(&self.backoff).reset();
    }

    #[cold]
    pub(super) fn has_failed(&self) {
        if !self.failed.swap(true, Ordering::AcqRel) {
            let source = EventSource::CompletionQueue(self.index);
            self.core.events.raise(AsyncEvent { kind: AsyncEventKind::CqErr, source });
        }
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

    fn poll(&self, out: &mut [WorkCompletion]) -> usize {
        self.poll_directly(out)
    }

    fn native(self: Arc<Self>) -> Option<Arc<NativeCq>> {
        Some(self)
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
