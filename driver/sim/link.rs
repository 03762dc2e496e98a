//! A link in a simulated network. It is the wire itself: what is sent is there. Time on the way, and what may go wrong there, are made by the
//! wrapper that does so for any link.

use super::network::Network;
use super::ports::{Arrival, Port};
use crate::error::{Error, Result};
use crate::link::{Datagram, Link, QpnTag, ROCE_PORT, ReceiveScratch, Train};
use crate::sync::{AtomicU64, Ordering};
use crate::sys::eventfd::EventFd;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use tbrdma_proto::{Gid, Mtu, Time};

/// Packets handed over in one call of `receive`.
const AT_ONCE: usize = 64;

/// One adapter's end.
pub(crate) struct SimLink {
    network: Arc<Network>,
    name: String,
    port: Arc<Port>,
    /// Numbers packets that leave.
    sequence: AtomicU64,
    /// Packets for addresses where nobody is.
    strayed: AtomicU64,
    /// Never readable: nothing comes while nobody drives the network.
    fd: EventFd,
}

impl SimLink {
    /// Another adapter on this network.
    ///
    /// # Errors
    /// The network has no more addresses, or the system no more descriptors.
    pub(crate) fn open(network: &Arc<Network>) -> Result<Self> {
        const CALL: &str = "open_device";
        let fd = EventFd::new().map_err(Error::os(CALL, "an event descriptor"))?;
        let port = network.add_port().ok_or_else(|| Error::LimitReached {
            call: CALL,
            what: "adapters in a simulated network",
            limit: u16::MAX.into(),
        })?;
        Ok(Self {
            network: Arc::clone(network),
            name: network.device_name(),
            port,
            sequence: AtomicU64::new(0),
            strayed: AtomicU64::new(0),
            fd,
        })
    }

    /// The adapter's number on its network, from 1.
    pub(crate) fn node(&self) -> u16 {
        self.port.node
    }
}

impl Drop for SimLink {
    fn drop(&mut self) {
        self.network.remove_port(&self.port);
    }
}

impl Link for SimLink {
    fn name(&self) -> &str {
        &self.name
    }

    fn describe(&self) -> String {
        let Self { port, network, .. } = self;
        format!(
            "RoCEv2 in virtual time, adapter {} of network {:?} in this process",
            port.node,
            network.name()
        )
    }

    fn mtu(&self) -> Mtu {
        Mtu::B4096
    }

    fn gids(&self) -> &[Gid] {
        &self.port.gids
    }

    fn qpn_tag(&self) -> QpnTag {
        // An adapter has its addresses for itself. This is for people, who see whose a number is.
        QpnTag(self.port.node as u8)
    }

    fn open_gid(&self, gid_index: u8) -> Result<()> {
        if usize::from(gid_index) < self.port.gids.len() {
            return Ok(());
        }
        let reason = format!("GID index {gid_index}: {} has {}", self.name, self.port.gids.len());
        Err(Error::InvalidArgument { call: "modify_qp", reason })
    }

    fn source_port(&self, _gid_index: u8, _to: Gid) -> u16 {
        ROCE_PORT
    }

    fn tell_network_fields(&self) {}

    fn send(&self, now: Time, train: &mut Train) -> io::Result<()> {
        let packets = train.sent..train.len();
        let first = self.sequence.fetch_add(packets.len() as u64, Ordering::Relaxed);
        let source = self.port.gids.get(usize::from(train.from())).copied().unwrap_or_default();
        let to = self.network.port_at(&train.to());
        for (index, sequence) in packets.zip(first..) {
            let arrives = to.as_ref().is_some_and(|(port, gid_index)| {
                let arrival = Arrival {
                    at: now,
                    node: self.port.node,
                    sequence,
                    source,
                    source_port: train.source_port(),
                    gid_index: *gid_index,
                    ident: index as u16,
                    traffic_class: train.traffic_class(),
                    hop_limit: train.hop_limit(),
                    bytes: Vec::new(),
                };
                port.expect(arrival, train.packet(index))
            });
            if !arrives {
                self.strayed.fetch_add(1, Ordering::Relaxed);
            }
        }
        train.sent = train.len();
        Ok(())
    }

    fn receive(
        &self,
        now: Time,
        _scratch: &mut ReceiveScratch,
        sink: &mut dyn FnMut(&Datagram<'_>),
    ) -> io::Result<usize> {
        let mut count = 0;
        while count < AT_ONCE
            && let Some(arrival) = self.port.take(now)
        {
            sink(&Datagram {
                payload: &arrival.bytes,
                source: arrival.source,
                source_port: arrival.source_port,
                gid_index: arrival.gid_index,
                ident_hint: arrival.ident,
                traffic_class: arrival.traffic_class,
                hop_limit: arrival.hop_limit,
            });
            self.port.give_back(arrival.bytes);
            count += 1;
        }
        Ok(count)
    }

    fn poll(&self, _now: Time) {}

    fn deadline(&self) -> Option<Time> {
        let next = self.port.next();
        (next != Time::NEVER).then_some(next)
    }

    fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    fn watch(&self, _watched: bool) -> io::Result<()> {
        Ok(())
    }

    fn has_virtual_time(&self) -> bool {
        true
    }

    fn counters(&self) -> Vec<(&'static str, u64)> {
        vec![("unreachable_packets", self.strayed.load(Ordering::Relaxed))]
    }
}
