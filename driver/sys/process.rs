//! Who we are, who the peer is, and where a thread runs.

use super::random::random_u64;
use nix::unistd::{geteuid, getpid};
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

/// Lets another thread run on this CPU.
pub(crate) fn yield_now() {
    std::thread::yield_now();
}

/// Bits of a process token below the process id. Linux never gives ids of more than 22 bits (`PID_MAX_LIMIT`), others give
/// smaller ones.
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
    use nix::libc;
    use nix::sys::wait::waitpid;
    use nix::unistd::{ForkResult, fork, pipe, read, write};

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
    fn ids_are_those_of_the_process() {
        assert_eq!(process_id() as u32, std::process::id());
        let said = std::process::Command::new("id").arg("-u").output().unwrap();
        assert_eq!(effective_user_id().to_string(), String::from_utf8(said.stdout).unwrap().trim());
    }
}
