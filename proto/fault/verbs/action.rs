//! A plan in action.

use super::{VerbsCall, VerbsPlan, Which};
use crate::event::AsyncEventKind;
use crate::fault::Random;
use crate::work::WcStatus;
use core::time::Duration;

/// Something that happens at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Due {
    /// The device raises this event.
    Event(AsyncEventKind),
    /// The device is gone.
    Removal,
}

/// The faults of one process.
///
/// Each fault of the plan has a stream of random numbers of its own, so one fault more or less leaves the others as they were.
#[derive(Clone, Debug)]
pub struct VerbsFaults {
    completions: Vec<(Dice, WcStatus)>,
    breaks: Vec<Dice>,
    refusals: Vec<(VerbsCall, Dice, u32)>,
    /// What is still to happen, the last first.
    timetable: Vec<(Duration, Due)>,
    plan: VerbsPlan,
}

impl VerbsFaults {
    /// This plan, by this seed.
    pub fn new(plan: VerbsPlan, seed: u64) -> Self {
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
        let mut timetable: Vec<_> = plan.events.iter().map(|&(at, kind)| (at, Due::Event(kind))).collect();
        timetable.extend(plan.removal.map(|at| (at, Due::Removal)));
        timetable.sort_by_key(|&(at, _)| core::cmp::Reverse(at));
        Self { completions, breaks, refusals, timetable, plan }
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

    /// Until when receives are not seen, if they are not now. `now` counts from the first device that was opened, here and below.
    pub fn not_ready_until(&self, now: Duration) -> Option<Duration> {
        self.plan.not_ready.iter().filter(|times| times.contains(&now)).map(|times| times.end).max()
    }

    /// Whether anything of the plan concerns completions.
    pub fn concerns_completions(&self) -> bool {
        !self.completions.is_empty()
    }

    /// What is due. Call it again until it says `None`.
    pub fn due(&mut self, now: Duration) -> Option<Due> {
        self.timetable.pop_if(|&mut (at, _)| at <= now).map(|(_, due)| due)
    }

    /// When something is due next.
    pub fn next_due(&self) -> Option<Duration> {
        self.timetable.last().map(|&(at, _)| at)
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
