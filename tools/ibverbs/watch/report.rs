//! The report at the end: what was called, what failed and why, which limits were near, what was not given back.

use core::ffi::c_int;
use core::fmt::{Arguments, Write as _};
use std::collections::BTreeMap;
use tbrdma_proto::WcStatus;

/// What the report tells.
#[derive(Default)]
pub(super) struct Report {
    /// How often each call was made.
    calls: BTreeMap<&'static str, u64>,
    /// How often a call failed with an errno.
    failures: BTreeMap<(&'static str, c_int), u64>,
    /// Why, in words: the last of each sentence's kind.
    reasons: BTreeMap<String, u64>,
    /// Completions by status.
    completions: BTreeMap<WcStatus, u64>,
    /// Of each kind, what came nearest to its limit.
    peaks: BTreeMap<Use, Peak>,
}

/// Something that is limited, in the words of the report.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Use {
    /// Objects that there were at a time, by device.
    Qps,
    Cqs,
    Srqs,
    Mrs,
    Pds,
    /// What was asked for at creation, of what the device has.
    AskedWr,
    AskedSge,
    AskedInline,
    AskedCqe,
    /// What was in use at a time, of what was granted.
    Sends,
    Receives,
    SharedReceives,
    SendSges,
    ReceiveSges,
    Inline,
    Completions,
}

impl Use {
    const fn words(self) -> &'static str {
        match self {
            Self::Qps => "queue pairs",
            Self::Cqs => "completion queues",
            Self::Srqs => "shared receive queues",
            Self::Mrs => "memory regions",
            Self::Pds => "protection domains",
            Self::AskedWr => "work requests asked for a queue (max_qp_wr)",
            Self::AskedSge => "entries asked for a work request (max_sge)",
            Self::AskedInline => "inline bytes asked for",
            Self::AskedCqe => "completions asked for a queue (max_cqe)",
            Self::Sends => "send requests outstanding (max_send_wr)",
            Self::Receives => "receives outstanding (max_recv_wr)",
            Self::SharedReceives => "shared receives outstanding (max_wr)",
            Self::SendSges => "entries of a send request (max_send_sge)",
            Self::ReceiveSges => "entries of a receive (max_recv_sge)",
            Self::Inline => "inline bytes of a send request (max_inline_data)",
            Self::Completions => "completions waiting to be polled (cqe)",
        }
    }
}

/// The most that was used of something.
struct Peak {
    count: u64,
    limit: u64,
    whose: String,
}

impl Peak {
    /// Four fifths: one more of the same, or a busier day, may be too much.
    const fn is_near(&self) -> bool {
        self.limit > 0 && self.count * 5 >= self.limit * 4
    }

    /// Is it nearer to its limit than this one?
    fn is_beyond(&self, count: u64, limit: u64) -> bool {
        let (own, other) =
            (u128::from(self.count) * u128::from(limit), u128::from(count) * u128::from(self.limit));
        (own, self.count) >= (other, count)
    }
}

/// Sentences that are kept.
const REASONS: usize = 64;

/// What makes an object, and what takes it away.
const PAIRS: [(&[&str], &str); 8] = [
    (&["ibv_open_device", "ibv_import_device"], "ibv_close_device"),
    (&["ibv_alloc_pd", "alloc_parent_domain"], "ibv_dealloc_pd"),
    (&["ibv_reg_mr", "ibv_reg_mr_iova", "ibv_reg_mr_iova2"], "ibv_dereg_mr"),
    (&["ibv_create_comp_channel"], "ibv_destroy_comp_channel"),
    (&["ibv_create_cq", "create_cq_ex"], "ibv_destroy_cq"),
    (&["ibv_create_srq", "create_srq_ex"], "ibv_destroy_srq"),
    (&["ibv_create_qp", "create_qp_ex"], "ibv_destroy_qp"),
    (&["ibv_create_ah", "ibv_create_ah_from_wc"], "ibv_destroy_ah"),
];

impl Report {
    /// A call has ended, perhaps with an errno.
    pub(super) fn called(&mut self, name: &'static str, failure: Option<c_int>) {
        *self.calls.entry(name).or_default() += 1;
        if let Some(errno) = failure {
            *self.failures.entry((name, errno)).or_default() += 1;
        }
    }

    /// A sentence on why something failed.
    pub(super) fn explained(&mut self, what: Arguments<'_>) {
        if self.reasons.len() < REASONS {
            *self.reasons.entry(what.to_string()).or_default() += 1;
        }
    }

    /// A completion was handed out.
    pub(super) fn completed(&mut self, status: WcStatus) {
        *self.completions.entry(status).or_default() += 1;
    }

    /// So much is used of so much.
    pub(super) fn uses(&mut self, what: Use, count: u64, limit: u64, whose: Arguments<'_>) {
        if count == 0 || self.peaks.get(&what).is_some_and(|peak| peak.is_beyond(count, limit)) {
            return;
        }
        self.peaks.insert(what, Peak { count, limit, whose: whose.to_string() });
    }

    /// The text.
    pub(super) fn told(&self) -> String {
        let mut text = format!("tbrdma: process {} made these calls:", std::process::id());
        for (name, count) in &self.calls {
            let _ = write!(text, " {name} {count},");
        }
        text.truncate(text.trim_end_matches(',').len());
        for ((name, errno), count) in &self.failures {
            let _ = write!(text, "\n  {name} failed {count} times: {}", nix::errno::Errno::from_raw(*errno));
        }
        for (reason, count) in &self.reasons {
            let _ = write!(text, "\n  why ({count} times): {reason}");
        }
        for (status, count) in &self.completions {
            let _ = write!(text, "\n  {count} completions: {status:?}");
            if *status != WcStatus::Success {
                let _ = write!(text, " ({})", status.description());
            }
        }
        for (what, peak) in &self.peaks {
            let Peak { count, limit, whose } = peak;
            let near = match peak.is_near() {
                _ if count >= limit => ": at the limit",
                true => ": near the limit",
                false => "",
            };
            let _ = write!(text, "\n  at most {count} of {limit} {} on {whose}{near}", what.words());
        }
        for (makers, taker) in PAIRS {
            let left =
                makers.iter().map(|name| self.made(name)).sum::<u64>().saturating_sub(self.made(taker));
            if left > 0 {
                let _ = write!(text, "\n  {left} not given back: {taker} was not called");
            }
        }
        text
    }

    /// How often a call succeeded.
    fn made(&self, name: &str) -> u64 {
        let failed = self.failures.iter().filter(|((known, _), _)| *known == name).map(|(_, count)| count);
        self.calls.get(name).copied().unwrap_or_default().saturating_sub(failed.sum())
    }
}
