//! The floor of a run: how fast the same two processes move the same bytes without the library.
//!
//! | room | what carries the bytes | floor of |
//! |---|---|---|
//! | [`memory`] | plain stores and loads in shared memory | a pingpong over `shm`, and over `bar:` in a file |
//! | [`sockets`] | plain UDP sockets, waited on as the run waits | pingpong, bw and rate over `udp:` |
//! | [`streams`] | a plain Unix or TCP socket, waited on as the run waits | pingpong, bw and rate over `stream:` |
//! | [`crate::memcpy`] | memcpy between private buffers, or into shared memory | bw and rate over `shm`, over `bar:` |

pub mod memory;
pub mod sockets;
pub mod streams;
#[cfg_attr(not(tbrdma_linux), path = "portable/trains.rs")]
mod trains;

use std::time::Duration;

use tbrdma::Gid;

use crate::control::{Channel, Message};
use crate::error::Result;
use crate::histogram::{Latencies, Measures};
use crate::memcpy::median;
use crate::pingpong::in_time;
use crate::plan::Wait;
use crate::watch::{Spins, Watch};

/// How long the timed bounces of one visit last.
const VISIT_TIME: Duration = Duration::from_millis(30);

/// What carries the bytes of a floor.
#[derive(Debug, Clone)]
pub enum Carrier {
    /// Shared memory: a message, and a flag beside it.
    Memory,
    /// Shared memory in place of a window: a message whose last word is the flag, so 64 bytes are one line.
    Window,
    /// UDP sockets.
    Sockets(sockets::Way),
    /// A stream socket.
    Stream(streams::Way),
    /// Nothing can, for this reason.
    Nothing(&'static str),
}

impl Carrier {
    /// What carries the same bytes as a device with this name, port address and path MTU.
    #[must_use]
    pub fn of(device: &str, gid: Gid, mtu: u32, wait: Wait) -> Self {
        if let Some(way) = sockets::Way::of(device, gid, mtu, wait) {
            return Self::Sockets(way);
        }
        if let Some(name) = device.strip_prefix("stream:") {
            return match streams::Way::of(name, wait) {
                Some(way) => Self::Stream(way),
                None => Self::Nothing(
                    "no plain socket goes the way of this stream: a device file is its link's alone",
                ),
            };
        }
        match device.strip_prefix("bar:") {
            Some(name) if name.starts_with("file:") || name.starts_with("paired:") => Self::Window,
            Some(_) => {
                Self::Nothing("the window is the link's alone: nothing else can be stored there beside it")
            }
            None => Self::Memory,
        }
    }

    /// How a report tells of it.
    #[must_use]
    pub fn described(&self) -> &'static str {
        match self {
            Self::Memory => "plain stores and loads",
            Self::Window => "plain stores into memory as the window's, the last word awaited",
            Self::Sockets(_) => "plain UDP sockets",
            Self::Stream(way) => way.described(),
            Self::Nothing(_) => "nothing",
        }
    }

    /// Must both sides be on one host?
    #[must_use]
    pub fn needs_one_host(&self) -> bool {
        match self {
            Self::Memory | Self::Window => true,
            Self::Stream(way) => way.needs_one_host(),
            Self::Sockets(_) | Self::Nothing(_) => false,
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

/// What floods brought, or why there can be none.
#[derive(Debug, Default)]
pub struct Floods {
    rates: Vec<f64>,
    /// Why there are none.
    pub missing: Option<String>,
}

impl Floods {
    /// What two sides met by; `None`, with the reason kept, if they could not.
    fn met<T>(&mut self, met: Result<T, Miss>) -> Result<Option<T>> {
        match met {
            Ok(met) => Ok(Some(met)),
            Err(Miss::None(reason)) => {
                self.missing = Some(reason);
                Ok(None)
            }
            Err(Miss::Fatal(error)) => Err(error),
        }
    }

    /// Hears what arrived of a flood: bytes per second.
    fn heard(&mut self, channel: &mut Channel, timeout: Duration) -> Result<Option<f64>> {
        match channel.receive(timeout)? {
            Message::Arrived { bytes, nanoseconds } if bytes > 0 && nanoseconds > 0 => {
                let rate = bytes as f64 / (nanoseconds as f64 / 1e9);
                self.rates.push(rate);
                Ok(Some(rate))
            }
            Message::Arrived { .. } => {
                self.missing = Some("nothing arrived on plain sockets".into());
                Ok(None)
            }
            other => Err(channel.unexpected(&other, "`arrived`")),
        }
    }

    /// The median of all floods, in bytes per second; `None` before the first.
    #[must_use]
    pub fn median(&self) -> Option<f64> {
        median(&self.rates)
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
            Carrier::Sockets(_) => sockets::MAX_SIZE,
            _ => memory::MAX_SIZE,
        };
        let missing = match &carrier {
            Carrier::Nothing(reason) => Some((*reason).to_owned()),
            _ => (size > most).then(|| format!("not measured for messages over {most} bytes")),
        };
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
            Carrier::Memory | Carrier::Window => {
                let line = matches!(self.carrier, Carrier::Window);
                memory::bounce(channel, watch, timeout, size, line, gap, count, latencies)
            }
            Carrier::Sockets(way) => {
                sockets::bounce(channel, watch, timeout, way, size, gap, count, latencies)
            }
            Carrier::Stream(way) => {
                streams::bounce(channel, watch, timeout, way, size, gap, count, latencies)
            }
            Carrier::Nothing(reason) => Err(Miss::None((*reason).to_owned())),
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
