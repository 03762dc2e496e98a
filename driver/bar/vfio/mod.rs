//! A PCI device through VFIO, by its group API: what vfio-pci gives a process without rights that may open the device's IOMMU group.
//!
//! ```text
//! /dev/vfio/vfio   the container: page tables of an IOMMU. We put nothing into them, so that the device reaches no memory of ours.
//! /dev/vfio/12     the group: what the IOMMU cannot tell apart. All of it must be with vfio-pci; one process has it at a time.
//!   `- device      a file with the BARs and the configuration space in it, and calls for interrupts
//! ```

mod abi;
mod calls;

use super::guarded::Guarded;
use super::pci::{COMMAND, COMMAND_MASTER, COMMAND_MEMORY, Function, Sysfs};
use super::refusal::Refusal;
use crate::sys::eventfd::EventFd;
use calls::Region;
use nix::errno::Errno;
use nix::sys::uio::{pread, pwrite};
use std::ffi::CString;
use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

/// What tells of the end of a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ending {
    /// The system asks for it back.
    Asked,
    /// The bus reported an error.
    Failed,
}

/// An open device. While it is open, the system cannot take it away in an orderly manner, nor while something of it is mapped.
#[derive(Debug)]
pub(super) struct Device {
    // Closed in this order.
    device: OwnedFd,
    _group: File,
    _container: File,
    config: Region,
}

impl Device {
    /// Opens a function that vfio-pci has. `dev` is the system's `/dev`.
    ///
    /// # Errors
    /// One of VFIO's many conditions is not met: the refusal says which, and what to do.
    pub(super) fn open(function: &Function, sysfs: &Sysfs, dev: &Path) -> Result<Self, Refusal> {
        let address = function.address;
        let group = function.group.ok_or(Refusal::NoGroup { address })?;
        let folder = dev.join("vfio");
        let container = open_node(folder.join("vfio"), dev, group)?;
        if calls::api_version(container.as_fd()).map_err(os("ask for VFIO's version"))? != abi::API_VERSION {
            return Err(Refusal::OtherVfio("another interface than version 0, which is the only one known"));
        }
        let has_type1 = calls::has_extension(container.as_fd(), abi::TYPE1V2_IOMMU);
        if !has_type1.map_err(os("ask for VFIO's kinds of IOMMU"))? {
            return Err(Refusal::OtherVfio("no IOMMU of type 1: as root, modprobe vfio_iommu_type1"));
        }
        let file = open_node(folder.join(group.to_string()), dev, group)?;
        let flags = calls::group_flags(file.as_fd()).map_err(os("ask for the state of the IOMMU group"))?;
        if flags & abi::GROUP_FLAGS_VIABLE == 0 {
            return Err(Refusal::NotViable { group, others: sysfs.others_in_group(group, address) });
        }
        calls::set_container(file.as_fd(), container.as_fd())
            .map_err(os("join IOMMU group and container"))?;
        calls::set_iommu(container.as_fd(), abi::TYPE1V2_IOMMU).map_err(|error| match error.kind() {
            ErrorKind::PermissionDenied => Refusal::OtherVfio(
                "an IOMMU that does not remap interrupts, which the kernel holds to be unsafe: boot with it on (a virtual machine: -device \
                 intel-iommu,intremap=on), or as root echo 1 > /sys/module/vfio_iommu_type1/parameters/allow_unsafe_interrupts",
            ),
            _ => Refusal::Os("set up the IOMMU", error),
        })?;
        let name = CString::new(address.to_string())
            .map_err(|error| Refusal::Os("name the device", error.into()))?;
        let device = calls::device(file.as_fd(), &name).map_err(os("open the device"))?;
        let info = calls::device_info(device.as_fd()).map_err(os("ask what the device is"))?;
        if info.flags & abi::DEVICE_FLAGS_PCI == 0 {
            return Err(Refusal::OtherVfio("a device that is none of PCI"));
        }
        let config = region(&device, abi::PCI_CONFIG_REGION_INDEX)?;
        Ok(Self { device, _group: file, _container: container, config })
    }

    /// The memory of a BAR, the first `len` bytes at least.
    ///
    /// # Errors
    /// There is less, or the system does not let it be mapped.
    pub(super) fn map(&self, bar: u32, what: &'static str, len: u64) -> Result<Guarded, Refusal> {
        let region = region(&self.device, bar)?;
        if region.size < len {
            return Err(Refusal::Small { what, bytes: region.size, least: len, advice: "" });
        }
        if !region.can_map(0, len) {
            return Err(Refusal::NotMappable(what));
        }
        let len = usize::try_from(len).map_err(|_| Refusal::NotMappable(what))?;
        Guarded::map(&self.device, region.offset, len).map_err(os("map a BAR"))
    }

    /// Has the device answer accesses to its memory, and send messages where these are interrupts.
    pub(super) fn enable(&self, interrupts: bool) -> Result<(), Refusal> {
        let mut bytes = [0; 2];
        self.read_config(COMMAND, &mut bytes).map_err(os("read the command register"))?;
        let wish = COMMAND_MEMORY | if interrupts { COMMAND_MASTER } else { 0 };
        let command = u16::from_le_bytes(bytes) | wish;
        let place = self.config.offset.checked_add(COMMAND).and_then(|at| i64::try_from(at).ok());
        let place =
            place.ok_or_else(|| Refusal::Os("write the command register", Errno::EOVERFLOW.into()))?;
        match pwrite(&self.device, &command.to_le_bytes(), place) {
            Ok(_) => Ok(()),
            Err(error) => Err(Refusal::Os("write the command register", error.into())),
        }
    }

    /// The first bytes of the configuration space from `at` on, at most as many as there is room for; how many.
    pub(super) fn read_config(&self, at: u64, bytes: &mut [u8]) -> io::Result<usize> {
        let place = self.config.offset.checked_add(at).and_then(|at| i64::try_from(at).ok());
        let place = place.ok_or(ErrorKind::InvalidInput)?;
        Ok(pread(&self.device, bytes, place)?)
    }

    /// Has MSI-X vector 0 tell the counter. False where there is none.
    pub(super) fn set_interrupt(&self, counter: &EventFd) -> Result<bool, Refusal> {
        self.set(abi::PCI_MSIX_IRQ_INDEX, counter)
    }

    /// Has the end of the device tell the counter. False where the device or the kernel tells of no such thing.
    pub(super) fn set_ending(&self, ending: Ending, counter: &EventFd) -> Result<bool, Refusal> {
        let index = match ending {
            Ending::Asked => abi::PCI_REQ_IRQ_INDEX,
            Ending::Failed => abi::PCI_ERR_IRQ_INDEX,
        };
        self.set(index, counter)
    }

    fn set(&self, index: u32, counter: &EventFd) -> Result<bool, Refusal> {
        // A kind that the device has not is refused as an argument that is wrong.
        if calls::irq_count(self.device.as_fd(), index).unwrap_or(0) == 0 {
            return Ok(false);
        }
        calls::set_irq(self.device.as_fd(), index, counter.as_fd()).map_err(os("set an interrupt"))?;
        Ok(true)
    }
}

fn region(device: &OwnedFd, index: u32) -> Result<Region, Refusal> {
    let bytes = calls::region_info(device.as_fd(), index).map_err(os("ask for a region"))?;
    let told = io::Error::new(ErrorKind::InvalidData, "the description is too short");
    Region::parse(&bytes).ok_or(Refusal::Os("ask for a region", told))
}

/// Opens the container or a group.
fn open_node(path: PathBuf, dev: &Path, group: u32) -> Result<File, Refusal> {
    let opened = OpenOptions::new().read(true).write(true).open(&path);
    opened.map_err(|error| explain(error, path, dev, group))
}

/// Why a node of VFIO's could not be opened.
fn explain(error: io::Error, path: PathBuf, dev: &Path, group: u32) -> Refusal {
    match Errno::from_raw(error.raw_os_error().unwrap_or(0)) {
        Errno::ENOENT | Errno::ENXIO | Errno::ENODEV => Refusal::NoVfio {
            path,
            is_iommufd: dev.join("iommu").exists() && !dev.join("vfio/vfio").exists(),
        },
        Errno::EACCES | Errno::EPERM => Refusal::Permission {
            advice: format!(
                "as root, chown $USER /dev/vfio/{group} (a udev rule does it at each boot: SUBSYSTEM==\"vfio\", OWNER=\"you\"); a container needs --device /dev/vfio/vfio --device /dev/vfio/{group}"
            ),
            path,
        },
        Errno::EBUSY => Refusal::GroupInUse { group },
        _ => Refusal::Os("open a node of VFIO", error),
    }
}

fn os(what: &'static str) -> impl FnOnce(io::Error) -> Refusal {
    move |error| Refusal::Os(what, error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_refusal_of_a_node_says_what_to_do() {
        let why = |errno: Errno| {
            explain(errno.into(), "/dev/vfio/12".into(), Path::new("/nowhere"), 12).to_string()
        };
        assert!(why(Errno::ENOENT).contains("modprobe vfio-pci") && !why(Errno::ENOENT).contains("iommufd"));
        assert!(why(Errno::EACCES).contains("chown $USER /dev/vfio/12"), "{}", why(Errno::EACCES));
        assert!(why(Errno::EBUSY).contains("in use by another process"));
        assert!(why(Errno::EIO).contains("open a node of VFIO"));
    }
}
