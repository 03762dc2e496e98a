//! The device: what is made from it, and what of that there is.

use super::ending;
use super::gate::{lock, lock_until};
use super::news::{OrderlyChannel, OrderlyEvents};
use super::objects::{OrderlyCq, OrderlyMemory, OrderlyQp};
use crate::device::{
    Channel, CqRequest, Device, DeviceCq, DeviceEvents, DeviceMemory, DeviceQp, DeviceSrq, ForeignMemory,
    QpRequest, SendToken,
};
use crate::error::{Error, Result};
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, Weak};
use std::time::Instant;
use tbrdma_proto::{Access, AddressVector, Gid, Guid, MwType, PdHandle, PortAttr, PortState, Profile};

/// The most regions that are kept for queues that may still write to them, and the most bytes of them.
const MOST_KEPT: usize = 16;
const MOST_BYTES_KEPT: usize = 64 << 20;

/// A device whose objects end in order.
pub(super) struct OrderlyDevice {
    name: String,
    profile: Profile,
    objects: Arc<Objects>,
}

/// What was made from a device, with the device. Calls that make or end something are made one at a time.
pub(super) struct Objects {
    state: Mutex<State>,
    events: Arc<OrderlyEvents>,
}

pub(super) struct State {
    /// Regions that were dropped while there were queues, the oldest first. Before the device: they go first.
    kept: VecDeque<Arc<dyn DeviceMemory>>,
    device: Box<dyn Device>,
    /// The most regions of the device.
    most_regions: usize,
    qps: Vec<Weak<OrderlyQp>>,
    cqs: Vec<Weak<OrderlyCq>>,
    regions: Vec<Weak<OrderlyMemory>>,
    channels: Vec<Weak<OrderlyChannel>>,
    pds: Vec<PdHandle>,
}

impl OrderlyDevice {
    pub(super) fn new(device: Box<dyn Device>) -> Result<Self> {
        let (name, profile) = (device.name().to_owned(), device.profile().clone());
        let events = Arc::new(OrderlyEvents::new(&device.events())?);
        let most_regions = profile.device.max_mr as usize;
        let state = State {
            kept: VecDeque::new(),
            device,
            most_regions,
            qps: Vec::new(),
            cqs: Vec::new(),
            regions: Vec::new(),
            channels: Vec::new(),
            pds: Vec::new(),
        };
        let objects = Arc::new(Objects { state: Mutex::new(state), events });
        ending::watch(&objects)?;
        Ok(Self { name, profile, objects })
    }

    fn with<R>(&self, ask: impl FnOnce(&dyn Device) -> R) -> R {
        self.objects.change(|state| ask(&*state.device))
    }

    fn absent(&self, call: &'static str, what: &'static str) -> Error {
        Error::NotSupported { call, device: self.name.clone(), what }
    }

    fn region(
        &self,
        state: &mut State,
        inner: Arc<dyn DeviceMemory>,
        may_be_kept: bool,
    ) -> Arc<dyn DeviceMemory> {
        let objects = Arc::clone(&self.objects);
        let region = Arc::new(OrderlyMemory { objects, inner, may_be_kept });
        state.regions.push(Arc::downgrade(&region));
        region
    }
}

impl Objects {
    /// Makes a change, alone. Once the end has begun this never returns.
    pub(super) fn change<R>(&self, change: impl FnOnce(&mut State) -> R) -> R {
        change(&mut lock(&self.state))
    }

    /// Ends everything, in order, and nothing of the device can be used any more. What a thread does not come out of until the deadline is left.
    pub(super) fn end(&self, deadline: Instant) {
        let Some(mut state) = lock_until(&self.state, deadline) else { return };
        for qp in state.qps.iter().filter_map(Weak::upgrade) {
            qp.end(deadline);
            // The last of it must not be dropped here: it would wait for what we hold.
            std::mem::forget(qp);
        }
        for cq in state.cqs.iter().filter_map(Weak::upgrade) {
            cq.end(deadline);
            std::mem::forget(cq);
        }
        for channel in state.channels.iter().filter_map(Weak::upgrade) {
            channel.end(deadline);
            std::mem::forget(channel);
        }
        state.let_go(0, 0);
        for region in state.regions.iter().filter_map(Weak::upgrade) {
            let _ = region.inner.deregister();
            std::mem::forget(region);
        }
        for pd in std::mem::take(&mut state.pds) {
            state.device.dealloc_pd(pd);
        }
        self.events.end(deadline);
        state.device.close();
        // Who waits for it waits until the process ends.
        std::mem::forget(state);
    }
}

impl State {
    /// Forgets what there is no more. With the last queue go the regions that were kept for it.
    pub(super) fn forget_the_dropped(&mut self) {
        self.qps.retain(|qp| qp.strong_count() > 0);
        self.cqs.retain(|cq| cq.strong_count() > 0);
        self.regions.retain(|region| region.strong_count() > 0);
        self.channels.retain(|channel| channel.strong_count() > 0);
        if self.qps.is_empty() && self.cqs.is_empty() {
            self.let_go(0, 0);
        }
    }

    /// Keeps a region for as long as a queue may write to it, if there is one.
    pub(super) fn keep(&mut self, region: Arc<dyn DeviceMemory>) {
        self.kept.push_back(region);
        let queues = self.qps.len() + self.cqs.len();
        if queues == 0 { self.let_go(0, 0) } else { self.let_go(MOST_KEPT, MOST_BYTES_KEPT) }
    }

    /// Room for one more region.
    fn make_room(&mut self) {
        self.let_go(self.most_regions.saturating_sub(self.regions.len() + 1), MOST_BYTES_KEPT);
    }

    /// Lets the oldest go until no more than so many, of no more than so many bytes, are kept.
    fn let_go(&mut self, most: usize, most_bytes: usize) {
        let bytes =
            |kept: &VecDeque<Arc<dyn DeviceMemory>>| kept.iter().map(|region| region.len()).sum::<usize>();
        while self.kept.len() > most || bytes(&self.kept) > most_bytes {
            let Some(region) = self.kept.pop_front() else { return };
            // One that cannot be deregistered leaks its bytes when it is dropped.
            let _ = region.deregister();
        }
    }
}

impl Drop for State {
    fn drop(&mut self) {
        self.let_go(0, 0);
    }
}

impl Device for OrderlyDevice {
    fn name(&self) -> &str {
        &self.name
    }

    fn node_guid(&self) -> Guid {
        self.profile.device.node_guid
    }

    fn profile(&self) -> &Profile {
        &self.profile
    }

    fn gid(&self, index: u32) -> Option<Gid> {
        self.with(|device| device.gid(index))
    }

    fn port_state(&self) -> PortState {
        self.with(|device| device.port_state())
    }

    fn port(&self) -> PortAttr {
        self.with(|device| device.port())
    }

    fn pkey(&self, index: u16) -> u16 {
        self.with(|device| device.pkey(index))
    }

    fn lid(&self) -> u16 {
        self.with(|device| device.lid())
    }

    fn gid_index_towards(&self, peer: Option<&Gid>) -> u8 {
        self.with(|device| device.gid_index_towards(peer))
    }

    fn describe(&self) -> String {
        self.with(|device| device.describe()) + ", torn down in order"
    }

    fn counters(&self) -> Vec<(&'static str, u64)> {
        self.with(|device| device.counters())
    }

    fn events(&self) -> Arc<dyn DeviceEvents> {
        Arc::clone(&self.objects.events) as Arc<dyn DeviceEvents>
    }

    fn create_comp_channel(&self) -> Result<Channel> {
        self.objects.change(|state| match state.device.create_comp_channel()? {
            Channel::Device(inner) => {
                let channel = Arc::new(OrderlyChannel::new(&inner)?);
                state.channels.push(Arc::downgrade(&channel));
                Ok(Channel::Device(channel))
            }
            counter @ Channel::Counter(_) => Ok(counter),
        })
    }

    fn random_psn(&self) -> u32 {
        self.with(|device| device.random_psn())
    }

    fn alloc_pd(&self) -> Result<PdHandle> {
        self.objects.change(|state| {
            let pd = state.device.alloc_pd()?;
            state.pds.push(pd);
            Ok(pd)
        })
    }

    fn dealloc_pd(&self, pd: PdHandle) {
        self.objects.change(|state| {
            state.pds.retain(|known| *known != pd);
            state.device.dealloc_pd(pd);
        });
    }

    fn alloc_memory(&self, pd: PdHandle, len: usize, access: Access) -> Result<Arc<dyn DeviceMemory>> {
        self.objects.change(|state| {
            state.make_room();
            let inner = state.device.alloc_memory(pd, len, access)?;
            Ok(self.region(state, inner, true))
        })
    }

    fn register_memory(
        &self,
        pd: PdHandle,
        memory: ForeignMemory,
        access: Access,
        iova: u64,
    ) -> Result<Arc<dyn DeviceMemory>> {
        self.objects.change(|state| {
            state.make_room();
            let may_be_kept = memory.is_handed_over();
            let inner = state.device.register_memory(pd, memory, access, iova)?;
            Ok(self.region(state, inner, may_be_kept))
        })
    }

    fn alloc_mw(&self, _pd: PdHandle, _mw_type: MwType) -> Result<u32> {
        Err(self.absent("alloc_mw", "memory windows"))
    }

    fn dealloc_mw(&self, _rkey: u32) {}

    fn mw_rkey(&self, rkey: u32) -> u32 {
        rkey
    }

    fn create_cq(&self, request: CqRequest) -> Result<Arc<dyn DeviceCq>> {
        self.objects.change(|state| {
            let inner = state.device.create_cq(request)?;
            let cq = Arc::new(OrderlyCq::new(&self.objects, &inner));
            state.cqs.push(Arc::downgrade(&cq));
            Ok(cq as Arc<dyn DeviceCq>)
        })
    }

    fn create_srq(&self, _pd: PdHandle, _max_wr: u32, _max_sge: u32) -> Result<Arc<dyn DeviceSrq>> {
        Err(self.absent("create_srq", "shared receive queues"))
    }

    fn create_qp(&self, request: QpRequest) -> Result<(Arc<dyn DeviceQp>, SendToken)> {
        self.objects.change(|state| {
            let (inner, token) = state.device.create_qp(request)?;
            let qp = Arc::new(OrderlyQp::new(&self.objects, &inner));
            state.qps.push(Arc::downgrade(&qp));
            Ok((qp as Arc<dyn DeviceQp>, token))
        })
    }

    fn create_ah(&self, _pd: PdHandle, _attr: &AddressVector) -> Result<u32> {
        Err(self.absent("create_ah", "datagrams, and so no destinations of theirs"))
    }

    fn destroy_ah(&self, _ah: u32) {}
}
