//! Finding the other side of a run: a child process, a server to connect to, or a client to wait for.

use std::ffi::OsStr;
use std::io::{ErrorKind, Read};
use std::net::{SocketAddr, TcpListener, TcpStream, ToSocketAddrs};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::cli::with_port;
use crate::control::Channel;
use crate::error::{Context, Error, Result};
use crate::signals;

/// How long a refused connection is tried again: two shells seldom start at once.
const REFUSED_FOR: Duration = Duration::from_secs(1);
/// How long a child may take to leave once its control channel is closed.
const CHILD_LEAVES_WITHIN: Duration = Duration::from_secs(1);

/// The second process of a run. When this value goes, so does the process.
#[derive(Debug)]
pub struct Responder(Child);

impl Responder {
    /// Starts this very program as the other side, which speaks on its standard streams.
    ///
    /// # Errors
    /// The program cannot be found or started.
    pub fn start() -> Result<(Self, Channel)> {
        Self::start_as(&["responder"], "the responder")
    }

    /// The same of another side, which these arguments make of it, under a name for errors.
    ///
    /// # Errors
    /// The program cannot be found or started.
    pub fn start_as(arguments: &[impl AsRef<OsStr>], name: &str) -> Result<(Self, Channel)> {
        let program =
            std::env::current_exe().context(|| "find this program to start the second process".into())?;
        let mut child = Command::new(&program)
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context(|| format!("start the second process {}", program.display()))?;
        let (stdin, stdout) = (child.stdin.take(), child.stdout.take());
        let name = format!("{name} (process {})", child.id());
        let responder = Self(child);
        let (Some(stdin), Some(stdout)) = (stdin, stdout) else {
            return Err(Error::Run(format!("{name} has no standard streams")));
        };
        Ok((responder, Channel::new(stdout, stdin, name, || {})?))
    }

    /// How the process ended, if it has.
    pub fn ending(&mut self) -> Option<String> {
        let deadline = Instant::now() + CHILD_LEAVES_WITHIN;
        loop {
            match self.0.try_wait() {
                Ok(Some(status)) => return Some(status.to_string()),
                Ok(None) if Instant::now() < deadline => std::thread::sleep(Duration::from_millis(5)),
                _ => return None,
            }
        }
    }
}

impl Drop for Responder {
    fn drop(&mut self) {
        if self.ending().is_none() {
            // It is ours and it did not leave; both calls fail only if it has left by now.
            let _ = self.0.kill();
            let _ = self.0.wait();
        }
    }
}

/// Connects to a server.
///
/// # Errors
/// Nobody listens there, or the address means nothing.
pub fn connect(address: &str, timeout: Duration) -> Result<Channel> {
    let address = with_port(address)?;
    let refused_until = Instant::now() + REFUSED_FOR.min(timeout);
    let stream = loop {
        signals::check()?;
        match connect_once(&address, timeout) {
            Ok(stream) => break stream,
            Err(error) if error.kind() == ErrorKind::ConnectionRefused && Instant::now() < refused_until => {
                std::thread::sleep(Duration::from_millis(50));
            }
            Err(error) => {
                return Err(Error::Run(format!(
                    "connect to {address}: {error}; start `tbrdma-bench pingpong --server` there first"
                )));
            }
        }
    };
    over_tcp(stream, format!("the server at {address}"))
}

pub(crate) fn connect_once(address: &str, timeout: Duration) -> std::io::Result<TcpStream> {
    let mut last = std::io::Error::new(ErrorKind::NotFound, "the name has no address");
    for address in address.to_socket_addrs()? {
        match TcpStream::connect_timeout(&address, timeout) {
            Ok(stream) => return Ok(stream),
            Err(error) => last = error,
        }
    }
    Err(last)
}

/// A server that waits for its client.
#[derive(Debug)]
pub struct Listener {
    listener: TcpListener,
    address: SocketAddr,
}

impl Listener {
    /// Listens on an address.
    ///
    /// # Errors
    /// The address is taken, or is none of this host's.
    pub fn bind(address: &str) -> Result<Self> {
        let address = with_port(address)?;
        let listener = TcpListener::bind(&address).context(|| format!("listen on {address}"))?;
        listener.set_nonblocking(true).context(|| format!("listen on {address}"))?;
        let address = listener.local_addr().context(|| format!("listen on {address}"))?;
        Ok(Self { listener, address })
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Waits for a client, without end if there is no timeout.
    ///
    /// # Errors
    /// The user interrupted, or nobody came in time.
    pub fn accept(&self, timeout: Option<Duration>) -> Result<Channel> {
        let start = Instant::now();
        loop {
            signals::check()?;
            match self.listener.accept() {
                Ok((stream, address)) => return over_tcp(stream, format!("the client at {address}")),
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {}
                Err(error) => {
                    return Err(Error::Run(format!("wait for a client on {}: {error}", self.address)));
                }
            }
            if let Some(timeout) = timeout
                && start.elapsed() >= timeout
            {
                return Err(Error::Run(format!(
                    "no client came to {} within {} s: start `tbrdma-bench pingpong --connect {}`",
                    self.address,
                    timeout.as_secs_f64(),
                    self.address
                )));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

pub(crate) fn over_tcp(stream: TcpStream, name: String) -> Result<Channel> {
    let set_up = || -> std::io::Result<TcpStream> {
        stream.set_nonblocking(false)?;
        stream.set_nodelay(true)?;
        stream.set_write_timeout(Some(Duration::from_secs(5)))?;
        stream.try_clone()
    };
    let reader = set_up().context(|| format!("set up the control channel to {name}"))?;
    Channel::new(reader, stream, name, || {})
}

/// The control channel of the second process: its own standard streams. When they close, the process ends within moments,
/// whatever it is doing.
///
/// # Errors
/// The reading thread could not be started.
pub fn of_parent() -> Result<Channel> {
    struct Stdin;
    impl Read for Stdin {
        fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
            std::io::stdin().read(buffer)
        }
    }
    Channel::new(Stdin, std::io::stdout(), "the initiator".into(), || {
        std::thread::sleep(CHILD_LEAVES_WITHIN / 2);
        std::process::exit(1);
    })
}
