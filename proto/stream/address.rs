//! Names of streams, as they stand behind `stream:`.
//!
//! | text | what |
//! |---|---|
//! | `unix:/path`, `unix:@name` | a Unix socket with a path, or with an abstract name |
//! | `tcp:HOST:PORT` | TCP; an IPv6 address in brackets |
//! | `vsock:CID:PORT` | between a virtual machine and its host |
//! | `standin:/path`, `standin:@name` | what behaves like a `/dev/tbstreamX` whose cable leads to whoever opens the same name |
//! | `/path` | a character device: `/dev/tbstream0` |
//!
//! The first three may end in `,listen` or `,connect`. Without, whoever comes first listens and the other connects.

use core::fmt;
use core::str::FromStr;

/// `sun_path` of `sockaddr_un` without its final zero, on the system with the shortest.
const LONGEST_PATH: usize = 103;

/// Which stream, and how to come by it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StreamAddress {
    /// Where it is.
    pub place: StreamPlace,
    /// Who waits for whom.
    pub role: StreamRole,
}

/// Where a stream is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StreamPlace {
    /// A Unix socket: a path, or `@` and an abstract name.
    Unix(String),
    /// TCP.
    Tcp {
        /// A name, an IPv4 address, or an IPv6 one without brackets.
        host: String,
        /// The port.
        port: u16,
    },
    /// Between a virtual machine and its host.
    Vsock {
        /// The other machine; or one's own, to listen.
        cid: u32,
        /// The port.
        port: u32,
    },
    /// A character device.
    Device(String),
    /// A stand-in for one: a path, or `@` and an abstract name.
    StandIn(String),
}

/// Who waits for whom.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum StreamRole {
    /// Whoever comes first.
    #[default]
    Either,
    /// This end.
    Listen,
    /// The other.
    Connect,
}

/// Text that names no stream.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "stream:{text}: {what}; write stream:unix:/PATH, stream:unix:@NAME, stream:tcp:HOST:PORT or stream:vsock:CID:PORT, each with ,listen or ,connect \
     behind it if need be, or stream:/dev/tbstream0"
)]
pub struct StreamAddressError {
    /// What stands behind `stream:`.
    pub text: String,
    /// What is wrong with it.
    pub what: &'static str,
}

impl FromStr for StreamAddress {
    type Err = StreamAddressError;

    fn from_str(text: &str) -> Result<Self, StreamAddressError> {
        let wrong = |what| StreamAddressError { text: text.to_owned(), what };
        let (place, role) = match text.rsplit_once(',') {
            Some((place, "listen")) => (place, StreamRole::Listen),
            Some((place, "connect")) => (place, StreamRole::Connect),
            Some(_) => return Err(wrong("what stands behind the comma is neither listen nor connect")),
            None => (text, StreamRole::Either),
        };
        let place = place.parse().map_err(wrong)?;
        if role != StreamRole::Either && matches!(place, StreamPlace::Device(_) | StreamPlace::StandIn(_)) {
            return Err(wrong("nobody listens at a device: both ends are opened alike"));
        }
        Ok(Self { place, role })
    }
}

impl FromStr for StreamPlace {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, &'static str> {
        if !text.bytes().all(|byte| byte.is_ascii_graphic() && byte != b',') {
            return Err("spaces, commas and letters beyond ASCII do not fit a device's name");
        }
        let named = |name: &str| {
            let bare = name.strip_prefix('@').unwrap_or(name);
            match bare.len() {
                0 => Err("a name is missing"),
                1..=LONGEST_PATH => Ok(name.to_owned()),
                _ => Err("the name is longer than a socket's may be"),
            }
        };
        if let Some(name) = text.strip_prefix("unix:") {
            return named(name).map(Self::Unix);
        }
        if let Some(name) = text.strip_prefix("standin:") {
            return named(name).map(Self::StandIn);
        }
        if let Some(rest) = text.strip_prefix("tcp:") {
            let (host, port) = rest.rsplit_once(':').ok_or("a port is missing")?;
            let host = match host.strip_prefix('[') {
                Some(host) => host.strip_suffix(']').ok_or("a bracket is missing")?,
                None if host.contains(':') => return Err("an IPv6 address wants brackets"),
                None => host,
            };
            let port =
                number(port).filter(|port| *port > 0).ok_or("the port is no number from 1 to 65535")?;
            if host.is_empty() || host.len() > 255 || host.contains(['[', ']']) {
                return Err("the host is missing, or is none");
            }
            return Ok(Self::Tcp { host: host.to_owned(), port });
        }
        if let Some(rest) = text.strip_prefix("vsock:") {
            let (cid, port) = rest.split_once(':').ok_or("a port is missing")?;
            let numbers = number(cid).zip(number(port)).ok_or("CID and port are numbers below 2^32")?;
            return Ok(Self::Vsock { cid: numbers.0, port: numbers.1 });
        }
        if text.starts_with('/') {
            return Ok(Self::Device(text.to_owned()));
        }
        Err("no such kind of stream")
    }
}

/// A number in digits alone.
fn number<N: FromStr>(text: &str) -> Option<N> {
    text.parse().ok().filter(|_| text.bytes().all(|byte| byte.is_ascii_digit()))
}

impl fmt::Display for StreamAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let role = match self.role {
            StreamRole::Either => "",
            StreamRole::Listen => ",listen",
            StreamRole::Connect => ",connect",
        };
        write!(f, "{}{role}", self.place)
    }
}

impl fmt::Display for StreamPlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(name) => write!(f, "unix:{name}"),
            Self::Tcp { host, port } if host.contains(':') => write!(f, "tcp:[{host}]:{port}"),
            Self::Tcp { host, port } => write!(f, "tcp:{host}:{port}"),
            Self::Vsock { cid, port } => write!(f, "vsock:{cid}:{port}"),
            Self::Device(path) => f.write_str(path),
            Self::StandIn(name) => write!(f, "standin:{name}"),
        }
    }
}
