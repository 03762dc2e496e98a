//! Who is reached at which address, and the packets on their way there.

use crate::sync::{AtomicU64, Ordering};
use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::net::{Ipv4Addr, Ipv6Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tbrdma_proto::{Gid, Time};

/// Packets that may lie at a port: as in a full queue, more are lost. They are taken before time goes on.
const MAX_ARRIVED: usize = 1 << 16;

/// A packet that comes to a port.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Arrival {
    pub(super) at: Time,
    /// Who sent it, and which of its packets it is: those that arrive at one time come in this order, whichever thread was first.
    pub(super) node: u16,
    pub(super) sequence: u64,
    pub(super) source: Gid,
    pub(super) source_port: u16,
    pub(super) gid_index: u8,
    pub(super) ident: u16,
    pub(super) traffic_class: u8,
    pub(super) hop_limit: u8,
    pub(super) bytes: Vec<u8>,
}

/// Where the packets of one adapter arrive.
pub(super) struct Port {
    pub(super) node: u16,
    pub(super) gids: [Gid; 2],
    arrivals: Mutex<Arrivals>,
    /// When the next packet arrives; the end of time if none is on its way.
    next: AtomicU64,
}

#[derive(Default)]
struct Arrivals {
    heap: BinaryHeap<Reverse<Arrival>>,
    /// Storage of packets that have been taken.
    spare: Vec<Vec<u8>>,
}

impl Port {
    fn new(node: u16) -> Self {
        let [high, low] = node.to_be_bytes();
        // What addresses end in is the adapter's number: 1 for the first on its network.
        let link_local = Ipv6Addr::new(0xfe80, 0, 0, 0, 0x0200, 0x00ff, 0xfe00, node);
        let ipv4 = Ipv4Addr::new(10, 0, high, low).to_ipv6_mapped();
        Self {
            node,
            gids: [Gid::from(link_local), Gid::from(ipv4)],
            arrivals: Mutex::default(),
            next: AtomicU64::new(Time::NEVER.0),
        }
    }

    fn arrivals(&self) -> MutexGuard<'_, Arrivals> {
        self.arrivals.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn next(&self) -> Time {
        Time(self.next.load(Ordering::SeqCst))
    }

    /// A packet sets out for this port with these bytes. False if there is no room for it.
    pub(super) fn expect(&self, mut arrival: Arrival, bytes: &[u8]) -> bool {
        let mut arrivals = self.arrivals();
        if arrivals.heap.len() >= MAX_ARRIVED {
            return false;
        }
        arrival.bytes = arrivals.spare.pop().unwrap_or_default();
        arrival.bytes.clear();
        arrival.bytes.extend_from_slice(bytes);
        arrivals.heap.push(Reverse(arrival));
        self.publish(&arrivals);
        true
    }

    /// Takes the next packet that has arrived by `now`.
    pub(super) fn take(&self, now: Time) -> Option<Arrival> {
        let mut arrivals = self.arrivals();
        if arrivals.heap.peek()?.0.at > now {
            return None;
        }
        let Reverse(arrival) = arrivals.heap.pop()?;
        self.publish(&arrivals);
        Some(arrival)
    }

    /// Gives the storage of a packet back.
    pub(super) fn give_back(&self, bytes: Vec<u8>) {
        self.arrivals().spare.push(bytes);
    }

    fn publish(&self, arrivals: &Arrivals) {
        let next = arrivals.heap.peek().map_or(Time::NEVER, |Reverse(arrival)| arrival.at);
        self.next.store(next.0, Ordering::SeqCst);
    }
}

/// The ports of a network, by number and by address.
#[derive(Default)]
pub(super) struct Ports {
    by_node: BTreeMap<u16, Arc<Port>>,
    by_gid: BTreeMap<Gid, (Arc<Port>, u8)>,
    last: u16,
}

impl Ports {
    /// Another port, with the number after the one that was given out last; `None` if all are taken.
    pub(super) fn add(&mut self) -> Option<Arc<Port>> {
        let mut numbers = (self.last.saturating_add(1)..=u16::MAX).chain(1..=self.last);
        let node = numbers.find(|node| !self.by_node.contains_key(node))?;
        self.last = node;
        let port = Arc::new(Port::new(node));
        self.by_node.insert(node, Arc::clone(&port));
        for (gid, index) in port.gids.iter().zip(0..) {
            self.by_gid.insert(*gid, (Arc::clone(&port), index));
        }
        Some(port)
    }

    pub(super) fn remove(&mut self, port: &Port) {
        self.by_node.remove(&port.node);
        for gid in &port.gids {
            self.by_gid.remove(gid);
        }
    }

    /// The port at an address, and which of its addresses that is.
    pub(super) fn at(&self, gid: &Gid) -> Option<(Arc<Port>, u8)> {
        self.by_gid.get(gid).cloned()
    }
}
