//! A stress run for people: at most eighty columns, no colour.

use std::fmt::Write as _;

use super::result::{PhaseReport, StressReport};
use crate::columns::Columns;
use crate::histogram::nanoseconds;
use crate::words::fold;

/// Where values begin.
const INDENT: usize = 12;

/// A run that is kept from its core for longer than this is worth a word.
const AWAY_S: f64 = 1e-3;

/// The whole report.
#[must_use]
pub fn full(report: &StressReport) -> String {
    let mut text = String::new();
    let mut say = |name: &str, value: &str| {
        let _ = write!(text, "{name:INDENT$}");
        fold(&mut text, INDENT, value);
    };
    say("stress", &format!("{} on {}, seed {}", report.plan, report.device, report.seed));
    say("", &report.about);
    say("sent", &sent(report));
    say("time", if report.is_virtual { "virtual: a model's, and nothing of this machine" } else { "real" });
    text.push('\n');
    text.push_str(&table(report));
    text.push('\n');
    for phase in &report.phases {
        details(&mut text, phase);
    }
    for death in &report.deaths {
        let back = death.back_after_s.map_or_else(
            || "nothing got through after that".to_owned(),
            |after| format!("a message got through on the next after {}", seconds(after)),
        );
        let _ = write!(text, "{:INDENT$}", "died");
        let what = format!(
            "queue pair {} at {} with {}; {back}",
            death.queue_pair,
            seconds(death.at_s),
            death.status
        );
        fold(&mut text, INDENT, &what);
    }
    let _ = write!(text, "{:INDENT$}", "checked");
    let wrong = match &report.first_error {
        Some(first) => format!("; {} WRONG, the first: {first}", report.errors),
        None if !report.verified => "; NOT ALL OF THEM".to_owned(),
        None => String::new(),
    };
    fold(&mut text, INDENT, &format!("{} messages: {}{wrong}", report.messages_checked, report.verification));
    for judged in &report.expectations {
        let _ = write!(text, "{:INDENT$}", "expected");
        let what =
            format!("{}: {} ({}): {}", judged.of, judged.expected, judged.found, judged.outcome.name());
        fold(&mut text, INDENT, &what);
    }
    let _ = writeln!(text, "{:INDENT$}{}", "verdict", report.verdict.name());
    text
}

/// The report in one line, for `--quiet`.
#[must_use]
pub fn line(report: &StressReport) -> String {
    let missed = report
        .expectations
        .iter()
        .find(|judged| judged.outcome == report.verdict && report.verdict.exit_code() != 0);
    let why = missed.map_or_else(String::new, |judged| {
        format!("; {}: {} ({})", judged.of, judged.expected, judged.found)
    });
    let met = report.expectations.iter().filter(|judged| judged.outcome.exit_code() == 0).count();
    let verdict = if report.verified { report.verdict.name() } else { "bytes were WRONG" };
    format!(
        "stress {} on {}, seed {}: {} messages, {} failed, {met} of {} expectations met, verdict: {}{why}\n",
        report.plan,
        report.device,
        report.seed,
        report.samples,
        report.failed + report.unsent,
        report.expectations.len(),
        verdict
    )
}

fn seconds(seconds: f64) -> String {
    nanoseconds(seconds * 1e9)
}

/// What is sent, in words.
pub(crate) fn sent(report: &StressReport) -> String {
    let pace = match report.rate_per_s {
        Some(rate) => format!("open loop: {rate} messages/s due by the clock"),
        None => "closed loop: the next is sent when there is room".to_owned(),
    };
    let link = report.link.as_ref().map(|link| format!(", link {link}")).unwrap_or_default();
    let pairs = if report.queue_pairs == 1 {
        String::new()
    } else {
        format!(" on each of {} queue pairs", report.queue_pairs)
    };
    format!(
        "{} of {} bytes over rc, up to {} outstanding{pairs}{link}; {pace}; a latency is {}; {}",
        report.op, report.size_bytes, report.depth, report.measures, report.sides
    )
}

/// What the figures of a phase are called, the dearest first.
pub(crate) const FIGURES: [&str; 8] = ["answered", "failed", "p50", "p99", "max", "recovered", "Mbps", "for"];

/// The figures.
pub(crate) fn figures(phase: &PhaseReport) -> [String; 8] {
    let ns = phase.response_ns.or(phase.service_ns);
    let figure = |value: Option<f64>| value.map_or_else(|| "-".to_owned(), nanoseconds);
    [
        phase.samples.to_string(),
        (phase.failed + phase.unsent).to_string(),
        figure(ns.map(|ns| ns.p50)),
        figure(ns.map(|ns| ns.p99)),
        figure(ns.map(|ns| ns.max)),
        recovered(phase),
        format!("{:.1}", phase.goodput_bits_per_s / 1e6),
        seconds(phase.lasts_s),
    ]
}

fn table(report: &StressReport) -> String {
    let mut columns = Columns::new(["phase"], FIGURES);
    for phase in &report.phases {
        columns.row(std::iter::once(phase.name.clone()).chain(figures(phase)));
    }
    columns.text()
}

/// When a phase was over what went wrong in it.
fn recovered(phase: &PhaseReport) -> String {
    match (&phase.wrong, phase.recovered_after_s) {
        (None, _) => "-".to_owned(),
        (Some(_), None) => "no".to_owned(),
        (Some(_), Some(after)) => seconds(after),
    }
}

/// What went wrong in a phase, and what the transport did.
fn details(text: &mut String, phase: &PhaseReport) {
    let counted = counted(phase);
    if phase.wrong.is_none() && counted.is_empty() {
        return;
    }
    let _ = write!(text, "{:INDENT$}", "in phase");
    let wrong = phase.wrong.as_deref().unwrap_or("nothing goes wrong");
    let told = phase.told_after_s.map(|after| format!("; told after {}", seconds(after))).unwrap_or_default();
    let counted = if counted.is_empty() { String::new() } else { format!("; {}", counted.join(", ")) };
    let away = phase.away_s.filter(|away| *away > AWAY_S);
    let away =
        away.map(|away| format!("; kept from its core for up to {}", seconds(away))).unwrap_or_default();
    fold(text, INDENT, &format!("{}: {wrong}{told}{counted}{away}", phase.name));
}

/// What both sides counted of trouble.
pub(crate) fn counted(phase: &PhaseReport) -> Vec<String> {
    /// What is counted of packets that go well, too.
    const USUAL: [&str; 8] = [
        "sent_pkts",
        "rcvd_pkts",
        "ack_deferred",
        "port_xmit_packets",
        "port_xmit_data",
        "port_rcv_packets",
        "port_rcv_data",
        "fault_delayed",
    ];
    let names: std::collections::BTreeSet<_> = [&phase.counters.initiator, &phase.counters.responder]
        .into_iter()
        .flat_map(|side| side.keys())
        .collect();
    let trouble =
        names.into_iter().filter(|name| !USUAL.contains(&name.as_str()) && !name.starts_with("udp_"));
    trouble.map(|name| format!("{name} {}", phase.counters.both(name))).collect()
}
