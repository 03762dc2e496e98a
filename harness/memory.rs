//! The memory that messages leave from and arrive in: the library's own, or a program's, registered in place.

use tbrdma::{Access, ForeignMemory, MemoryPath, MemoryRegion, MrSlice, ProtectionDomain, RemoteRegion};

use crate::plan::Memory;

/// What a page is wherever this runs, or a part of it.
const PAGE: usize = 4096;

/// A run of registered bytes that begins with a page.
pub struct Area {
    region: MemoryRegion,
    kind: Memory,
    /// Bytes of the region before the first page.
    skip: usize,
}

impl Area {
    /// At least `bytes` zeroed bytes of a kind.
    ///
    /// # Errors
    /// They cannot be registered.
    pub fn new(pd: &ProtectionDomain, kind: Memory, bytes: usize, access: Access) -> tbrdma::Result<Self> {
        let region = match kind {
            Memory::Library => pd.alloc(bytes, access)?,
            // From the heap, as a program's buffers are, and enough of it for whole pages.
            Memory::Registered => pd.register(heap(bytes), access)?,
            Memory::Adopted => pd.register_foreign(ForeignMemory::from_bytes(heap(bytes)).adopt(), access)?,
        };
        let skip = (region.addr() as usize).next_multiple_of(PAGE) - region.addr() as usize;
        Ok(Self { region, kind, skip })
    }

    /// A part of it, for a work request.
    #[inline]
    pub fn slice(&self, range: std::ops::Range<usize>) -> MrSlice {
        self.region.slice(range.start + self.skip..range.end + self.skip)
    }

    /// Copies bytes out.
    pub fn read(&self, offset: usize, bytes: &mut [u8]) -> usize {
        self.region.read(offset + self.skip, bytes)
    }

    /// Copies bytes in.
    pub fn write(&self, offset: usize, bytes: &[u8]) -> usize {
        self.region.write(offset + self.skip, bytes)
    }

    /// Looks at a word.
    #[inline]
    pub fn load_u64(&self, offset: usize) -> u64 {
        self.region.load_u64(offset + self.skip)
    }

    /// Stores a word; false if there is none at the offset.
    #[inline]
    pub fn store_u64(&self, offset: usize, value: u64) -> bool {
        self.region.store_u64(offset + self.skip, value)
    }

    /// What the peer must know to reach it.
    #[must_use]
    pub fn remote(&self) -> RemoteRegion {
        let whole = self.region.remote();
        let skip = self.skip as u64;
        RemoteRegion { addr: whole.addr + skip, length: whole.length - skip, rkey: whole.rkey }
    }

    /// Whose it is, and how peers reach it.
    #[must_use]
    pub fn says(&self) -> &'static str {
        match (self.kind, self.region.path()) {
            (Memory::Library, _) => "allocated by the library",
            // The ends, which no message touches, are what is not.
            (Memory::Adopted, MemoryPath::Mapped | MemoryPath::Partly) => {
                "registered in place, and adopted: mapped by the peer"
            }
            (_, MemoryPath::ProcessVm) => {
                "registered in place: reached by process_vm_readv and process_vm_writev"
            }
            (_, MemoryPath::Agent) => "registered in place: copied by its process' service thread",
            (_, MemoryPath::Packets) => "registered in place: reached by packets",
            _ => "registered in place",
        }
    }
}

fn heap(bytes: usize) -> Box<[u8]> {
    vec![0; bytes.next_multiple_of(PAGE) + PAGE].into_boxed_slice()
}
