//! The table of what devices do and do not do, as Markdown, from the results of runs.

use crate::case::{Area, Case};
use crate::runner::{Outcome, Report};
use anyhow::{Context, Result};
use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::PathBuf;

/// Reads results, a line of JSON each.
///
/// # Errors
/// A file cannot be read, or is no such file.
pub fn read(files: &[PathBuf]) -> Result<Vec<Report>> {
    let mut all = Vec::new();
    for file in files {
        let text = std::fs::read_to_string(file).with_context(|| file.display().to_string())?;
        for line in text.lines() {
            all.push(serde_json::from_str(line).with_context(|| format!("{}: {line}", file.display()))?);
        }
    }
    Ok(all)
}

/// Results by device, in the order in which devices first appear.
struct Results<'a> {
    devices: Vec<&'a str>,
    of: BTreeMap<(&'a str, &'a str), &'a Report>,
}

impl<'a> Results<'a> {
    fn new(reports: &'a [Report]) -> Self {
        let mut devices: Vec<&str> = Vec::new();
        for report in reports {
            if !devices.contains(&report.device.as_str()) {
                devices.push(&report.device);
            }
        }
        let of = reports.iter().map(|report| ((report.device.as_str(), report.case.as_str()), report));
        Self { devices, of: of.collect() }
    }

    /// A row of the table: its head, and a cell for each device.
    fn row(&self, head: &str, cell: impl Fn(&str) -> String) -> String {
        let cells: Vec<String> = self.devices.iter().map(|device| cell(device)).collect();
        format!("| {head} | {} |\n", cells.join(" | "))
    }

    fn outcome(&self, device: &str, case: &Case) -> Option<Outcome> {
        self.of.get(&(device, case.name().as_str())).map(|report| report.outcome)
    }

    /// How many of an area's cases ended how: `12`, `10 + 2 cannot`.
    fn count(&self, device: &str, cases: &[&Case]) -> String {
        let ended = |wanted| cases.iter().filter(|case| self.outcome(device, case) == Some(wanted)).count();
        let others =
            [(Outcome::Failed, "failed"), (Outcome::Deviates, "deviate"), (Outcome::Cannot, "cannot")];
        let mut text = ended(Outcome::Passed).to_string();
        for (outcome, word) in others {
            let count = ended(outcome);
            if count > 0 {
                _ = write!(text, " + {count} {word}");
            }
        }
        text
    }
}

/// What is said of one outcome in the table of cases.
fn mark(outcome: Option<Outcome>) -> &'static str {
    match outcome {
        None => "",
        Some(Outcome::Passed) => "yes",
        Some(Outcome::Failed) => "**failed**",
        Some(Outcome::Deviates) => "deviates",
        Some(Outcome::Cannot) => "cannot",
    }
}

/// The document.
pub fn markdown(reports: &[Report]) -> String {
    let results = Results::new(reports);
    let mut text = HEAD.to_owned();
    let all: Vec<&Case> = crate::all().collect();
    text += &results.row("area", str::to_owned);
    text += &results.row("---", |_| "---".to_owned());
    let of = |area: Area| all.iter().copied().filter(|case| case.area == area).collect::<Vec<_>>();
    for area in Area::ALL {
        let cases = of(area);
        text += &results.row(&format!("{area} ({})", cases.len()), |device| results.count(device, &cases));
    }
    text += &results.row(&format!("**all ({})**", all.len()), |device| results.count(device, &all));
    text += "\n## What devices cannot\n\n| device | what it lacks, by its attributes or `declared.rs` | cases |\n|---|---|---|\n";
    text += &whys(reports, Outcome::Cannot, |device, why, cases| {
        format!("| {device} | {why} | {} |\n", cases.len())
    });
    let deviations = whys(reports, Outcome::Deviates, |device, why, cases| {
        format!(
            "| {device} | {} | {why} |\n",
            cases.iter().map(|case| format!("`{case}`")).collect::<Vec<_>>().join(", ")
        )
    });
    if !deviations.is_empty() {
        text += "\n## Where devices do otherwise\n\nThese cases are run, and fail as was declared, with the evidence.\n\n";
        text += "| device | cases | why |\n|---|---|---|\n";
        text += &deviations;
    }
    text += "\n## The cases\n\nA case is `file::function` in `tests/conformance/cases`.\n";
    for area in Area::ALL {
        _ = write!(text, "\n### {}\n\n", capital(&area.to_string()));
        text += &results.row("statement | case", str::to_owned);
        text += &results.row("--- | ---", |_| "---".to_owned());
        for case in of(area) {
            let head = format!("{} ({}) | `{}`", case.statement, case.source, case.name());
            text += &results.row(&head, |device| mark(results.outcome(device, case)).to_owned());
        }
    }
    text
}

/// Lines about the reports of an outcome, those of one device and reason together.
fn whys(reports: &[Report], outcome: Outcome, line: impl Fn(&str, &str, &[&str]) -> String) -> String {
    let mut groups: Vec<(&str, &str, Vec<&str>)> = Vec::new();
    for report in reports.iter().filter(|report| report.outcome == outcome) {
        let group = groups.iter_mut().find(|(device, why, _)| *device == report.device && *why == report.why);
        match group {
            Some((_, _, cases)) => cases.push(&report.case),
            None => groups.push((&report.device, &report.why, vec![&report.case])),
        }
    }
    groups.iter().map(|(device, why, cases)| line(device, why, cases)).collect()
}

fn capital(text: &str) -> String {
    let mut chars = text.chars();
    chars.next().map(|first| first.to_uppercase().chain(chars).collect()).unwrap_or_default()
}

/// What stands above the tables.
const HEAD: &str = "\
# Conformance

What each device does and does not do as the InfiniBand specification and rdma-core's man pages say. `cargo xtask conformance` runs the suite
(`tests/conformance`) on every device of this machine and writes this file; do not edit it. Sections are those of volume 1 of the InfiniBand Architecture
Specification.

*native over ...* is the device that loads the system's libibverbs, here our own drop-in library on top of the device named. *rxe* is the same over the kernel's
`rdma_rxe` and Debian's libibverbs, in the virtual machine of `cargo xtask lab`; *rxe-udp* has the near end there and the far one on our `udp` device,
for the cases of two parties. An empty cell is a case that was not run there.

";
