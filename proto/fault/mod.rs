//! Faults of a device: what its program meets in verbs ([`VerbsPlan`], [`VerbsFaults`]), and below.
//!
//! Faults of a link: a plan that says what goes wrong how often, and the dice that decide for each packet.
//!
//! The simulator and the driver's live fault wrapper use the same two types, so what a plan means is the same in both.
//! [`FaultPlan`] is a value with a text form, for command lines and test names; [`Faults`] is a plan in action on one
//! direction of one link. Everything it decides follows from plan, seed, and the times and sizes it is told.

mod dice;
mod link;
mod plan;
mod random;
mod text;
mod verbs;

pub use dice::*;
pub use link::*;
pub use plan::*;
pub use random::*;
pub use text::FaultPlanError;
pub use verbs::*;
