//! Completion channels.
//!
//! The device signals one descriptor for all completion queues of a channel, and cannot say how many events there are. Programs may: they
//! expect the channel's descriptor to be readable exactly while `ibv_get_cq_event` has one to give. So the events are moved to a queue of our
//! own as soon as somebody looks, and the program's descriptor is a set of two: the device's, and one that says that the queue is not empty.

use crate::abi::*;
use crate::context::{Context, Known, context_of};
use crate::cq::Cq;
use crate::errno::Errno;
use crate::export::export;
use crate::happen;
use crate::object::{Object, Out, Users};
use crate::wait;
use core::ffi::{c_int, c_void};
use nix::sys::epoll::Epoll;
use nix::sys::eventfd::{EfdFlags, EventFd};
use std::collections::VecDeque;
use std::os::fd::{AsFd, AsRawFd};
use std::sync::Mutex;
use tbrdma::CompletionChannel;

/// A completion channel.
#[repr(C)]
pub(crate) struct Channel {
    c: ibv_comp_channel,
    pub(crate) inner: CompletionChannel,
    /// Completion queues that have raised an event nobody has read, oldest first.
    events: Mutex<VecDeque<Known<Cq>>>,
    /// Readable while there are some.
    has_events: EventFd,
    /// What the program waits at.
    set: Epoll,
    /// Completion queues.
    pub(crate) users: Users,
}

// SAFETY: the C structure does not change once the program has it.
unsafe impl Sync for Channel {}

impl Object for Channel {
    type C = ibv_comp_channel;
}

impl Channel {
    fn create(context: &Context) -> Result<*mut ibv_comp_channel, Errno> {
        let inner = context.inner().create_comp_channel()?;
        let has_events = EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)?;
        let set = wait::any_of(&[inner.as_fd(), has_events.as_fd()])?;
        let c = ibv_comp_channel { context: context.c(), fd: set.0.as_raw_fd(), refcnt: 0 };
        let channel = context.given.give(Box::new(Self {
            c,
            inner,
            events: Mutex::default(),
            has_events,
            set,
            users: Users::default(),
        }));
        context.objects().channels.push(Known(channel));
        Ok(channel.cast())
    }

    pub(crate) fn context(&self) -> &Context {
        // SAFETY: a channel in use.
        unsafe { context_of(self.c.context) }
    }

    /// The next event, and the reading of it.
    fn next(&self) -> Result<Option<Known<Cq>>, Errno> {
        // While this is held no completion queue is destroyed: the one found stays until its event is acknowledged.
        let objects = self.context().objects();
        let mut events = crate::context::lock(&self.events);
        if events.is_empty() {
            while let Some(raised) = self.inner.try_next() {
                events.extend(objects.cqs.get(&raised.number()));
            }
            if !events.is_empty() {
                let _ = self.has_events.write(1);
            }
        }
        let Some(found) = events.pop_front() else { return happen::nothing() };
        if events.is_empty() {
            self.is_empty();
        }
        // SAFETY: a queue in the table of objects, which is locked.
        unsafe { &*found.0 }.is_told();
        Ok(Some(found))
    }

    /// Another event of a completion queue of this channel, which the caller knows to be alive.
    pub(crate) fn raise(&self, cq: &Cq) {
        crate::context::lock(&self.events).push_back(Known(cq));
        self.wake();
    }

    /// Makes the descriptor readable.
    pub(crate) fn wake(&self) {
        let _ = self.has_events.write(1);
    }

    /// No events are left. Where the device was removed, there is always that to be read.
    fn is_empty(&self) {
        if !happen::is_removed() {
            let _ = self.has_events.read();
        }
    }

    /// Forgets the events of a completion queue that is no longer in the table of objects.
    pub(crate) fn purge(&self, cq: &Cq) {
        let mut events = crate::context::lock(&self.events);
        events.retain(|known| !core::ptr::eq(known.0, cq));
        if events.is_empty() {
            self.is_empty();
        }
    }
}

export! {
    "IBVERBS_1.0" pointer fn ibv_create_comp_channel(context: &Context) -> *mut ibv_comp_channel {
        Channel::create(context.own()?)
    }

    "IBVERBS_1.0" errno fn ibv_destroy_comp_channel(channel: &Channel) -> c_int {
        let context = channel.context();
        if !context.is_own() {
            return Ok(());
        }
        channel.users.none()?;
        channel.context().objects().channels.retain(|known| !core::ptr::eq(known.0, channel));
        // SAFETY: the program gives it back, and no completion queue has it.
        drop(unsafe { context.given.take_back(channel) });
        Ok(())
    }

    "IBVERBS_1.1" minus_one fn ibv_get_cq_event(
        channel: &Channel,
        cq: Out<'_, *mut ibv_cq>,
        cq_context: Option<Out<'_, *mut c_void>>,
    ) -> c_int {
        let found = wait::until_found(&channel.set, || channel.next())?;
        // SAFETY: its event has been read and not yet acknowledged, so it has not been destroyed.
        let found = unsafe { &*found.0 };
        cq.put(found.c());
        if let Some(cq_context) = cq_context {
            cq_context.put(found.cq_context());
        }
        Ok(0)
    }

    "IBVERBS_1.1" plain fn ibv_ack_cq_events(cq: &Cq, count: u32) {
        cq.completion_events.acknowledge(count);
        Ok(())
    }
}
