//! What a segment's bytes are on Linux: a sealed memory file, which others can map as well.

use super::Segment;
use crate::sys::memfd;
use memmap2::{Advice, MmapOptions, MmapRaw};
use std::io::{self, ErrorKind};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

/// Major and minor number of a device, and an inode on it.
pub(crate) type Identity = ((u32, u32), u64);

/// The file of a segment, at its creator; nothing elsewhere.
#[derive(Debug)]
pub(super) struct Backing(Option<File>);

#[derive(Debug)]
struct File {
    /// Kept to give pages back and to show them elsewhere.
    fd: OwnedFd,
    /// Device and inode, as the kernel lists them with a mapping.
    identity: Identity,
}

impl Backing {
    /// A new file of `len` zero bytes, and where it is mapped.
    pub(super) fn create(name: &str, len: u64) -> io::Result<(MmapRaw, Self)> {
        let fd = memfd::create(name, len)?;
        let map = map(&fd, len)?;
        let identity = memfd::identity(&fd)?;
        Ok((map, Self(Some(File { fd, identity }))))
    }

    /// Gives the pages of a range back, which is inside and not empty.
    pub(super) fn punch(&self, _map: &MmapRaw, offset: u64, len: u64) -> io::Result<()> {
        match &self.0 {
            Some(file) => memfd::punch(&file.fd, offset, len),
            None => {
                Err(io::Error::new(ErrorKind::Unsupported, "only the creator of a segment gives pages back"))
            }
        }
    }
}

/// What only a file can do.
impl Segment {
    /// Maps a received file, after making sure that it is `len` bytes long and cannot shrink; the descriptor is closed.
    pub(crate) fn map(fd: OwnedFd, len: u64) -> io::Result<Self> {
        memfd::verify(&fd, len)?;
        Ok(Self { map: map(&fd, len)?, backing: Backing(None) })
    }

    /// A descriptor of the file, at its creator: what peers are given to map.
    pub(crate) fn share(&self) -> io::Result<OwnedFd> {
        let file = self.file().ok_or_else(|| io::Error::new(ErrorKind::Unsupported, "not the creator"))?;
        file.try_clone_to_owned()
    }

    /// The file, at its creator.
    pub(crate) fn file(&self) -> Option<BorrowedFd<'_>> {
        self.backing.0.as_ref().map(|file| file.fd.as_fd())
    }

    /// How the kernel names the file, at its creator.
    pub(crate) fn identity(&self) -> Option<Identity> {
        self.backing.0.as_ref().map(|file| file.identity)
    }
}

/// Maps all `len` bytes of `fd`, shared.
fn map(fd: &OwnedFd, len: u64) -> io::Result<MmapRaw> {
    let len = super::segment::mappable(len)?;
    // Nothing is reserved: a sparse file may be larger than memory and swap together.
    let map = MmapOptions::new()
        .len(len)
        .no_reserve_swap()
        .map_raw(fd.as_raw_fd())
        .map_err(|error| io::Error::new(error.kind(), format!("cannot map {len} bytes: {error}")))?;
    // Buffers would make core dumps huge. A kernel that does not know this keeps dumping them, nothing else.
    let _ = map.advise(Advice::DontDump);
    Ok(map)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicU64, Ordering};

    /// A segment and another mapping of it.
    fn twice(len: u64) -> (Segment, Segment) {
        let ours = Segment::create("tbrdma-test", len).unwrap();
        let fd = ours.share().unwrap();
        (ours, Segment::map(fd, len).unwrap())
    }

    #[test]
    fn both_mappings_are_the_same_memory() {
        let (ours, theirs) = twice(8192);
        assert_ne!(ours.base(), theirs.base());
        ours.get::<AtomicU64>(8184).unwrap().store(77, Ordering::Release);
        assert_eq!(theirs.get::<AtomicU64>(8184).unwrap().load(Ordering::Acquire), 77);
        ours.place(100, 5).unwrap().write_from(b"hello");
        let mut bytes = [0; 5];
        theirs.place(100, 5).unwrap().read_into(&mut bytes);
        assert_eq!(&bytes, b"hello");
    }

    #[test]
    fn punching_zeroes_for_everybody_and_is_the_creators() {
        let (ours, theirs) = twice(3 * 4096);
        let (ours_word, theirs_word) =
            (ours.get::<AtomicU64>(4096).unwrap(), theirs.get::<AtomicU64>(4096).unwrap());
        ours_word.store(5, Ordering::SeqCst);
        ours.punch(4096, 4096).unwrap();
        assert_eq!(theirs_word.load(Ordering::SeqCst), 0);
        assert_eq!(theirs.punch(0, 4096).unwrap_err().kind(), ErrorKind::Unsupported);
    }

    #[test]
    fn a_sparse_segment_may_be_larger_than_memory() {
        let len = 64 << 30;
        let (ours, theirs) = twice(len);
        ours.get::<AtomicU64>(len - 8).unwrap().store(1, Ordering::SeqCst);
        assert_eq!(theirs.get::<AtomicU64>(len - 8).unwrap().load(Ordering::SeqCst), 1);
    }

    #[test]
    fn a_file_of_another_size_is_not_mapped() {
        let ours = Segment::create("tbrdma-test", 4096).unwrap();
        let fd = ours.share().unwrap();
        assert_eq!(Segment::map(fd, 8192).unwrap_err().kind(), ErrorKind::InvalidData);
    }
}
