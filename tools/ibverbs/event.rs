//! Asynchronous events.

use crate::abi::*;
use crate::acks::Acks;
use crate::context::Context;
use crate::cq::Cq;
use crate::export::export;
use crate::object::{Object, Out};
use crate::qp::Qp;
use crate::srq::Srq;
use crate::wait;
use core::ffi::c_int;
use tbrdma::EventSource;
use tbrdma_proto::AsyncEventKind;

/// The next event whose object still is, and the reading of it.
fn next(context: &Context) -> Option<ibv_async_event> {
    // While this is held no object is destroyed: the one found stays until its event is acknowledged.
    let objects = context.objects();
    loop {
        let event = context.opened.events.try_next()?;
        let element = match event.source {
            EventSource::QueuePair(qpn) => objects.qps.get(&qpn.get()).map(|known| {
                // SAFETY: in the table of objects, which is locked.
                let qp = unsafe { &*known.0 };
                qp.async_events.read();
                ibv_async_event_element { qp: qp.c() }
            }),
            EventSource::CompletionQueue(number) => objects.cqs.get(&number).map(|known| {
                // SAFETY: as above.
                let cq = unsafe { &*known.0 };
                cq.async_events.read();
                ibv_async_event_element { cq: cq.c() }
            }),
            EventSource::SharedReceiveQueue(number) => objects.srqs.get(&number).map(|known| {
                // SAFETY: as above.
                let srq = unsafe { &*known.0 };
                srq.async_events.read();
                ibv_async_event_element { srq: srq.c() }
            }),
            EventSource::Port(number) => Some(ibv_async_event_element { port_num: number.into() }),
            _ => Some(ibv_async_event_element { port_num: 0 }),
        };
        if let Some(element) = element {
            return Some(ibv_async_event { element, event_type: event.kind.raw() });
        }
    }
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
        Kind::QpFatal
        | Kind::QpReqErr
        | Kind::QpAccessErr
        | Kind::CommEst
        | Kind::SqDrained
        | Kind::PathMig
        | Kind::PathMigErr
        | Kind::QpLastWqeReached => {
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
        event.put(wait::until_found(&context.async_fd, || next(context))?);
        Ok(0)
    }

    "IBVERBS_1.1" plain fn ibv_ack_async_event(event: &ibv_async_event) {
        if let Some(acks) = acks(event) {
            acks.acknowledge(1);
        }
        Ok(())
    }
}
