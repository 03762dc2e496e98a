//! A comparison for people and for programs.

use serde::Serialize;

use super::{Comparison, Flags, Metric, Verdict};
use crate::columns::Columns;
use crate::error::{Context, Result};

/// Name and version of the contract of `--json`: `harness/schema/tbrdma-compare-1.json`.
const SCHEMA: &str = "tbrdma-compare/1";

#[derive(Serialize)]
struct Said<'c> {
    schema: &'static str,
    verdict: Verdict,
    pairs: usize,
    margin_percent: f64,
    confidence_percent: f64,
    changes: Vec<SaidChange<'c>>,
    left_out: &'c [String],
}

#[derive(Serialize)]
struct SaidChange<'c> {
    name: Option<&'c str>,
    metric: &'static str,
    base: f64,
    new: f64,
    change: f64,
    interval: Option<(f64, f64)>,
    beside_floor: bool,
    verdict: Verdict,
}

/// As JSON, with a newline at its end.
pub(super) fn json(comparison: &Comparison, flags: &Flags) -> Result<String> {
    let changes = comparison.changes.iter().map(|change| SaidChange {
        name: change.name.as_deref(),
        metric: change.metric.name(),
        base: change.base,
        new: change.new,
        change: change.change,
        interval: (change.metric != Metric::Instructions).then_some(change.interval),
        beside_floor: change.beside_floor,
        verdict: change.verdict,
    });
    let said = Said {
        schema: SCHEMA,
        verdict: comparison.verdict(),
        pairs: comparison.pairs,
        margin_percent: flags.margin,
        confidence_percent: flags.confidence,
        changes: changes.collect(),
        left_out: &comparison.left_out,
    };
    let text = serde_json::to_string_pretty(&said).context(|| "encode the comparison".into())?;
    Ok(text + "\n")
}

fn percent(part: f64) -> String {
    format!("{:+.1} %", part * 100.0)
}

/// The comparison of counts for people.
pub(super) fn counts(comparison: &Comparison, flags: &Flags) -> String {
    let mut columns = Columns::new(["instructions of"], ["base", "new", "change", "verdict"]);
    for change in &comparison.changes {
        columns.row([
            change.name.clone().unwrap_or_default(),
            format!("{:.1}", change.base),
            format!("{:.1}", change.new),
            percent(change.change),
            change.verdict.to_string(),
        ]);
    }
    let mut text = columns.text();
    for name in &comparison.left_out {
        text += &format!("only on one side: {name}\n");
    }
    text + &format!("{}; up to {} % are noise\n", comparison.verdict(), flags.margin)
}

/// The comparison of results for people.
pub(super) fn results(comparison: &Comparison, flags: &Flags) -> String {
    let mut text = format!(
        "{:<11} {:>11} {:>11} {:>9}  {:<19} {}\n",
        "",
        "base",
        "new",
        "change",
        format!("{} % interval", flags.confidence),
        "verdict"
    );
    for change in &comparison.changes {
        let figure = |value: f64| match change.metric {
            Metric::Bytes => format!("{:.3} GB/s", value / 1e9),
            Metric::P50 | Metric::P99 => format!("{value:.1} ns"),
            Metric::Instructions => format!("{value:.1}"),
        };
        let interval = format!("{} .. {}", percent(change.interval.0), percent(change.interval.1));
        text += &format!(
            "{:<11} {:>11} {:>11} {:>9}  {interval:<19} {}\n",
            change.metric.name(),
            figure(change.base),
            figure(change.new),
            percent(change.change),
            change.verdict
        );
    }
    let beside = if comparison.changes.iter().all(|change| change.beside_floor) {
        "changes are beside the floor of each run"
    } else {
        "without a floor on both sides: what the machine itself did is in the changes"
    };
    let pairs = if comparison.pairs == 1 {
        "one pair of runs".to_owned()
    } else {
        format!("{} pairs of runs", comparison.pairs)
    };
    text + &format!("{}; {pairs}, {beside}\n", comparison.verdict())
}
