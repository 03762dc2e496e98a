//! Memory that the library did not allocate, of every kind, with canaries around what is registered of it.
#![allow(dead_code, reason = "each test file uses its own part")]

use nix::libc;
use std::ffi::c_void;
use std::fs::File;
use std::io::Write;
use std::os::fd::AsRawFd;
use std::sync::mpsc::{Sender, channel};
use tbrdma::{Access, ForeignMemory, MemoryRegion, ProtectionDomain};

/// Bytes that are registered.
pub(crate) const FOREIGN: usize = (1 << 20) + 24;
/// Where they begin in the memory: crooked, so that neither end is aligned to a page, though to a word.
const FRONT: usize = 4096 - 8;
/// Bytes of the whole memory: a huge page.
const WHOLE: usize = 2 << 20;
const CANARY: u8 = 0xca;

/// A kind of memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Heap,
    Stack,
    Anonymous,
    Huge,
    TransparentHuge,
    FileShared,
    FilePrivate,
    ReadOnly,
    /// Begins and ends at odd addresses.
    Odd,
    /// Begins and ends with a page.
    Pages,
    /// Less than a page, at the beginning of one.
    Small,
}

impl Kind {
    /// All that can be written.
    pub(crate) const WRITABLE: [Self; 7] = [
        Self::Heap,
        Self::Stack,
        Self::Anonymous,
        Self::Huge,
        Self::TransparentHuge,
        Self::FileShared,
        Self::FilePrivate,
    ];

    pub(crate) fn parse(name: &str) -> Self {
        let all = [&Self::WRITABLE[..], &[Self::ReadOnly, Self::Odd, Self::Pages, Self::Small]].concat();
        all.into_iter().find(|kind| format!("{kind:?}") == name).unwrap()
    }

    fn front(self) -> usize {
        match self {
            Self::Odd => FRONT + 3,
            Self::Pages | Self::Small => 4096,
            _ => FRONT,
        }
    }

    /// Has it whole pages that the library may adopt?
    pub(crate) fn is_adoptable(self) -> bool {
        matches!(self, Self::Heap | Self::Odd | Self::Anonymous | Self::TransparentHuge | Self::Pages)
    }
}

enum Keeper {
    Heap(Box<[u8]>),
    /// A thread that keeps a stack frame until the channel closes.
    Stack(#[expect(dead_code, reason = "its end is the message")] Sender<()>),
    Mapping,
    Unmapped,
}

/// Application memory.
pub(crate) struct Held {
    kind: Kind,
    whole: *mut u8,
    keeper: Keeper,
}

impl Held {
    /// The memory, all canaries; or why this machine has none of the kind.
    pub(crate) fn new(kind: Kind) -> Result<Self, String> {
        let (whole, keeper) = match kind {
            Kind::Heap | Kind::Odd => {
                let mut bytes = vec![CANARY; WHOLE].into_boxed_slice();
                (bytes.as_mut_ptr(), Keeper::Heap(bytes))
            }
            Kind::Stack => on_a_stack(),
            Kind::Anonymous | Kind::Pages | Kind::Small => {
                (map(None, libc::MAP_PRIVATE, true)?, Keeper::Mapping)
            }
            Kind::Huge => (map(None, libc::MAP_PRIVATE | libc::MAP_HUGETLB, true)?, Keeper::Mapping),
            Kind::TransparentHuge => {
                let whole = map(None, libc::MAP_PRIVATE, true)?;
                // SAFETY: advice about a mapping just made; what it holds does not change.
                let _ = unsafe { libc::madvise(whole.cast(), WHOLE, libc::MADV_HUGEPAGE) };
                (whole, Keeper::Mapping)
            }
            Kind::FileShared => (map(Some(&file()), libc::MAP_SHARED, true)?, Keeper::Mapping),
            Kind::FilePrivate => (map(Some(&file()), libc::MAP_PRIVATE, true)?, Keeper::Mapping),
            Kind::ReadOnly => (map(Some(&file()), libc::MAP_SHARED, false)?, Keeper::Mapping),
        };
        if kind != Kind::ReadOnly {
            // SAFETY: `WHOLE` writable bytes of ours that nobody else knows yet.
            unsafe { whole.write_bytes(CANARY, WHOLE) };
        }
        Ok(Self { kind, whole, keeper })
    }

    fn len(&self) -> usize {
        match self.kind {
            Kind::Odd => FOREIGN - 24 + 1,
            Kind::Pages => 1 << 20,
            Kind::Small => 64,
            _ => FOREIGN,
        }
    }

    pub(crate) fn memory(&self) -> ForeignMemory {
        // SAFETY: the range is inside the memory, which lives until the tests have dropped the region; the tests look at the
        // registered part through the region only.
        unsafe { ForeignMemory::from_raw(self.whole.wrapping_add(self.kind.front()), self.len()) }
    }

    /// Registers the part between the canaries, with every right that it can have.
    pub(crate) fn register(&self, pd: &ProtectionDomain) -> tbrdma::Result<MemoryRegion> {
        let access =
            if self.kind == Kind::ReadOnly { Access::REMOTE_READ } else { super::puppet::all_access() };
        self.register_with(pd, access)
    }

    /// The same, wishing for adoption.
    pub(crate) fn register_adopted(&self, pd: &ProtectionDomain) -> tbrdma::Result<MemoryRegion> {
        pd.register_foreign(self.memory().adopt(), super::puppet::all_access())
    }

    pub(crate) fn register_with(
        &self,
        pd: &ProtectionDomain,
        access: Access,
    ) -> tbrdma::Result<MemoryRegion> {
        pd.register_foreign(self.memory(), access)
    }

    /// Every byte, registered or not.
    pub(crate) fn bytes(&self) -> Vec<u8> {
        // SAFETY: inside the memory; what a peer may write meanwhile is read as it is.
        (0..WHOLE).map(|at| unsafe { self.whole.wrapping_add(at).read_volatile() }).collect()
    }

    /// Writes a byte, registered or not, as the program itself may at any time.
    pub(crate) fn poke(&self, at: usize, byte: u8) {
        assert!(at < WHOLE);
        // SAFETY: inside the memory.
        unsafe { self.whole.wrapping_add(at).write_volatile(byte) };
    }

    /// Where the registered part begins.
    pub(crate) fn begin(&self) -> usize {
        self.kind.front()
    }

    /// "ok" if the bytes around the registered part are as they were.
    pub(crate) fn canaries(&self) -> String {
        let (front, len) = (self.kind.front(), self.len());
        let around = (0..front).chain(front + len..WHOLE);
        // SAFETY: inside the memory, outside the registered part: nobody writes there.
        let mut broken =
            around.filter(|&at| unsafe { self.whole.wrapping_add(at).read_volatile() } != CANARY);
        broken.next().map_or_else(|| "ok".to_owned(), |at| format!("the canary at {at} is gone"))
    }

    /// Unmaps the memory, though it may be registered: what a careless program does.
    pub(crate) fn unmap(&mut self) -> String {
        assert!(matches!(self.keeper, Keeper::Mapping));
        self.keeper = Keeper::Unmapped;
        // SAFETY: a mapping made by `map` below, which nobody here touches any more.
        let done = unsafe { libc::munmap(self.whole.cast::<c_void>(), WHOLE) };
        if done == 0 { "ok".to_owned() } else { std::io::Error::last_os_error().to_string() }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        if matches!(self.keeper, Keeper::Mapping) {
            self.unmap();
        }
    }
}

/// A file of canaries, without a name.
fn file() -> File {
    let name = nix::sys::memfd::memfd_create("test-file", nix::sys::memfd::MFdFlags::MFD_CLOEXEC).unwrap();
    let mut file = File::from(name);
    file.write_all(&vec![CANARY; WHOLE]).unwrap();
    file
}

fn map(file: Option<&File>, flags: libc::c_int, writable: bool) -> Result<*mut u8, String> {
    let rights = if writable { libc::PROT_READ | libc::PROT_WRITE } else { libc::PROT_READ };
    let (fd, flags) = file.map_or((-1, flags | libc::MAP_ANONYMOUS), |file| (file.as_raw_fd(), flags));
    // SAFETY: a new mapping at an address of the kernel's choice disturbs nothing.
    let at = unsafe { libc::mmap(std::ptr::null_mut(), WHOLE, rights, flags, fd, 0) };
    if at == libc::MAP_FAILED { Err(std::io::Error::last_os_error().to_string()) } else { Ok(at.cast()) }
}

/// A stack frame of a thread that waits until its keeper is gone.
fn on_a_stack() -> (*mut u8, Keeper) {
    let (address, at) = channel();
    let (keep, kept) = channel::<()>();
    let body = move || {
        let mut frame = [CANARY; WHOLE];
        address.send(frame.as_mut_ptr().expose_provenance()).unwrap();
        let _ = kept.recv();
        std::hint::black_box(&mut frame);
    };
    std::thread::Builder::new().stack_size(4 * WHOLE).spawn(body).unwrap();
    (std::ptr::with_exposed_provenance_mut(at.recv().unwrap()), Keeper::Stack(keep))
}
