//! RDMA over Thunderbolt of Macs: what Apple's tools say. They are the only ones who do; there is no sysfs.

use std::net::{IpAddr, Ipv4Addr};

use crate::doctor::host::{Host, Ran};

/// What is known of a Mac.
#[derive(Debug, Clone, Default)]
pub struct Macos {
    /// As `26.2`.
    pub version: Option<String>,
    /// The processor's name.
    pub processor: Option<String>,
    /// What `rdma_ctl status` says.
    pub rdma_ctl: Option<Ran>,
    /// What `ibv_devices` says.
    pub listed: Option<Ran>,
    /// What `ibv_devinfo -v` says.
    pub described: Option<Ran>,
    /// The devices of that.
    pub devices: Vec<Device>,
    /// What `ifconfig` says.
    pub interfaces: Vec<Interface>,
    /// Interfaces that are Thunderbolt ports: `en2`.
    pub ports: Vec<String>,
    /// Neighbours that are known: interface and address.
    pub neighbours: Vec<(String, String)>,
    /// Speeds of Thunderbolt links, as the system shows them.
    pub speeds: Vec<String>,
}

/// A device of `ibv_devinfo`.
#[derive(Debug, Clone, Default)]
pub struct Device {
    /// As `rdma_en2`.
    pub name: String,
    /// As `PORT_ACTIVE (4)`.
    pub state: Option<String>,
    /// The GID table: place and GID.
    pub gids: Vec<(usize, String)>,
    /// Most queue pairs, and most memory regions.
    pub most: [Option<String>; 2],
}

/// An interface of `ifconfig`.
#[derive(Debug, Clone, Default)]
pub struct Interface {
    /// As `en2`.
    pub name: String,
    /// Is it up?
    pub up: bool,
    /// Is something at the other end?
    pub active: bool,
    /// Its IPv4 addresses.
    pub ipv4: Vec<Ipv4Addr>,
    /// What a bridge joins.
    pub members: Vec<String>,
}

impl Device {
    /// Can it carry messages?
    #[must_use]
    pub fn is_active(&self) -> bool {
        self.state.as_deref().is_some_and(|state| state.starts_with("PORT_ACTIVE"))
    }

    /// The network interface that it goes with.
    #[must_use]
    pub fn interface(&self) -> &str {
        self.name.strip_prefix("rdma_").unwrap_or(&self.name)
    }

    /// Where an IPv4 address stands in the GID table, and which.
    #[must_use]
    pub fn ipv4(&self) -> Option<(usize, Ipv4Addr)> {
        self.gids.iter().find_map(|(index, gid)| match gid.parse() {
            Ok(IpAddr::V6(v6)) => Some((*index, v6.to_ipv4_mapped()?)),
            _ => None,
        })
    }
}

impl Macos {
    /// One by its name.
    #[must_use]
    pub fn interface(&self, name: &str) -> Option<&Interface> {
        self.interfaces.iter().find(|interface| interface.name == name)
    }

    /// Does it have Thunderbolt 5? `None` if the system does not say.
    #[must_use]
    pub fn has_thunderbolt_5(&self) -> Option<bool> {
        let fast = |speed: &String| ["80 Gb/s", "120 Gb/s"].iter().any(|fast| speed.contains(fast));
        (!self.speeds.is_empty()).then(|| self.speeds.iter().any(fast))
    }
}

/// Asks Apple's tools.
pub(super) fn gather(host: &dyn Host) -> Macos {
    let said = |program: &str, arguments: &[&str]| host.run(program, arguments, &[]);
    let text =
        |program: &str, arguments: &[&str]| said(program, arguments).map(|ran| ran.text).unwrap_or_default();
    let line = |program: &str, arguments: &[&str]| {
        Some(text(program, arguments).trim().to_owned()).filter(|line| !line.is_empty())
    };
    let listed = said("ibv_devices", &[]);
    let described = said("ibv_devinfo", &["-v"]);
    let devices = devices(listed.as_ref(), described.as_ref());
    let thunderbolt = host.run("system_profiler", &["SPThunderboltDataType"], &["Speed:"]);
    let speeds = thunderbolt.map(|ran| ran.text).unwrap_or_default();
    let mut neighbours = arp(&text("arp", &["-an"]));
    neighbours.extend(ndp(&text("ndp", &["-an"])));
    Macos {
        version: line("sw_vers", &["-productVersion"]),
        processor: line("sysctl", &["-n", "machdep.cpu.brand_string"]),
        rdma_ctl: said("rdma_ctl", &["status"]),
        interfaces: interfaces(&text("ifconfig", &["-a"])),
        ports: ports(&text("networksetup", &["-listallhardwareports"])),
        speeds: speeds
            .lines()
            .filter_map(|line| Some(line.split_once("Speed:")?.1.trim().to_owned()))
            .collect(),
        listed,
        described,
        devices,
        neighbours,
    }
}

/// The devices that `ibv_devices` lists, with what `ibv_devinfo -v` says of them.
fn devices(listed: Option<&Ran>, described: Option<&Ran>) -> Vec<Device> {
    let mut devices: Vec<Device> = Vec::new();
    for line in listed.map(|ran| ran.text.lines()).into_iter().flatten() {
        let mut words = line.split_whitespace();
        let guid = |word: &str| word.len() == 16 && word.chars().all(|letter| letter.is_ascii_hexdigit());
        if let (Some(name), Some(word), None) = (words.next(), words.next(), words.next())
            && guid(word)
        {
            devices.push(Device { name: name.to_owned(), ..Device::default() });
        }
    }
    let mut current = None;
    for line in described.map(|ran| ran.text.lines()).into_iter().flatten() {
        let Some((key, value)) = line.split_once(':') else { continue };
        let (key, value) = (key.trim(), value.trim());
        if key == "hca_id" {
            current = devices.iter().position(|device| device.name == value);
            if current.is_none() {
                devices.push(Device { name: value.to_owned(), ..Device::default() });
                current = Some(devices.len() - 1);
            }
        }
        let Some(device) = current.and_then(|at| devices.get_mut(at)) else { continue };
        match key {
            "state" => device.state = Some(value.to_owned()),
            "max_qp" => device.most[0] = Some(value.to_owned()),
            "max_mr" => device.most[1] = Some(value.to_owned()),
            _ => {
                let index =
                    key.strip_prefix("GID[").and_then(|rest| rest.trim_end_matches(']').trim().parse().ok());
                // Some tools say after a comma which kind of GID it is.
                let gid = value.split(',').next().unwrap_or_default().trim();
                device.gids.extend(index.map(|index| (index, gid.to_owned())));
            }
        }
    }
    devices
}

fn interfaces(text: &str) -> Vec<Interface> {
    let mut interfaces: Vec<Interface> = Vec::new();
    for line in text.lines() {
        if !line.starts_with(char::is_whitespace) {
            let Some((name, rest)) = line.split_once(": flags=") else { continue };
            let flags = rest
                .split_once('<')
                .and_then(|(_, rest)| rest.split_once('>'))
                .map_or("", |(flags, _)| flags);
            let up = flags.split(',').any(|flag| flag == "UP");
            interfaces.push(Interface { name: name.to_owned(), up, ..Interface::default() });
            continue;
        }
        let Some(interface) = interfaces.last_mut() else { continue };
        let mut words = line.split_whitespace();
        match (words.next(), words.next()) {
            (Some("inet"), Some(address)) => interface.ipv4.extend(address.parse::<Ipv4Addr>()),
            (Some("member:"), Some(name)) => interface.members.push(name.to_owned()),
            (Some("status:"), Some(status)) => interface.active = status == "active",
            _ => {}
        }
    }
    interfaces
}

/// The interfaces that `networksetup` calls Thunderbolt ports; the bridge over them is none.
fn ports(text: &str) -> Vec<String> {
    let mut is_port = false;
    let mut ports = Vec::new();
    for line in text.lines() {
        match line.split_once(": ") {
            Some(("Hardware Port", name)) => {
                is_port = name.starts_with("Thunderbolt") && !name.contains("Bridge")
            }
            Some(("Device", name)) if is_port => ports.push(name.trim().to_owned()),
            _ => {}
        }
    }
    ports
}

/// Neighbours by IPv4: `? (169.254.10.2) at 36:6a:0f:f5:b0:80 on en2 ifscope [ethernet]`.
fn arp(text: &str) -> Vec<(String, String)> {
    let neighbour = |line: &str| {
        let (_, rest) = line.split_once('(')?;
        let (address, rest) = rest.split_once(')')?;
        let rest = rest.strip_prefix(" at ")?;
        let (hardware, rest) = rest.split_once(" on ")?;
        let known = hardware != "(incomplete)" && !rest.contains("permanent");
        known.then(|| Some((rest.split_whitespace().next()?.to_owned(), address.to_owned())))?
    };
    text.lines().filter_map(neighbour).collect()
}

/// Neighbours by IPv6: address, hardware address, interface, when the entry expires. The host's own entries are permanent.
fn ndp(text: &str) -> Vec<(String, String)> {
    let neighbour = |line: &str| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let [address, hardware, interface, expires, ..] = words.as_slice() else { return None };
        let known = hardware.contains(':') && *expires != "permanent";
        let address = address.split('%').next().unwrap_or(address);
        known.then(|| ((*interface).to_owned(), address.to_owned()))
    };
    text.lines().filter_map(neighbour).collect()
}
