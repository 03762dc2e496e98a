//! `tbrdma-bench gate`: results against the limits of a plan, for builds that shall fail when something has got slower.
//!
//! Limits are ratios, to the floor of the same run or to a baseline, so that they hold on whichever machine runs them.

mod outputs;
pub mod plan;

use std::fmt;
use std::path::{Path, PathBuf};

use crate::compare::{Metric, differences, read};
use crate::counts::{Count, Counts};
use crate::error::{Context, Result};
use crate::result::{Ratio, Report};
use crate::say;
use plan::{Limit, Of, Plan};

/// Flags of `gate`.
#[derive(Debug, Clone, clap::Args)]
pub struct Flags {
    /// The limits, in TOML
    pub plan: PathBuf,
    /// Files of --json or of counts, or folders of files of --json
    #[arg(required = true)]
    pub results: Vec<PathBuf>,
    /// Results that limits of a baseline are meant of: a file, or a folder
    #[arg(long, value_name = "PATH")]
    pub baseline: Option<PathBuf>,
    /// Write what became of each limit as JUnit's XML
    #[arg(long, value_name = "FILE")]
    pub junit: Option<PathBuf>,
    /// Say what failed as annotations of GitHub's, as is done where GITHUB_ACTIONS is true
    #[arg(long)]
    pub annotate: bool,
}

/// What became of a limit.
#[derive(Debug, Clone, PartialEq)]
pub enum Outcome {
    /// It is kept.
    Kept,
    /// It is not.
    Broken,
    /// There is nothing to tell by.
    NotMeasurable,
}

/// A limit, and what became of it with a result.
#[derive(Debug, Clone, PartialEq)]
pub struct Judgement {
    /// Which limit.
    pub limit: String,
    /// What became of it.
    pub outcome: Outcome,
    /// The figure, or why there is none.
    pub why: String,
}

impl fmt::Display for Judgement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let outcome = match self.outcome {
            Outcome::Kept => "pass",
            Outcome::Broken => "FAIL",
            Outcome::NotMeasurable => "n/a ",
        };
        write!(f, "{outcome}  {}: {}", self.limit, self.why)
    }
}

/// Does what the flags ask: exit code 0 if all limits are kept, 1 if one is not, 2 if one cannot be measured.
///
/// # Errors
/// The plan or a result makes no sense, or a file cannot be written.
pub fn run(flags: &Flags) -> Result<u8> {
    let plan = Plan::read(&flags.plan)?;
    let mut found = Found::default();
    for path in &flags.results {
        found.add(path)?;
    }
    let mut baseline = Found::default();
    if let Some(path) = &flags.baseline {
        baseline.add(path)?;
    }
    let mut judgements = judge(&plan, &found.results, &baseline.results);
    judgements.extend(judge_counts(&plan, &found.counts, &baseline.counts));
    if let Some(file) = &flags.junit {
        std::fs::write(file, outputs::junit(&judgements))
            .context(|| format!("write JUnit's XML to {}", file.display()))?;
    }
    say(&judgements.iter().map(|judgement| format!("{judgement}\n")).collect::<String>())?;
    if flags.annotate || std::env::var("GITHUB_ACTIONS").is_ok_and(|value| value == "true") {
        say(&outputs::annotations(&judgements))?;
    }
    Ok(exit_code(&judgements))
}

/// What files hold.
#[derive(Default)]
struct Found {
    results: Vec<Report>,
    counts: Vec<Count>,
}

impl Found {
    fn add(&mut self, path: &Path) -> Result<()> {
        match Counts::read(path)? {
            Some(counts) => self.counts.extend(counts.counts),
            None => self.results.extend(read(path)?),
        }
        Ok(())
    }
}

/// Every limit of counts with every count that it is meant of.
#[must_use]
pub fn judge_counts(plan: &Plan, counts: &[Count], baseline: &[Count]) -> Vec<Judgement> {
    let mut judgements = Vec::new();
    for limit in plan.limits.iter().filter(|limit| limit.metric == Metric::Instructions) {
        let meant: Vec<&Count> = counts.iter().filter(|count| limit.is_meant_of_count(count)).collect();
        if meant.is_empty() {
            let why = "no count is what it is meant of: count that, or change `where`".to_owned();
            judgements.push(Judgement { limit: limit.name(), outcome: Outcome::NotMeasurable, why });
        }
        for count in meant {
            let (outcome, why) = match count.among(baseline) {
                None => (Outcome::NotMeasurable, "no --baseline has the same count".to_owned()),
                Some(base) => limit.outcome(count.instructions / base.instructions),
            };
            let why = format!("{why} ({}, {})", count.name, count.device);
            judgements.push(Judgement { limit: limit.name(), outcome, why });
        }
    }
    judgements
}

/// Every limit of measurements with every result that it is meant of.
#[must_use]
pub fn judge(plan: &Plan, results: &[Report], baseline: &[Report]) -> Vec<Judgement> {
    let mut judgements = Vec::new();
    for limit in plan.limits.iter().filter(|limit| limit.metric != Metric::Instructions) {
        let meant: Vec<&Report> = results.iter().filter(|report| limit.is_meant_of(report)).collect();
        if meant.is_empty() {
            let why = "no result is what it is meant of: measure that, or change `where`".to_owned();
            judgements.push(Judgement { limit: limit.name(), outcome: Outcome::NotMeasurable, why });
        }
        for report in meant {
            let (outcome, why) = one(limit, report, baseline);
            judgements.push(Judgement {
                limit: limit.name(),
                outcome,
                why: format!("{why} ({})", told(report)),
            });
        }
    }
    judgements
}

/// A limit with a result.
fn one(limit: &Limit, report: &Report, baseline: &[Report]) -> (Outcome, String) {
    if report.errors > 0 {
        let first = report.first_error.as_deref().unwrap_or("it is not said which");
        return (Outcome::Broken, format!("{} messages were wrong: {first}", report.errors));
    }
    if !report.verified {
        return (Outcome::NotMeasurable, "its bytes were not all checked".to_owned());
    }
    match ratio(limit, report, baseline) {
        Err(why) => (Outcome::NotMeasurable, why),
        Ok(ratio) => limit.outcome(ratio),
    }
}

impl Limit {
    /// What a ratio makes of it.
    fn outcome(&self, ratio: f64) -> (Outcome, String) {
        let kept =
            self.at_most.is_none_or(|most| ratio <= most) && self.at_least.is_none_or(|least| ratio >= least);
        let outcome = if kept { Outcome::Kept } else { Outcome::Broken };
        (outcome, format!("{} is {ratio:.3} x the {}", self.metric.name(), self.of.name()))
    }
}

/// The figure of a result, as a ratio.
fn ratio(limit: &Limit, report: &Report, baseline: &[Report]) -> std::result::Result<f64, String> {
    if !Metric::of(report.benchmark).contains(&limit.metric) {
        return Err(format!("{} measures no {}", report.benchmark, limit.metric.name()));
    }
    match limit.of {
        Of::Floor => {
            let ratio = match (report.ratio_to_floor, limit.metric) {
                (Some(Ratio::Latency { p50, p50_batch_by_batch, .. }), Metric::P50) => {
                    Some(p50_batch_by_batch.unwrap_or(p50))
                }
                (Some(Ratio::Latency { p99, .. }), Metric::P99) => Some(p99),
                (Some(Ratio::Bytes { bytes_per_s, section_by_section }), Metric::Bytes) => {
                    Some(section_by_section.unwrap_or(bytes_per_s))
                }
                _ => None,
            };
            let why = report.floor_missing.as_deref().unwrap_or("it is not said why");
            ratio.ok_or_else(|| format!("the result has no floor: {why}"))
        }
        Of::Baseline => {
            let same = baseline.iter().find(|base| differences(base, report).is_empty());
            let base = same.ok_or("no --baseline is of the same measurement")?;
            match (limit.metric.value(report), limit.metric.value(base)) {
                (Some(new), Some(base)) if base > 0.0 => Ok(new / base),
                _ => Err(format!("one of the two has no {}", limit.metric.name())),
            }
        }
    }
}

/// Which result it is, in a few words.
fn told(report: &Report) -> String {
    let Report { benchmark, op, transport, size_bytes, device, .. } = report;
    format!("{benchmark} {op} over {transport}, {size_bytes} bytes, {device}")
}

/// What is broken counts before what cannot be told.
#[must_use]
pub fn exit_code(judgements: &[Judgement]) -> u8 {
    let has = |outcome| judgements.iter().any(|judgement| judgement.outcome == outcome);
    match (has(Outcome::Broken), has(Outcome::NotMeasurable)) {
        (true, _) => 1,
        (_, true) => 2,
        _ => 0,
    }
}
