//! What a context of the `shm` device pretends of a wire, if it is asked to: a rate and a latency, and a capture of the packets that an adapter
//! would have sent.
//!
//! Without either there is no [`Wire`], and a doorbell finds that out with one look. With it no work request is executed by its doorbell: each
//! waits in its send queue, as one whose peer is not ready does, and is executed when the wire has brought it there. So neither side
//! sees anything before its time: not the bytes, not a completion, not an event. Pollers and the service thread look what is due.
//!
//! - `model`: when what arrives
//! - `packets`: a work request as packets: which, how long, how many
//! - `queue`: a send queue whose work requests travel
//! - `capture`: the packets in a file

mod capture;
mod model;
mod packets;
mod queue;

pub(crate) use queue::{Flight, Flights};

use crate::error::Result;
use crate::link::capture::{FLUSH_EVERY, Recording};
use model::Model;
use std::path::Path;
use std::time::{Duration, Instant};
use tbrdma_proto::Time;
use tbrdma_proto::fault::LinkModel;

/// The wire of a context.
pub(crate) struct Wire {
    model: Option<Model>,
    capture: Option<Recording>,
    origin: Instant,
}

impl Wire {
    /// What is asked for; nothing if that is nothing.
    ///
    /// # Errors
    /// The capture file cannot be written.
    pub(crate) fn new(link: Option<LinkModel>, capture: Option<&Path>) -> Result<Option<Self>> {
        if link.is_none() && capture.is_none() {
            return Ok(None);
        }
        let capture = capture.map(|file| Recording::create(file, super::device::NAME)).transpose()?;
        Ok(Some(Self { model: link.map(Model::new), capture, origin: Instant::now() }))
    }

    /// The time now, as everything here counts it.
    pub(crate) fn now(&self) -> Time {
        Time::ZERO + self.origin.elapsed()
    }

    /// A time of ours on the machine's clock.
    pub(crate) fn instant(&self, at: Time) -> Instant {
        self.origin + at.since(Time::ZERO)
    }

    /// Is anything late?
    pub(crate) fn has_latency(&self) -> bool {
        self.model.is_some()
    }

    /// What `described` is on this wire.
    pub(crate) fn describe(&self, described: &str) -> String {
        let linked = match &self.model {
            None => described.to_owned(),
            Some(model) => format!("{described}; a link of {}", model.link),
        };
        self.capture.as_ref().map_or_else(|| linked.clone(), |capture| capture.describe(&linked))
    }

    /// What it has counted.
    pub(crate) fn counters(&self) -> Vec<(&'static str, u64)> {
        self.capture.iter().map(Recording::counter).collect()
    }

    /// What was captured a while ago is in the file.
    pub(crate) fn flush_if_due(&self) {
        if let Some(capture) = &self.capture {
            capture.flush_if_due(self.now());
        }
    }

    /// How often [`flush_if_due`](Self::flush_if_due) must be called: packets are captured by threads that wake nobody.
    pub(crate) fn flushes_every(&self) -> Option<Duration> {
        self.capture.as_ref().map(|_| FLUSH_EVERY)
    }
}
