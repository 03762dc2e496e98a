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
}

impl ForeignMemory {
    /// Takes the bytes over; [`into_bytes`](Self::into_bytes) gives them back.
    pub(crate) fn from_bytes(bytes: Box<[u8]>) -> Self {
        let raw: *mut [u8] = Box::into_raw(bytes);
        let (address, len) = (raw.cast::<u8>().expose_provenance(), raw.len());
        // SAFETY: `raw` came from `into_raw` just above and is made a box again once.
        let bytes = unsafe { Box::from_raw(raw) };
        Self { address, len, keeper: Keeper::Bytes { bytes: Some(bytes) } }
    }

    /// Memory that the caller keeps.
    ///
    /// # Safety
    /// Until the region made of it is deregistered or dropped, the `len` bytes at `ptr` stay mapped and do not become another object's. While a
    /// work request or a peer may write them no Rust reference to them is used, and while they may be read no unique one.
    pub unsafe fn from_raw(ptr: *mut u8, len: usize) -> Self {
        Self { address: ptr.expose_provenance(), len, keeper: Keeper::Caller }
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
