//! What plain sockets do: the same exchanges as the verbs' pingpong, the same streams as their bw, the same bytes, clock and cores.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use clap::Args;

use crate::control::{Account, Channel, Go, Message, Phase};
use crate::error::{Error, Result};
use crate::histogram::{Latencies, Measures};
use crate::pattern::{PING, PONG, Pattern};
use crate::peer::{Responder, of_parent};
use crate::pingpong::{in_time, receive_account};
use crate::plain_sockets::{Carrier, LOOPBACK, MOST_IN_DATAGRAM, MOST_IN_DATAGRAMS, Meeting, Wire};
use crate::plan::{Plan, Wait};
use crate::watch::Watch;
use crate::{affinity, clock, signals};

/// How long a batch lasts.
const BATCH_TIME: Duration = Duration::from_millis(100);
/// Unrecorded exchanges at the head of a batch, after both sides have slept.
const LEAD_IN: u64 = 32;
/// Exchanges that check a stream's bytes, each with bytes of its own.
const CHECKED: u64 = 64;
/// A flood of datagrams that has been quiet for so long is over.
const QUIET: Duration = Duration::from_millis(30);
/// How long the other side may take to come.
const COMES_WITHIN: Duration = Duration::from_secs(10);

/// What is measured.
#[derive(Debug, Clone, Copy)]
pub(super) struct Task {
    pub(super) carrier: Carrier,
    pub(super) wait: Wait,
    pub(super) size: usize,
    pub(super) time: Duration,
    /// A stream in one direction, or exchanges.
    pub(super) stream: bool,
    /// The cores of both sides.
    pub(super) cores: Option<(usize, usize)>,
    pub(super) timeout: Duration,
}

/// What was found.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) latencies: Latencies,
    pub(super) bytes_per_s: Option<f64>,
    /// The share of datagrams that did not arrive.
    pub(super) lost: Option<f64>,
    pub(super) messages: u64,
    pub(super) account: Account,
}

/// Flags of the hidden second process.
#[derive(Debug, Clone, Args)]
pub struct Flags {
    #[arg(value_enum)]
    carrier: Carrier,
    address: String,
    #[arg(value_enum)]
    wait: Wait,
    size: usize,
    #[arg(long)]
    stream: bool,
    #[arg(long)]
    core: Option<usize>,
    #[arg(long, value_parser = crate::cli::parse_duration)]
    timeout: Option<Duration>,
}

/// Buffers that a stream goes round, as that of verbs does.
fn slots(size: usize) -> usize {
    Plan::stream_depth(size as u64) as usize
}

/// Bytes of a message: of a flood of datagrams, one.
fn piece(task: &Task) -> usize {
    let one_datagram = task.carrier == Carrier::Udp && task.stream;
    if one_datagram { task.size.min(MOST_IN_DATAGRAM) } else { task.size }
}

/// The side that measures, with a second process that it starts and that leaves after it.
pub(super) fn measure(task: &Task) -> Result<Found> {
    if task.carrier == Carrier::Udp && !task.stream && task.size > MOST_IN_DATAGRAMS {
        return Err(Error::Run(format!(
            "not measured over {MOST_IN_DATAGRAMS} bytes, which are two datagrams"
        )));
    }
    let (meeting, address) = Meeting::new(task.carrier, LOOPBACK)?;
    let wait = task.wait.to_string();
    let mut arguments: Vec<String> =
        ["plain-responder", task.carrier.name(), &address, &wait].map(str::to_owned).to_vec();
    arguments.push(piece(task).to_string());
    arguments.push(format!("--timeout={}ms", task.timeout.as_millis()));
    arguments.extend(task.stream.then(|| "--stream".to_owned()));
    arguments.extend(task.cores.map(|(_, other)| format!("--core={other}")));
    let (child, mut channel) = Responder::start_as(&arguments, "the responder")?;
    let found = initiate(task, &meeting, &mut channel).map_err(|error| channel.explain(error));
    // The child leaves when its control channel closes, and is waited for.
    drop(channel);
    drop(child);
    found
}

fn initiate(task: &Task, meeting: &Meeting, channel: &mut Channel) -> Result<Found> {
    let theirs = match channel.receive(COMES_WITHIN)? {
        Message::SocketReady { address } => Some(address),
        Message::Ready => None,
        other => return Err(channel.unexpected(&other, "`ready`")),
    };
    let wire = meeting.accept(theirs, task.wait, COMES_WITHIN)?;
    if let Some((own, _)) = task.cores {
        affinity::pin(own)?;
    }
    let size = piece(task);
    let watch = Watch::new(channel.alarm(), task.timeout, channel.peer().to_owned());
    let mut side = Side::new(wire, size, watch, task.timeout);
    if task.stream { side.stream(task, channel) } else { side.exchange(task, channel) }
}

/// The hidden second process.
///
/// # Errors
/// The first process went away, or a socket failed.
pub fn respond(flags: &Flags) -> Result<u8> {
    signals::install_in_child()?;
    let mut channel = of_parent()?;
    match answer(flags, &mut channel) {
        Ok(()) | Err(Error::PeerGone { .. }) => Ok(0),
        Err(error) => {
            // The parent tells the user.
            let _ = channel.send(&Message::Fail { reason: error.to_string() });
            Ok(1)
        }
    }
}

fn answer(flags: &Flags, channel: &mut Channel) -> Result<()> {
    let timeout = flags.timeout.unwrap_or(COMES_WITHIN);
    let (wire, ours) = Wire::connect(flags.carrier, &flags.address, flags.wait)?;
    if let Some(core) = flags.core {
        affinity::pin(core)?;
    }
    let watch = Watch::new(channel.alarm(), timeout, channel.peer().to_owned());
    let mut side = Side::new(wire, flags.size, watch, timeout);
    channel.send(&ours.map_or(Message::Ready, |address: SocketAddr| Message::SocketReady { address }))?;
    loop {
        match channel.receive(timeout + BATCH_TIME * 10)? {
            Message::Go(go) if go.phase == Phase::Run && flags.stream => {
                channel.send(&Message::Ready)?;
                let done = match flags.carrier {
                    Carrier::Udp => side.take_flood()?,
                    _ => side.take(go.count).map(|()| Message::Done(Account::default()))?,
                };
                channel.send(&done)?;
            }
            Message::Go(go) => {
                let account = side.echo(go)?;
                channel.send(&Message::Done(account))?;
            }
            other => return Err(channel.unexpected(&other, "`go`")),
        }
    }
}

/// One side, connected.
struct Side {
    wire: Wire,
    ours: Vec<u8>,
    theirs: Vec<u8>,
    size: usize,
    watch: Watch,
    timeout: Duration,
    next: u64,
    account: Account,
}

impl Side {
    fn new(wire: Wire, size: usize, watch: Watch, timeout: Duration) -> Self {
        let (ours, theirs) = (vec![0; size], vec![0; size]);
        Self { wire, ours, theirs, size, watch, timeout, next: 0, account: Account::default() }
    }

    fn pattern(&self, salt: u64) -> Pattern {
        Pattern::new(salt, self.size, 1)
    }

    /// Checks what came against what should have come.
    fn check(&mut self, pattern: &Pattern, sequence: u64) {
        let found = match pattern.mismatch(sequence, &self.theirs) {
            None => Ok(()),
            Some(at) => Err(format!("message {sequence} over a plain socket is wrong from byte {at}")),
        };
        self.account.count(found);
    }

    /// Exchanges: warm-up, then batches for as long as was asked for.
    fn exchange(&mut self, task: &Task, channel: &mut Channel) -> Result<Found> {
        let mut latencies = Latencies::new(Measures::HalfRoundTrip)?;
        let begun = Instant::now();
        self.batch(channel, LEAD_IN, 0, &mut latencies)?;
        let mut each = begun.elapsed() / LEAD_IN as u32;
        let whole = BATCH_TIME.min(task.time);
        let warm = in_time(whole, each);
        each = self.batch(channel, warm, 0, &mut latencies)? / u32::try_from(warm).unwrap_or(u32::MAX);
        let mut measured = Duration::ZERO;
        while measured < task.time {
            let count = in_time(whole.min(task.time - measured), each);
            let elapsed = self.batch(channel, LEAD_IN + count, count, &mut latencies)?;
            each = elapsed / u32::try_from(LEAD_IN + count).unwrap_or(u32::MAX);
            measured += elapsed;
        }
        let (messages, account) = (latencies.count(), std::mem::take(&mut self.account));
        Ok(Found { latencies, bytes_per_s: None, lost: None, messages, account })
    }

    /// Does `count` exchanges of which the last `recorded` are recorded; how long all took.
    fn batch(
        &mut self,
        channel: &mut Channel,
        count: u64,
        recorded: u64,
        latencies: &mut Latencies,
    ) -> Result<Duration> {
        let (ping, pong) = (self.pattern(PING), self.pattern(PONG));
        let (first, end) = (self.next, self.next + count);
        channel.send(&Message::Go(Go { phase: Phase::Verify, first, count, flow: 0 }))?;
        let clock = clock::chosen();
        let begun = Instant::now();
        for sequence in first..end {
            ping.fill(sequence, &mut self.ours);
            let before = clock.now();
            self.wire.send(&self.ours, &self.watch)?;
            self.wire.receive(&mut self.theirs, &self.watch)?;
            let after = clock.now();
            if sequence >= end - recorded {
                latencies.record(clock.between(before, after));
            }
            self.check(&pong, sequence);
        }
        let elapsed = begun.elapsed();
        self.next = end;
        self.account.add(&receive_account(channel, self.timeout)?);
        Ok(elapsed)
    }

    /// The answers to a batch of exchanges.
    fn echo(&mut self, go: Go) -> Result<Account> {
        let (ping, pong) = (self.pattern(PING), self.pattern(PONG));
        for sequence in go.first..go.first.saturating_add(go.count) {
            pong.fill(sequence, &mut self.ours);
            self.wire.receive(&mut self.theirs, &self.watch)?;
            self.wire.send(&self.ours, &self.watch)?;
            self.check(&ping, sequence);
        }
        Ok(std::mem::take(&mut self.account))
    }

    /// A stream in one direction: sections for as long as was asked for, and then exchanges that are checked.
    fn stream(&mut self, task: &Task, channel: &mut Channel) -> Result<Found> {
        let memory = vec![0x5a; self.size * slots(self.size)];
        let mut count = slots(self.size) as u64;
        let (mut bytes, mut sent, mut elapsed) = (0, 0, Duration::ZERO);
        let (mut warm, whole) = (true, BATCH_TIME.min(task.time));
        while elapsed < task.time {
            let section = self.section(task, channel, count, &memory)?;
            let each = section.elapsed / u32::try_from(count).unwrap_or(u32::MAX).max(1);
            // The first ones are short, and only say how many fit.
            if warm {
                warm = section.elapsed < whole / 2;
            } else {
                (bytes, sent, elapsed) = (bytes + section.bytes, sent + count, elapsed + section.elapsed);
            }
            count = in_time(whole, each).min(count.saturating_mul(8));
        }
        let arrived = bytes / (self.size as u64).max(1);
        let mut unused = Latencies::new(Measures::HalfRoundTrip)?;
        self.batch(channel, CHECKED, 0, &mut unused)?;
        Ok(Found {
            latencies: unused,
            bytes_per_s: Some(bytes as f64 / elapsed.as_secs_f64().max(1e-9)),
            lost: (task.carrier == Carrier::Udp).then(|| 1.0 - arrived as f64 / sent.max(1) as f64),
            messages: arrived,
            account: std::mem::take(&mut self.account),
        })
    }

    fn section(&mut self, task: &Task, channel: &mut Channel, count: u64, memory: &[u8]) -> Result<Section> {
        channel.send(&Message::Go(Go { phase: Phase::Run, first: 0, count, flow: 0 }))?;
        match channel.receive(self.timeout)? {
            Message::Ready => {}
            other => return Err(channel.unexpected(&other, "`ready`")),
        }
        let begun = Instant::now();
        let mut messages = memory.chunks_exact(self.size).cycle();
        for _ in 0..count {
            self.wire.send(messages.next().unwrap_or_default(), &self.watch)?;
        }
        match channel.receive(self.timeout + BATCH_TIME * 10)? {
            Message::Done(_) if task.carrier != Carrier::Udp => {
                Ok(Section { bytes: count * self.size as u64, elapsed: begun.elapsed() })
            }
            Message::Arrived { bytes, nanoseconds } if task.carrier == Carrier::Udp => {
                Ok(Section { bytes, elapsed: Duration::from_nanos(nanoseconds.max(1)) })
            }
            other => Err(channel.unexpected(&other, "`done` or `arrived`")),
        }
    }

    /// Takes a stream.
    fn take(&mut self, count: u64) -> Result<()> {
        let mut memory = std::mem::take(&mut self.theirs);
        memory.resize(self.size * slots(self.size), 0);
        let mut left = count;
        while left > 0 {
            for message in
                memory.chunks_exact_mut(self.size).take(usize::try_from(left).unwrap_or(usize::MAX))
            {
                self.wire.receive(message, &self.watch)?;
                left -= 1;
            }
        }
        memory.truncate(self.size);
        self.theirs = memory;
        Ok(())
    }

    /// Counts what arrives of a flood, until nothing has for a while.
    fn take_flood(&mut self) -> Result<Message> {
        let (mut bytes, mut first, mut last) = (0, None, Instant::now());
        loop {
            let patience = if first.is_some() { QUIET } else { self.timeout };
            let Some(count) = self.wire.datagram(&mut self.theirs, patience, &self.watch)? else { break };
            last = Instant::now();
            first.get_or_insert(last);
            bytes += count as u64;
        }
        let elapsed = first.map_or(Duration::ZERO, |first| last.duration_since(first));
        Ok(Message::Arrived { bytes, nanoseconds: elapsed.as_nanos() as u64 })
    }
}

/// What a section of a stream brought.
struct Section {
    bytes: u64,
    elapsed: Duration,
}

/// What a thread of its own finds, so that nothing else of this process is pinned.
pub(super) fn measure_apart(task: &Task) -> Result<Found> {
    std::thread::scope(|scope| {
        let run = scope.spawn(|| measure(task));
        run.join().map_err(|_| Error::Run("the measurement over plain sockets panicked".into()))?
    })
}
