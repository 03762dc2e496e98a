//! The PCI functions of this host, as sysfs shows them: which are windows, how large they are, and who has them.
//!
//! sysfs is read below a folder that the caller names, so that all of it can be tried on recorded trees. What stands there is the kernel's word, but
//! some of it the device's own, and it may vanish between two reads: nothing is believed to be there, or to be a number.

mod config;
mod known;
#[cfg(test)]
pub(crate) mod recorded;
#[cfg(test)]
mod tests;

pub(crate) use config::{
    COMMAND, COMMAND_MASTER, COMMAND_MEMORY, ConfigError, ConfigSpace, HEADER_BYTES, MsiX,
};
pub(crate) use known::{Known, Layout, known, supported};

use super::refusal::Refusal;
use std::ffi::OsStr;
use std::fmt;
use std::fs::File;
use std::io::{self, ErrorKind, Read};
use std::path::{Path, PathBuf};
use std::str::FromStr;

/// How many base address registers a function has.
pub(crate) const BARS: usize = 6;

/// Where a function is: the words of `lspci -D`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Address {
    /// More than 16 bits where a VMD makes its own.
    domain: u32,
    bus: u8,
    /// 0 to 31.
    slot: u8,
    /// 0 to 7.
    function: u8,
}

impl FromStr for Address {
    type Err = Refusal;

    /// `0000:00:04.0`, or without the domain, which is then 0.
    fn from_str(text: &str) -> Result<Self, Refusal> {
        let parse = || {
            let (rest, function) = text.rsplit_once('.')?;
            let (rest, slot) = rest.rsplit_once(':')?;
            let (domain, bus) = rest.rsplit_once(':').unwrap_or(("0000", rest));
            let hex = |text: &str, digits: std::ops::RangeInclusive<usize>, most: u32| {
                let is_hex =
                    digits.contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_hexdigit());
                let number = is_hex.then(|| u32::from_str_radix(text, 16).ok()).flatten();
                number.filter(|number| *number <= most)
            };
            Some(Self {
                domain: hex(domain, 4..=8, u32::MAX)?,
                bus: u8::try_from(hex(bus, 2..=2, 0xff)?).ok()?,
                slot: u8::try_from(hex(slot, 2..=2, 0x1f)?).ok()?,
                function: u8::try_from(hex(function, 1..=1, 7)?).ok()?,
            })
        };
        parse().ok_or_else(|| Refusal::Name(format!("{text:?} is no address of a PCI function")))
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:04x}:{:02x}:{:02x}.{}", self.domain, self.bus, self.slot, self.function)
    }
}

/// The memory, or the I/O ports, behind one base address register.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Bar {
    /// In bytes; not 0.
    pub(crate) size: u64,
    /// Not I/O ports.
    pub(crate) is_memory: bool,
    /// Reads have no side effects, so that writes may be combined.
    pub(crate) is_prefetchable: bool,
}

impl Bar {
    /// A line of `resource`: first and last address and the kernel's flags (include/linux/ioport.h).
    fn parse(line: &str) -> Option<Self> {
        const IO: u64 = 0x100;
        const MEMORY: u64 = 0x200;
        const PREFETCH: u64 = 0x2000;
        let mut numbers = line.split_whitespace().map(hex);
        let (start, end, flags) = (numbers.next()??, numbers.next()??, numbers.next()??);
        if flags & (IO | MEMORY) == 0 || (start, end) == (0, 0) {
            return None;
        }
        let size = end.checked_sub(start)?.checked_add(1)?;
        Some(Self { size, is_memory: flags & MEMORY != 0, is_prefetchable: flags & PREFETCH != 0 })
    }
}

/// A number as sysfs writes ids and addresses: `0x` and hexadecimal digits.
fn hex(text: &str) -> Option<u64> {
    u64::from_str_radix(text.trim().strip_prefix("0x")?, 16).ok()
}

/// A function, as it was when it was looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Function {
    pub(crate) address: Address,
    pub(crate) vendor: u16,
    pub(crate) device: u16,
    pub(crate) bars: [Option<Bar>; BARS],
    /// The IOMMU group.
    pub(crate) group: Option<u32>,
    /// The kernel's driver that has it.
    pub(crate) driver: Option<String>,
    /// Its folder in sysfs.
    pub(crate) folder: PathBuf,
}

impl Function {
    /// What it is known as, if it is a window.
    pub(crate) fn known(&self) -> Option<Known> {
        known(self.vendor, self.device)
    }

    /// Its configuration space, as far as we may read it.
    pub(crate) fn config(&self) -> Result<ConfigSpace, Refusal> {
        let bytes =
            read(&self.folder.join("config"), 256).map_err(|error| Refusal::Os("read its config", error))?;
        Ok(ConfigSpace::parse(&bytes)?)
    }

    /// A file of its folder.
    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }
}

/// The folder where sysfs is: `/sys`, and in tests another.
#[derive(Clone, Debug)]
pub(crate) struct Sysfs(PathBuf);

impl Sysfs {
    /// The system's own.
    pub(crate) fn system() -> Self {
        Self::at("/sys")
    }

    /// A tree like it elsewhere.
    pub(crate) fn at(root: impl Into<PathBuf>) -> Self {
        Self(root.into())
    }

    fn devices(&self) -> PathBuf {
        self.0.join("bus/pci/devices")
    }

    /// The function with this address.
    ///
    /// # Errors
    /// There is none, or no PCI at all.
    pub(crate) fn function(&self, address: Address) -> Result<Function, Refusal> {
        let found = self.look_at(address);
        match found {
            Some(function) => Ok(function),
            None => {
                let known: Vec<_> =
                    self.windows()?.iter().map(|function| format!("bar:{}", function.address)).collect();
                let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
                Err(Refusal::NoFunction { address, known })
            }
        }
    }

    /// The functions that are known as windows and can be used, by their addresses.
    ///
    /// # Errors
    /// There is no PCI here.
    pub(crate) fn windows(&self) -> Result<Vec<Function>, Refusal> {
        let folder = self.devices();
        let entries = folder.read_dir().map_err(|error| Refusal::NoPci(folder.clone(), error))?;
        let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
        let functions = names.filter_map(|name| self.look_at(name.parse().ok()?));
        let is_window =
            |function: &Function| function.known().is_some_and(|known| known.layout != Layout::Bridge);
        let mut windows: Vec<_> = functions.filter(is_window).collect();
        windows.sort_by_key(|function| function.address);
        Ok(windows)
    }

    /// Who else is in an IOMMU group and has a driver other than VFIO's, in words.
    pub(crate) fn others_in_group(&self, group: u32, but: Address) -> String {
        let folder = self.0.join(format!("kernel/iommu_groups/{group}/devices"));
        let entries = folder.read_dir().into_iter().flatten().flatten();
        let addresses = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<Address>().ok());
        let others = addresses.filter(|address| *address != but).filter_map(|address| {
            let driver = self.look_at(address)?.driver?;
            (driver != "vfio-pci").then(|| format!("{address} has {driver}"))
        });
        let mut words: Vec<_> = others.collect();
        words.sort();
        if words.is_empty() { "which, sysfs does not say".to_owned() } else { words.join(", ") }
    }

    fn look_at(&self, address: Address) -> Option<Function> {
        let folder = self.devices().join(address.to_string());
        let id = |name: &str| u16::try_from(hex(&text(&folder.join(name)).ok()?)?).ok();
        let (vendor, device) = (id("vendor")?, id("device")?);
        let resource = text(&folder.join("resource")).unwrap_or_default();
        let mut bars = [None; BARS];
        for (bar, line) in bars.iter_mut().zip(resource.lines()) {
            *bar = Bar::parse(line);
        }
        let link = |name: &str| {
            let target = folder.join(name).read_link().ok()?;
            target.file_name().and_then(OsStr::to_str).map(str::to_owned)
        };
        let group = link("iommu_group").and_then(|name| name.parse().ok());
        Some(Function { address, vendor, device, bars, group, driver: link("driver"), folder })
    }
}

/// The text of a short file.
fn text(path: &Path) -> io::Result<String> {
    String::from_utf8(read(path, 4096)?).map_err(|_| ErrorKind::InvalidData.into())
}

/// At most so many bytes of a file.
fn read(path: &Path, most: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(most).read_to_end(&mut bytes)?;
    Ok(bytes)
}
