//! `Guarded`: a part of a file or a device that is mapped for as long as this lives, and whose loss is a fact to be asked for and not a signal.

use super::guard::Guard;
use crate::mem::Place;
use memmap2::{MmapOptions, MmapRaw};
use std::io::{self, ErrorKind};
use std::os::fd::{AsFd, AsRawFd};

/// A shared mapping of a memory file, of a device's memory or of its registers.
#[derive(Debug)]
pub(crate) struct Guarded {
    // Ends before the mapping does.
    guard: Guard,
    pages: MmapRaw,
}

impl Guarded {
    /// Maps `len` bytes from `offset` on, to be read and written.
    ///
    /// # Errors
    /// The system does not map these; `len` is zero.
    pub(crate) fn map(fd: impl AsFd, offset: u64, len: usize) -> io::Result<Self> {
        if len == 0 {
            return Err(io::Error::new(ErrorKind::InvalidInput, "a mapping of no bytes"));
        }
        let pages = MmapOptions::new().offset(offset).len(len).map_raw(fd.as_fd().as_raw_fd())?;
        // SAFETY: the mapping is ours and lives longer than its guard, which is declared before it. It is reached through places and
        // volatile accesses alone, for which any bytes will do.
        let guard = unsafe { Guard::new(pages.as_ptr().addr(), len) }?;
        // What the guard does, it does by address.
        pages.as_mut_ptr().expose_provenance();
        Ok(Self { guard, pages })
    }

    /// The bytes, to be copied from and to.
    #[inline]
    pub(crate) fn place(&self) -> Place<'_> {
        // SAFETY: mapped readable and writable while borrowed, and nobody makes a reference to a byte of it but to atomics.
        unsafe { Place::new(self.pages.as_mut_ptr(), self.pages.len()) }
    }

    /// Whether the bytes are gone: the file was cut short, or the device taken away, or [`give_back`](Self::give_back) was called. Every copy since is a
    /// copy of zeroes, or to nowhere. What was read counts only if this is false afterwards.
    #[inline]
    pub(crate) fn is_lost(&self) -> bool {
        self.guard.is_lost()
    }

    /// Lets go of the file or the device at once, whoever is still reading or writing: those find zeroes.
    pub(crate) fn give_back(&self) -> io::Result<()> {
        self.guard.give_back()
    }

    /// Reads a 32-bit register in one access. `None` where there is none.
    pub(crate) fn read_u32(&self, offset: usize) -> Option<u32> {
        let register = self.register(offset)?;
        // SAFETY: aligned, and inside the mapping.
        let value = unsafe { register.read_volatile() };
        Some(u32::from_le(value))
    }

    /// Writes a 32-bit register in one access. False where there is none.
    pub(crate) fn write_u32(&self, offset: usize, value: u32) -> bool {
        let Some(register) = self.register(offset) else { return false };
        // SAFETY: aligned, and inside the mapping, which is writable.
        unsafe { register.write_volatile(value.to_le()) };
        true
    }

    fn register(&self, offset: usize) -> Option<*mut u32> {
        let part = self.place().sub(offset, size_of::<u32>())?;
        let register = part.as_ptr().cast::<u32>();
        register.is_aligned().then_some(register)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::libc;
    use nix::sys::memfd::{MFdFlags, memfd_create};
    use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};
    use nix::unistd::ftruncate;
    use std::os::fd::OwnedFd;
    use std::os::unix::process::ExitStatusExt;
    use std::process::{Command, ExitStatus};

    const PAGE: usize = 4096;

    fn file(bytes: usize) -> OwnedFd {
        let fd = memfd_create("tbrdma-test", MFdFlags::MFD_CLOEXEC).unwrap();
        ftruncate(&fd, bytes as i64).unwrap();
        fd
    }

    #[test]
    fn a_file_that_is_cut_short_ends_in_zeroes_and_a_mark() {
        let fd = file(4 * PAGE);
        let (ours, theirs) =
            (Guarded::map(&fd, 0, 4 * PAGE).unwrap(), Guarded::map(&fd, PAGE as u64, PAGE).unwrap());
        ours.place().write_from(&[7; 4 * PAGE]);
        let mut byte = [0];
        theirs.place().read_into(&mut byte);
        assert_eq!((byte, ours.is_lost(), theirs.is_lost()), ([7], false, false));
        ftruncate(&fd, PAGE as i64).unwrap();
        // What is still in the file is there.
        ours.place().read_into(&mut byte);
        assert_eq!((byte, ours.is_lost()), ([7], false));
        // One that touches what is not finds all of its pages replaced, and nobody else's.
        let mut bytes = [1; 2 * PAGE];
        ours.place().sub(PAGE - 1, 2 * PAGE).unwrap().read_into(&mut bytes);
        assert!(ours.is_lost() && !theirs.is_lost());
        assert_eq!(bytes[1..], [0; 2 * PAGE - 1]);
        ours.place().write_from(&[9; 4 * PAGE]);
        assert!(theirs.write_u32(8, 5) && theirs.is_lost());
        assert_eq!(theirs.read_u32(8), Some(5));
    }

    #[test]
    fn many_threads_lose_the_same_pages_and_go_on() {
        for _ in 0..20 {
            let fd = file(64 * PAGE);
            let map = Guarded::map(&fd, 0, 64 * PAGE).unwrap();
            let begun = std::sync::Barrier::new(5);
            std::thread::scope(|scope| {
                for thread in 0..4 {
                    let (map, begun) = (&map, &begun);
                    scope.spawn(move || {
                        begun.wait();
                        while !map.is_lost() {
                            map.write_u32(thread * 16 * PAGE + 64, 1);
                            map.read_u32((63 - thread) * PAGE);
                        }
                    });
                }
                begun.wait();
                ftruncate(&fd, 0).unwrap();
            });
        }
    }

    #[test]
    fn a_thread_that_held_all_signals_back_lives_too() {
        let own = std::thread::spawn(|| {
            SigSet::all().thread_block().unwrap();
            let fd = file(PAGE);
            let map = Guarded::map(&fd, 0, PAGE).unwrap();
            ftruncate(&fd, 0).unwrap();
            let child = std::thread::scope(|scope| scope.spawn(|| map.read_u32(0)).join().unwrap());
            (child, map.read_u32(4), map.is_lost())
        });
        assert_eq!(own.join().unwrap(), (Some(0), Some(0), true));
    }

    #[test]
    fn what_is_given_back_is_lost_at_once_and_the_file_keeps_what_it_had() {
        let fd = file(PAGE);
        let (map, other) = (Guarded::map(&fd, 0, PAGE).unwrap(), Guarded::map(&fd, 0, PAGE).unwrap());
        assert!(map.write_u32(0, 5));
        map.give_back().unwrap();
        assert!(map.is_lost() && map.write_u32(0, 6));
        assert_eq!((map.read_u32(0), other.read_u32(0)), (Some(6), Some(5)));
    }

    #[test]
    fn registers_are_whole_words_inside() {
        let map = Guarded::map(file(PAGE), 0, 256).unwrap();
        assert!(map.write_u32(252, 0x0102_0304));
        assert_eq!(map.read_u32(252), Some(0x0102_0304));
        for wrong in [253, 254, 256, 2, usize::MAX, usize::MAX - 3] {
            assert!(map.read_u32(wrong).is_none() && !map.write_u32(wrong, 1), "{wrong}");
        }
        assert!(Guarded::map(file(PAGE), 0, 0).is_err());
    }

    /// What a process of its own does, which is started as the test of this name: the guard is installed once, and some of this is the end of a process.
    fn role() -> Option<String> {
        std::env::var("TBRDMA_TEST_GUARD").ok()
    }

    /// How that process ended.
    fn end_of(test: &str, role: &str) -> ExitStatus {
        let name = format!("bar::guarded::tests::{test}");
        let mut child = Command::new(std::env::current_exe().unwrap());
        child.args([&name, "--exact", "--test-threads=1"]).env("TBRDMA_TEST_GUARD", role);
        child.output().unwrap().status
    }

    fn touch(address: *const u8) {
        // SAFETY: it may end the process, which is one made to be ended; the page is mapped, if not there.
        unsafe { address.read_volatile() };
    }

    fn raise() {
        // SAFETY: a signal to the process itself.
        unsafe { libc::raise(libc::SIGBUS) };
    }

    #[test]
    fn other_bus_errors_are_not_ours() {
        let Some(role) = role() else {
            let ends = ["touch", "raise"].map(|role| end_of("other_bus_errors_are_not_ours", role).signal());
            return assert_eq!(ends, [Some(libc::SIGBUS); 2]);
        };
        // The guard is at work, and beside its pages are others which it does not know.
        let guarded = Guarded::map(file(PAGE), 0, PAGE).unwrap();
        let bare = MmapOptions::new().len(PAGE).map_raw(&file(0)).unwrap();
        match role.as_str() {
            "touch" => touch(bare.as_ptr()),
            // One that is sent is about no page. The standard library's handler, which was there before, lets the first one pass and goes away.
            _ => (0..2).for_each(|_| raise()),
        }
        unreachable!("{:?}", guarded.read_u32(0));
    }

    #[test]
    fn the_handler_of_the_program_hears_of_what_is_not_ours() {
        extern "C" fn heard(_: libc::c_int) {
            // SAFETY: a call that a handler may make.
            unsafe { libc::_exit(42) }
        }
        let Some(role) = role() else {
            let ends = ["touch", "raise"]
                .map(|role| end_of("the_handler_of_the_program_hears_of_what_is_not_ours", role).code());
            return assert_eq!(ends, [Some(42); 2]);
        };
        let ours = SigAction::new(SigHandler::Handler(heard), SaFlags::empty(), SigSet::empty());
        // SAFETY: the handler makes one call that it may make.
        unsafe { sigaction(Signal::SIGBUS, &ours) }.unwrap();
        let fd = file(PAGE);
        let bare = MmapOptions::new().len(PAGE).map_raw(&file(0)).unwrap();
        let map = Guarded::map(&fd, 0, PAGE).unwrap();
        ftruncate(&fd, 0).unwrap();
        assert_eq!((map.read_u32(0), map.is_lost()), (Some(0), true));
        if role == "touch" {
            touch(bare.as_ptr())
        } else {
            raise()
        }
        unreachable!("the program's handler ends the process");
    }
}
