//! Guests with a PCI memory window: qemu's `ivshmem-doorbell` behind an IOMMU, for programs of the guest to take through vfio-pci. Its memory is
//! also that of the processes here, and of other guests, at the same server.

use crate::cache::Cache;
use crate::guest::{Guest, Machine, Running};
use crate::initramfs;
use crate::monitor::Monitor;
use crate::programs::Programs;
use anyhow::{Context, Result, ensure};
use serde_json::json;
use std::path::Path;
use std::time::Duration;
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

/// How long a step of a check may take in a slow guest.
pub(crate) const LIMIT: Duration = Duration::from_secs(60);

/// What both guests are, and how they are reached.
pub(crate) struct Station {
    pub(crate) guest: Guest,
}

/// Everything these checks need.
pub(crate) struct Bench {
    pub(crate) first: Station,
    pub(crate) second: Station,
    pub(crate) server: Server,
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
            let devices = devices(&socket);
            let append = "lab.kind=pci intel_iommu=on".into();
            let machine = Machine { name, kind: "q35", memory_mib: 512, devices, append };
            Ok(Station { guest: Guest::begin(&cache, initramfs.clone(), &machine, verbose)? })
        };
        let (mut first, mut second) = (begin("first")?, begin("second")?);
        for station in [&mut first, &mut second] {
            station.guest.ready()?;
        }
        Ok(Self { first, second, server })
    }

    /// Has qemu take the first guest's window away, as an administrator of the host does. It is away when [`until_away`](Self::until_away) says so, which
    /// takes until nobody in the guest uses it. It does not come back: Debian's qemu dies when an ivshmem is added to a running machine.
    pub(crate) fn take_away(&self) -> Result<Monitor> {
        let mut monitor = self.first.guest.monitor()?;
        monitor.execute("device_del", &json!({ "id": DEVICE }))?;
        Ok(monitor)
    }

    /// Waits until the first guest's window is away.
    pub(crate) fn until_away(&self, mut monitor: Monitor) -> Result<()> {
        monitor.until_event("DEVICE_DELETED", DEVICE, LIMIT)?;
        ensure!(!self.first.has(WINDOW)?, "{WINDOW} is still there");
        Ok(())
    }
}

impl Station {
    /// Runs a command of the guest's that must end well.
    pub(crate) fn run(&self, command: &str) -> Result<String> {
        Ok(self.guest.run(command, LIMIT)?.ok()?.trim().to_owned())
    }

    /// Whether the guest sees a device at `bdf`.
    pub(crate) fn has(&self, bdf: &str) -> Result<bool> {
        Ok(self.guest.run(&format!("ls /sys/bus/pci/devices/{bdf}/driver_override"), LIMIT)?.status == 0)
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
}

/// What qemu is told of a guest's devices.
fn devices(socket: &Path) -> Vec<String> {
    let to = socket.display();
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
    ]
    .into()
}
