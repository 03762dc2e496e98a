//! What becomes of a link, from looking for a peer to losing it. Whoever receives drives it.

use super::ends::Ends;
use super::finding::{Finding, Found};
use super::input::Input;
use super::inward::Inward;
use super::link::Shared;
use crate::sys::stream::{Connecting, Progress};
use std::fmt;
use std::io::{self, ErrorKind};
use std::sync::Arc;
use tbrdma_proto::stream::{FrameError, FrameReader, Hello, Meeting, MeetingError, Refusal};
use tbrdma_proto::{Guid, Time};

/// After so many looks at a stream that had nothing, whoever else has connected is told that there is a peer already.
const LOOK_ASIDE: u32 = 64;

/// Where packets go: the packet, its traffic class, its hop limit, and who sent it.
pub(super) type Deliver<'a> = dyn FnMut(&[u8], u8, u8, Guid) + 'a;

/// How far a link is.
#[derive(Debug)]
pub(super) enum Stage {
    /// There is no stream.
    Down,
    /// There may be one, when the other end answers.
    Connecting(Connecting),
    /// There is one, and we want to know who is at its other end.
    Meeting { ends: Arc<Ends>, meeting: Box<Meeting> },
    /// Packets pass.
    Up { ends: Arc<Ends>, reader: FrameReader },
}

/// Why packets do not pass.
#[derive(Debug)]
pub(super) enum Why {
    /// Nothing has happened yet.
    Fresh,
    /// Somebody is there; we are getting to know each other.
    Meeting,
    /// We listen.
    Listens,
    /// There is nobody to connect to, or nothing to open.
    Nobody(io::Error),
    /// The other end has closed the stream, or has died.
    Ended,
    /// The system says that the stream is broken.
    Broken(io::Error),
    /// What arrived was no frame.
    Frame(FrameError),
    /// The other end was nobody to talk to.
    Meet(MeetingError),
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fresh => f.write_str("nobody was looked for yet"),
            Self::Meeting => f.write_str("the other end has not introduced itself yet"),
            Self::Listens => f.write_str("nobody has connected yet"),
            Self::Nobody(error) => write!(f, "there is nobody yet ({error})"),
            Self::Ended => f.write_str("the other end has closed the stream, or has ended"),
            Self::Broken(error) => write!(f, "the stream is broken ({error})"),
            Self::Frame(error) => error.fmt(f),
            Self::Meet(error) => error.fmt(f),
        }
    }
}

/// What one thread at a time does for a link.
#[derive(Debug)]
pub(super) struct Driving {
    pub(super) finding: Finding,
    pub(super) stage: Stage,
    /// Packets to ourselves that are being handed out.
    pub(super) inward: Inward,
    input: Input,
    own: Hello,
    looks: u32,
}

impl Driving {
    /// Begins with what there is to look for.
    pub(super) fn new(finding: Finding, own: Hello) -> Self {
        Self { finding, stage: Stage::Down, inward: Inward::default(), input: Input::new(), own, looks: 0 }
    }

    /// Takes what has come: packets, connections, news about the stream. How many packets.
    pub(super) fn look(&mut self, now: Time, shared: &Shared, deliver: &mut Deliver<'_>) -> usize {
        match &mut self.stage {
            Stage::Up { .. } => self.take_packets(now, shared, deliver),
            Stage::Meeting { .. } => {
                self.meet(now, shared);
                // The first packets may have come with the last hello.
                if matches!(self.stage, Stage::Up { .. }) {
                    self.take_packets(now, shared, deliver)
                } else {
                    0
                }
            }
            Stage::Down => {
                if let Some(ends) = self.finding.accept() {
                    self.begin(now, shared, ends);
                }
                0
            }
            Stage::Connecting(_) => {
                self.see_to_connection(now, shared);
                0
            }
        }
    }

    #[inline]
    fn take_packets(&mut self, now: Time, shared: &Shared, deliver: &mut Deliver<'_>) -> usize {
        let Stage::Up { ends, reader } = &mut self.stage else { return 0 };
        let peer = reader.peer();
        let read = self.input.fill(ends);
        match self.input.packets(reader, |packet, class, hops| deliver(packet, class, hops, peer)) {
            Ok(count) => match read {
                Ok(1..) => count,
                Ok(0) => {
                    self.fall(now, shared, Why::Ended);
                    count
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    self.find_nothing(now, shared);
                    count
                }
                Err(error) => {
                    self.fall(now, shared, Why::Broken(error));
                    count
                }
            },
            Err(error) => {
                self.fall(now, shared, Why::Frame(error));
                0
            }
        }
    }

    /// The stream had nothing.
    fn find_nothing(&mut self, now: Time, shared: &Shared) {
        self.looks = self.looks.wrapping_add(1);
        if !self.looks.is_multiple_of(LOOK_ASIDE) && !shared.has_failed() {
            return;
        }
        if let Some(error) = shared.failure() {
            return self.fall(now, shared, Why::Broken(error));
        }
        if let Some(ends) = self.finding.accept() {
            // A few bytes into a fresh socket: there is room.
            let _ = ends.write(&self.own.refusing(Refusal::Busy));
            shared.has_turned_away();
        }
    }

    /// A stream is there.
    pub(super) fn begin(&mut self, now: Time, shared: &Shared, ends: Ends) {
        let meeting = Box::new(Meeting::new(now, self.own, ends.manner));
        let ends = Arc::new(ends);
        self.input.clear();
        self.finding.due = Time::NEVER;
        shared.opened(&ends);
        self.stage = Stage::Meeting { ends, meeting };
        self.say_hello(shared);
    }

    /// Says what is to be said; whether the peer is met.
    fn say_hello(&mut self, shared: &Shared) {
        let Stage::Meeting { ends, meeting } = &mut self.stage else { return };
        if let Some(hello) = meeting.poll_transmit() {
            shared.say(&hello);
        }
        if let Some(peer) = meeting.peer() {
            self.finding.has_found();
            self.stage = Stage::Up { ends: Arc::clone(ends), reader: FrameReader::new(peer.guid) };
            shared.met(peer.guid);
        }
    }

    fn meet(&mut self, now: Time, shared: &Shared) {
        let Stage::Meeting { ends, meeting } = &mut self.stage else { return };
        let read = self.input.fill(ends);
        if let Err(error) = self.input.meet(now, meeting) {
            if let Some(refusal) = meeting.refusal(&error) {
                shared.say(&refusal);
            }
            let oneself = error == MeetingError::Oneself;
            self.fall(now, shared, Why::Meet(error));
            if oneself {
                // A TCP connection may find itself when nobody listens.
                let found = self.finding.refused(now, ErrorKind::ConnectionRefused.into());
                self.use_found(now, shared, found);
            }
            return;
        }
        self.say_hello(shared);
        match read {
            Ok(1..) => {}
            Ok(0) => self.fall(now, shared, Why::Ended),
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                if let Some(error) = shared.failure() {
                    self.fall(now, shared, Why::Broken(error));
                }
            }
            Err(error) => self.fall(now, shared, Why::Broken(error)),
        }
    }

    fn see_to_connection(&mut self, now: Time, shared: &Shared) {
        let Stage::Connecting(connecting) = std::mem::replace(&mut self.stage, Stage::Down) else { return };
        shared.forget(&connecting);
        let found = match connecting.look() {
            Ok(Progress::Pending(connecting)) => Found::Connecting(connecting),
            Ok(Progress::Connected(fd)) => match Finding::stream_of(fd) {
                Ok(found) => found,
                Err(error) => self.finding.refused(now, error),
            },
            Err(error) => self.finding.refused(now, error),
        };
        self.use_found(now, shared, found);
    }

    /// Does what time has brought.
    pub(super) fn pass_time(&mut self, now: Time, shared: &Shared) {
        match &mut self.stage {
            Stage::Up { .. } => {}
            Stage::Connecting(connecting) => {
                shared.forget(connecting);
                self.stage = Stage::Down;
                let found = self.finding.refused(now, ErrorKind::TimedOut.into());
                self.use_found(now, shared, found);
            }
            Stage::Meeting { meeting, .. } => match meeting.handle_timeout(now) {
                Ok(()) => self.say_hello(shared),
                Err(error) => self.fall(now, shared, Why::Meet(error)),
            },
            Stage::Down => {
                if self.finding.due <= now {
                    let found = self.finding.look(now);
                    self.use_found(now, shared, found);
                }
            }
        }
    }

    /// Makes of it what can be made.
    pub(super) fn use_found(&mut self, now: Time, shared: &Shared, found: Found) {
        match found {
            Found::Stream(ends) => self.begin(now, shared, ends),
            Found::Connecting(connecting) => {
                shared.expect(&connecting);
                self.stage = Stage::Connecting(connecting);
            }
            Found::Listens => shared.listens(&self.finding),
            Found::Nobody(error) => shared.is_down(Why::Nobody(error)),
            Found::Never => {}
        }
    }

    /// The stream is over.
    fn fall(&mut self, now: Time, shared: &Shared, why: Why) {
        shared.closed(why);
        // Closed at once: a device tells its other end when it is, and who waits with that would close what the other has opened anew.
        self.stage = Stage::Down;
        self.finding.begin_again(now);
    }

    /// When time will have brought something.
    pub(super) fn due(&self) -> Time {
        match &self.stage {
            Stage::Up { .. } => Time::NEVER,
            Stage::Meeting { meeting, .. } => meeting.poll_timeout(),
            Stage::Down | Stage::Connecting(_) => self.finding.due,
        }
    }
}
