//! The `soft` device as the verbs layer sees it.

use super::core::{Core, Simulation, lock};
use super::cq::SoftCq;
use super::memory::SoftMemory;
use super::qp::SoftQp;
use super::service;
use super::srq::SoftSrq;
use crate::device::{
    CqRequest, Device, DeviceCq, DeviceEvents, DeviceMemory, DeviceQp, DeviceSrq, ForeignMemory, QpRequest,
    SendToken,
};
use crate::error::{Error, Result};
use crate::keys::Keys;
use crate::link::Link;
use crate::sim::{Network, Node};
use std::sync::{Arc, Weak};
use tbrdma_proto::{Access, AddressVector, Gid, Guid, MwType, PdHandle, PortState, Profile};

/// An open context. Dropping it ends the service thread; in a simulated network there is none.
pub(crate) struct SoftDevice {
    core: Arc<Core>,
    service: Option<std::thread::JoinHandle<()>>,
}

impl SoftDevice {
    /// A device on this link.
    pub(crate) fn open(link: Box<dyn Link>, profile: Profile) -> Result<Self> {
        let core = Core::open(link, profile, None)?;
        let service = service::start(&core).map_err(Error::os("open_device", "a service thread"))?;
        Ok(Self { core, service: Some(service) })
    }

    /// An adapter in a simulated network.
    pub(crate) fn simulate(link: Box<dyn Link>, profile: Profile, simulation: Simulation) -> Result<Self> {
        let network = Arc::clone(&simulation.network);
        let core = Core::open(link, profile, Some(simulation))?;
        let node: Weak<dyn Node> = Arc::<Core>::downgrade(&core);
        network.join(node);
        Ok(Self { core, service: None })
    }
}

impl Drop for SoftDevice {
    fn drop(&mut self) {
        self.core.stop_service();
        if let Some(service) = self.service.take() {
            // A thread that panicked has nothing left to do.
            let _ = service.join();
        }
    }
}

impl Device for SoftDevice {
    fn name(&self) -> &str {
        self.core.link.name()
    }

    fn node_guid(&self) -> Guid {
        self.core.profile.device.node_guid
    }

    fn profile(&self) -> &Profile {
        &self.core.profile
    }

    fn gid(&self, index: u32) -> Option<Gid> {
        let len = self.core.profile.port.gid_tbl_len;
        (index < len)
            .then(|| u8::try_from(index).map_or_else(|_| Gid::default(), |index| self.core.gid(index)))
    }

    fn gid_index_towards(&self, peer: Option<&Gid>) -> u8 {
        match peer {
            None => self.core.default_gid_index(),
            Some(peer) => self.core.gid_index_towards(peer),
        }
    }

    fn port_state(&self) -> PortState {
        let is_down = self.core.link.state().is_some_and(|state| !state.is_up());
        if is_down { PortState::Down } else { PortState::Active }
    }

    fn lid(&self) -> u16 {
        self.core.profile.port.lid
    }

    fn events(&self) -> Arc<dyn DeviceEvents> {
        Arc::clone(&self.core.events) as Arc<dyn DeviceEvents>
    }

    fn counters(&self) -> Vec<(&'static str, u64)> {
        self.core.counters()
    }

    fn network(&self) -> Option<&Arc<Network>> {
        self.core.network()
    }

    fn random_psn(&self) -> u32 {
        self.core.random_u32().unwrap_or_default() & 0x00ff_ffff
    }

    fn describe(&self) -> String {
        self.core.link.describe()
    }

    fn alloc_pd(&self) -> Result<PdHandle> {
        let (slot, _) = lock(&self.core.pds).claim("alloc_pd", "protection domains")?;
        Ok(PdHandle(slot))
    }

    fn dealloc_pd(&self, pd: PdHandle) {
        lock(&self.core.pds).release(pd.0);
    }

    fn alloc_memory(&self, pd: PdHandle, len: usize, access: Access) -> Result<Arc<dyn DeviceMemory>> {
        Ok(SoftMemory::allocate(&self.core, pd, len, access)?)
    }

    fn register_memory(
        &self,
        pd: PdHandle,
        memory: ForeignMemory,
        access: Access,
        iova: u64,
    ) -> Result<Arc<dyn DeviceMemory>> {
        Ok(SoftMemory::register(&self.core, pd, memory, access, iova)?)
    }

    fn alloc_mw(&self, pd: PdHandle, mw_type: MwType) -> Result<u32> {
        self.core.alloc_window(pd, mw_type)
    }

    fn dealloc_mw(&self, rkey: u32) {
        self.core.free_window(rkey);
    }

    fn mw_rkey(&self, rkey: u32) -> u32 {
        self.core.window_key(rkey).unwrap_or(rkey)
    }

    fn create_cq(&self, request: CqRequest) -> Result<Arc<dyn DeviceCq>> {
        Ok(SoftCq::create(&self.core, request)?)
    }

    fn create_srq(&self, pd: PdHandle, max_wr: u32, max_sge: u32) -> Result<Arc<dyn DeviceSrq>> {
        Ok(SoftSrq::create(&self.core, pd, max_wr, max_sge)?)
    }

    fn create_qp(&self, request: QpRequest) -> Result<(Arc<dyn DeviceQp>, SendToken)> {
        let (qp, token) = SoftQp::create(&self.core, &request)?;
        Ok((qp, token))
    }

    fn create_ah(&self, _pd: PdHandle, attr: &AddressVector) -> Result<u32> {
        self.core.add_handle(self.core.path_to("create_ah", attr, false)?)
    }

    fn destroy_ah(&self, ah: u32) {
        self.core.remove_handle(ah);
    }
}
