//! A process of the host as one of those that share the memory: it connects to the server as QEMU does, maps what it is handed, and rings peers by
//! writing their event counters.

use super::protocol::{Conversation, Said};
use crate::bar::guarded::Guarded;
use crate::bar::refusal::{Fate, Gone, Refusal};
use crate::bar::slot::Slot;
use crate::mem::Place;
use crate::sys::eventfd::EventFd;
use crate::sys::socket::receive_message;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::stat::fstat;
use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, ErrorKind};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::{Mutex, PoisonError, RwLock};
use std::time::{Duration, Instant};

/// How long a server may take for its introduction.
const PATIENCE: Duration = Duration::from_secs(5);

/// The most peers whose counters are kept. A window has one peer that matters; a server may have a few machines.
const MOST_PEERS: usize = 64;

/// The most messages that are taken at one look, so that a server cannot keep a thread busy.
const MOST_NEWS: usize = 1024;

/// One of those who share the memory.
#[derive(Debug)]
pub(in crate::bar) struct Client {
    text: String,
    memory: Guarded,
    own_id: u16,
    /// Our vector 0.
    interrupt: EventFd,
    socket: UnixStream,
    inbox: Mutex<Inbox>,
    peers: RwLock<Peers>,
    fate: Fate,
}

/// Who else is there.
#[derive(Debug, Default)]
struct Peers {
    /// Their vector 0.
    bells: BTreeMap<u16, EventFd>,
    left: BTreeSet<u16>,
}

impl Client {
    /// Connects to the server at `path`, whose memory must have `least` bytes.
    ///
    /// # Errors
    /// There is no server, or what is there does not behave like one, or its memory is too small.
    pub(in crate::bar) fn connect(path: &Path, least: u64) -> Result<Self, Refusal> {
        let socket = UnixStream::connect(path);
        let socket = socket.map_err(|source| Refusal::NoServer { path: path.to_owned(), source })?;
        let refused = |reason| Refusal::Protocol { path: path.to_owned(), reason };
        let deadline = Instant::now() + PATIENCE;
        let (mut inbox, mut peers) = (Inbox::default(), Peers::default());
        let (mut memory, mut interrupt) = (None, None);
        // The introduction has no end, but our own counters come last in it.
        while interrupt.is_none() {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(refused("its introduction does not end"));
            }
            let message = inbox.next(socket.as_fd(), Some(left)).map_err(|error| match error.kind() {
                ErrorKind::TimedOut | ErrorKind::WouldBlock => {
                    refused("it says nothing more in the middle of its introduction")
                }
                ErrorKind::UnexpectedEof => {
                    refused("it ended the connection in the middle of its introduction")
                }
                ErrorKind::InvalidData => refused("it sent more descriptors than one with a message"),
                _ => Refusal::Os("hear the server", error),
            })?;
            let (said, descriptor) = inbox.understand(message).map_err(refused)?;
            match (said, descriptor) {
                (Said::Memory, Some(fd)) => memory = Some(fd),
                (Said::Bell(id), Some(fd)) if Some(id) == inbox.talk.id() => {
                    interrupt = Some(counter(fd).map_err(refused)?);
                }
                (said, descriptor) => peers.note(said, descriptor).map_err(refused)?,
            }
        }
        let (Some(memory), Some(interrupt), Some(own_id)) = (memory, interrupt, inbox.talk.id()) else {
            return Err(refused("it introduces no memory"));
        };
        let (memory, bytes) = map(&memory, least)?;
        let text = format!("ivshmem peer {own_id} at {}, {bytes} bytes, event counters", path.display());
        let (inbox, peers) = (Mutex::new(inbox), RwLock::new(peers));
        Ok(Self { text, memory, own_id, interrupt, socket, inbox, peers, fate: Fate::default() })
    }

    fn let_go(&self, why: Gone) -> Gone {
        let first = self.fate.seal(why);
        // If there is no memory for other pages, these stay until the window is dropped.
        let _ = self.memory.give_back();
        // The end of a connection that has ended is no news any more; its descriptor stays, as it may be watched.
        let _ = self.socket.shutdown(std::net::Shutdown::Both);
        first
    }

    /// Takes what the server has said.
    fn listen(&self) -> io::Result<()> {
        let mut inbox = self.inbox.lock().unwrap_or_else(PoisonError::into_inner);
        for _ in 0..MOST_NEWS {
            let message = match inbox.next(self.socket.as_fd(), Some(Duration::ZERO)) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                other => other?,
            };
            let wrong = |reason| io::Error::new(ErrorKind::InvalidData, reason);
            let (said, descriptor) = inbox.understand(message).map_err(wrong)?;
            // Our other vectors, which nobody of ours rings.
            if said != Said::Bell(self.own_id) {
                let mut peers = self.peers.write().unwrap_or_else(PoisonError::into_inner);
                peers.note(said, descriptor).map_err(wrong)?;
            }
        }
        Ok(())
    }
}

impl Slot for Client {
    fn describe(&self) -> String {
        self.text.clone()
    }

    #[inline]
    fn memory(&self) -> Place<'_> {
        self.memory.place()
    }

    fn is_write_combining(&self) -> bool {
        false
    }

    fn own_id(&self) -> Option<u16> {
        Some(self.own_id)
    }

    fn ring(&self, peer: u16) {
        let peers = self.peers.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(bell) = peers.bells.get(&peer) {
            // It is an event counter that does not block, and one that is full has been rung.
            let _ = bell.signal();
        }
    }

    fn interrupt(&self) -> Option<BorrowedFd<'_>> {
        Some(self.interrupt.as_fd())
    }

    fn drain(&self) {
        // It is an event counter that does not block.
        let _ = self.interrupt.drain();
    }

    fn news(&self) -> Option<BorrowedFd<'_>> {
        Some(self.socket.as_fd())
    }

    fn attend(&self) {
        if self.gone().is_none() && self.listen().is_err() {
            self.let_go(Gone::Server);
        }
    }

    fn has_left(&self, peer: u16) -> bool {
        self.peers.read().unwrap_or_else(PoisonError::into_inner).left.contains(&peer)
    }

    #[inline]
    fn gone(&self) -> Option<Gone> {
        self.fate.of(&self.memory)
    }

    fn probe(&self) -> Option<Gone> {
        self.attend();
        self.gone().map(|why| self.let_go(why))
    }
}

impl Peers {
    fn note(&mut self, said: Said, descriptor: Option<OwnedFd>) -> Result<(), &'static str> {
        match (said, descriptor) {
            // The first that is told of one is its vector 0; the others are closed.
            (Said::Bell(id), Some(fd)) if !self.bells.contains_key(&id) => {
                self.left.remove(&id);
                if self.bells.len() >= MOST_PEERS {
                    return Err("it has more than 64 peers");
                }
                self.bells.insert(id, counter(fd)?);
            }
            (Said::Left(id), _) => {
                self.bells.remove(&id);
                self.left.insert(id);
            }
            _ => {}
        }
        Ok(())
    }
}

/// Takes a descriptor for an event counter, if it is one. Another kind could block, or end the process with SIGPIPE.
fn counter(fd: OwnedFd) -> Result<EventFd, &'static str> {
    const WRONG: &str = "it hands out a descriptor that is no event counter";
    let name = std::fs::read_link(format!("/proc/self/fd/{}", fd.as_raw_fd())).map_err(|_| WRONG)?;
    if !name.as_os_str().as_encoded_bytes().starts_with(b"anon_inode:[eventfd") {
        return Err(WRONG);
    }
    // All who share it see this. QEMU sets it too.
    fcntl(&fd, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).map_err(|_| WRONG)?;
    Ok(EventFd::from_fd(fd))
}

/// Maps the memory that a server handed out, and says how large it is. It may be cut short at any time: the guard is for that.
fn map(fd: &OwnedFd, least: u64) -> Result<(Guarded, u64), Refusal> {
    const WHAT: &str = "memory";
    let stat = fstat(fd).map_err(|error| Refusal::Os("ask for the size of the memory", error.into()))?;
    let bytes = u64::try_from(stat.st_size).unwrap_or(0);
    if bytes < least {
        return Err(Refusal::Small {
            what: WHAT,
            bytes,
            least,
            advice: "; start the server with more, a power of two",
        });
    }
    let len = usize::try_from(bytes).map_err(|_| Refusal::NotMappable(WHAT))?;
    let memory = Guarded::map(fd, 0, len).map_err(|error| Refusal::Os("map the memory", error))?;
    Ok((memory, bytes))
}

/// A message: its number, and what came with it.
type Message = (i64, Option<OwnedFd>);

/// What is read of the next message, which may come in pieces.
#[derive(Debug, Default)]
struct Inbox {
    talk: Conversation,
    bytes: [u8; 8],
    len: usize,
    descriptor: Option<OwnedFd>,
}

impl Inbox {
    /// The next message. The timeout is as for `receive_message`, for each piece.
    fn next(&mut self, socket: BorrowedFd<'_>, timeout: Option<Duration>) -> io::Result<Message> {
        while self.len < self.bytes.len() {
            let rest = self.bytes.get_mut(self.len..).unwrap_or_default();
            let (len, descriptors) = receive_message(socket, rest, timeout)?;
            self.len += len;
            for descriptor in descriptors {
                if self.descriptor.replace(descriptor).is_some() {
                    return Err(io::Error::new(ErrorKind::InvalidData, "two descriptors with one message"));
                }
            }
        }
        self.len = 0;
        Ok((i64::from_le_bytes(self.bytes), self.descriptor.take()))
    }

    fn understand(&mut self, (number, descriptor): Message) -> Result<(Said, Option<OwnedFd>), &'static str> {
        Ok((self.talk.hear(number, descriptor.is_some())?, descriptor))
    }
}
