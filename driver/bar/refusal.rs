//! Why a window cannot be opened, or is gone, and what to do about it.

use super::guarded::Guarded;
use super::pci::{Address, ConfigError};
use crate::error::Error;
use crate::sync::{AtomicU32, Ordering};
use nix::libc;
use std::io;
use std::path::PathBuf;

/// How a function is handed to vfio-pci; the address twice.
fn bind(address: &Address) -> String {
    format!(
        "as root: modprobe vfio-pci; echo vfio-pci > /sys/bus/pci/devices/{address}/driver_override; echo {address} > \
         /sys/bus/pci/drivers_probe"
    )
}

/// The same for one that another driver has.
fn rebind(address: &Address) -> String {
    format!("as root: echo {address} > /sys/bus/pci/devices/{address}/driver/unbind; then, {}", bind(address))
}

/// Why a window cannot be opened.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Refusal {
    /// What was asked for is no name of a window.
    #[error(
        "{0}; write bar:0000:00:04.0 for the PCI function of this address (`lspci -D` shows them), perhaps with ,vfio or ,sysfs or ,uc behind it"
    )]
    Name(String),
    /// The system has no PCI, or does not show it.
    #[error(
        "this system shows no PCI devices ({0} cannot be read: {1}); a window without one is bar:file:PATH or bar:ivshmem:SOCKET"
    )]
    NoPci(PathBuf, io::Error),
    /// No function has this address.
    #[error("there is no PCI function {address}; windows of this host: {known}")]
    NoFunction {
        /// The address.
        address: Address,
        /// Those there are, or a word that there is none.
        known: String,
    },
    /// A function, but none that we know how to use.
    #[error("{vendor:04x}:{device:04x} is no device that is known as a memory window; known are {known}")]
    NotAWindow {
        /// Its ids.
        vendor: u16,
        device: u16,
        /// What is known, in words.
        known: String,
    },
    /// A non-transparent bridge.
    #[error(
        "{name} is a non-transparent bridge: its windows lead nowhere before its translations are set up, each kind in its own way, and that is \
         not supported yet. Let the kernel's ntb_netdev make a network interface of it, and use udp:INTERFACE"
    )]
    Bridge {
        /// What it is called.
        name: &'static str,
    },
    /// Its configuration space is not what it should be.
    #[error("{0}")]
    Config(#[from] ConfigError),
    /// A driver of the kernel has it.
    #[error("the kernel's driver {driver} has it; give it to vfio-pci ({})", rebind(address))]
    OtherDriver {
        /// Whose.
        address: Address,
        /// The driver.
        driver: String,
    },
    /// Sysfs was asked for, and vfio-pci has it.
    #[error(
        "vfio-pci has it, and keeps it asleep until it is opened through VFIO: leave out ,sysfs, or unbind it first"
    )]
    Asleep,
    /// VFIO was asked for.
    #[error(
        "no driver has it; give it to vfio-pci ({}), or say {address},sysfs to use it without interrupts",
        bind(address)
    )]
    NotBound {
        /// The function.
        address: Address,
    },
    /// No IOMMU stands before it.
    #[error(
        "it has no IOMMU group, so vfio-pci does not hand it out: boot the kernel with intel_iommu=on (a virtual machine needs -device intel-iommu as \
         well), or unbind it and say {address},sysfs as root, which uses it without interrupts"
    )]
    NoGroup {
        /// The function.
        address: Address,
    },
    /// There is no VFIO.
    #[error("{path} is missing: as root, modprobe vfio-pci{}", if *.is_iommufd { "; this kernel may have VFIO by iommufd alone (CONFIG_VFIO_GROUP is not set), which is not supported yet" } else { "" })]
    NoVfio {
        /// What is missing.
        path: PathBuf,
        /// /dev/iommu is there.
        is_iommufd: bool,
    },
    /// We may not.
    #[error("no permission to open {path} for reading and writing: {advice}")]
    Permission {
        /// What was to be opened.
        path: PathBuf,
        /// What gives the right.
        advice: String,
    },
    /// Somebody else has the group.
    #[error(
        "IOMMU group {group} is in use by another process, or by another open device of this one: a group has one user at a time (`fuser -v \
         /dev/vfio/{group}` shows who)"
    )]
    GroupInUse {
        /// The group.
        group: u32,
    },
    /// Not all of the group is with VFIO.
    #[error(
        "IOMMU group {group} is not viable: other functions of it have drivers of the kernel ({others}); give these to vfio-pci too, or put the device in a slot of its own"
    )]
    NotViable {
        /// The group.
        group: u32,
        /// Who else is in it, with their drivers.
        others: String,
    },
    /// Not the VFIO we speak.
    #[error("this kernel's VFIO has {0}")]
    OtherVfio(&'static str),
    /// The memory is too small.
    #[error("its {what} has {bytes} bytes, and a window needs {least} at least{advice}")]
    Small {
        /// Which memory.
        what: &'static str,
        /// What it has.
        bytes: u64,
        /// What it needs.
        least: u64,
        /// How to make it larger; begins with a semicolon, or is empty.
        advice: &'static str,
    },
    /// The system does not let us map it.
    #[error("the system does not let its {0} be mapped; without that it cannot be used")]
    NotMappable(&'static str),
    /// There is no server of a shared window.
    #[error("no ivshmem server answers at {path}: {source}; start one there, and the virtual machine with -chardev socket,path={path} too", path = path.display())]
    NoServer {
        /// Its socket.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// The server does not keep to the protocol.
    #[error("what answers at {path} is no ivshmem server of version 0: {reason}", path = path.display())]
    Protocol {
        /// Its socket.
        path: PathBuf,
        /// What it said.
        reason: &'static str,
    },
    /// It is gone already.
    #[error("{0}")]
    Gone(#[from] Gone),
    /// The system refused something else.
    #[error("{0}: {1}")]
    Os(&'static str, io::Error),
}

/// Why an open window is gone. It does not come back; one that is opened anew may.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[repr(u32)]
pub(crate) enum Gone {
    /// SIGBUS: the file was cut short, or the device's memory is not there.
    #[error(
        "its memory was taken away while it was in use: the device was removed or reset, or the file cut short"
    )]
    Pages = 1,
    /// The system wants it back.
    #[error("the system asked for the device back, to remove it or to give it to another driver")]
    Asked = 2,
    /// The bus reported an error.
    #[error(
        "the device reported an error that it does not recover from without a reset (AER); see the kernel's log"
    )]
    Failed = 3,
    /// Nobody answers reads, or the system knows of no such device any more.
    #[error(
        "the device does not answer: it was unplugged, its slot lost power, or the system has removed it"
    )]
    Ones = 4,
    /// The server went away, or talks nonsense.
    #[error("the ivshmem server ended the connection, or broke the protocol")]
    Server = 5,
}

/// What has become of a window: nothing yet, or its end, of which the first reason stays.
#[derive(Debug, Default)]
pub(super) struct Fate(AtomicU32);

impl Fate {
    /// Says that it is gone, and hears the first reason.
    pub(super) fn seal(&self, why: Gone) -> Gone {
        let first = self.0.compare_exchange(0, why as u32, Ordering::AcqRel, Ordering::Acquire);
        first.map_or_else(Self::read, |_| None).unwrap_or(why)
    }

    /// Why the window that shows this memory is gone.
    #[inline]
    pub(super) fn of(&self, memory: &Guarded) -> Option<Gone> {
        Self::read(self.0.load(Ordering::Acquire)).or_else(|| memory.is_lost().then_some(Gone::Pages))
    }

    fn read(number: u32) -> Option<Gone> {
        let all = [Gone::Pages, Gone::Asked, Gone::Failed, Gone::Ones, Gone::Server];
        all.into_iter().find(|gone| *gone as u32 == number)
    }
}

impl Refusal {
    /// As the error of a call about a device.
    pub(crate) fn about(self, call: &'static str, device: &str) -> Error {
        let errno = match &self {
            Self::Name(_) => libc::EINVAL,
            Self::Permission { .. } => libc::EACCES,
            Self::GroupInUse { .. } | Self::Asleep | Self::OtherDriver { .. } | Self::NotViable { .. } => {
                libc::EBUSY
            }
            Self::Bridge { .. } | Self::OtherVfio(_) | Self::NotMappable(_) => libc::EOPNOTSUPP,
            Self::Small { .. } => libc::ENOSPC,
            Self::Protocol { .. } => libc::EPROTO,
            Self::NoServer { source, .. } | Self::Os(_, source) => source.raw_os_error().unwrap_or(libc::EIO),
            _ => libc::ENODEV,
        };
        Error::Window { call, device: device.into(), errno, reason: self.to_string() }
    }
}
