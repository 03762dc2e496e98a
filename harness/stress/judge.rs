//! Whether what a plan expects has come about.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::drive::Found;
use super::plan::{Expect, Plan, status_name};
use super::result::PhaseReport;
use crate::histogram::nanoseconds;

/// A run whose thread was kept from its core for longer than this, and not by the plan, tells of the machine more than of the connection.
const AWAY: Duration = Duration::from_millis(2);

/// What became of an expectation; worse is more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// It came about.
    Met,
    /// There is nothing to tell by.
    NotMeasurable,
    /// It did not.
    Missed,
}

impl Outcome {
    /// In words.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Met => "met",
            Self::NotMeasurable => "not measurable",
            Self::Missed => "MISSED",
        }
    }

    /// The exit code of the program.
    #[must_use]
    pub fn exit_code(self) -> u8 {
        match self {
            Self::Met => 0,
            Self::Missed => 1,
            Self::NotMeasurable => 2,
        }
    }
}

/// An expectation, and what became of it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Judged {
    /// Of which phase; `run` is all of it.
    pub of: String,
    /// What was expected.
    pub expected: String,
    /// What became of it.
    pub outcome: Outcome,
    /// What was found.
    pub found: String,
}

/// All expectations of a plan, those of phases before those of the run.
pub(super) fn judge(plan: &Plan, found: &Found, phases: &[PhaseReport]) -> Vec<Judged> {
    let baseline = phases.first();
    let mut all = Vec::new();
    for (index, (phase, report)) in plan.phases.iter().zip(phases).enumerate() {
        let statuses = found.deaths.iter().filter(|death| death.phase == index);
        let facts = Facts {
            of: format!("phase {}", phase.name),
            phases: std::slice::from_ref(report),
            baseline,
            usual: Some(plan.usual(phase)),
            statuses: statuses.map(|death| status_name(death.status)).collect(),
        };
        facts.judge(&phase.expect, &mut all);
    }
    let statuses = found.deaths.iter().map(|death| status_name(death.status)).collect();
    Facts { of: "run".to_owned(), phases, baseline, usual: plan.expect.usual, statuses }
        .judge(&plan.expect, &mut all);
    excuse(plan, found, &mut all);
    all
}

/// What is missed on a machine that was busy with something else cannot be told.
fn excuse(plan: &Plan, found: &Found, all: &mut [Judged]) {
    let own_doing = plan.phases.iter().map(|phase| phase.hogs > 0).chain([false]);
    let away = found.away.iter().zip(own_doing).filter(|(_, own_doing)| !own_doing).map(|(away, _)| *away);
    let Some(away) = away.max().filter(|away| *away > AWAY) else { return };
    for judged in all.iter_mut().filter(|judged| judged.outcome == Outcome::Missed) {
        judged.outcome = Outcome::NotMeasurable;
        let away = nanoseconds(away.as_nanos() as f64);
        judged.found.push_str(&format!(", but the machine kept the run from its core for up to {away}"));
    }
}

/// What is known of a phase, or of all.
struct Facts<'r> {
    of: String,
    phases: &'r [PhaseReport],
    baseline: Option<&'r PhaseReport>,
    /// How many times the baseline's p99 is as usual, where that is said of all that is meant.
    usual: Option<f64>,
    statuses: Vec<String>,
}

/// A comparison.
fn is(holds: bool) -> Outcome {
    if holds { Outcome::Met } else { Outcome::Missed }
}

/// The quantile of a phase's latencies, of the responses where there are some.
fn latency(report: &PhaseReport, is_median: bool) -> Option<f64> {
    let summary = report.response_ns.or(report.service_ns)?;
    Some(if is_median { summary.p50 } else { summary.p99 })
}

impl Facts<'_> {
    fn sum(&self, of: impl Fn(&PhaseReport) -> u64) -> u64 {
        self.phases.iter().map(of).sum()
    }

    fn judge(&self, expect: &Expect, all: &mut Vec<Judged>) {
        let mut say = |expected: String, (outcome, found): (Outcome, String)| {
            all.push(Judged { of: self.of.clone(), expected, outcome, found });
        };
        if let Some(within) = expect.recovered_within {
            let usual =
                self.usual.map(|usual| format!(", to {usual} times the baseline's p99")).unwrap_or_default();
            say(format!("recovered within {within}{usual}"), self.recovered(within.0));
        }
        let lost = self.sum(|phase| phase.failed + phase.unsent);
        if let Some(most) = expect.failed_at_most {
            say(
                format!("at most {most} messages fail or are left unsent"),
                (is(lost <= most), lost.to_string()),
            );
        }
        if let Some(least) = expect.failed_at_least {
            say(
                format!("at least {least} messages fail or are left unsent"),
                (is(lost >= least), lost.to_string()),
            );
        }
        let ratios = [
            ("p99 at most", expect.p99_at_most, false, true),
            ("p99 at least", expect.p99_at_least, false, false),
            ("p50 at least", expect.p50_at_least, true, false),
        ];
        for (words, bound, is_median, at_most) in ratios {
            if let Some(bound) = bound {
                say(format!("{words} {bound} times the baseline's"), self.ratio(bound, is_median, at_most));
            }
        }
        self.goodput(expect, &mut say);
        for (name, least) in &expect.counters {
            let count = self.sum(|phase| phase.counters.both(name));
            say(format!("{name} at least {least}"), self.counted(count >= *least, count));
        }
        for (name, most) in &expect.counters_at_most {
            let count = self.sum(|phase| phase.counters.both(name));
            say(format!("{name} at most {most}"), self.counted(count <= *most, count));
        }
        if let Some(status) = expect.status {
            let status = status_name(status.0);
            let others: Vec<_> =
                self.statuses.iter().filter(|one| **one != status).map(String::as_str).collect();
            let found = match (self.statuses.len(), others.is_empty()) {
                (0, _) => "none died".to_owned(),
                (died, true) => format!("{died} died so"),
                (died, false) => format!("of {died} that died, with {}", others.join(", ")),
            };
            let holds = !self.statuses.is_empty() && others.is_empty();
            say(format!("queue pairs die with {status}"), (is(holds), found));
        }
        if let Some(within) = expect.told_within {
            let told = self
                .phases
                .iter()
                .filter_map(|phase| phase.told_after_s)
                .fold(None, |most, s| Some(s.max(most.unwrap_or(s))));
            let outcome = match told {
                Some(seconds) => (is(seconds <= within.0.as_secs_f64()), nanoseconds(seconds * 1e9)),
                None => (Outcome::Missed, "never".to_owned()),
            };
            say(format!("the program is told within {within}"), outcome);
        }
        if let Some(most) = expect.deaths_at_most {
            let deaths = self.statuses.len() as u64;
            say(format!("at most {most} queue pairs die"), (is(deaths <= most), deaths.to_string()));
        }
    }

    fn recovered(&self, within: Duration) -> (Outcome, String) {
        if self.baseline.is_none_or(|baseline| baseline.samples == 0) {
            return (Outcome::NotMeasurable, "the baseline has no messages".to_owned());
        }
        let mut longest: f64 = 0.0;
        for phase in self.phases.iter().filter(|phase| phase.wrong.is_some()) {
            match phase.recovered_after_s {
                None => return (Outcome::Missed, format!("not after phase {}", phase.name)),
                Some(seconds) => longest = longest.max(seconds),
            }
        }
        (is(longest <= within.as_secs_f64()), format!("after {}", nanoseconds(longest * 1e9)))
    }

    /// The worst phase's quantile beside the baseline's.
    fn ratio(&self, bound: f64, is_median: bool, at_most: bool) -> (Outcome, String) {
        let usual = self.baseline.and_then(|baseline| latency(baseline, is_median));
        let worst = self.phases.iter().filter_map(|phase| latency(phase, is_median)).reduce(f64::max);
        match (usual, worst) {
            (Some(usual), Some(worst)) if usual > 0.0 => {
                let ratio = worst / usual;
                let holds = if at_most { ratio <= bound } else { ratio >= bound };
                (is(holds), format!("{ratio:.2} times"))
            }
            _ => (Outcome::NotMeasurable, "no messages to tell by".to_owned()),
        }
    }

    fn goodput(&self, expect: &Expect, say: &mut impl FnMut(String, (Outcome, String))) {
        let lasts: f64 = self.phases.iter().map(|phase| phase.lasts_s).sum();
        let bits: f64 = self.phases.iter().map(|phase| phase.goodput_bits_per_s * phase.lasts_s).sum();
        let goodput = bits / lasts;
        let found = format!("{:.1} Mbps", goodput / 1e6);
        if let Some(least) = expect.goodput_at_least {
            say(format!("goodput at least {least}"), (is(goodput >= least.0 as f64), found.clone()));
        }
        if let Some(most) = expect.goodput_at_most {
            say(format!("goodput at most {most}"), (is(goodput <= most.0 as f64), found));
        }
    }

    /// What was counted, if anything is.
    fn counted(&self, holds: bool, count: u64) -> (Outcome, String) {
        let counts = |phase: &PhaseReport| {
            !phase.counters.initiator.is_empty() || !phase.counters.responder.is_empty()
        };
        if self.phases.iter().any(counts) {
            (is(holds), count.to_string())
        } else {
            (Outcome::NotMeasurable, "the device counts nothing".to_owned())
        }
    }
}
