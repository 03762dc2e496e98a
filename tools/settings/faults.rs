//! What goes wrong, on the wire and in verbs, as one text.

use std::fmt;
use std::str::FromStr;
use tbrdma_proto::fault::{FaultPlan, VerbsPlan};

/// Faults of two kinds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Faults {
    /// What happens to packets; a transport may hide it.
    pub wire: FaultPlan,
    /// What the program meets in any case.
    pub verbs: VerbsPlan,
}

impl FromStr for Faults {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (verbs, wire): (Vec<_>, Vec<_>) = text.split(',').partition(|part| VerbsPlan::is_meant_by(part));
        let say = |error: &dyn fmt::Display| {
            format!(
                "{error} (of packets: loss, burst, delay, reorder, dup, corrupt, rate, queue, sleep, partition; of verbs: wc, wc_delay, qp_err, drop, rnr, refuse, event, remove)"
            )
        };
        Ok(Self {
            wire: wire.join(",").parse().map_err(|error| say(&error))?,
            verbs: verbs.join(",").parse().map_err(|error| say(&error))?,
        })
    }
}

impl fmt::Display for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.wire == FaultPlan::default(), self.verbs.is_none()) {
            (true, _) => self.verbs.fmt(f),
            (false, true) => self.wire.fmt(f),
            (false, false) => write!(f, "{},{}", self.wire, self.verbs),
        }
    }
}
