//! Running a seed or a script, and what it came to.

use core::fmt;

use super::run::Run;
use super::scenario::{Scenario, Troubles};
use crate::testing::{Totals, Violation};
use crate::time::Time;

/// How to run a seed.
#[derive(Clone, Copy, Debug, Default)]
pub struct Options {
    /// Called with each line of the trace as it happens.
    pub echo: Option<fn(&dyn fmt::Display)>,
}

/// What a run came to.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// The seed.
    pub seed: u64,
    /// A number made of all that happened.
    pub hash: u64,
    /// How much happened.
    pub totals: Totals,
    /// How much virtual time passed.
    pub time: Time,
    /// Completions of sends and of receives by the number of their status.
    pub statuses: [[u64; 24]; 2],
    /// What went wrong, if anything did.
    pub failure: Option<Failure>,
}

/// A broken invariant.
#[derive(Clone, Debug)]
pub struct Failure {
    /// Which.
    pub violation: Violation,
    /// When.
    pub at: Time,
    /// The run in words.
    pub scenario: String,
    /// What happened last.
    pub trace: String,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { violation, at, scenario, trace } = self;
        write!(f, "{trace}{scenario}\nat {at}: {violation}")
    }
}

/// Runs a seed to its end.
pub fn run(seed: u64, options: Options) -> Outcome {
    run_scenario(Scenario::new(seed), None, options)
}

/// Runs what a fuzzer wrote: two bytes of seed, one of [`Troubles`], then what the applications do, four bytes each: what, at which end,
/// how often, and how long after the one before. The network is that of the seed, with one or two connections.
pub fn run_script(script: &[u8], options: Options) -> Outcome {
    let (head, operations) = script.split_at_checked(3).unwrap_or((&[0; 3], &[]));
    let (seed, troubles) = match *head {
        [low, high, troubles] => (u64::from(low) | u64::from(high) << 8, troubles),
        _ => (0, 0),
    };
    let mut scenario = Scenario::new(seed);
    scenario.troubles = Troubles::from_bits(troubles);
    scenario.connections.truncate(1 + usize::from(troubles >> 7));
    scenario.max_len = scenario.max_len.min(scenario.mtu.bytes() * 4);
    scenario.operations = (operations.len() / 4).min(200) as u32;
    run_scenario(scenario, Some(operations.to_vec()), options)
}

fn run_scenario(scenario: Scenario, script: Option<Vec<u8>>, options: Options) -> Outcome {
    let seed = scenario.seed;
    let words = scenario.to_string();
    let mut outcome = Outcome {
        seed,
        hash: 0,
        totals: Totals::default(),
        time: Time::ZERO,
        statuses: [[0; 24]; 2],
        failure: None,
    };
    let failure = |violation, at, trace| Some(Failure { violation, at, scenario: words, trace });
    match Run::new(scenario, script) {
        Ok(mut run) => {
            run.world.fabric.trace_mut().echo = options.echo;
            let result = run.go_to_the_end();
            let fabric = &run.world.fabric;
            outcome.hash = fabric.trace().hash();
            outcome.totals = fabric.totals();
            outcome.time = fabric.now();
            outcome.statuses = run.statuses;
            if let Err(violation) = result {
                outcome.failure = failure(violation, fabric.now(), fabric.trace().to_string());
            }
        }
        Err(violation) => outcome.failure = failure(violation, Time::ZERO, String::new()),
    }
    outcome
}
