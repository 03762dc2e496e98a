//! Asynchronous events: what happens to an object rather than to a work request.

use crate::device::{Device, DeviceEvents};
use crate::error::{Error, Result};
use crate::sim::Network;
use crate::sys::eventfd::EventFd;
use crate::sys::wait::wait_until_found;
use std::collections::VecDeque;
use std::fmt;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tbrdma_proto::{AsyncEventKind, Qpn};

/// Events kept for a reader that does not come; beyond that the oldest are dropped.
const KEPT: usize = 16_384;

/// Something that happened to an object (`ibv_get_async_event(3)`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AsyncEvent {
    /// What happened.
    pub kind: AsyncEventKind,
    /// To which object.
    pub source: EventSource,
}

impl fmt::Display for AsyncEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.source, self.kind.description())
    }
}

/// The object an event is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum EventSource {
    /// The device itself.
    Device,
    /// A port, by number.
    Port(u8),
    /// A queue pair.
    QueuePair(Qpn),
    /// A shared receive queue, by [`SharedReceiveQueue::number`](crate::SharedReceiveQueue::number).
    SharedReceiveQueue(u32),
    /// A completion queue, by [`CompletionQueue::number`](crate::CompletionQueue::number).
    CompletionQueue(u32),
}

impl fmt::Display for EventSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Device => f.write_str("device"),
            Self::Port(number) => write!(f, "port {number}"),
            Self::QueuePair(qpn) => write!(f, "QP {qpn}"),
            Self::SharedReceiveQueue(number) => write!(f, "SRQ {number}"),
            Self::CompletionQueue(number) => write!(f, "CQ {number}"),
        }
    }
}

/// The events of one context, oldest first.
#[derive(Debug)]
pub(crate) struct EventQueue {
    events: Mutex<VecDeque<AsyncEvent>>,
    fd: EventFd,
}

impl EventQueue {
    pub(crate) fn new() -> std::io::Result<Self> {
        Ok(Self { events: Mutex::new(VecDeque::new()), fd: EventFd::new()? })
    }

    pub(crate) fn push(&self, event: AsyncEvent) {
        let mut events = self.events.lock().unwrap_or_else(PoisonError::into_inner);
        if events.len() == KEPT {
            events.pop_front();
        }
        events.push_back(event);
        let _ = self.fd.signal();
    }
}

impl DeviceEvents for EventQueue {
    fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    fn take(&self) -> Option<AsyncEvent> {
        let mut events = self.events.lock().unwrap_or_else(PoisonError::into_inner);
        let event = events.pop_front();
        if events.is_empty() {
            // The descriptor is readable exactly while there are events.
            let _ = self.fd.drain();
        }
        event
    }
}

/// The asynchronous events of a [`Context`](crate::Context). Its descriptor is readable while there are any.
#[derive(Clone)]
pub struct AsyncEvents {
    queue: Arc<dyn DeviceEvents>,
    /// The simulated network that events come from, if it is one.
    network: Option<Arc<Network>>,
}

impl fmt::Debug for AsyncEvents {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AsyncEvents").field("fd", &self.queue.fd()).finish()
    }
}

impl AsyncEvents {
    pub(crate) fn new(device: &dyn Device) -> Self {
        Self { queue: device.events(), network: device.network().cloned() }
    }

    /// The oldest event, if there is one now.
    pub fn try_next(&self) -> Option<AsyncEvent> {
        match &self.network {
            None => self.queue.take(),
            Some(network) => network.try_look(|| self.queue.take()),
        }
    }

    /// The oldest event, waited for at most `timeout` (for ever if `None`).
    ///
    /// # Errors
    /// The wait itself failed.
    pub fn next(&self, timeout: Option<Duration>) -> Result<Option<AsyncEvent>> {
        if let Some(network) = &self.network {
            return Ok(network.wait_for(timeout, || self.queue.take()));
        }
        wait_until_found(self.queue.fd(), timeout, || self.queue.take())
            .map_err(Error::os("get_async_event", "ppoll"))
    }
}

impl AsFd for AsyncEvents {
    fn as_fd(&self) -> BorrowedFd<'_> {
        if let Some(network) = &self.network {
            network.is_watched();
        }
        self.queue.fd()
    }
}
