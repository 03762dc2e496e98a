//! `tbrdma-bench sweep`: a measurement with every combination of what is varied, as one table.
//!
//! Each combination is a cell: a whole result of its own, measured by a process of its own. One that cannot be is a row with its reason.

mod cells;
mod outputs;

use std::fmt::Write as _;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use clap::{Args, ValueEnum};
use serde::{Deserialize, Serialize};

use crate::child::{self, Measured};
use crate::columns::Columns;
use crate::error::{Context, Error, Result};
use crate::histogram::nanoseconds;
use crate::outputs::WholeFile;
use crate::plan::Benchmark;
use crate::progress::Progress;
use crate::report::bytes;
use crate::result::{Ratio, Report};
use crate::{complain, say, signals};
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
  tbrdma-bench sweep rate --vary signal-every=1,16,64 --json rate.json --csv rate.csv
  tbrdma-bench sweep pingpong --vary fault=loss=1% --vary fault=loss=5% -- --seed 7 --device sim
  tbrdma-bench report rate.json -o page.html            every cell on a page

4k..1M is 4k, 8k, 16k and so on, doubled. --vary takes any flag of the measurement, and what is
behind -- goes to every cell. Cells that cannot be measured are rows that say why.

Exit codes: 0 measured, and every byte was right; 1 some were wrong, or nothing could be measured;
2 wrong flags; 130 interrupted, with what was measured by then.";

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
    /// Also write all results to this file, by the schema tbrdma-bench-sweep/1; - is standard output
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
    /// Also write a row a cell to this file; - is standard output
    #[arg(long, value_name = "FILE")]
    pub csv: Option<PathBuf>,
    /// No progress bar, and no table
    #[arg(long)]
    pub quiet: bool,
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
    let is_stdout = |path: &PathBuf| path.as_os_str() == "-";
    if [&flags.json, &flags.csv].into_iter().all(|path| path.as_ref().is_some_and(is_stdout)) {
        return Err(Error::Usage("--json and --csv cannot both go to standard output: name files".into()));
    }
    let prepare = |flag, path: &Option<PathBuf>| {
        path.as_ref().filter(|path| !is_stdout(path)).map(|path| WholeFile::prepare(flag, path)).transpose()
    };
    let axes = cells::axes(flags)?;
    let planned = cells::planned(flags, &axes)?;
    let (json, csv) = (prepare("--json", &flags.json)?, prepare("--csv", &flags.csv)?);
    let sweep = measure(flags, axes, planned)?;
    let to_json = || {
        let text = serde_json::to_string_pretty(&sweep).context(|| "encode the results".into())?;
        Ok::<_, Error>(text + "\n")
    };
    if let Some(file) = json {
        file.write(&to_json()?)?;
    }
    if let Some(file) = csv {
        file.write(&outputs::csv(&sweep))?;
    }
    match (&flags.json, &flags.csv) {
        (Some(path), _) if is_stdout(path) => say(&to_json()?)?,
        (_, Some(path)) if is_stdout(path) => say(&outputs::csv(&sweep))?,
        _ if flags.quiet => {}
        _ => say(&sweep.table())?,
    }
    sweep.conclude()
}

/// Measures cell after cell, until the last or until the user has enough.
fn measure(flags: &Flags, axes: Vec<Axis>, planned: Vec<Cell>) -> Result<Sweep> {
    let most = flags.each.unwrap_or_default() * 4 + BESIDES;
    let progress = Progress::called("sweep", flags.quiet);
    let (begun, total) = (Instant::now(), planned.len());
    let mut sweep = Sweep {
        schema: SCHEMA.into(),
        benchmark: flags.what.into(),
        axes,
        cells: Vec::new(),
        interrupted: false,
    };
    for (done, mut cell) in planned.into_iter().enumerate() {
        progress.note(format!(
            "{} of {total}: {}{}",
            done + 1,
            cell.name,
            left(begun.elapsed(), done, total)
        ));
        let Measured { report, reason } = match child::measure(&cell.arguments, most) {
            Err(Error::Interrupted) => {
                sweep.interrupted = true;
                break;
            }
            measured => measured?,
        };
        (cell.report, cell.reason) = (report, reason);
        sweep.cells.push(cell);
        progress.done((done + 1) as f64 / total as f64);
    }
    Ok(sweep)
}

/// About how long the rest takes, from how long it took so far.
fn left(elapsed: Duration, done: usize, total: usize) -> String {
    let Some(each) = u32::try_from(done).ok().and_then(|done| elapsed.checked_div(done)) else {
        return String::new();
    };
    let left = each.saturating_mul(u32::try_from(total - done).unwrap_or(u32::MAX)).as_secs();
    format!(", about {}:{:02} left", left / 60, left % 60)
}

impl Sweep {
    /// The table.
    #[must_use]
    pub fn table(&self) -> String {
        let varied: Vec<usize> = (0..self.axes.len())
            .filter(|at| self.axes.get(*at).is_some_and(|axis| axis.values.len() > 1 || self.axes.len() == 1))
            .collect();
        let of = |values: &[String]| -> Vec<String> {
            varied.iter().filter_map(|at| values.get(*at).cloned()).collect()
        };
        let names: Vec<String> = self.axes.iter().map(|axis| axis.flag.clone()).collect();
        let figures: &[&str] = match self.benchmark {
            Benchmark::Pingpong => &["p50", "p99", "p99.9", "max", "x floor", "samples"],
            Benchmark::Bw => &["bytes/s", "messages/s", "x floor", "messages"],
            Benchmark::Rate => &["messages/s", "bytes/s", "x floor", "messages"],
        };
        let labels = of(&names);
        let mut columns = Columns::new(labels.iter().map(String::as_str), figures.iter().copied());
        for cell in &self.cells {
            let labels = of(&cell.values);
            match (&cell.report, &cell.reason) {
                (Some(report), None) => columns.row(labels.into_iter().chain(figures_of(report))),
                (_, reason) => columns.row_of_words(labels, reason.clone().unwrap_or_default()),
            }
        }
        self.head() + &columns.text()
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
        let mut head = String::new();
        crate::words::fold(&mut head, 0, &text);
        head.push('\n');
        head
    }

    fn conclude(&self) -> Result<u8> {
        let wrong = |cell: &&Cell| cell.report.as_ref().is_some_and(|report| !report.verified);
        if self.interrupted {
            complain(&format!("tbrdma-bench: interrupted after {} cells\n", self.cells.len()));
            return Ok(Error::Interrupted.exit_code());
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
