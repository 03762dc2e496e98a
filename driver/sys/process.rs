//! Who we are, who the peer is, and where a thread runs.

use super::random::random_u64;
use nix::libc;
use nix::unistd::{geteuid, getpid};
use std::io;
use std::os::fd::{FromRawFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

/// The id of this process.
pub(crate) fn process_id() -> i32 {
    getpid().as_raw()
}

/// The user whose rights this process has.
pub(crate) fn effective_user_id() -> u32 {
    geteuid().as_raw()
}

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

/// Lets another thread run on this CPU.
pub(crate) fn yield_now() {
    // Linux's sched_yield cannot fail.
    let _ = nix::sched::sched_yield();
}

/// Bits of a process token below the process id. Linux never gives ids of more than 22 bits (`PID_MAX_LIMIT`).
const TOKEN_RANDOM_BITS: u32 = 42;

/// A number that tells this process from every other one, also from one that gets the same id later. Never 0.
///
/// It is the process id above 42 random bits. One word holds both, so that a child of `fork` sees that an inherited
/// token is not its own, and no lock exists which a fork could leave locked for ever.
pub(crate) fn process_token() -> u64 {
    static TOKEN: AtomicU64 = AtomicU64::new(0);
    let ours = u64::from(process_id().unsigned_abs());
    let mut known = TOKEN.load(Ordering::Relaxed);
    while known >> TOKEN_RANDOM_BITS != ours {
        // The token is a name and no secret: without random bits, the time tells two lives of one id apart.
        let bits = random_u64().unwrap_or_else(|_| {
            SystemTime::now()
                .duration_since(UNIX_EPOCH)
                .map_or(0, |now| (now.as_nanos() as u64) << (u64::BITS - TOKEN_RANDOM_BITS))
        });
        let fresh = ours << TOKEN_RANDOM_BITS | bits >> (u64::BITS - TOKEN_RANDOM_BITS);
        match TOKEN.compare_exchange(known, fresh, Ordering::Relaxed, Ordering::Relaxed) {
            Ok(_) => known = fresh,
            Err(other) => known = other,
        }
    }
    known
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::wait::wait_readable;
    use nix::sys::wait::waitpid;
    use nix::unistd::{ForkResult, fork, pipe, read, write};
    use std::os::fd::AsFd;
    use std::time::Duration;

    #[test]
    fn one_token_a_process_and_another_after_fork() {
        let token = process_token();
        let threads: Vec<_> = (0..4).map(|_| std::thread::spawn(process_token)).collect();
        assert!(threads.into_iter().all(|thread| thread.join().unwrap() == token));
        let (reader, writer) = pipe().unwrap();
        // SAFETY: the child makes system calls and touches atomics only, then leaves without running destructors.
        match unsafe { fork() }.unwrap() {
            ForkResult::Child => {
                let theirs = process_token();
                let same = process_token() == theirs;
                let _ = write(&writer, &(if same { theirs } else { 0 }).to_ne_bytes());
                // SAFETY: ends the child, which owns nothing that must be cleaned up.
                unsafe { libc::_exit(0) }
            }
            ForkResult::Parent { child } => {
                let mut theirs = [0; 8];
                assert_eq!(read(&reader, &mut theirs), Ok(8));
                let theirs = u64::from_ne_bytes(theirs);
                assert!(theirs != 0 && theirs != token);
                assert_eq!(theirs >> TOKEN_RANDOM_BITS, child.as_raw() as u64);
                waitpid(child, None).unwrap();
            }
        }
    }

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

    #[test]
    fn ids_are_those_of_the_process() {
        assert_eq!(process_id() as u32, std::process::id());
        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        let uids: Vec<u32> = status
            .lines()
            .find_map(|line| line.strip_prefix("Uid:"))
            .map(|line| line.split_whitespace().filter_map(|id| id.parse().ok()).collect())
            .unwrap();
        assert_eq!(effective_user_id(), uids[1]);
    }
}
