//! Bare shared memory, for those who measure what the machine can do without this library.

use crate::mem::Segment;
use crate::sync::AtomicU64;
use std::io;
use std::os::fd::BorrowedFd;

/// Words that two processes share: a memory file, mapped, with nothing of the library's machinery in between.
pub struct Shared {
    segment: Segment,
    words: usize,
}

impl Shared {
    /// Makes `len` zeroed bytes, rounded up to pages.
    ///
    /// # Errors
    /// The system has no memory file to give.
    pub fn create(len: usize) -> io::Result<Self> {
        let bytes = rounded(len);
        let segment = Segment::create("tbrdma-floor", bytes)?;
        Ok(Self { segment, words: bytes as usize / 8 })
    }

    /// Maps what process `pid` made with the same `len` and calls descriptor `fd`.
    ///
    /// # Errors
    /// There is no such process or descriptor, it is another user's, or not of that length.
    pub fn open(pid: u32, fd: i32, len: usize) -> io::Result<Self> {
        let file = std::fs::OpenOptions::new().read(true).write(true).open(format!("/proc/{pid}/fd/{fd}"))?;
        let bytes = rounded(len);
        Ok(Self { segment: Segment::map(file.into(), bytes)?, words: bytes as usize / 8 })
    }

    /// The descriptor of the memory file, in the process that made it.
    pub fn as_fd(&self) -> Option<BorrowedFd<'_>> {
        self.segment.file()
    }

    /// Copies bytes in at an offset; false, and nothing is done, if they do not fit there.
    pub fn write(&self, offset: usize, bytes: &[u8]) -> bool {
        let place = self.segment.place(offset as u64, bytes.len() as u64);
        place.is_some_and(|place| place.write_from(bytes) == bytes.len())
    }

    /// The words.
    pub fn words(&self) -> &[AtomicU64] {
        self.segment.array(0, self.words).unwrap_or(&[])
    }
}

fn rounded(len: usize) -> u64 {
    (len.max(1) as u64).next_multiple_of(4096)
}
