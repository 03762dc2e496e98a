//! The text form of a plan.

use core::fmt;
use core::ops::Range;
use core::str::FromStr;
use core::time::Duration;

use super::{Burst, Chance, Duplicate, FaultPlan, Reorder, Sleep, Spread, Stage};

/// A text that is not a [`FaultPlan`], or not a [`VerbsPlan`](super::VerbsPlan).
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("fault plan: {what} in {part:?}: write {expected}, for example {example}")]
pub struct FaultPlanError {
    /// The part between commas that was refused.
    pub part: String,
    /// What is wrong with it.
    pub what: &'static str,
    /// What would be right.
    pub expected: &'static str,
    /// One that is right.
    pub example: &'static str,
}

/// How one kind is written: its name, the form of its value, an example.
pub(super) struct Form {
    pub(super) name: &'static str,
    pub(super) expected: &'static str,
    pub(super) example: &'static str,
}

const FORMS: [Form; 10] = [
    Form { name: "loss", expected: "a percentage", example: "loss=1%" },
    Form {
        name: "burst",
        expected: "a percentage, a colon, and the mean length in packets",
        example: "burst=0.1%:8",
    },
    Form {
        name: "delay",
        expected: "a time (ns, us, ms, s), and perhaps ~ and another, and behind that perhaps :normal or :pareto",
        example: "delay=50us~20us",
    },
    Form { name: "reorder", expected: "a percentage, a colon, and a time", example: "reorder=2%:100us" },
    Form { name: "dup", expected: "a percentage, and perhaps a colon and a time", example: "dup=0.5%:1ms" },
    Form { name: "corrupt", expected: "a percentage", example: "corrupt=0.1%" },
    Form {
        name: "rate",
        expected: "a rate of at least 1 bps (bps, kbps, Mbps, Gbps)",
        example: "rate=10Gbps",
    },
    Form {
        name: "queue",
        expected: "a number of packets from 1 to 1048576, beside a rate",
        example: "rate=1Gbps,queue=256",
    },
    Form {
        name: "sleep",
        expected: "after how long without a packet, a colon, and how long it takes to wake",
        example: "sleep=1ms:50us",
    },
    Form {
        name: "partition",
        expected: "FROM..TO, TO after FROM or left out for ever, more of them after a +",
        example: "partition=1s..1.5s+3s..",
    },
];

const UNKNOWN: Form = Form {
    name: "",
    expected: "loss, burst, delay, reorder, dup, corrupt, rate, queue, sleep or partition, = and a value, each at most once",
    example: "loss=1%,delay=50us~20us",
};

const STAGE: Form = Form {
    name: "",
    expected: "behind each ; a time later than the one before, a colon, and what goes wrong from then on",
    example: "none; 2s: loss=100%; 2.5s: none",
};

impl Form {
    fn error(&self, part: &str, what: &'static str) -> FaultPlanError {
        FaultPlanError { part: part.to_owned(), what, expected: self.expected, example: self.example }
    }
}

/// Reads a list of NAME=VALUE with commas, each name at most once: `set` takes them, and says `None` to what it cannot read. An empty list may
/// be written `none`.
pub(super) fn read<const KINDS: usize>(
    text: &str,
    forms: &[Form; KINDS],
    unknown: &Form,
    mut set: impl FnMut(&str, &str) -> Option<()>,
) -> Result<(), FaultPlanError> {
    let text = text.trim();
    if text.is_empty() || text == "none" {
        return Ok(());
    }
    let mut seen = [false; KINDS];
    for part in text.split(',').map(str::trim) {
        let (name, value) = part.split_once('=').ok_or_else(|| unknown.error(part, "no value"))?;
        let known = forms.iter().zip(&mut seen).find(|(form, _)| form.name == name);
        let (form, seen) = known.ok_or_else(|| unknown.error(part, "an unknown fault"))?;
        if core::mem::replace(seen, true) {
            return Err(unknown.error(part, "a fault given twice"));
        }
        set(name, value).ok_or_else(|| form.error(part, "a value that cannot be read"))?;
    }
    Ok(())
}

impl FromStr for FaultPlan {
    type Err = FaultPlanError;

    fn from_str(text: &str) -> Result<Self, FaultPlanError> {
        let (first, later) = text.split_once(';').map_or((text, None), |(first, later)| (first, Some(later)));
        let mut plan = Self::read_one(first)?;
        for part in later.into_iter().flat_map(|later| later.split(';')).map(str::trim) {
            let (from, text) = part.split_once(':').ok_or_else(|| STAGE.error(part, "no time"))?;
            let from =
                duration(from.trim()).ok_or_else(|| STAGE.error(part, "a time that cannot be read"))?;
            if from <= plan.stages.last().map_or(Duration::ZERO, |last| last.from) {
                return Err(STAGE.error(part, "a time that is not later than the one before"));
            }
            plan.stages.push(Stage { from, plan: Self::read_one(text)? });
        }
        Ok(plan)
    }
}

impl FaultPlan {
    /// Reads a plan that does not change.
    fn read_one(text: &str) -> Result<Self, FaultPlanError> {
        let mut plan = Self::default();
        read(text, &FORMS, &UNKNOWN, |name, value| plan.set(name, value))?;
        if plan.queue.is_some() && plan.rate.is_none() {
            let queue = text.split(',').find(|part| part.trim().starts_with("queue")).unwrap_or(text);
            return Err(FORMS[7].error(queue, "a queue without a rate"));
        }
        Ok(plan)
    }

    /// Reads the value of one kind; `None` if it cannot be read.
    fn set(&mut self, name: &str, value: &str) -> Option<()> {
        match name {
            "loss" => self.loss = chance(value)?,
            "corrupt" => self.corrupt = chance(value)?,
            "burst" => {
                let (how_often, mean) = value.split_once(':')?;
                let mean_packets = mean.parse().ok().filter(|&mean| mean > 0)?;
                self.burst = Some(Burst { chance: chance(how_often)?, mean_packets });
            }
            "delay" => {
                let (mean, jitter) = value.split_once('~').unwrap_or((value, "0s"));
                let (jitter, spread) = match jitter.split_once(':') {
                    None => (jitter, Spread::Uniform),
                    Some((jitter, "normal")) => (jitter, Spread::Normal),
                    Some((jitter, "pareto")) => (jitter, Spread::Pareto),
                    Some(_) => return None,
                };
                (self.delay, self.jitter, self.spread) = (duration(mean)?, duration(jitter)?, spread);
            }
            "reorder" => {
                let (how_often, by) = value.split_once(':')?;
                self.reorder = Some(Reorder { chance: chance(how_often)?, by: duration(by)? });
            }
            "dup" => {
                let (how_often, by) = value.split_once(':').unwrap_or((value, "0s"));
                self.duplicate = Some(Duplicate { chance: chance(how_often)?, by: duration(by)? });
            }
            "rate" => self.rate = Some(rate(value).filter(|&rate| rate > 0)?),
            "queue" => {
                self.queue = Some(value.parse().ok().filter(|&queue| (1..=Self::MAX_QUEUE).contains(&queue))?)
            }
            "sleep" => {
                let (after, wake) = value.split_once(':')?;
                self.sleep = Some(Sleep { after: duration(after)?, wake: duration(wake)? });
            }
            "partition" => self.partitions = value.split('+').map(interval).collect::<Option<_>>()?,
            _ => return None,
        }
        Some(())
    }
}

/// A decimal number times `unit`, without rounding: `None` if it is not whole then.
fn scaled(text: &str, unit: u64) -> Option<u64> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    if whole.is_empty() || !digits(whole) || !digits(fraction) || text.ends_with('.') {
        return None;
    }
    let scale = 10_u64.checked_pow(u32::try_from(fraction.len()).ok()?)?;
    let parts = match fraction {
        "" => 0,
        fraction => fraction.parse::<u64>().ok()?.checked_mul(unit)?,
    };
    if !parts.is_multiple_of(scale) {
        return None;
    }
    whole.parse::<u64>().ok()?.checked_mul(unit)?.checked_add(parts / scale)
}

const TIMES: [(&str, u64); 4] = [("ns", 1), ("us", 1_000), ("ms", 1_000_000), ("s", 1_000_000_000)];
const RATES: [(&str, u64); 4] = [("kbps", 1_000), ("Mbps", 1_000_000), ("Gbps", 1_000_000_000), ("bps", 1)];
const PERCENT: u64 = Chance::WHOLE as u64 / 100;

/// A number with the first of the units that it ends in.
fn with_unit(text: &str, units: &[(&str, u64)]) -> Option<u64> {
    let (number, unit) = units.iter().find_map(|(name, unit)| Some((text.strip_suffix(name)?, *unit)))?;
    scaled(number, unit)
}

pub(super) fn chance(text: &str) -> Option<Chance> {
    let parts = scaled(text.strip_suffix('%')?, PERCENT)?;
    Chance::from_parts(u32::try_from(parts).ok()?)
}

pub(super) fn duration(text: &str) -> Option<Duration> {
    with_unit(text, &TIMES).map(Duration::from_nanos)
}

fn rate(text: &str) -> Option<u64> {
    with_unit(text, &RATES)
}

fn interval(text: &str) -> Option<Range<Duration>> {
    let (from, to) = text.split_once("..")?;
    let to = if to.is_empty() { Duration::MAX } else { duration(to)? };
    let from = duration(from)?;
    (from < to).then_some(from..to)
}

/// Prints a number of parts in a unit, with as many decimals as it needs.
pub(super) struct Decimal {
    parts: u64,
    unit: u64,
    name: &'static str,
}

impl fmt::Display for Decimal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.parts / self.unit)?;
        let (mut rest, mut unit) = (self.parts % self.unit, self.unit);
        if rest > 0 {
            f.write_str(".")?;
        }
        while rest > 0 {
            unit /= 10;
            write!(f, "{}", rest / unit)?;
            rest %= unit;
        }
        f.write_str(self.name)
    }
}

pub(super) fn show_chance(chance: Chance) -> Decimal {
    Decimal { parts: chance.parts().into(), unit: PERCENT, name: "%" }
}

pub(super) fn show_duration(time: Duration) -> Decimal {
    let parts = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
    let (name, unit) = match parts {
        0 | 1_000_000_000.. => TIMES[3],
        1_000_000.. => TIMES[2],
        1_000.. => TIMES[1],
        _ => TIMES[0],
    };
    Decimal { parts, unit, name }
}

fn show_rate(rate: u64) -> Decimal {
    let (name, unit) = match rate {
        1_000_000_000.. => RATES[2],
        1_000_000.. => RATES[1],
        1_000.. => RATES[0],
        _ => RATES[3],
    };
    Decimal { parts: rate, unit, name }
}

/// Prints intervals of time with a + between them.
struct Intervals<'a>(&'a [Range<Duration>]);

impl fmt::Display for Intervals<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (position, Range { start, end }) in self.0.iter().enumerate() {
            let separator = if position == 0 { "" } else { "+" };
            write!(f, "{separator}{}..", show_duration(*start))?;
            if *end != Duration::MAX {
                show_duration(*end).fmt(f)?;
            }
        }
        Ok(())
    }
}

impl fmt::Display for FaultPlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut separator = "";
        let mut part = |text: fmt::Arguments<'_>| {
            let written = write!(f, "{separator}{text}");
            separator = ",";
            written
        };
        if !self.loss.is_never() {
            part(format_args!("loss={}", show_chance(self.loss)))?;
        }
        if let Some(Burst { chance, mean_packets }) = self.burst {
            part(format_args!("burst={}:{mean_packets}", show_chance(chance)))?;
        }
        let spread = match self.spread {
            Spread::Uniform => "",
            Spread::Normal => ":normal",
            Spread::Pareto => ":pareto",
        };
        if !self.jitter.is_zero() || !spread.is_empty() {
            let (delay, jitter) = (show_duration(self.delay), show_duration(self.jitter));
            part(format_args!("delay={delay}~{jitter}{spread}"))?;
        } else if !self.delay.is_zero() {
            part(format_args!("delay={}", show_duration(self.delay)))?;
        }
        if let Some(Reorder { chance, by }) = self.reorder {
            part(format_args!("reorder={}:{}", show_chance(chance), show_duration(by)))?;
        }
        match self.duplicate {
            Some(Duplicate { chance, by: Duration::ZERO }) => {
                part(format_args!("dup={}", show_chance(chance)))?
            }
            Some(Duplicate { chance, by }) => {
                part(format_args!("dup={}:{}", show_chance(chance), show_duration(by)))?;
            }
            None => {}
        }
        if !self.corrupt.is_never() {
            part(format_args!("corrupt={}", show_chance(self.corrupt)))?;
        }
        if let Some(rate) = self.rate {
            part(format_args!("rate={}", show_rate(rate)))?;
        }
        if let Some(queue) = self.queue {
            part(format_args!("queue={queue}"))?;
        }
        if let Some(Sleep { after, wake }) = self.sleep {
            part(format_args!("sleep={}:{}", show_duration(after), show_duration(wake)))?;
        }
        if !self.partitions.is_empty() {
            part(format_args!("partition={}", Intervals(&self.partitions)))?;
        }
        if separator.is_empty() {
            f.write_str("none")?;
        }
        self.stages.iter().try_for_each(|stage| write!(f, "; {}: {}", show_duration(stage.from), stage.plan))
    }
}
