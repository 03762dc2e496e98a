//! `report`: results of any number of runs as one page that a browser shows. The page is whole in its file: it fetches nothing and runs nothing.
//!
//! What it says follows from the results alone, so the same files give the same page. Every chart is drawn from figures that the page has as a
//! table too.

mod chart;
mod draw;
mod section;
mod stress;

use std::collections::BTreeMap;
use std::path::PathBuf;

use askama::Template;
use clap::Args;

use crate::container;
use crate::error::{Context, Error, Result};
use crate::grid::Grid;
use crate::outputs::WholeFile;
use crate::result::Report;
use crate::stress::result::StressReport;
use chart::Chart;
use draw::Curve;
use section::{Fact, Section};
use stress::StressSection;

/// The most results of one page: with more, nobody tells the curves apart.
const MOST_RESULTS: usize = 64;

/// The flags.
#[derive(Debug, Clone, Args)]
pub struct Flags {
    /// Results, as --json wrote them; all of those that a sweep wrote into one file
    #[arg(required = true, value_name = "FILE")]
    pub files: Vec<PathBuf>,
    /// Where the page goes; - is standard output
    #[arg(short, long, value_name = "FILE")]
    pub output: PathBuf,
    /// What it is called [default: Results of tbrdma-bench]
    #[arg(long, value_name = "TEXT")]
    pub title: Option<String>,
}

/// Writes the page.
///
/// # Errors
/// A result cannot be read, there are too many, or the page cannot be written.
pub fn run(flags: &Flags) -> Result<()> {
    let read = flags.files.iter().map(|path| container::read(path)).collect::<Result<Vec<_>>>()?;
    let (mut reports, mut tables, mut stress) = (Vec::new(), Vec::new(), Vec::new());
    for mut contents in read {
        reports.append(&mut contents.results);
        tables.append(&mut contents.tables);
        stress.append(&mut contents.stress);
    }
    let count = reports.len() + stress.len();
    if count > MOST_RESULTS {
        return Err(Error::Usage(format!(
            "{count} results are too many for a page that can be read: give at most {MOST_RESULTS}"
        )));
    }
    let title = flags.title.as_deref().unwrap_or("Results of tbrdma-bench");
    let text = page(title, &reports, &tables, &stress)?;
    if flags.output.as_os_str() == "-" {
        return crate::say(&text);
    }
    WholeFile::prepare("--output", &flags.output)?.write(&text)
}

/// The page of these results and stress runs, each with the name it is to have.
///
/// # Errors
/// Never in practice.
pub fn page(
    title: &str,
    reports: &[(String, Report)],
    tables: &[Grid],
    stress: &[(String, StressReport)],
) -> Result<String> {
    let sections: Vec<Section> =
        (1..).zip(reports).map(|(number, (name, report))| Section::new(number, name, report)).collect();
    let runs: Vec<StressSection> = (sections.len() as u32 + 1..)
        .zip(stress)
        .map(|(number, (name, report))| StressSection::new(number, name, report))
        .collect();
    let curves: Vec<_> = (1..)
        .zip(reports)
        .filter(|(_, (_, report))| !report.distribution.is_empty())
        .map(|(number, (name, report))| Curve {
            style: number,
            label: format!("{number} {name}"),
            samples: report.samples,
            distribution: &report.distribution,
        })
        .collect();
    let page = Page {
        title,
        count: reports.len() + stress.len(),
        unverified: reports.iter().filter(|(_, report)| !report.verified).count()
            + stress.iter().filter(|(_, report)| !report.verified).count(),
        curves: (!curves.is_empty()).then(|| draw::curves(&curves)),
        has_latencies: sections.iter().any(|section| section.latency.is_some()),
        has_throughput: sections.iter().any(|section| section.throughput.is_some()),
        environments: environments(reports, stress),
        tables,
        runs,
        sections,
        release: env!("CARGO_PKG_VERSION"),
    };
    page.render().context(|| "make the page".into())
}

/// All of it.
#[derive(Template)]
#[template(path = "page.html")]
struct Page<'r> {
    title: &'r str,
    count: usize,
    /// Results that are not to be trusted.
    unverified: usize,
    /// The latencies of all runs in one chart.
    curves: Option<Chart>,
    has_latencies: bool,
    has_throughput: bool,
    /// What is told of many results together.
    tables: &'r [Grid],
    sections: Vec<Section>,
    runs: Vec<StressSection>,
    environments: Vec<Place>,
    release: &'static str,
}

/// Where some of the results come from.
struct Place {
    /// Their numbers.
    results: String,
    facts: Vec<Fact>,
}

/// Where a run in virtual time comes from.
fn nowhere() -> Vec<Fact> {
    vec![Fact { name: "clock", value: NOWHERE.to_owned() }]
}

/// What is said of it.
const NOWHERE: &str = "virtual time of a simulated network, which has no machine below it";

/// The places, each once, with the results that come from there.
fn environments(reports: &[(String, Report)], stress: &[(String, StressReport)]) -> Vec<Place> {
    let mut places: BTreeMap<Vec<Fact>, Vec<String>> = BTreeMap::new();
    let of_reports = reports.iter().map(|(_, report)| Some(&report.environment));
    let of_runs = stress.iter().map(|(_, report)| report.environment.as_ref());
    for (number, environment) in (1_u32..).zip(of_reports.chain(of_runs)) {
        let facts = environment.map_or_else(nowhere, section::place);
        places.entry(facts).or_default().push(number.to_string());
    }
    let mut places: Vec<_> =
        places.into_iter().map(|(facts, numbers)| Place { results: numbers.join(", "), facts }).collect();
    places.sort_by(|a, b| a.results.cmp(&b.results));
    places
}
