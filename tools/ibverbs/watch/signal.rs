//! The signal on which the trace is told: what it would do without us, it does afterwards.
//!
//! The handler does no more than add to a counter of the kernel's; a thread of ours, which takes no signals itself, waits for that and writes. A program that
//! has a handler of its own for the signal keeps it, and is not asked.

use crate::{clock, log};
use core::ffi::{c_int, c_void};
use core::ptr::null_mut;
use nix::sys::eventfd::{EfdFlags, EventFd};
use std::os::fd::AsRawFd;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicI32, Ordering};

/// What waits for the signal.
struct Asked {
    counter: EventFd,
    signal: c_int,
    /// It does nothing to the program.
    ignored: bool,
}

static ASKED: OnceLock<Asked> = OnceLock::new();
/// For the handler: the counter, and the process that has the thread. A child of it has not.
static COUNTER: AtomicI32 = AtomicI32::new(-1);
static PROCESS: AtomicI32 = AtomicI32::new(0);

/// From now on, tells on this signal. It is left alone where the program handles it.
pub(super) fn listen(signal: c_int) {
    let Some(ignored) = disposition(signal) else { return };
    let Ok(counter) = EventFd::from_flags(EfdFlags::EFD_CLOEXEC) else {
        log::tell(&"the trace cannot be asked for by a signal: no descriptor is left");
        return;
    };
    let asked = ASKED.get_or_init(|| Asked { counter, signal, ignored });
    COUNTER.store(asked.counter.as_raw_fd(), Ordering::Relaxed);
    PROCESS.store(std::process::id().cast_signed(), Ordering::Relaxed);
    if clock::start("tbrdma-trace", || answer(asked)) {
        handle(signal, on_signal as *const () as usize);
    }
}

/// Whether the signal does nothing to the program; `None` if it handles it itself.
fn disposition(signal: c_int) -> Option<bool> {
    match current(signal)? {
        libc::SIG_DFL => Some(matches!(signal, libc::SIGURG | libc::SIGWINCH)),
        libc::SIG_IGN => Some(true),
        _ => None,
    }
}

/// What is done at the signal now.
fn current(signal: c_int) -> Option<usize> {
    // SAFETY: a structure of numbers and a set, for which zero is a value.
    let mut action: libc::sigaction = unsafe { core::mem::zeroed() };
    // SAFETY: only asks, and fills the structure.
    (unsafe { libc::sigaction(signal, core::ptr::null(), &mut action) } == 0).then_some(action.sa_sigaction)
}

fn handle(signal: c_int, handler: usize) {
    // SAFETY: as above.
    let mut action: libc::sigaction = unsafe { core::mem::zeroed() };
    action.sa_sigaction = handler;
    // Calls that are interrupted go on.
    action.sa_flags = libc::SA_RESTART;
    // SAFETY: the handler makes async-signal-safe calls only, and the library is never unloaded.
    unsafe { libc::sigaction(signal, &action, null_mut()) };
}

extern "C" fn on_signal(signal: c_int) {
    let errno = nix::errno::Errno::last_raw();
    // SAFETY: a call without arguments, allowed in handlers.
    if unsafe { libc::getpid() } == PROCESS.load(Ordering::Relaxed) {
        let one = 1_u64;
        let one: *const c_void = (&raw const one).cast();
        // SAFETY: eight bytes; allowed in handlers.
        unsafe { libc::write(COUNTER.load(Ordering::Relaxed), one, 8) };
    } else if !ASKED.get().is_some_and(|asked| asked.ignored) {
        // A child, which inherited the handler and not the thread: as if neither were there. It comes when this returns.
        handle(signal, libc::SIG_DFL);
        // SAFETY: allowed in handlers.
        unsafe { libc::raise(signal) };
    }
    nix::errno::Errno::set_raw(errno);
}

/// The thread: tells, and then lets the signal do what it does.
fn answer(asked: &Asked) {
    while asked.counter.read().is_ok() {
        super::tell_trace();
        let ours = on_signal as *const () as usize;
        // Meanwhile the program may have come by a handler.
        if asked.ignored || current(asked.signal) != Some(ours) {
            continue;
        }
        handle(asked.signal, libc::SIG_DFL);
        // SAFETY: our own process.
        unsafe { libc::kill(PROCESS.load(Ordering::Relaxed), asked.signal) };
        let mut only = nix::sys::signal::SigSet::empty();
        if let Ok(signal) = nix::sys::signal::Signal::try_from(asked.signal) {
            only.add(signal);
            // Where all other threads block it, this one takes it; most signals end the process here.
            let _ = only.thread_unblock();
            let _ = only.thread_block();
        }
        handle(asked.signal, ours);
    }
}
