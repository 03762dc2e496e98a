//! Memory of the application's own, registered in place.

use super::Place;
use tbrdma_proto::Sge;

/// Who keeps the bytes alive.
enum Keeper {
    /// We do: the application handed them over.
    Bytes { bytes: Option<Box<[u8]>> },
    /// The caller of an unsafe function promised to.
    Caller,
}

/// A run of the application's memory, with whoever keeps it alive.
pub struct ForeignMemory {
    address: usize,
    len: usize,
    keeper: Keeper,
    adopt: bool,
}

impl ForeignMemory {
    /// Bytes that are handed over: [`MemoryRegion::into_bytes`](crate::MemoryRegion::into_bytes) gives them back.
    pub fn from_bytes(bytes: impl Into<Box<[u8]>>) -> Self {
        let bytes = bytes.into();
        let raw: *mut [u8] = Box::into_raw(bytes);
        let (address, len) = (raw.cast::<u8>().expose_provenance(), raw.len());
        // SAFETY: `raw` came from `into_raw` just above and is made a box again once.
        let bytes = unsafe { Box::from_raw(raw) };
        Self { address, len, keeper: Keeper::Bytes { bytes: Some(bytes) }, adopt: false }
    }

    /// Memory that the caller keeps.
    ///
    /// # Safety
    /// Until the region made of it is deregistered or dropped, the `len` bytes at `ptr` stay mapped and do not become another object's. While a
    /// work request or a peer may write them no Rust reference to them is used, and while they may be read no unique one.
    ///
    /// If [`adopt`](Self::adopt) is called: while the memory is being registered, nothing writes it that the library cannot see, as another
    /// process would, or a device.
    pub unsafe fn from_raw(ptr: *mut u8, len: usize) -> Self {
        Self { address: ptr.expose_provenance(), len, keeper: Keeper::Caller, adopt: false }
    }

    /// Asks for the memory to be adopted: its whole pages, still at the same addresses, become memory that peers map, as they map what the library
    /// allocates, until the last registration of them ends. A peer then reaches them in less than 0.1 us instead of about 1 us, the time of a system call.
    ///
    /// It is a wish. Memory stays what it is, and everything works as without, where a device has no use for this; without a whole page; if it is not
    /// private anonymous memory (but a file, shared already, huge pages, a stack) or more than 256 MiB; if another registration has a part of
    /// it and it is not adopted; and, for memory that was not handed over, if the process has threads besides the caller. What became of it
    /// tells [`MemoryRegion::path`](crate::MemoryRegion::path).
    ///
    /// What the program notices: registering copies the pages once, and so does deregistering; advice given with `madvise` and NUMA policies are
    /// forgotten; a child of `fork` has a copy as of the fork; and processes of the same user that know the context can reach the pages without a
    /// key, which is why this is not the default.
    #[must_use]
    pub fn adopt(mut self) -> Self {
        self.adopt = true;
        self
    }

    /// Is adoption wished for?
    pub(crate) fn wants_adoption(&self) -> bool {
        self.adopt
    }

    /// Does nobody else have the bytes?
    pub(crate) fn is_handed_over(&self) -> bool {
        matches!(self.keeper, Keeper::Bytes { .. })
    }

    /// Where it is.
    pub(crate) fn address(&self) -> usize {
        self.address
    }

    /// How long it is.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// The bytes as a place.
    pub(crate) fn place(&self) -> Place<'_> {
        let ptr = std::ptr::with_exposed_provenance_mut(self.address);
        // SAFETY: the bytes are kept alive by the box we hold or by the promise of `from_raw`, for as long as `self` lives.
        unsafe { Place::new(ptr, self.len) }
    }

    /// The bytes that were handed over, if they were.
    pub(crate) fn into_bytes(mut self) -> Option<Box<[u8]>> {
        match &mut self.keeper {
            Keeper::Bytes { bytes } => bytes.take(),
            Keeper::Caller => None,
        }
    }

    /// Never frees the bytes: a peer that does not let go may still write them.
    pub(crate) fn leak(mut self) {
        if let Keeper::Bytes { bytes } = &mut self.keeper {
            std::mem::forget(bytes.take());
        }
    }
}

/// A scatter/gather entry written by hand, for those who must: an address and a key from anywhere.
#[derive(Clone, Copy, Debug)]
#[repr(transparent)]
pub struct RawSge(Sge);

impl RawSge {
    /// Vouches for an entry.
    ///
    /// # Safety
    /// The key is not that of a [`Buffer`](crate::Buffer), whose owner may be reading or writing it as a slice. (A key that is wrong in any
    /// other way does no harm: the work request fails.)
    pub unsafe fn new(sge: Sge) -> Self {
        Self(sge)
    }

    /// Vouches for a list of entries.
    ///
    /// # Safety
    /// As for [`new`](Self::new), for each of them.
    #[inline]
    pub unsafe fn list(sges: &[Sge]) -> &[Self] {
        let list: *const [Sge] = sges;
        // SAFETY: a transparent wrapper, of the same size and alignment as what it wraps.
        unsafe { &*(list as *const [Self]) }
    }

    /// The entry.
    pub fn sge(self) -> Sge {
        self.0
    }
}
