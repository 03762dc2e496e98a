//! RDMA devices of Linux: what sysfs says of them, the library, the device files.

use crate::doctor::host::{Host, Node};

const DEVICES: &str = "/sys/class/infiniband";
const NODES: &str = "/dev/infiniband";
const PCI: &str = "/sys/bus/pci/devices";
/// The library that programs load.
pub const LIBRARY: &str = "libibverbs.so.1";
/// The variable that names another.
pub const LIBRARY_VARIABLE: &str = "TBRDMA_VERBS_LIBRARY";
/// Where loaders look without being told, as far as distributions differ.
const FOLDERS: [&str; 8] = [
    "/lib/x86_64-linux-gnu",
    "/usr/lib/x86_64-linux-gnu",
    "/usr/lib/aarch64-linux-gnu",
    "/lib64",
    "/usr/lib64",
    "/lib",
    "/usr/lib",
    "/usr/local/lib",
];
/// Entries of a GID table that are looked at.
const MOST_GIDS: usize = 64;

/// RDMA as the system has it.
#[derive(Debug, Clone, Default)]
pub struct Rdma {
    /// Does the kernel have RDMA at all?
    pub class: bool,
    /// The devices.
    pub devices: Vec<Device>,
    /// The library.
    pub library: Library,
    /// `/dev/infiniband/uverbs*`.
    pub nodes: Vec<Node>,
    /// Network adapters on PCI which can do RDMA.
    pub adapters: Vec<Adapter>,
}

/// An RDMA device.
#[derive(Debug, Clone, Default)]
pub struct Device {
    /// As `mlx5_0`.
    pub name: String,
    /// As `1: CA`.
    pub node_type: Option<String>,
    /// Release of its firmware.
    pub firmware: Option<String>,
    /// The kernel driver, or what kind of device without hardware it is.
    pub driver: Option<String>,
    /// Its ports.
    pub ports: Vec<Port>,
}

/// A port of a device.
#[derive(Debug, Clone, Default)]
pub struct Port {
    /// From 1.
    pub number: u32,
    /// As `4: ACTIVE`.
    pub state: String,
    /// As `5: LinkUp`.
    pub physical: Option<String>,
    /// `Ethernet` or `InfiniBand`.
    pub link_layer: Option<String>,
    /// As `100 Gb/sec (4X EDR)`.
    pub rate: Option<String>,
    /// Its GIDs, the empty ones left out.
    pub gids: Vec<Gid>,
}

/// An entry of a GID table.
#[derive(Debug, Clone, Default)]
pub struct Gid {
    /// Its place.
    pub index: usize,
    /// Eight groups of four digits.
    pub gid: String,
    /// `RoCE v2`, `IB/RoCE v1`.
    pub kind: Option<String>,
    /// The network interface it is of.
    pub interface: Option<String>,
}

/// The verbs library.
#[derive(Debug, Clone, Default)]
pub struct Library {
    /// What [`LIBRARY_VARIABLE`] says.
    pub wanted: Option<String>,
    /// Where it was found.
    pub found: Option<String>,
    /// Where it was looked for.
    pub tried: Vec<String>,
    /// The providers beside it, as `mlx5`; `None` if it has no folder of them.
    pub providers: Option<Vec<String>>,
}

/// A network adapter on PCI.
#[derive(Debug, Clone)]
pub struct Adapter {
    /// As `0000:01:00.0`.
    pub address: String,
    /// Its vendor and device numbers, as `0x15b3:0x1019`.
    pub ids: String,
    /// The RDMA module it needs.
    pub module: &'static str,
}

impl Gid {
    /// Is it good on one link only?
    #[must_use]
    pub fn is_link_local(&self) -> bool {
        self.gid.starts_with("fe80:")
    }

    /// The IPv4 address inside, if it is one that holds one.
    #[must_use]
    pub fn ipv4(&self) -> Option<std::net::Ipv4Addr> {
        self.gid.parse::<std::net::Ipv6Addr>().ok()?.to_ipv4_mapped()
    }
}

impl Port {
    /// Can it carry messages?
    #[must_use]
    pub fn is_active(&self) -> bool {
        self.state.starts_with('4')
    }

    /// Is it RoCE or iWARP?
    #[must_use]
    pub fn is_ethernet(&self) -> bool {
        self.link_layer.as_deref() == Some("Ethernet")
    }

    /// The network interface beneath, where a GID names it.
    #[must_use]
    pub fn interface(&self) -> Option<&str> {
        self.gids.iter().find_map(|gid| gid.interface.as_deref())
    }
}

/// Looks at devices, library and device files.
pub(super) fn gather(host: &dyn Host) -> Rdma {
    let nodes = host.list(NODES, "uverbs").into_iter();
    Rdma {
        class: host.exists(DEVICES),
        devices: host.list(DEVICES, "").iter().map(|name| device(host, name)).collect(),
        library: library(host),
        nodes: nodes.filter_map(|name| host.node(&format!("{NODES}/{name}"))).collect(),
        adapters: host.list(PCI, "").iter().filter_map(|address| adapter(host, address)).collect(),
    }
}

fn device(host: &dyn Host, name: &str) -> Device {
    let folder = format!("{DEVICES}/{name}");
    let ports = host.list(&format!("{folder}/ports"), "");
    let node_type = host.line(&format!("{folder}/node_type"));
    let soft = || match () {
        // rdma_rxe says which interface it is on; siw is an iWARP adapter without hardware.
        () if host.exists(&format!("{folder}/parent")) => Some("rdma_rxe".to_owned()),
        () if node_type.as_deref().is_some_and(|kind| kind.starts_with('4')) => Some("siw".to_owned()),
        () => None,
    };
    Device {
        firmware: host.line(&format!("{folder}/fw_ver")),
        driver: host.link(&format!("{folder}/device/driver")).or_else(soft),
        ports: ports.iter().filter_map(|number| port(host, &folder, number.parse().ok()?)).collect(),
        name: name.to_owned(),
        node_type,
    }
}

fn port(host: &dyn Host, device: &str, number: u32) -> Option<Port> {
    let folder = format!("{device}/ports/{number}");
    let gid = |index: usize| {
        let gid = host.line(&format!("{folder}/gids/{index}"))?;
        (!gid.chars().all(|letter| matches!(letter, '0' | ':'))).then(|| Gid {
            index,
            kind: host.line(&format!("{folder}/gid_attrs/types/{index}")),
            interface: host.line(&format!("{folder}/gid_attrs/ndevs/{index}")),
            gid,
        })
    };
    let count = host.list(&format!("{folder}/gids"), "").len().min(MOST_GIDS);
    Some(Port {
        number,
        state: host.line(&format!("{folder}/state"))?,
        physical: host.line(&format!("{folder}/phys_state")),
        link_layer: host.line(&format!("{folder}/link_layer")),
        rate: host.line(&format!("{folder}/rate")),
        gids: (0..count).filter_map(gid).collect(),
    })
}

fn library(host: &dyn Host) -> Library {
    let wanted = host.variable(LIBRARY_VARIABLE);
    if let Some(path) = &wanted {
        let found = host.exists(path).then(|| path.clone());
        return Library { wanted: wanted.clone(), found, tried: vec![path.clone()], providers: None };
    }
    let mut folders: Vec<String> = Vec::new();
    if let Some(list) = host.variable("LD_LIBRARY_PATH") {
        folders.extend(list.split(':').filter(|folder| folder.starts_with('/')).map(str::to_owned));
    }
    for file in host.list("/etc/ld.so.conf.d", "") {
        let lines = host.lines_with(&format!("/etc/ld.so.conf.d/{file}"), &["/"]);
        folders.extend(lines.iter().map(|line| line.trim().to_owned()).filter(|line| line.starts_with('/')));
    }
    folders.extend(FOLDERS.map(str::to_owned));
    let mut seen = std::collections::BTreeSet::new();
    folders.retain(|folder| seen.insert(folder.clone()));
    let found = folders.iter().find(|folder| host.exists(&format!("{folder}/{LIBRARY}")));
    let providers = found.and_then(|folder| {
        let files = host.list(&format!("{folder}/libibverbs"), "lib");
        let names = files.iter().filter_map(|file| file.strip_prefix("lib")?.split_once("-rdmav"));
        (!files.is_empty()).then(|| names.map(|(name, _)| name.to_owned()).collect())
    });
    let found = found.map(|folder| format!("{folder}/{LIBRARY}"));
    Library { wanted: None, found, tried: folders, providers }
}

/// The adapter at a PCI address, if it is one of NVIDIA's (Mellanox), which all can do RDMA.
fn adapter(host: &dyn Host, address: &str) -> Option<Adapter> {
    let line = |name: &str| host.line(&format!("{PCI}/{address}/{name}"));
    let (vendor, class) = (line("vendor")?, line("class")?);
    // Class 02 is network controllers.
    if vendor != "0x15b3" || !class.starts_with("0x02") {
        return None;
    }
    let device = line("device")?;
    let number = u32::from_str_radix(device.trim_start_matches("0x"), 16).ok()?;
    // ConnectX-3 and older are below Connect-IB, 0x1011.
    let module = if number < 0x1011 { "mlx4_ib" } else { "mlx5_ib" };
    Some(Adapter { address: address.to_owned(), ids: format!("{vendor}:{device}"), module })
}
