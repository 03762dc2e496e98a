//! Plain sockets that carry whole messages: TCP, UDP, and Unix sockets, each spun on or slept on.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsFd as _;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use clap::ValueEnum;
use nix::sys::socket::{setsockopt, sockopt};

use crate::error::{Context, Error, Result};
use crate::plan::Wait;
use crate::signals;
use crate::watch::{Spins, Watch};

/// Where both sides are, if nothing else is said.
pub(crate) const LOOPBACK: &str = "127.0.0.1";
/// Largest datagram that is sent: longer messages are several.
pub(crate) const MOST_IN_DATAGRAM: usize = 60 << 10;
/// Largest message of an exchange of datagrams: more might not find room at the other side at once.
pub(crate) const MOST_IN_DATAGRAMS: usize = 2 * MOST_IN_DATAGRAM;
/// A sleeping side looks around so often.
const NAP: Duration = Duration::from_millis(100);
/// Room that is asked for datagrams under way.
const RECEIVE_ROOM: usize = 4 << 20;

/// What carries the messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Carrier {
    /// TCP without delay
    Tcp,
    /// UDP, a datagram a message
    Udp,
    /// A Unix stream socket
    Unix,
}

impl Carrier {
    /// Its name.
    #[must_use]
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
            Self::Unix => "unix",
        }
    }
}

/// Where the side that measures waits for the other.
pub(crate) enum Meeting {
    Tcp(TcpListener),
    Udp(UdpSocket),
    Unix(UnixListener, PathBuf),
}

impl Drop for Meeting {
    fn drop(&mut self) {
        if let Self::Unix(_, path) = self {
            // What is left of it says nothing to anybody.
            let _ = std::fs::remove_file(path);
        }
    }
}

impl Meeting {
    /// A place to meet, at this host where that matters, and its address as text.
    pub(crate) fn new(carrier: Carrier, host: &str) -> Result<(Self, String)> {
        let what = || format!("make a place to meet over {} at {host}", carrier.name());
        match carrier {
            Carrier::Tcp => {
                let listener = TcpListener::bind((host, 0)).context(what)?;
                listener.set_nonblocking(true).context(what)?;
                let address = listener.local_addr().context(what)?.to_string();
                Ok((Self::Tcp(listener), address))
            }
            Carrier::Udp => {
                let socket = UdpSocket::bind((host, 0)).context(what)?;
                let address = socket.local_addr().context(what)?.to_string();
                Ok((Self::Udp(socket), address))
            }
            Carrier::Unix => {
                let path = unix_path(std::process::id());
                // Of a process of this number that was killed.
                let _ = std::fs::remove_file(&path);
                let listener = UnixListener::bind(&path).context(what)?;
                listener.set_nonblocking(true).context(what)?;
                let address = path.display().to_string();
                Ok((Self::Unix(listener, path), address))
            }
        }
    }

    /// Waits for the other side, which of UDP said where it is.
    pub(crate) fn accept(&self, theirs: Option<SocketAddr>, wait: Wait, patience: Duration) -> Result<Wire> {
        let deadline = Instant::now() + patience;
        loop {
            let come = match self {
                Self::Tcp(listener) => listener.accept().map(|(stream, _)| Socket::Tcp(stream)),
                Self::Unix(listener, _) => listener.accept().map(|(stream, _)| Socket::Unix(stream)),
                Self::Udp(socket) => {
                    let theirs = theirs.ok_or_else(|| Error::Run("the other side is nowhere".into()))?;
                    socket.connect(theirs).and_then(|()| socket.try_clone()).map(Socket::Udp)
                }
            };
            match come {
                Ok(socket) => return Wire::new(socket, wait),
                Err(error) if error.kind() == ErrorKind::WouldBlock && Instant::now() < deadline => {
                    signals::check()?;
                    std::thread::sleep(Duration::from_millis(2));
                }
                Err(error) => return Err(error).context(|| "wait for the other side".into()),
            }
        }
    }
}

/// Where a process listens at a Unix socket.
pub(crate) fn unix_path(process: u32) -> PathBuf {
    std::env::temp_dir().join(format!("tbrdma-bench-{process}.socket"))
}

enum Socket {
    Tcp(TcpStream),
    Udp(UdpSocket),
    Unix(UnixStream),
}

impl Socket {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.write(bytes),
            Self::Udp(socket) => socket.send(bytes),
            Self::Unix(stream) => stream.write(bytes),
        }
    }

    fn read(&mut self, bytes: &mut [u8]) -> std::io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.read(bytes),
            Self::Udp(socket) => socket.recv(bytes),
            Self::Unix(stream) => stream.read(bytes),
        }
    }
}

/// A connected side.
pub(crate) struct Wire {
    socket: Socket,
    wait: Wait,
}

impl Wire {
    /// Connects to where the side that measures waits; of UDP also where this side is.
    pub(crate) fn connect(carrier: Carrier, address: &str, wait: Wait) -> Result<(Self, Option<SocketAddr>)> {
        let what = || format!("connect to {address} over {}", carrier.name());
        let mut ours = None;
        let socket = match carrier {
            Carrier::Tcp => Socket::Tcp(TcpStream::connect(address).context(what)?),
            Carrier::Unix => Socket::Unix(UnixStream::connect(address).context(what)?),
            Carrier::Udp => {
                let socket = UdpSocket::bind((LOOPBACK, 0)).context(what)?;
                socket.connect(address).context(what)?;
                ours = Some(socket.local_addr().context(what)?);
                Socket::Udp(socket)
            }
        };
        Ok((Self::new(socket, wait)?, ours))
    }

    fn new(socket: Socket, wait: Wait) -> Result<Self> {
        let spins = wait == Wait::Poll;
        let prepared = match &socket {
            Socket::Tcp(stream) => stream
                .set_nodelay(true)
                .and_then(|()| stream.set_nonblocking(spins))
                .and_then(|()| stream.set_write_timeout(Some(NAP)))
                .and_then(|()| stream.set_read_timeout(Some(NAP))),
            Socket::Unix(stream) => stream
                .set_nonblocking(spins)
                .and_then(|()| stream.set_write_timeout(Some(NAP)))
                .and_then(|()| stream.set_read_timeout(Some(NAP))),
            Socket::Udp(socket) => {
                socket.set_nonblocking(spins).and_then(|()| socket.set_read_timeout(Some(NAP)))
            }
        };
        prepared.context(|| "prepare a socket".into())?;
        let wire = Self { socket, wait };
        if let Socket::Udp(_) = wire.socket {
            wire.widen(RECEIVE_ROOM);
        }
        Ok(wire)
    }

    /// Sends a message, whole.
    #[inline]
    pub(crate) fn send(&mut self, message: &[u8], watch: &Watch) -> Result<()> {
        let (mut sent, mut spins) = (0, Spins::default());
        while sent < message.len() {
            let end = if let Socket::Udp(_) = self.socket {
                message.len().min(sent + MOST_IN_DATAGRAM)
            } else {
                message.len()
            };
            match self.socket.write(message.get(sent..end).unwrap_or_default()) {
                Ok(count) => sent += count,
                Err(error) => self.again(error, "send a message", watch, &mut spins)?,
            }
        }
        Ok(())
    }

    /// Receives a message, whole.
    #[inline]
    pub(crate) fn receive(&mut self, message: &mut [u8], watch: &Watch) -> Result<()> {
        if self.fill(message, watch)? {
            return Ok(());
        }
        Err(Error::Run("the other side closed its socket".into()))
    }

    /// The same; false if the stream ends before.
    #[inline]
    pub(crate) fn fill(&mut self, message: &mut [u8], watch: &Watch) -> Result<bool> {
        let (mut received, mut spins) = (0, Spins::default());
        while received < message.len() {
            match self.socket.read(message.get_mut(received..).unwrap_or_default()) {
                Ok(0) => return Ok(false),
                Ok(count) => received += count,
                Err(error) => self.again(error, "receive a message", watch, &mut spins)?,
            }
        }
        Ok(true)
    }

    /// Asks for room for so many bytes under way; the kernel gives what it allows.
    pub(crate) fn widen(&self, bytes: usize) {
        let fd = match &self.socket {
            Socket::Tcp(stream) => stream.as_fd(),
            Socket::Unix(stream) => stream.as_fd(),
            Socket::Udp(socket) => socket.as_fd(),
        };
        let _ = setsockopt(&fd, sockopt::SndBuf, &bytes);
        let _ = setsockopt(&fd, sockopt::RcvBuf, &bytes);
    }

    /// Receives what there is of a stream, at least a byte; 0 is its end.
    pub(crate) fn take(&mut self, room: &mut [u8], watch: &Watch) -> Result<usize> {
        let mut spins = Spins::default();
        loop {
            match self.socket.read(room) {
                Ok(count) => return Ok(count),
                Err(error) => self.again(error, "receive from a stream", watch, &mut spins)?,
            }
        }
    }

    /// Receives a datagram, if one comes within `patience`: how long it is.
    pub(crate) fn datagram(
        &mut self,
        room: &mut [u8],
        patience: Duration,
        watch: &Watch,
    ) -> Result<Option<usize>> {
        let (mut spins, mut since) = (Spins::default(), None);
        loop {
            match self.socket.read(room) {
                Ok(count) => return Ok(Some(count)),
                Err(error) => self.again(error, "receive a datagram", watch, &mut spins)?,
            }
            let looks = self.wait == Wait::Event || spins.count().is_multiple_of(256);
            if looks && since.get_or_insert_with(Instant::now).elapsed() >= patience {
                return Ok(None);
            }
        }
    }

    /// What to do about a call that did nothing: it is made again, after a look around.
    fn again(&self, error: std::io::Error, what: &str, watch: &Watch, spins: &mut Spins) -> Result<()> {
        match error.kind() {
            // No room or nothing there; of UDP also word that the other side was not there yet.
            ErrorKind::WouldBlock
            | ErrorKind::TimedOut
            | ErrorKind::Interrupted
            | ErrorKind::ConnectionRefused => {}
            _ => return Err(error).context(|| what.into()),
        }
        match self.wait {
            Wait::Poll => {
                tbrdma::relax(spins.count());
                watch.turn(spins, "message").map(|_| ())
            }
            Wait::Event => watch.look(spins, "message"),
        }
    }
}
