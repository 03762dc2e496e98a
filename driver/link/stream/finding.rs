//! How a device comes by a stream: it connects, or listens, or opens a device file, and tries again when one has ended.

use super::ends::Ends;
use super::standin::StandIn;
use crate::error::{Error, Result};
use crate::sys::random::random_u32;
use crate::sys::stream::{self, Connecting, Duct, Listener, Meet, Progress};
use std::io::{self, ErrorKind};
use std::net::ToSocketAddrs;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;
use tbrdma_proto::Time;
use tbrdma_proto::stream::{Manner, StreamAddress, StreamPlace, StreamRole};

/// Before the first look for a new stream; each is twice as long as the one before.
const SHORTEST: Duration = Duration::from_millis(20);
/// Between two looks, when there have been many.
const LONGEST: Duration = Duration::from_secs(1);
/// How often who listens looks whether it can still be found.
const LOOK: Duration = Duration::from_millis(250);

/// How long a connection may take to be made.
const ANSWER: Duration = Duration::from_secs(3);

const CALL: &str = "open_device";

/// What is looked for.
#[derive(Debug)]
enum Place {
    Sockets {
        meet: Meet,
        role: StreamRole,
    },
    Device(String),
    StandIn(String),
    /// A stream that was given, and has been taken.
    Given,
}

/// Who looks for streams.
#[derive(Debug)]
pub(super) struct Finding {
    place: Place,
    listener: Option<Listener>,
    pause: Duration,
    /// When to look again.
    pub(super) due: Time,
}

/// What a look has found.
#[derive(Debug)]
pub(super) enum Found {
    /// A stream.
    Stream(Ends),
    /// Perhaps one, when the other end answers.
    Connecting(Connecting),
    /// Others may connect now.
    Listens,
    /// There is nobody yet.
    Nobody(io::Error),
    /// There will never be another.
    Never,
}

impl Finding {
    /// For streams at an address.
    pub(super) fn at(address: &StreamAddress) -> Result<Self> {
        let role = address.role;
        let place = match &address.place {
            StreamPlace::Unix(name) => Place::Sockets { meet: Meet::Unix(name.clone()), role },
            StreamPlace::Vsock { cid, port } => Place::Sockets { meet: Meet::Vsock(*cid, *port), role },
            StreamPlace::Tcp { host, port } => {
                let os = Error::os(CALL, "look up the address of the stream's host");
                let mut known = (host.as_str(), *port).to_socket_addrs().map_err(os)?;
                let first = known.next().ok_or_else(|| Error::InvalidArgument {
                    call: CALL,
                    reason: format!("the host {host:?} has no address"),
                })?;
                Place::Sockets { meet: Meet::Tcp(first), role }
            }
            StreamPlace::Device(path) => Place::Device(path.clone()),
            StreamPlace::StandIn(name) => Place::StandIn(name.clone()),
        };
        Ok(Self { place, listener: None, pause: SHORTEST, due: Time::ZERO })
    }

    /// For none but the one that was given.
    pub(super) fn none() -> Self {
        Self { place: Place::Given, listener: None, pause: SHORTEST, due: Time::NEVER }
    }

    /// Whether nothing that passes such streams is ever on a wire: sockets between processes of one machine, or of a machine and its guest.
    pub(super) fn is_local(&self) -> bool {
        matches!(self.place, Place::Sockets { meet: Meet::Unix(_) | Meet::Vsock(..), .. })
    }

    /// A stream has ended: look for another, but not at once. Whoever was at the other end may need to notice.
    pub(super) fn begin_again(&mut self, now: Time) {
        self.due = if matches!(self.place, Place::Given) { Time::NEVER } else { now + self.next_pause() };
    }

    /// Somebody was found.
    pub(super) fn has_found(&mut self) {
        self.pause = SHORTEST;
        self.due = Time::NEVER;
    }

    /// How long to wait now, and next time longer. Not the same for two ends, so that they do not miss each other again and again.
    fn next_pause(&mut self) -> Duration {
        let pause = self.pause;
        self.pause = (pause * 2).min(LONGEST);
        pause + pause.mul_f64(f64::from(random_u32().unwrap_or_default()) / f64::from(u32::MAX))
    }

    /// Looks. When nothing is found, `due` says when to look again.
    pub(super) fn look(&mut self, now: Time) -> Found {
        let found = match &self.place {
            Place::Given => return Found::Never,
            Place::Device(path) => stream::open_device(path)
                .and_then(|fd| Duct::new(fd, None))
                .map(|duct| Found::Stream(Ends::new(duct, Manner::Standing))),
            Place::StandIn(name) => StandIn::open(name).map(|found| Found::Stream(Ends::stand_in(found))),
            Place::Sockets { role, .. } => {
                let role = *role;
                match self.listener.take_if(|listener| !listener.is_found()) {
                    None if self.listener.is_some() => Ok(Found::Listens),
                    _ if role == StreamRole::Listen => self.listen(false),
                    _ => self.connect(role),
                }
            }
        };
        self.due = match &found {
            Ok(Found::Listens) => now + LOOK,
            Ok(Found::Connecting(_)) => now + ANSWER,
            Ok(_) => Time::NEVER,
            Err(_) => now + self.next_pause(),
        };
        found.unwrap_or_else(Found::Nobody)
    }

    /// Whether there is no sense in looking again.
    pub(super) fn is_hopeless(&self, error: &io::Error) -> bool {
        use ErrorKind::{InvalidInput, NotADirectory, NotFound, PermissionDenied, Unsupported};
        let waits_for_nobody = match self.place {
            Place::Device(_) => true,
            Place::Sockets { role, .. } => role != StreamRole::Connect,
            Place::StandIn(_) | Place::Given => false,
        };
        matches!(error.kind(), InvalidInput | NotADirectory | PermissionDenied | Unsupported)
            || (error.kind() == NotFound && waits_for_nobody)
    }

    /// A connection was refused after all.
    pub(super) fn refused(&mut self, now: Time, error: io::Error) -> Found {
        let found = match &self.place {
            Place::Given => return Found::Never,
            Place::Sockets { role: StreamRole::Either, .. } => self.listen_after(error),
            _ => Err(error),
        };
        self.due = if found.is_ok() { now + LOOK } else { now + self.next_pause() };
        found.unwrap_or_else(Found::Nobody)
    }

    fn connect(&mut self, role: StreamRole) -> io::Result<Found> {
        let Place::Sockets { meet, .. } = &self.place else { return Ok(Found::Never) };
        match stream::connect(meet) {
            Ok(Progress::Connected(fd)) => Self::stream_of(fd),
            Ok(Progress::Pending(connecting)) => Ok(Found::Connecting(connecting)),
            // Somebody listens, who has no time.
            Err(error) if role == StreamRole::Connect || error.kind() == ErrorKind::WouldBlock => Err(error),
            Err(error) => self.listen_after(error),
        }
    }

    /// Nobody listens: we do.
    fn listen_after(&mut self, error: io::Error) -> io::Result<Found> {
        match self.listen(error.kind() == ErrorKind::ConnectionRefused) {
            // The address is another machine's, where nobody listens yet.
            Err(refusal) if refusal.kind() == ErrorKind::AddrNotAvailable => Err(error),
            listening => listening,
        }
    }

    /// Listens. `replaces`: it is known that nobody else does.
    fn listen(&mut self, replaces: bool) -> io::Result<Found> {
        let Place::Sockets { meet, role } = &self.place else { return Ok(Found::Never) };
        let mut listener = stream::listen(meet, replaces);
        if *role == StreamRole::Listen
            && listener.as_ref().is_err_and(|error| error.kind() == ErrorKind::AddrInUse)
            && stream::connect(meet).is_err_and(|error| error.kind() == ErrorKind::ConnectionRefused)
        {
            listener = stream::listen(meet, true);
        }
        self.listener = Some(listener?);
        Ok(Found::Listens)
    }

    /// Who has connected, if anybody has.
    pub(super) fn accept(&self) -> Option<Ends> {
        let fd = self.listener.as_ref()?.accept().ok()??;
        match Self::stream_of(fd) {
            Ok(Found::Stream(ends)) => Some(ends),
            _ => None,
        }
    }

    /// A connected socket as a stream.
    pub(super) fn stream_of(fd: OwnedFd) -> io::Result<Found> {
        Ok(Found::Stream(Ends::new(Duct::new(fd, None)?, Manner::Fresh)))
    }

    /// Readable when somebody connects.
    pub(super) fn listener(&self) -> Option<BorrowedFd<'_>> {
        self.listener.as_ref().map(AsFd::as_fd)
    }
}
