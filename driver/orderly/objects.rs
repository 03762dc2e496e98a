//! Queue pairs, completion queues and memory regions, each behind a gate.

use super::device::Objects;
use super::gate::Gate;
use crate::device::{
    DeviceCq, DeviceMemory, DeviceQp, ForeignMemory, ReceiveBatch, Refused, SendBatch, SendToken,
    bytes_of_inner,
};
use crate::error::Result;
use std::sync::Arc;
use std::time::Instant;
use tbrdma_proto::{
    Access, PdHandle, QpAttr, QpAttrMask, QpCap, QpState, QpType, Qpn, Region, WorkCompletion,
};

/// Brings a queue pair to ERR, so that its device lets go of what is posted. One that cannot is destroyed all the same.
fn stop(qp: &dyn DeviceQp) {
    let attr = QpAttr { qp_state: QpState::Err, ..QpAttr::default() };
    let _ = qp.modify(&attr, QpAttrMask::STATE);
}

/// A queue pair. Its halves may be on two threads, so each has a way of its own; the third is for everything else.
pub(super) struct OrderlyQp {
    pub(super) objects: Arc<Objects>,
    qp_num: Qpn,
    qp_type: QpType,
    cap: QpCap,
    send: Gate<dyn DeviceQp>,
    receive: Gate<dyn DeviceQp>,
    control: Gate<dyn DeviceQp>,
}

impl OrderlyQp {
    pub(super) fn new(objects: &Arc<Objects>, inner: &Arc<dyn DeviceQp>) -> Self {
        Self {
            objects: Arc::clone(objects),
            qp_num: inner.qp_num(),
            qp_type: inner.qp_type(),
            cap: inner.cap(),
            send: Gate::new(inner),
            receive: Gate::new(inner),
            control: Gate::new(inner),
        }
    }

    pub(super) fn end(&self, deadline: Instant) {
        let ways = [&self.send, &self.receive, &self.control].map(|way| way.close(deadline));
        match ways {
            [Some(send), Some(receive), Some(control)] => {
                stop(&*control);
                drop((send, receive, control));
            }
            // A thread is in the middle of a call and does not come out: destroying under its feet would be worse than leaving it.
            stuck => std::mem::forget(stuck),
        }
    }
}

impl Drop for OrderlyQp {
    fn drop(&mut self) {
        let ways = [self.send.open(), self.receive.open(), self.control.open()];
        self.objects.change(|state| {
            if let [Some(qp), ..] = &ways {
                stop(&**qp);
            }
            drop(ways);
            state.forget_the_dropped();
        });
    }
}

impl DeviceQp for OrderlyQp {
    fn qp_num(&self) -> Qpn {
        self.qp_num
    }

    fn qp_type(&self) -> QpType {
        self.qp_type
    }

    fn cap(&self) -> QpCap {
        self.cap
    }

    fn post_send(&self, token: &mut SendToken, batch: &mut SendBatch) -> (u32, Option<Refused>) {
        self.send.with(|qp| qp.post_send(token, batch))
    }

    fn post_recv(&self, batch: &mut ReceiveBatch) -> (u32, Option<Refused>) {
        self.receive.with(|qp| qp.post_recv(batch))
    }

    fn modify(&self, attr: &QpAttr, mask: QpAttrMask) -> Result<()> {
        self.control.with(|qp| qp.modify(attr, mask))
    }

    fn query(&self) -> QpAttr {
        self.control.with(|qp| qp.query())
    }

    fn sends_retired(&self) -> u32 {
        self.send.with(|qp| qp.sends_retired())
    }

    fn is_receive_retired(&self, number: u32) -> bool {
        self.receive.with(|qp| qp.is_receive_retired(number))
    }

    fn destroy(&self) {
        self.control.with(|qp| qp.destroy());
    }
}

/// A completion queue.
pub(super) struct OrderlyCq {
    pub(super) objects: Arc<Objects>,
    index: u32,
    context: u64,
    inner: Gate<dyn DeviceCq>,
}

impl OrderlyCq {
    pub(super) fn new(objects: &Arc<Objects>, inner: &Arc<dyn DeviceCq>) -> Self {
        let (index, context) = (inner.index(), inner.context());
        Self { objects: Arc::clone(objects), index, context, inner: Gate::new(inner) }
    }

    pub(super) fn end(&self, deadline: Instant) {
        self.inner.close(deadline);
    }
}

impl Drop for OrderlyCq {
    fn drop(&mut self) {
        let cq = self.inner.open();
        self.objects.change(|state| {
            drop(cq);
            state.forget_the_dropped();
        });
    }
}

impl DeviceCq for OrderlyCq {
    fn cqe(&self) -> u32 {
        self.inner.with(|cq| cq.cqe())
    }

    fn unpolled(&self) -> usize {
        self.inner.with(|cq| cq.unpolled())
    }

    fn resize(&self, cqe: u32) -> Result<()> {
        self.inner.with(|cq| cq.resize(cqe))
    }

    fn poll(&self, out: &mut [WorkCompletion]) -> usize {
        self.inner.with(|cq| cq.poll(out))
    }

    fn arm(&self, solicited_only: bool) -> Result<()> {
        self.inner.with(|cq| cq.arm(solicited_only))
    }

    fn event_order(&self) -> Option<u64> {
        self.inner.with(|cq| cq.event_order())
    }

    fn take_event(&self) -> bool {
        self.inner.with(|cq| cq.take_event())
    }

    fn index(&self) -> u32 {
        self.index
    }

    fn context(&self) -> u64 {
        self.context
    }
}

/// A memory region. Its bytes stay mapped whatever ends, so only calls that change it wait for the device.
pub(super) struct OrderlyMemory {
    pub(super) objects: Arc<Objects>,
    pub(super) inner: Arc<dyn DeviceMemory>,
    /// The bytes are the library's, or were handed over: they may be kept when the region is dropped.
    pub(super) may_be_kept: bool,
}

impl Drop for OrderlyMemory {
    fn drop(&mut self) {
        self.objects.change(|state| {
            state.forget_the_dropped();
            if self.may_be_kept {
                state.keep(Arc::clone(&self.inner));
            } else {
                // One that cannot be deregistered leaks its bytes when it is dropped, which is next.
                let _ = self.inner.deregister();
            }
        });
    }
}

impl DeviceMemory for OrderlyMemory {
    fn region(&self) -> &Region {
        self.inner.region()
    }

    fn lkey(&self) -> u32 {
        self.inner.lkey()
    }

    fn rkey(&self) -> u32 {
        self.inner.rkey()
    }

    bytes_of_inner!();

    fn change_rights(&self, pd: PdHandle, access: Access) -> Result<()> {
        self.objects.change(|_| self.inner.change_rights(pd, access))
    }

    fn deregister(&self) -> Result<()> {
        self.objects.change(|_| self.inner.deregister())
    }

    fn give_back_foreign(&self) -> Result<Option<ForeignMemory>> {
        self.objects.change(|_| self.inner.give_back_foreign())
    }
}
