//! The `native` device as the verbs layer sees it.

use super::ah::Ah;
use super::channel::NativeChannel;
use super::cq::NativeCq;
use super::events::NativeEvents;
use super::handle::{Handle, Listed, OPEN, Pd};
use super::library::Library;
use super::memory::NativeMemory;
use super::numbers::Tickets;
use super::qp::NativeQp;
use super::srq::NativeSrq;
use super::window::{Window, lasting};
use super::{counters, gid, lock};
use crate::device::{
    Channel, CqRequest, Device, DeviceChannel, DeviceCq, DeviceEvents, DeviceMemory, DeviceQp, DeviceSrq,
    ForeignMemory, QpRequest, SendToken,
};
use crate::error::{Error, Result};
use crate::slots::Slots;
use crate::sync::{AtomicU32, AtomicU64};
use crate::sys::random::random_u64;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, RwLock, Weak};
use tbrdma_proto::{Access, AddressVector, Gid, Guid, MwType, PdHandle, PortAttr, PortState, Profile};

/// Objects of a kind that are counted here; how many there may be is the device's to say.
const MANY: u32 = u32::MAX;

/// What the objects of a context share.
pub(super) struct Core {
    pub(super) handle: Arc<Handle>,
    pub(super) identity: u64,
    pub(super) profile: Profile,
    pub(super) events: Arc<NativeEvents>,
    pub(super) tickets: Tickets,
    pds: Mutex<Slots<Arc<Pd>>>,
    pub(super) cqs: Mutex<Slots<Weak<NativeCq>>>,
    pub(super) srqs: Mutex<Slots<Weak<NativeSrq>>>,
    pub(super) channels: Mutex<Slots<Weak<NativeChannel>>>,
    /// The library's regions, as addresses, by local key: a binding of a window names one.
    regions: Mutex<HashMap<u32, usize>>,
    windows: Mutex<HashMap<u32, Window>>,
    pub(super) ahs: RwLock<HashMap<u32, Arc<Ah>>>,
    pub(super) next_ah: AtomicU32,
    /// Destinations that have been destroyed.
    pub(super) ahs_gone: AtomicU64,
}

impl Core {
    /// The protection domain of this number.
    pub(super) fn pd(&self, pd: PdHandle) -> Result<Arc<Pd>> {
        let found = lock(&self.pds).get(pd.0).cloned();
        found.ok_or_else(|| Self::foreign("alloc_pd", "the protection domain"))
    }

    /// Looks into the table of regions.
    pub(super) fn regions<R>(&self, look: impl FnOnce(&mut HashMap<u32, usize>) -> R) -> R {
        look(&mut lock(&self.regions))
    }

    /// Looks into the table of windows.
    pub(super) fn windows<R>(&self, look: impl FnOnce(&mut HashMap<u32, Window>) -> R) -> R {
        look(&mut lock(&self.windows))
    }

    fn foreign(call: &'static str, what: &str) -> Error {
        Error::InvalidArgument { call, reason: format!("{what} belongs to another context, or is gone") }
    }

    /// The completion queue of this context behind the trait object.
    pub(super) fn own_cq(&self, cq: &Arc<dyn DeviceCq>) -> Result<Arc<NativeCq>> {
        let own = lock(&self.cqs).get(cq.index()).and_then(Weak::upgrade);
        let own = own.filter(|_| cq.context() == self.identity);
        own.ok_or_else(|| Self::foreign("create_qp", "the completion queue"))
    }

    /// Likewise a shared receive queue.
    pub(super) fn own_srq(&self, srq: &Arc<dyn DeviceSrq>) -> Result<Arc<NativeSrq>> {
        let own = lock(&self.srqs).get(srq.index()).and_then(Weak::upgrade);
        let own = own.filter(|_| srq.context() == self.identity);
        own.ok_or_else(|| Self::foreign("create_qp", "the shared receive queue"))
    }

    /// Likewise a channel, of which the verbs layer has made sure that it is this context's.
    pub(super) fn own_channel(&self, channel: &Arc<dyn DeviceChannel>) -> Result<Arc<NativeChannel>> {
        let own = lock(&self.channels).get(channel.slot()).and_then(Weak::upgrade);
        own.ok_or_else(|| Self::foreign("create_cq", "the completion channel"))
    }

    /// The network interface of an entry of the GID table, as the system numbers them; 0 if it is not known.
    pub(super) fn interface_of(&self, sgid_index: u8) -> u32 {
        let table = self.handle.gids();
        let entry = table.iter().find(|entry| entry.index == u32::from(sgid_index));
        entry.map_or(0, |entry| entry.interface)
    }
}

/// An open context. The last object that was made from it closes it.
pub(crate) struct NativeDevice {
    core: Arc<Core>,
    name: String,
}

impl NativeDevice {
    /// Whether the devices of this system are Apple's.
    pub(crate) const IS_APPLES: bool = super::platform::MAC;

    /// Opens the system's device of this name. Of `profile` the switches count; what the device can do it says itself.
    pub(crate) fn open(name: &str, profile: &Profile) -> Result<Self> {
        let library = Library::get(OPEN)?;
        let Some(handle) = Handle::open(&library, name)? else {
            let known: Vec<_> = Listed::all(&library)?.names().collect();
            let known = if known.is_empty() { "no native device".to_owned() } else { known.join(", ") };
            return Err(Error::NoSuchDevice { name: format!("{}{name}", super::PREFIX), known });
        };
        let handle = Arc::new(handle);
        let mut device = handle.query_device()?;
        let port = handle.query_port()?;
        device.max_inline_data = handle.try_inline();
        let profile = profile.on_device(device, port);
        let core = Core {
            identity: random_u64().map_err(Error::os(OPEN, "random numbers"))?,
            profile,
            events: Arc::new(NativeEvents::new(&handle)?),
            tickets: Tickets::new()?,
            pds: Mutex::new(Slots::new(MANY)),
            cqs: Mutex::new(Slots::new(MANY)),
            srqs: Mutex::new(Slots::new(MANY)),
            channels: Mutex::new(Slots::new(MANY)),
            regions: Mutex::default(),
            windows: Mutex::default(),
            ahs: RwLock::default(),
            next_ah: AtomicU32::new(1),
            ahs_gone: AtomicU64::new(0),
            handle,
        };
        Ok(Self { core: Arc::new(core), name: format!("{}{name}", super::PREFIX) })
    }
}

impl Device for NativeDevice {
    fn name(&self) -> &str {
        &self.name
    }

    fn node_guid(&self) -> Guid {
        self.core.profile.device.node_guid
    }

    fn profile(&self) -> &Profile {
        &self.core.profile
    }

    fn gid(&self, index: u32) -> Option<Gid> {
        let len = self.core.profile.port.gid_tbl_len;
        (index < len).then(|| self.core.handle.query_gid(index).unwrap_or_default())
    }

    fn port_state(&self) -> PortState {
        self.port().state
    }

    fn port(&self) -> PortAttr {
        // A device that does not answer is one whose port is down.
        self.core.handle.query_port().unwrap_or_else(|_| self.core.profile.port.down())
    }

    fn pkey(&self, index: u16) -> u16 {
        self.core.handle.query_pkey(index).unwrap_or_default()
    }

    fn lid(&self) -> u16 {
        self.port().lid
    }

    fn gid_index_towards(&self, peer: Option<&Gid>) -> u8 {
        let index = gid::choose(&self.core.handle.gids(), self.core.profile.port.link_layer, peer);
        u8::try_from(index).unwrap_or_default()
    }

    fn describe(&self) -> String {
        let handle = &self.core.handle;
        let tbrdma_proto::DeviceAttr { vendor_id, vendor_part_id, fw_ver, .. } = &self.core.profile.device;
        format!(
            "{} through {}: vendor {vendor_id:#x}, part {vendor_part_id}, firmware {fw_ver:?}, {:?}",
            handle.name,
            handle.library.name(),
            self.core.profile.port.link_layer
        )
    }

    fn counters(&self) -> Vec<(&'static str, u64)> {
        counters::counters(&self.core.handle.name)
    }

    fn events(&self) -> Arc<dyn DeviceEvents> {
        Arc::clone(&self.core.events) as Arc<dyn DeviceEvents>
    }

    fn create_comp_channel(&self) -> Result<Channel> {
        Ok(Channel::Device(NativeChannel::create(&self.core)?))
    }

    fn alloc_pd(&self) -> Result<PdHandle> {
        let pd = Arc::new(Pd::new(&self.core.handle)?);
        let mut pds = lock(&self.core.pds);
        let (slot, _) = pds.claim("alloc_pd", "protection domains")?;
        pds.fill(slot, pd);
        Ok(PdHandle(slot))
    }

    fn dealloc_pd(&self, pd: PdHandle) {
        let gone = lock(&self.core.pds).release(pd.0);
        drop(gone);
    }

    fn alloc_memory(&self, pd: PdHandle, len: usize, access: Access) -> Result<Arc<dyn DeviceMemory>> {
        Ok(NativeMemory::allocate(&self.core, pd, len, access)?)
    }

    fn register_memory(
        &self,
        pd: PdHandle,
        memory: ForeignMemory,
        access: Access,
        iova: u64,
    ) -> Result<Arc<dyn DeviceMemory>> {
        Ok(NativeMemory::register(&self.core, pd, memory, access, iova)?)
    }

    fn alloc_mw(&self, pd: PdHandle, mw_type: MwType) -> Result<u32> {
        self.core.alloc_window(pd, mw_type)
    }

    fn dealloc_mw(&self, rkey: u32) {
        let gone = self.core.windows(|windows| windows.remove(&lasting(rkey)));
        drop(gone);
    }

    fn mw_rkey(&self, rkey: u32) -> u32 {
        self.core.windows(|windows| windows.get(&lasting(rkey)).map_or(rkey, |window| window.key))
    }

    fn create_cq(&self, request: CqRequest) -> Result<Arc<dyn DeviceCq>> {
        Ok(NativeCq::create(&self.core, &request)?)
    }

    fn create_srq(&self, pd: PdHandle, max_wr: u32, max_sge: u32) -> Result<Arc<dyn DeviceSrq>> {
        Ok(NativeSrq::create(&self.core, pd, max_wr, max_sge)?)
    }

    fn create_qp(&self, request: QpRequest) -> Result<(Arc<dyn DeviceQp>, SendToken)> {
        let (qp, token) = NativeQp::create(&self.core, &request)?;
        Ok((qp, token))
    }

    fn create_ah(&self, pd: PdHandle, attr: &AddressVector) -> Result<u32> {
        self.core.create_ah(pd, attr)
    }

    fn destroy_ah(&self, ah: u32) {
        self.core.destroy_ah(ah);
    }

    fn close(&self) {
        self.core.handle.close();
    }
}
