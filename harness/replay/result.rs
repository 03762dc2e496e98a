//! The result of a replay: a report for each operation, beside what the trace says of it; as JSON, as CSV, and for people.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use serde::{Deserialize, Serialize};

use super::figures::{Figures, Row};
use super::trace::Trace;
use super::workload::Workload;
use super::{Flags, Found};
use crate::columns::Columns;
use crate::csv;
use crate::environment::BothSides;
use crate::error::{Context, Error, Result};
use crate::histogram::{Latencies, Measures, Summary, nanoseconds};
use crate::open_loop::{Arrivals, OpenLoopReport};
use crate::outputs::percentiles;
use crate::plan::{Op, Plan};
use crate::result::Report;
use crate::run::begun;
use crate::session::OpenDevice;
use crate::words::fold;

/// Name and version of the contract of `--json`: `harness/schema/tbrdma-bench-replay-1.json`.
pub const SCHEMA: &str = "tbrdma-bench-replay/1";
/// Where the words of the report begin.
const INDENT: usize = 14;
/// A schedule was kept if it took at most so many times as long as in the trace.
const KEPT: f64 = 1.01;

/// A replay.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Replay {
    /// [`SCHEMA`].
    pub schema: String,
    /// The file.
    pub trace: String,
    /// The devices that the program had opened.
    pub traced_devices: Vec<String>,
    /// `trace`: each list of requests is posted when the clock of the trace says; `fast`: as soon as there is room.
    pub timing: String,
    /// Queue pairs with requests.
    pub queue_pairs: usize,
    /// Requests that were posted again.
    pub requests: u64,
    /// Requests of the trace that were not, by the reason.
    pub passed_over: BTreeMap<String, u64>,
    /// Requests that had their bytes in them and here have not.
    pub not_inline: u64,
    /// Requests that ask for a completion only here.
    pub signaled_besides: u64,
    /// From the first doorbell to the last, in seconds.
    pub posting_s: Both,
    /// Doorbells that came after the next was due; null if nothing was due.
    pub late: Option<u64>,
    /// The longest that one came after it was due, in nanoseconds.
    pub most_behind_ns: Option<u64>,
    /// Whether the schedule was kept, all in all.
    pub kept: Option<bool>,
    /// Messages of unreliable transports that did not arrive.
    pub lost: u64,
    /// Messages that were checked.
    pub messages_checked: u64,
    /// Of these, those that were not what they should be.
    pub errors: u64,
    /// The first of them.
    pub first_error: Option<String>,
    /// Was all checked that should be, and right?
    pub verified: bool,
    /// What is told apart: operation, transport and size.
    pub operations: Vec<Operation>,
    #[serde(skip)]
    all: Option<Latencies>,
}

/// In the trace, and in the replay.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Both {
    /// In the trace.
    pub trace: f64,
    /// Here.
    pub replay: f64,
}

/// One operation.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Operation {
    /// Operation, transport and bytes.
    pub name: String,
    /// Requests.
    pub requests: u64,
    /// Least and most bytes of a message; the report has those of the message in the middle.
    pub sizes: (u64, u64),
    /// Latencies in the trace, of requests that asked for a completion: from the begin of the call that posted to the end of the poll that found it.
    pub traced_ns: Option<Summary>,
    /// The latencies here, of the same requests; null if none asked for a completion.
    pub report: Option<Box<Report>>,
}

impl Replay {
    pub(super) fn new(
        flags: &Flags,
        trace: &Trace,
        work: &Workload,
        plan: &Plan,
        open: &OpenDevice,
        found: Found,
        sides: &'static str,
    ) -> Self {
        let Found { figures, account, lost, environment, memory } = found;
        let to_check = to_check(work);
        let verified = account.errors == 0 && account.checked + lost == to_check;
        let span = |first: u64, last: u64| last.saturating_sub(first) as f64 / 1e9;
        let last = work.posts.last().map_or(0, |post| post.due_ns);
        let posting_s = Both { trace: span(0, last), replay: figures.posting.as_secs_f64() };
        let mut replay = Self {
            schema: SCHEMA.into(),
            trace: flags.trace.display().to_string(),
            traced_devices: trace.devices.clone(),
            timing: if flags.fast { "fast" } else { "trace" }.into(),
            queue_pairs: work.lanes.len(),
            requests: work.items.len() as u64,
            passed_over: work.passed_over.clone(),
            not_inline: work.not_inline,
            signaled_besides: work.signaled_besides,
            posting_s,
            late: (!flags.fast).then_some(figures.late),
            most_behind_ns: (!flags.fast).then(|| figures.waits.max()),
            // A list or two have no schedule that could slip.
            kept: (!flags.fast).then_some(posting_s.replay <= posting_s.trace * KEPT + 1e-3),
            lost,
            messages_checked: account.checked,
            errors: account.errors,
            first_error: account.first_error.clone(),
            verified,
            operations: Vec::new(),
            all: None,
        };
        let mut blank = begun(plan, open, environment, memory, sides);
        blank.errors = account.errors;
        blank.first_error.clone_from(&account.first_error);
        blank.verified = verified;
        blank.messages_checked = account.checked;
        blank.verification = replay.verification();
        blank.post_list = ratio(work.items.len(), work.posts.len());
        blank.depth = work.lanes.iter().map(|lane| lane.depth).max().unwrap_or(1);
        blank.measures = Some(Measures::WholeOperation.name().into());
        blank.floor_missing = Some("a replay is put beside its trace".into());
        blank.kind_of_loop = Some(if flags.fast { "closed" } else { "open" }.into());
        for row in &figures.rows {
            replay.operations.push(replay.operation(row, &figures, blank.clone()));
        }
        replay.all = all(&figures, flags.fast);
        replay
    }

    fn operation(&self, row: &Row, figures: &Figures, mut report: Report) -> Operation {
        let sizes = (row.sizes.first_key_value(), row.sizes.last_key_value());
        report.op = row.op;
        report.transport = row.transport;
        report.size_bytes = row.median_size();
        report.inline = row.inline * 2 > row.requests;
        report.samples = row.services.count();
        report.signal_every = ratio(row.requests as usize, row.services.count() as usize);
        report.one_way_ns = row.services.summary();
        report.distribution = row.services.distribution();
        report.open_loop = self.open_loop(row, figures);
        Operation {
            name: row.name(),
            requests: row.requests,
            sizes: match sizes {
                (Some((least, _)), Some((most, _))) => (u64::from(*least), u64::from(*most)),
                _ => (0, 0),
            },
            traced_ns: row.originals.summary(),
            report: report.one_way_ns.is_some().then(|| Box::new(report)),
        }
    }

    fn open_loop(&self, row: &Row, figures: &Figures) -> Option<OpenLoopReport> {
        let (kept, late, most_behind_ns) = (self.kept?, self.late?, self.most_behind_ns?);
        // The rate of one request alone is that of nothing: take it for one a second.
        let rate =
            |seconds: f64| if seconds > 0.0 { row.requests as f64 / seconds } else { row.requests as f64 };
        Some(OpenLoopReport {
            rate_per_s: rate(self.posting_s.trace),
            arrivals: Arrivals::Trace,
            seed: None,
            achieved_per_s: rate(figures.posting.as_secs_f64()),
            kept,
            late,
            messages: row.responses.count(),
            most_behind_ns,
            service_ns: row.services.summary()?,
            response_ns: row.responses.summary()?,
        })
    }

    /// What was checked.
    #[must_use]
    pub fn verification(&self) -> String {
        "of the whole replay: every byte of each SEND and each READ, what atomics returned and left, and every byte of the last WRITE to each buffer"
            .to_owned()
    }

    /// As JSON, with a newline at its end.
    ///
    /// # Errors
    /// Never in practice.
    pub fn to_json(&self) -> Result<String> {
        let text = serde_json::to_string_pretty(self).context(|| "encode the result".into())?;
        Ok(text + "\n")
    }

    /// A row for each operation, and a line of names.
    #[must_use]
    pub fn csv(&self) -> String {
        let mut text = format!("operation,requests,traced_p50_ns,traced_p99_ns,{}\n", csv::names());
        for operation in &self.operations {
            let traced = |of: fn(&Summary) -> f64| operation.traced_ns.map(|ns| of(&ns).to_string());
            let row = match &operation.report {
                Some(report) => csv::row(report),
                None => ",".repeat(csv::names().matches(',').count()),
            };
            let _ = writeln!(
                text,
                "{},{},{},{},{row}",
                csv::quoted(&operation.name),
                operation.requests,
                traced(|ns| ns.p50).unwrap_or_default(),
                traced(|ns| ns.p99).unwrap_or_default()
            );
        }
        text
    }

    /// The percentiles of all operations together.
    ///
    /// # Errors
    /// No request asked for a completion.
    pub fn percentiles(&self) -> Result<String> {
        match (&self.all, self.operations.iter().find_map(|operation| operation.report.as_deref())) {
            (Some(all), Some(first)) if self.operations.len() == 1 => Ok(percentiles(first, all)),
            (Some(all), Some(_)) => Ok(format!(
                "#[replay of {} requests: {}, nanoseconds]\n{}",
                self.requests,
                if self.kept.is_some() {
                    "responses, from due to completed"
                } else {
                    "from post to completion"
                },
                all.percentiles()
            )),
            _ => Err(Error::Run(
                "no request of the trace asked for a completion: there are no latencies".into(),
            )),
        }
    }

    /// In one line.
    #[must_use]
    pub fn line(&self) -> String {
        let mut text = format!("replay of {} requests on {}", self.requests, pairs(self.queue_pairs));
        for operation in &self.operations {
            if let Some(ns) = operation.report.as_ref().and_then(|report| report.one_way_ns) {
                let _ = write!(
                    text,
                    "; {} p50 {}, p99 {}",
                    operation.name,
                    nanoseconds(ns.p50),
                    nanoseconds(ns.p99)
                );
            }
        }
        if self.kept == Some(false) {
            text.push_str("; SCHEDULE NOT KEPT");
        }
        let _ = writeln!(
            text,
            "; {} passed over, {} lost, {} errors",
            self.not_replayed(),
            self.lost,
            self.errors
        );
        text
    }

    fn not_replayed(&self) -> u64 {
        self.passed_over.values().sum()
    }

    /// For people.
    #[must_use]
    pub fn text(&self) -> String {
        let mut text = String::new();
        let mut entry = |name: &str, value: &str| {
            let _ = write!(text, "{name:<INDENT$}");
            fold(&mut text, INDENT, value);
        };
        entry("replay", &self.trace);
        let devices: BTreeSet<&str> = self.traced_devices.iter().map(String::as_str).collect();
        let devices: Vec<&str> = devices.into_iter().collect();
        entry(
            "requests",
            &format!("{} on {}, traced on {}", self.requests, pairs(self.queue_pairs), devices.join(", ")),
        );
        if let Some(report) = self.operations.iter().find_map(|operation| operation.report.as_deref()) {
            entry("device", &format!("{}, profile {}; {}", report.device, report.profile, report.sides));
            for (name, value) in [("link", &report.link), ("fault", &report.fault)] {
                if let Some(value) = value {
                    let seed = report.seed.filter(|_| name == "fault");
                    let seed = seed.map(|seed| format!(" (--seed {seed})")).unwrap_or_default();
                    entry(name, &format!("{value}{seed}"));
                }
            }
            entry("clock", &report.environment.clock.source);
            let switches = report.environment.involuntary_context_switches;
            if switches.initiator + switches.responder > 0 {
                let BothSides { initiator, responder } = switches;
                entry(
                    "disturbed",
                    &format!(
                        "the scheduler took the core away {initiator} times here, {responder} times there"
                    ),
                );
            }
        }
        entry("timing", &self.schedule());
        for (why, count) in &self.passed_over {
            entry("not replayed", &format!("{count}: {why}"));
        }
        if self.not_inline > 0 {
            entry(
                "not inline",
                &format!("{}: more bytes than the device takes in a request", self.not_inline),
            );
        }
        if self.signaled_besides > 0 {
            let words =
                "ask for a completion only here, for else nothing would free the queue or tell of the end";
            entry("signaled", &format!("{} {words}", self.signaled_besides));
        }
        text.push('\n');
        text.push_str(&self.table());
        text.push('\n');
        let mut entry = |name: &str, value: &str| {
            let _ = write!(text, "{name:<INDENT$}");
            fold(&mut text, INDENT, value);
        };
        entry(
            "trace",
            "from the begin of the call that posted to the end of the poll that found the completion; what writing the trace took is in it",
        );
        entry("service", "from posting to the completion, here");
        if self.kept.is_some() {
            entry("response", "from the moment it was due to the completion, here");
        }
        if self.lost > 0 {
            entry("lost", &format!("{} messages of transports that may lose some", self.lost));
        }
        let verdict = if self.verified { "right" } else { "NOT RIGHT, OR NOT ALL" };
        entry("checked", &format!("{}: {} checked, {verdict}", self.verification(), self.messages_checked));
        text
    }

    fn schedule(&self) -> String {
        let Both { trace, replay } = self.posting_s;
        match (self.kept, self.late, self.most_behind_ns) {
            (Some(kept), Some(late), Some(behind)) => format!(
                "the trace's: {trace:.3} s from the first doorbell to the last, here {replay:.3} s{}; {late} came after the next was due, \
                 the latest {} behind",
                if kept { "" } else { ", SO THE SCHEDULE WAS NOT KEPT" },
                nanoseconds(behind as f64)
            ),
            _ => format!(
                "as fast as possible (a closed loop: a request waits for room only): {replay:.3} s from the first doorbell to the last, in the trace \
                 {trace:.3} s"
            ),
        }
    }

    fn table(&self) -> String {
        let mut figures = vec!["requests", "trace p50", "here p50", "trace p99", "here p99"];
        if self.kept.is_some() {
            figures.push("response p99");
        }
        let mut columns = Columns::new(["operation"], figures);
        for operation in &self.operations {
            let ns = |value: Option<f64>| value.map_or_else(|| "-".to_owned(), nanoseconds);
            let traced = operation.traced_ns;
            let Some(here) = operation.report.as_deref().and_then(|report| report.one_way_ns) else {
                let words = format!("{} requests, none asked for a completion", operation.requests);
                columns.row_of_words([operation.name.clone()], words);
                continue;
            };
            let response = operation.report.as_deref().and_then(|report| report.open_loop);
            columns.row([
                operation.name.clone(),
                operation.requests.to_string(),
                ns(traced.map(|ns| ns.p50)),
                nanoseconds(here.p50),
                ns(traced.map(|ns| ns.p99)),
                nanoseconds(here.p99),
                ns(response.map(|open| open.response_ns.p99)),
            ]);
        }
        columns.text()
    }

    pub(super) fn conclude(&self) -> Result<u8> {
        if self.verified {
            return Ok(0);
        }
        let first = self.first_error.as_deref().unwrap_or("not all messages were checked");
        Err(Error::Run(format!(
            "{} of {} checked messages were wrong: {first}",
            self.errors, self.messages_checked
        )))
    }
}

/// How many things both sides have to check.
fn to_check(work: &Workload) -> u64 {
    let mut buffers = BTreeSet::new();
    let mut words = BTreeSet::new();
    let mut singly = 0;
    for item in &work.items {
        let (lane, op, _) = item.known;
        let Some(of) = work.lanes.get(usize::from(lane)) else { continue };
        match op {
            Op::Write | Op::WriteImm => {
                buffers.insert((lane, of.write_at(item.number)));
            }
            Op::Cas | Op::Faa => {
                words.insert(lane);
                singly += 1;
            }
            Op::Send | Op::SendImm | Op::Read => singly += 1,
        }
    }
    singly + (buffers.len() + words.len()) as u64
}

/// The latencies that stand for all.
fn all(figures: &Figures, fast: bool) -> Option<Latencies> {
    let mut rows = figures.rows.iter().map(|row| if fast { &row.services } else { &row.responses });
    let mut all = rows.next()?.clone();
    rows.for_each(|row| all.add(row));
    (all.count() > 0).then_some(all)
}

/// So many queue pairs.
fn pairs(count: usize) -> String {
    if count == 1 { "one queue pair".to_owned() } else { format!("{count} queue pairs") }
}

fn ratio(all: usize, parts: usize) -> u32 {
    u32::try_from((all + parts / 2) / parts.max(1)).unwrap_or(u32::MAX).max(1)
}
