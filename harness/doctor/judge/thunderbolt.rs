//! Thunderbolt and USB4 cables of Linux: who is at the other end, and the network over them.

use super::streams;
use crate::doctor::facts::Facts;
use crate::doctor::facts::modules::State;
use crate::doctor::facts::network::{Interface, is_link_local};
use crate::doctor::facts::thunderbolt::Peer;
use crate::doctor::finding::Finding;

const BUS: &str = "/sys/bus/thunderbolt/devices";
/// How the kernel calls the driver of the network over cables.
const NETWORK_DRIVER: &str = "thunderbolt-net";

/// What is to be said of cables.
pub(super) fn judge(facts: &Facts, findings: &mut Vec<Finding>) {
    let thunderbolt = &facts.thunderbolt;
    if thunderbolt.domains.is_empty() {
        findings.push(no_controller(facts));
        return;
    }
    for domain in &thunderbolt.domains {
        let folder = format!("{BUS}/{}", domain.name);
        let level = domain.security.as_deref().unwrap_or("unknown");
        let finding = Finding::ok(
            "thunderbolt.domain",
            format!("{}: a controller, security level {level}", domain.name),
        )
        .about(&domain.name)
        .seen(format!("{folder}/security"), level);
        findings.push(match domain.iommu {
            Some(true) => finding.seen(format!("{folder}/iommu_dma_protection"), "1"),
            Some(false) => finding.seen(format!("{folder}/iommu_dma_protection"), "0").why(
                "whoever is plugged in may reach all memory of this host: its IOMMU does not hold it back",
            ),
            None => finding,
        });
    }
    if thunderbolt.peers.is_empty() {
        findings.push(
            Finding::note("thunderbolt.peer", "no other host is at the end of a cable")
                .seen(BUS, "no device of type thunderbolt_xdomain")
                .remedy("join two hosts by a Thunderbolt or USB4 cable; one that only charges, or USB 3 alone, does not do"),
        );
    }
    for peer in &thunderbolt.peers {
        let speed = peer.speed.as_deref().map(|speed| format!(", {speed}")).unwrap_or_default();
        findings.push(
            Finding::ok("thunderbolt.peer", format!("{}: {}{speed}", peer.name, peer.says()))
                .about(&peer.name)
                .seen(
                    format!("{BUS}/{}/device_name", peer.name),
                    peer.device.as_deref().unwrap_or("nothing"),
                ),
        );
        findings.extend(service(facts, peer));
    }
    for interface in &facts.network.interfaces {
        if interface.driver.as_deref() == Some(NETWORK_DRIVER) {
            findings.push(network(interface));
        }
    }
    streams::judge(facts, findings);
}

fn no_controller(facts: &Facts) -> Finding {
    let said = if facts.thunderbolt.bus { "is empty" } else { "is not there" };
    let finding = Finding::note(
        "thunderbolt.domain",
        "this host has no Thunderbolt or USB4 controller that Linux knows of",
    )
    .seen(BUS, said);
    match facts.modules.state("thunderbolt") {
        State::Available => finding.remedy("if it has one: sudo modprobe thunderbolt"),
        State::Missing => finding
            .remedy("if it has one: this kernel was built without USB4 (CONFIG_USB4), and another is needed"),
        _ => finding,
    }
}

/// The other host's network service, as long as no driver has taken it.
fn service(facts: &Facts, peer: &Peer) -> Option<Finding> {
    const ID: &str = "thunderbolt.service";
    let Some(service) = peer.service("network") else {
        return Some(
            Finding::note(ID, format!("{} offers no network over the cable", peer.says()))
                .about(&peer.name)
                .seen(format!("{BUS}/{}.*/key", peer.name), "none says network")
                .remedy("turn it on there: modprobe thunderbolt-net on Linux; on a Mac it is always on"),
        );
    };
    if service.driver.is_some() {
        return None;
    }
    let (file, said) = facts.modules.evidence("thunderbolt_net");
    Some(
        Finding::problem(
            ID,
            format!("{} offers a network over the cable, and no driver here takes it", peer.says()),
        )
        .about(&peer.name)
        .seen(format!("{BUS}/{}/key", service.name), "network")
        .seen(file, said)
        .remedy(match facts.modules.state("thunderbolt_net") {
            State::Missing => "this kernel was built without it (CONFIG_USB4_NET): another kernel is needed",
            _ => "sudo modprobe thunderbolt-net",
        }),
    )
}

fn network(interface: &Interface) -> Finding {
    const ID: &str = "thunderbolt.network";
    let name = &interface.name;
    let folder = format!("/sys/class/net/{name}");
    if interface.state.as_deref() == Some("down") {
        return Finding::problem(ID, format!("{name}, the network over the cable, is down"))
            .about(name)
            .seen(format!("{folder}/operstate"), "down")
            .remedy(format!("sudo ip link set dev {name} up"));
    }
    let Some(addresses) = &interface.addresses else {
        return Finding::note(
            ID,
            format!("{name} is the network over the cable; nobody asked for its addresses"),
        )
        .about(name)
        .seen(format!("{folder}/device/driver"), NETWORK_DRIVER);
    };
    let shown: Vec<String> = addresses.iter().map(ToString::to_string).collect();
    let give = format!(
        "sudo ip address add 10.7.7.1/30 dev {name} here, 10.7.7.2/30 there; or on both: nmcli connection add type \
         ethernet ifname {name} ipv4.method link-local; then --device udp:{name}"
    );
    if addresses.is_empty() {
        return Finding::problem(ID, format!("{name}, the network over the cable, has no IP address"))
            .about(name)
            .seen(format!("addresses of {name}"), "no address")
            .why("RoCE over UDP sends between IP addresses")
            .remedy(give);
    }
    if addresses.iter().all(|address| address.is_ipv6() && is_link_local(*address)) {
        return Finding::note(
            ID,
            format!("{name}, the network over the cable, has a link-local IPv6 address only"),
        )
        .about(name)
        .seen(format!("addresses of {name}"), shown.join(", "))
        .why("programs that exchange IPv4 addresses do not find the peer by it")
        .remedy(give);
    }
    Finding::ok(ID, format!("{name} is the network over the cable: --device udp:{name}"))
        .about(name)
        .seen(format!("addresses of {name}"), shown.join(", "))
}
