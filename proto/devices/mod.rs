//! Which devices a program is given: their names, what stands behind them, and which of them a cable joins.
//!
//! The text form is a list, with commas:
//!
//! | item | what it gives |
//! |---|---|
//! | `NAME=shm` | processes of this user on this host, through shared memory |
//! | `NAME=udp:IFACE` | RoCEv2 over UDP on a network interface |
//! | `NAME=bar:PLACE` | RoCEv2 through a memory window with doorbells: `file:PATH`, `paired:PATH`, or a PCI device's address |
//! | `NAME=native:DEVICE` | a device of the system's own verbs library |
//! | `NAME=sim`, `NAME=sim:NETWORK` | RoCEv2 in a simulated network inside this process, in virtual time |
//! | `NAME=stream:ADDRESS` | RoCEv2 over a byte stream: see [`StreamAddress`] |
//! | `NAME=shm@CABLE:0`, `NAME=shm@CABLE:1` | the two ends of a cable: each reaches the other, and nothing else |
//! | `mesh:RANK/SIZE=shm` | for rank RANK of SIZE: a device to each other rank, in their order, one cable each |
//! | `ring:RANK/SIZE=shm` | a device to the next rank, then one to the rank before |
//! | `mesh:RANK/SIZE:LABEL=shm`, `ring:...` | the same, apart from meshes and rings with other labels |
//!
//! Without `NAME=` a device is called as those of its profile are, by its place in the list: `rxe0`, `mlx5_0`; those of a Mac
//! are `rdma_en2`, `rdma_en3` and so on, and so are those of meshes and rings whatever the profile.

mod text;

pub use text::{ParseDevicesError, parse_devices};

use crate::stream::StreamAddress;
use core::fmt;

/// A device that a program is given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamedDevice {
    /// Its name: 1 to 63 letters, digits, `_`, `-` and `.`, the first not a dot.
    pub name: String,
    /// What stands behind it.
    pub backend: Backend,
}

/// What stands behind a device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Backend {
    /// Shared memory, perhaps at the end of a cable.
    Shm(Option<CableEnd>),
    /// RoCEv2 over UDP on this network interface.
    Udp(String),
    /// RoCEv2 through a memory window: `file:` or `paired:` and a path, or the address of a PCI device.
    Bar(String),
    /// A device of the system's own verbs library, by its name there.
    Native(String),
    /// RoCEv2 in a simulated network of this process, with this name; the empty name is a network like any other.
    Sim(String),
    /// RoCEv2 over a byte stream that leads to one peer.
    Stream(StreamAddress),
}

/// One end of a cable between two devices of this user on this host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CableEnd {
    /// The cable: 1 to 63 letters, digits, `_`, `-` and `.`.
    pub cable: String,
    /// Which end: 0 or 1.
    pub end: u8,
}

impl Backend {
    /// Whether it sends packets, which can be lost, delayed and captured.
    pub const fn has_packets(&self) -> bool {
        matches!(self, Self::Udp(_) | Self::Bar(_) | Self::Sim(_) | Self::Stream(_))
    }
}

impl fmt::Display for NamedDevice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}={}", self.name, self.backend)
    }
}

impl fmt::Display for Backend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Shm(None) => f.write_str("shm"),
            Self::Shm(Some(end)) => write!(f, "shm@{end}"),
            Self::Udp(interface) => write!(f, "udp:{interface}"),
            Self::Bar(place) => write!(f, "bar:{place}"),
            Self::Native(device) => write!(f, "native:{device}"),
            Self::Sim(network) if network.is_empty() => f.write_str("sim"),
            Self::Sim(network) => write!(f, "sim:{network}"),
            Self::Stream(address) => write!(f, "stream:{address}"),
        }
    }
}

impl fmt::Display for CableEnd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.cable, self.end)
    }
}
