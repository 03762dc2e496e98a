//! Devices and open contexts.

use super::address::QpAddress;
use super::channel::CompletionChannel;
use super::cq::CompletionQueue;
use super::event::AsyncEvents;
use super::options::OpenOptions;
use super::pd::ProtectionDomain;
use crate::device::{CqRequest, Device, check_cqe};
use crate::error::{Error, Result};
use crate::link::{bar, stream, udp};
use crate::shm;
use crate::sim;
use std::sync::Arc;
use std::time::Instant;
use tbrdma_proto::{Backend, DeviceAttr, Gid, NamedDevice, PortAttr, Profile};

/// An RDMA device of this host (`ibv_get_device_list(3)`).
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct DeviceInfo {
    /// The name that [`open`] takes.
    pub name: String,
    /// What it is, in a sentence.
    pub description: String,
}

/// The RDMA devices of this host, or those that `TBRDMA_DEVICES` lists in their place. With a list that makes no sense there are none; opening one
/// then says why.
pub fn devices() -> Vec<DeviceInfo> {
    let described = |NamedDevice { name, backend }| {
        let description = match &backend {
            Backend::Shm(None) => shm::DESCRIPTION.to_owned(),
            Backend::Shm(Some(end)) => {
                format!("{}, at end {} of cable {}", shm::DESCRIPTION, end.end, end.cable)
            }
            Backend::Udp(interface) => format!("RoCEv2 over UDP on {interface}"),
            Backend::Bar(place) => format!("RoCEv2 through a memory window, {place}"),
            Backend::Native(device) => format!("RDMA device {device} of this system"),
            Backend::Sim(network) if network.is_empty() => sim::DESCRIPTION.to_owned(),
            Backend::Sim(network) => format!("{}, network {network}", sim::DESCRIPTION),
            Backend::Stream(address) => format!("RoCEv2 over the byte stream {address}"),
        };
        DeviceInfo { name, description }
    };
    match OpenOptions::from_environment().and_then(|options| options.list()) {
        Ok(None) => {}
        Ok(Some(listed)) => return listed.into_iter().map(described).collect(),
        Err(_) => return Vec::new(),
    }
    let simulated = std::iter::once(sim::device());
    shm::devices()
        .into_iter()
        .chain(udp::devices())
        .chain(stream::devices())
        .chain(bar::devices())
        .chain(simulated)
        .chain(crate::native::devices())
        .collect()
}

/// Opens a device by name (`ibv_open_device(3)`): `"shm"`; `"udp:"` and a network interface, as in `"udp:lo"`; `"sim"`, or `"sim:"` and the name
/// of a simulated network; `"stream:"` and where a stream is, as in `"stream:/dev/tbstream0"` or `"stream:unix:/tmp/cable"`, see
/// [`StreamAddress`](crate::stream::StreamAddress); under another name as in `"rdma_en2=shm"`; or by a name that `TBRDMA_DEVICES` lists. What the environment says of profiles, faults and captures holds: see [`OpenOptions::from_environment`](crate::OpenOptions::from_environment).
///
/// # Errors
/// There is no such device, or the system refuses what it needs (a memory file, a socket, a thread).
pub fn open(name: &str) -> Result<Context> {
    OpenOptions::from_environment()?.open(name)
}

/// From now on this process has no `native` devices. For a library that programs take for the system's verbs library: looking for that one it would
/// find itself.
pub fn without_native_devices() {
    crate::native::forbid();
}

/// An open device: where everything else is made. Cheap to clone; closed when the last object made from it is gone.
#[derive(Clone)]
pub struct Context {
    pub(crate) device: Arc<dyn Device>,
    pub(super) opened: Instant,
}

impl std::fmt::Debug for Context {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Context").field("device", &self.name()).field("lid", &self.device.lid()).finish()
    }
}

impl Context {
    pub(crate) fn of(device: Arc<dyn Device>) -> Self {
        Self { device, opened: Instant::now() }
    }

    /// The device's name.
    pub fn name(&self) -> &str {
        self.device.name()
    }

    /// The profile the device goes by: what it pretends to be. As text it is what [`OpenOptions::profile`] takes.
    pub fn profile(&self) -> &Profile {
        self.device.profile()
    }

    /// How the device works on this machine, in a line: which of the system's facilities it uses.
    pub fn describe(&self) -> String {
        self.device.describe()
    }

    /// What the device has counted since it was opened, by name; in the names of rdma_rxe's `hw_counters` where it has them. Empty for devices
    /// that count nothing.
    pub fn counters(&self) -> Vec<(&'static str, u64)> {
        self.device.counters()
    }

    /// Capabilities and limits (`ibv_query_device(3)`).
    pub fn query_device(&self) -> DeviceAttr {
        let mut attr = self.device.profile().device.clone();
        attr.node_guid = self.device.node_guid();
        attr
    }

    /// State and limits of a port (`ibv_query_port(3)`). Ports count from 1.
    ///
    /// # Errors
    /// There is no such port.
    pub fn query_port(&self, port: u8) -> Result<PortAttr> {
        self.check_port("query_port", port)?;
        Ok(self.device.port())
    }

    /// An entry of a port's GID table (`ibv_query_gid(3)`); all zero if the entry is not used.
    ///
    /// # Errors
    /// There is no such port, or no such entry.
    pub fn query_gid(&self, port: u8, index: u32) -> Result<Gid> {
        self.check_port("query_gid", port)?;
        self.device.gid(index).ok_or_else(|| Error::InvalidArgument {
            call: "query_gid",
            reason: format!("index {index} is beyond the port's GID table"),
        })
    }

    /// An entry of a port's P_Key table (`ibv_query_pkey(3)`).
    ///
    /// # Errors
    /// There is no such port, or no such entry.
    pub fn query_pkey(&self, port: u8, index: u16) -> Result<u16> {
        self.check_port("query_pkey", port)?;
        if index >= self.device.profile().port.pkey_tbl_len {
            let reason = format!("index {index} is beyond the port's P_Key table");
            return Err(Error::InvalidArgument { call: "query_pkey", reason });
        }
        Ok(self.device.pkey(index))
    }

    fn check_port(&self, call: &'static str, port: u8) -> Result<()> {
        let count = self.device.profile().device.phys_port_cnt;
        if (1..=count).contains(&port) {
            return Ok(());
        }
        Err(Error::InvalidArgument {
            call,
            reason: format!("port {port}, the device has ports 1 to {count}"),
        })
    }

    /// A protection domain (`ibv_alloc_pd(3)`).
    ///
    /// # Errors
    /// The device has no more.
    pub fn alloc_pd(&self) -> Result<ProtectionDomain> {
        ProtectionDomain::new(self)
    }

    /// A completion queue for at least `cqe` completions, polled only (`ibv_create_cq(3)`).
    ///
    /// # Errors
    /// `cqe` is out of range, or the device has no more completion queues.
    pub fn create_cq(&self, cqe: u32) -> Result<CompletionQueue> {
        check_cqe("create_cq", cqe)?;
        let cq = self.device.create_cq(CqRequest { cqe, channel: None })?;
        Ok(CompletionQueue::new(self, cq, false))
    }

    /// A completion queue whose events arrive at `channel`.
    ///
    /// # Errors
    /// As for [`create_cq`](Self::create_cq), or the channel belongs to another context.
    pub fn create_cq_on(&self, cqe: u32, channel: &CompletionChannel) -> Result<CompletionQueue> {
        if !channel.is_of(self) {
            let reason = "the completion channel belongs to another context".to_owned();
            return Err(Error::InvalidArgument { call: "create_cq", reason });
        }
        check_cqe("create_cq", cqe)?;
        let cq = self.device.create_cq(CqRequest { cqe, channel: Some(channel.channel()) })?;
        let cq = CompletionQueue::new(self, cq, true);
        channel.add(&cq);
        Ok(cq)
    }

    /// A completion channel (`ibv_create_comp_channel(3)`).
    ///
    /// # Errors
    /// The system has no more file descriptors.
    pub fn create_comp_channel(&self) -> Result<CompletionChannel> {
        CompletionChannel::new(self)
    }

    /// The context's asynchronous events (`ibv_get_async_event(3)`).
    pub fn async_events(&self) -> AsyncEvents {
        AsyncEvents::new(&*self.device)
    }

    /// How a queue pair of this context with this number is addressed from elsewhere.
    pub(crate) fn address_of(&self, qpn: tbrdma_proto::Qpn, psn: tbrdma_proto::Psn) -> QpAddress {
        let index = u32::from(self.device.gid_index_towards(None));
        let gid = self.device.gid(index).unwrap_or_default();
        QpAddress { gid, lid: self.device.lid(), qpn, psn }
    }

    pub(crate) fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.device, &other.device)
    }
}
