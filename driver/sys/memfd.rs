//! Sealed anonymous files: created here, handed to a peer, verified when received from one.

use nix::errno::Errno;
use nix::fcntl::{FallocateFlags, FcntlArg, SealFlag, fallocate, fcntl};
use nix::libc::off_t;
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::stat::{fstat, major, minor};
use nix::sys::statfs::{TMPFS_MAGIC, fstatfs};
use nix::unistd::ftruncate;
use std::io::{self, ErrorKind};
use std::os::fd::{AsFd, OwnedFd};

/// Creates an anonymous file of `len` zero bytes which nobody can ever resize.
///
/// A file that could shrink would let its other owner kill us with SIGBUS. `F_SEAL_SEAL` closes the list, because
/// a later `F_SEAL_FUTURE_WRITE` of the peer would make [`punch`] and new mappings fail. `F_SEAL_WRITE` is not set:
/// the file is there to be written.
pub(crate) fn create(name: &str, len: u64) -> io::Result<OwnedFd> {
    let size = off_t::try_from(len)
        .map_err(|_| io::Error::new(ErrorKind::InvalidInput, "a memory file of more than 2^63 bytes"))?;
    let fd = memfd_create(name, MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING)?;
    ftruncate(&fd, size)?;
    let seals = SealFlag::F_SEAL_SHRINK | SealFlag::F_SEAL_GROW | SealFlag::F_SEAL_SEAL;
    fcntl(&fd, FcntlArg::F_ADD_SEALS(seals))?;
    Ok(fd)
}

/// Gives the pages of `[offset, offset + len)` back to the machine; the range reads as zero afterwards.
pub(crate) fn punch(fd: impl AsFd, offset: u64, len: u64) -> io::Result<()> {
    let too_far = |_| io::Error::new(ErrorKind::InvalidInput, "a hole beyond 2^63 bytes");
    let offset = off_t::try_from(offset).map_err(too_far)?;
    let len = off_t::try_from(len).map_err(too_far)?;
    let mode = FallocateFlags::FALLOC_FL_PUNCH_HOLE | FallocateFlags::FALLOC_FL_KEEP_SIZE;
    loop {
        match fallocate(&fd, mode, offset, len) {
            Err(Errno::EINTR) => continue,
            other => return Ok(other?),
        }
    }
}

/// Checks that a received descriptor is a memory file of exactly `expected_len` bytes which cannot shrink under us.
///
/// Only ordinary (tmpfs) memory files pass: touching a huge page file raises SIGBUS when the pool of huge pages
/// is empty, however well it is sealed.
pub(crate) fn verify(fd: impl AsFd, expected_len: u64) -> io::Result<()> {
    let refuse = |why: &str| Err(io::Error::new(ErrorKind::InvalidData, why));
    let seals = match fcntl(&fd, FcntlArg::F_GET_SEALS) {
        Ok(bits) => SealFlag::from_bits_retain(bits),
        Err(Errno::EINVAL) => return refuse("the descriptor is not a memory file"),
        Err(error) => return Err(error.into()),
    };
    if !seals.contains(SealFlag::F_SEAL_SHRINK) {
        return refuse("the memory file is not sealed against shrinking");
    }
    if seals.contains(SealFlag::F_SEAL_WRITE) {
        return refuse("the memory file is sealed against writing");
    }
    if fstatfs(&fd)?.filesystem_type() != TMPFS_MAGIC {
        return refuse("the memory file is not of ordinary pages");
    }
    if u64::try_from(fstat(&fd)?.st_size) != Ok(expected_len) {
        return refuse("the memory file is not of the announced size");
    }
    Ok(())
}

/// Major and minor number of the device and the inode, as `/proc/self/maps` has them.
pub(crate) fn identity(fd: impl AsFd) -> io::Result<((u32, u32), u64)> {
    let stat = fstat(&fd)?;
    // Both numbers are of few bits on Linux.
    Ok(((major(stat.st_dev) as u32, minor(stat.st_dev) as u32), stat.st_ino))
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::sys::uio::{pread, pwrite};
    use std::os::fd::AsRawFd;

    #[test]
    fn a_created_file_verifies_and_keeps_its_size() {
        let fd = create("tbrdma-test", 3 * 4096).unwrap();
        verify(&fd, 3 * 4096).unwrap();
        assert_eq!(verify(&fd, 4096).unwrap_err().kind(), ErrorKind::InvalidData);
        assert_eq!(ftruncate(&fd, 4096), Err(Errno::EPERM));
        assert_eq!(ftruncate(&fd, 4 * 4096), Err(Errno::EPERM));
        let more = fcntl(&fd, FcntlArg::F_ADD_SEALS(SealFlag::F_SEAL_WRITE));
        assert_eq!(more, Err(Errno::EPERM));
    }

    #[test]
    fn created_descriptors_close_on_exec() {
        let fd = create("tbrdma-test", 1).unwrap();
        assert_eq!(fcntl(&fd, FcntlArg::F_GETFD), Ok(nix::libc::FD_CLOEXEC), "{}", fd.as_raw_fd());
    }

    #[test]
    fn a_punched_hole_reads_as_zero_and_frees_pages() {
        let fd = create("tbrdma-test", 8 * 4096).unwrap();
        pwrite(&fd, &[7; 8 * 4096], 0).unwrap();
        let before = fstat(&fd).unwrap().st_blocks;
        punch(&fd, 4096, 2 * 4096).unwrap();
        let mut bytes = [1; 4 * 4096];
        pread(&fd, &mut bytes, 0).unwrap();
        assert!(bytes[..4096].iter().all(|&b| b == 7));
        assert!(bytes[4096..3 * 4096].iter().all(|&b| b == 0));
        assert!(bytes[3 * 4096..].iter().all(|&b| b == 7));
        assert!(fstat(&fd).unwrap().st_blocks < before);
        verify(&fd, 8 * 4096).unwrap();
    }

    #[test]
    fn unsealed_and_foreign_descriptors_are_refused() {
        let bare = memfd_create("tbrdma-test", MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING).unwrap();
        ftruncate(&bare, 4096).unwrap();
        assert_eq!(verify(&bare, 4096).unwrap_err().kind(), ErrorKind::InvalidData);
        fcntl(&bare, FcntlArg::F_ADD_SEALS(SealFlag::F_SEAL_SHRINK | SealFlag::F_SEAL_WRITE)).unwrap();
        assert_eq!(verify(&bare, 4096).unwrap_err().kind(), ErrorKind::InvalidData);
        let file = std::fs::File::open("/proc/self/exe").unwrap();
        assert_eq!(verify(&file, 4096).unwrap_err().kind(), ErrorKind::InvalidData);
    }
}
