//! Asynchronous events: read from the library when somebody asks, and acknowledged at once, since what is told of them is a number.

use super::channel::never_block;
use super::handle::{Handle, OPEN};
use super::lock;
use crate::device::DeviceEvents;
use crate::error::{Error, Result};
use crate::sync::{AtomicBool, Ordering};
use crate::sys::eventfd::EventFd;
use crate::verbs::event::{AsyncEvent, EventSource};
use core::mem::MaybeUninit;
use std::collections::VecDeque;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::{Arc, Mutex};
use tbrdma_abi::*;
use tbrdma_proto::{AsyncEventKind, Qpn};

/// The events of a context.
pub(super) struct NativeEvents {
    handle: Arc<Handle>,
    /// What we found out ourselves. The descriptor tells nothing of these.
    ours: Mutex<VecDeque<AsyncEvent>>,
    any_of_ours: AtomicBool,
    /// Stands for the library's descriptor where it has none.
    silence: Option<EventFd>,
}

impl NativeEvents {
    pub(super) fn new(handle: &Arc<Handle>) -> Result<Self> {
        // SAFETY: an open context.
        let fd = unsafe { (*handle.context()).async_fd };
        let library = &handle.library;
        let is_told =
            fd >= 0 && library.ibv_get_async_event.is_some() && library.ibv_ack_async_event.is_some();
        let silence = if is_told { None } else { Some(EventFd::new().map_err(Error::os(OPEN, "eventfd"))?) };
        let events = Self {
            handle: Arc::clone(handle),
            ours: Mutex::default(),
            any_of_ours: AtomicBool::new(false),
            silence,
        };
        if is_told {
            let os = |error: nix::Error| {
                Error::os(OPEN, "make the descriptor of events nonblocking")(error.into())
            };
            never_block(events.fd()).map_err(os)?;
        }
        Ok(events)
    }

    /// Something that the library does not raise an event for.
    pub(super) fn raise(&self, event: AsyncEvent) {
        lock(&self.ours).push_back(event);
        self.any_of_ours.store(true, Ordering::Release);
    }

    fn take_ours(&self) -> Option<AsyncEvent> {
        if !self.any_of_ours.load(Ordering::Acquire) {
            return None;
        }
        let mut ours = lock(&self.ours);
        let event = ours.pop_front();
        self.any_of_ours.store(!ours.is_empty(), Ordering::Release);
        event
    }
}

/// The object of an event that has not been acknowledged, so that it is alive.
fn source(event: &ibv_async_event, kind: AsyncEventKind) -> EventSource {
    use AsyncEventKind as Kind;
    match kind {
        Kind::CqErr => {
            // SAFETY: the arm that such an event has.
            let cq = unsafe { event.element.cq };
            // SAFETY: alive, see above. The number is what it was made with.
            EventSource::CompletionQueue(unsafe { (*cq).cq_context }.addr() as u32)
        }
        Kind::SrqErr | Kind::SrqLimitReached => {
            // SAFETY: the arm that such an event has.
            let srq = unsafe { event.element.srq };
            // SAFETY: alive, see above. The number is what it was made with.
            EventSource::SharedReceiveQueue(unsafe { (*srq).srq_context }.addr() as u32)
        }
        Kind::QpFatal
        | Kind::QpReqErr
        | Kind::QpAccessErr
        | Kind::CommEst
        | Kind::SqDrained
        | Kind::PathMig
        | Kind::PathMigErr
        | Kind::QpLastWqeReached => {
            // SAFETY: the arm that such an event has.
            let qp = unsafe { event.element.qp };
            // SAFETY: alive, see above.
            EventSource::QueuePair(Qpn::masked(unsafe { (*qp).qp_num }))
        }
        Kind::PortActive
        | Kind::PortErr
        | Kind::LidChange
        | Kind::PkeyChange
        | Kind::SmChange
        | Kind::ClientReregister
        | Kind::GidChange => {
            // SAFETY: the arm that such an event has.
            let port = unsafe { event.element.port_num };
            EventSource::Port(u8::try_from(port).unwrap_or(tbrdma_proto::PORT))
        }
        Kind::DeviceFatal | Kind::WqFatal => EventSource::Device,
    }
}

impl DeviceEvents for NativeEvents {
    fn fd(&self) -> BorrowedFd<'_> {
        if let Some(silence) = &self.silence {
            return silence.as_fd();
        }
        // SAFETY: an open context.
        let fd = unsafe { (*self.handle.context()).async_fd };
        // SAFETY: the context's descriptor, open for as long as the context is.
        unsafe { BorrowedFd::borrow_raw(fd) }
    }

    fn take(&self) -> Option<AsyncEvent> {
        if let Some(event) = self.take_ours() {
            return Some(event);
        }
        if self.silence.is_some() {
            return None;
        }
        let library = &self.handle.library;
        let (get, ack) = (library.ibv_get_async_event?, library.ibv_ack_async_event?);
        loop {
            let mut event = MaybeUninit::<ibv_async_event>::zeroed();
            // SAFETY: an open context, and room for the answer. It does not block.
            if unsafe { get(self.handle.context(), event.as_mut_ptr()) } != 0 {
                return None;
            }
            // SAFETY: filled by the library, and all zeroes before: numbers and pointers.
            let mut event = unsafe { event.assume_init() };
            // An event of a kind that we do not know is acknowledged and passed over.
            let told = AsyncEventKind::from_raw(event.event_type)
                .map(|kind| AsyncEvent { kind, source: source(&event, kind) });
            // SAFETY: an event that was just read, acknowledged once.
            unsafe { ack(&raw mut event) };
            if told.is_some() {
                return told;
            }
        }
    }
}
