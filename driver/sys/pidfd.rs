//! Descriptors that stand for processes.

use nix::libc;
use std::io;
use std::os::fd::{FromRawFd, OwnedFd, RawFd};

/// A descriptor that becomes readable when process `pid` ends. `Unsupported` on kernels before 5.3.
pub(crate) fn pidfd_open(pid: i32) -> io::Result<OwnedFd> {
    // SAFETY: the call takes two integers and touches no memory of ours.
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, libc::c_long::from(pid), 0 as libc::c_long) };
    match RawFd::try_from(fd) {
        // SAFETY: the kernel has just opened `fd` for us (close-on-exec, as pidfds always are); nobody else owns it.
        Ok(fd) if fd >= 0 => Ok(unsafe { OwnedFd::from_raw_fd(fd) }),
        _ => Err(io::Error::last_os_error()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::wait::wait_readable;
    use std::os::fd::AsFd;
    use std::time::Duration;

    #[test]
    fn a_pidfd_tells_when_the_process_ends() {
        let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        let fd = pidfd_open(child.id() as i32).unwrap();
        assert_eq!(wait_readable(&[fd.as_fd()], Some(Duration::from_millis(10))).unwrap(), 0);
        child.kill().unwrap();
        assert_eq!(wait_readable(&[fd.as_fd()], Some(Duration::from_secs(20))).unwrap(), 1);
        child.wait().unwrap();
        assert!(pidfd_open(-1).is_err());
    }
}
