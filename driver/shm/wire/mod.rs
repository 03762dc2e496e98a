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
use crate::sync::{AtomicBool, AtomicU64, Ordering};
use model::Model;
use std::path::Path;
use std::time::{Duration, Instant};
use tbrdma_proto::Time;
use tbrdma_proto::fault::LinkModel;

/// How often the service thread looks up while the application polls. One that has not polled for so long does not.
const TICK: Duration = Duration::from_micros(200);
/// An application that has waited for an event this recently will do so again.
const WAITING: Duration = Duration::from_millis(10);

/// The wire of a context.
pub(crate) struct Wire {
    model: Option<Model>,
    capture: Option<Recording>,
    origin: Instant,
    /// The application has polled since the service thread last looked here.
    polled: AtomicBool,
    /// When it last asked for an event, in nanoseconds; 0 if it never has.
    awaits_since: AtomicU64,
    /// The service thread leaves deadlines to the application, for a moment.
    steps_aside: AtomicBool,
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
        let capture = capture.map(|file| Recording::create(file, super::device::NAME, false)).transpose()?;
        Ok(Some(Self {
            model: link.map(Model::new),
            capture,
            origin: Instant::now(),
            polled: AtomicBool::new(false),
            awaits_since: AtomicU64::new(0),
            steps_aside: AtomicBool::new(false),
        }))
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

    /// The application polls.
    pub(crate) fn is_polled(&self) {
        // Written seldom: pollers and the service thread share the line.
        if !self.polled.load(Ordering::Relaxed) {
            self.polled.store(true, Ordering::Relaxed);
        }
    }

    /// The application asks for an event, and may sleep then. Must the service thread be woken?
    pub(crate) fn is_awaited(&self) -> bool {
        self.awaits_since.store(self.now().0.max(1), Ordering::SeqCst);
        self.has_latency() && !self.wants_kicks()
    }

    /// Does the application see to deadlines by itself?
    fn is_driven(&self) -> bool {
        let awaits = self.awaits_since.load(Ordering::SeqCst);
        self.has_latency()
            && self.polled.swap(false, Ordering::Relaxed)
            && (awaits == 0 || self.now().since(Time(awaits)) > WAITING)
    }

    /// Must the service thread be woken for something that is due soon?
    pub(crate) fn wants_kicks(&self) -> bool {
        !self.steps_aside.load(Ordering::SeqCst)
    }

    /// For the service thread: how long it may sleep, where it must look again after `timeout`. While the application polls it needs nobody for its
    /// deadlines, and each wake-up would take a core from somebody who polls.
    pub(crate) fn sleep(&self, timeout: Option<Duration>, sleep: impl FnOnce(Option<Duration>)) {
        if self.is_driven() {
            self.steps_aside.store(true, Ordering::SeqCst);
            sleep(Some(TICK));
            self.steps_aside.store(false, Ordering::SeqCst);
        } else {
            sleep(timeout.into_iter().chain(self.capture.as_ref().map(|_| FLUSH_EVERY)).min());
        }
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

    /// What was captured a while ago is in the file. To be called now and then: packets are captured by threads that wake nobody.
    pub(crate) fn flush_if_due(&self) {
        if let Some(capture) = &self.capture {
            capture.flush_if_due(self.now());
        }
    }
}
