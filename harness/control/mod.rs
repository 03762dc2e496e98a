//! The control channel: the two sides of a run agree on it before, between and after their measurements, never during one.
//!
//! Messages are JSON, one a line, over any byte stream: TCP between two shells or hosts, the standard streams of a child
//! which the harness started itself. A thread reads, so that a peer which goes away raises an alarm while the other side
//! is busy measuring; the thread sleeps in `read` all the while.
//!
//! Where a side measures with several threads, each has a lane of its own: the same messages over the same connection, marked with its number.

mod message;

use std::io::{BufRead, BufReader, Read, Write};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, TryRecvError, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde::Deserialize;

pub use message::{
    Account, Endpoint, FloorOffer, Go, Hello, MAGIC, Message, Phase, RanksPart, SocketOffer, StreamOffer,
    VERSION,
};

use crate::clock;
use crate::error::{Error, Result, one_line};
use crate::plan::MAX_THREADS;
use crate::signals;

/// Longest line that is read from a peer.
const MAX_LINE: u64 = 64 << 10;
/// How often a wait for a message looks for Ctrl-C.
const SLICE: Duration = Duration::from_millis(20);
/// How long a failure waits for the peer's own words.
const LAST_WORDS: Duration = Duration::from_millis(300);

enum Incoming {
    Message(Box<Message>),
    Garbage(String),
    Closed,
}

impl Incoming {
    fn of_line(line: &[u8]) -> Self {
        match decode(line) {
            Ok(message) => Self::Message(Box::new(message)),
            Err(reason) => Self::Garbage(reason),
        }
    }

    /// Nothing that makes sense comes after it.
    fn is_last(&self) -> bool {
        !matches!(self, Self::Message(message) if !matches!(**message, Message::Fail { .. }))
    }
}

/// Where messages of a peer go when they have arrived: to the lane that they are for.
struct Router {
    lanes: Vec<Sender<Incoming>>,
    alarm: Arc<AtomicBool>,
}

impl Router {
    /// With all lanes that there can be: what comes for one waits until somebody takes it up.
    fn new() -> (Self, Vec<Option<Receiver<Incoming>>>) {
        let (lanes, ends) = (0..=MAX_THREADS).map(|_| channel()).map(|(to, from)| (to, Some(from))).unzip();
        (Self { lanes, alarm: Arc::default() }, ends)
    }

    /// Hands on what arrived; an error if nobody listens any more. What is the last of all is told everywhere.
    fn deliver(&self, lane: u32, incoming: Incoming) -> std::io::Result<()> {
        let last = incoming.is_last();
        let end = self.lanes.get(lane as usize).unwrap_or(&self.lanes[0]);
        let heard = end.send(incoming);
        if last {
            self.alarm.store(true, Ordering::Release);
            for end in &self.lanes {
                // Whoever asks again learns that nothing more will come; who is gone need not.
                let _ = end.send(Incoming::Closed);
            }
        }
        heard.map_err(|_| std::io::ErrorKind::BrokenPipe.into())
    }
}

/// The message of a line.
///
/// # Errors
/// Why it is none.
pub fn decode(line: &[u8]) -> Result<Message, String> {
    serde_json::from_slice(line).map_err(|error| {
        // It may name what the peer has sent, line breaks and what moves a terminal's cursor included.
        let plain = |letter: char| if letter.is_control() { ' ' } else { letter };
        let error: String = error.to_string().chars().map(plain).collect();
        format!("{error} in {}", shown(line))
    })
}

/// The way to a peer inside this process.
struct Inside {
    line: Vec<u8>,
    /// The peer's.
    router: Arc<Router>,
}

impl Write for Inside {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.line.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        let line = std::mem::take(&mut self.line);
        self.router.deliver(lane_of(&line), Incoming::of_line(&line))
    }
}

impl Drop for Inside {
    fn drop(&mut self) {
        // If nobody listens any more, nobody has to be told.
        let _ = self.router.deliver(0, Incoming::Closed);
    }
}

type Writer = Arc<Mutex<Box<dyn Write + Send>>>;

/// One side's end of the control channel, or of a lane of it.
pub struct Channel {
    writer: Writer,
    /// Which lane; 0 is the channel itself.
    lane: u32,
    inbox: Receiver<Incoming>,
    /// The ends of lanes that nobody took up.
    lanes: Vec<Option<Receiver<Incoming>>>,
    alarm: Arc<AtomicBool>,
    peer: String,
}

impl Channel {
    /// Takes over both directions of a stream. `peer` names the other side in errors. `on_close` runs in the reading thread
    /// when the stream ends.
    ///
    /// # Errors
    /// The reading thread could not be started.
    pub fn new(
        reader: impl Read + Send + 'static,
        writer: impl Write + Send + 'static,
        peer: String,
        on_close: impl FnOnce() + Send + 'static,
    ) -> Result<Self> {
        let (router, ends) = Router::new();
        let alarm = Arc::clone(&router.alarm);
        std::thread::Builder::new()
            .name("control".into())
            .spawn(move || {
                read_lines(BufReader::new(reader), &router);
                on_close();
            })
            .map_err(|error| Error::Run(format!("start the thread of the control channel: {error}")))?;
        Ok(Self::whole(Box::new(writer), ends, alarm, peer))
    }

    /// Both ends of a channel inside this process. What is sent is there: no thread has a part in it.
    #[must_use]
    pub fn pair(peers: [String; 2]) -> [Self; 2] {
        let [ours, theirs] = peers.map(|peer| (peer, Router::new()));
        let end = |(peer, (router, ends)): (String, (Router, _))| (peer, Arc::new(router), ends);
        let (ours, theirs) = (end(ours), end(theirs));
        let to = [&theirs.1, &ours.1].map(|router| Inside { line: Vec::new(), router: Arc::clone(router) });
        let [to_them, to_us] = to;
        [(ours, to_them), (theirs, to_us)].map(|((peer, router, ends), to)| {
            Self::whole(Box::new(to), ends, Arc::clone(&router.alarm), peer)
        })
    }

    fn whole(
        writer: Box<dyn Write + Send>,
        mut lanes: Vec<Option<Receiver<Incoming>>>,
        alarm: Arc<AtomicBool>,
        peer: String,
    ) -> Self {
        // A channel without a lane of its own hears nothing, and there is none: the router has made it.
        let inbox = lanes.first_mut().and_then(Option::take).unwrap_or_else(|| channel().1);
        Self { writer: Arc::new(Mutex::new(writer)), lane: 0, inbox, lanes, alarm, peer }
    }

    /// A lane of this channel, for one of several threads: it goes over the same connection, beside the others, from 1 to [`MAX_THREADS`].
    ///
    /// # Errors
    /// There is no such lane, or it was taken up before.
    pub fn lane(&mut self, number: u32) -> Result<Self> {
        let inbox = self.lanes.get_mut(number as usize).and_then(Option::take);
        let inbox =
            inbox.ok_or_else(|| Error::Run(format!("the control channel has no lane {number} left")))?;
        let (writer, alarm) = (Arc::clone(&self.writer), self.alarm());
        Ok(Self { writer, lane: number, inbox, lanes: Vec::new(), alarm, peer: self.peer.clone() })
    }

    /// Who is at the other end.
    #[must_use]
    pub fn peer(&self) -> &str {
        &self.peer
    }

    /// Names the peer more exactly, once it has said who it is.
    pub fn set_peer(&mut self, peer: String) {
        self.peer = peer;
    }

    /// Raised when the peer goes away or gives up.
    #[must_use]
    pub fn alarm(&self) -> Arc<AtomicBool> {
        self.alarm.clone()
    }

    /// Whether the peer has gone away or given up.
    #[must_use]
    pub fn is_alarmed(&self) -> bool {
        self.alarm.load(Ordering::Acquire)
    }

    /// Sends one message.
    ///
    /// # Errors
    /// The peer has gone.
    pub fn send(&mut self, message: &Message) -> Result<()> {
        let mut line = encoded(message, self.lane)
            .map_err(|error| Error::Run(format!("encode a control message: {error}")))?;
        line.push('\n');
        // One whole message at a time; a thread that panicked with it left a whole one.
        let mut writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        writer.write_all(line.as_bytes()).and_then(|()| writer.flush()).map_err(|error| Error::PeerGone {
            peer: self.peer.clone(),
            detail: format!(" (write to the control channel: {error})"),
        })
    }

    /// The next message.
    ///
    /// # Errors
    /// Nothing came within `timeout`, the peer went away or gave up, what came is no control message, or the user
    /// interrupted.
    pub fn receive(&mut self, timeout: Duration) -> Result<Message> {
        let told = clock::wait_in_turn(timeout, || match self.inbox.try_recv() {
            Err(TryRecvError::Empty) if !signals::interrupted() => None,
            found => Some(found),
        });
        if let Some(found) = told {
            signals::check()?;
            return match found {
                Some(Ok(incoming)) => self.accept(incoming),
                Some(Err(_)) => Err(self.gone()),
                None => Err(self.silent(timeout)),
            };
        }
        let deadline = Instant::now() + timeout;
        loop {
            signals::check()?;
            let left = deadline.saturating_duration_since(Instant::now());
            match self.inbox.recv_timeout(left.min(SLICE)) {
                Ok(incoming) => return self.accept(incoming),
                Err(RecvTimeoutError::Disconnected) => return Err(self.gone()),
                Err(RecvTimeoutError::Timeout) if left.is_zero() => {
                    return Err(self.silent(timeout));
                }
                Err(RecvTimeoutError::Timeout) => {}
            }
        }
    }

    /// The next message, if it is there.
    ///
    /// # Errors
    /// The peer went away or gave up, or what came is no control message.
    pub fn try_receive(&mut self) -> Result<Option<Message>> {
        match self.inbox.try_recv() {
            Ok(incoming) => self.accept(incoming).map(Some),
            Err(TryRecvError::Empty) => Ok(None),
            Err(TryRecvError::Disconnected) => Err(self.gone()),
        }
    }

    fn silent(&self, timeout: Duration) -> Error {
        Error::Run(format!(
            "no control message from {} within {} s: it is stuck or stopped; --timeout waits longer",
            self.peer,
            timeout.as_secs_f64()
        ))
    }

    fn accept(&self, incoming: Incoming) -> Result<Message> {
        match incoming {
            Incoming::Message(message) => match *message {
                Message::Fail { reason } => {
                    Err(Error::PeerFailed { peer: self.peer.clone(), reason: one_line(&reason) })
                }
                message => Ok(message),
            },
            Incoming::Garbage(text) => Err(Error::Run(format!(
                "{} does not speak the control protocol of tbrdma-bench: {text}",
                self.peer
            ))),
            Incoming::Closed => Err(self.gone()),
        }
    }

    fn gone(&self) -> Error {
        Error::PeerGone { peer: self.peer.clone(), detail: String::new() }
    }

    /// The error of a message that came out of turn.
    #[must_use]
    pub fn unexpected(&self, message: &Message, wanted: &str) -> Error {
        Error::Run(format!("{} sent `{}` where {wanted} was due", self.peer, message.name()))
    }

    /// Greets the peer and checks that both speak the same language.
    ///
    /// # Errors
    /// The peer is no `tbrdma-bench`, or one of another version.
    pub fn greet(&mut self, timeout: Duration) -> Result<Hello> {
        self.send(&Message::Hello(Hello::ours()))?;
        match self.receive(timeout)? {
            Message::Hello(hello) => {
                hello.check().map_err(|reason| Error::Run(format!("{}: {reason}", self.peer)))?;
                Ok(hello)
            }
            other => Err(self.unexpected(&other, "`hello`")),
        }
    }

    /// Says what the peer has to do with an error: its own last words or its end count for more than what this side saw.
    pub fn explain(&mut self, error: Error) -> Error {
        if matches!(error, Error::Interrupted | Error::PeerFailed { .. } | Error::Usage(_))
            || signals::interrupted()
        {
            return if signals::interrupted() { Error::Interrupted } else { error };
        }
        let deadline = Instant::now() + LAST_WORDS;
        loop {
            match self.inbox.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(Incoming::Message(message)) => {
                    if let Message::Fail { reason } = *message {
                        return Error::PeerFailed { peer: self.peer.clone(), reason: one_line(&reason) };
                    }
                }
                Ok(Incoming::Garbage(_)) => {}
                Ok(Incoming::Closed) | Err(RecvTimeoutError::Disconnected) => {
                    let detail = match &error {
                        Error::Alarm => String::new(),
                        Error::PeerGone { detail, .. } => detail.clone(),
                        other => format!(" (first seen as: {other})"),
                    };
                    return Error::PeerGone { peer: self.peer.clone(), detail };
                }
                Err(RecvTimeoutError::Timeout) => return error,
            }
        }
    }
}

impl std::fmt::Debug for Channel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Channel").field("peer", &self.peer).finish_non_exhaustive()
    }
}

/// A message as a line, with the number of its lane where it has one.
fn encoded(message: &Message, lane: u32) -> serde_json::Result<String> {
    if lane == 0 {
        return serde_json::to_string(message);
    }
    let mut value = serde_json::to_value(message)?;
    if let Some(fields) = value.as_object_mut() {
        fields.insert("lane".into(), lane.into());
    }
    Ok(value.to_string())
}

/// The lane that a line is for; what makes no sense is for the channel itself.
fn lane_of(line: &[u8]) -> u32 {
    #[derive(Deserialize)]
    struct Lane {
        #[serde(default)]
        lane: u32,
    }
    serde_json::from_slice(line).map_or(0, |Lane { lane }| lane)
}

fn read_lines(mut reader: impl BufRead, router: &Router) {
    loop {
        let mut line = Vec::new();
        let read = reader.by_ref().take(MAX_LINE).read_until(b'\n', &mut line);
        let incoming = match read {
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
            Ok(0) | Err(_) => Incoming::Closed,
            Ok(_) if line.last() != Some(&b'\n') && line.len() as u64 == MAX_LINE => {
                Incoming::Garbage(format!("a line longer than {MAX_LINE} bytes"))
            }
            Ok(_) => Incoming::of_line(&line),
        };
        let last = incoming.is_last();
        let unheard = router.deliver(lane_of(&line), incoming).is_err();
        if last || unheard {
            return;
        }
    }
}

/// The beginning of a line that made no sense, safe to print.
fn shown(line: &[u8]) -> String {
    let text = String::from_utf8_lossy(line);
    let mut short: String = text.trim_end().chars().take(60).flat_map(char::escape_debug).collect();
    if text.trim_end().chars().count() > 60 {
        short.push('…');
    }
    format!("\"{short}\"")
}

#[cfg(test)]
mod tests;
