//! Shared receive queues.

use super::core::{Core, lock};
use crate::device::{DeviceSrq, ReceiveBatch, Refused, check_srq};
use crate::error::{PostRefusal, Result};
use crate::verbs::event::{AsyncEvent, EventSource};
use std::collections::HashSet;
use std::sync::{Arc, Mutex, Weak};
use tbrdma_proto::PdHandle;
use tbrdma_proto::transport::{Receive, Srq};

struct State {
    queue: Srq,
    /// Numbers of the receives that have not been polled. They end in any order, since many queue pairs take them.
    outstanding: HashSet<u32>,
}

/// A shared receive queue.
pub(crate) struct SoftSrq {
    core: Arc<Core>,
    slot: u32,
    max_wr: u32,
    max_sge: u32,
    state: Mutex<State>,
}

impl SoftSrq {
    pub(crate) fn create(core: &Arc<Core>, pd: PdHandle, max_wr: u32, max_sge: u32) -> Result<Arc<Self>> {
        check_srq(max_wr, max_sge)?;
        let (slot, _) = lock(&core.srqs).claim("create_srq", "shared receive queues")?;
        let max_wr = max_wr.next_power_of_two();
        let state = State {
            queue: Srq::new(pd, max_wr, max_sge),
            outstanding: HashSet::with_capacity(max_wr as usize),
        };
        let srq = Arc::new(Self { core: Arc::clone(core), slot, max_wr, max_sge, state: Mutex::new(state) });
        lock(&core.srqs).fill(slot, Arc::downgrade(&srq));
        Ok(srq)
    }

    /// The queue of this context behind the trait object.
    pub(crate) fn own(core: &Core, srq: &Arc<dyn DeviceSrq>) -> Option<Arc<Self>> {
        let own = lock(&core.srqs).get(srq.index()).and_then(Weak::upgrade);
        own.filter(|_| srq.context() == core.context)
    }

    /// Moves the oldest receive into `receive`.
    pub(crate) fn take(&self, receive: &mut Receive) -> bool {
        let mut state = lock(&self.state);
        let found = state.queue.take(receive);
        let event = state.queue.poll_event();
        drop(state);
        if let Some(kind) = event {
            let source = EventSource::SharedReceiveQueue(self.slot);
            self.core.events.push(AsyncEvent { kind, source });
        }
        found
    }

    /// The receive with this number has ended.
    pub(crate) fn retire(&self, number: u32) {
        lock(&self.state).outstanding.remove(&number);
    }
}

impl DeviceSrq for SoftSrq {
    fn max_wr(&self) -> u32 {
        self.max_wr
    }

    fn max_sge(&self) -> u32 {
        self.max_sge
    }

    fn index(&self) -> u32 {
        self.slot
    }

    fn context(&self) -> u64 {
        self.core.context
    }

    fn post_recv(&self, batch: &mut ReceiveBatch) -> (u32, Option<Refused>) {
        let mut guard = lock(&self.state);
        let state = &mut *guard;
        let mut first = 0;
        for (position, wr) in batch.wrs.iter().enumerate() {
            if state.outstanding.len() >= self.max_wr as usize {
                return (first, Some((position, PostRefusal::QueueFull { depth: self.max_wr })));
            }
            match state.queue.post(wr.wr_id, batch.sges_of(wr)) {
                Ok(number) => {
                    if position == 0 {
                        first = number;
                    }
                    state.outstanding.insert(number);
                }
                Err(fault) => return (first, Some((position, fault.into()))),
            }
        }
        (first, None)
    }

    fn set_limit(&self, limit: u32) -> Result<()> {
        lock(&self.state).queue.set_limit(limit);
        Ok(())
    }

    fn limit(&self) -> u32 {
        lock(&self.state).queue.limit()
    }

    fn is_retired(&self, number: u32) -> bool {
        !lock(&self.state).outstanding.contains(&number)
    }
}

impl Drop for SoftSrq {
    fn drop(&mut self) {
        lock(&self.core.srqs).release(self.slot);
    }
}
