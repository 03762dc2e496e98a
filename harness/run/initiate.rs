//! The side that measures.

use super::assemble::assemble;
use super::respond::{Choices, respond};
use super::{BETWEEN_BATCHES, BY_THE_HARNESS, IN_TURNS, NO_FLOOR, SIMULATED_MESSAGES, SIMULATED_WARMUP};
use crate::cli::{Extent, Flags};
use crate::control::{Channel, Message};
use crate::environment::{BothSides, Environment, Host};
use crate::error::{Error, Result};
use crate::floor::{Carrier, Floor, sockets, streams};
use crate::histogram::Latencies;
use crate::interference::Reading;
use crate::lanes::{self, Crew, Started, Tallies, conduct};
use crate::memcpy::Memcpy;
use crate::mixed::{self, Mixed};
use crate::open_loop::Pace;
use crate::peer::{self, Responder};
use crate::pingpong::{self, Pingpong};
use crate::plan::{Benchmark, Plan};
use crate::progress::Progress;
use crate::result::Report;
use crate::session::{self, OpenDevice, Role};
use crate::stream::{self, Stream};
use crate::{affinity, clock, idle};

/// A measurement, where it was made, and whose memory it used.
pub(super) struct Raw {
    pub(super) found: Found,
    pub(super) environment: Environment,
    pub(super) memory: &'static str,
    /// Of each thread.
    pub(super) cores: Vec<Option<usize>>,
    /// Of each thread, where there are several.
    pub(super) tallies: Vec<Tallies>,
}

/// What a measurement found, before it is put together with where and how.
pub(super) enum Found {
    Pingpong(Box<pingpong::Outcome>, Floor),
    Stream(stream::Outcome, Beside),
    Mixed(Box<mixed::Outcome>),
    Idle(Box<idle::Outcome>, Floor),
}

/// The floor of a stream.
pub(super) enum Beside {
    Memcpy(Memcpy),
    Sockets(sockets::Flood),
    Stream(streams::Flood),
    Nothing(String),
}

impl Beside {
    /// What the same bytes need without the library.
    fn of(plan: &Plan, carrier: Carrier) -> Self {
        match carrier {
            Carrier::Sockets(way) => Self::Sockets(sockets::Flood::new(plan, way)),
            Carrier::Stream(way) => Self::Stream(streams::Flood::new(plan, way)),
            Carrier::Nothing(reason) => Self::Nothing(reason.into()),
            Carrier::Memory => Self::Memcpy(Memcpy::new(plan)),
            Carrier::Window => match Memcpy::into_window(plan) {
                Ok(memcpy) => Self::Memcpy(memcpy),
                Err(error) => Self::Nothing(error.to_string()),
            },
        }
    }
}

/// A measurement, whole.
#[derive(Debug)]
pub struct Measured {
    /// The result.
    pub report: Report,
    /// The latencies that stand for the run (of an open loop the responses); `None` where only throughput was measured.
    pub latencies: Option<Latencies>,
    /// The picture of the services for the terminal; may be empty.
    pub picture: String,
}

/// Measures one plan as the initiator and prints nothing but progress: against `--connect`, against a second process that it starts and
/// ends, or with both sides in turns where time is virtual. It may be called again and again, as runs do not leave their cores behind; but
/// a process that measured in virtual time once measures in no other. Signals are the caller's ([`crate::signals::install`]).
///
/// # Errors
/// The device cannot be opened, the other side cannot be reached or fails, or the run is interrupted. Wrong bytes are no error here but said
/// in the report.
pub fn measure_once(flags: &Flags, plan: Plan, pace: Option<Pace>) -> Result<Measured> {
    // A thread of its own is pinned, and the next run chooses among all cores again.
    std::thread::scope(|scope| {
        let run = scope.spawn(|| measure_here(flags, plan, pace));
        run.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

fn measure_here(flags: &Flags, mut plan: Plan, pace: Option<Pace>) -> Result<Measured> {
    let allowed = affinity::allowed()?;
    let own_core = choose_cores(flags, &mut plan, &allowed)?;
    let open = session::open(&plan.device, &plan, Role::Initiator, flags.capture.as_deref())?;
    if open.device.has_virtual_time() {
        // Virtual time does not care where threads run.
        plan.pin_responder = None;
        let measured =
            in_turns(flags, &open, |channel| initiate(flags, &plan, pace, &open, None, &allowed, channel))?;
        let mut measured = assemble(&plan, &open, measured, IN_TURNS);
        measured.report.floor_missing = Some(NO_FLOOR.into());
        return Ok(measured);
    }
    let measured =
        with_peer(flags, |channel| initiate(flags, &plan, pace, &open, own_core, &allowed, channel))?;
    let sides = if flags.connect.is_some() { "two programs" } else { BY_THE_HARNESS };
    Ok(assemble(&plan, &open, measured, sides))
}

/// Does a run with the other side at `--connect`, or with a second process that is started for it and leaves after it. What fails is told to
/// the peer, and the peer's reason is told instead of the consequence.
///
/// # Errors
/// The other side cannot be reached, or what `run` returns.
pub fn with_peer<T>(flags: &Flags, run: impl FnOnce(&mut Channel) -> Result<T>) -> Result<T> {
    let (child, mut channel) = match &flags.connect {
        Some(address) => (None, peer::connect(address, flags.timeout())?),
        None => Responder::start().map(|(child, channel)| (Some(child), channel))?,
    };
    match run(&mut channel) {
        Ok(found) => {
            // The child leaves when its control channel closes, and is waited for.
            drop(channel);
            drop(child);
            Ok(found)
        }
        Err(error) => {
            let error = give_up(&mut channel, error);
            drop(channel);
            Err(with_ending(error, child))
        }
    }
}

/// Does a run in the simulated network of `open`: both sides are threads of this process that take turns, so that what is found follows from
/// the seed.
///
/// # Errors
/// `--connect` was asked for, or what `run` returns.
pub fn in_turns<T>(
    flags: &Flags,
    open: &OpenDevice,
    run: impl FnOnce(&mut Channel) -> Result<T>,
) -> Result<T> {
    if flags.connect.is_some() {
        return Err(Error::Usage(format!(
            "--connect leads nowhere from --device {}: a simulated network is inside one process, with both sides",
            open.name
        )));
    }
    clock::follow(&open.device)?;
    let [mut ours, mut theirs] = Channel::pair(["the responder", "the initiator"].map(str::to_owned));
    let (our_turn, their_turn) = (open.device.take_turns(), open.device.take_turns());
    std::thread::scope(|scope| {
        scope.spawn(move || {
            let _turn = their_turn.begin();
            if let Err(error) = respond(&mut theirs, &Choices::default(), BETWEEN_BATCHES) {
                give_up(&mut theirs, error);
            }
        });
        let _turn = our_turn.begin();
        let found = run(&mut ours).map_err(|error| give_up(&mut ours, error));
        // The other side hears of the end, and leaves.
        drop(ours);
        found
    })
}

/// How long to measure. A second of virtual time may be as many messages as anybody cares to compute: without a wish, it is a thousand.
fn extent(flags: &Flags) -> Extent {
    let wished = flags.iters.is_some() || flags.duration.is_some();
    if clock::is_simulated() && !wished { Extent::Messages(SIMULATED_MESSAGES) } else { flags.extent() }
}

/// Messages before those that are recorded. In virtual time nothing gets warm but the connection.
fn warmup(flags: &Flags) -> Option<u64> {
    flags.warmup.or_else(|| clock::is_simulated().then_some(SIMULATED_WARMUP))
}

/// Sets the responder's core in the plan, and returns the initiator's.
pub(crate) fn choose_cores(flags: &Flags, plan: &mut Plan, allowed: &[usize]) -> Result<Option<usize>> {
    if plan.threads > 1 {
        if flags.pin.is_some() {
            return Err(Error::Usage(format!(
                "--pin names the cores of one thread on each side, and there are {}: they are pinned where each can have a core",
                plan.threads
            )));
        }
        return Ok(None);
    }
    let for_child = flags.connect.is_none();
    let own = match flags.pin {
        Some(pins) => {
            if pins.second.is_none() && for_child {
                plan.pin_responder = allowed.iter().copied().find(|core| *core != pins.first);
            }
            Some(pins.first)
        }
        None if for_child => affinity::pair(allowed).map(|(own, other)| {
            plan.pin_responder = Some(other);
            own
        }),
        None => None,
    };
    let unknown = [own, plan.pin_responder.filter(|_| for_child)]
        .into_iter()
        .flatten()
        .find(|core| !allowed.contains(core));
    match unknown {
        Some(core) => Err(Error::Usage(format!(
            "--pin {core} is not a core that this process may use: it may use {}",
            affinity::listed(allowed)
        ))),
        None => Ok(own),
    }
}

fn initiate(
    flags: &Flags,
    plan: &Plan,
    pace: Option<Pace>,
    open: &OpenDevice,
    own_core: Option<usize>,
    allowed: &[usize],
    channel: &mut Channel,
) -> Result<Raw> {
    let timeout = flags.timeout();
    let progress = Progress::new(plan.benchmark, flags.quiet);
    progress.stage("connecting");
    let hello = channel.greet(timeout)?;
    if flags.connect.is_some() {
        channel.set_peer(format!("{} (process {})", channel.peer(), hello.pid));
    }
    channel.send(&Message::Plan(plan.clone()))?;
    // The device's own threads exist by now, and stay where they are.
    if let Some(core) = own_core {
        affinity::pin(core)?;
    }
    clock::choose(flags.clock.unwrap_or_default());
    let mut environment = Environment::survey(own_core, allowed);
    let cores = if plan.threads == 1 {
        own_core.into_iter().collect()
    } else {
        lanes::cores(plan, Role::Initiator, allowed)
    };
    let ((found, reading), started, tallies) = match plan.benchmark {
        Benchmark::Pingpong => {
            let run = |crew: &mut Crew<Pingpong>, started: &[Started], channel: &mut Channel| {
                let mut floor = floor_of(plan, started[0].carrier.clone(), &hello.host)?;
                let reading = Reading::now(own_core);
                let visit = |channel: &mut Channel| floor.visit(channel, &started[0].watch, timeout);
                let (extent, warmup) = (extent(flags), warmup(flags));
                let outcome = pingpong::measure(crew, plan, channel, extent, warmup, pace, &progress, visit)?;
                Ok((Found::Pingpong(Box::new(outcome), floor), reading))
            };
            conduct(open, plan, &cores, channel, run)?
        }
        Benchmark::Idle => {
            let run = |crew: &mut Crew<Pingpong>, started: &[Started], channel: &mut Channel| {
                let mut floor = floor_of(plan, started[0].carrier.clone(), &hello.host)?;
                let reading = Reading::now(own_core);
                let (extent, warmup) = (extent(flags), warmup(flags));
                let watch = &started[0].watch;
                let outcome =
                    idle::measure(crew, plan, channel, extent, warmup, &progress, &mut floor, watch)?;
                Ok((Found::Idle(Box::new(outcome), floor), reading))
            };
            conduct(open, plan, &cores, channel, run)?
        }
        Benchmark::Mixed => {
            let run = |crew: &mut Crew<Mixed>, _: &[Started], channel: &mut Channel| {
                let reading = Reading::now(own_core);
                let (extent, warmup) = (extent(flags), warmup(flags));
                let outcome = mixed::measure(crew, plan, channel, extent, warmup, &progress)?;
                Ok((Found::Mixed(Box::new(outcome)), reading))
            };
            conduct(open, plan, &cores, channel, run)?
        }
        // Others are no plan of two sides: it was validated.
        _ => {
            let run = |crew: &mut Crew<Stream>, started: &[Started], channel: &mut Channel| {
                let mut beside = Beside::of(plan, started[0].carrier.clone());
                let reading = Reading::now(own_core);
                let measure = |channel: &mut Channel| match &mut beside {
                    _ if clock::is_simulated() => Ok(None),
                    Beside::Memcpy(memcpy) => memcpy.measure().map(Some),
                    Beside::Sockets(flood) => flood.measure(channel, &started[0].watch, timeout),
                    Beside::Stream(flood) => flood.measure(channel, &started[0].watch, timeout),
                    Beside::Nothing(_) => Ok(None),
                };
                let (extent, warmup) = (extent(flags), warmup(flags));
                let outcome = stream::measure(crew, plan, channel, extent, warmup, &progress, measure)?;
                Ok((Found::Stream(outcome, beside), reading))
            };
            conduct(open, plan, &cores, channel, run)?
        }
    };
    let memory = started.first().map_or("", |first| first.memory);
    channel.send(&Message::Finish)?;
    let Message::Bye { pinned, switches } = channel.receive(timeout)? else {
        return Err(Error::Run(format!("{} did not say goodbye", channel.peer())));
    };
    let switches = tallies.iter().fold(switches, |sum, pair| sum.plus(pair.responder));
    let (mut interference, steal_ms) = reading.until_now(switches);
    interference.initiator =
        tallies.iter().fold(interference.initiator, |sum, pair| sum.plus(pair.initiator));
    environment.steal_ms = steal_ms;
    environment.clock.drift_ppm = clock::chosen().drift_ppm();
    environment.pinned.responder = pinned;
    environment.involuntary_context_switches =
        BothSides { initiator: interference.initiator.involuntary, responder: switches.involuntary };
    environment.interference = Some(interference);
    Ok(Raw { found, environment, memory, cores: started.iter().map(|one| one.core).collect(), tallies })
}

/// Tells the peer that this side gives up, and finds out what the peer has to do with it.
pub(super) fn give_up(channel: &mut Channel, error: Error) -> Error {
    let error = channel.explain(error);
    if !matches!(error, Error::PeerFailed { .. } | Error::PeerGone { .. }) {
        // If the peer does not hear it, it hears that the channel closes.
        let _ = channel.send(&Message::Fail { reason: error.to_string() });
    }
    error
}

fn with_ending(error: Error, child: Option<Responder>) -> Error {
    match (error, child) {
        (Error::PeerGone { peer, detail }, Some(mut child)) => match child.ending() {
            Some(ending) => Error::PeerGone { peer, detail: format!(" with {ending}{detail}") },
            None => Error::PeerGone { peer, detail },
        },
        (error, _) => error,
    }
}

/// The floor of a pingpong, where there can be one.
fn floor_of(plan: &Plan, carrier: Carrier, peer: &Host) -> Result<Floor> {
    let needs_one_host = carrier.needs_one_host();
    let mut floor = Floor::new(plan.size, carrier)?;
    if needs_one_host && !peer.is_same(&Host::ours()) {
        floor.missing =
            Some("the two sides are not on one host, or do not see each other's processes".into());
    }
    if clock::is_simulated() {
        floor.missing = Some(NO_FLOOR.into());
    }
    Ok(floor)
}
