//! The floor of a run: how fast the same two processes move the same bytes without the library.
//!
//! | room | what carries the bytes | floor of |
//! |---|---|---|
//! | [`memory`] | plain stores and loads in shared memory | a pingpong over `shm` |
//! | [`sockets`] | plain UDP sockets, waited on as the run waits | pingpong, bw and rate over `udp:` |
//! | [`crate::memcpy`] | memcpy between private buffers | bw and rate over `shm` |

pub mod memory;
pub mod sockets;
#[cfg_attr(not(tbrdma_linux), path = "portable/trains.rs")]
mod trains;

use std::time::Duration;

use crate::control::Channel;
use crate::error::Result;
use crate::histogram::{Latencies, Measures};
use crate::pingpong::in_time;
use crate::watch::{Spins, Watch};

/// How long the timed bounces of one visit last.
const VISIT_TIME: Duration = Duration::from_millis(30);

/// What carries the bytes of a floor.
#[derive(Debug, Clone)]
pub enum Carrier {
    /// Shared memory.
    Memory,
    /// UDP sockets.
    Sockets(sockets::Way),
}

impl Carrier {
    /// How a report tells of it.
    #[must_use]
    pub fn described(&self) -> &'static str {
        match self {
            Self::Memory => "plain stores and loads",
            Self::Sockets(_) => "plain UDP sockets",
        }
    }
}

/// Why bounces gave no floor: there can be none for this reason, or the run cannot go on.
pub(crate) enum Miss {
    /// No floor; the run goes on.
    None(String),
    /// The run cannot go on.
    Fatal(crate::error::Error),
}

impl From<crate::error::Error> for Miss {
    fn from(error: crate::error::Error) -> Self {
        Self::Fatal(error)
    }
}

/// The floor of a pingpong, measured in visits between the batches of the measurement.
pub struct Floor {
    latencies: Latencies,
    size: usize,
    carrier: Carrier,
    /// How long nobody speaks before a bounce.
    gap: Duration,
    /// How long a bounce there and back lasts.
    each: Option<Duration>,
    /// Why there is none.
    pub missing: Option<String>,
}

impl Floor {
    /// A floor for messages of `size` bytes, not measured yet.
    ///
    /// # Errors
    /// Never in practice: see [`Latencies::new`].
    pub fn new(size: u64, carrier: Carrier) -> Result<Self> {
        let size = usize::try_from(size).unwrap_or(usize::MAX);
        let most = match &carrier {
            Carrier::Memory => memory::MAX_SIZE,
            Carrier::Sockets(_) => sockets::MAX_SIZE,
        };
        let missing = (size > most).then(|| format!("not measured for messages over {most} bytes"));
        Ok(Self {
            latencies: Latencies::new(Measures::HalfRoundTrip)?,
            size,
            carrier,
            gap: Duration::ZERO,
            each: None,
            missing,
        })
    }

    /// The recorded bounces, if there are any.
    #[must_use]
    pub fn latencies(&self) -> Option<&Latencies> {
        (self.missing.is_none() && self.latencies.count() > 0).then_some(&self.latencies)
    }

    /// What carried them.
    #[must_use]
    pub fn carrier(&self) -> &Carrier {
        &self.carrier
    }

    /// The initiator's part in a visit: the median one way of its bounces, in nanoseconds. That there can be no floor is no
    /// error: the reason is kept.
    ///
    /// # Errors
    /// The peer went away, or the user interrupted.
    pub fn visit(&mut self, channel: &mut Channel, watch: &Watch, timeout: Duration) -> Result<Option<f64>> {
        if self.each.is_none() {
            let first = self.bounce(channel, watch, timeout, 1)?;
            self.each = first.map(|ns| Duration::from_nanos((ns * 2.0) as u64));
            self.latencies.clear();
        }
        let Some(each) = self.each else { return Ok(None) };
        let visit = Latencies::new(Measures::HalfRoundTrip)?;
        let before = std::mem::replace(&mut self.latencies, visit);
        let median = self.bounce(channel, watch, timeout, in_time(VISIT_TIME, each));
        let visit = std::mem::replace(&mut self.latencies, before);
        self.latencies.add(&visit);
        median
    }

    /// The initiator's part in so many bounces, each after a silence: their latencies, where there can be a floor.
    ///
    /// # Errors
    /// The peer went away, or the user interrupted.
    pub fn after(
        &mut self,
        gap: Duration,
        count: u64,
        channel: &mut Channel,
        watch: &Watch,
        timeout: Duration,
    ) -> Result<Option<Latencies>> {
        self.latencies.clear();
        self.gap = gap;
        let median = self.bounce(channel, watch, timeout, count)?;
        Ok(median.map(|_| self.latencies.clone()))
    }

    /// Bounces a few times for warming up, and `count` times for the record; the median of these.
    fn bounce(
        &mut self,
        channel: &mut Channel,
        watch: &Watch,
        timeout: Duration,
        count: u64,
    ) -> Result<Option<f64>> {
        if self.missing.is_some() {
            return Ok(None);
        }
        let (size, gap, latencies) = (self.size, self.gap, &mut self.latencies);
        let bounced = match &self.carrier {
            Carrier::Memory => memory::bounce(channel, watch, timeout, size, gap, count, latencies),
            Carrier::Sockets(way) => {
                sockets::bounce(channel, watch, timeout, way, size, gap, count, latencies)
            }
        };
        match bounced {
            Ok(()) => Ok(self.latencies.quantile_ns(0.5)),
            Err(Miss::None(reason)) => {
                self.missing = Some(reason);
                Ok(None)
            }
            Err(Miss::Fatal(error)) => Err(error),
        }
    }
}

/// Lets so much time pass before a bounce, asleep or awake.
fn pause(gap: Duration, asleep: bool, watch: &Watch) -> Result<()> {
    if gap.is_zero() {
        return Ok(());
    }
    if asleep {
        return watch.sleep(gap);
    }
    let clock = crate::clock::chosen();
    let until = clock.after(clock.now(), gap);
    let mut spins = Spins::default();
    while clock.now() < until {
        std::hint::spin_loop();
        watch.turn(&mut spins, "end of a pause")?;
    }
    Ok(())
}
