//! The ranks of a run as one: a control channel from each to rank 0, and what they say to each other over these before, between and after their measurements.
//!
//! Everything goes by way of rank 0, which also hears first of a rank that has gone: it ends the run and says why, and all others end because their
//! channel to it says so.

use std::time::{Duration, Instant};

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::clock;
use crate::control::{Channel, Message, RanksPart};
use crate::error::{Context, Error, Result};
use crate::peer::Responder;
use crate::signals;
use crate::watch::Watch;

/// Bytes of a text that go into one control message; it is quoted there.
const PART: usize = 24 << 10;
/// Bytes of such a text at most.
const MOST_TEXT: usize = 16 << 20;
/// How often a wait looks again.
const LOOKS_EVERY: Duration = Duration::from_micros(200);
/// How long rank 0 listens for others' last words when something has failed.
const LAST_WORDS: Duration = Duration::from_millis(300);

/// A rank's place among all.
pub struct Group {
    rank: usize,
    size: usize,
    /// At rank 0 those to ranks 1 and up, elsewhere the one to rank 0.
    links: Vec<Channel>,
    /// At rank 0, where it has started them.
    children: Vec<Responder>,
    timeout: Duration,
}

impl Group {
    /// Rank 0, with a channel to each other rank in their order, and their processes where it has started them.
    #[must_use]
    pub fn root(links: Vec<Channel>, children: Vec<Responder>, timeout: Duration) -> Self {
        Self { rank: 0, size: links.len() + 1, links, children, timeout }
    }

    /// Another rank, with its channel to rank 0.
    #[must_use]
    pub fn member(rank: usize, size: usize, root: Channel, timeout: Duration) -> Self {
        Self { rank, size, links: vec![root], children: Vec::new(), timeout }
    }

    /// Which rank this is.
    #[must_use]
    pub fn rank(&self) -> usize {
        self.rank
    }

    /// How many there are.
    #[must_use]
    pub fn size(&self) -> usize {
        self.size
    }

    /// Waits longer or less long from now on.
    pub fn set_timeout(&mut self, timeout: Duration) {
        self.timeout = timeout;
    }

    /// For waits between the ranks: it raises the alarm when a rank goes away or gives up.
    #[must_use]
    pub fn watch(&self) -> Watch {
        let who = if self.rank == 0 { "the other ranks" } else { "another rank" };
        Watch::of_all(self.links.iter().map(Channel::alarm).collect(), self.timeout, who.into())
    }

    /// Greets all at the other ends.
    ///
    /// # Errors
    /// One is no `tbrdma-bench`, is one of another version, or has gone.
    pub fn greet(&mut self) -> Result<()> {
        let timeout = self.timeout;
        self.links.iter_mut().try_for_each(|link| link.greet(timeout).map(drop))
    }

    /// What rank 0 says to all, at all.
    ///
    /// # Errors
    /// A rank went away, gave up, or said something else.
    pub fn broadcast<T: Serialize + DeserializeOwned>(
        &mut self,
        word: &'static str,
        said: Option<T>,
    ) -> Result<T> {
        match said {
            Some(said) => {
                for link in 0..self.links.len() {
                    self.send(link, word, &said)?;
                }
                Ok(said)
            }
            None => self.receive(0, word),
        }
    }

    /// What each says, in the order of ranks, at rank 0; nothing elsewhere.
    ///
    /// # Errors
    /// As [`Group::broadcast`].
    pub fn gather<T: Serialize + DeserializeOwned>(&mut self, word: &'static str, said: T) -> Result<Vec<T>> {
        if self.rank > 0 {
            self.send(0, word, &said)?;
            return Ok(Vec::new());
        }
        let mut all = vec![said];
        for link in 0..self.links.len() {
            all.push(self.receive(link, word)?);
        }
        Ok(all)
    }

    /// What each has for each: from a value for every rank, this one's own among them, to a value from every rank.
    ///
    /// # Errors
    /// As [`Group::broadcast`].
    pub fn exchange<T: Serialize + DeserializeOwned>(
        &mut self,
        word: &'static str,
        said: Vec<T>,
    ) -> Result<Vec<T>> {
        let mut rows: Vec<_> = self.gather(word, said)?.into_iter().map(Vec::into_iter).collect();
        if self.rank > 0 {
            let column: Vec<T> = self.receive(0, word)?;
            return if column.len() == self.size { Ok(column) } else { Err(self.crowd(word)) };
        }
        let mut columns = Vec::new();
        for _ in 0..self.size {
            let column: Vec<T> = rows.iter_mut().filter_map(Iterator::next).collect();
            if column.len() != self.size {
                return Err(self.crowd(word));
            }
            columns.push(column);
        }
        let mut columns = columns.into_iter();
        let own = columns.next().unwrap_or_default();
        for (link, column) in columns.enumerate() {
            self.send(link, word, &column)?;
        }
        Ok(own)
    }

    /// Returns when all ranks have come here.
    ///
    /// # Errors
    /// As [`Group::broadcast`].
    pub fn barrier(&mut self) -> Result<()> {
        let all = self.gather("here", ())?;
        self.broadcast("go on", (!all.is_empty()).then_some(()))
    }

    fn crowd(&self, word: &str) -> Error {
        Error::Run(format!("`{word}` came from another number of ranks than the {} there are", self.size))
    }

    fn send<T: Serialize>(&mut self, link: usize, word: &'static str, said: &T) -> Result<()> {
        let text = serde_json::to_string(said).context(|| format!("encode `{word}`"))?;
        let Some(channel) = self.links.get_mut(link) else { return Ok(()) };
        let mut rest = text.as_str();
        loop {
            let mut end = rest.len().min(PART);
            while !rest.is_char_boundary(end) {
                end -= 1;
            }
            let (text, after) = rest.split_at(end);
            let part = RanksPart { word: word.into(), text: text.into(), more: !after.is_empty() };
            channel.send(&Message::Ranks(part))?;
            rest = after;
            if rest.is_empty() {
                return Ok(());
            }
        }
    }

    fn receive<T: DeserializeOwned>(&mut self, link: usize, word: &'static str) -> Result<T> {
        let mut text = String::new();
        loop {
            let part = self.next_part(link, word)?;
            text.push_str(&part.text);
            if text.len() > MOST_TEXT {
                return Err(Error::Run(format!("`{word}` is longer than {MOST_TEXT} bytes")));
            }
            if !part.more {
                break;
            }
        }
        serde_json::from_str(&text).context(|| format!("understand `{word}`"))
    }

    fn next_part(&mut self, link: usize, word: &'static str) -> Result<RanksPart> {
        let timeout = self.timeout;
        let mut look = || {
            if signals::interrupted() {
                return Some(Err(Error::Interrupted));
            }
            let channel = self.links.get_mut(link)?;
            match channel.try_receive() {
                Ok(Some(message)) => Some(Ok(message)),
                Err(error) => Some(Err(error)),
                // Whoever else has gone, the run is over.
                Ok(None) => self.links.iter().any(Channel::is_alarmed).then_some(Err(Error::Alarm)),
            }
        };
        let found = clock::wait_in_turn(timeout, &mut look).unwrap_or_else(|| {
            let begun = Instant::now();
            loop {
                if let Some(found) = look() {
                    return Some(found);
                }
                if begun.elapsed() >= timeout {
                    return None;
                }
                std::thread::sleep(LOOKS_EVERY);
            }
        });
        let Some(channel) = self.links.get(link) else { return Err(Error::Alarm) };
        match found {
            Some(Ok(Message::Ranks(part))) if part.word == word => Ok(part),
            Some(Ok(Message::Ranks(part))) => Err(Error::Run(format!(
                "{} is at `{}` where the others are at `{word}`",
                channel.peer(),
                part.word
            ))),
            Some(Ok(other)) => Err(channel.unexpected(&other, &format!("`{word}`"))),
            Some(Err(error)) => Err(error),
            None => Err(Error::Run(format!(
                "no `{word}` from {} within {} s: it is stuck or stopped; --timeout waits longer",
                channel.peer(),
                timeout.as_secs_f64()
            ))),
        }
    }

    /// Ends the run because of an error: finds out which rank it came from, and tells the others.
    pub fn give_up(mut self, error: Error) -> Error {
        let error = self.explain(error);
        let reason = error.to_string();
        for link in &mut self.links {
            // Who does not hear it, hears that the channel closes.
            let _ = link.send(&Message::Fail { reason: reason.clone() });
        }
        error
    }

    /// A rank that has gone counts for more than one which noticed, and what a rank says of itself for more than what was seen here.
    fn explain(&mut self, error: Error) -> Error {
        if signals::interrupted() || matches!(error, Error::Interrupted) {
            return Error::Interrupted;
        }
        if matches!(error, Error::Usage(_)) {
            return error;
        }
        let mut said: Vec<Option<Error>> = self.links.iter().map(|_| None).collect();
        match &error {
            Error::PeerFailed { peer, .. } | Error::PeerGone { peer, .. } => {
                let at = self.links.iter().position(|link| link.peer() == peer);
                if let Some(place) = at.and_then(|at| said.get_mut(at)) {
                    *place = Some(error.clone());
                }
            }
            _ => {}
        }
        let until = Instant::now() + LAST_WORDS;
        let gone = loop {
            for (link, said) in self.links.iter_mut().zip(&mut said) {
                while said.is_none() {
                    match link.try_receive() {
                        Ok(Some(_)) => {}
                        Ok(None) => break,
                        Err(error) => *said = Some(error),
                    }
                }
            }
            let gone = said.iter().position(|said| matches!(said, Some(Error::PeerGone { .. })));
            if gone.is_some() || Instant::now() >= until {
                break gone;
            }
            std::thread::sleep(LOOKS_EVERY);
        };
        if let Some(at) = gone
            && let Some(channel) = self.links.get(at)
        {
            let ending = self.children.get_mut(at).and_then(Responder::ending);
            let detail = ending.map(|ending| format!(" with {ending}")).unwrap_or_default();
            return Error::PeerGone { peer: channel.peer().to_owned(), detail };
        }
        said.into_iter().flatten().next().unwrap_or(error)
    }
}
