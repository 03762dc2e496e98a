//! A plan in action.

use super::{VerbsCall, VerbsPlan, Which};
use crate::fault::Random;
use crate::work::WcStatus;

/// The faults of one process.
///
/// Each fault of the plan has a stream of random numbers of its own, so one fault more or less leaves the others as they were.
#[derive(Clone, Debug)]
pub struct VerbsFaults {
    completions: Vec<(Dice, WcStatus)>,
    breaks: Vec<Dice>,
    refusals: Vec<(VerbsCall, Dice, u32)>,
}

impl VerbsFaults {
    /// This plan, by this seed.
    pub fn new(plan: &VerbsPlan, seed: u64) -> Self {
        let random = Random::new(seed);
        let dice = |kind: u64, index: usize, which| Dice {
            which,
            asked: 0,
            random: random.stream(kind << 32 | index as u64),
        };
        let completions = plan
            .completions
            .iter()
            .enumerate()
            .map(|(i, &(which, status))| (dice(1, i, which), status))
            .collect();
        let breaks = plan.breaks.iter().enumerate().map(|(i, &which)| dice(2, i, which)).collect();
        let refusals = plan.refusals.iter().enumerate();
        let refusals = refusals.map(|(i, &(call, which, errno))| (call, dice(3, i, which), errno)).collect();
        Self { completions, breaks, refusals }
    }

    /// A call is made. The errno that it is refused with, if it is.
    pub fn refuse(&mut self, call: VerbsCall) -> Option<u32> {
        let meant = self.refusals.iter_mut().filter(|(meant, ..)| *meant == call);
        // All dice are asked, whatever the first says: each counts.
        meant.fold(None, |refused, (_, dice, errno)| dice.hits().then_some(*errno).or(refused))
    }

    /// A send request is posted. Whether its queue pair breaks.
    pub fn breaks(&mut self) -> bool {
        self.breaks.iter_mut().fold(false, |broken, dice| dice.hits() | broken)
    }

    /// A completion of success is handed out. The status that it has instead, if it has.
    pub fn fail(&mut self) -> Option<WcStatus> {
        self.completions
            .iter_mut()
            .fold(None, |failed, (dice, status)| dice.hits().then_some(*status).or(failed))
    }
}

/// Decides for one fault.
#[derive(Clone, Debug)]
struct Dice {
    which: Which,
    asked: u64,
    random: Random,
}

impl Dice {
    fn hits(&mut self) -> bool {
        self.asked += 1;
        match self.which {
            Which::Nth(nth) => self.asked == nth,
            Which::Each(chance) => self.random.below(super::Chance::WHOLE.into()) < u64::from(chance.parts()),
        }
    }
}
