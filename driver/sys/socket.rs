//! Local sockets that carry whole messages in order, and file descriptors with them.
//!
//! They live in the abstract namespace: no file to clean up after a crash, and the name is free the moment its owner
//! ends. All descriptors are nonblocking and close on exec; waits are bounded by deadlines.

use super::wait::wait_readable;
use nix::errno::Errno;
use nix::libc;
use nix::sys::socket::{
    self as raw, AddressFamily, Backlog, ControlMessage, MsgFlags, SockFlag, SockType, UnixAddr, sockopt,
};
use std::io::{self, ErrorKind, IoSlice};
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::time::{Duration, Instant};

/// The most descriptors one message carries.
pub(crate) const MAX_FDS: usize = 16;

/// Who was at the other end when the connection was made, as the kernel says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Credentials {
    /// Its process id, in our namespace; 0 when it is not visible there.
    pub(crate) pid: i32,
    /// Its effective user.
    pub(crate) uid: u32,
}

/// A fresh socket of the one kind used here.
fn open() -> io::Result<OwnedFd> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    Ok(raw::socket(AddressFamily::Unix, SockType::SeqPacket, flags, None)?)
}

/// The abstract address `name`. An empty one would make the kernel choose, so it is refused.
fn address(name: &[u8]) -> io::Result<UnixAddr> {
    if name.is_empty() {
        return Err(io::Error::new(ErrorKind::InvalidInput, "a socket without a name"));
    }
    Ok(UnixAddr::new_abstract(name)?)
}

/// Listens at `name`; `AddrInUse` when somebody does already.
pub(crate) fn listen(name: &[u8]) -> io::Result<OwnedFd> {
    let address = address(name)?;
    let fd = open()?;
    raw::bind(fd.as_raw_fd(), &address)?;
    raw::listen(&fd, Backlog::new(128)?)?;
    Ok(fd)
}

/// Connects to who listens at `name`: `ConnectionRefused` when nobody does, `TimedOut` when its queue stays full.
pub(crate) fn connect(name: &[u8], timeout: Duration) -> io::Result<OwnedFd> {
    let address = address(name)?;
    let fd = open()?;
    let start = Instant::now();
    loop {
        match raw::connect(fd.as_raw_fd(), &address) {
            Ok(()) => return Ok(fd),
            // The listener's queue is full, and the kernel has no descriptor to wait on for that.
            Err(Errno::EAGAIN | Errno::EINTR) => match timeout.checked_sub(start.elapsed()) {
                Some(left) if !left.is_zero() => std::thread::sleep(left.min(Duration::from_millis(1))),
                _ => return Err(ErrorKind::TimedOut.into()),
            },
            Err(error) => return Err(error.into()),
        }
    }
}

/// Takes the next connection, or `None` when there is none now.
pub(crate) fn accept(listener: BorrowedFd<'_>) -> io::Result<Option<OwnedFd>> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    loop {
        return match raw::accept4(listener.as_raw_fd(), flags) {
            // SAFETY: the kernel has just opened this descriptor for us; nobody else owns it.
            Ok(fd) => Ok(Some(unsafe { OwnedFd::from_raw_fd(fd) })),
            Err(Errno::EINTR | Errno::ECONNABORTED) => continue,
            Err(Errno::EAGAIN) => Ok(None),
            Err(error) => Err(error.into()),
        };
    }
}

/// Asks the kernel who connected or listened at the other end.
pub(crate) fn peer_credentials(fd: BorrowedFd<'_>) -> io::Result<Credentials> {
    let found = raw::getsockopt(&fd, sockopt::PeerCredentials)?;
    Ok(Credentials { pid: found.pid(), uid: found.uid() })
}

/// Sends one message, whole, with copies of `fds`. `WouldBlock` when the peer does not take its messages.
pub(crate) fn send_message(fd: BorrowedFd<'_>, bytes: &[u8], fds: &[BorrowedFd<'_>]) -> io::Result<()> {
    // An empty message looks like the end of the connection.
    if bytes.is_empty() || fds.len() > MAX_FDS {
        return Err(io::Error::new(ErrorKind::InvalidInput, "an empty message or too many descriptors"));
    }
    let numbers: Vec<RawFd> = fds.iter().map(AsRawFd::as_raw_fd).collect();
    let rights = [ControlMessage::ScmRights(&numbers)];
    let control = if numbers.is_empty() { &[][..] } else { &rights[..] };
    loop {
        match raw::sendmsg::<()>(
            fd.as_raw_fd(),
            &[IoSlice::new(bytes)],
            control,
            MsgFlags::MSG_NOSIGNAL | MsgFlags::MSG_DONTWAIT,
            None,
        ) {
            Ok(sent) if sent == bytes.len() => return Ok(()),
            Ok(_) => return Err(ErrorKind::WriteZero.into()),
            Err(Errno::EINTR) => continue,
            Err(error) => return Err(error.into()),
        }
    }
}

/// Receives one message into `buf`: its length and the descriptors that came with it.
///
/// `None` waits for ever; `Some(ZERO)` does not wait and says `WouldBlock`; any other timeout says `TimedOut`. A peer
/// that is gone is `UnexpectedEof`. A message too long for `buf`, or with descriptors we could not take, is
/// `InvalidData`, and whatever came with it is closed.
pub(crate) fn receive_message(
    fd: BorrowedFd<'_>,
    buf: &mut [u8],
    timeout: Option<Duration>,
) -> io::Result<(usize, Vec<OwnedFd>)> {
    let deadline = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
    loop {
        match receive_now(fd, buf) {
            Err(Errno::EINTR) => continue,
            Err(Errno::EAGAIN) if timeout.is_some_and(|timeout| timeout.is_zero()) => {
                return Err(ErrorKind::WouldBlock.into());
            }
            Err(Errno::EAGAIN) => {
                let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
                if left.is_some_and(|left| left.is_zero()) {
                    return Err(ErrorKind::TimedOut.into());
                }
                wait_readable(&[fd], left)?;
            }
            Err(error) => return Err(error.into()),
            Ok((_, _, true)) => {
                return Err(io::Error::new(
                    ErrorKind::InvalidData,
                    "a message too long or with too many descriptors",
                ));
            }
            Ok((0, ..)) => return Err(ErrorKind::UnexpectedEof.into()),
            Ok((len, fds, false)) => return Ok((len, fds)),
        }
    }
}

/// One `recvmsg` that does not wait: the length, the descriptors, and whether anything was cut off.
///
/// This is not nix's wrapper, because that one leaks the descriptors of a message whose list was cut off (our table was
/// full, say): they are ours to close.
fn receive_now(fd: BorrowedFd<'_>, buf: &mut [u8]) -> nix::Result<(usize, Vec<OwnedFd>, bool)> {
    // Words, for the alignment of control headers; room for one header of 16 bytes and the descriptors.
    let mut control = [0u64; 2 + MAX_FDS.div_ceil(2)];
    let mut part = libc::iovec { iov_base: buf.as_mut_ptr().cast(), iov_len: buf.len() };
    // SAFETY: all zero is a valid `msghdr`: null pointers with zero lengths.
    let mut header: libc::msghdr = unsafe { MaybeUninit::zeroed().assume_init() };
    header.msg_iov = &raw mut part;
    header.msg_iovlen = 1;
    header.msg_control = control.as_mut_ptr().cast();
    header.msg_controllen = size_of_val(&control) as _;
    let flags = libc::MSG_CMSG_CLOEXEC | libc::MSG_DONTWAIT;
    // SAFETY: the header points to `buf` and `control`, both ours alone and live, with their right lengths.
    let len = unsafe { libc::recvmsg(fd.as_raw_fd(), &raw mut header, flags) };
    let len = Errno::result(len)? as usize;
    let fds = take_descriptors(&header);
    let cut = header.msg_flags & (libc::MSG_TRUNC | libc::MSG_CTRUNC) != 0;
    Ok((len, fds, cut))
}

/// Takes ownership of all descriptors in a header that `recvmsg` has just filled. Call it once a message.
fn take_descriptors(header: &libc::msghdr) -> Vec<OwnedFd> {
    let mut fds = Vec::new();
    // SAFETY: the kernel has set `msg_control` and `msg_controllen` to the control data it wrote.
    let mut next = unsafe { libc::CMSG_FIRSTHDR(header) };
    // SAFETY: `next` is null or a header inside the control data, aligned because that starts on a word.
    while let Some(entry) = unsafe { next.as_ref() } {
        if entry.cmsg_level == libc::SOL_SOCKET && entry.cmsg_type == libc::SCM_RIGHTS {
            // SAFETY: arithmetic on the constant size of a header.
            let head = unsafe { libc::CMSG_LEN(0) } as usize;
            // The width of this field depends on the C library.
            let len: usize = entry.cmsg_len as _;
            let count = len.saturating_sub(head) / size_of::<RawFd>();
            // SAFETY: the data follows the header inside the control data.
            let data = unsafe { libc::CMSG_DATA(next) }.cast::<RawFd>();
            for index in 0..count {
                // SAFETY: the kernel wrote `count` descriptors there; no alignment is assumed.
                let number = unsafe { data.wrapping_add(index).read_unaligned() };
                // SAFETY: it has opened them for us with this message, and we read each once.
                fds.push(unsafe { OwnedFd::from_raw_fd(number) });
            }
        }
        // SAFETY: as for CMSG_FIRSTHDR; `next` is a header of this control data.
        next = unsafe { libc::CMSG_NXTHDR(header, next) };
    }
    fds
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::{eventfd::EventFd, process, random};
    use std::os::fd::AsFd;

    fn name() -> Vec<u8> {
        format!("tbrdma-test-{:x}", random::random_u64().unwrap()).into_bytes()
    }

    fn pair() -> (OwnedFd, OwnedFd) {
        let name = name();
        let listener = listen(&name).unwrap();
        assert!(accept(listener.as_fd()).unwrap().is_none());
        let client = connect(&name, Duration::from_secs(5)).unwrap();
        (client, accept(listener.as_fd()).unwrap().unwrap())
    }

    #[test]
    fn a_name_belongs_to_one_listener() {
        let name = name();
        let first = listen(&name).unwrap();
        assert_eq!(listen(&name).unwrap_err().kind(), ErrorKind::AddrInUse);
        drop(first);
        // A child that another test forks may hold the listener a moment longer.
        let start = Instant::now();
        while let Err(error) = listen(&name) {
            assert_eq!(error.kind(), ErrorKind::AddrInUse);
            assert!(start.elapsed() < Duration::from_secs(20));
            std::thread::yield_now();
        }
        assert_eq!(
            connect(&self::name(), Duration::from_secs(5)).unwrap_err().kind(),
            ErrorKind::ConnectionRefused
        );
        assert_eq!(listen(b"").unwrap_err().kind(), ErrorKind::InvalidInput);
        assert!(listen(&[b'x'; 200]).is_err());
    }

    #[test]
    fn a_full_queue_times_out() {
        let name = name();
        let _listener = listen(&name).unwrap();
        let mut held = Vec::new();
        let error = loop {
            match connect(&name, Duration::from_millis(20)) {
                Ok(fd) => held.push(fd),
                Err(error) => break error,
            }
        };
        assert_eq!(error.kind(), ErrorKind::TimedOut);
    }

    #[test]
    fn messages_carry_bytes_and_descriptors() {
        let (client, server) = pair();
        let who = peer_credentials(server.as_fd()).unwrap();
        assert_eq!(who, Credentials { pid: process::process_id(), uid: process::effective_user_id() });
        let event = EventFd::new().unwrap();
        let many = [event.as_fd(); MAX_FDS];
        send_message(client.as_fd(), b"hello", &many).unwrap();
        send_message(client.as_fd(), b"again", &[]).unwrap();
        let mut buf = [0; 64];
        let (len, fds) = receive_message(server.as_fd(), &mut buf, None).unwrap();
        assert_eq!((&buf[..len], fds.len()), (&b"hello"[..], MAX_FDS));
        for fd in fds {
            let flags = nix::fcntl::fcntl(&fd, nix::fcntl::FcntlArg::F_GETFD).unwrap();
            assert_eq!(flags, libc::FD_CLOEXEC);
            EventFd::from_fd(fd).signal().unwrap();
        }
        assert_eq!(event.drain().unwrap(), MAX_FDS as u64);
        let (len, fds) = receive_message(server.as_fd(), &mut buf, None).unwrap();
        assert_eq!((&buf[..len], fds.len()), (&b"again"[..], 0));
    }

    #[test]
    fn silence_and_a_closed_peer_are_told_apart() {
        let (client, server) = pair();
        let mut buf = [0; 8];
        let mut kind = |timeout| receive_message(server.as_fd(), &mut buf, timeout).unwrap_err().kind();
        assert_eq!(kind(Some(Duration::ZERO)), ErrorKind::WouldBlock);
        assert_eq!(kind(Some(Duration::from_millis(10))), ErrorKind::TimedOut);
        drop(client);
        assert_eq!(kind(None), ErrorKind::UnexpectedEof);
        assert_eq!(send_message(server.as_fd(), b"x", &[]).unwrap_err().kind(), ErrorKind::BrokenPipe);
    }

    #[test]
    fn cut_off_messages_are_refused_and_leak_nothing() {
        let (client, server) = pair();
        let (reader, writer) = nix::unistd::pipe2(nix::fcntl::OFlag::O_CLOEXEC).unwrap();
        send_message(client.as_fd(), b"longer than the buffer", &[writer.as_fd()]).unwrap();
        let numbers = [writer.as_raw_fd(); MAX_FDS + 4];
        let rights = [ControlMessage::ScmRights(&numbers)];
        raw::sendmsg::<()>(client.as_raw_fd(), &[IoSlice::new(b"x")], &rights, MsgFlags::empty(), None)
            .unwrap();
        drop(writer);
        for _ in 0..2 {
            let error = receive_message(server.as_fd(), &mut [0; 4], None).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidData);
        }
        // With every copy of the writing end closed, the pipe is at its end.
        assert_eq!(nix::unistd::read(&reader, &mut [0; 1]), Ok(0));
    }
}
