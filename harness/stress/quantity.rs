//! Times and rates of a plan, written as fault plans have them: `2.5ms`, `10Gbps`.

use std::fmt;
use std::time::Duration;

use serde::Deserialize;
use tbrdma::fault::FaultPlan;

/// A time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span(pub Duration);

/// Bits a second.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BitRate(pub u64);

/// One value of a fault plan: one meaning of numbers with units for both.
fn read(name: &str, text: &str) -> Option<FaultPlan> {
    let is_one = text.chars().all(|letter| letter.is_ascii_alphanumeric() || letter == '.');
    if is_one { format!("{name}={text}").parse().ok() } else { None }
}

impl<'de> Deserialize<'de> for Span {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        read("delay", &text).map(|plan| Self(plan.delay)).ok_or_else(|| {
            serde::de::Error::custom(format!(
                "{text:?} is no time: write a number and ns, us, ms or s, as 2.5ms"
            ))
        })
    }
}

impl<'de> Deserialize<'de> for BitRate {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        read("rate", &text).and_then(|plan| plan.rate).map(Self).ok_or_else(|| {
            serde::de::Error::custom(format!(
                "{text:?} is no rate: write a number and bps, kbps, Mbps or Gbps, as 10Gbps"
            ))
        })
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&crate::histogram::nanoseconds(self.0.as_nanos() as f64))
    }
}

impl fmt::Display for BitRate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = FaultPlan { rate: Some(self.0), ..FaultPlan::default() }.to_string();
        f.write_str(text.strip_prefix("rate=").unwrap_or(&text))
    }
}
