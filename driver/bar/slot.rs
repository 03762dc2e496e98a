//! A window that is open, whatever it was opened through: its memory, its doorbell, its interrupts, and how its end is noticed.
//!
//! | `bar:` and | what | interrupts |
//! |---|---|---|
//! | `0000:00:04.0` | a PCI function: through VFIO if vfio-pci has it, else through sysfs | VFIO only |
//! | `0000:00:04.0,vfio`, `...,sysfs` | the one or the other, and a refusal where that cannot be | |
//! | `0000:00:04.0,uc` | sysfs without write combining | none |
//! | `ivshmem:/path/to/socket` | the memory of an ivshmem server, as a process of the host | yes |

use super::ivshmem::{Client, IvshmemFunction};
use super::pci::{Address, Function, Layout, Sysfs, supported};
use super::refusal::{Gone, Refusal};
use crate::error::Result;
use crate::mem::Place;
use std::fmt;
use std::os::fd::BorrowedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// An open window. Several threads use it; whatever becomes of the device, none of these calls fails, waits or ends the process: [`gone`](Slot::gone)
/// says whether what they did had a meaning.
pub(crate) trait Slot: fmt::Debug + Send + Sync + 'static {
    /// How it was opened, in a line, for people.
    fn describe(&self) -> String;

    /// The memory that it shares with its peers.
    fn memory(&self) -> Place<'_>;

    /// Whether the processor gathers what is stored there and writes it later, in any order, unless it is fenced.
    fn is_write_combining(&self) -> bool;

    /// By which number peers ring us; `None` where there are no doorbells. Nothing but a peer's own word says what its number is.
    fn own_id(&self) -> Option<u16>;

    /// Rings a peer's vector 0. One that is not there hears nothing.
    fn ring(&self, peer: u16);

    /// Readable when somebody has rung us, until it is [drained](Slot::drain); `None` where one must look at the memory again and again.
    fn interrupt(&self) -> Option<BorrowedFd<'_>>;

    /// Takes the rings so far.
    fn drain(&self);

    /// Readable when something has become of the window, until it is [attended to](Slot::attend).
    fn news(&self) -> Option<BorrowedFd<'_>>;

    /// Takes the news. If they are that the window is wanted back, or is gone, then it is let go of: other memory stands in its place, and its
    /// descriptors are closed, so that nobody waits for us. A window must be attended to for the system to be able to remove it.
    fn attend(&self);

    /// Whether a peer was there and has left, as far as is known from others than itself.
    fn has_left(&self, peer: u16) -> bool;

    /// Why it is of no use any more. A load or two; what was read from the memory counts only if this is `None` afterwards.
    fn gone(&self) -> Option<Gone>;

    /// The same after asking the device, which takes microseconds: it may be gone without a word, and its memory then reads as all ones.
    fn probe(&self) -> Option<Gone>;
}

/// Opens the window that is called so (without `bar:`), with `least` bytes of memory at least.
///
/// # Errors
/// It cannot be: the error says why, and what to do.
pub(crate) fn open(name: &str, least: u64) -> Result<Arc<dyn Slot>> {
    let refused = |refusal: Refusal| refusal.about("open_device", &format!("bar:{name}"));
    match name.strip_prefix("ivshmem:") {
        Some(path) => Ok(Arc::new(Client::connect(Path::new(path), least).map_err(refused)?)),
        None => open_function(name, least, &Host::system()).map_err(refused),
    }
}

/// The PCI functions of this host that can be windows, and are not in the hands of a driver of the kernel's: their names, without `bar:`, and what they are. Opening one
/// may still need rights.
pub(crate) fn functions() -> Vec<(String, String)> {
    Host::system().functions()
}

/// Where the system's files are; in tests elsewhere.
#[derive(Clone, Debug)]
pub(super) struct Host {
    pub(super) sysfs: Sysfs,
    pub(super) dev: PathBuf,
}

impl Host {
    fn system() -> Self {
        Self { sysfs: Sysfs::system(), dev: "/dev".into() }
    }

    pub(super) fn functions(&self) -> Vec<(String, String)> {
        let plain = |address| Wish { address, through: None, is_uncached: false };
        // A host without PCI has none.
        let functions = self.sysfs.windows().unwrap_or_default().into_iter();
        let usable = functions.filter_map(|function| {
            let through = choose(plain(function.address), &function).ok()?;
            let what = match through {
                Through::Vfio => "through VFIO",
                Through::Sysfs => "through sysfs, for root",
            };
            Some((
                function.address.to_string(),
                format!("memory window of {} {what}", function.known()?.name),
            ))
        });
        usable.collect()
    }
}

/// What is said of a PCI function by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Wish {
    address: Address,
    through: Option<Through>,
    /// Sysfs: not the file that combines writes.
    pub(super) is_uncached: bool,
}

/// What a PCI function is reached through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Through {
    Vfio,
    Sysfs,
}

impl std::str::FromStr for Wish {
    type Err = Refusal;

    fn from_str(text: &str) -> std::result::Result<Self, Refusal> {
        let mut parts = text.split(',');
        let address = parts.next().unwrap_or_default().parse()?;
        let mut wish = Self { address, through: None, is_uncached: false };
        for part in parts {
            match (part, wish.through) {
                ("vfio", None) => wish.through = Some(Through::Vfio),
                ("sysfs", None) => wish.through = Some(Through::Sysfs),
                ("uc", _) if !wish.is_uncached => wish.is_uncached = true,
                _ => {
                    return Err(Refusal::Name(format!(
                        "{part:?} of {text:?} is not understood, or said twice"
                    )));
                }
            }
        }
        Ok(wish)
    }
}

/// Opens a PCI function.
pub(super) fn open_function(
    name: &str,
    least: u64,
    host: &Host,
) -> std::result::Result<Arc<dyn Slot>, Refusal> {
    let wish: Wish = name.parse()?;
    let function = host.sysfs.function(wish.address)?;
    match function.known() {
        None => {
            Err(Refusal::NotAWindow { vendor: function.vendor, device: function.device, known: supported() })
        }
        Some(known) if known.layout == Layout::Bridge => Err(Refusal::Bridge { name: known.name }),
        Some(_) => {
            let through = choose(wish, &function)?;
            Ok(Arc::new(IvshmemFunction::open(&function, through, wish, least, host)?))
        }
    }
}

/// What to reach a function through: what was asked for, or what can be.
fn choose(wish: Wish, function: &Function) -> std::result::Result<Through, Refusal> {
    let address = function.address;
    match (function.driver.as_deref(), wish.through) {
        (Some("vfio-pci"), Some(Through::Sysfs)) => Err(Refusal::Asleep),
        (Some("vfio-pci"), _) => Ok(Through::Vfio),
        // It drives nothing: it only passes interrupts on that these devices do not have.
        (Some("uio_pci_generic"), None | Some(Through::Sysfs)) => Ok(Through::Sysfs),
        (Some(driver), _) => Err(Refusal::OtherDriver { address, driver: driver.to_owned() }),
        (None, Some(Through::Vfio)) if function.group.is_none() => Err(Refusal::NoGroup { address }),
        (None, Some(Through::Vfio)) => Err(Refusal::NotBound { address }),
        (None, _) => Ok(Through::Sysfs),
    }
}
