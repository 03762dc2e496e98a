//! Guests with a PCI memory window: qemu's `ivshmem-doorbell` behind an IOMMU, for programs of the guest to take through vfio-pci. Its memory is
//! also that of the processes here, and of other guests, at the same server.

use crate::bench::Control;
use crate::cache::Cache;
use crate::guest::{Guest, Machine, Running};
use crate::initramfs;
use crate::monitor::Monitor;
use crate::programs::Programs;
use anyhow::{Context, Result, ensure};
use serde_json::json;
use std::net::{Ipv4Addr, TcpListener};
use std::path::PathBuf;
use std::time::{Duration, Instant};
use tbrdma_kit::Process;
use tbrdma_kit::ivshmem::Server;

/// Where the guest finds its window: behind a root port, for only what is there can be taken away.
pub(crate) const WINDOW: &str = "0000:01:00.0";

/// Where it finds qemu's device for those who learn to write drivers.
pub(crate) const EDU: &str = "0000:00:07.0";

/// Bytes of the window.
pub(crate) const BYTES: u64 = 16 << 20;

/// Interrupts of each end of the window.
pub(crate) const VECTORS: u16 = 4;

/// What qemu calls the window, its line to the server of its memory, and the root port above it.
const DEVICE: &str = "window";
const LINE: &str = "bell";
const SLOT: &str = "above";

/// Has a guest's kernel think nothing of it when a busy host lets it stand still for a while, and tell the time by a clock whose rate it need not
/// find out: what it finds on such a host is wrong, and its time runs ahead of ours.
const PATIENT: &str = "rcupdate.rcu_cpu_stall_suppress=1 clocksource=hpet";

/// How long a step of a check may take in a slow guest.
pub(crate) const LIMIT: Duration = Duration::from_secs(60);

/// The port that our programs listen on, here.
const PORT: u16 = 18_519;

/// What both guests are, and how they are reached.
pub(crate) struct Station {
    pub(crate) guest: Guest,
    /// Where TCP connections to port [`Control::PORT`] of the guest are taken, here.
    pub(crate) forwarded: u16,
}

/// Everything these checks need.
pub(crate) struct Bench {
    pub(crate) first: Station,
    pub(crate) second: Station,
    pub(crate) server: Server,
    pub(crate) socket: PathBuf,
    pub(crate) programs: Programs,
    pub(crate) cache: Cache,
}

impl Bench {
    /// Starts the server and the guests.
    pub(crate) fn start(verbose: bool) -> Result<Self> {
        let cache = Cache::open()?;
        let programs = Programs::find();
        let initramfs = initramfs::build(&cache, &programs)?;
        let socket = std::env::temp_dir().join(format!("tbrdma-lab-{}-window.sock", std::process::id()));
        let server = Server::start(&socket, BYTES, VECTORS).context("no server for the window's memory")?;
        let begin = |name| -> Result<Station> {
            let forwarded = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port();
            let devices = devices(&socket, forwarded);
            let append = format!("{PATIENT} lab.kind=pci lab.control=eth0 intel_iommu=on");
            let machine = Machine { name, kind: "q35", memory_mib: 512, cores: 1, devices, append };
            Ok(Station { guest: Guest::begin(&cache, initramfs.clone(), &machine, verbose)?, forwarded })
        };
        let (mut first, mut second) = (begin("first")?, begin("second")?);
        for station in [&mut first, &mut second] {
            station.guest.ready()?;
        }
        Ok(Self { first, second, server, socket, programs, cache })
    }

    /// The name of the window for programs here.
    pub(crate) fn ours(&self) -> String {
        format!("bar:ivshmem:{}", self.socket.display())
    }

    /// Starts a program of ours here, which plays the server for one in a guest.
    pub(crate) fn serve(&self, what: &str, address_flag: &str) -> Result<Process> {
        let command = format!("{what} --device {} {address_flag} 127.0.0.1:{PORT}", self.ours());
        let mut process = self.programs.start(&self.cache, &command)?;
        process.until_listening(PORT)?;
        Ok(process)
    }

    /// Where a guest finds that server.
    pub(crate) fn address() -> String {
        format!("10.0.2.2:{PORT}")
    }
}

impl Station {
    /// The name of the window for programs of the guest.
    pub(crate) fn device() -> String {
        format!("bar:{WINDOW}")
    }

    /// Runs a command of the guest's that must end well.
    pub(crate) fn run(&self, command: &str) -> Result<String> {
        Ok(self.guest.run(command, LIMIT)?.ok()?.trim().to_owned())
    }

    /// Whether the guest sees a device at `bdf`.
    pub(crate) fn has(&self, bdf: &str) -> Result<bool> {
        Ok(self.guest.run(&format!("ls /sys/bus/pci/devices/{bdf}/driver_override"), LIMIT)?.status == 0)
    }

    /// Has qemu take the guest's window away, as an administrator of the host does. It is away when [`until_away`](Self::until_away) says so, which
    /// takes until nobody in the guest uses it. It does not come back, and no peer may have left the server before: Debian's qemu would die of either.
    pub(crate) fn take_away(&self) -> Result<Monitor> {
        let mut monitor = self.guest.monitor()?;
        monitor.execute("device_del", &json!({ "id": DEVICE }))?;
        Ok(monitor)
    }

    /// Waits until the guest's window is away.
    pub(crate) fn until_away(&self, mut monitor: Monitor) -> Result<()> {
        monitor.until_event("DEVICE_DELETED", DEVICE, LIMIT)?;
        ensure!(!self.has(WINDOW)?, "{WINDOW} is still there");
        Ok(())
    }

    /// Has the guest's kernel forget the device at `bdf`, as an administrator does before it is pulled: done when nobody uses it any more.
    pub(crate) fn forget(&self, bdf: &str) -> Result<Running> {
        self.guest.spawn(&format!("sh -c 'echo 1 >/sys/bus/pci/devices/{bdf}/remove'"), LIMIT)
    }

    /// Has the guest look for devices again, and vfio-pci take the window.
    pub(crate) fn find_again(&self) -> Result<()> {
        self.run("sh -c 'echo 1 >/sys/bus/pci/rescan'")?;
        ensure!(self.has(WINDOW)?, "the guest does not see {WINDOW} again");
        self.bind(WINDOW, "vfio-pci")
    }

    /// Has a driver of the guest's take the device at `bdf`.
    pub(crate) fn bind(&self, bdf: &str, driver: &str) -> Result<()> {
        let at = format!("/sys/bus/pci/devices/{bdf}");
        let order = format!(
            "echo {driver} >{at}/driver_override; echo {bdf} >/sys/bus/pci/drivers_probe; readlink {at}/driver"
        );
        let driver_there = self.run(&format!("sh -c '{order}'"))?;
        ensure!(driver_there.ends_with(driver), "{bdf} has the driver {driver_there:?} in place of {driver}");
        Ok(())
    }

    /// Waits until a program of the guest's listens at [`Control::PORT`]. Trying to connect would be taken for a client.
    pub(crate) fn until_listening(&self) -> Result<()> {
        let is_up = format!("grep -q ':{:04X} .* 0A' /proc/net/tcp /proc/net/tcp6", Control::PORT);
        let until = Instant::now() + LIMIT;
        while self.guest.run(&is_up, LIMIT)?.status != 0 {
            ensure!(Instant::now() < until, "the guest's program does not listen");
        }
        Ok(())
    }
}

/// What qemu is told of a guest's devices.
fn devices(socket: &std::path::Path, forwarded: u16) -> Vec<String> {
    let [to, port] = [socket.display().to_string(), Control::PORT.to_string()];
    [
        "-device".into(),
        "intel-iommu,intremap=on".into(),
        "-device".into(),
        format!("pcie-root-port,id={SLOT},chassis=1,slot=1,addr=0x4"),
        "-chardev".into(),
        format!("socket,id={LINE},path={to}"),
        "-device".into(),
        format!("ivshmem-doorbell,id={DEVICE},chardev={LINE},vectors={VECTORS},bus={SLOT}"),
        "-device".into(),
        "edu,addr=0x7".into(),
        "-netdev".into(),
        format!("user,id=control,ipv6=off,hostfwd=tcp:127.0.0.1:{forwarded}-10.0.2.15:{port}"),
        "-device".into(),
        "virtio-net-pci,netdev=control,romfile=".into(),
    ]
    .into()
}
