//! The device itself: which objects may be made, of what size, and how many.

use super::account::{Account, Held, Kind};
use super::memory::{ProfiledCq, ProfiledMemory};
use super::qp::ProfiledQp;
use crate::device::{
    Channel, CqRequest, Device, DeviceCq, DeviceEvents, DeviceMemory, DeviceQp, DeviceSrq, ForeignMemory,
    QpRequest, SendToken,
};
use crate::error::{Error, Result};
use crate::sim::Network;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tbrdma_proto::{
    Access, AddressVector, Alias, DepthUnit, Gid, Guid, LocalOnly, MrSize, MwType, PdHandle, PortAttr,
    PortState, Presence, Profile, QpCap, QpType, Region, Rkey,
};

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A device as its profile lets it be.
pub(super) struct ProfiledDevice {
    name: String,
    account: Option<Arc<Account>>,
    pds: Mutex<HashMap<u32, Held>>,
    inner: Arc<Inner>,
}

/// What its queue pairs need of it as well.
pub(super) struct Inner {
    pub(super) device: Box<dyn Device>,
    /// The regions by local key, where a switch is about addresses.
    regions: Mutex<HashMap<u32, Region>>,
}

/// A region in that table, until it is dropped.
pub(super) struct Known {
    inner: Arc<Inner>,
    key: u32,
}

impl Drop for Known {
    fn drop(&mut self) {
        lock(&self.inner.regions).remove(&self.key);
    }
}

impl Inner {
    pub(super) fn profile(&self) -> &Profile {
        self.device.profile()
    }

    /// The region under a local key.
    pub(super) fn region(&self, lkey: u32) -> Option<Region> {
        lock(&self.regions).get(&lkey).copied()
    }

    /// An entry of the GID table, as the profile shows it.
    pub(super) fn gid(&self, index: u32) -> Option<Gid> {
        let gid = self.device.gid(index)?;
        let hidden = self.profile().switches.ipv4 == Presence::Off && crate::soft::path::is_ipv4(&gid);
        Some(if hidden { Gid::default() } else { gid })
    }
}

impl ProfiledDevice {
    pub(super) fn new(device: Box<dyn Device>, name: String) -> Result<Self> {
        let account = Account::of(&name, &device.profile().switches)?;
        let inner = Arc::new(Inner { device, regions: Mutex::default() });
        Ok(Self { name, account, pds: Mutex::default(), inner })
    }

    fn take(&self, kind: Kind) -> Result<Option<Held>> {
        let switches = &self.profile().switches;
        self.account.as_ref().map(|account| account.take(kind, switches)).transpose()
    }

    fn check_region(&self, length: u64, access: Access) -> Result<()> {
        let Profile { device, switches, .. } = self.profile();
        let wrong = |reason| Err(Error::InvalidArgument { call: "register memory", reason });
        if switches.mr_size == MrSize::Enforced && length > device.max_mr_size {
            return wrong(format!("{length} bytes, device {} takes up to {}", self.name, device.max_mr_size));
        }
        if switches.local_only == LocalOnly::Refused && access == Access::LOCAL_WRITE {
            return wrong(format!(
                "device {} takes no memory with LOCAL_WRITE alone; add REMOTE_READ or REMOTE_WRITE",
                self.name
            ));
        }
        Ok(())
    }

    /// A region of the device within, counted and known as far as switches want it.
    fn region(&self, inner: Arc<dyn DeviceMemory>, counted: Option<Held>) -> Arc<dyn DeviceMemory> {
        let switches = &self.profile().switches;
        let known = (switches.alias != Alias::Off).then(|| {
            lock(&self.inner.regions).insert(inner.lkey(), *inner.region());
            Known { inner: Arc::clone(&self.inner), key: inner.lkey() }
        });
        if counted.is_none() && known.is_none() && switches.rkey == Rkey::Real {
            return inner;
        }
        Arc::new(ProfiledMemory { inner, rkey: switches.rkey, _counted: counted, _known: known })
    }

    /// The sizes of a queue pair as they are granted: what the profile has, or an error.
    fn granted(&self, request: &QpRequest) -> Result<QpCap> {
        let profile = self.profile();
        let device = &profile.device;
        let too_much = |what: &str, asked: u32, most: u32| Error::InvalidArgument {
            call: "create_qp",
            reason: format!("{what} = {asked}, device {} has at most {most}", self.name),
        };
        let bounded = |what, asked: u32, most: u32| match asked <= most {
            true => Ok(asked),
            false => Err(too_much(what, asked, most)),
        };
        let depth =
            |what, asked| profile.granted_depth(asked).ok_or_else(|| too_much(what, asked, device.max_qp_wr));
        let asked = &request.cap;
        let mut cap = QpCap {
            max_send_wr: depth("max_send_wr", asked.max_send_wr)?,
            max_send_sge: bounded("max_send_sge", asked.max_send_sge, device.max_sge)?,
            max_inline_data: bounded("max_inline_data", asked.max_inline_data, device.max_inline_data)?,
            ..*asked
        };
        // Sizes of a receive queue mean nothing beside a shared one.
        if request.srq.is_none() {
            cap.max_recv_wr = depth("max_recv_wr", asked.max_recv_wr)?;
            cap.max_recv_sge = bounded("max_recv_sge", asked.max_recv_sge, device.max_sge)?;
        }
        Ok(cap)
    }

    /// Whether no switch is about what is posted.
    fn leaves_queue_pairs_alone(&self) -> bool {
        use tbrdma_proto::{EarlyReceive, WriteMode};
        let switches = &self.profile().switches;
        switches.depth == DepthUnit::Requests
            && switches.write != WriteMode::Refused
            && switches.early_receive == EarlyReceive::Allowed
            && switches.alias == Alias::Off
            && switches.ipv4 == Presence::Natural
    }
}

impl Device for ProfiledDevice {
    fn name(&self) -> &str {
        &self.name
    }

    fn node_guid(&self) -> Guid {
        self.inner.device.node_guid()
    }

    fn profile(&self) -> &Profile {
        self.inner.profile()
    }

    fn gid(&self, index: u32) -> Option<Gid> {
        self.inner.gid(index)
    }

    fn port_state(&self) -> PortState {
        self.inner.device.port_state()
    }

    fn port(&self) -> PortAttr {
        self.inner.device.port()
    }

    fn pkey(&self, index: u16) -> u16 {
        self.inner.device.pkey(index)
    }

    fn lid(&self) -> u16 {
        self.inner.device.lid()
    }

    fn create_comp_channel(&self) -> Result<Channel> {
        self.inner.device.create_comp_channel()
    }

    fn gid_index_towards(&self, peer: Option<&Gid>) -> u8 {
        self.inner.device.gid_index_towards(peer)
    }

    fn describe(&self) -> String {
        self.inner.device.describe()
    }

    fn counters(&self) -> Vec<(&'static str, u64)> {
        self.inner.device.counters()
    }

    fn events(&self) -> Arc<dyn DeviceEvents> {
        self.inner.device.events()
    }

    fn network(&self) -> Option<&Arc<Network>> {
        self.inner.device.network()
    }

    fn random_psn(&self) -> u32 {
        self.inner.device.random_psn()
    }

    fn alloc_pd(&self) -> Result<PdHandle> {
        let counted = self.take(Kind::ProtectionDomain)?;
        let pd = self.inner.device.alloc_pd()?;
        if let Some(counted) = counted {
            lock(&self.pds).insert(pd.0, counted);
        }
        Ok(pd)
    }

    fn dealloc_pd(&self, pd: PdHandle) {
        self.inner.device.dealloc_pd(pd);
        lock(&self.pds).remove(&pd.0);
    }

    fn alloc_memory(&self, pd: PdHandle, len: usize, access: Access) -> Result<Arc<dyn DeviceMemory>> {
        self.check_region(len as u64, access)?;
        let counted = self.take(Kind::MemoryRegion)?;
        Ok(self.region(self.inner.device.alloc_memory(pd, len, access)?, counted))
    }

    fn register_memory(
        &self,
        pd: PdHandle,
        memory: ForeignMemory,
        access: Access,
        iova: u64,
    ) -> Result<Arc<dyn DeviceMemory>> {
        self.check_region(memory.len() as u64, access)?;
        let counted = self.take(Kind::MemoryRegion)?;
        Ok(self.region(self.inner.device.register_memory(pd, memory, access, iova)?, counted))
    }

    fn alloc_mw(&self, pd: PdHandle, mw_type: MwType) -> Result<u32> {
        if self.profile().device.max_mw == 0 {
            let (call, what) = ("alloc_mw", "memory windows");
            return Err(Error::NotSupported { call, device: self.name.clone(), what });
        }
        self.inner.device.alloc_mw(pd, mw_type)
    }

    fn dealloc_mw(&self, rkey: u32) {
        self.inner.device.dealloc_mw(rkey);
    }

    fn mw_rkey(&self, rkey: u32) -> u32 {
        self.inner.device.mw_rkey(rkey)
    }

    fn create_cq(&self, request: CqRequest) -> Result<Arc<dyn DeviceCq>> {
        let most = self.profile().device.max_cqe;
        if request.cqe > most {
            let reason = format!("cqe = {}, device {} takes up to {most}", request.cqe, self.name);
            return Err(Error::InvalidArgument { call: "create_cq", reason });
        }
        let counted = self.take(Kind::CompletionQueue)?;
        let inner = self.inner.device.create_cq(request)?;
        Ok(match counted {
            None => inner,
            Some(counted) => Arc::new(ProfiledCq { inner, most, _counted: counted }),
        })
    }

    fn create_srq(&self, pd: PdHandle, max_wr: u32, max_sge: u32) -> Result<Arc<dyn DeviceSrq>> {
        let device = &self.profile().device;
        if device.max_srq == 0 {
            let (call, what) = ("create_srq", "shared receive queues");
            return Err(Error::NotSupported { call, device: self.name.clone(), what });
        }
        if max_wr > device.max_srq_wr || max_sge > device.max_srq_sge {
            let reason = format!(
                "max_wr = {max_wr} with max_sge = {max_sge}, device {} takes up to {} with at most {}",
                self.name, device.max_srq_wr, device.max_srq_sge
            );
            return Err(Error::InvalidArgument { call: "create_srq", reason });
        }
        self.inner.device.create_srq(pd, max_wr, max_sge)
    }

    fn create_qp(&self, request: QpRequest) -> Result<(Arc<dyn DeviceQp>, SendToken)> {
        let what = match request.qp_type {
            QpType::Rc => "RC queue pairs",
            QpType::Uc => "UC queue pairs",
            QpType::Ud => "UD queue pairs",
        };
        if !self.profile().switches.transports.has(request.qp_type) {
            return Err(Error::NotSupported { call: "create_qp", device: self.name.clone(), what });
        }
        let granted = self.granted(&request)?;
        let counted = self.take(Kind::QueuePair)?;
        if counted.is_none() && self.leaves_queue_pairs_alone() {
            return self.inner.device.create_qp(QpRequest { cap: granted, ..request });
        }
        let (qp, token) = ProfiledQp::create(&self.inner, QpRequest { cap: granted, ..request }, counted)?;
        Ok((Arc::new(qp), token))
    }

    fn create_ah(&self, pd: PdHandle, attr: &AddressVector) -> Result<u32> {
        self.inner.device.create_ah(pd, attr)
    }

    fn destroy_ah(&self, ah: u32) {
        self.inner.device.destroy_ah(ah);
    }
}
