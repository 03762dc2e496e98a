//! Receiving through io_uring: one standing request a socket (multishot), a common set of buffers which the kernel picks from, and a queue of
//! what arrived that is read without a system call.
//!
//! The kernel moves a message into a buffer in the name of the thread that made the request, and only when that thread is in the kernel. So
//! the requests follow the thread that looks: [`ReceiveRing::poll`] makes them anew when another thread calls it.

use super::udp::{CONTROL_BYTES, MESSAGE_BYTES, Message};
use io_uring::types::{BufRingEntry, Fixed};
use io_uring::{IoUring, cqueue, opcode, squeue};
use memmap2::{MmapOptions, MmapRaw};
use nix::libc;
use std::io::{self, ErrorKind};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::sync::atomic::{AtomicU16, Ordering};
use std::{ptr, slice};

/// How many buffers; a power of two.
const BUFFERS: u16 = 64;

/// A buffer begins with four numbers of 32 bits: the lengths of name, control data and payload, and flags.
const HEADER_BYTES: usize = 16;

/// Room for the sender's name; a multiple of 8, so that the control data behind it is aligned.
const NAME_ROOM: usize = 32;

/// Where the payload begins.
const PAYLOAD: usize = HEADER_BYTES + NAME_ROOM + CONTROL_BYTES;

/// Bytes of a buffer.
const BUFFER_BYTES: usize = PAYLOAD + MESSAGE_BYTES;

/// The buffer set's number.
const GROUP: u16 = 0;

/// Completions that fit: for every buffer, and for requests that end.
const COMPLETIONS: u32 = 1024;

/// The `user_data` of requests whose completion says nothing.
const UNHEARD: u64 = u64::MAX;

/// A ring that receives from sockets.
pub(crate) struct ReceiveRing {
    ring: IoUring,
    /// The list of free buffers: the kernel takes from its head, we add at its tail.
    free: MmapRaw,
    tail: u16,
    buffers: MmapRaw,
    /// What the requests say of the parts of a message; the kernel reads it while they stand.
    header: Box<libc::msghdr>,
    /// One for each socket; `None` while there is none of that number.
    sockets: Vec<Option<Request>>,
    /// Counts the times that all requests were made anew; older ones are not missed when they end.
    generation: u32,
    /// The thread whose requests they are.
    thread: usize,
}

/// Whether a socket's request stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Request {
    Stands,
    Ended,
}

// SAFETY: the pointers in `header` are null; the ring and the mappings are ours alone and tied to no thread.
unsafe impl Send for ReceiveRing {}

thread_local! {
    static MARK: u8 = const { 0 };
}

/// A number that no other living thread has.
fn this_thread() -> usize {
    MARK.with(|mark| ptr::from_ref(mark).addr())
}

impl ReceiveRing {
    /// A ring for at most `sockets` sockets.
    ///
    /// # Errors
    /// The kernel has no io_uring, or forbids it (a sandbox, `kernel.io_uring_disabled`), or does not know what is used here.
    pub(crate) fn new(sockets: u32) -> io::Result<Self> {
        let mut builder = IoUring::builder();
        // Work for us waits until we are in the kernel anyway, and a flag tells that it does.
        builder.setup_cqsize(COMPLETIONS).setup_coop_taskrun().setup_taskrun_flag();
        let ring: IoUring<squeue::Entry, cqueue::Entry> = builder.build(2 * sockets.max(8))?;
        ring.submitter().register_files_sparse(sockets)?;
        let map = |len| MmapOptions::new().len(len).map_anon().map(MmapRaw::from);
        let free = map(usize::from(BUFFERS) * size_of::<BufRingEntry>())?;
        let buffers = map(usize::from(BUFFERS) * BUFFER_BYTES)?;
        // SAFETY: all zero is a valid `msghdr`: null pointers with zero lengths.
        let mut header: Box<libc::msghdr> = Box::new(unsafe { MaybeUninit::zeroed().assume_init() });
        header.msg_namelen = NAME_ROOM as u32;
        header.msg_controllen = CONTROL_BYTES as _;
        // SAFETY: the list is mapped, aligned to a page and zeroed, has room for so many entries, and stays mapped until `drop` takes it
        // back from the kernel.
        unsafe {
            ring.submitter().register_buf_ring_with_flags(free.as_ptr().addr() as u64, BUFFERS, GROUP, 0)
        }?;
        let sockets = vec![None; sockets as usize];
        let mut receive =
            Self { ring, free, tail: 0, buffers, header, sockets, generation: 0, thread: this_thread() };
        for id in 0..BUFFERS {
            receive.give_back(id);
        }
        receive.publish();
        Ok(receive)
    }

    /// Receives from `fd` too, as socket number `index`.
    pub(crate) fn add(&mut self, index: u32, fd: BorrowedFd<'_>) -> io::Result<()> {
        self.follow_thread()?;
        self.ring.submitter().register_files_update(index, &[fd.as_raw_fd()])?;
        self.request(index)?;
        self.ring.submit().map(drop)
    }

    /// Hands what has arrived to `visit`, with the socket's number; says how many messages.
    ///
    /// # Errors
    /// The kernel does not serve such requests: receive otherwise.
    pub(crate) fn poll(&mut self, mut visit: impl FnMut(u32, &Message<'_>)) -> io::Result<usize> {
        self.follow_thread()?;
        if self.ring.submission().taskrun() {
            self.run_pending()?;
        }
        let (mut count, mut ended, mut failed) = (0, false, None);
        let mut taken = 0;
        // The queue is borrowed for each entry only, so that its head moves on with us.
        while let Some(entry) = self.next_completion() {
            let (result, flags) = (entry.result(), entry.flags());
            if let Some(id) = cqueue::buffer_select(flags) {
                let index = entry.user_data() as u32;
                if let Some(message) = self.message(id, result) {
                    visit(index, &message);
                    count += 1;
                }
                self.give_back(id);
                taken += 1;
                // The kernel must not run dry while we go through a long queue.
                if taken % 16 == 0 {
                    self.publish();
                }
            }
            let is_ours = entry.user_data() != UNHEARD && (entry.user_data() >> 32) as u32 == self.generation;
            if is_ours && !cqueue::more(flags) {
                if let Some(request) = self.sockets.get_mut(entry.user_data() as u32 as usize) {
                    *request = Some(Request::Ended);
                    ended = true;
                }
                match -result {
                    // No buffer was free, or the thread that asked has ended.
                    code if result >= 0 || code == libc::ENOBUFS || code == libc::ECANCELED => {}
                    code => failed = Some(io::Error::from_raw_os_error(code)),
                }
            }
        }
        if taken > 0 {
            self.publish();
        }
        match failed {
            Some(error) => return Err(error),
            None if ended => self.stand_again()?,
            None => {}
        }
        Ok(count)
    }

    fn next_completion(&mut self) -> Option<cqueue::Entry> {
        self.ring.completion().next()
    }

    /// Lets the kernel do what waits for this thread to be there.
    fn run_pending(&self) -> io::Result<()> {
        const GET_EVENTS: u32 = 1;
        // SAFETY: no signal mask is given.
        match unsafe { self.ring.submitter().enter::<libc::sigset_t>(0, 0, GET_EVENTS, None) } {
            Ok(_) => Ok(()),
            Err(error) if matches!(error.kind(), ErrorKind::Interrupted | ErrorKind::ResourceBusy) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Makes the requests of another thread ours.
    fn follow_thread(&mut self) -> io::Result<()> {
        let thread = this_thread();
        if thread == self.thread {
            return Ok(());
        }
        self.thread = thread;
        let before = self.generation;
        self.generation = self.generation.wrapping_add(1) & (u32::MAX >> 1);
        for index in 0..self.sockets.len() as u32 {
            if self.sockets.get(index as usize) == Some(&Some(Request::Stands)) {
                let old = opcode::AsyncCancel::new(name(before, index)).build().user_data(UNHEARD);
                self.push(&old)?;
            }
        }
        self.sockets.iter_mut().flatten().for_each(|request| *request = Request::Ended);
        self.stand_again()
    }

    /// Makes requests for sockets that have lost theirs.
    fn stand_again(&mut self) -> io::Result<()> {
        for index in 0..self.sockets.len() as u32 {
            if self.sockets.get(index as usize) == Some(&Some(Request::Ended)) {
                self.request(index)?;
            }
        }
        self.ring.submit().map(drop)
    }

    fn request(&mut self, index: u32) -> io::Result<()> {
        let entry = opcode::RecvMsgMulti::new(Fixed(index), &raw const *self.header, GROUP).build();
        self.push(&entry.user_data(name(self.generation, index)))?;
        if let Some(request) = self.sockets.get_mut(index as usize) {
            *request = Some(Request::Stands);
        }
        Ok(())
    }

    fn push(&mut self, entry: &squeue::Entry) -> io::Result<()> {
        // SAFETY: the entry refers to `header`, which outlives the ring, or to nothing.
        while unsafe { self.ring.submission().push(entry) }.is_err() {
            self.ring.submit()?;
        }
        Ok(())
    }

    /// The message in a buffer of which `len` bytes are filled. `None` if it is cut off.
    fn message(&self, id: u16, len: i32) -> Option<Message<'_>> {
        let len = usize::try_from(len).ok().filter(|len| *len <= BUFFER_BYTES && id < BUFFERS)?;
        let start = self.buffers.as_ptr().wrapping_add(usize::from(id) * BUFFER_BYTES);
        // SAFETY: the buffer is inside the mapping, and the kernel has handed it to us: nobody writes to it until it is given back, which
        // needs this borrow to end.
        let bytes = unsafe { slice::from_raw_parts(start, len) };
        let number = |at: usize| {
            let four = bytes.get(at..at + 4)?.try_into().ok()?;
            Some(u32::from_ne_bytes(four) as usize)
        };
        let control_len = number(4).filter(|len| *len <= CONTROL_BYTES)?;
        let flags = number(12)? as libc::c_int;
        let name = bytes.get(HEADER_BYTES..HEADER_BYTES + NAME_ROOM)?;
        let control = bytes.get(HEADER_BYTES + NAME_ROOM..)?.get(..control_len)?;
        let payload = bytes.get(PAYLOAD..)?;
        if flags & (libc::MSG_TRUNC | libc::MSG_CTRUNC) != 0 || number(8)? != payload.len() {
            return None;
        }
        Message::from_parts(payload, name, control)
    }

    /// Makes a buffer free again, once [`publish`](Self::publish) is called.
    fn give_back(&mut self, id: u16) {
        let slot = usize::from(self.tail & (BUFFERS - 1));
        let buffer = self.buffers.as_ptr().wrapping_add(usize::from(id) * BUFFER_BYTES);
        let entry = self.free.as_mut_ptr().cast::<BufRingEntry>().wrapping_add(slot);
        // SAFETY: the slot is inside the list, and the kernel does not read it before the tail has passed it. The last two bytes of the first
        // entry are the tail itself, which the setters leave alone.
        let entry = unsafe { &mut *entry };
        entry.set_addr(buffer.addr() as u64);
        entry.set_len(BUFFER_BYTES as u32);
        entry.set_bid(id);
        self.tail = self.tail.wrapping_add(1);
    }

    fn publish(&self) {
        // SAFETY: the list begins with an initialised entry.
        let tail = unsafe { BufRingEntry::tail(self.free.as_ptr().cast()) };
        // SAFETY: the tail is two aligned bytes of the mapping, shared with the kernel through atomic accesses only.
        let tail = unsafe { AtomicU16::from_ptr(tail.cast_mut()) };
        tail.store(self.tail, Ordering::Release);
    }
}

/// What a standing request is known by.
fn name(generation: u32, index: u32) -> u64 {
    u64::from(generation) << 32 | u64::from(index)
}

impl AsFd for ReceiveRing {
    fn as_fd(&self) -> BorrowedFd<'_> {
        // SAFETY: the ring keeps its descriptor open as long as it lives.
        unsafe { BorrowedFd::borrow_raw(self.ring.as_raw_fd()) }
    }
}

impl Drop for ReceiveRing {
    fn drop(&mut self) {
        // After this the kernel finds no buffer to write to, whatever it still has to do. It cannot fail for a set that is registered.
        let _ = self.ring.submitter().unregister_buf_ring(GROUP);
    }
}

impl std::fmt::Debug for ReceiveRing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ReceiveRing").field("sockets", &self.sockets).finish_non_exhaustive()
    }
}
