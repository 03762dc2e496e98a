//! Memory regions, and the slices of them that work requests name.

use super::pd::ProtectionDomain;
use crate::device::{DeviceMemory, MemoryPath};
use crate::error::{Error, Result};
use crate::mem::{ForeignMemory, Held, RawSge};
use crate::sync::{AtomicU64, Ordering};
use crate::sys::mapping;
use std::fmt;
use std::ops::{Bound, RangeBounds};
use std::sync::Arc;
use tbrdma_proto::{Access, RemoteAddr, Sge};

/// Bytes that are loaded and stored at once.
const WORD: usize = size_of::<u64>();

/// A registered memory region (`ibv_reg_mr(3)`).
///
/// A peer, or the device on a peer's behalf, may read and write it at any time its access flags allow. So its bytes are never handed out as a
/// slice: they are copied in and out ([`read`](Self::read), [`write`](Self::write)) or looked at word by word ([`load_u64`](Self::load_u64)).
/// For bytes that are one's own between work requests see [`Buffer`](crate::Buffer).
///
/// Dropping it deregisters it: its keys stop working at once, and the drop waits for accesses under way.
pub struct MemoryRegion {
    memory: Arc<dyn DeviceMemory>,
    pd: ProtectionDomain,
    // What every work request needs, so that it is at hand.
    addr: u64,
    len: usize,
    lkey: u32,
    access: Access,
    // What a program polls, if the library allocated it and the device need not know. Boxed, because a region also travels in errors.
    words: Option<Box<Held<[AtomicU64]>>>,
}

impl fmt::Debug for MemoryRegion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryRegion")
            .field("addr", &format_args!("{:#x}", self.addr()))
            .field("len", &self.len())
            .field("key", &format_args!("{:#010x}", self.rkey()))
            .field("access", &self.access())
            .finish()
    }
}

impl MemoryRegion {
    pub(crate) fn new(pd: &ProtectionDomain, memory: Arc<dyn DeviceMemory>) -> Self {
        let (addr, len, lkey) = (memory.iova(), memory.len(), memory.lkey());
        let words = if memory.wants_looks() { None } else { memory.words().map(Box::new) };
        let access = memory.region().access;
        Self { memory, pd: pd.clone(), addr, len, lkey, access, words }
    }

    /// The key by which our own work requests name it.
    pub fn lkey(&self) -> u32 {
        self.lkey
    }

    /// The key by which peers' work requests name it.
    pub fn rkey(&self) -> u32 {
        self.memory.rkey()
    }

    /// The address by which work requests name its first byte (its I/O virtual address).
    pub fn addr(&self) -> u64 {
        self.addr
    }

    /// Bytes.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Never: a region has at least one byte.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// What it allows.
    pub fn access(&self) -> Access {
        self.access
    }

    /// The protection domain it belongs to.
    pub fn pd(&self) -> &ProtectionDomain {
        &self.pd
    }

    /// How peers in other processes reach its bytes.
    pub fn path(&self) -> MemoryPath {
        self.memory.path()
    }

    /// What a peer must know to read or write it.
    pub fn remote(&self) -> RemoteRegion {
        RemoteRegion { addr: self.addr(), length: self.len() as u64, rkey: self.rkey() }
    }

    /// A part of it, for a work request. A range beyond the end is not an error here: the work request will complete with
    /// [`WcStatus::LocProtErr`](crate::WcStatus::LocProtErr), as on any device.
    #[inline]
    pub fn slice(&self, range: impl RangeBounds<usize>) -> MrSlice {
        let start = match range.start_bound() {
            Bound::Included(&start) => start,
            Bound::Excluded(&start) => start.saturating_add(1),
            Bound::Unbounded => 0,
        };
        let end = match range.end_bound() {
            Bound::Included(&end) => end.saturating_add(1),
            Bound::Excluded(&end) => end,
            Bound::Unbounded => self.len(),
        };
        let length = u32::try_from(end.saturating_sub(start)).unwrap_or(u32::MAX);
        MrSlice(Sge { addr: self.addr().wrapping_add(start as u64), length, lkey: self.lkey() })
    }

    /// Copies bytes out, in address order; how many there were from `offset` on, at most `bytes.len()`.
    pub fn read(&self, offset: usize, bytes: &mut [u8]) -> usize {
        let mut copied = 0;
        self.memory.with_place(&mut |place| {
            if let Some(rest) = place.sub(offset.min(place.len()), place.len().saturating_sub(offset)) {
                copied = rest.read_into(bytes);
            }
        });
        copied
    }

    /// Copies bytes in, in address order, the last one last; how many fitted from `offset` on.
    pub fn write(&self, offset: usize, bytes: &[u8]) -> usize {
        let mut copied = 0;
        self.memory.with_place(&mut |place| {
            if let Some(rest) = place.sub(offset.min(place.len()), place.len().saturating_sub(offset)) {
                copied = rest.write_from(bytes);
            }
        });
        copied
    }

    /// The 8 aligned bytes at `offset`, as a number in host order; what a peer wrote before them in address order is visible
    /// afterwards. This is how a program polls memory that a peer writes; on a device that works in the program's time, such looks drive it.
    /// Zero if `offset` is not a multiple of 8 or out of range.
    #[inline]
    pub fn load_u64(&self, offset: usize) -> u64 {
        if let Some(words) = &self.words {
            let word = words.get(offset / WORD).filter(|_| offset.is_multiple_of(WORD));
            return word.map_or(0, |word| word.load(Ordering::Acquire));
        }
        self.load_other(offset)
    }

    /// The same in memory that the library did not allocate, or where the device wants to know.
    fn load_other(&self, offset: usize) -> u64 {
        self.memory.is_looked_at();
        if let Some(word) =
            self.memory.segment_place().and_then(|place| place.sub(offset, 8)).and_then(|p| p.atomic_u64())
        {
            return word.load(Ordering::Acquire);
        }
        let mut value = 0;
        self.memory.with_place(&mut |place| {
            if let Some(word) = place.sub(offset, 8).and_then(|place| place.atomic_u64()) {
                value = word.load(Ordering::Acquire);
            }
        });
        value
    }

    /// Stores 8 aligned bytes at once; everything written before is visible to whoever sees them. False, and nothing stored, if `offset` is
    /// not a multiple of 8 or out of range.
    #[inline]
    pub fn store_u64(&self, offset: usize, value: u64) -> bool {
        if let Some(words) = &self.words {
            let word = words.get(offset / WORD).filter(|_| offset.is_multiple_of(WORD));
            return word.map(|word| word.store(value, Ordering::Release)).is_some();
        }
        self.store_other(offset, value)
    }

    /// The same in memory that the library did not allocate, or where the device wants to know.
    fn store_other(&self, offset: usize, value: u64) -> bool {
        let mut stored = false;
        self.memory.with_place(&mut |place| {
            if let Some(word) = place.sub(offset, 8).and_then(|place| place.atomic_u64()) {
                word.store(value, Ordering::Release);
                stored = true;
            }
        });
        stored
    }

    /// Gives the region another protection domain, other rights, or both (`ibv_rereg_mr(3)`, without a change of translation). Its keys and
    /// addresses stay, and whether it is zero based.
    ///
    /// # Errors
    /// The domain is another context's, the rights contradict each other or are more than the memory allows, memory windows are bound to the region, or its key
    /// has been invalidated: nothing has changed then. Or a stopped peer is in the middle of an access: the change holds, but not for that access.
    pub fn change(&mut self, pd: Option<&ProtectionDomain>, access: Option<Access>) -> Result<()> {
        let pd = pd.unwrap_or(&self.pd).clone();
        let access = access.unwrap_or(self.access);
        if !pd.context().is_same(self.pd.context()) {
            return Err(Self::foreign());
        }
        let mut address = 0;
        self.memory.with_place(&mut |place| address = place.addr());
        mapping::check(address, self.len, access.contains(Access::LOCAL_WRITE)).map_err(Error::os(
            "rereg_mr",
            "the memory must be mapped, and writable if the access flags say so",
        ))?;
        let outcome = self.memory.change_rights(pd.handle(), access);
        if matches!(outcome, Ok(()) | Err(Error::Busy { .. })) {
            self.access =
                (access & (Access::all() - Access::ZERO_BASED)) | (self.access & Access::ZERO_BASED);
            self.pd = pd;
            // An adapter's library may give it others.
            self.lkey = self.memory.lkey();
        }
        outcome
    }

    /// Registers other memory in place of the region's (`ibv_rereg_mr(3)` with a change of translation, and of domain and rights as
    /// [`change`](Self::change) has them): the bytes there were are deregistered, and the keys are new ones.
    ///
    /// # Errors
    /// As for [`register_foreign_at`](ProtectionDomain::register_foreign_at) and [`deregister`](Self::deregister), or the domain is another context's. Then the region
    /// is what it was, except that its keys no longer work if a stopped peer is in the middle of an access.
    pub fn replace(
        &mut self,
        memory: ForeignMemory,
        iova: u64,
        pd: Option<&ProtectionDomain>,
        access: Option<Access>,
    ) -> Result<()> {
        let pd = pd.unwrap_or(&self.pd);
        if !pd.context().is_same(self.pd.context()) {
            return Err(Self::foreign());
        }
        let region = pd.register_foreign_at(memory, access.unwrap_or(self.access), iova)?;
        self.memory.deregister()?;
        *self = region;
        Ok(())
    }

    fn foreign() -> Error {
        let reason = "the protection domain belongs to another context".to_owned();
        Error::InvalidArgument { call: "rereg_mr", reason }
    }

    /// Withdraws the keys and waits for accesses under way. Dropping does the same, but cannot report.
    ///
    /// # Errors
    /// A peer has been in the middle of an access for a second (it is stopped): the keys no longer work, but the bytes may still
    /// change. Try again.
    pub fn deregister(&self) -> Result<()> {
        self.memory.deregister()
    }

    /// Deregisters, and gives back the bytes that [`ProtectionDomain::register`] took over.
    ///
    /// # Errors
    /// As for [`deregister`](Self::deregister), or the memory was not registered that way; the region comes back with the error.
    pub fn into_bytes(self) -> std::result::Result<Box<[u8]>, (Self, Error)> {
        match self.memory.give_back_foreign() {
            Err(error) => Err((self, error)),
            Ok(memory) => match memory.and_then(|memory| memory.into_bytes()) {
                Some(bytes) => Ok(bytes),
                None => {
                    let reason = "the region's memory was not handed over by register()".to_owned();
                    Err((self, Error::InvalidArgument { call: "into_bytes", reason }))
                }
            },
        }
    }
}

/// A part of a registered region, as a work request names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MrSlice(pub(crate) Sge);

impl MrSlice {
    /// Bytes.
    pub fn len(&self) -> u32 {
        self.0.length
    }

    /// Has it no bytes?
    pub fn is_empty(&self) -> bool {
        self.0.length == 0
    }

    /// The scatter/gather entry.
    pub fn sge(&self) -> Sge {
        self.0
    }
}

impl From<RawSge> for MrSlice {
    fn from(raw: RawSge) -> Self {
        Self(raw.sge())
    }
}

/// A peer's region, as the peer described it: [`MemoryRegion::remote`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct RemoteRegion {
    /// Address of its first byte.
    pub addr: u64,
    /// Bytes.
    pub length: u64,
    /// Key.
    pub rkey: u32,
}

/// Bytes of a [`RemoteRegion`] as [`to_bytes`](RemoteRegion::to_bytes) writes it.
pub const REMOTE_REGION_BYTES: usize = 20;

impl RemoteRegion {
    /// The address `offset` bytes into it. Whether it is inside is checked at the peer.
    #[inline]
    pub fn at(&self, offset: u64) -> RemoteAddr {
        RemoteAddr { addr: self.addr.wrapping_add(offset), rkey: self.rkey }
    }

    /// Address (8 bytes), length (8), key (4), big endian.
    pub fn to_bytes(&self) -> [u8; REMOTE_REGION_BYTES] {
        let mut bytes = [0; REMOTE_REGION_BYTES];
        bytes[..8].copy_from_slice(&self.addr.to_be_bytes());
        bytes[8..16].copy_from_slice(&self.length.to_be_bytes());
        bytes[16..].copy_from_slice(&self.rkey.to_be_bytes());
        bytes
    }

    /// The region in these bytes.
    pub fn from_bytes(bytes: &[u8; REMOTE_REGION_BYTES]) -> Self {
        let long = |at: usize| {
            let mut word = [0; 8];
            word.copy_from_slice(&bytes[at..at + 8]);
            u64::from_be_bytes(word)
        };
        let rkey = u32::from_be_bytes([bytes[16], bytes[17], bytes[18], bytes[19]]);
        Self { addr: long(0), length: long(8), rkey }
    }
}
