//! Network interfaces.

use std::net::IpAddr;

use crate::doctor::host::Host;
use crate::doctor::probes::Probe;

/// The interfaces of a host.
#[derive(Debug, Clone, Default)]
pub struct Network {
    /// One each.
    pub interfaces: Vec<Interface>,
}

/// A network interface.
#[derive(Debug, Clone, Default)]
pub struct Interface {
    /// As `eth0`.
    pub name: String,
    /// What the kernel says of its state: `up`, `down`, `unknown` for such as have none.
    pub state: Option<String>,
    /// Bytes of its longest packet.
    pub mtu: Option<u32>,
    /// The kernel driver behind it.
    pub driver: Option<String>,
    /// Its addresses; `None` if nobody asked.
    pub addresses: Option<Vec<IpAddr>>,
}

impl Network {
    /// One by its name.
    #[must_use]
    pub fn interface(&self, name: &str) -> Option<&Interface> {
        self.interfaces.iter().find(|interface| interface.name == name)
    }
}

/// Is the address good on one link only?
#[must_use]
pub fn is_link_local(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => v4.is_link_local(),
        IpAddr::V6(v6) => v6.is_unicast_link_local(),
    }
}

/// Lists the interfaces.
pub(super) fn gather(host: &dyn Host) -> Network {
    let addresses = host.ask(Probe::Addresses);
    let of = |name: &str| {
        let lines = addresses.as_ref()?.lines().filter_map(|line| line.split_once(' '));
        Some(lines.filter(|(owner, _)| *owner == name).filter_map(|(_, text)| text.parse().ok()).collect())
    };
    let interfaces = host.list("/sys/class/net", "").into_iter().filter_map(|name| {
        let folder = format!("/sys/class/net/{name}");
        Some(Interface {
            // Files beside the interfaces, as bonding_masters, have no MTU.
            mtu: Some(host.line(&format!("{folder}/mtu"))?.parse().ok()?),
            state: host.line(&format!("{folder}/operstate")),
            driver: host.link(&format!("{folder}/device/driver")),
            addresses: of(&name),
            name,
        })
    });
    Network { interfaces: interfaces.collect() }
}
