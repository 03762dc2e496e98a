//! A plan in action.

use core::time::Duration;
use std::collections::VecDeque;

use super::{Chance, FaultPlan, Random};
use crate::time::Time;

/// What becomes of one packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It never arrives.
    Dropped(DropCause),
    /// It arrives, perhaps twice.
    Delivered {
        /// When and how.
        first: Delivery,
        /// The second copy, never earlier than the first.
        second: Option<Delivery>,
    },
}

/// One arrival of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Delivery {
    /// When.
    pub at: Time,
    /// The bit that is flipped, counted from the lowest bit of the first byte: below 8 times the packet's bytes.
    pub flip: Option<usize>,
}

impl Delivery {
    /// Does the damage to the packet's bytes, if there is any.
    pub fn damage(&self, packet: &mut [u8]) {
        if let Some(bit) = self.flip
            && let Some(byte) = packet.get_mut(bit / 8)
        {
            *byte ^= 1 << (bit % 8);
        }
    }
}

/// Why a packet is lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DropCause {
    /// By chance.
    Loss,
    /// In a run of losses.
    Burst,
    /// No room to wait for the rate.
    Queue,
    /// The link is cut.
    Partition,
}

/// The faults of one direction of one link.
///
/// Each kind of fault has a stream of random numbers of its own, so a plan with one kind more or less leaves the others as they
/// were, as far as they meet the same packets.
#[derive(Clone, Debug)]
pub struct Faults {
    plan: FaultPlan,
    start: Time,
    loss: Random,
    burst: Random,
    jitter: Random,
    reorder: Random,
    duplicate: Random,
    corrupt: Random,
    in_burst: bool,
    /// When the last packet will have left, in picoseconds since time zero: short packets at high rates take parts of a nanosecond.
    free_at_ps: u128,
    /// When those that wait for their turn will have left, first to last.
    leaving: VecDeque<Time>,
    /// The latest arrival of a packet that was not held back: its followers come no earlier.
    last: Time,
}

impl Faults {
    /// The faults that `plan` and `seed` make, on a link that exists since [`Time::ZERO`].
    pub fn new(plan: FaultPlan, seed: u64) -> Self {
        Self::starting_at(plan, seed, Time::ZERO)
    }

    /// The same on a link that exists since `start`, from when the plan's partitions count.
    pub fn starting_at(plan: FaultPlan, seed: u64, start: Time) -> Self {
        let seed = Random::new(seed);
        let waiting = if plan.rate.is_some() { plan.queue.unwrap_or(0) } else { 0 };
        Self {
            start,
            loss: seed.stream(1),
            burst: seed.stream(2),
            jitter: seed.stream(3),
            reorder: seed.stream(4),
            duplicate: seed.stream(5),
            corrupt: seed.stream(6),
            in_burst: false,
            free_at_ps: 0,
            leaving: VecDeque::with_capacity(waiting.min(FaultPlan::MAX_QUEUE) as usize),
            last: Time::ZERO,
            plan,
        }
    }

    /// The plan.
    pub const fn plan(&self) -> &FaultPlan {
        &self.plan
    }

    /// Decides about a packet of `bytes` bytes that is sent at `now`. Times must not go back from call to call.
    pub fn apply(&mut self, now: Time, bytes: usize) -> Fate {
        let age = now.since(self.start);
        if self.plan.partitions.iter().any(|cut| cut.contains(&age)) {
            return Fate::Dropped(DropCause::Partition);
        }
        if self.burst_takes() {
            return Fate::Dropped(DropCause::Burst);
        }
        if happens(&mut self.loss, self.plan.loss) {
            return Fate::Dropped(DropCause::Loss);
        }
        let Some(leaves) = self.leave(now, bytes) else { return Fate::Dropped(DropCause::Queue) };
        let at = self.arrival(leaves);
        let first = Delivery { at, flip: self.flip(bytes) };
        let second = match self.plan.duplicate {
            Some(duplicate) if happens(&mut self.duplicate, duplicate.chance) => {
                let at = at + up_to(&mut self.duplicate, duplicate.by);
                Some(Delivery { at, flip: self.flip(bytes) })
            }
            _ => None,
        };
        Fate::Delivered { first, second }
    }

    /// Steps the two-state model of bursts, and says whether it takes this packet.
    fn burst_takes(&mut self) -> bool {
        let Some(burst) = self.plan.burst else { return false };
        self.in_burst = if self.in_burst {
            !self.burst.one_in(burst.mean_packets.max(1).into())
        } else {
            happens(&mut self.burst, burst.chance)
        };
        self.in_burst
    }

    /// When the packet has left at the plan's rate, or `None` if there is no room to wait.
    fn leave(&mut self, now: Time, bytes: usize) -> Option<Time> {
        let Some(rate) = self.plan.rate else { return Some(now) };
        let now_ps = u128::from(now.0) * 1000;
        if let Some(queue) = self.plan.queue {
            while self.leaving.front().is_some_and(|&leaves| leaves <= now) {
                self.leaving.pop_front();
            }
            if self.leaving.len() >= queue.clamp(1, FaultPlan::MAX_QUEUE) as usize {
                return None;
            }
        }
        let takes_ps = bytes as u128 * 8 * 1_000_000_000_000 / u128::from(rate.max(1));
        self.free_at_ps = self.free_at_ps.max(now_ps).saturating_add(takes_ps);
        let leaves = Time(u64::try_from(self.free_at_ps.div_ceil(1000)).unwrap_or(u64::MAX));
        if self.plan.queue.is_some() {
            self.leaving.push_back(leaves);
        }
        Some(leaves)
    }

    /// When a packet that left at `leaves` arrives.
    fn arrival(&mut self, leaves: Time) -> Time {
        let least = leaves + self.plan.delay.saturating_sub(self.plan.jitter);
        let spread = self.plan.delay.min(self.plan.jitter) + self.plan.jitter;
        let usual = (least + up_to(&mut self.jitter, spread)).max(self.last);
        match self.plan.reorder {
            Some(reorder) if happens(&mut self.reorder, reorder.chance) => {
                usual + up_to(&mut self.reorder, reorder.by)
            }
            _ => {
                self.last = usual;
                usual
            }
        }
    }

    fn flip(&mut self, bytes: usize) -> Option<usize> {
        let hit = bytes > 0 && happens(&mut self.corrupt, self.plan.corrupt);
        hit.then(|| self.corrupt.index(bytes * 8))
    }
}

/// Rolls the dice; not at all where the answer is certain, so that what never happens costs nothing.
fn happens(random: &mut Random, chance: Chance) -> bool {
    !chance.is_never() && random.below(Chance::WHOLE.into()) < u64::from(chance.parts())
}

/// A time up to `most`, none at all if that is zero.
fn up_to(random: &mut Random, most: Duration) -> Duration {
    match u64::try_from(most.as_nanos()).unwrap_or(u64::MAX) {
        0 => Duration::ZERO,
        most => Duration::from_nanos(random.within(0, most)),
    }
}
