//! The order of a run, on both sides.

mod assemble;
mod initiate;
mod respond;

use std::time::Duration;

use crate::cli::{Command, Flags};
use crate::error::{Error, Result};
use crate::open_loop::Pace;
use crate::outputs::Outputs;
use crate::plan::{Benchmark, Plan};
use crate::{
    compare, devices, doctor, gate, idle, ledger, manual, mixed, page, peers, ranks, record, replay, report,
    say, signals, soak, stress, sweep, walk,
};
pub use assemble::begun;
pub(crate) use initiate::choose_cores;
pub use initiate::{Measured, in_turns, measure_once, with_peer};
use respond::responder_process;
pub use respond::serve;

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
        Command::Stress(flags) => stress::run(&flags),
        Command::Sweep(flags) => sweep::run(&flags),
        Command::Peers(flags) => peers::run(&flags),
        Command::PlainResponder(flags) => peers::respond(&flags),
        Command::Soak(flags) => soak::run(&flags),
        Command::Walk(flags) => walk::run(&flags),
        Command::ReadProcess { pid, address } => {
            say(&format!("{}\n", doctor::kernel::read_process(pid, address))).map(|()| 0)
        }
        Command::TryDevices => doctor::probes::try_devices().map(|()| 0),
        Command::Completions(flags) => manual::completions(&flags).map(|()| 0),
        Command::Man(flags) => manual::run(&flags).map(|()| 0),
        Command::Replay(flags) => replay::run(&flags),
        Command::Record(flags) => record::run(&flags),
        Command::Responder => responder_process(),
        Command::Incast(flags) => ranks::run(&flags, Benchmark::Incast, None),
        Command::Mesh(flags) => ranks::run(&flags, Benchmark::Mesh, None),
        Command::Allreduce(all) => ranks::run(
            &all.flags,
            Benchmark::Allreduce,
            Some(all.algorithm.unwrap_or(ranks::plan::Algorithm::Mesh)),
        ),
        Command::Idle(flags) => idle::run(&flags),
        Command::Mixed(flags) => mixed::run(&flags),
        Command::Rank { rank, ranks } => ranks::start::process(rank, ranks),
        Command::Pingpong(pingpong) if pingpong.flags.server.is_some() => {
            let rate = pingpong.pace.rate.map(|_| "--rate");
            let like = pingpong.like.map(|_| "--like");
            serve(&pingpong.flags, rate.into_iter().chain(like).chain(pingpong.lanes.only_for_clients()))
        }
        Command::Pingpong(pingpong) => measure(&pingpong.flags, pingpong.plan()?, pingpong.pace()?),
        Command::Bw(stream) if stream.flags.server.is_some() => {
            serve(&stream.flags, stream.lanes.only_for_clients())
        }
        Command::Bw(stream) => measure(&stream.flags, stream.plan(Benchmark::Bw)?, None),
        Command::Rate(stream) if stream.flags.server.is_some() => {
            serve(&stream.flags, stream.lanes.only_for_clients())
        }
        Command::Rate(stream) => measure(&stream.flags, stream.plan(Benchmark::Rate)?, None),
    }
}

/// The initiator: a run, and what is told of it.
///
/// # Errors
/// As [`measure_once`] and [`conclude`].
pub fn measure(flags: &Flags, plan: Plan, pace: Option<Pace>) -> Result<u8> {
    signals::install()?;
    let outputs = Outputs::prepare(&flags.outputs, plan.benchmark)?;
    conclude(flags, outputs, &measure_once(flags, plan, pace)?)
}

/// Tells of a run; the exit code.
///
/// # Errors
/// Results cannot be written, or bytes were wrong.
pub fn conclude(flags: &Flags, outputs: Outputs, measured: &Measured) -> Result<u8> {
    let Measured { report, latencies, picture } = measured;
    match (outputs.write(report, latencies.as_ref())?, flags.quiet) {
        (Some(asked_for), _) => say(&asked_for)?,
        (None, true) => say(&report::line(report))?,
        (None, false) => say(&report::full(report, picture))?,
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
