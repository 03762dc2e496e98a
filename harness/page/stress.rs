//! What the page says of a stress run: its course with the phases in which something went wrong shaded, its phases, and what was expected.

use askama::Template;

use super::chart::{Axis, Band, Chart, LEFT, RIGHT, Scale, number};
use super::draw::{Curve, curves, lines_of_latencies};
use super::section::Fact;
use crate::grid::Grid;
use crate::histogram::nanoseconds;
use crate::stress::judge::Outcome;
use crate::stress::result::{PhaseReport, StressReport};
use crate::stress::text::{FIGURES, counted, figures, sent};

/// A stress run.
#[derive(Template)]
#[template(path = "stress.html")]
pub(super) struct StressSection {
    pub(super) number: u32,
    pub(super) name: String,
    pub(super) title: String,
    about: String,
    verdict: String,
    is_bad: bool,
    facts: Vec<Fact>,
    course: Option<Chart>,
    /// Tables, and the first of their columns that has words.
    grids: Vec<(Grid, usize)>,
    curves: Chart,
    stretches: Vec<[String; 6]>,
}

fn seconds(seconds: f64) -> String {
    nanoseconds(seconds * 1e9)
}

impl StressSection {
    pub(super) fn new(number: u32, name: &str, report: &StressReport) -> Self {
        let verdict = match (report.verdict, &report.first_error) {
            (_, Some(first)) => format!("{} messages were wrong; the first: {first}", report.errors),
            (Outcome::Met, None) => "Everything that was expected came about.".to_owned(),
            (Outcome::Missed, None) => "Not all that was expected came about.".to_owned(),
            (Outcome::NotMeasurable, None) => "Of some that was expected nothing can be told.".to_owned(),
        };
        Self {
            number,
            name: name.to_owned(),
            title: format!("stress {}, {}", report.plan, report.device),
            about: report.about.clone(),
            is_bad: report.verdict != Outcome::Met,
            verdict,
            facts: facts(report),
            course: course(number, report),
            grids: grids(report),
            curves: phase_curves(number, report),
            stretches: stretches(report),
        }
    }
}

fn facts(report: &StressReport) -> Vec<Fact> {
    let time = if report.is_virtual { "virtual: a model's, and nothing of a machine" } else { "real" };
    let facts = [
        ("device", format!("{}, profile {}", report.device, report.profile)),
        ("sent", sent(report)),
        ("time", format!("{time}; over after {}", seconds(report.lasted_s))),
        ("seed", report.seed.to_string()),
        (
            "messages",
            format!("{} answered, {} failed, {} never sent", report.samples, report.failed, report.unsent),
        ),
        ("checked", format!("{} messages: {}", report.messages_checked, report.verification)),
    ];
    facts.into_iter().map(|(name, value)| Fact { name, value }).collect()
}

/// The run in the course of time.
fn course(id: u32, report: &StressReport) -> Option<Chart> {
    let end = report.phases.last().map(|last| last.at_s + last.lasts_s)?;
    let x = Scale::linear(0.0, end, LEFT, RIGHT);
    let (y, lines) = lines_of_latencies(&report.timeline, x)?;
    let bad = || report.phases.iter().filter(|phase| phase.wrong.is_some());
    let band = |phase: &PhaseReport| Band {
        x: number(x.at(phase.at_s)),
        width: number((x.at(phase.at_s + phase.lasts_s) - x.at(phase.at_s)).max(1.0)),
        middle: number(x.at(phase.at_s + phase.lasts_s / 2.0)),
        name: phase.name.clone(),
        label: format!(
            "{}, from {} to {}: {}",
            phase.name,
            seconds(phase.at_s),
            seconds(phase.at_s + phase.lasts_s),
            phase.wrong.as_deref().unwrap_or_default()
        ),
    };
    let shaded: Vec<_> = bad()
        .map(|phase| {
            format!("{} from {} to {}", phase.name, seconds(phase.at_s), seconds(phase.at_s + phase.lasts_s))
        })
        .collect();
    Some(Chart {
        id: format!("course-{id}"),
        title: "In the course of time".to_owned(),
        description: format!(
            "Latencies over {}, by when messages were due. Shaded is when something went wrong: {}. The table behind has the figures.",
            seconds(end),
            shaded.join(", ")
        ),
        x: Axis { label: "since the first message".to_owned(), marks: x.marks(seconds) },
        y: Axis { label: "latency".to_owned(), marks: y.marks(nanoseconds) },
        lines,
        bars: Vec::new(),
        bands: bad().map(band).collect(),
    })
}

/// The percentiles of each phase.
fn phase_curves(id: u32, report: &StressReport) -> Chart {
    let phases = (1..).zip(&report.phases).filter(|(_, phase)| !phase.distribution.is_empty());
    let lines: Vec<_> = phases
        .map(|(style, phase)| Curve {
            style,
            label: phase.name.clone(),
            samples: phase.samples,
            distribution: &phase.distribution,
        })
        .collect();
    let mut chart = curves(&lines);
    chart.id = format!("curves-{id}");
    chart.title = "Latency by percentile, phase by phase".to_owned();
    chart.description = "One line a phase, from its fastest message on the left to its slowest on the right. A line that stays low is better; where it turns up, that part of the messages is slow. The table of phases has the figures.".to_owned();
    chart
}

fn grids(report: &StressReport) -> Vec<(Grid, usize)> {
    let figure = |value: Option<f64>| value.map_or_else(|| "none".to_owned(), nanoseconds);
    let phases = report
        .phases
        .iter()
        .map(|phase| [phase.name.clone(), seconds(phase.at_s)].into_iter().chain(figures(phase)).collect());
    let troubles = report.phases.iter().map(|phase| {
        let wrong = phase.wrong.clone().unwrap_or_else(|| "nothing".to_owned());
        vec![phase.name.clone(), wrong, counted(phase).join(", ")]
    });
    let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
    let phases = Grid {
        caption: "Phases".to_owned(),
        columns: names(&[&["phase", "began"], &FIGURES[..]].concat()),
        rows: phases.collect(),
    };
    let troubles = Grid {
        caption: "What went wrong in each phase, and what both devices counted of it".to_owned(),
        columns: names(&["phase", "what went wrong", "what was counted"]),
        rows: troubles.collect(),
    };
    let mut grids = vec![(phases, 10), (troubles, 1)];
    if !report.expectations.is_empty() {
        let judged = report.expectations.iter();
        let expectations = Grid {
            caption: "What was expected".to_owned(),
            columns: names(&["of", "expected", "found", "outcome"]),
            rows: judged
                .map(|judged| {
                    let outcome = judged.outcome.name().to_owned();
                    vec![judged.of.clone(), judged.expected.clone(), judged.found.clone(), outcome]
                })
                .collect(),
        };
        grids.push((expectations, 1));
    }
    if !report.deaths.is_empty() {
        let deaths = report.deaths.iter().map(|death| {
            vec![
                death.queue_pair.to_string(),
                death.phase.clone(),
                seconds(death.at_s),
                death.status.clone(),
                figure(death.back_after_s.map(|after| after * 1e9)),
            ]
        });
        let deaths = Grid {
            caption: "Queue pairs that died".to_owned(),
            columns: names(&["queue pair", "phase", "told at", "status", "a message got through after"]),
            rows: deaths.collect(),
        };
        grids.push((deaths, 5));
    }
    grids
}

fn stretches(report: &StressReport) -> Vec<[String; 6]> {
    let phase =
        |at: f64| report.phases.iter().rev().find(|phase| phase.at_s <= at).map(|phase| phase.name.clone());
    let figure = |value: Option<f64>| value.map(nanoseconds).unwrap_or_default();
    let row = |stretch: &crate::timeline::Stretch| {
        [
            seconds(stretch.at_s),
            phase(stretch.at_s).unwrap_or_default(),
            stretch.samples.to_string(),
            figure(stretch.p50),
            figure(stretch.p99),
            figure(stretch.max),
        ]
    };
    report.timeline.iter().map(row).collect()
}
