//! A stress run as rows of CSV: one for each phase, one column a figure, empty where there is none.

use super::result::{PhaseReport, StressReport};
use crate::csv::quoted;
use crate::histogram::Summary;

/// The names of the columns, separated by commas.
#[must_use]
pub fn names() -> String {
    columns(None).iter().map(|(name, _)| *name).collect::<Vec<_>>().join(",")
}

/// The rows, with an end of line between them.
#[must_use]
pub fn rows(report: &StressReport) -> String {
    let row = |phase: &PhaseReport| {
        let columns = columns(Some((report, phase)));
        columns.iter().map(|(_, value)| quoted(value)).collect::<Vec<_>>().join(",")
    };
    report.phases.iter().map(row).collect::<Vec<_>>().join("\n")
}

/// Names and values side by side, so that they cannot come apart.
fn columns(of: Option<(&StressReport, &PhaseReport)>) -> Vec<(&'static str, String)> {
    let run =
        |value: &dyn Fn(&StressReport) -> String| of.map(|(report, _)| value(report)).unwrap_or_default();
    let phase =
        |value: &dyn Fn(&PhaseReport) -> String| of.map(|(_, phase)| value(phase)).unwrap_or_default();
    let maybe = |value: Option<f64>| value.map(|value| value.to_string()).unwrap_or_default();
    let latency = |summary: fn(&PhaseReport) -> Option<Summary>, value: fn(Summary) -> f64| {
        phase(&|phase| maybe(summary(phase).map(value)))
    };
    let counted = |name: &'static str| phase(&|phase| phase.counters.both(name).to_string());
    vec![
        ("plan", run(&|report| report.plan.clone())),
        ("device", run(&|report| report.device.clone())),
        ("profile", run(&|report| report.profile.clone())),
        ("seed", run(&|report| report.seed.to_string())),
        ("op", run(&|report| report.op.to_string())),
        ("size_bytes", run(&|report| report.size_bytes.to_string())),
        ("loop", run(&|report| report.kind_of_loop.clone())),
        ("rate_per_s", run(&|report| maybe(report.rate_per_s))),
        ("verdict", run(&|report| report.verdict.name().to_owned())),
        ("verified", run(&|report| report.verified.to_string())),
        ("phase", phase(&|phase| phase.name.clone())),
        ("at_s", phase(&|phase| phase.at_s.to_string())),
        ("lasts_s", phase(&|phase| phase.lasts_s.to_string())),
        ("wrong", phase(&|phase| phase.wrong.clone().unwrap_or_default())),
        ("samples", phase(&|phase| phase.samples.to_string())),
        ("failed", phase(&|phase| phase.failed.to_string())),
        ("unsent", phase(&|phase| phase.unsent.to_string())),
        ("response_p50_ns", latency(|phase| phase.response_ns, |ns| ns.p50)),
        ("response_p99_ns", latency(|phase| phase.response_ns, |ns| ns.p99)),
        ("response_max_ns", latency(|phase| phase.response_ns, |ns| ns.max)),
        ("service_p50_ns", latency(|phase| phase.service_ns, |ns| ns.p50)),
        ("service_p99_ns", latency(|phase| phase.service_ns, |ns| ns.p99)),
        ("service_max_ns", latency(|phase| phase.service_ns, |ns| ns.max)),
        ("goodput_bits_per_s", phase(&|phase| phase.goodput_bits_per_s.to_string())),
        ("deaths", phase(&|phase| phase.deaths.to_string())),
        ("told_after_s", phase(&|phase| maybe(phase.told_after_s))),
        ("recovered_after_s", phase(&|phase| maybe(phase.recovered_after_s))),
        ("away_s", phase(&|phase| maybe(phase.away_s))),
        ("retransmitted_pkts", counted("retransmitted_pkts")),
        ("ack_timeout_err", counted("ack_timeout_err")),
        ("rcvd_seq_err", counted("rcvd_seq_err")),
        ("rcvd_rnr_err", counted("rcvd_rnr_err")),
    ]
}
