//! The calls of the kernel's VFIO interface, a function each.

use super::abi::{self, DeviceInfo, GroupStatus, IrqInfo, IrqSet, RegionInfo, request};
use nix::errno::Errno;
use nix::libc;
use std::ffi::CStr;
use std::io::{self, ErrorKind};
use std::mem::offset_of;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

/// The most bytes that the description of a region may have, capabilities included.
const MOST_DESCRIPTION: usize = 1 << 16;

/// `VFIO_GET_API_VERSION` of a container.
pub(super) fn api_version(container: BorrowedFd<'_>) -> io::Result<i32> {
    // SAFETY: the call takes no argument.
    let version = unsafe { libc::ioctl(container.as_raw_fd(), request::GET_API_VERSION) };
    Ok(Errno::result(version)?)
}

/// `VFIO_CHECK_EXTENSION` of a container: whether it can have such an IOMMU.
pub(super) fn has_extension(container: BorrowedFd<'_>, extension: i32) -> io::Result<bool> {
    // SAFETY: the argument is a number.
    let answer = unsafe { libc::ioctl(container.as_raw_fd(), request::CHECK_EXTENSION, extension) };
    Ok(Errno::result(answer)? > 0)
}

/// `VFIO_SET_IOMMU` of a container that has a group.
pub(super) fn set_iommu(container: BorrowedFd<'_>, kind: i32) -> io::Result<()> {
    // SAFETY: the argument is a number.
    let answer = unsafe { libc::ioctl(container.as_raw_fd(), request::SET_IOMMU, kind) };
    Ok(Errno::result(answer).map(drop)?)
}

/// `VFIO_GROUP_GET_STATUS`: its flags.
pub(super) fn group_flags(group: BorrowedFd<'_>) -> io::Result<u32> {
    let mut status = GroupStatus { argsz: size_of::<GroupStatus>() as u32, flags: 0 };
    // SAFETY: the kernel reads and writes the structure alone, whose size is said in it.
    let answer = unsafe { libc::ioctl(group.as_raw_fd(), request::GROUP_GET_STATUS, &raw mut status) };
    Errno::result(answer)?;
    Ok(status.flags)
}

/// `VFIO_GROUP_SET_CONTAINER`.
pub(super) fn set_container(group: BorrowedFd<'_>, container: BorrowedFd<'_>) -> io::Result<()> {
    let number = container.as_raw_fd();
    // SAFETY: the kernel reads a descriptor's number.
    let answer = unsafe { libc::ioctl(group.as_raw_fd(), request::GROUP_SET_CONTAINER, &raw const number) };
    Ok(Errno::result(answer).map(drop)?)
}

/// `VFIO_GROUP_GET_DEVICE_FD`: the device of this name, which is its address. Nobody inherits the descriptor: the kernel opens it so.
pub(super) fn device(group: BorrowedFd<'_>, name: &CStr) -> io::Result<OwnedFd> {
    // SAFETY: the kernel reads a string up to its zero.
    let fd = unsafe { libc::ioctl(group.as_raw_fd(), request::GROUP_GET_DEVICE_FD, name.as_ptr()) };
    let fd = Errno::result(fd)?;
    // SAFETY: the kernel has just opened it for us.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// `VFIO_DEVICE_GET_INFO`.
pub(super) fn device_info(device: BorrowedFd<'_>) -> io::Result<DeviceInfo> {
    let mut info = DeviceInfo { argsz: size_of::<DeviceInfo>() as u32, ..DeviceInfo::default() };
    // SAFETY: the kernel reads and writes the structure alone, whose size is said in it.
    let answer = unsafe { libc::ioctl(device.as_raw_fd(), request::DEVICE_GET_INFO, &raw mut info) };
    Errno::result(answer)?;
    Ok(info)
}

/// `VFIO_DEVICE_GET_REGION_INFO`: the description of a region with its capabilities, as bytes that begin with a [`RegionInfo`].
pub(super) fn region_info(device: BorrowedFd<'_>, index: u32) -> io::Result<Vec<u8>> {
    let mut bytes = size_of::<RegionInfo>();
    // The kernel says how much room it wants, and gets it in the second turn.
    for _ in 0..3 {
        // Of words, for the alignment of the structure.
        let mut room = vec![0_u64; bytes.div_ceil(8)];
        let info = RegionInfo { argsz: bytes as u32, index, ..RegionInfo::default() };
        let place = room.as_mut_ptr().cast::<RegionInfo>();
        // SAFETY: the room is aligned for words of 8 bytes and not smaller than the structure.
        unsafe { place.write(info) };
        // SAFETY: the kernel reads and writes as many bytes as the structure says, which are there.
        let answer = unsafe { libc::ioctl(device.as_raw_fd(), request::DEVICE_GET_REGION_INFO, place) };
        Errno::result(answer)?;
        let said: Vec<u8> = room.iter().flat_map(|word| word.to_ne_bytes()).take(bytes).collect();
        // SAFETY: as when it was written; any bytes are such a structure.
        let wanted = unsafe { place.read() }.argsz as usize;
        if wanted <= bytes {
            return Ok(said);
        }
        if wanted > MOST_DESCRIPTION {
            break;
        }
        bytes = wanted;
    }
    Err(io::Error::new(ErrorKind::InvalidData, "the kernel's description of a region has no end"))
}

/// `VFIO_DEVICE_GET_IRQ_INFO`: how many interrupts of a kind can be told by event counters.
pub(super) fn irq_count(device: BorrowedFd<'_>, index: u32) -> io::Result<u32> {
    let mut info = IrqInfo { argsz: size_of::<IrqInfo>() as u32, index, ..IrqInfo::default() };
    // SAFETY: the kernel reads and writes the structure alone, whose size is said in it.
    let answer = unsafe { libc::ioctl(device.as_raw_fd(), request::DEVICE_GET_IRQ_INFO, &raw mut info) };
    Errno::result(answer)?;
    Ok(if info.flags & abi::IRQ_INFO_EVENTFD != 0 { info.count } else { 0 })
}

/// `VFIO_DEVICE_SET_IRQS`: has the first interrupt of a kind tell an event counter, until the device is closed.
pub(super) fn set_irq(device: BorrowedFd<'_>, index: u32, counter: BorrowedFd<'_>) -> io::Result<()> {
    let set = IrqSet {
        argsz: size_of::<IrqSet>() as u32,
        flags: abi::IRQ_SET_DATA_EVENTFD | abi::IRQ_SET_ACTION_TRIGGER,
        index,
        start: 0,
        count: 1,
        descriptor: counter.as_raw_fd(),
    };
    // SAFETY: the kernel reads as many bytes as the structure says, which are no more than it has.
    let answer = unsafe { libc::ioctl(device.as_raw_fd(), request::DEVICE_SET_IRQS, &raw const set) };
    Ok(Errno::result(answer).map(drop)?)
}

/// What a region's description says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Region {
    /// In bytes; 0 where there is no such region.
    pub(super) size: u64,
    /// Where it begins in the device's file.
    pub(super) offset: u64,
    /// What of it can be mapped: first byte and length.
    pub(super) mappable: Vec<(u64, u64)>,
}

impl Region {
    /// Reads a description. It is the kernel's, but what it says of lengths is looked at as if it were anybody's.
    pub(super) fn parse(bytes: &[u8]) -> Option<Self> {
        let flags = u32_at(bytes, offset_of!(RegionInfo, flags))?;
        let size = u64_at(bytes, offset_of!(RegionInfo, size))?;
        let offset = u64_at(bytes, offset_of!(RegionInfo, offset))?;
        let mut mappable = Vec::new();
        if flags & abi::REGION_INFO_FLAG_MMAP != 0 {
            let has_chain = flags & abi::REGION_INFO_FLAG_CAPS != 0;
            match has_chain.then(|| sparse(bytes)).flatten() {
                Some(areas) => mappable = areas,
                None => mappable.push((0, size)),
            }
        }
        mappable.retain(|&(at, len)| len > 0 && at.checked_add(len).is_some_and(|end| end <= size));
        Some(Self { size, offset, mappable })
    }

    /// Whether all of a range can be mapped in one piece.
    pub(super) fn can_map(&self, at: u64, len: u64) -> bool {
        let Some(end) = at.checked_add(len) else { return false };
        self.mappable.iter().any(|&(from, len)| from <= at && end <= from + len)
    }
}

/// The areas of the capability that lists them, if the chain has one.
fn sparse(bytes: &[u8]) -> Option<Vec<(u64, u64)>> {
    let mut at = u32_at(bytes, offset_of!(RegionInfo, cap_offset))? as usize;
    // A header has eight bytes; a chain of more leads into itself.
    for _ in 0..bytes.len() / 8 {
        if at == 0 {
            return None;
        }
        let id = bytes.get(at..)?.first_chunk().copied().map(u16::from_ne_bytes)?;
        if id == abi::REGION_INFO_CAP_SPARSE_MMAP {
            let count = u32_at(bytes, at.checked_add(8)?)? as usize;
            let areas = bytes.get(at.checked_add(16)?..)?.chunks_exact(16).take(count);
            return areas.map(|area| Some((u64_at(area, 0)?, u64_at(area, 8)?))).collect();
        }
        at = u32_at(bytes, at.checked_add(4)?)? as usize;
    }
    None
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..)?.first_chunk().copied().map(u32::from_ne_bytes)
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    bytes.get(at..)?.first_chunk().copied().map(u64::from_ne_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::eventfd::EventFd;
    use std::os::fd::AsFd;
    use tbrdma_proto::fault::Random;

    /// A region of 64 KiB at 2 << 40, with these flags and capabilities (id, then what follows the header).
    fn description(flags: u32, capabilities: &[(u16, Vec<u64>)]) -> Vec<u8> {
        let first = if capabilities.is_empty() { 0 } else { 32 };
        let mut bytes: Vec<u8> =
            [0, flags, 2, first].iter().flat_map(|word: &u32| word.to_ne_bytes()).collect();
        bytes.extend([0x1_0000_u64, 2 << 40].iter().flat_map(|word| word.to_ne_bytes()));
        for (index, (id, words)) in capabilities.iter().enumerate() {
            let end = bytes.len() + 8 + words.len() * 8;
            let next = if index + 1 < capabilities.len() { end as u32 } else { 0 };
            bytes.extend(id.to_ne_bytes());
            bytes.extend(1_u16.to_ne_bytes());
            bytes.extend(next.to_ne_bytes());
            bytes.extend(words.iter().flat_map(|word| word.to_ne_bytes()));
        }
        bytes
    }

    #[test]
    fn what_of_a_region_can_be_mapped_is_all_none_or_listed() {
        let areas = |bytes: &[u8]| Region::parse(bytes).unwrap().mappable;
        assert_eq!(areas(&description(3, &[])), []);
        assert_eq!(areas(&description(7, &[])), [(0, 0x1_0000)]);
        let sparse = (1, vec![2, 0, 0x2000, 0x4000, 0xc000]);
        let bytes = description(15, &[(3, vec![]), sparse]);
        assert_eq!(areas(&bytes), [(0, 0x2000), (0x4000, 0xc000)]);
        let region = Region::parse(&bytes).unwrap();
        assert_eq!((region.size, region.offset), (0x1_0000, 2 << 40));
        assert!(region.can_map(0, 0x2000) && region.can_map(0x5000, 0x1000));
        assert!(
            !region.can_map(0, 0x2001) && !region.can_map(0x1000, 0x4000) && !region.can_map(u64::MAX, 2)
        );
        // The kernel speaks of a chain, and of none that we know.
        assert_eq!(areas(&description(15, &[(9, vec![1])])), [(0, 0x1_0000)]);
        // Areas beyond the region are left out.
        let beyond = (1, vec![2, 0, 0x1_0001, u64::MAX, 2]);
        assert_eq!(areas(&description(15, &[beyond])), []);
    }

    #[test]
    fn no_description_is_too_odd_to_be_looked_at() {
        let whole = description(15, &[(3, vec![]), (1, vec![2, 0, 0x2000, 0x4000, 0xc000])]);
        let mut random = Random::new(0xba5);
        for _ in 0..20_000 {
            let mut bytes = whole.clone();
            for _ in 0..random.next_u64() % 5 {
                let at = random.next_u64() as usize % bytes.len();
                bytes[at] = random.next_u64() as u8;
            }
            bytes.truncate(random.next_u64() as usize % (bytes.len() + 1));
            if let Some(region) = Region::parse(&bytes) {
                assert!(region.mappable.iter().all(|&(at, len)| at + len <= region.size));
            }
        }
    }

    #[test]
    fn what_is_not_vfio_is_an_error_in_each_call() {
        let other = EventFd::new().unwrap();
        let fd = other.as_fd();
        assert!(api_version(fd).is_err() && has_extension(fd, 3).is_err() && set_iommu(fd, 3).is_err());
        assert!(group_flags(fd).is_err() && set_container(fd, fd).is_err());
        assert!(device(fd, c"0000:00:04.0").is_err() && device_info(fd).is_err());
        assert!(region_info(fd, 2).is_err() && irq_count(fd, 2).is_err());
        assert!(set_irq(fd, 2, fd).is_err());
    }
}
