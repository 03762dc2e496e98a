//! Taking messages from a socket, one or several a call.

use super::{CONTROL_BYTES, Control, MESSAGE_BYTES, Message, NAME_BYTES, Name};
use nix::errno::Errno;
use nix::libc;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr::null_mut;

/// How many messages one call takes.
pub(crate) const BATCH: usize = 16;

/// Room for messages, and the lists the kernel wants. It allocates when it is first used.
#[derive(Default)]
pub(crate) struct ReceiveBatch {
    slots: Vec<Slot>,
    headers: Vec<libc::mmsghdr>,
    /// How many of the headers the last call used.
    used: usize,
}

struct Slot {
    payload: Box<[u8]>,
    name: Name,
    control: Box<Control>,
    part: libc::iovec,
}

// SAFETY: the pointers in it lead to its own heap memory, which nobody else knows.
unsafe impl Send for ReceiveBatch {}
// SAFETY: as above; through a shared reference that memory is only read.
unsafe impl Sync for ReceiveBatch {}

impl ReceiveBatch {
    /// Takes what waits, up to `most` messages and [`BATCH`]; 0 when nothing does. Asking for one is quicker when no more is expected: a longer
    /// list costs the kernel a second look.
    pub(crate) fn receive(&mut self, fd: BorrowedFd<'_>, most: usize) -> io::Result<usize> {
        self.prepare();
        loop {
            let count = match self.headers.as_mut_slice() {
                [first, ..] if most == 1 => receive_one(fd, first),
                headers => receive_many(fd, headers, most),
            };
            match count {
                Ok(count) => {
                    self.used = count;
                    return Ok(count);
                }
                Err(Errno::EINTR) => continue,
                Err(Errno::EAGAIN) => return Ok(0),
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Takes one message from a socket that neither [coalesces](super::coalesce) nor [tells](super::tell) anything; 0 when none waits. That
    /// is quicker than [`receive`](Self::receive).
    pub(crate) fn receive_plain(&mut self, fd: BorrowedFd<'_>) -> io::Result<usize> {
        self.prepare();
        let ([slot, ..], [header, ..]) = (self.slots.as_mut_slice(), self.headers.as_mut_slice()) else {
            return Ok(0);
        };
        let mut name_len = NAME_BYTES as libc::socklen_t;
        let (room, name) = (slot.payload.as_mut_ptr().cast(), (&raw mut slot.name.bytes).cast());
        loop {
            // SAFETY: payload and name are the slot's own, live and ours alone, with their right lengths.
            let len = unsafe {
                libc::recvfrom(
                    fd.as_raw_fd(),
                    room,
                    MESSAGE_BYTES,
                    libc::MSG_DONTWAIT,
                    name,
                    &raw mut name_len,
                )
            };
            match Errno::result(len) {
                Ok(len) => {
                    header.msg_len = len as libc::c_uint;
                    header.msg_hdr.msg_controllen = 0;
                    header.msg_hdr.msg_flags = 0;
                    self.used = 1;
                    return Ok(1);
                }
                Err(Errno::EINTR) => continue,
                Err(Errno::EAGAIN) => return Ok(0),
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Message `index` of those that the last call took. `None` also for one that is cut off or from nowhere.
    pub(crate) fn message(&self, index: usize) -> Option<Message<'_>> {
        let header = self.headers.get(index).filter(|_| index < self.used)?;
        let slot = self.slots.get(index)?;
        if header.msg_hdr.msg_flags & (libc::MSG_TRUNC | libc::MSG_CTRUNC) != 0 {
            return None;
        }
        let bytes = slot.payload.get(..header.msg_len as usize)?;
        let control = slot.control.bytes.get(..header.msg_hdr.msg_controllen)?;
        Message::new(bytes, &slot.name, control)
    }
}

impl ReceiveBatch {
    /// Makes the room, or makes it as new.
    fn prepare(&mut self) {
        if self.slots.is_empty() {
            self.slots.reserve_exact(BATCH);
            self.slots.extend((0..BATCH).map(|_| Slot::new()));
            self.headers.extend(self.slots.iter_mut().map(Slot::header));
        }
        // The kernel has overwritten the lengths of those it used.
        for header in self.headers.iter_mut().take(self.used) {
            header.msg_hdr.msg_namelen = NAME_BYTES as u32;
            header.msg_hdr.msg_controllen = CONTROL_BYTES;
            header.msg_hdr.msg_flags = 0;
        }
        self.used = 0;
    }
}

/// `recvmsg(2)` that does not wait, as a list of one. The header is one of a [`ReceiveBatch`].
fn receive_one(fd: BorrowedFd<'_>, header: &mut libc::mmsghdr) -> nix::Result<usize> {
    // SAFETY: the header leads to its slot's own buffers, live and ours alone, with their right lengths; slots are not moved.
    let len = unsafe { libc::recvmsg(fd.as_raw_fd(), &raw mut header.msg_hdr, libc::MSG_DONTWAIT) };
    header.msg_len = Errno::result(len)? as libc::c_uint;
    Ok(1)
}

/// `recvmmsg(2)` that does not wait. The headers are those of a [`ReceiveBatch`].
fn receive_many(fd: BorrowedFd<'_>, headers: &mut [libc::mmsghdr], most: usize) -> nix::Result<usize> {
    let count = headers.len().min(most) as libc::c_uint;
    // SAFETY: as for `receive_one`, for each of the first `count` headers.
    let got = unsafe {
        libc::recvmmsg(fd.as_raw_fd(), headers.as_mut_ptr(), count, libc::MSG_DONTWAIT as _, null_mut())
    };
    Ok(Errno::result(got)? as usize)
}

impl Slot {
    fn new() -> Self {
        Self {
            payload: vec![0; MESSAGE_BYTES].into_boxed_slice(),
            name: Name::EMPTY,
            control: Box::new(Control::EMPTY),
            part: libc::iovec { iov_base: null_mut(), iov_len: 0 },
        }
    }

    /// A header that leads to this slot, which must not move from now on.
    fn header(&mut self) -> libc::mmsghdr {
        self.part = libc::iovec { iov_base: self.payload.as_mut_ptr().cast(), iov_len: self.payload.len() };
        libc::mmsghdr {
            msg_hdr: libc::msghdr {
                msg_name: (&raw mut self.name.bytes).cast(),
                msg_namelen: NAME_BYTES as u32,
                msg_iov: &raw mut self.part,
                msg_iovlen: 1,
                msg_control: (&raw mut self.control.bytes).cast(),
                msg_controllen: CONTROL_BYTES,
                msg_flags: 0,
            },
            msg_len: 0,
        }
    }
}
