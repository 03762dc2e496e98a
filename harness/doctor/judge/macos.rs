//! RDMA over Thunderbolt on a Mac, from Recovery to a warm neighbour cache.

use crate::doctor::facts::macos::{Device, Macos};
use crate::doctor::finding::Finding;
use crate::doctor::host::Ran;

/// What is to be said of a Mac.
pub(super) fn judge(macos: &Macos, findings: &mut Vec<Finding>) {
    findings.push(version(macos));
    findings.push(enabled(macos));
    findings.extend(stuck("ibv_devices", macos.listed.as_ref()));
    findings.extend(stuck("ibv_devinfo -v", macos.described.as_ref()));
    findings.extend(bridge(macos));
    if macos.devices.is_empty() {
        findings.push(no_device(macos));
    }
    for device in &macos.devices {
        findings.push(port(macos, device));
        if device.is_active() {
            findings.push(gid(device));
            findings.push(neighbour(macos, device));
        }
    }
    if let Some(device) = macos.devices.first() {
        let [qp, mr] = device.most.each_ref().map(|most| most.as_deref().unwrap_or("unknown"));
        findings.push(
            Finding::ok("macos.limits", "each port has few of everything: plan with them")
                .seen("ibv_devinfo -v", format!("{}: max_qp {qp}, max_mr {mr}", device.name))
                .why(
                    "UC queue pairs with SEND and receive only, 10 at a time (the next is EBUSY), about 100 memory regions; depth \
                     counts frames of 4 KiB; what a killed process held may stay taken until the next boot",
                ),
        );
    }
}

fn version(macos: &Macos) -> Finding {
    const ID: &str = "macos.version";
    let said = macos.version.as_deref().unwrap_or("nothing");
    let mut numbers = said.split('.').map(|part| part.parse::<u32>().unwrap_or(0));
    let release = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    let seen = |finding: Finding| finding.seen("sw_vers -productVersion", said);
    match release >= (26, 2) {
        true => seen(Finding::ok(ID, format!("macOS {said} has RDMA over Thunderbolt"))),
        false => seen(Finding::problem(ID, format!("macOS {said} has no RDMA over Thunderbolt")))
            .remedy("macOS 26.2 or later, the same build on all Macs of the cluster"),
    }
}

fn enabled(macos: &Macos) -> Finding {
    const ID: &str = "macos.rdma_ctl";
    const COMMAND: &str = "rdma_ctl status";
    let remedy = "start in Recovery, open Utilities > Terminal, type rdma_ctl enable, and boot again";
    match &macos.rdma_ctl {
        None => Finding::problem(ID, "there is no rdma_ctl")
            .seen(COMMAND, "no such command")
            .remedy("macOS 26.2 or later has it"),
        Some(ran) if ran.text.trim().eq_ignore_ascii_case("enabled") => {
            Finding::ok(ID, "RDMA over Thunderbolt is enabled").seen(COMMAND, ran.text.trim())
        }
        Some(ran) => {
            let said = if ran.text.trim().is_empty() { "nothing" } else { ran.text.trim() };
            Finding::problem(ID, "RDMA over Thunderbolt is not enabled").seen(COMMAND, said).remedy(remedy)
        }
    }
}

/// A command that did not end.
fn stuck(command: &'static str, ran: Option<&Ran>) -> Option<Finding> {
    ran.filter(|ran| ran.code.is_none())?;
    Some(
        Finding::problem("macos.stuck", format!("{command} does not end"))
            .about(command)
            .seen(command, "no answer in 5 s")
            .why("a process that was killed while it used a device may hold it for ever (ps shows it in state U)")
            .remedy("boot this Mac again; end programs by SIGTERM, never by SIGKILL, so that they give back what they hold"),
    )
}

fn bridge(macos: &Macos) -> Option<Finding> {
    const ID: &str = "macos.bridge";
    let Some(bridge) = macos.interfaces.iter().find(|interface| interface.name == "bridge0") else {
        return Some(Finding::ok(ID, "there is no Thunderbolt Bridge").seen("ifconfig -a", "no bridge0"));
    };
    if !bridge.up || bridge.members.is_empty() {
        let state = if bridge.up { "has no members" } else { "is down" };
        return Some(
            Finding::ok(ID, "the Thunderbolt Bridge is off").seen("ifconfig -a", format!("bridge0 {state}")),
        );
    }
    let members = bridge.members.join(", ");
    let leave: Vec<String> = bridge.members.iter().map(|name| format!("deletem {name}")).collect();
    Some(
        Finding::problem(ID, format!("bridge0, the Thunderbolt Bridge, is up and holds {members}"))
            .about("bridge0")
            .seen("ifconfig -a", format!("bridge0: UP, members {members}"))
            .why("ports in a bridge have no address of their own: queue pairs on them fail at RTR with EINVAL (22)")
            .remedy(format!(
                "sudo ifconfig bridge0 {} down; and so that it stays off: networksetup -setnetworkserviceenabled \"Thunderbolt \
                 Bridge\" off (updates of macOS may turn it on again)",
                leave.join(" ")
            )),
    )
}

fn no_device(macos: &Macos) -> Finding {
    const ID: &str = "macos.devices";
    let said = macos.listed.as_ref().map_or("no such command", |_| "an empty list");
    let processor = macos.processor.as_deref().unwrap_or("unknown");
    let problem =
        |title: &str, remedy: &str| Finding::problem(ID, title).seen("ibv_devices", said).remedy(remedy);
    match macos.has_thunderbolt_5() {
        Some(false) => Finding::note(ID, "no RDMA device: this Mac has no Thunderbolt 5")
            .seen("ibv_devices", said)
            .seen("system_profiler SPThunderboltDataType", format!("Speed: {}", macos.speeds.join("; ")))
            .seen("sysctl -n machdep.cpu.brand_string", processor)
            .why("rdma_ctl says enabled on such Macs too, and it changes nothing")
            .remedy("nothing helps on this Mac: use TCP, or a Mac with Thunderbolt 5 (M4 Pro, M4 Max, M3 Ultra or later)"),
        Some(true) => problem("no RDMA device, although this Mac has Thunderbolt 5", "rdma_ctl enable in Recovery, and boot again"),
        None => problem("no RDMA device", "a Mac with Thunderbolt 5, and rdma_ctl enable in Recovery"),
    }
}

fn port(macos: &Macos, device: &Device) -> Finding {
    const ID: &str = "macos.port";
    let (name, interface) = (&device.name, device.interface());
    let state = device.state.as_deref().unwrap_or("unknown");
    let seen =
        |finding: Finding| finding.about(name).seen("ibv_devinfo -v", format!("{name}: state {state}"));
    if device.is_active() {
        return seen(Finding::ok(ID, format!("{name} is active")));
    }
    let cabled = macos.interface(interface).is_some_and(|interface| interface.active);
    if cabled {
        return seen(Finding::problem(ID, format!("{name} is down, although something is plugged in")))
            .seen("ifconfig -a", format!("{interface}: status active"))
            .why("a port is active only when both Macs have RDMA enabled")
            .remedy("rdma_ctl status on the other Mac; both want a Thunderbolt 5 port and the same build of macOS");
    }
    seen(Finding::note(ID, format!("{name} is down: nothing is plugged in")))
        .seen("ifconfig -a", format!("{interface}: not active"))
}

fn gid(device: &Device) -> Finding {
    const ID: &str = "macos.gid";
    let (name, interface) = (&device.name, device.interface());
    let table: Vec<String> = device.gids.iter().map(|(index, gid)| format!("GID[{index}] {gid}")).collect();
    let seen = |finding: Finding| {
        finding.about(name).seen("ibv_devinfo -v", format!("{name}: {}", table.join(", ")))
    };
    match device.ipv4() {
        Some((1, address)) => seen(Finding::ok(ID, format!("{name} has GID 1: {address}"))),
        Some((index, address)) => seen(Finding::note(ID, format!("{name} has its IPv4 address at GID {index}, not 1: {address}")))
            .why("MLX's JACCL always uses index 1, and fails at RTR with EINVAL (22)")
            .remedy(format!("take addresses from {interface} that it does not need, until the wanted one stands at index 1")),
        None => seen(Finding::problem(ID, format!("{name} has no GID 1: {interface} has no IPv4 address")))
            .why(
                "GID 1 is there only while the interface has an IPv4 address; one that macOS gives by itself (169.254.x.y) is absent for \
                 minutes after a boot or a new cable. Without it RTR fails with EINVAL (22), or ETIMEDOUT (60) by GID 0",
            )
            .remedy(format!("sudo ifconfig {interface} inet 10.7.7.1/30 alias here, 10.7.7.2/30 on the other Mac")),
    }
}

fn neighbour(macos: &Macos, device: &Device) -> Finding {
    const ID: &str = "macos.neighbour";
    let (name, interface) = (&device.name, device.interface());
    let known: Vec<&str> = macos
        .neighbours
        .iter()
        .filter(|(on, _)| on == interface)
        .map(|(_, address)| address.as_str())
        .collect();
    if known.is_empty() {
        return Finding::note(ID, format!("no neighbour is known on {interface}"))
            .about(name)
            .seen("arp -an; ndp -an", format!("nobody on {interface}"))
            .why("the change to RTR fails while the system does not know the peer's hardware address")
            .remedy(format!("ping the peer's address on {interface} once (ping6 ff02::1%{interface} finds it), before programs connect"));
    }
    Finding::ok(ID, format!("the neighbour on {interface} is known"))
        .about(name)
        .seen("arp -an; ndp -an", known.join(", "))
}
