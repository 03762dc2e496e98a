//! The ways in which our side and the guest are connected.

use crate::bench::{Bench, Control, Ours};
use crate::cache::Cache;
use crate::device::Device;
use crate::guest::{Guest, Machine, Outcome};
use crate::programs::Programs;
use crate::verbs::Verbs;
use crate::wire::Wire;
use crate::wire::frame::{GUEST_MAC, OUR_V4, OUR_V6};
use crate::{checks, initramfs, pci};
use anyhow::{Context, Result, ensure};
use nix::sched::CloneFlags;
use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;
use tbrdma::OpenOptions;
use tbrdma_kit::{Report, Skip, enter_network_namespace};

/// Bytes of an IP packet: enough for packets with 4096 bytes of payload.
const MTU: u32 = 4200;

/// In the environment of the process that has a network namespace of its own.
const ROLE: &str = "TBRDMA_LAB_ROLE";

pub(crate) const TAP: &str = "tap0";

/// How long a command that somebody gives may take.
const COMMAND: Duration = Duration::from_secs(500);

/// All checks that the lab can make as the wire.
pub(crate) fn wire(report: &mut Report, verbose: bool) -> Result<()> {
    let mut bench = wired(1, verbose)?;
    checks::pingpong::run(&mut bench, report);
    checks::operations::run(&mut bench, report);
    checks::refusals::run(&mut bench, report);
    checks::faults::run(&mut bench, report);
    checks::own::run(&bench, report);
    checks::own::run_native(&bench, report);
    checks::conformance::run(&bench, report);
    report.always("the guest's end", || bench.guest.finish());
    Ok(())
}

/// What perftest measures on rxe, beside what `tbrdma-bench` does.
pub(crate) fn agreement(report: &mut Report, verbose: bool) -> Result<()> {
    // Two programs that poll and never step aside: on one core each would wait for the end of the other's turn.
    let mut bench = wired(2, verbose)?;
    checks::agreement::run(&bench, report);
    report.always("the guest's end", || bench.guest.finish());
    Ok(())
}

/// All checks of a PCI memory window.
pub(crate) fn pci(report: &mut Report, verbose: bool) -> Result<()> {
    let mut bench = pci::Bench::start(verbose)?;
    let [first, second] = [&bench.first, &bench.second].map(|station| station.guest.boot.as_secs_f64());
    println!(
        "lab: two guests are up after {first:.1} s and {second:.1} s, with a window between them and us"
    );
    checks::pci::run(&mut bench, report);
    Ok(())
}

/// Runs commands in a guest, one after the other, and shows what they say. Whether all ended with 0.
pub(crate) fn commands(commands: &[String], verbose: bool) -> Result<bool> {
    let mut bench = wired(1, verbose)?;
    let mut well = true;
    for command in commands {
        let Outcome { status, output } = bench.guest.run(command, COMMAND)?;
        println!("$ {command}\n{}\n(status {status})", output.trim_end());
        well &= status == 0;
    }
    bench.guest.finish()?;
    Ok(well)
}

/// The guest's frames come in UDP datagrams to us; TCP goes through qemu's own user network. Nothing needs a right that not everybody has.
fn wired(cores: u32, verbose: bool) -> Result<Bench> {
    let cache = Cache::open()?;
    let programs = Programs::find();
    let initramfs = initramfs::build(&cache, &programs)?;
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
    let ours = socket.local_addr()?.port();
    let guests = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port();
    let forwarded = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port();
    let network = [
        "-netdev".into(),
        format!(
            "dgram,id=roce,local.type=inet,local.host=127.0.0.1,local.port={guests},\
             remote.type=inet,remote.host=127.0.0.1,remote.port={ours}"
        ),
        "-device".into(),
        nic("roce"),
        "-netdev".into(),
        format!("user,id=control,ipv6=off,hostfwd=tcp:127.0.0.1:{forwarded}-10.0.2.15:{}", Control::PORT),
        "-device".into(),
        "virtio-net-pci,netdev=control,romfile=".into(),
    ];
    let guest =
        Guest::start(&cache, initramfs, &machine(network.into(), cores, " lab.control=eth1"), verbose)?;
    println!("lab: a guest is up after {:.1} s, with us as its wire", guest.boot.as_secs_f64());
    let control = Control {
        listen: Ipv4Addr::LOCALHOST.into(),
        host: "10.0.2.2".into(),
        guest: SocketAddr::from((Ipv4Addr::LOCALHOST, forwarded)),
    };
    let verbs = Verbs::start(&guest, &control.listener()?, &control.host)?;
    let wire = Wire::start(socket, SocketAddr::from((Ipv4Addr::LOCALHOST, guests)))?;
    Ok(Bench { guest, verbs, ours: Ours::Wire(Box::new(wire)), control, programs, cache })
}

/// A guest with an rxe, at a network like this.
fn machine(devices: Vec<String>, cores: u32, append: &str) -> Machine {
    let append = format!("lab.kind=rxe lab.mtu={MTU}{append}");
    Machine { name: "rxe", kind: "pc", memory_mib: 1024, cores, devices, append }
}

fn nic(netdev: &str) -> String {
    let mac = GUEST_MAC.map(|byte| format!("{byte:02x}")).join(":");
    format!("virtio-net-pci,netdev={netdev},mac={mac},host_mtu={MTU},romfile=")
}

/// Whether this process is the one with the namespace.
pub(crate) fn is_tap_role() -> bool {
    std::env::var(ROLE).is_ok_and(|role| role == "tap")
}

/// Runs the checks of the tap in a process of its own, whose network namespace ends with it, and adds up what it counts.
pub(crate) fn tap(report: &mut Report) -> Result<()> {
    Cache::open()?;
    let mut child = Command::new(std::env::current_exe()?)
        .args(std::env::args_os().skip(1))
        .env(ROLE, "tap")
        .stdout(Stdio::piped())
        .spawn()
        .context("cannot start a process for the network namespace")?;
    let output = BufReader::new(child.stdout.take().context("the process has no output")?);
    let mut counted = false;
    for line in output.lines() {
        let line = line?;
        match Report::parse_counts(&line) {
            Some(counts) => {
                report.add(counts);
                counted = true;
            }
            None => println!("{line}"),
        }
    }
    let status = child.wait()?;
    ensure!(counted, "the process with the network namespace ended with {status} before its end");
    Ok(())
}

/// In the process of its own: a namespace, a tap, a guest on it, and the library on the host's end of it.
pub(crate) fn in_namespace(report: &mut Report, capture: Option<&Path>, verbose: bool) -> Result<()> {
    let cache = Cache::open()?;
    enter_network_namespace(CloneFlags::empty())?;
    let busybox = cache.guest("bin/busybox");
    let busybox = |arguments: &[&str]| -> Result<()> {
        let output = Command::new(&busybox).args(arguments).output()?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "`{}` in the namespace: {}", arguments.join(" "), said.trim());
        Ok(())
    };
    File::options()
        .read(true)
        .write(true)
        .open("/dev/net/tun")
        .map_err(|error| Skip::new(format!("/dev/net/tun cannot be opened: {error}")))?;
    busybox(&["ip", "link", "set", "lo", "up"])?;
    busybox(&["tunctl", "-t", TAP]).map_err(|error| Skip::new(format!("no tap: {error:#}")))?;
    // No waiting until the address is known to be unique.
    fs::write(format!("/proc/sys/net/ipv6/conf/{TAP}/accept_dad"), "0").context("cannot set up IPv6")?;
    busybox(&["ip", "link", "set", TAP, "mtu", &MTU.to_string(), "up"])?;
    busybox(&["ip", "addr", "add", &format!("{OUR_V4}/24"), "dev", TAP])?;
    busybox(&["ip", "-6", "addr", "add", &format!("{OUR_V6}/64"), "dev", TAP])?;
    let network = [
        "-netdev".into(),
        format!("tap,id=roce,ifname={TAP},script=no,downscript=no,vnet_hdr=off"),
        "-device".into(),
        nic("roce"),
    ];
    let programs = Programs::find();
    let initramfs = initramfs::build(&cache, &programs)?;
    let guest = Guest::start(&cache, initramfs, &machine(network.into(), 1, ""), verbose)?;
    println!("lab: a guest is up after {:.1} s, at a tap in a network namespace", guest.boot.as_secs_f64());
    let control = Control {
        listen: OUR_V4.into(),
        host: OUR_V4.to_string(),
        guest: SocketAddr::from((Ipv4Addr::new(10, 77, 0, 2), Control::PORT)),
    };
    let verbs = Verbs::start(&guest, &control.listener()?, &control.host)?;
    let name = format!("udp:{TAP}");
    let options = capture.map_or_else(OpenOptions::new, |file| OpenOptions::new().capture(file));
    let device = Device::open(&name, &options)?;
    let mut bench = Bench { guest, verbs, ours: Ours::Device(Box::new(device)), control, programs, cache };
    checks::pingpong::run(&mut bench, report);
    checks::operations::run(&mut bench, report);
    checks::refusals::run(&mut bench, report);
    checks::perftest::run(&bench, report);
    checks::own::run_between(&bench, report);
    checks::conformance::run_far(&bench, report);
    // A context of its own beside the first one.
    let faulty = OpenOptions::new().fault("loss=4%,corrupt=2%,dup=4%,reorder=4%:500us").seed(3);
    bench.ours = Ours::Device(Box::new(Device::open(&name, &faulty)?));
    checks::operations::run_faulty(&mut bench, report);
    report.always("the guest's end", || bench.guest.finish());
    Ok(())
}
