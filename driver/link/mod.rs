//! Links: what carries the packets of the `soft` device. A link moves UDP payloads (a RoCEv2 packet from its base transport header to
//! its iCRC) between GIDs, and knows nothing of verbs.
//!
//! A link may lose packets and may reorder them, as a network does, unless it [promises](Link::promises) more; it never makes any up. None of its
//! calls waits, but [`reach`](Link::reach) for a moment.

#[cfg_attr(not(tbrdma_linux), path = "portable/bar.rs")]
pub(crate) mod bar;
pub(crate) mod capture;
mod datagram;
mod fault;
mod meter;
mod port;
pub(crate) mod stream;
#[cfg(test)]
mod tests;
mod train;
#[cfg_attr(not(tbrdma_linux), path = "portable/udp.rs")]
pub(crate) mod udp;

pub(crate) use datagram::{Datagram, ReceiveScratch};
pub(crate) use port::{LinkState, Port, Promises};
pub(crate) use train::{Train, TrainRules};

use crate::error::Result;
use std::io;
use std::net::{Ipv6Addr, SocketAddr};
use std::os::fd::BorrowedFd;
use std::path::Path;
use tbrdma_proto::fault::FaultPlan;
use tbrdma_proto::wire::icrc::Flow;
use tbrdma_proto::{Gid, Mtu, Time};

/// The UDP port of RoCEv2, at both ends.
pub(crate) const ROCE_PORT: u16 = 4791;

/// A way for packets, with one end here. Shared by the threads that drive a device.
pub(crate) trait Link: Send + Sync {
    /// The device's name, such as `udp:lo`.
    fn name(&self) -> &str;

    /// How the link works on this machine, in a line, for people.
    fn describe(&self) -> String;

    /// What it promises of what it carries, for as long as it is open.
    fn promises(&self) -> Promises {
        Promises::default()
    }

    /// What it asks of trains, for as long as it is open.
    fn train_rules(&self) -> TrainRules {
        TrainRules::DATAGRAMS
    }

    /// The largest path MTU that every packet of this link fits.
    fn mtu(&self) -> Mtu;

    /// The GID table: our addresses. An entry that is not used is all zero.
    fn gids(&self) -> &[Gid];

    /// The top bits of the queue pair numbers that are ours.
    fn qpn_tag(&self) -> QpnTag;

    /// Begins to listen at a GID. Before that nothing is received there. Again is no error.
    ///
    /// # Errors
    /// There is no such GID, or the system refuses: the text says why and what to do.
    fn open_gid(&self, gid_index: u8) -> Result<()>;

    /// Makes sure that a peer can be reached, which may take a moment: not a wait for it to come, but for a link that knows it to have met it.
    ///
    /// # Errors
    /// Nobody with that GID is there: the text says who is, or why nobody is.
    fn reach(&self, _to: Gid) -> Result<()> {
        Ok(())
    }

    /// The port that packets from one of our GIDs to a peer's leave from; their iCRC covers it. The GID is open. Ask for a path that will be used often: the
    /// link may make arrangements for it.
    fn source_port(&self, gid_index: u8, to: Gid) -> u16;

    /// Asks for [`Datagram::traffic_class`] and [`Datagram::hop_limit`] as they were, from now on: those who show them to applications do. Before
    /// that they may be what senders usually set, but congestion marks are told wherever there is a network to make them.
    fn tell_network_fields(&self);

    /// Sends a train from the GID it names, opening that if need be.
    ///
    /// # Errors
    /// - `WouldBlock`: there is no room now. What is left of the train is still in it, call again later.
    /// - Anything else: the rest of the train is lost, as a network may lose it. The link has counted it.
    fn send(&self, now: Time, train: &mut Train) -> io::Result<()>;

    /// Hands all or some of what has arrived to `sink`, one packet a call; says how many packets. 0 means that there is nothing.
    ///
    /// # Errors
    /// The descriptor is broken; nothing will arrive any more.
    fn receive(
        &self,
        now: Time,
        scratch: &mut ReceiveScratch,
        sink: &mut dyn FnMut(&Datagram<'_>),
    ) -> io::Result<usize>;

    /// Does what is due: sends what was held back. Call it when [`deadline`](Self::deadline) has come; more often does no harm.
    fn poll(&self, now: Time);

    /// When [`poll`](Self::poll) must be called next. It may change with every call of `send`, `receive` and `poll`.
    fn deadline(&self) -> Option<Time>;

    /// Readable when there is something to receive, or may be, while it is [watched](Self::watch). One descriptor for the link's whole life,
    /// whatever is opened.
    fn fd(&self) -> BorrowedFd<'_>;

    /// Says whether anybody will wait for [`fd`](Self::fd), as at first it is assumed. Unless somebody does, the kernel need not announce each packet.
    /// What has arrived before makes it readable as soon as it is watched again.
    ///
    /// # Errors
    /// The system refuses; the descriptor may then miss something.
    fn watch(&self, watched: bool) -> io::Result<()>;

    /// Whether the times it is told are a simulated network's: what it does must then follow from them alone.
    fn has_virtual_time(&self) -> bool {
        false
    }

    /// The state of the port, where it has one that may change.
    fn state(&self) -> Option<&dyn LinkState> {
        None
    }

    /// Counters by name, in the manner of rdma_rxe's `hw_counters`.
    fn counters(&self) -> Vec<(&'static str, u64)>;
}

/// In the `Link` of a type that wraps the link `inner`: the methods by which that one says what and where it is. A wrapper changes what passes,
/// never those.
macro_rules! identity_of_inner {
    () => {
        fn name(&self) -> &str {
            self.inner.name()
        }

        fn mtu(&self) -> tbrdma_proto::Mtu {
            self.inner.mtu()
        }

        fn gids(&self) -> &[tbrdma_proto::Gid] {
            self.inner.gids()
        }

        fn qpn_tag(&self) -> crate::link::QpnTag {
            self.inner.qpn_tag()
        }

        fn open_gid(&self, gid_index: u8) -> crate::error::Result<()> {
            self.inner.open_gid(gid_index)
        }

        fn train_rules(&self) -> crate::link::TrainRules {
            self.inner.train_rules()
        }

        fn reach(&self, to: tbrdma_proto::Gid) -> crate::error::Result<()> {
            self.inner.reach(to)
        }

        fn source_port(&self, gid_index: u8, to: tbrdma_proto::Gid) -> u16 {
            self.inner.source_port(gid_index, to)
        }

        fn tell_network_fields(&self) {
            self.inner.tell_network_fields();
        }

        fn fd(&self) -> std::os::fd::BorrowedFd<'_> {
            self.inner.fd()
        }

        fn state(&self) -> Option<&dyn crate::link::LinkState> {
            self.inner.state()
        }

        fn watch(&self, watched: bool) -> std::io::Result<()> {
            self.inner.watch(watched)
        }

        fn has_virtual_time(&self) -> bool {
            self.inner.has_virtual_time()
        }
    };
}
use identity_of_inner;

/// The queue pair numbers that one open device may use: those with its tag in the top 8 of their 24 bits. Several processes share
/// an address and a port; by the tag, packets find the right one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct QpnTag(pub(crate) u8);

impl QpnTag {
    /// How many low bits are the device's to choose.
    pub(crate) const FREE_BITS: u32 = 16;

    /// The number with these low bits.
    pub(crate) fn qpn(self, low: u16) -> u32 {
        u32::from(self.0) << Self::FREE_BITS | u32::from(low)
    }

    /// The tag of the queue pair that a packet is for; `None` if it is too short to say.
    pub(crate) fn of_packet(payload: &[u8]) -> Option<Self> {
        payload.get(5).copied().map(Self)
    }
}

/// A link with what is asked for around it: a meter always, a capture of what really goes over the wire, faults with their seed.
///
/// # Errors
/// The capture file cannot be written.
pub(crate) fn wrap(
    link: Box<dyn Link>,
    fault: Option<(FaultPlan, u64)>,
    capture: Option<&Path>,
) -> Result<Box<dyn Link>> {
    let mut link: Box<dyn Link> = Box::new(meter::Meter::new(link));
    if let Some(file) = capture {
        link = Box::new(capture::CaptureLink::new(link, file)?);
    }
    if let Some((plan, seed)) = fault {
        link = Box::new(fault::FaultLink::new(link, plan, seed));
    }
    Ok(link)
}

/// What counts in the iCRC of packets that we send from one GID and port to another GID; `None` if one is IPv4 and the other is not.
pub(crate) fn flow(from: Gid, source_port: u16, to: Gid) -> Option<Flow> {
    Flow::new(socket_address(from, source_port), socket_address(to, ROCE_PORT)).ok()
}

/// The UDP end that a GID and a port stand for.
fn socket_address(gid: Gid, port: u16) -> SocketAddr {
    SocketAddr::new(Ipv6Addr::from(gid).to_canonical(), port)
}
