//! How fast a link is, as a value: the part of a [`FaultPlan`] that is no fault.

use core::fmt;
use core::str::FromStr;
use core::time::Duration;

use super::FaultPlan;

/// A rate and a latency, for each direction of a link. At least one of them is given.
///
/// ```
/// use tbrdma_proto::fault::LinkModel;
/// let link: LinkModel = "64Gbps,5us".parse()?;
/// assert_eq!((link.rate, link.latency.as_micros()), (Some(64_000_000_000), 5));
/// # Ok::<(), tbrdma_proto::fault::LinkModelError>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LinkModel {
    /// Bits per second; `None` is as fast as it goes.
    pub rate: Option<u64>,
    /// Time on the way, one way; zero is as fast as it goes.
    pub latency: Duration,
}

/// Why a link cannot be as somebody would have it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LinkModelError {
    /// A text that is none.
    #[error("write a rate and a latency, or one of them, as in 64Gbps,5us")]
    Text,
    /// The plan of faults, of which this is the text, has a rate or a delay of its own.
    #[error("the fault plan says it too: {0}; say it in one of them")]
    Twice(String),
}

impl LinkModel {
    /// What a plan of faults becomes on a link like this.
    ///
    /// # Errors
    /// [`LinkModelError::Twice`].
    pub fn with_faults(self, mut plan: FaultPlan) -> Result<FaultPlan, LinkModelError> {
        for stage in &mut plan.stages {
            stage.plan = self.with_faults(std::mem::take(&mut stage.plan))?;
        }
        if plan.rate.is_some() && self.rate.is_some() || !plan.delay.is_zero() && !self.latency.is_zero() {
            return Err(LinkModelError::Twice(plan.to_string()));
        }
        Ok(FaultPlan { rate: plan.rate.or(self.rate), delay: plan.delay.max(self.latency), ..plan })
    }

    /// The plan of a link like this without faults.
    pub fn plan(self) -> FaultPlan {
        FaultPlan { rate: self.rate, delay: self.latency, ..FaultPlan::default() }
    }
}

impl FromStr for LinkModel {
    type Err = LinkModelError;

    /// `64Gbps,5us`: a rate, a latency, or both.
    fn from_str(text: &str) -> Result<Self, LinkModelError> {
        // The plan's own way to read numbers with units: one meaning for both.
        let as_plan = text
            .split(',')
            .map(str::trim)
            .map(|part| if part.ends_with("bps") { format!("rate={part}") } else { format!("delay={part}") });
        let plan: FaultPlan =
            as_plan.collect::<Vec<_>>().join(",").parse().map_err(|_| LinkModelError::Text)?;
        if !plan.jitter.is_zero() || (plan.rate.is_none() && plan.delay.is_zero()) {
            return Err(LinkModelError::Text);
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
