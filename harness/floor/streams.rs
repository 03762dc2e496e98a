//! The floor over a byte stream: what the same two processes do with a plain Unix or TCP socket, waited on as the run waits.
//!
//! A *bounce* writes the message's bytes and reads as many back, waiting as the run waits. A *flood* writes messages of the run's size in one
//! direction, from as much memory into as much memory as the run has, until its time is up and the connection ends; nothing is lost, so the reader's
//! rate is what the socket moves. Its calls block, however the run waits, and its buffers are large: that moves most.

use std::time::{Duration, Instant};

use tbrdma::stream::{StreamAddress, StreamPlace};

use super::{Floods, Miss, pause};
use crate::control::{Account, Channel, Message, StreamOffer};
use crate::error::{Error, Result};
use crate::histogram::Latencies;
use crate::plain_sockets::{Carrier, Meeting, Wire, unix_path};
use crate::plan::{MAX_MEMORY, Plan, Wait};
use crate::watch::Watch;

/// Bounces before the timed ones of a visit.
const WARMUP: u64 = 100;
/// Bounces that take longer all together end, however many they were to be.
const LONGEST_VISIT: Duration = Duration::from_secs(1);
/// How long a flood lasts.
const FLOOD_TIME: Duration = Duration::from_millis(40);
/// Room for bytes under way in a flood.
const FLOOD_ROOM: usize = 4 << 20;
/// How long the other side may take to come.
const COMES_WITHIN: Duration = Duration::from_secs(5);

/// How the sockets of a floor are made.
#[derive(Debug, Clone)]
pub struct Way {
    /// The kind of socket.
    carrier: Carrier,
    /// The host at which one side of a TCP device listens.
    host: String,
    /// How to wait.
    wait: Wait,
}

impl Way {
    /// The way beside a stream of this name, without its `stream:`. `None` where there is nothing beside it.
    #[must_use]
    pub fn of(name: &str, wait: Wait) -> Option<Self> {
        let (carrier, host) = match name.parse::<StreamAddress>().ok()?.place {
            StreamPlace::Unix(_) => (Carrier::Unix, String::new()),
            StreamPlace::Tcp { host, .. } => (Carrier::Tcp, host),
            StreamPlace::Vsock { .. } | StreamPlace::Device(_) | StreamPlace::StandIn(_) => return None,
        };
        Some(Self { carrier, host, wait })
    }

    /// How a report tells of it.
    pub(super) fn described(&self) -> &'static str {
        match self.carrier {
            Carrier::Tcp => "a plain TCP connection",
            _ => "a plain Unix socket",
        }
    }

    /// Must both sides be on one host?
    pub(super) fn needs_one_host(&self) -> bool {
        self.carrier == Carrier::Unix
    }

    /// A place to meet, and what the other side must know of it.
    fn listen(&self) -> Result<(Meeting, u32)> {
        let (meeting, address) = Meeting::new(self.carrier, &self.host)?;
        let port = address.rsplit(':').next().and_then(|port| port.parse().ok());
        let at = if self.carrier == Carrier::Unix { Some(std::process::id()) } else { port };
        Ok((meeting, at.ok_or_else(|| Error::Run(format!("{address} has no port")))?))
    }

    /// The same for a flood.
    fn of_flood(&self) -> Self {
        Self { wait: Wait::Event, ..self.clone() }
    }

    /// Connects to where the other side listens. Only the number is the other side's choice: neither a path nor a host is.
    fn connect(&self, at: u32) -> Result<Wire> {
        let address = match self.carrier {
            Carrier::Unix => unix_path(at).display().to_string(),
            _ if self.host.contains(':') => format!("[{}]:{at}", self.host),
            _ => format!("{}:{at}", self.host),
        };
        Wire::connect(self.carrier, &address, self.wait).map(|(wire, _)| wire)
    }
}

/// Has the responder take part, and connects to it.
fn meet(
    channel: &mut Channel,
    timeout: Duration,
    way: &Way,
    size: usize,
    count: u64,
    span: u64,
) -> Result<Wire, Miss> {
    let refused = |error: Error| Miss::None(error.to_string());
    // Of TCP the host in the name may be the other side's.
    let place = way.listen();
    let place = if way.needs_one_host() { Some(place.map_err(refused)?) } else { place.ok() };
    let at = place.as_ref().map(|(_, at)| *at);
    channel.send(&Message::StreamFloor(StreamOffer { at, size, count, span }))?;
    match (channel.receive(timeout)?, place) {
        (Message::Ready, Some((meeting, _))) => meeting.accept(None, way.wait, COMES_WITHIN).map_err(refused),
        (Message::StreamReady { at }, None) => way.connect(at).map_err(refused),
        (Message::NoFloor { reason }, _) => Err(Miss::None(reason)),
        (other, _) => Err(channel.unexpected(&other, "`ready`, `stream-ready` or `no-floor`").into()),
    }
}

/// The initiator's part in bounces.
pub(super) fn bounce(
    channel: &mut Channel,
    watch: &Watch,
    timeout: Duration,
    way: &Way,
    size: usize,
    gap: Duration,
    count: u64,
    latencies: &mut Latencies,
) -> Result<(), Miss> {
    let count = WARMUP + count;
    // A stream has no messages: what has no byte does not arrive.
    let size = size.max(1);
    let mut wire = meet(channel, timeout, way, size, count, 0)?;
    let (message, mut answer) = (vec![0x5a; size], vec![0; size]);
    let clock = crate::clock::chosen();
    let begun = Instant::now();
    for number in 1..=count {
        if number > WARMUP {
            pause(gap, way.wait == Wait::Event, watch)?;
        }
        let before = clock.now();
        wire.send(&message, watch)?;
        wire.receive(&mut answer, watch)?;
        let after = clock.now();
        if number > WARMUP {
            latencies.record(clock.between(before, after));
        }
        // Where others want the cores, what was to take a moment may take minutes.
        if latencies.count() > 0 && gap.is_zero() && begun.elapsed() > LONGEST_VISIT {
            break;
        }
    }
    // Should the other side wait for more, it hears that there is none.
    drop(wire);
    match channel.receive(timeout)? {
        Message::Done(_) => Ok(()),
        other => Err(channel.unexpected(&other, "`done`").into()),
    }
}

/// The responder's part in bounces and floods.
///
/// # Errors
/// The peer went away; a floor that cannot be is only reported to the peer.
pub fn respond(offer: StreamOffer, local: Option<&Way>, channel: &mut Channel, watch: &Watch) -> Result<()> {
    let refuse = |reason: String| Message::NoFloor { reason };
    let flood = local.filter(|_| offer.count == 0).map(Way::of_flood);
    let Some(way) = flood.as_ref().or(local) else {
        return channel
            .send(&refuse("the responder's device is no stream with a plain socket beside it".into()));
    };
    if offer.size == 0 || offer.size > super::memory::MAX_SIZE || offer.span > MAX_MEMORY {
        return channel.send(&refuse("the sizes make no sense".into()));
    }
    let met = match offer.at {
        Some(at) => way.connect(at).and_then(|wire| channel.send(&Message::Ready).map(|()| wire)),
        None => way.listen().and_then(|(meeting, at)| {
            channel.send(&Message::StreamReady { at })?;
            meeting.accept(None, way.wait, COMES_WITHIN)
        }),
    };
    let mut wire = match met {
        Ok(wire) => wire,
        Err(error) => return channel.send(&refuse(error.to_string())),
    };
    if offer.count == 0 {
        return channel.send(&take_flood(&mut wire, &offer, watch)?);
    }
    let (message, mut answer) = (vec![0xa5; offer.size], vec![0; offer.size]);
    for _ in 0..offer.count {
        if !wire.fill(&mut answer, watch)? {
            break;
        }
        wire.send(&message, watch)?;
    }
    channel.send(&Message::Done(Account::default()))
}

/// Counts what arrives until the stream ends.
fn take_flood(wire: &mut Wire, offer: &StreamOffer, watch: &Watch) -> Result<Message> {
    let span = usize::try_from(offer.span).unwrap_or(usize::MAX).max(offer.size);
    let mut memory = vec![1; span];
    wire.widen(FLOOD_ROOM);
    let (mut at, mut bytes, mut first, mut last) = (0, 0, None, Instant::now());
    loop {
        let end = (at + offer.size).min(span);
        let count = wire.take(memory.get_mut(at..end).unwrap_or_default(), watch)?;
        if count == 0 {
            break;
        }
        at = if at + count == span { 0 } else { at + count };
        last = Instant::now();
        // The first only starts the clock.
        match first {
            None => first = Some(last),
            Some(_) => bytes += count as u64,
        }
    }
    let elapsed = first.map_or(Duration::ZERO, |first| last.duration_since(first));
    Ok(Message::Arrived { bytes, nanoseconds: elapsed.as_nanos() as u64 })
}

/// The floor of many messages: floods between the sections of a run.
pub struct Flood {
    way: Way,
    /// What is written, message after message, from the front again when it ends.
    memory: Vec<u8>,
    size: usize,
    /// Bytes of memory at the reading side.
    span: u64,
    /// What they brought.
    pub floods: Floods,
}

impl Flood {
    /// For the messages of a plan.
    #[must_use]
    pub fn new(plan: &Plan, way: Way) -> Self {
        let size = usize::try_from(plan.size).unwrap_or(usize::MAX).max(1);
        let memory = usize::try_from(plan.stride() * u64::from(plan.depth)).unwrap_or(usize::MAX);
        let span = plan.stride() * u64::from(plan.target_slots());
        Self { memory: vec![0x5a; memory.max(size)], size, span, way, floods: Floods::default() }
    }

    /// What carries it.
    #[must_use]
    pub fn described(&self) -> &'static str {
        self.way.described()
    }

    /// Floods once; bytes per second that arrived. `None`, with the reason kept, where there can be no floor.
    ///
    /// # Errors
    /// The peer went away, or the user interrupted.
    pub fn measure(
        &mut self,
        channel: &mut Channel,
        watch: &Watch,
        timeout: Duration,
    ) -> Result<Option<f64>> {
        if self.floods.missing.is_some() {
            return Ok(None);
        }
        let met = meet(channel, timeout, &self.way.of_flood(), self.size, 0, self.span);
        let Some(mut wire) = self.floods.met(met)? else { return Ok(None) };
        wire.widen(FLOOD_ROOM);
        let start = Instant::now();
        let mut messages = self.memory.chunks_exact(self.size).cycle();
        while start.elapsed() < FLOOD_TIME {
            wire.send(messages.next().unwrap_or_default(), watch)?;
        }
        // The other side reads to the end.
        drop(wire);
        self.floods.heard(channel, timeout)
    }
}

#[cfg(test)]
mod tests {
    use super::Way;
    use crate::plan::Wait;

    #[test]
    fn sockets_have_a_way_beside_them_and_device_files_have_not() {
        let host = |name: &str| Way::of(name, Wait::Poll).map(|way| (way.needs_one_host(), way.host));
        assert_eq!(host("unix:@name,listen"), Some((true, String::new())));
        assert_eq!(host("tcp:192.0.2.1:7471"), Some((false, "192.0.2.1".into())));
        assert_eq!(host("tcp:[::1]:7471,connect"), Some((false, "::1".into())));
        assert_eq!(host("/dev/tbstream0"), None);
        assert_eq!(host("vsock:2:7471"), None);
    }
}
