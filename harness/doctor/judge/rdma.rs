//! RDMA adapters: from the driver to the last GID.

use crate::doctor::facts::Facts;
use crate::doctor::facts::modules::State;
use crate::doctor::facts::rdma::{Device, LIBRARY, LIBRARY_VARIABLE, Port};
use crate::doctor::finding::Finding;

const PACKAGES: &str =
    "install rdma-core: apt install libibverbs1 ibverbs-providers, or dnf install libibverbs";

/// What is to be said of adapters.
pub(super) fn judge(facts: &Facts, findings: &mut Vec<Finding>) {
    findings.push(library(facts));
    adapters(facts, findings);
    if facts.rdma.devices.is_empty() {
        findings.push(no_device(facts));
        return;
    }
    findings.extend(uverbs(facts));
    for device in &facts.rdma.devices {
        findings.push(describe(device));
        findings.extend(provider(facts, device));
        for port in &device.ports {
            findings.push(state(facts, device, port));
            if port.is_active() && port.is_ethernet() {
                findings.push(gids(device, port));
            }
        }
    }
}

fn library(facts: &Facts) -> Finding {
    const ID: &str = "rdma.library";
    let library = &facts.rdma.library;
    match (&library.found, &library.wanted) {
        (Some(found), Some(_)) => {
            Finding::ok(ID, format!("{LIBRARY_VARIABLE} names a verbs library")).seen(found, "is there")
        }
        (Some(found), None) => Finding::ok(ID, "the verbs library is installed").seen(found, "is there"),
        (None, Some(wanted)) => {
            Finding::problem(ID, format!("{LIBRARY_VARIABLE} names a library that is not there"))
                .seen(format!("{LIBRARY_VARIABLE}={wanted}"), "no such file")
                .remedy(format!("unset {LIBRARY_VARIABLE}, or name the file, as /usr/lib/{LIBRARY}"))
        }
        (None, None) => {
            let title = format!("{LIBRARY} is not installed");
            let has_devices = !facts.rdma.devices.is_empty();
            let finding = match has_devices {
                true => Finding::problem(ID, title).why("without it no program reaches the adapters below"),
                false => Finding::note(ID, title).why("shm and udp do without it; adapters do not"),
            };
            finding.seen(library.tried.join(", "), format!("no {LIBRARY}")).remedy(PACKAGES)
        }
    }
}

/// Adapters on PCI whose driver for RDMA does not run.
fn adapters(facts: &Facts, findings: &mut Vec<Finding>) {
    for adapter in facts.rdma.adapters.iter().filter(|adapter| !facts.modules.runs(adapter.module)) {
        let (module, address) = (adapter.module, &adapter.address);
        let remedy = match facts.modules.state(module) {
            State::Missing => format!(
                "this kernel was built without it: install the package of its further modules (Ubuntu: \
                 linux-modules-extra-{}), then sudo modprobe {module}",
                facts.release
            ),
            State::Unknown => format!("sudo modprobe {module}, on the host where this is a container"),
            _ => format!("sudo modprobe {module}"),
        };
        let (file, said) = facts.modules.evidence(module);
        findings.push(
            Finding::problem(
                "rdma.adapter",
                format!("the adapter at {address} can do RDMA, but {module} is not loaded"),
            )
            .about(address)
            .seen(format!("/sys/bus/pci/devices/{address}"), format!("is a {}", adapter.ids))
            .seen(file, said)
            .remedy(remedy),
        );
    }
}

fn no_device(facts: &Facts) -> Finding {
    let rxe = facts.modules.state("rdma_rxe");
    let interface = facts.network.interfaces.iter().find(|interface| interface.name != "lo");
    let interface = interface.map_or("eth0", |interface| &interface.name);
    let link = format!("sudo rdma link add rxe0 type rxe netdev {interface}");
    let remedy = match rxe {
        State::Present | State::BuiltIn => format!("an adapter in the kernel's software: {link}"),
        State::Available => format!("an adapter in the kernel's software: sudo modprobe rdma_rxe && {link}"),
        State::Missing => format!(
            "this kernel has no adapter in software (rdma_rxe) either; udp:{interface} speaks the same protocol and needs none"
        ),
        State::Unknown => format!("udp:{interface} is an adapter in software and needs no kernel module"),
    };
    let (file, said) = facts.modules.evidence("rdma_rxe");
    let title = match &facts.rdma.library.found {
        Some(_) => "the verbs library is installed, but this host has no RDMA adapter",
        None => "this host has no RDMA adapter",
    };
    let class = if facts.rdma.class { "is empty" } else { "is not there" };
    Finding::note("rdma.devices", title).seen("/sys/class/infiniband", class).seen(file, said).remedy(remedy)
}

/// The device files through which the library speaks with the kernel.
fn uverbs(facts: &Facts) -> Option<Finding> {
    const ID: &str = "rdma.uverbs";
    let in_container = !facts.limits.container.is_empty();
    if facts.rdma.nodes.is_empty() {
        let finding = Finding::problem(ID, "there are adapters, but no device files to open them by")
            .seen("/dev/infiniband/uverbs*", "not there");
        let (file, said) = facts.modules.evidence("ib_uverbs");
        return Some(match (facts.modules.runs("ib_uverbs"), in_container) {
            (false, _) => finding.seen(file, said).remedy("sudo modprobe ib_uverbs"),
            (true, true) => {
                finding.remedy("start the container with --device /dev/infiniband, and --ulimit memlock=-1")
            }
            (true, false) => {
                finding.remedy("look why udev made none: udevadm trigger --subsystem-match=infiniband_verbs")
            }
        });
    }
    let closed: Vec<_> = facts.rdma.nodes.iter().filter(|node| !node.usable).collect();
    let show = |finding: Finding, nodes: &[&crate::doctor::host::Node]| {
        nodes.iter().fold(finding, |finding, node| {
            finding.seen(&node.path, format!("{}, owner {}, group {}", node.mode, node.owner, node.group))
        })
    };
    if closed.is_empty() {
        let all: Vec<_> = facts.rdma.nodes.iter().collect();
        return Some(show(Finding::ok(ID, "device files may be opened"), &all));
    }
    let remedy = match in_container {
        true => "allow the device in the container: --device /dev/infiniband (Kubernetes: a device plugin)",
        false => {
            "as rdma-core's udev rules have it, everybody may: install rdma-core, or sudo chmod 666 /dev/infiniband/uverbs*"
        }
    };
    Some(show(Finding::problem(ID, "device files may not be opened by this user"), &closed).remedy(remedy))
}

fn describe(device: &Device) -> Finding {
    let kind = device.node_type.as_deref().and_then(|kind| kind.split(": ").nth(1)).unwrap_or("device");
    let driver = device.driver.as_deref().map(|driver| format!(", driver {driver}")).unwrap_or_default();
    let firmware =
        device.firmware.as_deref().map(|release| format!(", firmware {release}")).unwrap_or_default();
    let ports = match device.ports.len() {
        1 => "1 port".to_owned(),
        count => format!("{count} ports"),
    };
    Finding::ok("rdma.device", format!("{}: {kind}{driver}{firmware}, {ports}", device.name))
        .about(&device.name)
        .seen(format!("/sys/class/infiniband/{}", device.name), "is there")
}

/// The library's part that knows the device.
fn provider(facts: &Facts, device: &Device) -> Option<Finding> {
    let provider = match device.driver.as_deref()? {
        "mlx5_core" => "mlx5",
        "mlx4_core" => "mlx4",
        "rdma_rxe" => "rxe",
        "siw" => "siw",
        _ => return None,
    };
    let providers = facts.rdma.library.providers.as_ref()?;
    if providers.iter().any(|known| known == provider) {
        return None;
    }
    let folder = facts.rdma.library.found.as_ref()?.strip_suffix(LIBRARY)?;
    Some(
        Finding::problem("rdma.provider", format!("the verbs library has no provider for {}", device.name))
            .about(&device.name)
            .seen(format!("{folder}libibverbs"), format!("holds no lib{provider}-rdmav*.so"))
            .why("the library then lists no such device, and says nothing")
            .remedy("apt install ibverbs-providers, or dnf install libibverbs"),
    )
}

fn state(facts: &Facts, device: &Device, port: &Port) -> Finding {
    let folder = format!("/sys/class/infiniband/{}/ports/{}", device.name, port.number);
    let subject = format!("{}/{}", device.name, port.number);
    let name = format!("{} port {}", device.name, port.number);
    let seen = |finding: Finding| {
        let finding = finding.about(&subject).seen(format!("{folder}/state"), &port.state);
        match &port.physical {
            Some(physical) => finding.seen(format!("{folder}/phys_state"), physical),
            None => finding,
        }
    };
    let layer = port.link_layer.as_deref().unwrap_or("unknown link layer");
    if port.is_active() {
        let rate = port.rate.as_deref().map(|rate| format!(", {rate}")).unwrap_or_default();
        let on = port.interface().map(|interface| format!(" on {interface}")).unwrap_or_default();
        return seen(Finding::ok("rdma.port", format!("{name} is active: {layer}{on}{rate}")));
    }
    let physical = port.physical.as_deref().unwrap_or_default();
    let down = port.interface().and_then(|name| facts.network.interface(name));
    let remedy = match (&port.state, port.is_ethernet()) {
        (state, false) if state.starts_with('2') => {
            "no subnet manager has configured it: start one somewhere on the fabric (sudo systemctl start opensm)".into()
        }
        (_, true) if down.is_some_and(|interface| interface.state.as_deref() == Some("down")) => {
            format!("sudo ip link set dev {} up; then look at the cable", port.interface().unwrap_or_default())
        }
        (_, true) if physical.contains("Disabled") => {
            let interface = port.interface().unwrap_or("its network interface");
            format!("sudo ip link set dev {interface} up (rdma link shows which interface it is)")
        }
        _ => "look at the cable and at the other end: no link is seen (ibstat, rdma link)".to_owned(),
    };
    let shown = port.state.split(": ").nth(1).unwrap_or(&port.state);
    let finding = seen(Finding::problem("rdma.port", format!("{name} is {shown}: {layer}")));
    let finding = match down.zip(port.interface()) {
        Some((interface, name)) => finding.seen(
            format!("/sys/class/net/{name}/operstate"),
            interface.state.as_deref().unwrap_or("unknown"),
        ),
        None => finding,
    };
    finding.why("queue pairs on it do not go to RTR, or nothing arrives").remedy(remedy)
}

fn gids(device: &Device, port: &Port) -> Finding {
    const ID: &str = "rdma.gid";
    let folder = format!("/sys/class/infiniband/{}/ports/{}/gids", device.name, port.number);
    let subject = format!("{}/{}", device.name, port.number);
    let interface = port.interface().unwrap_or("its network interface");
    let name = format!("{} port {}", device.name, port.number);
    let table: Vec<String> = port
        .gids
        .iter()
        .map(|gid| {
            format!("{}: {} {}", gid.index, gid.gid, gid.kind.as_deref().unwrap_or("")).trim_end().to_owned()
        })
        .collect();
    let address =
        format!("give the interface an address: sudo ip address add 192.168.7.1/24 dev {interface}");
    if port.gids.is_empty() {
        return Finding::problem(ID, format!("{name} has no GID"))
            .about(subject)
            .seen(folder, "all entries are zero")
            .why("a RoCE port has one for each address of its network interface, and none can be reached without")
            .remedy(address);
    }
    let usable = |gid: &&crate::doctor::facts::rdma::Gid| {
        !gid.is_link_local() && gid.kind.as_deref().is_none_or(|kind| kind.contains("v2"))
    };
    let Some(best) = port.gids.iter().filter(usable).max_by_key(|gid| gid.ipv4().is_some()) else {
        let one = port.gids.iter().all(|gid| gid.index == 0);
        let title = match one {
            true => format!("{name} has no GID 1: only the link-local one, at index 0"),
            false => format!("{name} has link-local GIDs only"),
        };
        return Finding::problem(ID, title)
            .about(subject)
            .seen(folder, table.join("; "))
            .why("peers behind a router cannot be reached, and programs that ask for GID index 1 or 3 fail at RTR with EINVAL (22)")
            .remedy(address);
    };
    let address = best.ipv4().map(|v4| format!(" ({v4})")).unwrap_or_default();
    let kind = best.kind.as_deref().unwrap_or("RoCE v2");
    Finding::ok(ID, format!("{name}: use GID index {}{address}, {kind}", best.index))
        .about(subject)
        .seen(folder, table.join("; "))
}
