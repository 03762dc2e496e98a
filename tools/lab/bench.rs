//! A guest and our side, wired together: what every check works on.

use crate::cache::Cache;
use crate::device::Device;
use crate::guest::Guest;
use crate::party::Party;
use crate::programs::Programs;
use crate::verbs::Verbs;
use crate::wire::Wire;
use std::net::{IpAddr, SocketAddr, TcpListener};

/// How TCP gets from one side to the other.
#[derive(Clone, Debug)]
pub(crate) struct Control {
    /// Where we listen.
    pub(crate) listen: IpAddr,
    /// Where the guest finds us.
    pub(crate) host: String,
    /// Where we find port [`Control::PORT`] of the guest.
    pub(crate) guest: SocketAddr,
}

impl Control {
    /// The port that the guest's programs listen on.
    pub(crate) const PORT: u16 = 18515;

    /// A listener for the guest.
    pub(crate) fn listener(&self) -> std::io::Result<TcpListener> {
        TcpListener::bind((self.listen, 0))
    }
}

/// Our side of the bench.
pub(crate) enum Ours {
    /// With the lab as the wire.
    Wire(Box<Wire>),
    /// The library, over the host's own network.
    Device(Box<Device>),
}

impl Ours {
    /// The wire, if the lab is it: only then can packets be lost, damaged and made up.
    pub(crate) const fn wire(&self) -> Option<&Wire> {
        match self {
            Self::Wire(wire) => Some(wire),
            Self::Device(_) => None,
        }
    }

    /// What the library counts under this name, if it is the library.
    pub(crate) fn counter(&self, name: &str) -> Option<u64> {
        match self {
            Self::Wire(_) => None,
            Self::Device(device) => device.counter(name),
        }
    }

    pub(crate) fn party(&mut self) -> &mut dyn Party {
        match self {
            Self::Wire(wire) => wire.as_mut(),
            Self::Device(device) => device.as_mut(),
        }
    }
}

/// Everything a check needs.
pub(crate) struct Bench {
    pub(crate) guest: Guest,
    pub(crate) verbs: Verbs,
    pub(crate) ours: Ours,
    pub(crate) control: Control,
    pub(crate) programs: Programs,
    pub(crate) cache: Cache,
}
