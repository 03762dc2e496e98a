//! What is told of a soak: a line an interval while it runs, the whole at its end, a row an interval of CSV.

use std::fmt::Write as _;
use std::time::Duration;

use super::{Interval, Resources, Soak};
use crate::grid::Grid;
use crate::histogram::nanoseconds;
use crate::plan::Benchmark;
use crate::report::bytes;
use crate::words::fold;

/// The columns of a line, with their widths.
const LATENCIES: [(&str, usize); 5] = [("p50", 9), ("p99", 9), ("p99.9", 9), ("max", 9), ("messages", 10)];
const STREAMS: [(&str, usize); 2] = [("bytes/s", 12), ("messages", 10)];
/// Those of what both processes hold together.
const HELD: [(&str, usize); 3] = [("memory", 8), ("files", 5), ("thr.", 4)];

/// An interval's line.
pub(super) fn line(interval: &Interval) -> String {
    let columns: &[(&str, usize)] = if interval.bytes_per_s.is_some() { &STREAMS } else { &LATENCIES };
    let cells = interval.cells();
    let widths = [9].into_iter().chain(columns.iter().chain(&HELD).map(|(_, width)| *width));
    let mut text = String::new();
    for (cell, width) in cells.iter().zip(widths) {
        let _ = write!(text, "{cell:>width$} ");
    }
    text.trim_end().to_owned() + "\n"
}

/// A point of the run: `1:02:03` or `12.3 s`.
fn moment(seconds: f64) -> String {
    if seconds < 60.0 {
        return format!("{seconds:.1} s");
    }
    let whole = seconds as u64;
    format!("{}:{:02}:{:02}", whole / 3600, whole / 60 % 60, whole % 60)
}

impl Interval {
    /// What the two processes hold together.
    fn held(&self) -> Option<Resources> {
        let own = self.initiator?;
        let of = |value: fn(&Resources) -> u64| value(&own) + self.responder.as_ref().map_or(0, value);
        Some(Resources {
            rss_bytes: of(|held| held.rss_bytes),
            fds: of(|held| held.fds),
            threads: of(|held| held.threads),
        })
    }

    fn cells(&self) -> Vec<String> {
        let mut cells = vec![moment(self.at_s)];
        match (self.bytes_per_s, self.one_way_ns) {
            (Some(rate), _) => cells.push(bytes(rate)),
            (None, Some(ns)) => cells.extend([ns.p50, ns.p99, ns.p99_9, ns.max].map(nanoseconds)),
            (None, None) => cells.extend(["-"; 4].map(str::to_owned)),
        }
        cells.push(self.samples.to_string());
        if let Some(held) = self.held() {
            let memory = format!("{:.1} M", held.rss_bytes as f64 / f64::from(1 << 20));
            cells.extend([memory, held.fds.to_string(), held.threads.to_string()]);
        }
        cells
    }
}

impl Soak {
    fn columns(&self) -> Vec<(&'static str, usize)> {
        let columns: &[(&str, usize)] = match self.plan.benchmark {
            Benchmark::Pingpong => &LATENCIES,
            _ => &STREAMS,
        };
        [("time", 9)].iter().chain(columns).chain(&HELD).copied().collect()
    }

    /// What it is, before it begins.
    pub(super) fn head(&self, duration: Duration) -> String {
        let mut text = String::new();
        fold(&mut text, 0, &format!("{}, for {}", self.title(), moment(duration.as_secs_f64())));
        text.push('\n');
        for (name, width) in self.columns() {
            let _ = write!(text, "{name:>width$} ");
        }
        text.trim_end().to_owned() + "\n"
    }

    fn title(&self) -> String {
        let plan = &self.plan;
        let mut text = format!(
            "soak of {} {} over {}, {} bytes, device {}, profile {}",
            plan.benchmark, plan.op, plan.transport, plan.size, self.device, self.profile
        );
        for (name, value) in [("link", &plan.link), ("fault", &plan.fault)] {
            if let Some(value) = value {
                let _ = write!(text, ", {name} {value}");
            }
        }
        if let Some(seed) = plan.seed {
            let _ = write!(text, ", seed {seed}");
        }
        match self.rate_per_s {
            Some(rate) => {
                let _ = write!(text, "; open loop, {rate} messages/s, times from due to answered");
            }
            None if plan.benchmark == Benchmark::Pingpong => text.push_str("; closed loop"),
            None => {}
        }
        text
    }

    /// The whole, at the end.
    pub(super) fn summary(&self) -> String {
        let mut text = String::from("\n");
        if let (Some(ns), Some(measures)) = (self.one_way_ns, &self.measures) {
            let [p50, p99, p99_9, p99_99, max] =
                [ns.p50, ns.p99, ns.p99_9, ns.p99_99, ns.max].map(nanoseconds);
            let all = format!("p50 {p50}, p99 {p99}, p99.9 {p99_9}, p99.99 {p99_99}, max {max} ({measures})");
            entry(&mut text, "latencies", &all);
        }
        let ended = if self.interrupted { ", interrupted" } else { "" };
        let messages = format!("{} in {}{ended}", self.samples, moment(self.elapsed_s));
        entry(&mut text, "messages", &messages);
        entry(&mut text, "checked", &format!("{} messages, {} errors", self.messages_checked, self.errors));
        let held = match self.growing.is_empty() {
            true => format!("nothing keeps growing; watched: {}", self.watched),
            false => self.growing.join("; "),
        };
        entry(&mut text, "leaks", &held);
        text
    }

    /// The intervals for the page.
    pub(super) fn grid(&self) -> Grid {
        Grid {
            caption: self.title(),
            columns: self.columns().iter().map(|(name, _)| (*name).to_owned()).collect(),
            rows: self.intervals.iter().map(Interval::cells).collect(),
        }
    }

    /// A row of names, and one an interval.
    pub(super) fn csv(&self) -> String {
        let mut text =
            "at_s,messages,p50_ns,p99_ns,p99_9_ns,max_ns,bytes_per_s,initiator_rss_bytes,initiator_fds,\
                        initiator_threads,responder_rss_bytes,responder_fds,responder_threads\n"
                .to_owned();
        for interval in &self.intervals {
            let ns =
                interval.one_way_ns.map(|ns| [ns.p50, ns.p99, ns.p99_9, ns.max].map(|ns| ns.to_string()));
            let held = |held: Option<Resources>| {
                held.map(|held| [held.rss_bytes, held.fds, held.threads].map(|value| value.to_string()))
                    .unwrap_or_default()
            };
            let mut row = vec![interval.at_s.to_string(), interval.samples.to_string()];
            row.extend(ns.unwrap_or_default());
            row.push(interval.bytes_per_s.map(|rate| rate.to_string()).unwrap_or_default());
            row.extend(held(interval.initiator));
            row.extend(held(interval.responder));
            text.push_str(&row.join(","));
            text.push('\n');
        }
        text
    }
}

fn entry(text: &mut String, name: &str, value: &str) {
    const NAME: usize = 12;
    let _ = write!(text, "{name:<NAME$}");
    fold(text, NAME, value);
}
