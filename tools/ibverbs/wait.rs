//! Blocking calls: waiting at a descriptor as `read` would, which is how libibverbs waits for events.

use crate::errno::Errno;
use core::ffi::c_int;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags};
use std::os::fd::{AsFd, BorrowedFd};

/// A descriptor that is readable while one of these is. It can be made non-blocking, polled, and put in another set, as a program does with
/// the descriptor of a channel.
pub(crate) fn any_of(sources: &[BorrowedFd<'_>]) -> Result<Epoll, Errno> {
    let set = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
    for source in sources {
        set.add(source, EpollEvent::new(EpollFlags::EPOLLIN, 0))?;
    }
    Ok(set)
}

/// What `find` finds, or says is wrong; while it finds nothing, waits at the descriptor, or says `EAGAIN` if the program made that non-blocking.
pub(crate) fn until_found<T>(
    set: &Epoll,
    mut find: impl FnMut() -> Result<Option<T>, Errno>,
) -> Result<T, Errno> {
    loop {
        if let Some(found) = find()? {
            return Ok(found);
        }
        let flags = OFlag::from_bits_truncate(fcntl(&set.0, FcntlArg::F_GETFL)?);
        if flags.contains(OFlag::O_NONBLOCK) {
            return Err(Errno::EAGAIN);
        }
        match poll(&mut [PollFd::new(set.0.as_fd(), PollFlags::POLLIN)], PollTimeout::NONE) {
            Err(nix::errno::Errno::EINTR) if !signals_restart() => return Err(Errno(libc::EINTR)),
            Ok(_) | Err(nix::errno::Errno::EINTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// Do all of the program's signal handlers ask that interrupted calls go on (`SA_RESTART`)? The kernel honours that for `read`, for which the
/// program takes this wait, and not for `poll`, which it is. Signals of a thread's own faults do not interrupt waits.
fn signals_restart() -> bool {
    const FAULTS: [c_int; 5] = [libc::SIGSEGV, libc::SIGBUS, libc::SIGFPE, libc::SIGILL, libc::SIGTRAP];
    (1..=libc::SIGRTMAX()).filter(|signal| !FAULTS.contains(signal)).all(|signal| {
        // SAFETY: a structure of numbers and a set, for which zero is a value.
        let mut action: libc::sigaction = unsafe { core::mem::zeroed() };
        // SAFETY: only asks, and fills the structure.
        let asked = unsafe { libc::sigaction(signal, core::ptr::null(), &mut action) };
        let has_handler = action.sa_sigaction != libc::SIG_DFL && action.sa_sigaction != libc::SIG_IGN;
        asked != 0 || !has_handler || action.sa_flags & libc::SA_RESTART != 0
    })
}
