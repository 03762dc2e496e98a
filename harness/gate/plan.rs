//! The plan of a gate: limits in TOML.

use std::path::Path;

use serde::Deserialize;

use crate::compare::Metric;
use crate::counts::Count;
use crate::error::{Context, Error, Result};
use crate::plan::{Benchmark, Op, Transport};
use crate::result::Report;

/// The limits.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Plan {
    /// Each.
    #[serde(rename = "limit")]
    pub limits: Vec<Limit>,
}

/// One limit.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Limit {
    /// What people call it.
    name: Option<String>,
    /// What is limited.
    pub metric: Metric,
    /// What it is divided by.
    pub of: Of,
    /// The most that it may be.
    pub at_most: Option<f64>,
    /// The least.
    pub at_least: Option<f64>,
    /// Which results it is meant of; all that have the figure if nothing is said.
    #[serde(default, rename = "where")]
    meant: Where,
}

/// What a figure is divided by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Of {
    /// The floor of the same run.
    Floor,
    /// The same figure of a baseline.
    Baseline,
}

impl Of {
    /// Its name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Floor => "floor",
            Self::Baseline => "baseline",
        }
    }
}

/// Which results a limit is meant of: those of which all holds that is said.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
struct Where {
    benchmark: Option<Benchmark>,
    op: Option<Op>,
    transport: Option<Transport>,
    device: Option<String>,
    size: Option<u64>,
    /// The name of a count.
    case: Option<String>,
}

impl<'de> Deserialize<'de> for Metric {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let all = [Self::P50, Self::P99, Self::Bytes, Self::Instructions];
        all.into_iter().find(|metric| metric.name() == text).ok_or_else(|| {
            serde::de::Error::custom(format!("metric {text:?} is none of {}", all.map(Self::name).join(", ")))
        })
    }
}

impl Plan {
    /// Reads a plan.
    ///
    /// # Errors
    /// The file cannot be read, or makes no sense.
    pub fn read(path: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(path).context(|| format!("read the plan {}", path.display()))?;
        Self::parse(&text).map_err(|reason| Error::Usage(format!("the plan {}: {reason}", path.display())))
    }

    /// A plan in TOML.
    ///
    /// # Errors
    /// What makes no sense, and where.
    pub fn parse(text: &str) -> std::result::Result<Self, String> {
        let plan: Self = toml::from_str(text).map_err(|error| error.to_string().trim_end().to_owned())?;
        for (number, limit) in (1..).zip(&plan.limits) {
            let bounds = [limit.at_most, limit.at_least];
            if bounds.iter().flatten().any(|bound| !bound.is_finite() || *bound <= 0.0) {
                return Err(format!("limit {number}: a bound is a ratio, more than 0"));
            }
            if limit.metric == Metric::Instructions && limit.of == Of::Floor {
                return Err(format!("limit {number}: instructions have no floor, but a baseline"));
            }
            let Where { benchmark, op, transport, size, case, .. } = &limit.meant;
            let of_results = benchmark.is_some() || op.is_some() || transport.is_some() || size.is_some();
            let of_counts = case.is_some();
            if if limit.metric == Metric::Instructions { of_results } else { of_counts } {
                let (what, has) = match of_counts {
                    true => ("a result", "benchmark, op, transport, device and size"),
                    false => ("a count", "device and case"),
                };
                return Err(format!("limit {number}: `where` of {what} may name {has}"));
            }
            if bounds == [None, None] {
                return Err(format!("limit {number} says neither at_most nor at_least"));
            }
        }
        if plan.limits.is_empty() {
            return Err("it has no [[limit]]".to_owned());
        }
        Ok(plan)
    }
}

impl Limit {
    /// What it is called.
    #[must_use]
    pub fn name(&self) -> String {
        let bound = |word: &str, bound: Option<f64>| bound.map(|bound| format!(" {word} {bound} x"));
        let bounds = [bound("at most", self.at_most), bound("at least", self.at_least)];
        let made = || {
            let bounds: String = bounds.into_iter().flatten().collect();
            format!("{}{bounds} the {}", self.metric.name(), self.of.name())
        };
        self.name.clone().unwrap_or_else(made)
    }

    /// Whether it is meant of a count.
    #[must_use]
    pub fn is_meant_of_count(&self, count: &Count) -> bool {
        let Where { device, case, .. } = &self.meant;
        self.metric == Metric::Instructions
            && device.as_ref().is_none_or(|one| *one == count.device)
            && case.as_ref().is_none_or(|one| *one == count.name)
    }

    /// Whether it is meant of a result.
    #[must_use]
    pub fn is_meant_of(&self, report: &Report) -> bool {
        let Where { benchmark, op, transport, device, size, case: _ } = &self.meant;
        // Who says nothing of the benchmark means those that have the figure.
        benchmark.map_or_else(
            || Metric::of(report.benchmark).contains(&self.metric),
            |one| one == report.benchmark,
        ) && op.is_none_or(|one| one == report.op)
            && transport.is_none_or(|one| one == report.transport)
            && device.as_ref().is_none_or(|one| *one == report.device)
            && size.is_none_or(|one| one == report.size_bytes)
    }
}
