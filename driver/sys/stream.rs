//! Streams of bytes through descriptors, and how two processes come by one. Nothing here waits.

use super::stream_calls;
use super::wait::wait_one;
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, FdFlag, OFlag, fcntl, open};
use nix::libc;
use nix::sys::socket::{
    self as raw, AddressFamily, Backlog, Shutdown, SockFlag, SockType, SockaddrLike, SockaddrStorage,
    UnixAddr, sockopt,
};
use nix::sys::stat::{FileStat, Mode, SFlag, fstat, stat};
use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::time::{Duration, Instant};

/// Bytes that a socket may hold for its reader: less, and a long message is several calls at either end.
const SOCKET_BYTES: usize = 1 << 20;

/// A stream in both directions.
#[derive(Debug)]
pub(crate) struct Duct {
    input: OwnedFd,
    /// Never the same descriptor, so that each can be waited for by itself.
    output: OwnedFd,
    input_is_socket: bool,
    output_is_socket: bool,
    is_local: bool,
}

fn kind(fd: &OwnedFd) -> io::Result<SFlag> {
    let FileStat { st_mode, .. } = fstat(fd)?;
    Ok(SFlag::from_bits_truncate(st_mode) & SFlag::S_IFMT)
}

/// Neither waits nor is inherited.
fn prepare(fd: &OwnedFd) -> io::Result<()> {
    fcntl(fd, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC))?;
    let flags = OFlag::from_bits_retain(fcntl(fd, FcntlArg::F_GETFL)?);
    fcntl(fd, FcntlArg::F_SETFL(flags | OFlag::O_NONBLOCK))?;
    Ok(())
}

impl Duct {
    /// One descriptor for both directions, or the second for what leaves.
    ///
    /// # Errors
    /// They are none that bytes stream through: an ordinary file, a socket of messages.
    pub(crate) fn new(input: OwnedFd, output: Option<OwnedFd>) -> io::Result<Self> {
        let output = match output {
            Some(output) => output,
            None => input.try_clone()?,
        };
        let mut is_local = true;
        let mut check = |fd: &OwnedFd| {
            prepare(fd)?;
            let kind = kind(fd)?;
            if kind == SFlag::S_IFSOCK {
                if raw::getsockopt(fd, sockopt::SockType)? != SockType::Stream {
                    return Err(io::Error::new(
                        ErrorKind::InvalidInput,
                        "a socket of messages, not of a stream",
                    ));
                }
                let family = raw::getsockname::<SockaddrStorage>(fd.as_raw_fd())?.family();
                is_local &= family.is_some_and(stream_calls::stays_on_the_machine);
                return Ok(true);
            }
            is_local &= kind == SFlag::S_IFIFO;
            if kind == SFlag::S_IFCHR || kind == SFlag::S_IFIFO {
                return Ok(false);
            }
            Err(io::Error::new(ErrorKind::InvalidInput, "neither a socket, a pipe nor a character device"))
        };
        let (input_is_socket, output_is_socket) = (check(&input)?, check(&output)?);
        Ok(Self { input, output, input_is_socket, output_is_socket, is_local })
    }

    /// Whether all that passes it stays in this machine's memory, and so arrives as it left.
    pub(crate) fn is_local(&self) -> bool {
        self.is_local
    }

    /// Takes what has arrived: 0 is the end of the stream, `WouldBlock` that nothing has.
    #[inline]
    pub(crate) fn read(&self, into: &mut [u8]) -> io::Result<usize> {
        loop {
            let result = if self.input_is_socket {
                stream_calls::receive(self.input.as_fd(), into)
            } else {
                nix::unistd::read(&self.input, into)
            };
            match result {
                Err(Errno::EINTR) => {}
                result => return Ok(result?),
            }
        }
    }

    /// Gives as much as there is room for; `WouldBlock` if there is none.
    #[inline]
    pub(crate) fn write(&self, from: &[u8]) -> io::Result<usize> {
        loop {
            let result = if self.output_is_socket {
                stream_calls::send(self.output.as_fd(), from)
            } else {
                nix::unistd::write(&self.output, from)
            };
            match result {
                Err(Errno::EINTR) => {}
                result => return Ok(result?),
            }
        }
    }

    /// Before it is closed: what has been written is to arrive. A TCP socket that is closed with something unread takes back what is still on its
    /// way, so the other end is told first that no more comes, and gets a moment to close its own.
    pub(crate) fn finish(&self, bound: Duration) {
        if self.is_local
            || !self.output_is_socket
            || raw::shutdown(self.output.as_raw_fd(), Shutdown::Write).is_err()
        {
            return;
        }
        let end = Instant::now() + bound;
        let mut unread = [0; 4096];
        loop {
            let left = end.saturating_duration_since(Instant::now());
            match self.read(&mut unread) {
                Ok(1..) if !left.is_zero() => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock && !left.is_zero() => {
                    if wait_one(self.input.as_fd(), Some(left)).is_err() {
                        return;
                    }
                }
                _ => return,
            }
        }
    }

    /// Readable when there is something to read.
    pub(crate) fn input(&self) -> BorrowedFd<'_> {
        self.input.as_fd()
    }

    /// Writable when there is room.
    pub(crate) fn output(&self) -> BorrowedFd<'_> {
        self.output.as_fd()
    }
}

/// Where sockets meet.
#[derive(Clone, Debug)]
pub(crate) enum Meet {
    /// At a path, or at `@` and an abstract name.
    Unix(String),
    /// At an address and port.
    Tcp(SocketAddr),
    /// At a machine's number and a port.
    Vsock(u32, u32),
}

impl Meet {
    fn address(&self) -> io::Result<Box<dyn SockaddrLike>> {
        Ok(match self {
            Self::Unix(name) => match name.strip_prefix('@') {
                Some(name) => Box::new(stream_calls::abstract_address(name)?),
                None => Box::new(UnixAddr::new(name.as_str())?),
            },
            Self::Tcp(address) => Box::new(SockaddrStorage::from(*address)),
            Self::Vsock(cid, port) => stream_calls::vsock_address(*cid, *port)?,
        })
    }

    /// A socket of the right kind.
    fn socket(&self) -> io::Result<OwnedFd> {
        let family = match self {
            Self::Unix(_) => AddressFamily::Unix,
            Self::Tcp(SocketAddr::V4(_)) => AddressFamily::Inet,
            Self::Tcp(SocketAddr::V6(_)) => AddressFamily::Inet6,
            Self::Vsock(..) => stream_calls::vsock_family()?,
        };
        let fd = raw::socket(family, SockType::Stream, SockFlag::empty(), None)?;
        prepare(&fd)?;
        Ok(fd)
    }

    /// Whether users cannot be kept apart but by asking who they are: an abstract name has no rights.
    fn is_open_to_all(&self) -> bool {
        matches!(self, Self::Unix(name) if name.starts_with('@'))
    }

    /// The path in the file system, if it has one.
    fn path(&self) -> Option<&str> {
        match self {
            Self::Unix(name) if !name.starts_with('@') => Some(name),
            _ => None,
        }
    }
}

/// What a connected socket is told.
fn tune(fd: &OwnedFd, meet: &Meet) {
    // Each of these is a wish: where it is refused, the stream works all the same.
    let _ = raw::setsockopt(fd, sockopt::SndBuf, &SOCKET_BYTES);
    let _ = raw::setsockopt(fd, sockopt::RcvBuf, &SOCKET_BYTES);
    if let Meet::Tcp(_) = meet {
        let _ = raw::setsockopt(fd, sockopt::TcpNoDelay, &true);
        let _ = raw::setsockopt(fd, sockopt::KeepAlive, &true);
        stream_calls::notice_silence(fd);
    }
}

/// A connection that is being made.
#[derive(Debug)]
pub(crate) struct Connecting {
    fd: OwnedFd,
    meet: Meet,
}

/// How far a connection has come.
#[derive(Debug)]
pub(crate) enum Progress {
    /// It is there.
    Connected(OwnedFd),
    /// The other end has not answered yet: its descriptor becomes writable.
    Pending(Connecting),
}

/// Begins to connect. Errors as of connect(2): `ConnectionRefused` or `NotFound` when nobody listens.
pub(crate) fn connect(meet: &Meet) -> io::Result<Progress> {
    let address = meet.address()?;
    let fd = meet.socket()?;
    match raw::connect(fd.as_raw_fd(), &*address) {
        Ok(()) if meet.is_open_to_all() && !stream_calls::is_ours(fd.as_fd()) => {
            Err(io::Error::new(ErrorKind::PermissionDenied, "another user listens at that name"))
        }
        Ok(()) => {
            tune(&fd, meet);
            Ok(Progress::Connected(fd))
        }
        Err(Errno::EINPROGRESS | Errno::EINTR) => {
            Ok(Progress::Pending(Connecting { fd, meet: meet.clone() }))
        }
        Err(error) => Err(error.into()),
    }
}

impl Connecting {
    /// Looks how far it is.
    pub(crate) fn look(self) -> io::Result<Progress> {
        match raw::getsockopt(&self.fd, sockopt::SocketError)? {
            0 => {}
            error => return Err(io::Error::from_raw_os_error(error)),
        }
        match raw::getpeername::<SockaddrStorage>(self.fd.as_raw_fd()) {
            Ok(_) => {
                tune(&self.fd, &self.meet);
                Ok(Progress::Connected(self.fd))
            }
            Err(Errno::ENOTCONN) => Ok(Progress::Pending(self)),
            Err(error) => Err(error.into()),
        }
    }
}

impl AsFd for Connecting {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// A place where others connect to. A path is removed with it.
#[derive(Debug)]
pub(crate) struct Listener {
    fd: OwnedFd,
    meet: Meet,
    /// Device and number of the file at the path.
    file: Option<(libc::dev_t, libc::ino_t)>,
}

fn file_at(path: &str) -> Option<(libc::dev_t, libc::ino_t)> {
    stat(path).ok().map(|found| (found.st_dev, found.st_ino))
}

/// Listens. `AddrInUse` when somebody does already.
///
/// `replaces`: nobody answers at that path, so a socket there is one that a dead process left; it is removed.
pub(crate) fn listen(meet: &Meet, replaces: bool) -> io::Result<Listener> {
    let address = meet.address()?;
    let fd = meet.socket()?;
    if let Meet::Tcp(_) = meet {
        // Connections that have ended rest at the port for a minute.
        raw::setsockopt(&fd, sockopt::ReuseAddr, &true)?;
    }
    if let Some(path) = meet.path().filter(|_| replaces)
        && stat(path)
            .is_ok_and(|found| SFlag::from_bits_truncate(found.st_mode) & SFlag::S_IFMT == SFlag::S_IFSOCK)
    {
        let _ = nix::unistd::unlink(path);
    }
    raw::bind(fd.as_raw_fd(), &*address)?;
    let file = meet.path().and_then(file_at);
    raw::listen(&fd, Backlog::new(16)?)?;
    Ok(Listener { fd, meet: meet.clone(), file })
}

impl Listener {
    /// Takes the next connection, or `None` when there is none now, or one of somebody who has no business here.
    pub(crate) fn accept(&self) -> io::Result<Option<OwnedFd>> {
        loop {
            return match raw::accept(self.fd.as_raw_fd()) {
                Ok(fd) => {
                    // SAFETY: the kernel has just opened this descriptor for us; nobody else owns it.
                    let fd = unsafe { OwnedFd::from_raw_fd(fd) };
                    prepare(&fd)?;
                    tune(&fd, &self.meet);
                    let is_welcome = !self.meet.is_open_to_all() || stream_calls::is_ours(fd.as_fd());
                    Ok(Some(fd).filter(|_| is_welcome))
                }
                Err(Errno::EINTR | Errno::ECONNABORTED) => continue,
                Err(Errno::EAGAIN) => Ok(None),
                Err(error) => Err(error.into()),
            };
        }
    }

    /// Whether others who look for it still find this one: its path may have been removed, or taken by somebody else who found nobody there either.
    pub(crate) fn is_found(&self) -> bool {
        self.meet.path().is_none_or(|path| self.file.is_some() && file_at(path) == self.file)
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        if let Some(path) = self.meet.path()
            && self.is_found()
        {
            let _ = nix::unistd::unlink(path);
        }
    }
}

/// Opens a character device that bytes stream through. `ENXIO`: it leads nowhere now.
///
/// # Errors
/// As of open(2); `InvalidInput` if it is something else.
pub(crate) fn open_device(path: &str) -> io::Result<OwnedFd> {
    // Not opened before it is known to be one: to open a pipe wakes whoever waits there.
    let found = stat(path)?;
    if SFlag::from_bits_truncate(found.st_mode) & SFlag::S_IFMT != SFlag::S_IFCHR {
        return Err(io::Error::new(ErrorKind::InvalidInput, "it is not a character device"));
    }
    Ok(open(path, OFlag::O_RDWR | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC, Mode::empty())?)
}

/// Whether waiting for it makes sense: a device that is to be polled in a loop says error at once, and has none.
pub(crate) fn can_be_waited_for(fd: BorrowedFd<'_>) -> bool {
    use nix::poll::{PollFd, PollFlags};
    let mut polled = [PollFd::new(fd, PollFlags::POLLIN)];
    let found = super::poll::poll(&mut polled, Some(Duration::ZERO));
    let [polled] = polled;
    let events = polled.revents().unwrap_or(PollFlags::empty());
    !(found.is_ok_and(|count| count > 0) && events == PollFlags::POLLERR)
}
