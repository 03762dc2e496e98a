//! Completion channels: waiting for completions without polling.

use super::context::Context;
use super::cq::{CompletionQueue, Inner as CqInner};
use crate::device::{Channel, DeviceChannel};
use crate::error::{Error, Result};
use crate::sys::eventfd::EventFd;
use crate::sys::wait::wait_until_found;
use std::fmt;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

/// A completion channel (`ibv_create_comp_channel(3)`). Its descriptor is readable when one of its completion queues may have raised an event, so
/// it fits `poll`, `epoll` and the runtimes built on them. Cheap to clone.
#[derive(Clone)]
pub struct CompletionChannel {
    inner: Arc<Inner>,
}

struct Inner {
    context: Context,
    channel: Channel,
    queues: Mutex<Queues>,
}

#[derive(Default)]
struct Queues {
    all: Vec<Weak<CqInner>>,
    /// Where the next look begins, so that one busy queue does not hide the others.
    turn: usize,
}

impl fmt::Debug for CompletionChannel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CompletionChannel").field("fd", &self.inner.channel.as_fd()).finish()
    }
}

impl CompletionChannel {
    pub(crate) fn new(context: &Context) -> Result<Self> {
        let channel = context.device.create_comp_channel()?;
        let inner = Inner { context: context.clone(), channel, queues: Mutex::new(Queues::default()) };
        Ok(Self { inner: Arc::new(inner) })
    }

    pub(crate) fn is_of(&self, context: &Context) -> bool {
        self.inner.context.is_same(context)
    }

    pub(crate) fn channel(&self) -> Channel {
        self.inner.channel.clone()
    }

    pub(crate) fn add(&self, cq: &CompletionQueue) {
        let mut queues = self.inner.queues.lock().unwrap_or_else(PoisonError::into_inner);
        queues.all.retain(|queue| queue.strong_count() > 0);
        queues.all.push(Arc::downgrade(cq.inner()));
    }

    /// A completion queue that has raised an event since it was last returned, if there is one now. An event may be stale: its completions
    /// may have been polled already.
    pub fn try_next(&self) -> Option<CompletionQueue> {
        match self.inner.context.device.network() {
            None => self.look(),
            Some(network) => network.try_look(|| self.look()),
        }
    }

    fn look(&self) -> Option<CompletionQueue> {
        match &self.inner.channel {
            Channel::Counter(counter) => self.ask_each(counter),
            Channel::Device(channel) => self.take(&**channel),
        }
    }

    /// The device says which queue it was. One that nobody holds any more is passed over.
    fn take(&self, channel: &dyn DeviceChannel) -> Option<CompletionQueue> {
        loop {
            let index = channel.take()?;
            let queues = self.inner.queues.lock().unwrap_or_else(PoisonError::into_inner);
            let mut held = queues.all.iter().filter_map(Weak::upgrade).map(CompletionQueue::from_inner);
            if let Some(cq) = held.find(|cq| cq.device().index() == index) {
                return Some(cq);
            }
        }
    }

    /// Each queue knows whether it has raised an event, and when.
    fn ask_each(&self, counter: &EventFd) -> Option<CompletionQueue> {
        // The descriptor first: an event raised after this makes it readable again.
        let _ = counter.drain();
        let mut queues = self.inner.queues.lock().unwrap_or_else(PoisonError::into_inner);
        let count = queues.all.len();
        let mut first: Option<(u64, usize, CompletionQueue)> = None;
        for step in 0..count {
            let at = (queues.turn + step) % count;
            let Some(cq) = queues.all[at].upgrade().map(CompletionQueue::from_inner) else { continue };
            if let Some(order) = cq.device().event_order()
                && first.as_ref().is_none_or(|(earliest, ..)| order < *earliest)
            {
                first = Some((order, at, cq));
            }
        }
        let (_, at, cq) = first?;
        queues.turn = (at + 1) % count;
        // Whether the others have events is asked again next time.
        if count > 1 {
            let _ = counter.signal();
        }
        cq.device().take_event().then_some(cq)
    }

    /// A completion queue that has raised an event (`ibv_get_cq_event(3)`), waited for at most `timeout` (for ever if `None`). Events need no
    /// acknowledgement: a queue lives as long as anyone holds it.
    ///
    /// # Errors
    /// The wait itself failed.
    pub fn wait(&self, timeout: Option<Duration>) -> Result<Option<CompletionQueue>> {
        if let Some(network) = self.inner.context.device.network() {
            return Ok(network.wait_for(timeout, || self.look()));
        }
        wait_until_found(self.inner.channel.as_fd(), timeout, || self.look())
            .map_err(Error::os("get_cq_event", "ppoll"))
    }
}

impl AsFd for CompletionChannel {
    fn as_fd(&self) -> BorrowedFd<'_> {
        if let Some(network) = self.inner.context.device.network() {
            network.is_watched();
        }
        self.inner.channel.as_fd()
    }
}
