//! What people read of ranks, in the report and on the page.

use std::fmt::Write as _;

use super::outcome::{AllreduceReport, GroupReport};
use crate::columns::Columns;
use crate::histogram::{Summary, nanoseconds};
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

/// What an allreduce was, and how fast in NCCL's terms.
#[must_use]
pub fn algorithm(group: &GroupReport, allreduce: &AllreduceReport) -> String {
    let AllreduceReport { algorithm, element, elements, algorithm_bytes_per_s, bus_bytes_per_s } = allreduce;
    format!(
        "{algorithm}, {elements} elements of {element}; algorithm bandwidth {} (vector by mean time), bus bandwidth {} (that \
         times 2({}-1)/{})",
        bytes(*algorithm_bytes_per_s),
        bytes(*bus_bytes_per_s),
        group.ranks,
        group.ranks
    )
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
        let latency = |of: fn(&Summary) -> f64| {
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
    if let Some(allreduce) = &group.allreduce {
        let mut columns = Columns::new(["rank", "core"], ["p50", "p99", "max", "mean"]);
        for member in &group.members {
            let of = |of: fn(&Summary) -> f64| {
                member.latency_ns.as_ref().map(|ns| nanoseconds(of(ns))).unwrap_or_default()
            };
            let core = member.core.map_or_else(|| "any".to_owned(), |core| core.to_string());
            columns.row([
                member.rank.to_string(),
                core,
                of(|ns| ns.p50),
                of(|ns| ns.p99),
                of(|ns| ns.max),
                of(|ns| ns.mean),
            ]);
        }
        for line in columns.text().lines() {
            let _ = writeln!(text, "  {line}");
        }
        text.push('\n');
        entry(text, "algorithm", &algorithm(group, allreduce));
    }
    entry(text, "ranks", &ranks(group));
    if let Some(fairness) = fairness(group) {
        entry(text, "fairness", &fairness);
    }
}
