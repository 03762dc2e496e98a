//! The plan of a stress run, in TOML: what is sent, what goes wrong when, and what is expected of it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde::Deserialize;
use tbrdma::fault::{FaultPlan, LinkModel, Stage};
use tbrdma::{WcStatus, ack_timeout, rnr_timer};

use super::quantity::{BitRate, Span};
use crate::plan::Op;

/// The longest run of a plan, without what is left to be answered at its end.
const LONGEST: Duration = Duration::from_secs(3600);
/// The most phases.
const MOST_PHASES: usize = 256;
/// The most that one side registers.
const MOST_MEMORY: u64 = 1 << 30;
/// The most messages that a schedule may ask for.
pub const MOST_MESSAGES: f64 = 4e6;
/// How many times the baseline's p99 counts as usual where a plan does not say so.
const USUAL: f64 = 3.0;

/// A plan.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Plan {
    /// What it is called.
    pub name: String,
    /// What it is about, in a sentence or two.
    pub about: String,
    /// Where the dice start, if the command line does not say so.
    #[serde(default = "one")]
    pub seed: u64,
    /// What is sent.
    pub run: Run,
    /// What goes wrong, one after the other. The first phase has nothing wrong: it is what the others are measured by.
    #[serde(rename = "phase")]
    pub phases: Vec<Phase>,
    /// What is expected of the whole run.
    #[serde(default)]
    pub expect: Expect,
}

/// What is sent.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Run {
    /// Which verb: `send`, `write` or `read`, over a reliable connection.
    #[serde(default = "send")]
    pub op: Op,
    /// Bytes in a message.
    pub size: u32,
    /// Messages a second, over all queue pairs, due by the clock. Without it the loop is closed: as many as `depth` allows.
    pub rate: Option<f64>,
    /// Most messages outstanding on a queue pair.
    #[serde(default = "sixteen")]
    pub depth: u32,
    /// Queue pairs, each a flow of its own, all from one adapter to another.
    #[serde(default = "one_pair")]
    pub queue_pairs: u32,
    /// Do their messages fall due at the same moments, as answers to one question do?
    #[serde(default)]
    pub together: bool,
    /// Receives posted on each queue pair.
    #[serde(default = "sixty_four")]
    pub receives: u32,
    /// How long to wait for an acknowledgement; the device has powers of two, and takes the next longer one.
    pub timeout: Option<Span>,
    /// How often to send again what was not acknowledged.
    #[serde(default = "seven")]
    pub retry_cnt: u8,
    /// How often to send again what found no receive; 7 is for ever.
    #[serde(default = "seven")]
    pub rnr_retry: u8,
    /// How long a sender waits that found no receive; the device has a table, and takes the next longer time.
    pub min_rnr_timer: Option<Span>,
    /// Queue pairs that died are connected anew after so long; without it they stay dead.
    pub reconnect: Option<Span>,
    /// How fast the link is all the time: a rate, a latency one way, or both.
    pub link: Option<String>,
    /// How long after the last phase answers may come.
    pub drain: Option<Span>,
}

/// A part of the run.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Phase {
    /// What it is called.
    pub name: String,
    /// How long it lasts.
    #[serde(rename = "for")]
    pub lasts: Span,
    /// What goes wrong with packets both ways: a fault plan's text.
    pub both: Option<String>,
    /// What goes wrong with packets of the side that sends.
    pub out: Option<String>,
    /// What goes wrong with packets of the side that answers.
    pub back: Option<String>,
    /// The receiver does nothing at all: it takes no messages, and posts no receives.
    #[serde(default)]
    pub pause_receiver: bool,
    /// The receiver takes so long for each message.
    pub slow_receiver: Option<Span>,
    /// The receiver posts receives anew only so often, all that are missing at once.
    pub post_receives_every: Option<Span>,
    /// Threads that do nothing but use up cores. Virtual time does not care.
    #[serde(default)]
    pub hogs: u32,
    /// Messages a second in this phase, where that is not the run's.
    pub rate: Option<f64>,
    /// What is expected of this phase.
    #[serde(default)]
    pub expect: Expect,
}

/// What is expected. What is not said is not looked at; that every byte is right is expected always.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Expect {
    /// After the end of the phase latencies are as usual within so long.
    pub recovered_within: Option<Span>,
    /// How many times the baseline's p99 is still as usual, for that [default: 3].
    pub usual: Option<f64>,
    /// The most messages that may fail, or be left unsent.
    pub failed_at_most: Option<u64>,
    /// The fewest.
    pub failed_at_least: Option<u64>,
    /// The most that p99 may be, as a multiple of the baseline's: of the response where messages are due by the clock.
    pub p99_at_most: Option<f64>,
    /// The least: what goes wrong must be seen.
    pub p99_at_least: Option<f64>,
    /// The least of the median.
    pub p50_at_least: Option<f64>,
    /// Payload that arrives, at least.
    pub goodput_at_least: Option<BitRate>,
    /// Payload that arrives, at most.
    pub goodput_at_most: Option<BitRate>,
    /// Counters of both devices together, at least.
    #[serde(default)]
    pub counters: BTreeMap<String, u64>,
    /// Counters of both devices together, at most.
    #[serde(default)]
    pub counters_at_most: BTreeMap<String, u64>,
    /// How the queue pairs that die do so: the status of the completion, as `RETRY_EXC_ERR`.
    pub status: Option<Status>,
    /// From the beginning of the phase until the program is told so, at most.
    pub told_within: Option<Span>,
    /// The most queue pairs that may die.
    pub deaths_at_most: Option<u64>,
}

/// The status of a completion, by its name in `ibv_wc_status`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Status(pub WcStatus);

/// The statuses by which a queue pair can die here.
const STATUSES: [(&str, WcStatus); 5] = [
    ("RETRY_EXC_ERR", WcStatus::RetryExcErr),
    ("RNR_RETRY_EXC_ERR", WcStatus::RnrRetryExcErr),
    ("REM_ACCESS_ERR", WcStatus::RemAccessErr),
    ("REM_OP_ERR", WcStatus::RemOpErr),
    ("REM_INV_REQ_ERR", WcStatus::RemInvReqErr),
];

/// The name of a status.
#[must_use]
pub fn status_name(status: WcStatus) -> String {
    let known = STATUSES.iter().find(|(_, known)| *known == status);
    known.map_or_else(|| format!("{status:?}"), |(name, _)| (*name).to_owned())
}

impl<'de> Deserialize<'de> for Status {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let known = STATUSES.iter().find(|(name, _)| *name == text);
        known.map(|(_, status)| Self(*status)).ok_or_else(|| {
            let all = STATUSES.map(|(name, _)| name).join(", ");
            serde::de::Error::custom(format!("status {text:?} is none of {all}"))
        })
    }
}

fn one() -> u64 {
    1
}
fn one_pair() -> u32 {
    1
}
fn seven() -> u8 {
    7
}
fn sixteen() -> u32 {
    16
}
fn sixty_four() -> u32 {
    64
}
fn send() -> Op {
    Op::Send
}

/// A plan in TOML.
///
/// # Errors
/// What makes no sense, where, and what there is.
pub fn parse(text: &str) -> Result<Plan, String> {
    let plan: Plan = toml::from_str(text).map_err(|error| error.to_string().trim_end().to_owned())?;
    plan.check()?;
    Ok(plan)
}

impl Plan {
    /// What no value is wrong in by itself.
    fn check(&self) -> Result<(), String> {
        self.run.check()?;
        let Some(first) = self.phases.first() else { return Err("it has no [[phase]]".to_owned()) };
        if self.phases.len() > MOST_PHASES {
            return Err(format!("{} phases are over the limit of {MOST_PHASES}", self.phases.len()));
        }
        if first.has_faults() {
            return Err(format!(
                "phase {:?} is the first, and what the others are measured by: it may have nothing wrong",
                first.name
            ));
        }
        let mut messages = 0.0;
        let mut names = BTreeSet::new();
        for phase in &self.phases {
            if !names.insert(&phase.name) {
                return Err(format!(
                    "two phases are called {:?}: who expects something must know of which",
                    phase.name
                ));
            }
            phase.check().map_err(|reason| format!("phase {:?}: {reason}", phase.name))?;
            if phase.is_about_receives() && self.run.op != Op::Send {
                return Err(format!(
                    "phase {:?}: the receiver has no part in {}: use op send",
                    phase.name, self.run.op
                ));
            }
            if phase.rate.is_some() && self.run.rate.is_none() {
                return Err(format!("phase {:?}: rate without a rate in [run]", phase.name));
            }
            messages += phase.rate.or(self.run.rate).unwrap_or_default() * phase.lasts.0.as_secs_f64();
        }
        if self.lasts() > LONGEST {
            return Err(format!("its phases last {} s, over the limit of an hour", self.lasts().as_secs()));
        }
        if messages > MOST_MESSAGES {
            return Err(format!("{messages} messages are over the limit of {MOST_MESSAGES}"));
        }
        self.expect.check()?;
        [true, false].into_iter().try_for_each(|out| self.faults(out).map(drop))
    }

    /// How many times the baseline's p99 is as usual after a phase.
    #[must_use]
    pub fn usual(&self, phase: &Phase) -> f64 {
        phase.expect.usual.or(self.expect.usual).unwrap_or(USUAL)
    }

    /// How long all phases last.
    #[must_use]
    pub fn lasts(&self) -> Duration {
        self.phases.iter().fold(Duration::ZERO, |sum, phase| sum.saturating_add(phase.lasts.0))
    }

    /// When each phase begins, and the end.
    #[must_use]
    pub fn bounds(&self) -> Vec<Duration> {
        let mut bounds = vec![Duration::ZERO];
        for phase in &self.phases {
            let begin = bounds.last().copied().unwrap_or_default();
            bounds.push(begin.saturating_add(phase.lasts.0));
        }
        bounds
    }

    /// Whether anything goes wrong with packets, so that a device needs some.
    #[must_use]
    pub fn needs_packets(&self) -> bool {
        self.phases.iter().any(Phase::needs_packets)
    }

    /// The fault plan of one side's device, with a stage for each phase and the link's speed in all of them; `out` is the side that sends.
    ///
    /// # Errors
    /// A text is no fault plan, or says again what the link says.
    pub fn faults(&self, out: bool) -> Result<FaultPlan, String> {
        let link = self.run.link()?.unwrap_or(LinkModel { rate: None, latency: Duration::ZERO });
        let mut whole: Option<FaultPlan> = None;
        for (phase, from) in self.phases.iter().zip(self.bounds()) {
            let plan = phase.faults(out).map_err(|reason| format!("phase {:?}: {reason}", phase.name))?;
            // What a phase says of the rate and the delay is instead of what the link has.
            let delay = if plan.delay.is_zero() && plan.jitter.is_zero() { link.latency } else { plan.delay };
            let plan = FaultPlan { rate: plan.rate.or(link.rate), delay, ..plan };
            match &mut whole {
                None => whole = Some(plan),
                Some(whole) => whole.stages.push(Stage { from, plan }),
            }
        }
        Ok(whole.unwrap_or_default())
    }
}

impl Run {
    fn check(&self) -> Result<(), String> {
        let within = |name: &str, value: u32, least: u32, most: u32| {
            let fits = (least..=most).contains(&value);
            if fits { Ok(()) } else { Err(format!("{name} {value} is outside {least}..={most}")) }
        };
        if !matches!(self.op, Op::Send | Op::Write | Op::Read) {
            return Err(format!("op {:?} is none of send, write, read", self.op.to_string()));
        }
        within("size", self.size, 8, 1 << 24)?;
        within("depth", self.depth, 1, 4096)?;
        within("queue_pairs", self.queue_pairs, 1, 256)?;
        within("receives", self.receives, 1, 4096)?;
        within("retry_cnt", self.retry_cnt.into(), 0, 7)?;
        within("rnr_retry", self.rnr_retry.into(), 0, 7)?;
        let slots = u64::from(self.depth.max(self.receives)) * u64::from(self.queue_pairs);
        if slots * u64::from(self.size) > MOST_MEMORY {
            return Err(format!("{slots} buffers of {} bytes are over the limit of 1 GiB", self.size));
        }
        check_rate(self.rate)?;
        self.link().map(drop)
    }

    /// How fast the link is, if that is said.
    fn link(&self) -> Result<Option<LinkModel>, String> {
        let Some(text) = &self.link else { return Ok(None) };
        text.parse().map(Some).map_err(|error| format!("link {text:?}: {error}"))
    }

    /// The code of the acknowledgement timeout.
    #[must_use]
    pub fn timeout_code(&self) -> u8 {
        let wanted = self.timeout.map_or(Duration::from_millis(67), |span| span.0);
        (1..31).find(|code| ack_timeout(*code).is_some_and(|time| time >= wanted)).unwrap_or(31)
    }

    /// The code of the RNR timer.
    #[must_use]
    pub fn rnr_code(&self) -> u8 {
        let wanted = self.min_rnr_timer.map_or(Duration::from_micros(640), |span| span.0);
        (1..31).find(|code| rnr_timer(*code) >= wanted).unwrap_or(31)
    }
}

fn check_rate(rate: Option<f64>) -> Result<(), String> {
    match rate {
        Some(rate) if !(rate.is_finite() && (0.1..=1e7).contains(&rate)) => {
            Err(format!("rate {rate} is outside 0.1 to 10000000 messages a second"))
        }
        _ => Ok(()),
    }
}

impl Phase {
    fn check(&self) -> Result<(), String> {
        if self.lasts.0.is_zero() {
            return Err("it lasts no time at all".to_owned());
        }
        if self.both.is_some() && (self.out.is_some() || self.back.is_some()) {
            return Err(
                "both is said beside out or back: say what goes wrong each way, or both ways".to_owned()
            );
        }
        if self.hogs > 64 {
            return Err(format!("{} hogs are over the limit of 64", self.hogs));
        }
        let zero = |span: Option<Span>| span.is_some_and(|span| span.0.is_zero());
        if zero(self.slow_receiver) || zero(self.post_receives_every) {
            return Err("slow_receiver and post_receives_every are times of more than nothing".to_owned());
        }
        check_rate(self.rate)?;
        self.expect.check()
    }

    fn faults(&self, out: bool) -> Result<FaultPlan, String> {
        let own = if out { &self.out } else { &self.back };
        let Some(text) = own.as_ref().or(self.both.as_ref()) else { return Ok(FaultPlan::default()) };
        let plan: FaultPlan = text.parse().map_err(|error| format!("{error}"))?;
        if plan.stages.is_empty() { Ok(plan) } else { Err(format!("{text:?} has stages: use phases")) }
    }

    /// Whether anything goes wrong in it. Another rate is nothing wrong.
    #[must_use]
    pub fn has_faults(&self) -> bool {
        self.needs_packets() || self.is_about_receives() || self.hogs > 0
    }

    /// Whether anything goes wrong with packets.
    #[must_use]
    pub fn needs_packets(&self) -> bool {
        self.both.is_some() || self.out.is_some() || self.back.is_some()
    }

    /// Whether it is the receiver that does something wrong.
    fn is_about_receives(&self) -> bool {
        self.pause_receiver || self.slow_receiver.is_some() || self.post_receives_every.is_some()
    }

    /// What goes wrong, in words.
    #[must_use]
    pub fn wrong(&self) -> Option<String> {
        let said = |what: &str, text: &Option<String>| text.as_ref().map(|text| format!("{what}: {text}"));
        let every = |what: &str, span: Option<Span>| span.map(|span| format!("{what} {span}"));
        let parts = [
            said("both ways", &self.both),
            said("out", &self.out),
            said("back", &self.back),
            self.pause_receiver.then(|| "the receiver does nothing".to_owned()),
            every("the receiver takes for each message", self.slow_receiver),
            every("receives are posted every", self.post_receives_every),
            (self.hogs > 0).then(|| format!("{} threads use up cores", self.hogs)),
        ];
        let parts: Vec<_> = parts.into_iter().flatten().collect();
        (!parts.is_empty()).then(|| parts.join("; "))
    }
}

impl Expect {
    fn check(&self) -> Result<(), String> {
        let ratios = [self.usual, self.p99_at_most, self.p99_at_least, self.p50_at_least];
        if ratios.iter().flatten().any(|ratio| !ratio.is_finite() || *ratio <= 0.0) {
            return Err(
                "what is expected of latencies is a multiple of the baseline's, more than 0".to_owned()
            );
        }
        Ok(())
    }
}
