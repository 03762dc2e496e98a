//! `tbrdma-bench replay`: the requests that a program once posted, posted again on any device, with their timing or as fast as possible.
//!
//! The trace is what `tbrdma-run --trace` (or `tbrdma-bench record`) has written of one process. Its queue pairs are made again, each connected to
//! one of a responder of ours, which posts receives as they are used up. What is kept is what was posted: operation, size, transport, doorbells,
//! signalling, inline data, fences, and when. What is not: addresses and bytes (ours are checked), who the program spoke with, what it received, and
//! that it perhaps waited for an answer before it posted the next request, but for the time that this took.
//!
//! | file | what |
//! |---|---|
//! | `trace` | reading a trace |
//! | `workload` | its requests, made to fit a device; where their bytes lie |
//! | `bytes`, `side` | what both sides have: bytes, verbs objects |
//! | `initiate`, `respond` | the two sides |
//! | `figures`, `result` | latencies beside those of the trace; what is told of them |

pub mod bytes;
pub mod figures;
pub mod initiate;
pub mod respond;
mod result;
mod side;
pub mod trace;
pub mod workload;

use std::fs::File;
use std::io::BufReader;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use crate::clock::Source;
use crate::control::{Account, Channel, Go, Message, Phase};
use crate::environment::{BothSides, Environment};
use crate::error::{Context, Error, Result};
use crate::interference::{Reading, Tally};
use crate::outputs::WholeFile;
use crate::plan::{Benchmark, Memory, Op, Plan};
use crate::progress::Progress;
use crate::session::{self, OpenDevice, Role};
use crate::{affinity, cli, clock, run as runs, say, signals};
use figures::Figures;
use initiate::{Initiator, Timing};
use respond::Responder;
pub use result::{Replay, SCHEMA};
use trace::Trace;
use workload::{Limits, Outline, Workload};

/// What `--help` ends with.
pub const EXAMPLES: &str = "\
Examples:
  tbrdma-run --trace calls.txt -- ib_send_lat 192.0.2.1
  tbrdma-bench replay calls.txt                    with its timing, over shm
  tbrdma-bench replay calls.txt --fast             as fast as possible
  tbrdma-bench replay calls.txt --device udp:lo --json replay.json
  tbrdma-bench replay calls.txt --device sim --link 100Gbps,2us
  tbrdma-bench pingpong --server                   on the other host, and here:
  tbrdma-bench replay calls.txt --connect HOST --device mlx5_0

Exit codes: 0 replayed, and every byte was right; 1 something failed;
2 wrong flags, or nothing to replay; 130 interrupted.";

/// Flags of `replay`.
#[derive(Debug, Clone, Args)]
pub struct Flags {
    /// The trace, of one process
    pub trace: PathBuf,
    /// Post as soon as there is room, and not when the clock of the trace says
    #[arg(long)]
    pub fast: bool,
    /// Replay against a tbrdma-bench that was started with --server, there
    #[arg(long, value_name = "ADDR")]
    pub connect: Option<String>,
    /// Device to open [default: shm]
    #[arg(long, value_name = "NAME")]
    pub device: Option<String>,
    /// What the devices of both sides pretend to be
    #[arg(long, value_name = "PROFILE")]
    pub profile: Option<String>,
    /// How fast the link is: a rate, a latency one way, or both, as 64Gbps,5us
    #[arg(long, value_name = "RATE,LATENCY")]
    pub link: Option<String>,
    /// What goes wrong with packets on the way, both ways, as loss=1%
    #[arg(long, value_name = "PLAN")]
    pub fault: Option<String>,
    /// Where the dice of --fault start [default: another one each run, and said]
    #[arg(long, value_name = "N")]
    pub seed: Option<u64>,
    /// Whose memory messages leave from and arrive in [default: library]
    #[arg(long, value_enum)]
    pub memory: Option<Memory>,
    /// Cores of initiator and responder [default: two of those allowed]
    #[arg(long, value_name = "A,B", value_parser = cli::parse_pins)]
    pub pin: Option<cli::Pins>,
    /// Which clock measures [default: auto]
    #[arg(long, value_enum)]
    pub clock: Option<Source>,
    /// Write the packets of this side to this file, as pcapng
    #[arg(long, value_name = "FILE")]
    pub capture: Option<PathBuf>,
    /// How long to wait for the other side before giving up [default: 10s]
    #[arg(long, value_name = "TIME", value_parser = cli::parse_duration)]
    pub timeout: Option<Duration>,
    /// Also write the result to this file, by the schema tbrdma-bench-replay/1; - is standard output
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
    /// Also write a row for each operation to this file; - is standard output
    #[arg(long, value_name = "FILE")]
    pub csv: Option<PathBuf>,
    /// Also write the percentiles of all latencies to this file, as HdrHistogram's tools plot them: responses, or services with --fast
    #[arg(long, value_name = "FILE")]
    pub hgrm: Option<PathBuf>,
    /// No progress bar, and one line instead of the table
    #[arg(long)]
    pub quiet: bool,
}

impl Flags {
    /// What they have in common with those of other measurements.
    fn common(&self) -> cli::Flags {
        cli::Flags {
            connect: self.connect.clone(),
            device: self.device.clone(),
            profile: self.profile.clone(),
            link: self.link.clone(),
            fault: self.fault.clone(),
            seed: self.seed,
            memory: self.memory,
            pin: self.pin,
            clock: self.clock,
            capture: self.capture.clone(),
            timeout: self.timeout,
            quiet: self.quiet,
            ..cli::Flags::default()
        }
    }

    fn timing(&self) -> Timing {
        if self.fast { Timing::Fast } else { Timing::Trace }
    }
}

/// Reads a trace.
///
/// # Errors
/// The file cannot be read, or is none.
pub fn read(path: &std::path::Path) -> Result<Trace> {
    let shown = path.display();
    let file = File::open(path).context(|| format!("open the trace {shown}"))?;
    Trace::read(BufReader::new(file)).map_err(|reason| Error::Usage(format!("the trace {shown}: {reason}")))
}

/// Does what the flags ask; the exit code.
///
/// # Errors
/// The trace makes no sense, a device or the other side fails, or bytes were wrong.
pub fn run(flags: &Flags) -> Result<u8> {
    signals::install()?;
    let files = [("--json", &flags.json), ("--csv", &flags.csv), ("--hgrm", &flags.hgrm)];
    let is_stdout = |path: &PathBuf| path.as_os_str() == "-";
    let to_stdout = files.iter().filter(|(_, path)| path.as_ref().is_some_and(is_stdout));
    let to_stdout: Vec<&str> = to_stdout.map(|(name, _)| *name).collect();
    if to_stdout.len() > 1 {
        return Err(Error::Usage(format!(
            "{} cannot all go to standard output: name files",
            to_stdout.join(" and ")
        )));
    }
    let mut prepared = Vec::new();
    for (name, path) in files {
        let file = path.as_ref().filter(|path| !is_stdout(path));
        prepared.push((name, file.map(|path| WholeFile::prepare(name, path)).transpose()?));
    }
    let trace = read(&flags.trace)?;
    let replayed = measure(flags, &trace)?;
    let text = |name: &str| match name {
        "--json" => replayed.to_json(),
        "--csv" => Ok(replayed.csv()),
        _ => replayed.percentiles(),
    };
    for (name, file) in prepared {
        if let Some(file) = file {
            file.write(&text(name)?)?;
        }
    }
    match to_stdout.first() {
        Some(name) => say(&text(name)?)?,
        None if flags.quiet => say(&replayed.line())?,
        None => say(&replayed.text())?,
    }
    replayed.conclude()
}

/// What a run found, before it is put together with where and how.
struct Found {
    figures: Figures,
    account: Account,
    lost: u64,
    environment: Environment,
    memory: &'static str,
}

fn measure(flags: &Flags, trace: &Trace) -> Result<Replay> {
    let common = flags.common();
    let mut plan = Plan { benchmark: Benchmark::Replay, ..common.plan(Benchmark::Rate, Op::Send)? };
    let allowed = affinity::allowed()?;
    let own_core = runs::choose_cores(&common, &mut plan, &allowed)?;
    let open = session::open_device(&plan.device, &plan, Role::Initiator, flags.capture.as_deref())?;
    let work = Workload::new(trace, &Limits::of(&open))?;
    let is_virtual = open.device.has_virtual_time();
    if is_virtual {
        plan.pin_responder = None;
    }
    let own_core = own_core.filter(|_| !is_virtual);
    let outline = Outline { plan, lanes: work.lanes.clone(), requests: work.items.len() as u64 };
    outline.validate()?;
    let replay = |channel: &mut Channel| initiate(flags, &open, &outline, &work, own_core, &allowed, channel);
    let (found, sides) = if is_virtual {
        (runs::in_turns(&common, &open, replay)?, runs::IN_TURNS)
    } else {
        let sides = if flags.connect.is_some() { "two programs" } else { runs::BY_THE_HARNESS };
        (runs::with_peer(&common, replay)?, sides)
    };
    Ok(Replay::new(flags, trace, &work, &outline.plan, &open, found, sides))
}

fn initiate(
    flags: &Flags,
    open: &OpenDevice,
    outline: &Outline,
    work: &Workload,
    own_core: Option<usize>,
    allowed: &[usize],
    channel: &mut Channel,
) -> Result<Found> {
    let timeout = Duration::from_millis(outline.plan.timeout_ms);
    let progress = Progress::new(Benchmark::Replay, flags.quiet);
    progress.stage("connecting");
    let hello = channel.greet(timeout)?;
    if flags.connect.is_some() {
        channel.set_peer(format!("{} (process {})", channel.peer(), hello.pid));
    }
    channel.send(&Message::Replay(Box::new(outline.clone())))?;
    for requests in work.chunks() {
        channel.send(&Message::Requests { requests })?;
    }
    if let Some(core) = own_core {
        affinity::pin(core)?;
    }
    clock::choose(flags.clock.unwrap_or_default());
    let mut environment = Environment::survey(own_core, allowed);
    let initiator = Initiator::new(open, outline, work, channel)?;
    let memory = initiator.memory();
    let reading = Reading::now(own_core);
    progress.stage("replaying");
    let (figures, mut account) = initiator.run(flags.timing(), &progress)?;
    channel.send(&Message::Go(Go {
        phase: Phase::CheckSlots,
        first: 0,
        count: outline.requests,
        flow: 0,
    }))?;
    let lost = match channel.receive(timeout)? {
        Message::Replayed { account: theirs, lost } => {
            account.add(&theirs);
            lost
        }
        other => return Err(channel.unexpected(&other, "`replayed`")),
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
    Ok(Found { figures, account, lost, environment, memory })
}

/// The responder's part, from the outline on, with what the responder chooses itself.
///
/// # Errors
/// The outline makes no sense, a verbs call failed, or the peer went away.
pub fn answer(
    channel: &mut Channel,
    outline: &Outline,
    (device, core, capture): (Option<&str>, Option<usize>, Option<&std::path::Path>),
    timeout: Duration,
) -> Result<Account> {
    let known = respond::requests(outline, channel, timeout)?;
    let name = device.map_or_else(|| session::other_end(&outline.plan.device), str::to_owned);
    let open = session::open_device(&name, &outline.plan, Role::Responder, capture)?;
    let core = core.or(outline.plan.pin_responder);
    if let Some(core) = core {
        affinity::pin(core)?;
    }
    let mut responder = Responder::new(&open, outline, &known, channel)?;
    let tally = Tally::now();
    let (account, lost) = responder.run(channel)?;
    channel.send(&Message::Replayed { account: account.clone(), lost })?;
    match channel.receive(timeout)? {
        Message::Finish => {}
        other => return Err(channel.unexpected(&other, "`finish`")),
    }
    channel.send(&Message::Bye { pinned: core, switches: Tally::now().since(tally) })?;
    Ok(account)
}
