//! `tbrdma-bench compare`: whether one program is quicker than another, by results of both, or whether that is noise.
//!
//! A run has many samples and still is one run: what moves all of it (a hypervisor that moves the cores, a neighbour) is not in its samples. So
//! each figure is divided by the floor that was measured beside it. Of one run of either side, stretches are drawn anew in blocks, because what is
//! slow at a moment is slow at the next: a floor that moved much makes a wide interval. Of four and more, taken in turns, pairs are drawn anew, and what they
//! differ by says how much runs differ. A change is one if its interval leaves zero out and it is larger than what two runs of one program may differ by, the
//! margin.

mod outputs;
pub mod statistics;

use std::fmt;
use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::container;
use crate::counts::{Count, Counts};
use crate::error::{Context, Error, Result};
use crate::outputs::WholeFile;
use crate::plan::Benchmark;
use crate::result::{FloorReport, Report};
use crate::{idle, mixed, say};
use statistics::{Pair, Run, change, quantile, summarise};

/// By how much more the slowest of a hundred may differ than the median: a tail is made of fewer messages.
const TAIL: f64 = 4.0;

/// Flags of `compare`.
#[derive(Debug, Clone, clap::Args)]
pub struct Flags {
    /// The result to compare with: a file of --json, or a folder of such files, the results of several runs
    pub base: PathBuf,
    /// The result in question: a file, or a folder of as many, run in turns with those of BASE
    pub new: PathBuf,
    /// What the medians of two runs of one program may differ by, in percent; the slowest of a hundred may by four times as much
    #[arg(long, value_name = "PERCENT", default_value_t = 5.0, value_parser = percent)]
    pub margin: f64,
    /// Of the intervals, in percent
    #[arg(long, value_name = "PERCENT", default_value_t = 99.0, value_parser = percent)]
    pub confidence: f64,
    /// Where the dice of the bootstrap start
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub seed: u64,
    /// Also write the comparison to this file, by the schema tbrdma-compare/1; - is standard output, in place of the table
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
}

fn percent(text: &str) -> std::result::Result<f64, String> {
    match text.parse() {
        Ok(percent) if (0.0..100.0).contains(&percent) => Ok(percent),
        _ => Err("it must be a number of percent, 0 or more and less than 100".to_owned()),
    }
}

/// What a comparison says of a figure, or of all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// It differs by no more than two runs of one program may.
    Noise,
    /// It is better.
    Improvement,
    /// It is worse.
    Regression,
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Noise => "noise",
            Self::Improvement => "improvement",
            Self::Regression => "regression",
        })
    }
}

/// A figure that is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Metric {
    /// The median latency.
    P50,
    /// The slowest of a hundred.
    P99,
    /// Payload bytes per second.
    Bytes,
    /// Instructions of a message: of files of counts, no measurement has it.
    Instructions,
}

impl Metric {
    /// Those of a measurement.
    #[must_use]
    pub fn of(benchmark: Benchmark) -> &'static [Self] {
        match benchmark {
            Benchmark::Pingpong | Benchmark::Replay | Benchmark::Mixed | Benchmark::Idle => {
                &[Self::P50, Self::P99]
            }
            Benchmark::Bw | Benchmark::Rate => &[Self::Bytes],
            Benchmark::Incast | Benchmark::Mesh | Benchmark::Allreduce => {
                &[Self::P50, Self::P99, Self::Bytes]
            }
        }
    }

    /// As results name it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::P50 => "p50",
            Self::P99 => "p99",
            Self::Bytes => "bytes_per_s",
            Self::Instructions => "instructions",
        }
    }

    /// Whether more of it is better.
    #[must_use]
    pub fn more_is_better(self) -> bool {
        self == Self::Bytes
    }

    /// How much of the margin it has.
    fn leeway(self) -> f64 {
        if self == Self::P99 { TAIL } else { 1.0 }
    }

    /// The figure of a result, finer than the clock that measured it where it has the whole distribution.
    #[must_use]
    pub fn value(self, report: &Report) -> Option<f64> {
        let summary = report.one_way_ns;
        match self {
            Self::P50 => quantile(&report.distribution, 0.5).or_else(|| Some(summary?.p50)),
            Self::P99 => quantile(&report.distribution, 0.99).or_else(|| Some(summary?.p99)),
            Self::Bytes => report.bandwidth.map(|bandwidth| bandwidth.bytes_per_s),
            Self::Instructions => None,
        }
    }

    /// What this says of a run, for the bootstrap.
    fn run(self, report: &Report) -> Option<Run> {
        let value = self.value(report)?;
        let stretches = report.timeline.iter().filter_map(|stretch| {
            let value = match self {
                Self::P50 => stretch.p50?,
                Self::P99 => stretch.p99?,
                Self::Bytes => stretch.bytes_per_s?,
                Self::Instructions => return None,
            };
            // The floor of a stretch is a median: it says nothing of a tail.
            let floor = if self == Self::P99 { None } else { stretch.floor };
            Some((value, floor))
        });
        let stretches: Vec<_> = stretches.collect();
        let whole_floor = match (self, &report.floor) {
            (Self::P99, Some(FloorReport::Bounce { one_way_ns, .. })) => Some(one_way_ns.p99),
            _ => None,
        };
        Some(Run::new(value, &stretches, whole_floor))
    }
}

/// What became of one figure.
#[derive(Debug, Clone, PartialEq)]
pub struct Change {
    /// Which case, of several counts.
    pub name: Option<String>,
    /// Which.
    pub metric: Metric,
    /// Its middle over the runs of the one side.
    pub base: f64,
    /// Of the other.
    pub new: f64,
    /// By what part the new one is more, beside the floor; negative if less.
    pub change: f64,
    /// Where that lies, with the confidence that was asked for.
    pub interval: (f64, f64),
    /// Whether both sides had a floor to be put beside.
    pub beside_floor: bool,
    /// What that is.
    pub verdict: Verdict,
}

/// A comparison of two sides.
#[derive(Debug, Clone, PartialEq)]
pub struct Comparison {
    /// Of each figure.
    pub changes: Vec<Change>,
    /// How many pairs of runs there were.
    pub pairs: usize,
    /// Counts that only one side has.
    pub left_out: Vec<String>,
}

impl Comparison {
    /// The verdict on all figures: what got worse counts before what got better.
    #[must_use]
    pub fn verdict(&self) -> Verdict {
        self.changes.iter().map(|change| change.verdict).max().unwrap_or(Verdict::Noise)
    }
}

/// Compares runs of one program with those of another, the first with the first and so on.
///
/// # Errors
/// [`Error::Usage`] if they are not of the same measurement, or not as many.
pub fn compare(base: &[Report], new: &[Report], flags: &Flags) -> Result<Comparison> {
    if base.len() != new.len() || base.is_empty() {
        return Err(Error::Usage(format!(
            "{} results of BASE and {} of NEW: there must be as many of either, run in turns",
            base.len(),
            new.len()
        )));
    }
    let first = &base[0];
    for other in base.iter().chain(new) {
        let differs = differences(first, other);
        if !differs.is_empty() {
            return Err(Error::Usage(format!(
                "the results are of different measurements: {}",
                differs.join(", ")
            )));
        }
    }
    let mut dice = fastrand::Rng::with_seed(flags.seed);
    let mut changes = Vec::new();
    for &metric in Metric::of(first.benchmark) {
        let pairs: Option<Vec<Pair>> = base
            .iter()
            .zip(new)
            .map(|(base, new)| Some(Pair { base: metric.run(base)?, new: metric.run(new)? }))
            .collect();
        let Some(pairs) = pairs else {
            return Err(Error::Usage(format!("a result has no {}", metric.name())));
        };
        changes.push(judge(metric, &pairs, flags, &mut dice));
    }
    Ok(Comparison { changes, pairs: base.len(), left_out: Vec::new() })
}

/// Compares counts of instructions, those that both sides have. They have no noise: what differs by more than the margin has changed.
///
/// # Errors
/// [`Error::Usage`] if they have none in common.
pub fn compare_counts(base: &[Count], new: &[Count], flags: &Flags) -> Result<Comparison> {
    let mut changes = Vec::new();
    let alone = |one: &[Count], other: &[Count]| -> Vec<String> {
        let alone = one.iter().filter(|count| count.among(other).is_none());
        alone.map(|count| format!("{} ({})", count.name, count.device)).collect()
    };
    for count in new {
        let Some(before) = count.among(base) else { continue };
        let change = count.instructions / before.instructions - 1.0;
        changes.push(Change {
            name: Some(format!("{} ({})", count.name, count.device)),
            metric: Metric::Instructions,
            base: before.instructions,
            new: count.instructions,
            change,
            interval: (change, change),
            beside_floor: false,
            verdict: match change {
                change if change.abs() * 100.0 < flags.margin => Verdict::Noise,
                change if change > 0.0 => Verdict::Regression,
                _ => Verdict::Improvement,
            },
        });
    }
    if changes.is_empty() {
        return Err(Error::Usage("the two have no count in common: count the same cases".into()));
    }
    Ok(Comparison { changes, pairs: 1, left_out: [alone(base, new), alone(new, base)].concat() })
}

fn judge(metric: Metric, pairs: &[Pair], flags: &Flags, dice: &mut fastrand::Rng) -> Change {
    let beside_floor = pairs.iter().all(Pair::has_floors);
    let estimate = change(pairs, beside_floor, flags.confidence / 100.0, dice);
    let margin = (flags.margin / 100.0 * metric.leeway()).ln_1p();
    let is_sure = estimate.low > 0.0 || estimate.high < 0.0;
    let verdict = if !is_sure || estimate.middle.abs() < margin {
        Verdict::Noise
    } else if (estimate.middle > 0.0) == metric.more_is_better() {
        Verdict::Improvement
    } else {
        Verdict::Regression
    };
    let side =
        |of: fn(&Pair) -> &Run| summarise(&pairs.iter().map(|pair| of(pair).value).collect::<Vec<_>>());
    Change {
        name: None,
        metric,
        base: side(|pair| &pair.base),
        new: side(|pair| &pair.new),
        change: estimate.middle.exp_m1(),
        interval: (estimate.low.exp_m1(), estimate.high.exp_m1()),
        beside_floor,
        verdict,
    }
}

/// In what two results are of different measurements.
pub(crate) fn differences(one: &Report, other: &Report) -> Vec<String> {
    let what = |report: &Report| {
        [
            ("benchmark", report.benchmark.to_string()),
            ("op", report.op.to_string()),
            ("transport", report.transport.to_string()),
            ("device", report.device.clone()),
            ("profile", report.profile.clone()),
            ("size_bytes", report.size_bytes.to_string()),
            ("wait", report.wait.to_string()),
            ("inline", report.inline.to_string()),
            ("depth", report.depth.to_string()),
            ("post_list", report.post_list.to_string()),
            ("threads", report.threads.to_string()),
            ("qps", report.qps.to_string()),
            ("classes", mixed::listed(&report.classes)),
            ("gaps", idle::listed(&report.gaps)),
            ("memory", report.memory.to_string()),
            ("loop", report.kind_of_loop.as_deref().unwrap_or("none").to_owned()),
            ("like", report.like.map_or_else(|| "none".to_owned(), |like| like.to_string())),
            ("link", report.link.clone().unwrap_or_else(|| "none".to_owned())),
            ("fault", report.fault.clone().unwrap_or_else(|| "none".to_owned())),
        ]
    };
    let both = what(one).into_iter().zip(what(other));
    both.filter(|(one, other)| one != other)
        .map(|((name, one), (_, other))| format!("{name} {one} and {other}"))
        .collect()
}

/// The results of a file, or of each file of a folder in the order of their names.
///
/// # Errors
/// One cannot be read, or the folder has none.
pub fn read(path: &Path) -> Result<Vec<Report>> {
    if !path.is_dir() {
        return of_file(path);
    }
    let entries = std::fs::read_dir(path).context(|| format!("read the folder {}", path.display()))?;
    let mut files: Vec<PathBuf> = entries
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|file| file.extension().is_some_and(|ending| ending == "json"))
        .collect();
    files.sort();
    if files.is_empty() {
        return Err(Error::Usage(format!("{} has no files of --json in it", path.display())));
    }
    Ok(files.iter().map(|file| of_file(file)).collect::<Result<Vec<_>>>()?.concat())
}

/// The results of a file, without their names.
fn of_file(path: &Path) -> Result<Vec<Report>> {
    let results: Vec<Report> = container::read(path)?.results.into_iter().map(|(_, report)| report).collect();
    match results.is_empty() {
        true => Err(Error::Usage(format!("{} has no result of verbs in it", path.display()))),
        false => Ok(results),
    }
}

/// Does what the flags ask: exit code 1 for a regression.
///
/// # Errors
/// The results cannot be read or compared.
pub fn run(flags: &Flags) -> Result<u8> {
    let to_stdout = flags.json.as_ref().is_some_and(|path| path.as_os_str() == "-");
    let file = flags.json.as_ref().filter(|_| !to_stdout);
    let file = file.map(|path| WholeFile::prepare("--json", path)).transpose()?;
    let (comparison, table) = match (Counts::read(&flags.base)?, Counts::read(&flags.new)?) {
        (Some(base), Some(new)) => {
            let comparison = compare_counts(&base.counts, &new.counts, flags)?;
            let table = outputs::counts(&comparison, flags);
            (comparison, table)
        }
        (None, None) => {
            let comparison = compare(&read(&flags.base)?, &read(&flags.new)?, flags)?;
            let table = outputs::results(&comparison, flags);
            (comparison, table)
        }
        _ => {
            let reason = "one of the two has counts of instructions, and the other has not";
            return Err(Error::Usage(format!("{reason}: compare like with like")));
        }
    };
    if let Some(file) = file {
        file.write(&outputs::json(&comparison, flags)?)?;
    }
    say(&if to_stdout { outputs::json(&comparison, flags)? } else { table })?;
    Ok(u8::from(comparison.verdict() == Verdict::Regression))
}
