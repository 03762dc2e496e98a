//! The order of a run, on both sides.

use std::path::PathBuf;
use std::time::Duration;

use crate::affinity;
use crate::cli::{Command, Extent, Flags};
use crate::clock;
use crate::control::{Account, Channel, Endpoint, Message};
use crate::environment::{BothSides, Environment, Host};
use crate::error::{Error, Result};
use crate::floor::sockets::{Flood, Way};
use crate::floor::{self, Carrier, Floor};
use crate::histogram::Latencies;
use crate::interference::{Reading, Tally};
use crate::memcpy::{Memcpy, median};
use crate::open_loop::{OpenLoop, Pace};
use crate::outputs::Outputs;
use crate::page;
use crate::peer::{self, Listener, Responder};
use crate::pingpong::{self, Pingpong};
use crate::plan::{Benchmark, Plan};
use crate::progress::Progress;
use crate::report;
use crate::result::{Bandwidth, FloorLatency, FloorReport, Ratio, Report, SCHEMA, Spread};
use crate::session::{self, OpenDevice, Role, Session};
use crate::stream::{self, Stream};
use crate::{compare, complain, devices, doctor, gate, ledger, say, signals};

/// How long a side waits for the other where that one may be busy measuring something on its own.
const BETWEEN_BATCHES: Duration = Duration::from_secs(60);
/// How the two sides of a run without `--server` and `--connect` were started.
pub const BY_THE_HARNESS: &str = "started by the harness";
/// The same in a simulated network.
pub const IN_TURNS: &str = "threads of one process in virtual time, taking turns";
/// Messages of a run there, and before it.
const SIMULATED_MESSAGES: u64 = 1000;
const SIMULATED_WARMUP: u64 = 64;
/// Why there is no floor there.
const NO_FLOOR: &str = "virtual time has no machine below it";

/// Does what the command line asks; the exit code.
///
/// # Errors
/// Whatever went wrong.
pub fn command(command: Command) -> Result<u8> {
    match command {
        Command::Devices { device, profile } => {
            devices::list(device.as_deref(), profile.as_deref()).and_then(|text| say(&text)).map(|()| 0)
        }
        Command::Ledger { clear } => ledger::show(clear).and_then(|text| say(&text)).map(|()| 0),
        Command::Doctor(flags) => doctor::run(&flags),
        Command::Report(flags) => page::run(&flags).map(|()| 0),
        Command::Compare(flags) => compare::run(&flags),
        Command::Gate(flags) => gate::run(&flags),
        Command::ReadProcess { pid, address } => {
            say(&format!("{}\n", doctor::kernel::read_process(pid, address))).map(|()| 0)
        }
        Command::TryDevices => doctor::probes::try_devices().map(|()| 0),
        Command::Responder => responder_process(),
        Command::Pingpong(pingpong) if pingpong.flags.server.is_some() => {
            serve(&pingpong.flags, pingpong.pace.rate.map(|_| "--rate"))
        }
        Command::Pingpong(pingpong) => measure(&pingpong.flags, pingpong.plan()?, pingpong.pace()?),
        Command::Bw(stream) if stream.flags.server.is_some() => serve(&stream.flags, None),
        Command::Bw(stream) => measure(&stream.flags, stream.plan(Benchmark::Bw)?, None),
        Command::Rate(stream) if stream.flags.server.is_some() => serve(&stream.flags, None),
        Command::Rate(stream) => measure(&stream.flags, stream.plan(Benchmark::Rate)?, None),
    }
}

/// What a measurement found, before it is put together with where and how.
enum Found {
    Pingpong(Box<pingpong::Outcome>, Floor),
    Stream(stream::Outcome, Beside),
}

/// The floor of a stream.
enum Beside {
    Memcpy(Memcpy),
    Sockets(Flood),
}

/// How this side's plain sockets reach the other, if the device is on a network.
fn way(open: &OpenDevice, session: &Session) -> Option<Way> {
    Way::of(&open.name, session.qp.address().gid, open.mtu, session.plan.wait)
}

/// The initiator.
fn measure(flags: &Flags, mut plan: Plan, pace: Option<Pace>) -> Result<u8> {
    signals::install()?;
    let outputs = Outputs::prepare(&flags.outputs, plan.benchmark)?;
    let allowed = affinity::allowed()?;
    let own_core = choose_cores(flags, &mut plan, &allowed)?;
    let open = session::open(&plan.device, &plan, Role::Initiator, flags.capture.as_deref())?;
    if open.device.has_virtual_time() {
        return simulate(flags, plan, pace, &open, outputs, &allowed);
    }
    let (child, mut channel) = match &flags.connect {
        Some(address) => (None, peer::connect(address, flags.timeout())?),
        None => Responder::start().map(|(child, channel)| (Some(child), channel))?,
    };
    let measured = initiate(flags, &plan, pace, &open, own_core, &allowed, &mut channel);
    let (found, environment, memory) = match measured {
        Ok(found) => found,
        Err(error) => {
            let error = give_up(&mut channel, error);
            drop(channel);
            return Err(with_ending(error, child));
        }
    };
    // The child leaves when its control channel closes, and is waited for.
    drop(channel);
    drop(child);
    let sides = if flags.connect.is_some() { "two programs" } else { BY_THE_HARNESS };
    conclude(flags, outputs, assemble(&plan, &open, found, environment, memory, sides))
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

/// Both sides in a simulated network: threads of this process that take turns, so that what is found follows from the seed.
fn simulate(
    flags: &Flags,
    mut plan: Plan,
    pace: Option<Pace>,
    open: &OpenDevice,
    outputs: Outputs,
    allowed: &[usize],
) -> Result<u8> {
    if flags.connect.is_some() {
        return Err(Error::Usage(format!(
            "--connect leads nowhere from --device {}: a simulated network is inside one process, with both sides",
            open.name
        )));
    }
    clock::follow(&open.device);
    // Virtual time does not care where threads run.
    plan.pin_responder = None;
    let [mut ours, mut theirs] = Channel::pair(["the responder", "the initiator"].map(str::to_owned));
    let (our_turn, their_turn) = (open.device.take_turns(), open.device.take_turns());
    let found = std::thread::scope(|scope| {
        scope.spawn(move || {
            let _turn = their_turn.begin();
            if let Err(error) = respond(&mut theirs, &Choices::default(), BETWEEN_BATCHES) {
                give_up(&mut theirs, error);
            }
        });
        let _turn = our_turn.begin();
        let found = initiate(flags, &plan, pace, open, None, allowed, &mut ours);
        let found = found.map_err(|error| give_up(&mut ours, error));
        // The other side hears of the end, and leaves.
        drop(ours);
        found
    });
    let (found, environment, memory) = found?;
    let mut assembled = assemble(&plan, open, found, environment, memory, IN_TURNS);
    assembled.0.floor_missing = Some(NO_FLOOR.into());
    conclude(flags, outputs, assembled)
}

/// Tells of a run; the exit code.
fn conclude(
    flags: &Flags,
    outputs: Outputs,
    (report, latencies, picture): (Report, Option<Latencies>, String),
) -> Result<u8> {
    match (outputs.write(&report, latencies.as_ref())?, flags.quiet) {
        (Some(asked_for), _) => say(&asked_for)?,
        (None, true) => say(&report::line(&report))?,
        (None, false) => say(&report::full(&report, &picture))?,
    }
    if report.verified {
        return Ok(0);
    }
    let first = report.first_error.as_deref().unwrap_or("not all messages were checked");
    Err(Error::Run(format!(
        "{} of {} checked messages were wrong: {first}",
        report.errors, report.messages_checked
    )))
}

/// Sets the responder's core in the plan, and returns the initiator's.
fn choose_cores(flags: &Flags, plan: &mut Plan, allowed: &[usize]) -> Result<Option<usize>> {
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
) -> Result<(Found, Environment, &'static str)> {
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
    let (session, _) = Session::establish(open, plan, Role::Initiator, channel)?;
    let memory = session.incoming.says();
    let reading = Reading::now(own_core);
    let found = match plan.benchmark {
        Benchmark::Pingpong => {
            let carrier = way(open, &session).map_or(Carrier::Memory, Carrier::Sockets);
            let needs_one_host = matches!(carrier, Carrier::Memory);
            let mut floor = Floor::new(plan.size, carrier)?;
            if needs_one_host && !hello.host.is_same(&Host::ours()) {
                floor.missing =
                    Some("the two sides are not on one host, or do not see each other's processes".into());
            }
            if clock::is_simulated() {
                floor.missing = Some(NO_FLOOR.into());
            }
            let watch = session.watch.clone();
            let mut pingpong = Pingpong::new(session)?;
            pingpong.session().meet(channel)?;
            let visit = |channel: &mut Channel| floor.visit(channel, &watch, timeout);
            let outcome = pingpong.measure(channel, extent(flags), warmup(flags), pace, &progress, visit)?;
            Found::Pingpong(Box::new(outcome), floor)
        }
        Benchmark::Bw | Benchmark::Rate => {
            let mut beside = match way(open, &session) {
                Some(way) => Beside::Sockets(Flood::new(plan, way)),
                None => Beside::Memcpy(Memcpy::new(plan)),
            };
            let watch = session.watch.clone();
            let mut stream = Stream::new(session)?;
            stream.session().meet(channel)?;
            let measure = |channel: &mut Channel| match &mut beside {
                _ if clock::is_simulated() => Ok(None),
                Beside::Memcpy(memcpy) => memcpy.measure().map(Some),
                Beside::Sockets(flood) => flood.measure(channel, &watch, timeout),
            };
            let outcome = stream.measure(channel, extent(flags), warmup(flags), &progress, measure)?;
            Found::Stream(outcome, beside)
        }
    };
    channel.send(&Message::Finish)?;
    let Message::Bye { pinned, switches } = channel.receive(timeout)? else {
        return Err(Error::Run(format!("{} did not say goodbye", channel.peer())));
    };
    let (interference, steal_ms) = reading.until_now(switches);
    environment.steal_ms = steal_ms;
    environment.clock.drift_ppm = clock::chosen().drift_ppm();
    environment.pinned.responder = pinned;
    environment.involuntary_context_switches =
        BothSides { initiator: interference.initiator.involuntary, responder: switches.involuntary };
    environment.interference = Some(interference);
    Ok((found, environment, memory))
}

/// The report, the latencies that stand for the run (of an open loop the responses), and the picture of its services.
fn assemble(
    plan: &Plan,
    open: &OpenDevice,
    found: Found,
    environment: Environment,
    memory: &'static str,
    sides: &'static str,
) -> (Report, Option<Latencies>, String) {
    let mut report = Report {
        schema: SCHEMA.into(),
        benchmark: plan.benchmark,
        op: plan.op,
        transport: plan.transport,
        device: open.name.clone(),
        profile: open.profile.clone(),
        size_bytes: plan.size,
        wait: plan.wait,
        inline: plan.inline,
        samples: 0,
        errors: 0,
        first_error: None,
        verified: false,
        verification: String::new(),
        messages_checked: 0,
        measures: None,
        one_way_ns: None,
        kind_of_loop: None,
        open_loop: None,
        distribution: Vec::new(),
        timeline: Vec::new(),
        floor: None,
        floor_missing: None,
        ratio_to_floor: None,
        bandwidth: None,
        warmup: 0,
        lead_in: 0,
        depth: plan.depth,
        post_list: plan.post_list,
        signal_every: plan.signal_every,
        memory: memory.into(),
        sides: sides.into(),
        link: plan.link.clone(),
        fault: plan.fault.clone(),
        seed: plan.seed,
        counters: open.device.counters().into_iter().map(|(name, count)| (name.into(), count)).collect(),
        environment,
    };
    match found {
        Found::Pingpong(outcome, floor) => {
            let picture = outcome.latencies.draw(crate::words::WIDTH);
            pingpong_report(&mut report, plan, &outcome, &floor);
            let responses = outcome.open_loop.as_ref().map(|open| open.responses().clone());
            (report, Some(responses.unwrap_or(outcome.latencies)), picture)
        }
        Found::Stream(outcome, beside) => {
            stream_report(&mut report, outcome, &beside);
            (report, None, String::new())
        }
    }
}

fn account(report: &mut Report, account: &Account) {
    report.errors = account.errors;
    report.first_error.clone_from(&account.first_error);
    report.messages_checked = account.checked;
}

fn pingpong_report(report: &mut Report, plan: &Plan, outcome: &pingpong::Outcome, floor: &Floor) {
    account(report, &outcome.account);
    let answered = !plan.op.is_one_sided();
    let expected = outcome.messages * if answered { 2 } else { 1 };
    report.samples = outcome.latencies.count();
    report.verified = report.errors == 0 && report.messages_checked == expected;
    report.verification = match (answered, plan.op.is_atomic()) {
        (true, _) => {
            format!("every byte of all {expected} messages in both directions, by the side that got them")
        }
        (false, false) => format!("every byte that each of {expected} reads brought"),
        (false, true) => {
            format!("the value that each of {expected} atomics returned, and the target's word after them")
        }
    };
    report.warmup = outcome.warmup;
    report.lead_in = outcome.lead_in;
    report.one_way_ns = outcome.latencies.summary();
    report.kind_of_loop = Some(if outcome.open_loop.is_some() { "open" } else { "closed" }.into());
    report.open_loop = outcome.open_loop.as_ref().and_then(OpenLoop::report);
    report.distribution = outcome.latencies.distribution();
    report.timeline.clone_from(&outcome.timeline);
    report.measures = Some(outcome.latencies.measures().name().into());
    report.floor_missing.clone_from(&floor.missing);
    if let Some(bounces) = floor.latencies()
        && let (Some(p50), Some(p99)) = (bounces.quantile_ns(0.5), bounces.quantile_ns(0.99))
    {
        report.floor = Some(FloorReport::Bounce {
            one_way_ns: FloorLatency { p50, p99 },
            samples: bounces.count(),
            carrier: floor.carrier().described().into(),
        });
        report.ratio_to_floor = report.one_way_ns.map(|summary| Ratio::Latency {
            p50: summary.p50 / p50,
            p99: summary.p99 / p99,
            p50_batch_by_batch: median(&outcome.ratios),
        });
    }
}

fn stream_report(report: &mut Report, outcome: stream::Outcome, beside: &Beside) {
    account(report, &outcome.account);
    report.samples = outcome.messages;
    report.verified = report.errors == 0 && report.messages_checked == outcome.to_check;
    report.verification = outcome.verification;
    report.warmup = outcome.warmup;
    report.timeline = outcome.timeline;
    let seconds = outcome.elapsed.as_secs_f64().max(1e-9);
    let bytes_per_s = outcome.messages as f64 * report.size_bytes as f64 / seconds;
    report.bandwidth = Some(Bandwidth {
        bytes_per_s,
        messages_per_s: outcome.messages as f64 / seconds,
        elapsed_s: seconds,
        sections: outcome.batches.len(),
        section_bytes_per_s: Spread {
            min: outcome.batches.iter().copied().fold(f64::INFINITY, f64::min),
            median: median(&outcome.batches).unwrap_or_default(),
            max: outcome.batches.iter().copied().fold(0.0, f64::max),
        },
    });
    let (rate, floor) = match beside {
        Beside::Memcpy(memcpy) => {
            (memcpy.median(), FloorReport::Memcpy { memcpy_bytes_per_s: memcpy.median().unwrap_or_default() })
        }
        Beside::Sockets(flood) => {
            report.floor_missing.clone_from(&flood.missing);
            (flood.median(), FloorReport::Sockets { sockets_bytes_per_s: flood.median().unwrap_or_default() })
        }
    };
    if let Some(rate) = rate.filter(|rate| *rate > 0.0) {
        report.floor = Some(floor);
        report.ratio_to_floor = Some(Ratio::Bytes {
            bytes_per_s: bytes_per_s / rate,
            section_by_section: median(&outcome.ratios),
        });
    } else if report.size_bytes == 0 {
        report.floor_missing = Some("messages without a byte have no bytes a second".into());
    }
}

/// Tells the peer that this side gives up, and finds out what the peer has to do with it.
fn give_up(channel: &mut Channel, error: Error) -> Error {
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

/// `--server`: one run for one client.
fn serve(flags: &Flags, also_ignored: Option<&'static str>) -> Result<u8> {
    signals::install()?;
    let mut ignored = flags.only_for_clients();
    ignored.extend(also_ignored);
    if !ignored.is_empty() {
        complain(&format!(
            "tbrdma-bench: note: {} is the client's choice and ignored here\n",
            ignored.join(", ")
        ));
    }
    let listener = Listener::bind(flags.server.as_deref().unwrap_or_default())?;
    if !flags.quiet {
        complain(&format!("tbrdma-bench: waiting for a client on {} (Ctrl-C ends)\n", listener.address()));
    }
    let mut channel = listener.accept(flags.timeout)?;
    let own = Choices {
        device: flags.device.clone(),
        core: flags.pin.map(|pins| pins.second.unwrap_or(pins.first)),
        capture: flags.capture.clone(),
    };
    let served =
        respond(&mut channel, &own, flags.timeout()).map_err(|error| give_up(&mut channel, error))?;
    if !flags.quiet {
        say(&format!(
            "served {} of {} x {} bytes for {}: {} messages checked, {} errors\n",
            served.plan.benchmark,
            served.plan.op,
            served.plan.size,
            channel.peer(),
            served.account.checked,
            served.account.errors
        ))?;
    }
    Ok(u8::from(served.account.errors > 0))
}

/// The hidden second process.
fn responder_process() -> Result<u8> {
    signals::install_in_child()?;
    let mut channel = peer::of_parent()?;
    match respond(&mut channel, &Choices::default(), BETWEEN_BATCHES) {
        Ok(_) => Ok(0),
        Err(error) => {
            // The parent tells the user; this process has nobody else to tell.
            give_up(&mut channel, error);
            Ok(1)
        }
    }
}

/// What a responder chooses for itself.
#[derive(Debug, Default)]
struct Choices {
    device: Option<String>,
    core: Option<usize>,
    capture: Option<PathBuf>,
}

/// What a responder did.
struct Served {
    plan: Plan,
    account: Account,
}

enum Part {
    Pingpong(Pingpong),
    Stream(Stream),
}

fn respond(channel: &mut Channel, own: &Choices, timeout: Duration) -> Result<Served> {
    let hello = channel.greet(timeout)?;
    channel.set_peer(format!("{} (process {})", channel.peer(), hello.pid));
    let plan = match channel.receive(timeout)? {
        Message::Plan(plan) => plan,
        other => return Err(channel.unexpected(&other, "`plan`")),
    };
    plan.validate()?;
    let device = own.device.as_deref().unwrap_or(&plan.device);
    let open = session::open(device, &plan, Role::Responder, own.capture.as_deref())?;
    let core = own.core.or(plan.pin_responder);
    if let Some(core) = core {
        affinity::pin(core)?;
    }
    let (session, _): (Session, Endpoint) = Session::establish(&open, &plan, Role::Responder, channel)?;
    let watch = session.watch.clone();
    let way = way(&open, &session);
    let mut part = match plan.benchmark {
        Benchmark::Pingpong => Part::Pingpong(Pingpong::new(session)?),
        Benchmark::Bw | Benchmark::Rate => Part::Stream(Stream::new(session)?),
    };
    match &part {
        Part::Pingpong(pingpong) => pingpong.session().meet(channel)?,
        Part::Stream(stream) => stream.session().meet(channel)?,
    }
    let tally = Tally::now();
    let mut total = Account::default();
    loop {
        match channel.receive(BETWEEN_BATCHES.max(timeout))? {
            Message::Go(go) => {
                let account = match &mut part {
                    Part::Pingpong(pingpong) => pingpong.respond(go)?,
                    Part::Stream(stream) => stream.respond(go, channel)?,
                };
                total.add(&account);
                channel.send(&Message::Done(account))?;
            }
            Message::Floor(offer) => floor::memory::respond(offer, channel, &watch)?,
            Message::SocketFloor(offer) => floor::sockets::respond(offer, way.as_ref(), channel, &watch)?,
            Message::Finish => {
                channel.send(&Message::Bye { pinned: core, switches: Tally::now().since(tally) })?;
                return Ok(Served { plan, account: total });
            }
            other => return Err(channel.unexpected(&other, "`go`, `floor` or `finish`")),
        }
    }
}
