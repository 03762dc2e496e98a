//! What people read of ranks, in the report and on the page.

use std::fmt::Write as _;

use super::outcome::GroupReport;
use crate::columns::Columns;
use crate::histogram::nanoseconds;
use crate::plan::Benchmark;
use crate::report::{bytes, entry};
use crate::result::Report;

/// Pairs of a table at most; above that there is a row for each receiver.
const MOST_PAIRS: usize = 32;

/// What a sample is, and when the next is taken.
#[must_use]
pub fn measures(report: &Report) -> String {
    match report.benchmark {
        Benchmark::Allreduce => {
            "one operation of all ranks: from its begin at a rank until the sum is there and its sends have completed".into()
        }
        _ => format!(
            "from posting a message to its completion, with up to {} under way from each sender to each receiver",
            report.depth
        ),
    }
}

/// What kind of loop it is.
#[must_use]
pub fn kind_of_loop(report: &Report) -> &'static str {
    match report.benchmark {
        Benchmark::Allreduce => "closed: a rank begins the next operation when it has ended the last",
        _ => "closed: a message is posted when one of those before has completed, so who is slow sends less",
    }
}

/// How evenly, in a line.
#[must_use]
pub fn fairness(group: &GroupReport) -> Option<String> {
    let fairness = group.fairness?;
    Some(format!(
        "Jain's index {:.4} (1: all the same); least {}, most {}, {:.3} of it",
        fairness.jain,
        bytes(fairness.min_bytes_per_s),
        bytes(fairness.max_bytes_per_s),
        fairness.min_bytes_per_s / fairness.max_bytes_per_s
    ))
}

/// How many ranks, and whether there are cores for them.
#[must_use]
pub fn ranks(group: &GroupReport) -> String {
    let elsewhere = group.members.iter().filter(|member| !member.with_rank_0).count();
    let hosts = if elsewhere > 0 { format!(", {elsewhere} of them on other hosts") } else { String::new() };
    format!("{}{hosts}; {} cores", group.ranks, group.cores)
}

/// Where ranks ran.
#[must_use]
pub fn seats(group: &GroupReport) -> String {
    let cores: Vec<_> = group.members.iter().filter_map(|member| member.core).collect();
    match cores.len() {
        0 => "no rank is pinned".to_owned(),
        pinned if pinned == group.ranks => {
            let cores: Vec<_> = cores.iter().map(usize::to_string).collect();
            format!("ranks on cores {}", cores.join(", "))
        }
        pinned => format!("{pinned} ranks are pinned"),
    }
}

/// What a reader must know about ranks before believing the figures.
#[must_use]
pub fn warning(group: &GroupReport) -> Option<String> {
    group.crowded.then(|| {
        format!(
            "{} ranks are more than the {} cores: they take turns, waits give the core away, and figures are of the scheduler \
             as much as of the device",
            group.ranks, group.cores
        )
    })
}

/// The pairs as rows: from, to, bytes per second, messages, and latencies.
#[must_use]
pub fn rows(group: &GroupReport) -> Vec<[String; 7]> {
    let of = |pair: &super::outcome::Pair| {
        let latency = |of: fn(&crate::histogram::Summary) -> f64| {
            pair.latency_ns.as_ref().map(|ns| nanoseconds(of(ns))).unwrap_or_default()
        };
        [
            pair.from.to_string(),
            pair.to.to_string(),
            bytes(pair.bytes_per_s),
            pair.messages.to_string(),
            latency(|ns| ns.p50),
            latency(|ns| ns.p99),
            latency(|ns| ns.max),
        ]
    };
    group.pairs.iter().map(of).collect()
}

/// The names of these columns.
pub const COLUMNS: [&str; 7] = ["from", "to", "throughput", "messages", "p50", "p99", "max"];

/// The part of the report that is about ranks.
pub fn group(text: &mut String, group: &GroupReport) {
    if !group.pairs.is_empty() {
        let [from, to, figures @ ..] = COLUMNS;
        let mut columns = Columns::new([from, to], figures);
        let rows = rows(group);
        for row in rows.iter().take(MOST_PAIRS) {
            columns.row(row.clone());
        }
        for line in columns.text().lines() {
            let _ = writeln!(text, "  {line}");
        }
        if rows.len() > MOST_PAIRS {
            let _ = writeln!(text, "  and {} more: --json has all", rows.len() - MOST_PAIRS);
        }
        text.push('\n');
    }
    entry(text, "ranks", &ranks(group));
    if let Some(fairness) = fairness(group) {
        entry(text, "fairness", &fairness);
    }
}
