//! How fast a link is.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;
use tbrdma_proto::fault::FaultPlan;

/// A rate and a latency. At least one of them is given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LinkModel {
    /// Bits per second; `None` is as fast as it goes.
    pub rate: Option<u64>,
    /// Time on the way, one way; zero is as fast as it goes.
    pub latency: Duration,
}

impl FromStr for LinkModel {
    type Err = String;

    /// `64Gbps,5us`: a rate, a latency, or both.
    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || "write a rate and a latency, or one of them, as in 64Gbps,5us".to_owned();
        // The plan's own way to read numbers with units: one meaning for both.
        let as_plan = text
            .split(',')
            .map(str::trim)
            .map(|part| if part.ends_with("bps") { format!("rate={part}") } else { format!("delay={part}") });
        let plan: FaultPlan = as_plan.collect::<Vec<_>>().join(",").parse().map_err(|_| wrong())?;
        if !plan.jitter.is_zero() || (plan.rate.is_none() && plan.delay.is_zero()) {
            return Err(wrong());
        }
        Ok(Self { rate: plan.rate, latency: plan.delay })
    }
}

impl fmt::Display for LinkModel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rate = FaultPlan { rate: self.rate, ..FaultPlan::default() }.to_string();
        let delay = FaultPlan { delay: self.latency, ..FaultPlan::default() }.to_string();
        let both = [rate.strip_prefix("rate="), delay.strip_prefix("delay=")];
        let mut separator = "";
        for part in both.into_iter().flatten() {
            write!(f, "{separator}{part}")?;
            separator = ",";
        }
        Ok(())
    }
}
