//! The `shm` device as the verbs layer sees it.

use super::core::{Core, Destination, gid_of, ipv4_gid_of, lock};
use super::cq::ShmCq;
use super::memory::ShmMemory;
use super::peer;
use super::qp::ShmQp;
use super::service;
use super::srq::ShmSrq;
use super::wire::Wire;
use crate::device::{
    CqRequest, Device, DeviceCq, DeviceEvents, DeviceMemory, DeviceQp, DeviceSrq, ForeignMemory, QpRequest,
    SendToken,
};
use crate::error::{Error, Result};
use crate::keys::Keys;
use std::sync::{Arc, Weak};
use tbrdma_proto::{
    Access, AddressVector, CableEnd, Gid, Guid, MwType, PdHandle, Presence, Profile, check_address_vector,
    limits,
};

/// The device's name.
pub(crate) const NAME: &str = "shm";

/// An open context. Dropping it ends the service thread.
pub(crate) struct ShmDevice {
    core: Arc<Core>,
    service: Option<std::thread::JoinHandle<()>>,
}

impl ShmDevice {
    /// A context, at the end of this cable, on this wire.
    pub(crate) fn open(profile: Profile, cable: Option<&CableEnd>, wire: Option<Wire>) -> Result<Self> {
        let (core, listener) = Core::open(profile, cable, wire)?;
        let service =
            service::start(&core, listener).map_err(Error::os("open_device shm", "a service thread"))?;
        Ok(Self { core, service: Some(service) })
    }

    fn own_cq(&self, cq: &Arc<dyn DeviceCq>) -> Result<Arc<ShmCq>> {
        let own = lock(&self.core.cqs).get(cq.index()).and_then(Weak::upgrade);
        own.filter(|own| own.core.context == cq.context()).ok_or_else(|| Error::InvalidArgument {
            call: "create_qp",
            reason: "the completion queue belongs to another context".to_owned(),
        })
    }
}

impl Drop for ShmDevice {
    fn drop(&mut self) {
        self.core.stop_service();
        if let Some(service) = self.service.take() {
            // A thread that panicked has nothing left to do.
            let _ = service.join();
        }
    }
}

impl Device for ShmDevice {
    fn name(&self) -> &str {
        NAME
    }

    fn node_guid(&self) -> Guid {
        Guid(self.core.context)
    }

    fn profile(&self) -> &Profile {
        &self.core.profile
    }

    fn gid(&self, index: u32) -> Option<Gid> {
        match index {
            0 => Some(gid_of(self.core.context)),
            1 if self.core.profile.switches.ipv4 == Presence::On => Some(ipv4_gid_of(self.core.lid)),
            index if index < self.core.profile.port.gid_tbl_len => Some(Gid::default()),
            _ => None,
        }
    }

    fn lid(&self) -> u16 {
        self.core.lid
    }

    fn describe(&self) -> String {
        self.core.wire.as_ref().map_or_else(|| NAME.to_owned(), |wire| wire.describe(NAME))
    }

    fn counters(&self) -> Vec<(&'static str, u64)> {
        self.core.wire.as_ref().map(Wire::counters).unwrap_or_default()
    }

    fn events(&self) -> Arc<dyn DeviceEvents> {
        Arc::clone(&self.core.events) as Arc<dyn DeviceEvents>
    }

    fn alloc_pd(&self) -> Result<PdHandle> {
        let (slot, _) = lock(&self.core.pds).claim("alloc_pd", "protection domains")?;
        Ok(PdHandle(slot))
    }

    fn dealloc_pd(&self, pd: PdHandle) {
        lock(&self.core.pds).release(pd.0);
    }

    fn alloc_memory(&self, pd: PdHandle, len: usize, access: Access) -> Result<Arc<dyn DeviceMemory>> {
        Ok(ShmMemory::allocate(&self.core, pd, len, access)?)
    }

    fn register_memory(
        &self,
        pd: PdHandle,
        memory: ForeignMemory,
        access: Access,
        iova: u64,
    ) -> Result<Arc<dyn DeviceMemory>> {
        Ok(ShmMemory::register(&self.core, pd, memory, access, iova)?)
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
        Ok(ShmCq::create(&self.core, request)?)
    }

    fn create_srq(&self, pd: PdHandle, max_wr: u32, max_sge: u32) -> Result<Arc<dyn DeviceSrq>> {
        Ok(ShmSrq::create(&self.core, pd, max_wr, max_sge)?)
    }

    fn create_qp(&self, request: QpRequest) -> Result<(Arc<dyn DeviceQp>, SendToken)> {
        let send_cq = self.own_cq(&request.send_cq)?;
        let recv_cq = self.own_cq(&request.recv_cq)?;
        let srq = match &request.srq {
            None => None,
            Some(srq) => {
                let own = lock(&self.core.srqs).get(srq.index()).and_then(Weak::upgrade);
                let own = own.filter(|_| srq.context() == self.core.context).ok_or_else(|| {
                    Error::InvalidArgument {
                        call: "create_qp",
                        reason: "the shared receive queue belongs to another context".to_owned(),
                    }
                })?;
                Some(own)
            }
        };
        let (qp, token) = ShmQp::create(&self.core, &request, send_cq, recv_cq, srq)?;
        Ok((qp, token))
    }

    fn create_ah(&self, _pd: PdHandle, attr: &AddressVector) -> Result<u32> {
        let profile = &self.core.profile;
        check_address_vector(attr, &profile.device, &profile.port)
            .map_err(|error| Error::InvalidArgument { call: "create_ah", reason: error.to_string() })?;
        let peer = peer::find(&self.core, attr, |peer| self.core.watch_peer(peer))?;
        let mut ahs = lock(&self.core.ahs);
        let (slot, uses) = ahs.claim("create_ah", "address handles")?;
        ahs.fill(slot, Destination { peer, attr: *attr });
        // Queue pairs remember where a number leads, so a slot's next user gets another one.
        Ok(slot | uses << limits::MAX_AH.trailing_zeros())
    }

    fn destroy_ah(&self, ah: u32) {
        lock(&self.core.ahs).release(ah % limits::MAX_AH);
    }
}
