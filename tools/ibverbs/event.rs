//! Asynchronous events.

use crate::abi::*;
use crate::acks::Acks;
use crate::context::{Context, Known, Opened, lock};
use crate::cq::Cq;
use crate::errno::Errno;
use crate::export::export;
use crate::happen;
use crate::object::{Object, Out};
use crate::qp::Qp;
use crate::srq::Srq;
use crate::wait;
use crate::watch;
use core::ffi::{c_int, c_void};
use core::ptr::null_mut;
use nix::sys::epoll::Epoll;
use nix::sys::eventfd::{EfdFlags, EventFd};
use std::collections::VecDeque;
use std::os::fd::{AsFd, AsRawFd};
use std::sync::Mutex;
use std::sync::atomic::Ordering;
use tbrdma::{AsyncEvents, EventSource};
use tbrdma_proto::AsyncEventKind;

/// The object of an event.
#[derive(Clone, Copy)]
enum Source {
    Qp(Known<Qp>),
    Cq(Known<Cq>),
    Srq(Known<Srq>),
    Port(c_int),
}

impl Source {
    /// The object as the program knows it, and its acknowledgements.
    fn object(&self) -> (ibv_async_event_element, Option<&Acks>) {
        match self {
            Self::Qp(known) => {
                // SAFETY: its events are forgotten before it is destroyed.
                let qp = unsafe { &*known.0 };
                (ibv_async_event_element { qp: qp.c() }, Some(&qp.async_events))
            }
            Self::Cq(known) => {
                // SAFETY: as above.
                let cq = unsafe { &*known.0 };
                (ibv_async_event_element { cq: cq.c() }, Some(&cq.async_events))
            }
            Self::Srq(known) => {
                // SAFETY: as above.
                let srq = unsafe { &*known.0 };
                (ibv_async_event_element { srq: srq.c() }, Some(&srq.async_events))
            }
            Self::Port(number) => {
                // All of it: who copies or prints the union reads more than the number.
                let mut element = ibv_async_event_element { qp: null_mut() };
                element.port_num = *number;
                (element, None)
            }
        }
    }
}

/// The events of one context that nobody has read, oldest first.
///
/// The device has one queue of events for all contexts of this process: whoever looks into it first hands them out.
pub(crate) struct Events {
    queue: Mutex<VecDeque<(Source, AsyncEventKind)>>,
    /// Readable while there are some.
    has_some: EventFd,
    /// What the program waits at: this, and the device's.
    set: Epoll,
}

impl Events {
    pub(crate) fn new(device: &AsyncEvents) -> Result<Self, Errno> {
        let has_some = EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)?;
        let set = wait::any_of(&[device.as_fd(), has_some.as_fd()])?;
        Ok(Self { queue: Mutex::default(), has_some, set })
    }

    pub(crate) fn fd(&self) -> c_int {
        self.set.0.as_raw_fd()
    }

    fn push(&self, source: Source, kind: AsyncEventKind) {
        lock(&self.queue).push_back((source, kind));
        let _ = self.has_some.write(1);
    }

    fn pop(&self) -> Option<ibv_async_event> {
        let mut queue = lock(&self.queue);
        let (source, kind) = queue.pop_front()?;
        if queue.is_empty() {
            self.is_empty();
        }
        let (element, acks) = source.object();
        if let Some(acks) = acks {
            acks.read();
        }
        Some(ibv_async_event { element, event_type: kind.raw() })
    }

    /// Forgets the events of an object, which is no longer in the table of objects.
    pub(crate) fn purge<T>(&self, object: &T) {
        let object: *const T = object;
        let mut queue = lock(&self.queue);
        queue.retain(|(source, _)| {
            let about: *const c_void = match source {
                Source::Qp(known) => known.0.cast(),
                Source::Cq(known) => known.0.cast(),
                Source::Srq(known) => known.0.cast(),
                Source::Port(_) => core::ptr::null(),
            };
            about != object.cast()
        });
        if queue.is_empty() {
            self.is_empty();
        }
    }

    /// No events are left. Where the device was removed, there is always that to be read.
    fn is_empty(&self) {
        if !happen::is_removed() {
            let _ = self.has_some.read();
        }
    }
}

/// Hands out what the device has, and takes the next event of this context.
fn next(context: &Context) -> Result<Option<ibv_async_event>, Errno> {
    // While this is held no object is destroyed, and no context closed.
    let objects = context.objects();
    while let Some(event) = context.opened.events.try_next() {
        let source = match event.source {
            EventSource::QueuePair(qpn) => objects.qps.get(&qpn.get()).map(|known| {
                // SAFETY: in the table of objects, which is locked; so for the others.
                (Source::Qp(*known), unsafe { &*known.0 }.context())
            }),
            EventSource::CompletionQueue(number) => objects.cqs.get(&number).map(|known| {
                // SAFETY: as above.
                (Source::Cq(*known), unsafe { &*known.0 }.context())
            }),
            EventSource::SharedReceiveQueue(number) => objects.srqs.get(&number).map(|known| {
                // SAFETY: as above.
                (Source::Srq(*known), unsafe { &*known.0 }.context())
            }),
            source => {
                let number = if let EventSource::Port(number) = source { number.into() } else { 0 };
                for known in &objects.contexts {
                    // SAFETY: as above.
                    unsafe { &*known.0 }.events.push(Source::Port(number), event.kind);
                }
                None
            }
        };
        if let Some((source, owner)) = source {
            owner.events.push(source, event.kind);
        }
    }
    context.events.pop().map_or_else(happen::nothing, |event| Ok(Some(event)))
}

/// Raises an event that the fault plan wants, and does to its object what such an event tells of. An object's event is about the one that was made last.
#[cold]
pub(crate) fn raise(opened: &Opened, kind: AsyncEventKind) {
    use AsyncEventKind as Kind;
    let objects = lock(&opened.objects);
    // SAFETY: in the table of objects, which is locked; so for the others.
    let qps = || objects.qps.values().map(|known| unsafe { &*known.0 });
    match kind {
        Kind::CqErr => {
            // SAFETY: as above.
            let cqs = objects.cqs.values().map(|known| unsafe { &*known.0 });
            let Some(cq) = cqs.max_by_key(|cq| cq.order) else { return };
            qps().filter(|qp| qp.completes_in(cq)).for_each(Qp::break_down);
            cq.context().events.push(Source::Cq(Known(cq)), kind);
        }
        Kind::SrqErr | Kind::SrqLimitReached => {
            // SAFETY: as above.
            let srqs = objects.srqs.values().map(|known| unsafe { &*known.0 });
            let Some(srq) = srqs.max_by_key(|srq| srq.order) else { return };
            if kind == Kind::SrqErr {
                qps().filter(|qp| qp.takes_from(srq)).for_each(Qp::break_down);
            }
            srq.context().events.push(Source::Srq(Known(srq)), kind);
        }
        kind if is_of_qp(kind) => {
            let Some(qp) = qps().max_by_key(|qp| qp.order) else { return };
            if matches!(kind, Kind::QpFatal | Kind::QpReqErr | Kind::QpAccessErr) {
                qp.break_down();
            }
            qp.context().events.push(Source::Qp(Known(qp)), kind);
        }
        _ => {
            match kind {
                Kind::DeviceFatal => qps().for_each(Qp::break_down),
                Kind::PortErr => opened.is_port_down.store(true, Ordering::Relaxed),
                Kind::PortActive => opened.is_port_down.store(false, Ordering::Relaxed),
                _ => {}
            }
            let port = if kind == Kind::DeviceFatal { 0 } else { 1 };
            for known in &objects.contexts {
                // SAFETY: as above.
                unsafe { &*known.0 }.events.push(Source::Port(port), kind);
            }
        }
    }
}

/// Whether events of this kind are about a queue pair.
fn is_of_qp(kind: AsyncEventKind) -> bool {
    use AsyncEventKind as Kind;
    matches!(
        kind,
        Kind::QpFatal
            | Kind::QpReqErr
            | Kind::QpAccessErr
            | Kind::CommEst
            | Kind::SqDrained
            | Kind::PathMig
            | Kind::PathMigErr
            | Kind::QpLastWqeReached
    )
}

/// The acknowledgements of an event's object, if it has one.
fn acks<'a>(event: &ibv_async_event) -> Option<&'a Acks> {
    use AsyncEventKind as Kind;
    match Kind::from_raw(event.event_type)? {
        Kind::CqErr => {
            // SAFETY: this kind has this arm.
            let cq = unsafe { event.element.cq };
            // SAFETY: its event is not yet acknowledged, so it has not been destroyed.
            Some(&unsafe { Cq::of(cq).as_ref() }?.async_events)
        }
        kind if is_of_qp(kind) => {
            // SAFETY: these kinds have this arm.
            let qp = unsafe { event.element.qp };
            // SAFETY: as above.
            Some(&unsafe { Qp::of(qp).as_ref() }?.async_events)
        }
        Kind::SrqErr | Kind::SrqLimitReached => {
            // SAFETY: these kinds have this arm.
            let srq = unsafe { event.element.srq };
            // SAFETY: as above.
            Some(&unsafe { Srq::of(srq).as_ref() }?.async_events)
        }
        _ => None,
    }
}

export! {
    "IBVERBS_1.1" minus_one fn ibv_get_async_event(context: &Context, event: Out<'_, ibv_async_event>) -> c_int {
        let next = wait::until_found(&context.events.set, || next(context))?;
        if watch::is_on()
            && let Some(kind) = AsyncEventKind::from_raw(next.event_type)
        {
            watch::detail(format_args!("{kind:?}: {kind}"));
        }
        event.put(next);
        Ok(0)
    }

    "IBVERBS_1.1" plain fn ibv_ack_async_event(event: &ibv_async_event) {
        if let Some(acks) = acks(event) {
            acks.acknowledge(1);
        }
        Ok(())
    }
}
