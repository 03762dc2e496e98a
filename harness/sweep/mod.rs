//! `tbrdma-bench sweep`: a measurement with every combination of what is varied, as one table.
//!
//! Each combination is a cell: a whole result of its own, measured by a process of its own. One that cannot be is a row with its reason.

mod cells;
mod outputs;

use std::fmt::Write as _;
use std::time::{Duration, Instant};

use clap::{Args, ValueEnum};
use serde::{Deserialize, Serialize};

use crate::child::{self, Measured};
use crate::columns::Columns;
use crate::error::{Error, Result};
use crate::grid::Grid;
use crate::histogram::nanoseconds;
use crate::many::{OutputFlags, Outputs, interrupted};
use crate::plan::Benchmark;
use crate::progress::Progress;
use crate::report::bytes;
use crate::result::{Ratio, Report};
use crate::signals;
pub use cells::Axis;

/// Name and version of the contract of `--json`: `harness/schema/tbrdma-bench-sweep-1.json`.
pub const SCHEMA: &str = "tbrdma-bench-sweep/1";
/// What a cell may take besides its messages: devices are opened, floors measured, bytes checked.
const BESIDES: Duration = Duration::from_secs(120);

/// What `--help` ends with.
pub const EXAMPLES: &str = "\
Examples:
  tbrdma-bench sweep pingpong --sizes 8,64,4k,64k --device shm --device udp:lo
  tbrdma-bench sweep pingpong --ops send,write --transports rc,uc --each 1s
  tbrdma-bench sweep bw --sizes 4k..1M --depths 1,16,128 --post-lists 1,32
  tbrdma-bench sweep rate --vary signal-every=1,16,64 --json rate.json
  tbrdma-bench sweep pingpong --device sim --vary fault=loss=1% -- --seed 7
  tbrdma-bench report rate.json -o page.html            every cell on a page

4k..1M is 4k, 8k, 16k and so on, doubled. --vary takes any flag of the
measurement, and what is behind -- goes to every cell. Cells that cannot be
measured are rows that say why.

Exit codes: 0 measured, and every byte was right; 1 some were wrong, or nothing
could be measured; 2 wrong flags; 130 interrupted, with what was measured.";

/// Which measurement is varied.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum What {
    /// Latency: one message at a time, there and back
    Pingpong,
    /// Bandwidth in one direction
    Bw,
    /// Message rate in one direction
    Rate,
}

impl From<What> for Benchmark {
    fn from(what: What) -> Self {
        match what {
            What::Pingpong => Self::Pingpong,
            What::Bw => Self::Bw,
            What::Rate => Self::Rate,
        }
    }
}

/// Flags of `sweep`.
#[derive(Debug, Clone, Args)]
pub struct Flags {
    /// What is measured
    #[arg(value_enum)]
    pub what: What,
    /// Bytes in a message: values between commas, of which A..B is A doubled up to B
    #[arg(long, value_name = "LIST")]
    pub sizes: Option<String>,
    /// Most work requests outstanding, likewise
    #[arg(long, value_name = "LIST")]
    pub depths: Option<String>,
    /// Work requests per post, likewise
    #[arg(long, value_name = "LIST")]
    pub post_lists: Option<String>,
    /// Verbs, between commas
    #[arg(long, value_name = "LIST")]
    pub ops: Option<String>,
    /// Transport services, between commas
    #[arg(long, value_name = "LIST")]
    pub transports: Option<String>,
    /// A device; several times for several [default: shm]
    #[arg(long, value_name = "NAME")]
    pub device: Vec<String>,
    /// Any other flag of the measurement with its values, as memory=library,adopted; of profile, link and fault one value, several times
    #[arg(long, value_name = "FLAG=LIST")]
    pub vary: Vec<String>,
    /// How long each cell measures [default: 300ms; of a simulated device a thousand messages]
    #[arg(long, value_name = "TIME", value_parser = crate::cli::parse_duration, conflicts_with = "iters")]
    pub each: Option<Duration>,
    /// Messages that each cell measures
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub iters: Option<u64>,
    /// Where results go besides the terminal.
    #[command(flatten)]
    pub outputs: OutputFlags,
    /// Further flags for every cell
    #[arg(last = true, value_name = "FLAGS")]
    pub rest: Vec<String>,
}

/// All results.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Sweep {
    /// [`SCHEMA`].
    pub schema: String,
    /// Which measurement.
    pub benchmark: Benchmark,
    /// What was varied, in the order of the table's columns.
    pub axes: Vec<Axis>,
    /// Every combination, the last axis changing fastest.
    pub cells: Vec<Cell>,
    /// Was it ended before the last cell?
    pub interrupted: bool,
    /// The same for people.
    #[serde(default)]
    pub tables: Vec<Grid>,
}

/// A combination.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Cell {
    /// Its values, between blanks.
    pub name: String,
    /// One of each axis.
    pub values: Vec<String>,
    /// The arguments that measure it again.
    pub arguments: Vec<String>,
    /// Its result.
    pub report: Option<Box<Report>>,
    /// Why there is none, or none that is to be trusted.
    pub reason: Option<String>,
}

/// Does what the flags ask; the exit code.
///
/// # Errors
/// The flags make no sense, a file cannot be written, or the user interrupted.
pub fn run(flags: &Flags) -> Result<u8> {
    signals::install()?;
    let axes = cells::axes(flags)?;
    let planned = cells::planned(flags, &axes)?;
    let outputs = Outputs::prepare(&flags.outputs)?;
    let mut sweep = measure(flags, axes, planned)?;
    sweep.tables = vec![sweep.grid()];
    outputs.write(&sweep, || outputs::csv(&sweep), || sweep.table())?;
    sweep.conclude()
}

/// Measures cell after cell, until the last or until the user has enough.
fn measure(flags: &Flags, axes: Vec<Axis>, planned: Vec<Cell>) -> Result<Sweep> {
    let most = flags.each.unwrap_or_default() * 4 + BESIDES;
    let progress = Progress::called("sweep", flags.outputs.quiet);
    let (begun, total) = (Instant::now(), planned.len());
    let mut sweep = Sweep {
        schema: SCHEMA.into(),
        benchmark: flags.what.into(),
        axes,
        cells: Vec::new(),
        interrupted: false,
        tables: Vec::new(),
    };
    for (done, mut cell) in planned.into_iter().enumerate() {
        progress.step(done, total, begun, &cell.name);
        let Measured { report, reason } = match child::measure(&cell.arguments, most) {
            Err(Error::Interrupted) => {
                sweep.interrupted = true;
                break;
            }
            measured => measured?,
        };
        (cell.report, cell.reason) = (report, reason);
        sweep.cells.push(cell);
    }
    Ok(sweep)
}

impl Sweep {
    /// The axes that the table has columns of: those with several values.
    fn varied(&self) -> Vec<usize> {
        let is_varied = |axis: &Axis| axis.values.len() > 1 || self.axes.len() == 1;
        (0..).zip(&self.axes).filter(|(_, axis)| is_varied(axis)).map(|(at, _)| at).collect()
    }

    fn labels(&self) -> Vec<&str> {
        self.varied().iter().filter_map(|at| self.axes.get(*at)).map(|axis| axis.flag.as_str()).collect()
    }

    fn figures(&self) -> &'static [&'static str] {
        match self.benchmark {
            Benchmark::Pingpong | Benchmark::Replay => &["p50", "p99", "p99.9", "max", "x floor", "samples"],
            Benchmark::Bw => &["bytes/s", "messages/s", "x floor", "messages"],
            _ => &["messages/s", "bytes/s", "x floor", "messages"],
        }
    }

    /// What a row begins with, and its figures or why it has none.
    fn row(&self, cell: &Cell) -> (Vec<String>, Result<Vec<String>, String>) {
        let labels = self.varied().iter().filter_map(|at| cell.values.get(*at).cloned()).collect();
        match (&cell.report, &cell.reason) {
            (Some(report), None) => (labels, Ok(figures_of(report))),
            (_, reason) => (labels, Err(reason.clone().unwrap_or_default())),
        }
    }

    /// The table.
    #[must_use]
    pub fn table(&self) -> String {
        let mut columns = Columns::new(self.labels(), self.figures().iter().copied());
        for cell in &self.cells {
            match self.row(cell) {
                (labels, Ok(figures)) => columns.row(labels.into_iter().chain(figures)),
                (labels, Err(reason)) => columns.row_of_words(labels, reason),
            }
        }
        let mut head = String::new();
        crate::words::fold(&mut head, 0, &self.head());
        format!("{head}\n{}", columns.text())
    }

    /// The same for the page.
    fn grid(&self) -> Grid {
        let names = self.labels().into_iter().chain(self.figures().iter().copied());
        let row = |cell: &Cell| {
            let (labels, told) = self.row(cell);
            labels.into_iter().chain(told.unwrap_or_else(|reason| vec![reason])).collect()
        };
        Grid {
            caption: self.head(),
            columns: names.map(str::to_owned).collect(),
            rows: self.cells.iter().map(row).collect(),
        }
    }

    /// What all cells have in common.
    fn head(&self) -> String {
        let mut text = format!("sweep of {}: {} cells", self.benchmark, self.cells.len());
        for axis in self.axes.iter().filter(|axis| axis.values.len() == 1) {
            let _ = write!(text, ", {} {}", axis.flag, axis.values.concat());
        }
        if self.benchmark == Benchmark::Pingpong {
            text.push_str(
                "; closed loop unless --rate; one way, but of read, cas and faa the whole operation",
            );
        }
        text
    }

    fn conclude(&self) -> Result<u8> {
        let wrong = |cell: &&Cell| cell.report.as_ref().is_some_and(|report| !report.verified);
        if self.interrupted {
            return Ok(interrupted(self.cells.len()));
        }
        if let Some(cell) = self.cells.iter().find(wrong) {
            let reason = cell.reason.as_deref().unwrap_or("not all messages were checked");
            return Err(Error::Run(format!("the cell {}: {reason}", cell.name)));
        }
        match self.cells.iter().find(|cell| cell.report.is_some()) {
            Some(_) => Ok(0),
            None => Err(Error::Run(format!(
                "none of {} cells could be measured, of which the first says: {}",
                self.cells.len(),
                self.cells.first().and_then(|cell| cell.reason.as_deref()).unwrap_or_default()
            ))),
        }
    }
}

/// A result's figures, as the table has them.
fn figures_of(report: &Report) -> Vec<String> {
    let ratio = match report.ratio_to_floor {
        Some(Ratio::Latency { p50, .. }) => format!("{p50:.2}"),
        Some(Ratio::Bytes { bytes_per_s, .. }) => format!("{bytes_per_s:.2}"),
        None => "-".into(),
    };
    let samples = report.samples.to_string();
    match (&report.one_way_ns, &report.bandwidth) {
        (Some(ns), _) => {
            let [p50, p99, p99_9, max] = [ns.p50, ns.p99, ns.p99_9, ns.max].map(nanoseconds);
            vec![p50, p99, p99_9, max, ratio, samples]
        }
        (None, Some(bandwidth)) => {
            let (bytes, messages) = (bytes(bandwidth.bytes_per_s), thousands(bandwidth.messages_per_s));
            match report.benchmark {
                Benchmark::Rate => vec![messages, bytes, ratio, samples],
                _ => vec![bytes, messages, ratio, samples],
            }
        }
        (None, None) => Vec::new(),
    }
}

/// A number of messages, short enough for a column.
fn thousands(count: f64) -> String {
    match count {
        _ if count >= 1e6 => format!("{:.3} M", count / 1e6),
        _ if count >= 1e4 => format!("{:.1} k", count / 1e3),
        _ => format!("{count:.0}"),
    }
}
