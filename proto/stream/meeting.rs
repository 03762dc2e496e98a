//! How two ends find out who the other is: each says hello, and again once it has heard the other's, naming it. Who is named has been heard.
//!
//! So neither sends a packet before the other can make sense of it, and an old hello, which was on its way when its sender died, leads nowhere:
//! it names somebody else, or nobody.

use super::hello::{HELLO_BYTES, Hello, HelloError, MAGIC, Refusal, Words};
use crate::{Guid, Time};
use core::time::Duration;

/// How long a meeting may take.
const BOUND: Duration = Duration::from_secs(3);
/// How soon a hello is said again where the first may have found nobody; each pause is twice as long as the one before.
const AGAIN: Duration = Duration::from_millis(50);
/// The longest of these pauses.
const SELDOM: Duration = Duration::from_secs(2);
/// Bytes of somebody else's that are read past.
const MOST_SKIPPED: usize = 1 << 22;

/// What kind of stream two ends meet on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Manner {
    /// It was made for these two: its first byte is theirs, and what is said arrives.
    Fresh,
    /// It was there before them, as a cable is: it may hold something of whoever used it last, and what was said before the other end was opened
    /// may be lost. So hellos are repeated, for as long as it takes, and looked for.
    Standing,
}

/// Who is at the other end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Its GUID.
    pub guid: Guid,
}

/// Why nobody was met.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum MeetingError {
    /// Nothing was heard, or not enough.
    #[error("the other end did not introduce itself within {BOUND:?}")]
    Silence,
    /// What was heard is no hello of ours.
    #[error(transparent)]
    Hello(#[from] HelloError),
    /// The other end has sent us away.
    #[error("the other end refuses: {0}")]
    Refused(Refusal),
    /// This end does not want the other.
    #[error("the other end does not fit: {0}")]
    Unfit(Refusal),
    /// The other end is this one.
    #[error("both ends of the stream are in this device")]
    Oneself,
    /// Nothing but somebody else's bytes.
    #[error("{MOST_SKIPPED} bytes and no introduction among them")]
    Noise,
}

/// A meeting under way.
#[derive(Clone, Debug)]
pub struct Meeting {
    own: Hello,
    manner: Manner,
    /// Who was heard last.
    heard: Option<Hello>,
    /// It has heard us too.
    met: bool,
    /// A hello is to be said.
    owes: bool,
    /// The bytes of a hello that is not complete.
    part: [u8; HELLO_BYTES],
    len: usize,
    skipped: usize,
    ends: Time,
    again: Time,
    pause: Duration,
}

impl Meeting {
    /// Begins now. `own` introduces this end; whom it has heard is filled in.
    pub fn new(now: Time, own: Hello, manner: Manner) -> Self {
        let (ends, again) = match manner {
            Manner::Fresh => (now + BOUND, Time::NEVER),
            Manner::Standing => (Time::NEVER, now + AGAIN),
        };
        Self {
            own,
            manner,
            heard: None,
            met: false,
            owes: true,
            part: [0; HELLO_BYTES],
            len: 0,
            skipped: 0,
            ends,
            again,
            pause: AGAIN,
        }
    }

    /// What is to be said now, whole, before anything else.
    pub fn poll_transmit(&mut self) -> Option<[u8; HELLO_BYTES]> {
        if !std::mem::take(&mut self.owes) {
            return None;
        }
        let heard = self.heard.map_or(Guid(0), |hello| hello.guid);
        Some(Hello { heard, ..self.own }.encode())
    }

    /// Who was met, once there is nothing more to be said.
    pub fn peer(&self) -> Option<Peer> {
        let hello = self.heard.filter(|_| self.met && !self.owes)?;
        Some(Peer { guid: hello.guid })
    }

    /// Takes what has arrived: how many bytes belong to the meeting. The others are frames.
    ///
    /// # Errors
    /// The other end is nobody to talk to. [`refusal`](Self::refusal) says what to tell it.
    pub fn take(&mut self, now: Time, bytes: &[u8]) -> Result<usize, MeetingError> {
        let mut taken = 0;
        while !self.met {
            let room = HELLO_BYTES - self.len;
            let rest = bytes.get(taken..).unwrap_or_default();
            if rest.is_empty() {
                break;
            }
            let part = rest.get(..room).unwrap_or(rest);
            self.part[self.len..self.len + part.len()].copy_from_slice(part);
            self.len += part.len();
            taken += part.len();
            self.align()?;
            if self.len == HELLO_BYTES {
                self.len = 0;
                match Hello::parse(&self.part) {
                    Ok(hello) => self.hear(now, hello)?,
                    // Of a standing stream the first bytes of an old hello may be left, or a frame with the magic in it.
                    Err(HelloError::Check) if self.manner == Manner::Standing => {
                        self.len = HELLO_BYTES;
                        self.shift(1);
                        self.align()?;
                    }
                    Err(error) => return Err(error.into()),
                }
            }
        }
        Ok(taken)
    }

    /// Sees to it that what is kept may be the beginning of a hello.
    fn align(&mut self) -> Result<(), MeetingError> {
        loop {
            let known = self.len.min(MAGIC.len());
            if self.part[..known] == MAGIC[..known] {
                return Ok(());
            }
            if self.manner == Manner::Fresh {
                // Wait for no more of it: it may never come.
                let mut first = [0; 8];
                first[..known].copy_from_slice(&self.part[..known]);
                return Err(HelloError::Magic { first }.into());
            }
            self.shift(1);
            if self.skipped > MOST_SKIPPED {
                return Err(MeetingError::Noise);
            }
        }
    }

    fn shift(&mut self, by: usize) {
        self.part.copy_within(by..self.len, 0);
        self.len -= by;
        self.skipped += by;
    }

    fn hear(&mut self, now: Time, hello: Hello) -> Result<(), MeetingError> {
        if let Words::Refusal(refusal) = hello.words {
            // A refusal of somebody else's is old news.
            if self.manner == Manner::Standing && hello.heard != self.own.guid {
                return Ok(());
            }
            return Err(MeetingError::Refused(refusal));
        }
        if hello.guid == self.own.guid {
            return Err(MeetingError::Oneself);
        }
        if hello.features != self.own.features {
            return Err(MeetingError::Unfit(Refusal::Features));
        }
        if hello.mtu != self.own.mtu {
            return Err(MeetingError::Unfit(Refusal::Mtu));
        }
        let is_news = self.heard.is_none_or(|heard| heard.guid != hello.guid);
        self.heard = Some(hello);
        self.met = hello.heard == self.own.guid;
        if is_news {
            self.owes = true;
            // Somebody is there, so it cannot take long any more.
            self.ends = now + BOUND;
        }
        Ok(())
    }

    /// What to tell the other end after an error, before the stream is closed.
    pub fn refusal(&self, error: &MeetingError) -> Option<[u8; HELLO_BYTES]> {
        let refusal = match error {
            MeetingError::Unfit(refusal) => *refusal,
            MeetingError::Hello(HelloError::Version { .. }) => Refusal::Version,
            _ => return None,
        };
        Some(self.own.refusing(refusal))
    }

    /// When [`handle_timeout`](Self::handle_timeout) is to be called.
    pub fn poll_timeout(&self) -> Time {
        self.ends.min(self.again)
    }

    /// Time has passed.
    ///
    /// # Errors
    /// It took too long.
    pub fn handle_timeout(&mut self, now: Time) -> Result<(), MeetingError> {
        if now >= self.ends {
            return Err(MeetingError::Silence);
        }
        if now >= self.again {
            self.pause = (self.pause * 2).min(SELDOM);
            self.again = now + self.pause;
            self.owes = true;
        }
        Ok(())
    }
}

impl Hello {
    /// The bytes that send away whoever is at the other end.
    pub fn refusing(self, refusal: Refusal) -> [u8; HELLO_BYTES] {
        Self { words: Words::Refusal(refusal), ..self }.encode()
    }
}
