//! The ends of a process that run no destructors: `exit`, and signals that nobody handles.
//!
//! The handler of a signal does no more than write a byte to a pipe; a thread of ours, which takes no signals itself, waits for that. What the
//! signal would have done it does afterwards. A signal that the program handles or ignores is left alone.

use super::threads::OwnThread;
use nix::fcntl::{FcntlArg, FdFlag, OFlag, fcntl};
use nix::libc;
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, kill, sigaction};
use nix::unistd::{getpid, pipe, read};
use std::io;
use std::os::fd::{IntoRawFd, OwnedFd};
use std::sync::atomic::{AtomicI32, Ordering};
use std::sync::mpsc::sync_channel;
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::Duration;

/// What ends a program that somebody wants to end.
const SIGNALS: [Signal; 3] = [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP];

/// What is to be done before the end.
static LAST: OnceLock<fn()> = OnceLock::new();
/// For the handler: the pipe, and the process that has the thread. A child of it has not.
static BELL: AtomicI32 = AtomicI32::new(-1);
static PROCESS: AtomicI32 = AtomicI32::new(0);

/// Has `last` called, once, before the process ends by `exit` or by a signal that nobody handles. A signal waits for it no longer than `patience`. A child
/// of fork does not call it. Only the first call of this function in a process has an effect.
pub(crate) fn before_the_end(last: fn(), patience: Duration) -> io::Result<()> {
    static STARTED: Mutex<bool> = Mutex::new(false);
    let mut started = STARTED.lock().unwrap_or_else(PoisonError::into_inner);
    if *started {
        return Ok(());
    }
    let (heard, bell) = pipe()?;
    for end in [&heard, &bell] {
        fcntl(end, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC))?;
    }
    fcntl(&bell, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
    let own = OwnThread::announce();
    let thread = std::thread::Builder::new().name("tbrdma-end".to_owned());
    thread.spawn(move || {
        own.begin();
        listen(&heard, last, patience);
    })?;
    let _ = LAST.set(last);
    // Never closed: a handler may run at any time.
    BELL.store(bell.into_raw_fd(), Ordering::Relaxed);
    PROCESS.store(getpid().as_raw(), Ordering::Relaxed);
    // SAFETY: the function lives as long as the program, and panics in it do not leave it.
    unsafe { libc::atexit(on_exit) };
    for signal in SIGNALS {
        handle_if_nobody_does(signal)?;
    }
    *started = true;
    Ok(())
}

/// Installs our handler where nothing is done at the signal but what the system does.
fn handle_if_nobody_does(signal: Signal) -> io::Result<()> {
    // A second signal acts at once. Calls that are interrupted go on.
    let flags = SaFlags::SA_RESETHAND | SaFlags::SA_RESTART;
    let ours = SigAction::new(SigHandler::Handler(on_signal), flags, SigSet::empty());
    // SAFETY: the handler makes async-signal-safe calls only, and lives as long as the program.
    let before = unsafe { sigaction(signal, &ours) }?;
    if !matches!(before.handler(), SigHandler::SigDfl) {
        // SAFETY: what was there a moment ago.
        unsafe { sigaction(signal, &before) }?;
    }
    Ok(())
}

extern "C" fn on_signal(signal: libc::c_int) {
    let errno = nix::errno::Errno::last_raw();
    // SAFETY: a call without arguments, allowed in handlers.
    if unsafe { libc::getpid() } == PROCESS.load(Ordering::Relaxed) {
        let byte = signal as u8;
        // SAFETY: one byte, to a descriptor that is never closed; allowed in handlers.
        unsafe { libc::write(BELL.load(Ordering::Relaxed), (&raw const byte).cast(), 1) };
    } else {
        // A child, which inherited the handler and not the thread. What the system does comes when this returns.
        // SAFETY: allowed in handlers.
        unsafe { libc::raise(signal) };
    }
    nix::errno::Errno::set_raw(errno);
}

extern "C" fn on_exit() {
    if getpid().as_raw() == PROCESS.load(Ordering::Relaxed)
        && let Some(last) = LAST.get()
    {
        // The program is ending; there is nobody to tell of a panic.
        let _ = std::panic::catch_unwind(last);
    }
}

/// The thread.
fn listen(heard: &OwnedFd, last: fn(), patience: Duration) {
    // Signals are for the program's threads.
    let _ = SigSet::all().thread_block();
    let mut byte = [0];
    loop {
        match read(heard, &mut byte) {
            Ok(1) => {}
            Err(nix::errno::Errno::EINTR) => continue,
            _ => return,
        }
        let Ok(signal) = Signal::try_from(i32::from(byte[0])) else { continue };
        // On a thread of its own, so that one that hangs does not keep the process.
        let (done, is_done) = sync_channel::<()>(1);
        let worker = std::thread::Builder::new().name("tbrdma-ending".to_owned());
        match worker.spawn(move || {
            last();
            let _ = done.send(());
        }) {
            Ok(_) => drop(is_done.recv_timeout(patience)),
            Err(_) => last(),
        }
        // What the system does has been in force again since the handler ran.
        let mut only = SigSet::empty();
        only.add(signal);
        let _ = kill(getpid(), signal);
        let _ = only.thread_unblock();
    }
}
