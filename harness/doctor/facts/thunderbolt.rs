//! Thunderbolt and USB4 of Linux: controllers, who is at the other end of the cables, and raw streams.

use crate::doctor::host::{Host, Node};

const BUS: &str = "/sys/bus/thunderbolt/devices";
/// Where streams are set up.
pub const STREAMS: &str = "/sys/kernel/config/thunderbolt/stream";

/// What else a stream's folder has: frames in a ring, nanoseconds between interrupts (Linux 7.2), and whether reads spin (7.3).
const TUNED: [&str; 3] = ["ring_size", "throttling", "busy_poll"];

/// What is known of Thunderbolt and USB4.
#[derive(Debug, Clone, Default)]
pub struct Thunderbolt {
    /// Does the kernel have the bus?
    pub bus: bool,
    /// The controllers.
    pub domains: Vec<Domain>,
    /// Other hosts on cables.
    pub peers: Vec<Peer>,
    /// Is there a `configfs`?
    pub configfs: bool,
    /// Does it have a place for streams?
    pub stream_folder: bool,
    /// Streams that are set up.
    pub streams: Vec<Stream>,
    /// `/dev/tbstream*`.
    pub nodes: Vec<Node>,
}

/// A controller.
#[derive(Debug, Clone)]
pub struct Domain {
    /// As `domain0`.
    pub name: String,
    /// Its security level.
    pub security: Option<String>,
    /// Are devices on it kept to their memory by the IOMMU?
    pub iommu: Option<bool>,
}

/// A host at the other end of a cable.
#[derive(Debug, Clone)]
pub struct Peer {
    /// As `0-1`.
    pub name: String,
    /// What it calls itself.
    pub device: Option<String>,
    /// Who made it.
    pub vendor: Option<String>,
    /// A lane's speed and how many lanes, as `20.0 Gb/s x 2`.
    pub speed: Option<String>,
    /// What it offers.
    pub services: Vec<Service>,
}

/// A service of a host at the other end.
#[derive(Debug, Clone)]
pub struct Service {
    /// As `0-1.0`.
    pub name: String,
    /// Its protocol, as `network`.
    pub key: String,
    /// The driver that took it.
    pub driver: Option<String>,
}

/// A stream that is set up.
#[derive(Debug, Clone)]
pub struct Stream {
    /// Service and name, as `0-1.0/data`.
    pub name: String,
    /// The number of its device file.
    pub index: Option<String>,
    /// The HopIDs of its two ways, in and out: 0 while there is none, -1 if one will be taken when the other host comes.
    pub hops: [Option<String>; 2],
    /// What else is to be read of it: name and value.
    pub tuned: Vec<(&'static str, String)>,
}

impl Stream {
    /// The service it goes through, as `0-1.0`.
    #[must_use]
    pub fn service(&self) -> &str {
        self.name.split('/').next().unwrap_or_default()
    }

    /// The host at the other end, as `0-1`.
    #[must_use]
    pub fn host(&self) -> &str {
        self.service().split('.').next().unwrap_or_default()
    }

    /// Its name there, which is the same on both hosts.
    #[must_use]
    pub fn label(&self) -> &str {
        self.name.split('/').next_back().unwrap_or_default()
    }

    /// Its folder.
    #[must_use]
    pub fn folder(&self) -> String {
        format!("{STREAMS}/{}", self.name)
    }

    /// Its device file.
    #[must_use]
    pub fn device(&self) -> String {
        format!("/dev/tbstream{}", self.index.as_deref().unwrap_or("?"))
    }

    /// The HopIDs as numbers; `None` for what is none.
    #[must_use]
    pub fn hop_ids(&self) -> [Option<i32>; 2] {
        self.hops.each_ref().map(|hop| hop.as_deref()?.parse().ok())
    }
}

impl Peer {
    /// Who it is, in words.
    #[must_use]
    pub fn says(&self) -> String {
        let text = |text: &Option<String>| text.clone().unwrap_or_else(|| "unnamed".into());
        format!("{} ({})", text(&self.device), text(&self.vendor))
    }

    /// Its service of a protocol.
    #[must_use]
    pub fn service(&self, key: &str) -> Option<&Service> {
        self.services.iter().find(|service| service.key == key)
    }
}

/// Looks at the bus and at streams.
pub(super) fn gather(host: &dyn Host) -> Thunderbolt {
    let names = host.list(BUS, "");
    let domain = |name: &String| Domain {
        name: name.clone(),
        security: host.line(&format!("{BUS}/{name}/security")),
        iommu: host.line(&format!("{BUS}/{name}/iommu_dma_protection")).map(|line| line == "1"),
    };
    let nodes = host.list("/dev", "tbstream").into_iter();
    Thunderbolt {
        bus: host.exists(BUS),
        domains: names.iter().filter(|name| name.starts_with("domain")).map(domain).collect(),
        peers: names.iter().filter(|name| is_peer(host, name)).map(|name| peer(host, name, &names)).collect(),
        configfs: !host.lines_with("/proc/mounts", &[" configfs "]).is_empty(),
        stream_folder: host.exists(STREAMS),
        streams: streams(host),
        nodes: nodes.filter_map(|name| host.node(&format!("/dev/{name}"))).collect(),
    }
}

/// Devices and hosts at the far end have names alike; the kernel says which they are.
fn is_peer(host: &dyn Host, name: &str) -> bool {
    let kind = host.lines_with(&format!("{BUS}/{name}/uevent"), &["DEVTYPE="]);
    kind.iter().any(|line| line == "DEVTYPE=thunderbolt_xdomain")
}

fn peer(host: &dyn Host, name: &str, all: &[String]) -> Peer {
    let line = |what: &str| host.line(&format!("{BUS}/{name}/{what}"));
    let service = |service: &String| {
        let rest = service.strip_prefix(name)?.strip_prefix('.')?;
        rest.parse::<u32>().ok()?;
        Some(Service {
            key: host.line(&format!("{BUS}/{service}/key"))?,
            driver: host.link(&format!("{BUS}/{service}/driver")),
            name: service.clone(),
        })
    };
    Peer {
        name: name.to_owned(),
        device: line("device_name"),
        vendor: line("vendor_name"),
        speed: line("tx_speed").map(|speed| match line("tx_lanes") {
            Some(lanes) => format!("{speed} x {lanes}"),
            None => speed,
        }),
        services: all.iter().filter_map(service).collect(),
    }
}

fn streams(host: &dyn Host) -> Vec<Stream> {
    let mut found = Vec::new();
    for service in host.list(STREAMS, "") {
        for name in host.list(&format!("{STREAMS}/{service}"), "") {
            let line = |what: &str| host.line(&format!("{STREAMS}/{service}/{name}/{what}"));
            let stream = Stream {
                index: line("index"),
                hops: [line("in_hopid"), line("out_hopid")],
                tuned: TUNED.into_iter().filter_map(|what| Some((what, line(what)?))).collect(),
                name: format!("{service}/{name}"),
            };
            found.extend(stream.index.is_some().then_some(stream));
        }
    }
    found
}
