//! What is told of peers: tables for a terminal and for the page, and rows of CSV.

use super::{Peers, Row};
use crate::columns::Columns;
use crate::csv;
use crate::grid::Grid;
use crate::histogram::nanoseconds;
use crate::plan::Benchmark;
use crate::report::bytes;
use crate::words::fold;

const LATENCIES: &str = "Latency one way, closed loop";
const STREAMS: &str = "Bytes a second in one direction, many messages under way";

impl Peers {
    /// The terminal's text.
    pub(super) fn text(&self) -> String {
        let mut text = String::new();
        let cores = self.environment.pinned;
        let pinned = match (cores.initiator, cores.responder) {
            (Some(one), Some(other)) => format!("on cores {one} and {other}"),
            _ => "not pinned".into(),
        };
        let head = format!(
            "what RDMA buys here: two processes {pinned}; poll spins (sockets are non-blocking), event sleeps (sockets are \
             blocking); vs tcp: times less latency or more bytes than tcp of that size and wait"
        );
        fold(&mut text, 0, &head);
        for (benchmark, title) in [(Benchmark::Pingpong, LATENCIES), (Benchmark::Bw, STREAMS)] {
            let rows: Vec<&Row> = self.rows.iter().filter(|row| row.benchmark == benchmark).collect();
            if rows.is_empty() {
                continue;
            }
            let mut columns = Columns::new(["size", "wait", "peer"], names(benchmark).iter().copied());
            for row in rows {
                match &row.reason {
                    Some(reason) => columns.row_of_words(row.labels(), reason.clone()),
                    None => columns.row(row.labels().into_iter().chain(row.figures())),
                }
            }
            text.push_str(&format!("\n{title}\n{}", columns.text()));
        }
        text
    }

    /// The same for the page.
    pub(super) fn grids(&self) -> Vec<Grid> {
        let both = [(Benchmark::Pingpong, LATENCIES), (Benchmark::Bw, STREAMS)];
        let grid = |(benchmark, caption): (Benchmark, &str)| {
            let rows: Vec<_> = self
                .rows
                .iter()
                .filter(|row| row.benchmark == benchmark)
                .map(|row| {
                    let told = row.reason.clone().map_or_else(|| row.figures(), |reason| vec![reason]);
                    row.labels().into_iter().chain(told).collect()
                })
                .collect();
            let columns = ["size", "wait", "peer"].iter().chain(names(benchmark));
            let columns = columns.map(|name| (*name).to_owned()).collect();
            (!rows.is_empty()).then(|| Grid { caption: caption.to_owned(), columns, rows })
        };
        both.into_iter().filter_map(grid).collect()
    }

    /// A row of names, and one a row.
    pub(super) fn csv(&self) -> String {
        let mut text =
            "reason,peer,benchmark,size_bytes,wait,p50_ns,p99_ns,p99_9_ns,max_ns,bytes_per_s,lost,vs_tcp,\
                        samples,verified\n"
                .to_owned();
        for row in &self.rows {
            let ns = |of: fn(&crate::histogram::Summary) -> f64| shown(row.one_way_ns.as_ref().map(of));
            let values = [
                row.reason.clone().unwrap_or_default(),
                row.peer.clone(),
                row.benchmark.to_string(),
                row.size_bytes.to_string(),
                row.wait.to_string(),
                ns(|ns| ns.p50),
                ns(|ns| ns.p99),
                ns(|ns| ns.p99_9),
                ns(|ns| ns.max),
                shown(row.bytes_per_s),
                shown(row.lost),
                shown(row.vs_tcp),
                row.samples.to_string(),
                row.verified.to_string(),
            ];
            text.push_str(&values.map(|value| csv::quoted(&value)).join(","));
            text.push('\n');
        }
        text
    }
}

fn shown(value: Option<f64>) -> String {
    value.map(|value| value.to_string()).unwrap_or_default()
}

/// The names of the figures.
fn names(benchmark: Benchmark) -> &'static [&'static str] {
    match benchmark {
        Benchmark::Pingpong => &["p50", "p99", "vs tcp", "p99.9", "max"],
        _ => &["bytes/s", "vs tcp", "lost"],
    }
}

impl Row {
    fn labels(&self) -> Vec<String> {
        vec![self.size_bytes.to_string(), self.wait.to_string(), self.peer.clone()]
    }

    fn figures(&self) -> Vec<String> {
        let ratio = self.vs_tcp.map_or_else(|| "-".to_owned(), |ratio| format!("{ratio:.2}"));
        match self.one_way_ns.filter(|_| self.benchmark == Benchmark::Pingpong) {
            Some(ns) => {
                let [p50, p99, p99_9, max] = [ns.p50, ns.p99, ns.p99_9, ns.max].map(nanoseconds);
                vec![p50, p99, ratio, p99_9, max]
            }
            None => {
                let rate = self.bytes_per_s.map(bytes).unwrap_or_default();
                vec![rate, ratio, self.lost.map(|lost| format!("{:.1} %", lost * 100.0)).unwrap_or_default()]
            }
        }
    }
}
