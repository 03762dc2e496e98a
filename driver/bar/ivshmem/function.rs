//! The PCI function in a guest, through VFIO or sysfs.

use super::{bar, register};
use crate::bar::guarded::Guarded;
use crate::bar::pci::{COMMAND_MEMORY, ConfigSpace, Function, HEADER_BYTES, MsiX};
use crate::bar::refusal::{Fate, Gone, Refusal};
use crate::bar::slot::{Host, Slot, Through, Wish};
use crate::bar::vfio::{Device, Ending};
use crate::mem::Place;
use crate::sys::epoll::Epoll;
use crate::sys::eventfd::EventFd;
use nix::errno::Errno;
use nix::sys::uio::pread;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

/// The function, open.
#[derive(Debug)]
pub(in crate::bar) struct IvshmemFunction {
    text: String,
    // Unmapped before the device is closed.
    memory: Guarded,
    /// Only where there are doorbells.
    registers: Option<Guarded>,
    hold: Mutex<Option<Hold>>,
    own_id: Option<u16>,
    interrupt: Option<EventFd>,
    news: Option<News>,
    is_write_combining: bool,
    fate: Fate,
}

/// What keeps the device ours.
#[derive(Debug)]
enum Hold {
    Vfio(Device),
    Sysfs(Enabled),
}

/// Its configuration space, and that it answers, in sysfs.
#[derive(Debug)]
struct Enabled {
    config: File,
    /// Where its being enabled by us is to be undone.
    undo: Option<PathBuf>,
}

/// The interrupts that tell of the end.
#[derive(Debug)]
struct News {
    any: Epoll,
    asked: EventFd,
    failed: EventFd,
}

impl IvshmemFunction {
    /// Opens a function of this kind.
    ///
    /// # Errors
    /// It cannot be used so: the refusal says what to do.
    pub(in crate::bar) fn open(
        function: &Function,
        through: Through,
        wish: Wish,
        least: u64,
        host: &Host,
    ) -> Result<Self, Refusal> {
        let bytes = memory_bytes(function, least)?;
        let has_doorbell = match function.config()?.msi_x {
            MsiX::Vectors { .. } => true,
            MsiX::None => false,
            // Who may not look has the BAR of its table to go by.
            MsiX::Unknown => function.bars[bar::MSI_X].is_some(),
        };
        match through {
            Through::Vfio => Self::through_vfio(function, bytes, has_doorbell, host),
            Through::Sysfs => Self::through_sysfs(function, bytes, has_doorbell, wish.is_uncached),
        }
    }

    fn through_vfio(
        function: &Function,
        bytes: u64,
        has_doorbell: bool,
        host: &Host,
    ) -> Result<Self, Refusal> {
        let device = Device::open(function, &host.sysfs, &host.dev)?;
        device.enable(has_doorbell)?;
        let memory = device.map(bar::MEMORY as u32, "memory (BAR 2)", bytes)?;
        let registers = match has_doorbell {
            true => Some(device.map(bar::REGISTERS as u32, "registers (BAR 0)", register::BYTES)?),
            false => None,
        };
        let counter = || EventFd::new().map_err(|error| Refusal::Os("make an event counter", error));
        let mut interrupt = None;
        if has_doorbell {
            let counter = counter()?;
            interrupt = device.set_interrupt(&counter)?.then_some(counter);
        }
        let news = News::of(&device, counter()?, counter()?)?;
        let vectors = if interrupt.is_some() { "MSI-X" } else { "no interrupts" };
        let text = format!("{}: ivshmem through VFIO, {bytes} bytes, {vectors}", function.address);
        Self::new(text, memory, registers, Hold::Vfio(device), interrupt, Some(news), false)
    }

    fn through_sysfs(
        function: &Function,
        bytes: u64,
        has_doorbell: bool,
        is_uncached: bool,
    ) -> Result<Self, Refusal> {
        let enabled = Enabled::new(function)?;
        let combining = function.file(&format!("resource{}_wc", bar::MEMORY));
        let may_combine = function.bars[bar::MEMORY].is_some_and(|bar| bar.is_prefetchable);
        // Not every kind of processor has such a file.
        let is_write_combining = !is_uncached && may_combine && combining.exists();
        let plain = function.file(&format!("resource{}", bar::MEMORY));
        let memory = map_file(if is_write_combining { combining } else { plain }, "memory (BAR 2)", bytes)?;
        let registers = match has_doorbell {
            true => {
                let file = function.file(&format!("resource{}", bar::REGISTERS));
                Some(map_file(file, "registers (BAR 0)", register::BYTES)?)
            }
            false => None,
        };
        let way = if is_write_combining { "write-combining" } else { "uncached" };
        let text =
            format!("{}: ivshmem through sysfs, {bytes} bytes, {way}, no interrupts", function.address);
        Self::new(text, memory, registers, Hold::Sysfs(enabled), None, None, is_write_combining)
    }

    fn new(
        text: String,
        memory: Guarded,
        registers: Option<Guarded>,
        hold: Hold,
        interrupt: Option<EventFd>,
        news: Option<News>,
        is_write_combining: bool,
    ) -> Result<Self, Refusal> {
        let position = registers.as_ref().and_then(|registers| registers.read_u32(register::IV_POSITION));
        // Numbers have 16 bits; before its server has spoken, a function says -1, as one does that is not there.
        let own_id = position.map(|id| u16::try_from(id).map_err(|_| Gone::Ones)).transpose()?;
        let hold = Mutex::new(Some(hold));
        Ok(Self {
            text,
            memory,
            registers,
            hold,
            own_id,
            interrupt,
            news,
            is_write_combining,
            fate: Fate::default(),
        })
    }

    /// Lets go of the device: whoever waits for that need not any more. What threads are doing with it goes on, without effect.
    fn let_go(&self, why: Gone) -> Gone {
        let first = self.fate.seal(why);
        for pages in [Some(&self.memory), self.registers.as_ref()].into_iter().flatten() {
            // If there is no memory for other pages, these stay until the window is dropped.
            let _ = pages.give_back();
        }
        *self.hold.lock().unwrap_or_else(PoisonError::into_inner) = None;
        first
    }

    /// The vendor's id, read anew.
    fn vendor(&self) -> Option<u16> {
        let hold = self.hold.lock().unwrap_or_else(PoisonError::into_inner);
        let mut bytes = [0; 2];
        let read = match hold.as_ref()? {
            Hold::Vfio(device) => device.read_config(0, &mut bytes).ok()?,
            Hold::Sysfs(enabled) => pread(&enabled.config, &mut bytes, 0).ok()?,
        };
        (read == bytes.len()).then_some(u16::from_le_bytes(bytes))
    }
}

impl Slot for IvshmemFunction {
    fn describe(&self) -> String {
        self.text.clone()
    }

    #[inline]
    fn memory(&self) -> Place<'_> {
        self.memory.place()
    }

    fn is_write_combining(&self) -> bool {
        self.is_write_combining
    }

    fn own_id(&self) -> Option<u16> {
        self.own_id
    }

    fn ring(&self, peer: u16) {
        if let Some(registers) = &self.registers {
            // Vector 0. Without a device, a word in memory is written.
            registers.write_u32(register::DOORBELL, u32::from(peer) << 16);
        }
    }

    fn interrupt(&self) -> Option<BorrowedFd<'_>> {
        self.interrupt.as_ref().map(AsFd::as_fd)
    }

    fn drain(&self) {
        if let Some(counter) = &self.interrupt {
            // A counter of our own that is not blocking: reading it cannot fail.
            let _ = counter.drain();
        }
    }

    fn news(&self) -> Option<BorrowedFd<'_>> {
        self.news.as_ref().map(|news| news.any.as_fd())
    }

    fn attend(&self) {
        let Some(News { asked, failed, .. }) = &self.news else { return };
        for (counter, why) in [(failed, Gone::Failed), (asked, Gone::Asked)] {
            if counter.drain().unwrap_or(1) != 0 {
                self.let_go(why);
            }
        }
    }

    fn has_left(&self, _: u16) -> bool {
        false
    }

    #[inline]
    fn gone(&self) -> Option<Gone> {
        self.fate.of(&self.memory)
    }

    fn probe(&self) -> Option<Gone> {
        match self.gone() {
            Some(why) => Some(self.let_go(why)),
            None if self.vendor().is_none_or(|vendor| vendor == u16::MAX) => Some(self.let_go(Gone::Ones)),
            None => None,
        }
    }
}

impl News {
    fn of(device: &Device, asked: EventFd, failed: EventFd) -> Result<Self, Refusal> {
        device.set_ending(Ending::Asked, &asked)?;
        device.set_ending(Ending::Failed, &failed)?;
        let watch = || {
            let any = Epoll::new()?;
            any.add(&asked, 0)?;
            any.add(&failed, 1)?;
            Ok(any)
        };
        let any = watch().map_err(|error: io::Error| Refusal::Os("watch for the device's end", error))?;
        Ok(Self { any, asked, failed })
    }
}

impl Enabled {
    fn new(function: &Function) -> Result<Self, Refusal> {
        let path = function.file("config");
        let config = File::open(&path).map_err(|error| Refusal::Os("open its config", error))?;
        let mut bytes = [0; HEADER_BYTES];
        let read =
            pread(&config, &mut bytes, 0).map_err(|error| Refusal::Os("read its config", error.into()))?;
        let space = ConfigSpace::parse(&bytes[..read.min(HEADER_BYTES)])?;
        let mut undo = None;
        if space.command & COMMAND_MEMORY == 0 {
            let path = function.file("enable");
            std::fs::write(&path, "1").map_err(|error| not_root(error, path.clone()))?;
            undo = Some(path);
        }
        Ok(Self { config, undo })
    }
}

impl Drop for Enabled {
    fn drop(&mut self) {
        if let Some(path) = &self.undo {
            // A device that is gone needs it no more.
            let _ = std::fs::write(path, "0");
        }
    }
}

/// How much memory the function says that it has.
fn memory_bytes(function: &Function, least: u64) -> Result<u64, Refusal> {
    let bytes = function.bars[bar::MEMORY].filter(|bar| bar.is_memory).map_or(0, |bar| bar.size);
    if bytes < least {
        let advice = "; give it more where the virtual machine is started (-object memory-backend-...,size=), a power of two";
        return Err(Refusal::Small { what: "memory (BAR 2)", bytes, least, advice });
    }
    Ok(bytes)
}

/// Maps a BAR by its file in sysfs.
fn map_file(path: PathBuf, what: &'static str, bytes: u64) -> Result<Guarded, Refusal> {
    let file =
        OpenOptions::new().read(true).write(true).open(&path).map_err(|error| not_root(error, path))?;
    let len = usize::try_from(bytes).map_err(|_| Refusal::NotMappable(what))?;
    Guarded::map(&file, 0, len).map_err(|error| match Errno::from_raw(error.raw_os_error().unwrap_or(0)) {
        // A driver claims the memory, or the kernel is locked down.
        Errno::EPERM | Errno::EINVAL | Errno::ENODEV => Refusal::NotMappable(what),
        _ => Refusal::Os("map a BAR", error),
    })
}

fn not_root(error: io::Error, path: PathBuf) -> Refusal {
    match error.kind() {
        io::ErrorKind::PermissionDenied => Refusal::Permission {
            path,
            advice: "sysfs lets root alone use a device's memory; without root, give the device to vfio-pci"
                .to_owned(),
        },
        _ => Refusal::Os("open a file of the device in sysfs", error),
    }
}
