//! Locks on bytes of a file: held by an open file, and let go of by the kernel when that is closed, also by the end of its process.

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, fcntl};
use nix::libc::{self, c_short, off_t};
use std::io;
use std::os::fd::AsFd;

/// Locks a byte, which need not exist. False if another open file has it.
pub(crate) fn try_lock(file: impl AsFd, byte: u32) -> io::Result<bool> {
    match fcntl(file, FcntlArg::F_OFD_SETLK(&lock(byte))) {
        Ok(_) => Ok(true),
        Err(Errno::EAGAIN | Errno::EACCES) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// Whether another open file has a byte locked.
pub(crate) fn is_locked(file: impl AsFd, byte: u32) -> io::Result<bool> {
    let mut asked = lock(byte);
    fcntl(file, FcntlArg::F_OFD_GETLK(&mut asked))?;
    Ok(asked.l_type != libc::F_UNLCK as c_short)
}

fn lock(byte: u32) -> libc::flock {
    libc::flock {
        l_type: libc::F_WRLCK as c_short,
        l_whence: libc::SEEK_SET as c_short,
        l_start: off_t::from(byte),
        l_len: 1,
        l_pid: 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::memfd;
    use std::fs::File;
    use std::os::fd::AsRawFd;

    #[test]
    fn a_byte_is_locked_by_one_open_file_until_it_closes() {
        let file = memfd::create("tbrdma-test", 4096).unwrap();
        let path = format!("/proc/self/fd/{}", file.as_raw_fd());
        let open = || File::options().read(true).write(true).open(&path).unwrap();
        let (first, second) = (open(), open());
        assert!(!is_locked(&first, 0).unwrap());
        assert!(try_lock(&first, 0).unwrap() && try_lock(&first, 0).unwrap());
        assert!(!try_lock(&second, 0).unwrap() && try_lock(&second, 1).unwrap());
        assert!(is_locked(&second, 0).unwrap() && is_locked(&first, 1).unwrap());
        assert!(!is_locked(&second, 1).unwrap(), "its own");
        drop(first);
        assert!(!is_locked(&second, 0).unwrap());
    }
}
