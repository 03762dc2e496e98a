//! A plan in action.

use core::time::Duration;
use std::collections::VecDeque;

use super::{Chance, FaultPlan, Random, Spread};
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
    /// What of the plan is in force, without stages; since when; and until when.
    current: FaultPlan,
    since: Duration,
    until: Duration,
    /// When the last packet was sent, and when it could leave for sleep.
    sent: Time,
    awake: Time,
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
        let waiting = |plan: &FaultPlan| plan.rate.and(plan.queue).unwrap_or(0);
        let later = plan.stages.iter().map(|stage| waiting(&stage.plan));
        let waiting = later.fold(waiting(&plan), u32::max);
        let mut faults = Self {
            start,
            current: FaultPlan::default(),
            since: Duration::ZERO,
            until: Duration::MAX,
            sent: start,
            awake: start,
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
        };
        faults.change(Duration::ZERO);
        faults
    }

    /// Puts in force what the plan says of an age of the link.
    fn change(&mut self, age: Duration) {
        let (since, plan) = self.plan.at(age);
        let next = self.plan.stages.iter().map(|stage| stage.from).find(|from| *from > age);
        (self.since, self.until) = (since, next.unwrap_or(Duration::MAX));
        self.current = FaultPlan { stages: Vec::new(), ..plan.clone() };
    }

    /// The plan.
    pub const fn plan(&self) -> &FaultPlan {
        &self.plan
    }

    /// Decides about a packet of `bytes` bytes that is sent at `now`. Times must not go back from call to call.
    pub fn apply(&mut self, now: Time, bytes: usize) -> Fate {
        let age = now.since(self.start);
        if age >= self.until {
            self.change(age);
        }
        let age = age.saturating_sub(self.since);
        if self.current.partitions.iter().any(|cut| cut.contains(&age)) {
            return Fate::Dropped(DropCause::Partition);
        }
        if self.burst_takes() {
            return Fate::Dropped(DropCause::Burst);
        }
        if happens(&mut self.loss, self.current.loss) {
            return Fate::Dropped(DropCause::Loss);
        }
        let ready = self.wake(now);
        let Some(leaves) = self.leave(ready, bytes) else { return Fate::Dropped(DropCause::Queue) };
        let at = self.arrival(leaves);
        let first = Delivery { at, flip: self.flip(bytes) };
        let second = match self.current.duplicate {
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
        let Some(burst) = self.current.burst else { return false };
        self.in_burst = if self.in_burst {
            !self.burst.one_in(burst.mean_packets.max(1).into())
        } else {
            happens(&mut self.burst, burst.chance)
        };
        self.in_burst
    }

    /// When the link is awake for a packet that is sent at `now`.
    fn wake(&mut self, now: Time) -> Time {
        let Some(sleep) = self.current.sleep else { return now };
        if now.since(self.sent.max(self.awake)) >= sleep.after {
            self.awake = now + sleep.wake;
        }
        self.sent = now;
        now.max(self.awake)
    }

    /// When the packet has left at the plan's rate, or `None` if there is no room to wait.
    fn leave(&mut self, now: Time, bytes: usize) -> Option<Time> {
        let Some(rate) = self.current.rate else { return Some(now) };
        let now_ps = u128::from(now.0) * 1000;
        if let Some(queue) = self.current.queue {
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
        if self.current.queue.is_some() {
            self.leaving.push_back(leaves);
        }
        Some(leaves)
    }

    /// When a packet that left at `leaves` arrives.
    fn arrival(&mut self, leaves: Time) -> Time {
        let usual = (leaves + self.time_on_the_way()).max(self.last);
        match self.current.reorder {
            Some(reorder) if happens(&mut self.reorder, reorder.chance) => {
                usual + up_to(&mut self.reorder, reorder.by)
            }
            _ => {
                self.last = usual;
                usual
            }
        }
    }

    /// The delay, and the jitter as it is spread.
    fn time_on_the_way(&mut self) -> Duration {
        /// Throws that make a normal distribution: their sum has a standard deviation of one throw's whole range.
        const THROWS: u32 = 12;
        const LONGEST_TAIL: u32 = 100;
        let (delay, jitter) = (self.current.delay, self.current.jitter);
        let (least, around) = (delay.saturating_sub(jitter), delay.min(jitter).saturating_add(jitter));
        match self.current.spread {
            Spread::Uniform => least + up_to(&mut self.jitter, around),
            Spread::Normal => {
                let sigma = jitter / 3;
                let thrown: Duration = (0..THROWS).map(|_| up_to(&mut self.jitter, sigma)).sum();
                delay.saturating_add(thrown).saturating_sub(sigma.saturating_mul(THROWS / 2))
            }
            Spread::Pareto => {
                // What one in x has is the root of x jitters, without the one that all have. In whole numbers: the same on every machine.
                let one_in = (u64::MAX / self.jitter.within(1, u32::MAX.into())).isqrt();
                let parts = (one_in - (1 << 16)).min(u64::from(LONGEST_TAIL) << 16);
                let more = (jitter.as_nanos() * u128::from(parts)) >> 16;
                delay.saturating_add(Duration::from_nanos(u64::try_from(more).unwrap_or(u64::MAX)))
            }
        }
    }

    fn flip(&mut self, bytes: usize) -> Option<usize> {
        let hit = bytes > 0 && happens(&mut self.corrupt, self.current.corrupt);
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
