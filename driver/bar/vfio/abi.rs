//! The structures and numbers of the kernel's VFIO interface (include/uapi/linux/vfio.h), as far as they are used here. The tests compare them with
//! the header, where that is installed.

use std::mem::offset_of;

/// What `VFIO_GET_API_VERSION` must say.
pub(super) const API_VERSION: i32 = 0;
/// The kind of IOMMU that we ask for: page tables of our own, second version.
pub(super) const TYPE1V2_IOMMU: i32 = 3;

/// Group status: every device of the group is with VFIO, or with nobody.
pub(super) const GROUP_FLAGS_VIABLE: u32 = 1 << 0;
/// Device info: it is a PCI device.
pub(super) const DEVICE_FLAGS_PCI: u32 = 1 << 1;
/// Region info: it can be mapped.
pub(super) const REGION_INFO_FLAG_MMAP: u32 = 1 << 2;
/// Region info: there is a chain of capabilities.
pub(super) const REGION_INFO_FLAG_CAPS: u32 = 1 << 3;
/// The capability that lists what of a region can be mapped.
pub(super) const REGION_INFO_CAP_SPARSE_MMAP: u16 = 1;
/// Interrupt info: it can be told by an event counter.
pub(super) const IRQ_INFO_EVENTFD: u32 = 1 << 0;
/// Set interrupts: the data are event counters.
pub(super) const IRQ_SET_DATA_EVENTFD: u32 = 1 << 2;
/// Set interrupts: when they are raised.
pub(super) const IRQ_SET_ACTION_TRIGGER: u32 = 1 << 5;

/// Regions of a PCI device: the BARs are 0 to 5.
pub(super) const PCI_CONFIG_REGION_INDEX: u32 = 7;
/// Interrupts of a PCI device.
pub(super) const PCI_MSIX_IRQ_INDEX: u32 = 2;
/// The bus reported an error that it does not recover from.
pub(super) const PCI_ERR_IRQ_INDEX: u32 = 3;
/// The system wants the device back.
pub(super) const PCI_REQ_IRQ_INDEX: u32 = 4;

/// The numbers of the calls, each `_IO(';', 100 + n)`.
pub(super) mod request {
    use nix::libc::{_IO, Ioctl};

    const fn number(n: u32) -> Ioctl {
        _IO(b';' as u32, 100 + n)
    }

    pub(in super::super) const GET_API_VERSION: Ioctl = number(0);
    pub(in super::super) const CHECK_EXTENSION: Ioctl = number(1);
    pub(in super::super) const SET_IOMMU: Ioctl = number(2);
    pub(in super::super) const GROUP_GET_STATUS: Ioctl = number(3);
    pub(in super::super) const GROUP_SET_CONTAINER: Ioctl = number(4);
    pub(in super::super) const GROUP_GET_DEVICE_FD: Ioctl = number(6);
    pub(in super::super) const DEVICE_GET_INFO: Ioctl = number(7);
    pub(in super::super) const DEVICE_GET_REGION_INFO: Ioctl = number(8);
    pub(in super::super) const DEVICE_GET_IRQ_INFO: Ioctl = number(9);
    pub(in super::super) const DEVICE_SET_IRQS: Ioctl = number(10);
}

/// `struct vfio_group_status`.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub(super) struct GroupStatus {
    pub(super) argsz: u32,
    pub(super) flags: u32,
}

/// `struct vfio_device_info`.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub(super) struct DeviceInfo {
    pub(super) argsz: u32,
    pub(super) flags: u32,
    pub(super) num_regions: u32,
    pub(super) num_irqs: u32,
    pub(super) cap_offset: u32,
}

/// `struct vfio_region_info`, which capabilities may follow.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub(super) struct RegionInfo {
    pub(super) argsz: u32,
    pub(super) flags: u32,
    pub(super) index: u32,
    pub(super) cap_offset: u32,
    pub(super) size: u64,
    pub(super) offset: u64,
}

/// `struct vfio_irq_info`.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub(super) struct IrqInfo {
    pub(super) argsz: u32,
    pub(super) flags: u32,
    pub(super) index: u32,
    pub(super) count: u32,
}

/// `struct vfio_irq_set`, with room for one event counter behind it, where its data begin.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub(super) struct IrqSet {
    pub(super) argsz: u32,
    pub(super) flags: u32,
    pub(super) index: u32,
    pub(super) start: u32,
    pub(super) count: u32,
    pub(super) descriptor: i32,
}

const _: () = {
    assert!(size_of::<GroupStatus>() == 8);
    assert!(size_of::<DeviceInfo>() == 20 && offset_of!(DeviceInfo, cap_offset) == 16);
    assert!(size_of::<RegionInfo>() == 32 && align_of::<RegionInfo>() <= 8);
    assert!(offset_of!(RegionInfo, index) == 8 && offset_of!(RegionInfo, size) == 16);
    assert!(offset_of!(RegionInfo, cap_offset) == 12 && offset_of!(RegionInfo, offset) == 24);
    assert!(size_of::<IrqInfo>() == 16 && offset_of!(IrqInfo, count) == 12);
    assert!(
        offset_of!(IrqSet, descriptor) == 20 && offset_of!(IrqSet, count) == 16 && size_of::<IrqSet>() == 24
    );
};

#[cfg(test)]
mod tests {
    use super::*;
    use crate::skip::skip;

    /// The value that the header gives a name, as text.
    fn defined<'a>(header: &'a str, name: &str) -> Option<&'a str> {
        header.lines().find_map(|line| {
            let rest = line.trim_start().strip_prefix("#define")?.trim_start().strip_prefix(name)?;
            rest.starts_with(char::is_whitespace).then(|| rest.split("/*").next().unwrap_or(rest).trim())
        })
    }

    /// The members of a structure of the header, with their types.
    fn members(header: &str, name: &str) -> Vec<(String, String)> {
        let begin = header.find(&format!("struct {name} {{")).unwrap_or_else(|| panic!("no {name}"));
        let body = &header[begin..];
        let lines = body[..body.find("};").unwrap()].lines().skip(1);
        let lines = lines.filter(|line| line.trim_start().starts_with("__"));
        let words = lines.map(|line| line.split(';').next().unwrap().split_whitespace().map(str::to_owned));
        words.map(|mut words| (words.next().unwrap(), words.next().unwrap())).collect()
    }

    fn same(header: &str, name: &str, ours: &[(&str, &str)]) {
        let ours: Vec<_> = ours.iter().map(|(kind, name)| ((*kind).to_owned(), (*name).to_owned())).collect();
        assert_eq!(members(header, name), ours, "{name}");
    }

    #[test]
    fn structures_and_numbers_are_those_of_the_header() {
        let Ok(header) = std::fs::read_to_string("/usr/include/linux/vfio.h") else {
            return skip("/usr/include/linux/vfio.h is not installed");
        };
        let flag = |name, value: u32| {
            let text = defined(&header, name).unwrap_or_else(|| panic!("no {name}"));
            let number = |text: &str| text.trim().parse::<u32>().unwrap();
            let shift = text.trim_matches(['(', ')']).strip_prefix("1 <<");
            let theirs = shift.map_or_else(|| number(text), |shift| 1 << number(shift));
            assert_eq!(value, theirs, "{name}");
        };
        flag("VFIO_API_VERSION", API_VERSION as u32);
        flag("VFIO_TYPE1v2_IOMMU", TYPE1V2_IOMMU as u32);
        flag("VFIO_GROUP_FLAGS_VIABLE", GROUP_FLAGS_VIABLE);
        flag("VFIO_DEVICE_FLAGS_PCI", DEVICE_FLAGS_PCI);
        flag("VFIO_REGION_INFO_FLAG_MMAP", REGION_INFO_FLAG_MMAP);
        flag("VFIO_REGION_INFO_FLAG_CAPS", REGION_INFO_FLAG_CAPS);
        flag("VFIO_REGION_INFO_CAP_SPARSE_MMAP", REGION_INFO_CAP_SPARSE_MMAP.into());
        flag("VFIO_IRQ_INFO_EVENTFD", IRQ_INFO_EVENTFD);
        flag("VFIO_IRQ_SET_DATA_EVENTFD", IRQ_SET_DATA_EVENTFD);
        flag("VFIO_IRQ_SET_ACTION_TRIGGER", IRQ_SET_ACTION_TRIGGER);
        assert_eq!(
            (defined(&header, "VFIO_TYPE"), defined(&header, "VFIO_BASE")),
            (Some("(';')"), Some("100"))
        );
        use request::*;
        for (name, ours) in [
            ("VFIO_GET_API_VERSION", GET_API_VERSION),
            ("VFIO_CHECK_EXTENSION", CHECK_EXTENSION),
            ("VFIO_SET_IOMMU", SET_IOMMU),
            ("VFIO_GROUP_GET_STATUS", GROUP_GET_STATUS),
            ("VFIO_GROUP_SET_CONTAINER", GROUP_SET_CONTAINER),
            ("VFIO_GROUP_GET_DEVICE_FD", GROUP_GET_DEVICE_FD),
            ("VFIO_DEVICE_GET_INFO", DEVICE_GET_INFO),
            ("VFIO_DEVICE_GET_REGION_INFO", DEVICE_GET_REGION_INFO),
            ("VFIO_DEVICE_GET_IRQ_INFO", DEVICE_GET_IRQ_INFO),
            ("VFIO_DEVICE_SET_IRQS", DEVICE_SET_IRQS),
        ] {
            let number = ours & 0xff;
            let text = format!("_IO(VFIO_TYPE, VFIO_BASE + {})", number - 100);
            assert_eq!(defined(&header, name), Some(text.as_str()), "{name}");
            assert_eq!((ours >> 8 & 0xff) as u8, b';', "{name}");
        }
        let (word, long) = ("__u32", "__u64");
        same(&header, "vfio_group_status", &[(word, "argsz"), (word, "flags")]);
        let info = [(word, "argsz"), (word, "flags"), (word, "num_regions"), (word, "num_irqs")];
        same(&header, "vfio_device_info", &[&info[..], &[(word, "cap_offset")]].concat());
        let region = [(word, "argsz"), (word, "flags"), (word, "index"), (word, "cap_offset")];
        same(&header, "vfio_region_info", &[&region[..], &[(long, "size"), (long, "offset")]].concat());
        same(&header, "vfio_irq_info", &[(word, "argsz"), (word, "flags"), (word, "index"), (word, "count")]);
        let set = [(word, "argsz"), (word, "flags"), (word, "index"), (word, "start"), (word, "count")];
        same(&header, "vfio_irq_set", &[&set[..], &[("__u8", "data[]")]].concat());
        let position = |name: &str| {
            let begin = header.find("VFIO_PCI_BAR0_REGION_INDEX,").unwrap();
            let begin = if name.ends_with("IRQ_INDEX") {
                header.find("VFIO_PCI_INTX_IRQ_INDEX,").unwrap()
            } else {
                begin
            };
            let lines = header[begin..].lines().map(str::trim).filter(|line| line.starts_with("VFIO_PCI_"));
            lines.take_while(|line| !line.contains("_NUM_")).position(|line| line == format!("{name},"))
        };
        assert_eq!(position("VFIO_PCI_CONFIG_REGION_INDEX"), Some(PCI_CONFIG_REGION_INDEX as usize));
        assert_eq!(position("VFIO_PCI_MSIX_IRQ_INDEX"), Some(PCI_MSIX_IRQ_INDEX as usize));
        assert_eq!(position("VFIO_PCI_ERR_IRQ_INDEX"), Some(PCI_ERR_IRQ_INDEX as usize));
        assert_eq!(position("VFIO_PCI_REQ_IRQ_INDEX"), Some(PCI_REQ_IRQ_INDEX as usize));
    }
}
