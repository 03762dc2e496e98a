//! What a program of the fuzzer's has made and not destroyed, and what it knows of it: which object uses which, which work was posted.

use super::abi::*;
use super::calls::{Calls, call};
use super::case::Case;
use core::ffi::{c_int, c_void};
use core::ptr::null_mut;
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::mman::{MapFlags, ProtFlags, mmap_anonymous, mprotect, munmap};
use std::collections::HashMap;
use std::os::fd::BorrowedFd;
use std::ptr::NonNull;

/// Bytes that a program registers parts of. Behind them comes a page that nobody may touch.
pub(super) const ARENA: usize = 1 << 16;
pub(super) const PAGE: usize = 4096;

/// Objects of a kind that a program has at the most.
const MOST: usize = 24;

/// Kinds of objects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Pd,
    Td,
    Mr,
    Mw,
    Dm,
    Channel,
    Cq,
    Srq,
    Qp,
    Ah,
    /// A domain and a region of somebody else's, by their handles.
    ImportedPd,
    ImportedMr,
}

/// An object.
pub(super) struct Made {
    pub(super) kind: Kind,
    pub(super) at: *mut c_void,
    pub(super) context: *mut ibv_context,
    /// The objects that cannot be destroyed before it.
    pub(super) uses: Vec<*mut c_void>,
}

/// Work that was posted and has not completed. Completions are told apart by `wr_id`, which no two requests share.
pub(super) struct Posted {
    /// The queue pair, or the shared receive queue.
    pub(super) to: *mut c_void,
    pub(super) is_receive: bool,
    /// Bytes that a receive has room for.
    pub(super) room: u64,
}

/// An event that was read and is not acknowledged.
pub(super) enum Unacknowledged {
    Completion(*mut ibv_cq),
    Async(ibv_async_event, *mut c_void),
}

/// A program.
pub(super) struct World<'a> {
    pub(super) calls: &'a Calls,
    /// The devices it opens, by name.
    devices: &'a [&'a str],
    pub(super) contexts: Vec<*mut ibv_context>,
    pub(super) made: Vec<Made>,
    pub(super) posted: HashMap<u64, Posted>,
    pub(super) last_wr_id: u64,
    /// The last completion of each queue.
    pub(super) completed: HashMap<(*mut c_void, bool), u64>,
    pub(super) unacknowledged: Vec<Unacknowledged>,
    arena: NonNull<c_void>,
}

impl<'a> World<'a> {
    pub(super) fn new(calls: &'a Calls, devices: &'a [&'a str]) -> Self {
        let access = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
        let length = (ARENA + PAGE).try_into().expect("not zero");
        // SAFETY: pages of our own, wherever there is room.
        let arena = unsafe { mmap_anonymous(None, length, access, MapFlags::MAP_PRIVATE) }.expect("memory");
        // SAFETY: the last of these pages.
        unsafe { mprotect(arena.byte_add(ARENA), PAGE, ProtFlags::PROT_NONE) }.expect("our own page");
        Self {
            calls,
            devices,
            contexts: Vec::new(),
            made: Vec::new(),
            posted: HashMap::new(),
            last_wr_id: 0,
            completed: HashMap::new(),
            unacknowledged: Vec::new(),
            arena,
        }
    }

    /// An address in the arena.
    pub(super) fn arena(&self, offset: usize) -> *mut c_void {
        self.arena.as_ptr().wrapping_byte_add(offset)
    }

    /// Opens a device once more.
    pub(super) fn open(&mut self, which: u8) {
        let context = open(self.calls, self.devices[usize::from(which) % self.devices.len()]);
        self.opened(context);
    }

    /// Another context is open.
    pub(super) fn opened(&mut self, context: *mut ibv_context) {
        // SAFETY: open.
        set_nonblocking(unsafe { (*context).async_fd });
        self.contexts.push(context);
    }

    /// Closes a context: what was made from it is gone, as far as the program can tell.
    pub(super) fn close(&mut self, context: *mut ibv_context) {
        self.contexts.retain(|known| *known != context);
        let gone: Vec<_> =
            self.made.iter().filter(|made| made.context == context).map(|made| made.at).collect();
        self.made.retain(|made| made.context != context);
        self.unacknowledged.retain(|event| !gone.contains(&event.of()));
        assert_eq!(call!(self.calls.ibv_close_device; context), 0);
    }

    /// An open context.
    pub(super) fn context(&self, case: &mut Case<'_>) -> *mut ibv_context {
        self.contexts[usize::from(case.byte()) % self.contexts.len()]
    }

    /// An object of a kind, or NULL.
    pub(super) fn pick<T>(&self, case: &mut Case<'_>, kind: Kind) -> *mut T {
        let byte = case.byte();
        let count = self.count(kind);
        if count == 0 || byte > 0xf0 {
            return null_mut();
        }
        let made = self.made.iter().filter(|made| made.kind == kind).nth(usize::from(byte) % count);
        made.map_or(null_mut(), |made| made.at.cast())
    }

    fn count(&self, kind: Kind) -> usize {
        self.made.iter().filter(|made| made.kind == kind).count()
    }

    /// Whether a program may have one more.
    pub(super) fn has_room(&self, kind: Kind) -> bool {
        self.count(kind) < MOST
    }

    pub(super) fn find<T>(&self, at: *mut T) -> &Made {
        self.made.iter().find(|made| made.at == at.cast()).expect("what was picked is alive")
    }

    /// A call has made something, or said why not.
    pub(super) fn keep<T>(
        &mut self,
        kind: Kind,
        at: *mut T,
        context: *mut ibv_context,
        uses: &[*mut c_void],
    ) {
        if at.is_null() {
            return failed(Errno::last_raw());
        }
        assert!(!self.made.iter().any(|made| made.at == at.cast()), "{kind:?}");
        let uses: Vec<_> = uses.iter().copied().filter(|used| !used.is_null()).collect();
        assert!(
            uses.iter().all(|used| self.find(*used).context == context),
            "{kind:?} uses what is not its context's"
        );
        self.made.push(Made { kind, at: at.cast(), context, uses });
    }

    /// Tries to destroy an object: it works unless another uses it.
    pub(super) fn destroy(&mut self, made: usize) {
        let Made { kind, at, context, .. } = self.made[made];
        self.acknowledge(at);
        let calls = self.calls;
        let gone = match kind {
            Kind::Pd => call!(calls.ibv_dealloc_pd; at.cast()),
            Kind::Td => call!(verbs(context).dealloc_td.expect("offered"); at.cast()),
            Kind::Mr => call!(calls.ibv_dereg_mr; at.cast()),
            Kind::Mw => call!(context_of(at).ops.dealloc_mw; at.cast()),
            Kind::Dm => call!(verbs(context).free_dm.expect("offered"); at.cast()),
            Kind::Channel => call!(calls.ibv_destroy_comp_channel; at.cast()),
            Kind::Cq => call!(calls.ibv_destroy_cq; at.cast()),
            Kind::Srq => call!(calls.ibv_destroy_srq; at.cast()),
            Kind::Qp => call!(calls.ibv_destroy_qp; at.cast()),
            Kind::Ah => call!(calls.ibv_destroy_ah; at.cast()),
            Kind::ImportedPd => {
                call!(calls.ibv_unimport_pd; at.cast());
                0
            }
            Kind::ImportedMr => {
                call!(calls.ibv_unimport_mr; at.cast());
                0
            }
        };
        let user = self.made.iter().find(|other| other.uses.contains(&at));
        match gone {
            0 => {
                // A domain that is no longer imported lives on for what was made in it.
                assert!(
                    kind == Kind::ImportedPd || user.is_none(),
                    "{kind:?} is destroyed under what uses it"
                );
                self.made.swap_remove(made);
                self.completed.retain(|(queue, _), _| *queue != at);
            }
            libc::EBUSY => {
                // Which windows are bound to a region is known when the binding has been executed, if it was.
                let has_windows = kind == Kind::Mr && self.count(Kind::Mw) > 0;
                assert!(user.is_some() || has_windows, "{kind:?} is busy, and nothing uses it");
            }
            other => panic!("{kind:?}: {other}"),
        }
    }

    /// Acknowledges the events of an object, which would wait for that.
    pub(super) fn acknowledge(&mut self, object: *mut c_void) {
        for mut event in core::mem::take(&mut self.unacknowledged) {
            if event.of() != object {
                self.unacknowledged.push(event);
                continue;
            }
            match &mut event {
                Unacknowledged::Completion(cq) => call!(self.calls.ibv_ack_cq_events; *cq, 1),
                Unacknowledged::Async(event, _) => call!(self.calls.ibv_ack_async_event; event),
            }
        }
    }

    /// Destroys all that is left, in an order that must work, and closes the devices.
    pub(super) fn end(mut self) {
        while !self.made.is_empty() {
            let left = self.made.len();
            for at in (0..left).rev() {
                let object = self.made[at].at;
                if !self.made.iter().any(|other| other.uses.contains(&object)) {
                    self.destroy(at);
                }
            }
            assert!(self.made.len() < left, "objects use one another");
        }
        for context in core::mem::take(&mut self.contexts) {
            assert_eq!(call!(self.calls.ibv_close_device; context), 0);
        }
        // SAFETY: mapped in `new`; no region has it any more.
        unsafe { munmap(self.arena, ARENA + PAGE) }.expect("our own pages");
    }
}

impl Unacknowledged {
    fn of(&self) -> *mut c_void {
        match self {
            Self::Completion(cq) => cq.cast(),
            Self::Async(_, object) => *object,
        }
    }
}

/// Opens the device of this name.
pub(super) fn open(calls: &Calls, name: &str) -> *mut ibv_context {
    let list = call!(calls.ibv_get_device_list; null_mut());
    assert!(!list.is_null());
    let mut at = list;
    let device = loop {
        // SAFETY: the list ends with NULL.
        let device = unsafe { *at };
        assert!(!device.is_null(), "no device {name}");
        let own = call!(calls.ibv_get_device_name; device);
        // SAFETY: a name.
        if unsafe { core::ffi::CStr::from_ptr(own) }.to_bytes() == name.as_bytes() {
            break device;
        }
        at = at.wrapping_add(1);
    };
    assert!(call!(calls.ibv_get_device_index; device) >= 0);
    call!(calls.ibv_get_device_guid; device);
    let context = call!(calls.ibv_open_device; device);
    call!(calls.ibv_free_device_list; list);
    assert!(!context.is_null(), "errno {}", Errno::last());
    context
}

/// The extended calls, found as the header's inline functions do.
pub(super) fn verbs<'a>(context: *mut ibv_context) -> &'a verbs_context {
    // SAFETY: open.
    assert_eq!(unsafe { (*context).abi_compat }, VERBS_ABI_IS_EXTENDED);
    let around = context.wrapping_byte_sub(core::mem::offset_of!(verbs_context, context));
    // SAFETY: it says so itself.
    unsafe { &*around.cast() }
}

/// The context of an object, as the header's inline functions find it: the first field of all of them.
pub(super) fn context_of<'a, T>(object: *mut T) -> &'a ibv_context {
    // SAFETY: alive, and so is its context.
    unsafe { &**object.cast::<*mut ibv_context>() }
}

/// A call that failed says why; that the library itself was at fault is no answer.
pub(super) fn failed(errno: c_int) {
    assert!(errno > 0 && errno < 4096 && errno != libc::EIO, "errno {errno}");
}

/// Zero, or why not.
pub(super) fn outcome(code: c_int) -> bool {
    if code != 0 {
        failed(code);
    }
    code == 0
}

/// Zero or more, or -1 and `errno`.
pub(super) fn at_least_zero(value: c_int) {
    if value < 0 {
        assert_eq!(value, -1);
        failed(Errno::last_raw());
    }
}

pub(super) fn set_nonblocking(fd: c_int) {
    // SAFETY: open for the time of the call.
    let fd = unsafe { BorrowedFd::borrow_raw(fd) };
    fcntl(fd, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).expect("a flag");
}

/// All zeroes, as C programs begin with.
pub(super) fn zeroed<T>() -> T {
    // SAFETY: C's structures of numbers and pointers.
    unsafe { core::mem::zeroed() }
}
