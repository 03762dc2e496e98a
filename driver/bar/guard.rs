//! The guard over mapped pages that may be taken away while they are in use: whoever touches such a page then gets the signal SIGBUS, which ends a
//! process that does not expect it.
//!
//! The guard is a handler of that signal, installed when the first pages are put under it, and a table of ranges. If the address that was touched
//! lies in a range of ours, the handler shows zeroes of the process' own in the place of the whole range, marks the range as lost, and returns: the
//! access is made again and finds a zero, or writes where nobody looks. Any other SIGBUS goes to the handler that was there before, or ends the process as
//! it would have.
//!
//! What the handler may do is little: a thread may be anywhere when it runs, even in an allocation. So the table is made of atomics and is never
//! freed, its entries are versioned, the handler takes no lock, and the one system call that it makes is mmap, of which the C library makes
//! nothing but that call.

use crate::sync::{AtomicU64, Ordering, fence};
use crate::sys::mapping::{self, Show};
use nix::errno::Errno;
use nix::libc;
use nix::sys::signal::{SigSet, Signal};
use std::io;
use std::mem::MaybeUninit;
use std::ptr::null_mut;
use std::sync::{Mutex, OnceLock, PoisonError};

/// The most ranges of a process.
const MOST: usize = 256;

/// A range, or none. It is changed under [`CHANGES`] and read without it.
struct Entry {
    /// Odd while the range changes; grows with each change and so is never the same for two ranges.
    version: AtomicU64,
    /// Address of the first page; 0 where there is no range.
    start: AtomicU64,
    /// Address behind the last page.
    end: AtomicU64,
    /// Not 0 once its pages are gone.
    lost: AtomicU64,
}

impl Entry {
    const fn none() -> Self {
        Self {
            version: AtomicU64::new(0),
            start: AtomicU64::new(0),
            end: AtomicU64::new(0),
            lost: AtomicU64::new(0),
        }
    }

    /// The range, if this is one and is not being changed.
    fn read(&self) -> Option<(u64, u64)> {
        let version = self.version.load(Ordering::Acquire);
        let range = (self.start.load(Ordering::Relaxed), self.end.load(Ordering::Relaxed));
        fence(Ordering::Acquire);
        let is_whole = version.is_multiple_of(2) && self.version.load(Ordering::Relaxed) == version;
        (is_whole && range.0 != 0).then_some(range)
    }

    /// Makes it another range. Only under [`CHANGES`].
    fn change(&self, (start, end): (u64, u64)) {
        let version = self.version.load(Ordering::Relaxed);
        self.version.store(version + 1, Ordering::Relaxed);
        fence(Ordering::Release);
        self.start.store(start, Ordering::Relaxed);
        self.end.store(end, Ordering::Relaxed);
        self.lost.store(0, Ordering::Relaxed);
        self.version.store(version + 2, Ordering::Release);
    }

    /// Shows zeroes in the place of a range that the entry was read to be.
    ///
    /// # Safety
    /// Whoever holds the guard of this range does so until the call returns.
    unsafe fn replace(&self, (start, end): (u64, u64)) -> io::Result<()> {
        // First the mark: who finds a zero in the pages and looks at the mark then must find that as well.
        self.lost.store(1, Ordering::Release);
        // SAFETY: the range is a mapping that was given to the guard, whose holder expects this; addresses fit a usize, which they came from.
        unsafe { mapping::replace(start as usize, (end - start) as usize, Show::Zeroes) }
    }
}

static TABLE: [Entry; MOST] = [const { Entry::none() }; MOST];

/// Held while the table is changed. True once the handler is installed.
static CHANGES: Mutex<bool> = Mutex::new(false);

/// What was done at SIGBUS before.
static BEFORE: OnceLock<libc::sigaction> = OnceLock::new();

/// A range under the guard, for as long as this lives.
#[derive(Debug)]
pub(super) struct Guard(&'static Entry);

impl std::fmt::Debug for Entry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Entry").field(&self.read()).finish()
    }
}

impl Guard {
    /// Puts the pages that have a byte of a range under the guard. The calling thread, and those that it starts later, no longer hold SIGBUS back: where that
    /// is held back, the kernel ends the process in spite of all handlers.
    ///
    /// # Errors
    /// There are too many of them, or the system refuses the handler.
    ///
    /// # Safety
    /// The pages are a mapping of the caller's, for as long as the guard lives, and it is content with finding zeroes there.
    pub(super) unsafe fn new(address: usize, len: usize) -> io::Result<Self> {
        let page = mapping::page_size();
        let end = address.checked_add(len).and_then(|end| end.checked_next_multiple_of(page));
        let end = end.ok_or(io::ErrorKind::InvalidInput)?;
        let mut installed = CHANGES.lock().unwrap_or_else(PoisonError::into_inner);
        if !*installed {
            install()?;
            *installed = true;
        }
        let free = TABLE.iter().find(|entry| entry.read().is_none());
        let free =
            free.ok_or_else(|| io::Error::other(format!("more than {MOST} windows in one process")))?;
        let mut ours = SigSet::empty();
        ours.add(Signal::SIGBUS);
        ours.thread_unblock()?;
        free.change(((address - address % page) as u64, end as u64));
        Ok(Self(free))
    }

    /// Whether the pages are gone. What was read before this is asked counts only if it is false.
    #[inline]
    pub(super) fn is_lost(&self) -> bool {
        self.0.lost.load(Ordering::Acquire) != 0
    }

    /// Gives the pages back, so that nothing of the process holds what they show: others stand there from now on, as after their loss.
    pub(super) fn give_back(&self) -> io::Result<()> {
        match self.0.read() {
            // SAFETY: the guard of the range is borrowed.
            Some(range) => unsafe { self.0.replace(range) },
            None => Ok(()),
        }
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        let _changes = CHANGES.lock().unwrap_or_else(PoisonError::into_inner);
        self.0.change((0, 0));
    }
}

/// Installs the handler. It is never taken away: another may have been put around it meanwhile.
fn install() -> io::Result<()> {
    // SAFETY: all zero is a valid `sigaction`: the default action, no flags, no signals held back.
    let mut before: libc::sigaction = unsafe { MaybeUninit::zeroed().assume_init() };
    // SAFETY: asks for the action and changes nothing; `before` has room for it.
    Errno::result(unsafe { libc::sigaction(libc::SIGBUS, null_mut(), &raw mut before) })?;
    let before = BEFORE.get_or_init(|| before);
    // With the signals held back that the other handler wants to be, since it is called from ours; on its own stack, if the thread has one for
    // signals: the standard library's handler looks for stacks that are full.
    let ours = libc::sigaction {
        sa_sigaction: on_bus_error as *const () as usize,
        sa_flags: libc::SA_SIGINFO | libc::SA_ONSTACK | (before.sa_flags & libc::SA_NODEFER),
        ..*before
    };
    // SAFETY: the handler lives as long as the program, and makes only calls that a handler may make.
    Errno::result(unsafe { libc::sigaction(libc::SIGBUS, &raw const ours, null_mut()) })?;
    Ok(())
}

extern "C" fn on_bus_error(signal: libc::c_int, info: *mut libc::siginfo_t, context: *mut libc::c_void) {
    let errno = Errno::last_raw();
    // SAFETY: the kernel calls with the signal's own description (SA_SIGINFO), which is ours until we return.
    let said = unsafe { &*info };
    let code = said.si_code;
    // An address that has no page, one whose device failed, a page of broken memory. Another page in the place of a badly aligned word would not help,
    // and a signal that somebody has sent is about no address.
    if matches!(code, libc::BUS_ADRERR | libc::BUS_OBJERR | libc::BUS_MCEERR_AR) {
        // SAFETY: with these codes the description has an address.
        let address = unsafe { said.si_addr() }.addr() as u64;
        for entry in &TABLE {
            let range = entry.read().filter(|(start, end)| (*start..*end).contains(&address));
            // SAFETY: this thread is in the middle of an access to the range, so it has borrowed the guard.
            if range.is_some_and(|range| unsafe { entry.replace(range) }.is_ok()) {
                Errno::set_raw(errno);
                return;
            }
        }
    }
    pass_on(code, signal, info, context);
    Errno::set_raw(errno);
}

/// Does what would have been done without us.
fn pass_on(code: libc::c_int, signal: libc::c_int, info: *mut libc::siginfo_t, context: *mut libc::c_void) {
    let Some(before) = BEFORE.get() else { return };
    // Sent by a process, and not made by the processor.
    let is_sent = code <= 0;
    match before.sa_sigaction {
        libc::SIG_IGN if is_sent => {}
        libc::SIG_IGN | libc::SIG_DFL => {
            // SAFETY: all zero is the default action.
            let plain: libc::sigaction = unsafe { MaybeUninit::zeroed().assume_init() };
            // SAFETY: what was there before, or, where it was ignored, what the kernel does in spite of that. The access is made again, and ends the
            // process.
            unsafe { libc::sigaction(signal, &raw const plain, null_mut()) };
            if is_sent {
                // SAFETY: a call that a handler may make. The signal is held back until we return.
                unsafe { libc::raise(signal) };
            }
        }
        handler if before.sa_flags & libc::SA_SIGINFO != 0 => {
            // SAFETY: the program installed this as a function of three arguments.
            let handler: extern "C" fn(libc::c_int, *mut libc::siginfo_t, *mut libc::c_void) =
                unsafe { std::mem::transmute(handler) };
            handler(signal, info, context);
        }
        handler => {
            // SAFETY: the program installed this as a function of one argument.
            let handler: extern "C" fn(libc::c_int) = unsafe { std::mem::transmute(handler) };
            handler(signal);
        }
    }
}
