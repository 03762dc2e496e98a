//! Completion queues.

use super::context::Context;
use crate::device::{DeviceCq, check_cqe};
use crate::error::{Error, Result};
use crate::native::NativeCq;
use std::fmt;
use std::sync::Arc;
use tbrdma_proto::WorkCompletion;

/// A completion queue (`ibv_create_cq(3)`). Cheap to clone; may be polled from any thread.
#[derive(Clone)]
pub struct CompletionQueue {
    inner: Arc<Inner>,
}

pub(crate) struct Inner {
    context: Context,
    cq: Arc<dyn DeviceCq>,
    /// The same, if it is an adapter's with nothing around it.
    native: Option<Arc<NativeCq>>,
    has_channel: bool,
}

impl fmt::Debug for CompletionQueue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CompletionQueue").field("number", &self.number()).field("cqe", &self.cqe()).finish()
    }
}

impl CompletionQueue {
    pub(crate) fn new(context: &Context, cq: Arc<dyn DeviceCq>, has_channel: bool) -> Self {
        let native = Arc::clone(&cq).native();
        Self { inner: Arc::new(Inner { context: context.clone(), cq, native, has_channel }) }
    }

    pub(crate) fn device(&self) -> &Arc<dyn DeviceCq> {
        &self.inner.cq
    }

    pub(crate) fn inner(&self) -> &Arc<Inner> {
        &self.inner
    }

    pub(crate) fn from_inner(inner: Arc<Inner>) -> Self {
        Self { inner }
    }

    /// The context it belongs to.
    pub fn context(&self) -> &Context {
        &self.inner.context
    }

    /// The completions it was created for.
    pub fn cqe(&self) -> u32 {
        self.inner.cq.cqe()
    }

    /// How many completions wait to be polled. It may look at each queue pair, so it is for questions, not for data paths; on a device that works while it is
    /// polled, some may yet come.
    pub fn unpolled(&self) -> usize {
        self.inner.cq.unpolled()
    }

    /// Changes for how many completions it is (`ibv_resize_cq(3)`).
    ///
    /// # Errors
    /// `cqe` is out of range, or more completions than that wait to be polled.
    pub fn resize(&self, cqe: u32) -> Result<()> {
        check_cqe("resize_cq", cqe)?;
        self.inner.cq.resize(cqe)
    }

    /// A number that tells the context's completion queues apart.
    pub fn number(&self) -> u32 {
        self.inner.cq.index()
    }

    /// Takes completions (`ibv_poll_cq(3)`): fills the front of `out` and returns that part, oldest first within each work queue.
    ///
    /// Makes no system call and allocates nothing while there is something to take or the wait is short. An empty poll that follows many others
    /// gives the core away (`sched_yield`): after 20 us without a completion, every 16th poll does. So two pollers that share a core, or a
    /// poller beside busy threads, do not starve the one they wait for.
    #[inline(always)]
    pub fn poll<'a>(&self, out: &'a mut [WorkCompletion]) -> &'a [WorkCompletion] {
        let count = match &self.inner.native {
            Some(native) => native.poll_directly(out),
            None => self.inner.cq.poll(out),
        };
        &out[..count]
    }

    /// Asks for one event at the completion channel when the next completion (or the next solicited or failed one) arrives
    /// (`ibv_req_notify_cq(3)`). Completions that are there already raise none: poll once more after this, then wait.
    ///
    /// # Errors
    /// The queue has no completion channel.
    pub fn req_notify(&self, solicited_only: bool) -> Result<()> {
        if !self.inner.has_channel {
            let reason = "the completion queue was created without a completion channel".to_owned();
            return Err(Error::InvalidArgument { call: "req_notify_cq", reason });
        }
        self.inner.cq.arm(solicited_only)
    }
}

impl PartialEq for CompletionQueue {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.inner, &other.inner)
    }
}

impl Eq for CompletionQueue {}
