//! A plan in action.

use super::{Happening, VerbsCall, VerbsPlan, When, Which};
use crate::fault::{Chance, Random};
use crate::work::WcStatus;
use core::time::Duration;

/// The faults of one process.
///
/// Each fault of the plan has a stream of random numbers of its own, so one fault more or less leaves the others as they were.
#[derive(Clone, Debug)]
pub struct VerbsFaults {
    completions: Vec<(Dice, WcStatus)>,
    delays: Vec<(Dice, Duration)>,
    breaks: Vec<Dice>,
    losses: Vec<Dice>,
    absences: Vec<(Dice, Duration)>,
    refusals: Vec<(Dice, (VerbsCall, u32))>,
    happenings: Vec<(Happening, When)>,
    calls: u64,
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
        let alone = |kind, list: &[Which]| {
            list.iter().enumerate().map(|(i, &which)| dice(kind, i, which)).collect::<Vec<_>>()
        };
        let lasting = |kind, list: &[(Which, Duration)]| {
            list.iter()
                .enumerate()
                .map(|(i, &(which, time))| (dice(kind, i, which), time))
                .collect::<Vec<_>>()
        };
        let completions = plan.completions.iter().enumerate();
        let refusals = plan.refusals.iter().enumerate();
        let events = plan.events.iter().map(|&(kind, when)| (Happening::Event(kind), when));
        let removal = plan.removal.map(|when| (Happening::Removal, when));
        Self {
            completions: completions.map(|(i, &(which, status))| (dice(1, i, which), status)).collect(),
            breaks: alone(2, &plan.breaks),
            refusals: refusals.map(|(i, &(call, which, errno))| (dice(3, i, which), (call, errno))).collect(),
            delays: lasting(4, &plan.delays),
            losses: alone(5, &plan.losses),
            absences: lasting(6, &plan.absences),
            happenings: events.chain(removal).collect(),
            calls: 0,
        }
    }

    /// A call is made, other than looking for completions and reading them: these depend on time. What happens because of that.
    pub fn called(&mut self) -> impl Iterator<Item = Happening> + use<> {
        self.calls += 1;
        let now = When::Call(self.calls);
        let due = self.happenings.iter().filter(|(_, when)| *when == now).map(|(what, _)| *what);
        // Hardly ever anything, and then no memory either.
        due.collect::<Vec<_>>().into_iter()
    }

    /// What happens after a time.
    pub fn timed(&self) -> impl Iterator<Item = (Duration, Happening)> {
        self.happenings.iter().filter_map(|&(what, when)| match when {
            When::After(time) => Some((time, what)),
            When::Call(_) => None,
        })
    }

    /// A call is made. The errno that it is refused with, if it is.
    pub fn refuse(&mut self, call: VerbsCall) -> Option<u32> {
        hits(self.refusals.iter_mut().filter(|(_, (meant, _))| *meant == call)).map(|(_, errno)| errno)
    }

    /// A send request is posted. Whether its queue pair breaks.
    pub fn breaks(&mut self) -> bool {
        any(&mut self.breaks)
    }

    /// A message is sent. Whether it is lost.
    pub fn loses(&mut self) -> bool {
        any(&mut self.losses)
    }

    /// A receive is posted. For how long it and its followers are not there, if they are not.
    pub fn hides(&mut self) -> Option<Duration> {
        hits(&mut self.absences)
    }

    /// The device has a completion. How late it is, if it is.
    pub fn delays(&mut self) -> Option<Duration> {
        hits(&mut self.delays)
    }

    /// A completion of success is handed out. The status that it has instead, if it has.
    pub fn fail(&mut self) -> Option<WcStatus> {
        hits(&mut self.completions)
    }
}

/// What the first of them says that hits. All dice are asked, whatever others say: each counts.
fn hits<'a, T: Copy + 'a>(dice: impl IntoIterator<Item = &'a mut (Dice, T)>) -> Option<T> {
    dice.into_iter().fold(None, |found, (dice, says)| dice.hits().then_some(*says).or(found))
}

fn any(dice: &mut [Dice]) -> bool {
    dice.iter_mut().fold(false, |hit, dice| dice.hits() | hit)
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
            Which::Each(chance) => self.random.below(Chance::WHOLE.into()) < u64::from(chance.parts()),
        }
    }
}
