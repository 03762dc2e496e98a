//! `tbrdma-bench stress`: what a connection bears, and how it gets over it.
//!
//! A [`plan`] says what is sent, and in phases what goes wrong: with packets (the fault plan of each side's device has a stage for each phase), with the
//! receiver, with the machine. The run ([`drive`], on the two adapters of [`world`]) is one thread that does both sides' part, so on a simulated network
//! it is the same in every run, to the bit. Of every phase there is the distribution, what the transport did, whether it recovered, and whether what the
//! plan expects came about ([`judge`]). [`result`] is all of that as a value; [`text`] and [`rows`] say it to people and to tables.

pub mod drive;
mod flow;
pub mod hogs;
pub mod judge;
mod outputs;
pub mod plan;
pub mod quantity;
pub mod result;
pub mod rows;
pub mod shipped;
pub mod text;
pub mod world;

use std::path::{Path, PathBuf};

use clap::Args;

pub use plan::parse;

use crate::affinity;
use crate::environment::Environment;
use crate::error::{Context, Error, Result};
use crate::{say, signals};
use outputs::Outputs;
use plan::Plan;
use result::StressReport;
use world::{Place, World};

/// Examples of the command line.
pub const EXAMPLES: &str = "\
Examples:
  tbrdma-bench stress --list                      the plans that are here
  tbrdma-bench stress cable-pull                  at once, in virtual time
  tbrdma-bench stress cable-pull --device udp:lo  in real time, over UDP sockets
  tbrdma-bench stress lossy-wan --seed 7 --json wan.json
  tbrdma-bench report wan.json -o wan.html        what went wrong when is shaded
  tbrdma-bench stress --show cable-pull > my.toml plans are TOML: change it, and
  tbrdma-bench stress my.toml

Exit codes: 0 everything that the plan expects came about; 1 something did not,
or bytes were wrong; 2 it cannot be told: wrong flags, a wrong plan, a device
that cannot do what the plan asks, or a machine that is too busy.";

/// The flags.
#[derive(Debug, Clone, Default, Args)]
pub struct Flags {
    /// A plan: one of --list, or a TOML file
    #[arg(value_name = "PLAN", required_unless_present_any = ["list", "show"])]
    pub plan: Option<String>,
    /// The plans that come with the program
    #[arg(long)]
    pub list: bool,
    /// The text of one of these
    #[arg(long, value_name = "NAME")]
    pub show: Option<String>,
    /// Device of both sides [default: sim, in virtual time]
    #[arg(long, value_name = "NAME")]
    pub device: Option<String>,
    /// What it pretends to be: plain, rxe, connectx, apple-tb5, perhaps with switches behind commas
    #[arg(long, value_name = "PROFILE")]
    pub profile: Option<String>,
    /// Where the dice start [default: the plan's seed]
    #[arg(long, value_name = "N")]
    pub seed: Option<u64>,
    /// One line in place of the report
    #[arg(long)]
    pub quiet: bool,
    /// Also write the result to this file, by the schema tbrdma-stress/1; - is standard output
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
    /// Also add a row for each phase to this file; - is standard output
    #[arg(long, value_name = "FILE")]
    pub csv: Option<PathBuf>,
    /// Also write the percentiles of all responses to this file, as HdrHistogram's tools plot them
    #[arg(long, value_name = "FILE")]
    pub hgrm: Option<PathBuf>,
}

/// Does what the flags ask; the exit code.
///
/// # Errors
/// There is no such plan, the device cannot do what it asks, or a file cannot be written.
pub fn run(flags: &Flags) -> Result<u8> {
    if flags.list {
        return say(&shipped::list()).map(|()| 0);
    }
    if let Some(name) = &flags.show {
        let text = shipped::find(name).ok_or_else(|| Error::Usage(shipped::unknown(name)))?;
        return say(text).map(|()| 0);
    }
    let plan = read(flags.plan.as_deref().unwrap_or_default())?;
    signals::install()?;
    let outputs = Outputs::prepare(flags)?;
    let place = Place {
        device: flags.device.clone().unwrap_or_else(|| "sim".into()),
        profile: flags.profile.clone(),
        seed: flags.seed.unwrap_or(plan.seed),
    };
    let report = measure(&plan, &place)?;
    match outputs.write(&report)? {
        Some(asked_for) => say(&asked_for)?,
        None => say(&if flags.quiet { text::line(&report) } else { text::full(&report) })?,
    }
    Ok(report.verdict.exit_code())
}

/// The plan of this name, or of this file.
///
/// # Errors
/// There is none, or it makes no sense.
pub fn read(name: &str) -> Result<Plan> {
    let path = Path::new(name);
    let text = match shipped::find(name) {
        Some(text) => text.to_owned(),
        None if !path.exists() => return Err(Error::Usage(shipped::unknown(name))),
        None => std::fs::read_to_string(path).context(|| format!("read the plan {name}"))?,
    };
    parse(&text).map_err(|reason| Error::Usage(format!("the plan {name}: {reason}")))
}

/// Runs a plan on a device.
///
/// # Errors
/// The device cannot do what the plan asks, a verbs call failed, or the user interrupted.
pub fn measure(plan: &Plan, place: &Place) -> Result<StressReport> {
    let world = World::open(plan, place)?;
    let (profile, is_virtual) = (world.ours.device.profile().to_string(), world.is_virtual);
    let environment =
        (!is_virtual).then(|| Ok(Environment::survey(None, &affinity::allowed()?))).transpose()?;
    let found = drive::run(plan, world)?;
    let mut report = StressReport::new(plan, place, profile, is_virtual, &found)?;
    report.environment = environment;
    Ok(report)
}
