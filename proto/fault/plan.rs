//! What may go wrong on a link, as a value.

use core::ops::Range;
use core::time::Duration;

/// How likely something is, in parts of a thousand million.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Chance(u32);

impl Chance {
    /// Never.
    pub const NEVER: Self = Self(0);
    /// Always.
    pub const ALWAYS: Self = Self(Self::WHOLE);
    /// The parts that make certainty.
    pub const WHOLE: u32 = 1_000_000_000;

    /// So many parts of [`WHOLE`](Self::WHOLE), or `None` if that is more than all.
    pub const fn from_parts(parts: u32) -> Option<Self> {
        if parts <= Self::WHOLE { Some(Self(parts)) } else { None }
    }

    /// So many percent; more than a hundred counts as a hundred.
    pub const fn percent(percent: u32) -> Self {
        if percent >= 100 { Self::ALWAYS } else { Self(percent * (Self::WHOLE / 100)) }
    }

    /// The parts of [`WHOLE`](Self::WHOLE).
    pub const fn parts(self) -> u32 {
        self.0
    }

    /// Whether it cannot happen.
    pub const fn is_never(self) -> bool {
        self.0 == 0
    }
}

/// Losses that come in runs (the model of Gilbert and Elliott, with everything lost in the bad state).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Burst {
    /// How likely a packet that is not in a run begins one.
    pub chance: Chance,
    /// How many packets a run takes in the mean, at least 1.
    pub mean_packets: u32,
}

/// Packets that come later than their followers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Reorder {
    /// How likely each is.
    pub chance: Chance,
    /// How much later it comes at most; each time up to it is as likely as the next.
    pub by: Duration,
}

/// Packets that come twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Duplicate {
    /// How likely each is.
    pub chance: Chance,
    /// How much later the second copy comes at most; zero is right behind the first.
    pub by: Duration,
}

/// How times on the way are spread around their delay.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Spread {
    /// Every time within the jitter, more or less, is as likely as the next.
    #[default]
    Uniform,
    /// Most are near the delay: the jitter is three standard deviations, and none is further away than six.
    Normal,
    /// Never less than the delay, and the jitter more in the mean, with a long tail (Pareto's distribution with exponent 2): nine jitters more for one
    /// packet in a hundred, thirty for one in a thousand, and never more than a hundred.
    Pareto,
}

/// A link that sleeps when it has nothing to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Sleep {
    /// After so long without a packet.
    pub after: Duration,
    /// So long does it take to wake; who comes meanwhile waits as well.
    pub wake: Duration,
}

/// What a plan becomes later.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Stage {
    /// From when on, counted from the start of the link.
    pub from: Duration,
    /// What goes wrong from then on, in place of all that was said before. It has no stages of its own.
    pub plan: FaultPlan,
}

/// What goes wrong on one direction of a link. The default is nothing at all: no delay, no limit, no fault.
///
/// Its text form lists what is not so, separated by commas, in any order; `none` is the default.
///
/// | text | meaning |
/// |---|---|
/// | `loss=1%` | each packet is lost with this chance |
/// | `burst=0.1%:8` | runs of losses: the chance that one begins, and its mean length in packets |
/// | `delay=50us`, `delay=50us~20us` | time on the way, and how much more or less it may be; the order stays |
/// | `delay=50us~20us:normal`, `:pareto` | the same, spread otherwise: see [`Spread`] |
/// | `reorder=2%:100us` | a packet is held back by up to this much, and others overtake it |
/// | `dup=0.5%`, `dup=0.5%:1ms` | a packet comes a second time, at once or up to this much later |
/// | `corrupt=0.1%` | one bit is flipped |
/// | `rate=10Gbps` | packets leave at this rate (`bps`, `kbps`, `Mbps`, `Gbps`) |
/// | `queue=256` | packets that may wait for the rate; more are lost |
/// | `sleep=1ms:50us` | the link sleeps after so long without a packet, and takes so long to wake |
/// | `partition=1s..1.5s+3s..` | nothing arrives that is sent at these times, counted from the start |
///
/// A plan may change in the course of time: `loss=1%; 2s: loss=100%; 2.5s: none` are three plans, each of them whole, in force from the times before them.
/// Times of partitions count from there too.
///
/// ```
/// use tbrdma_proto::fault::FaultPlan;
/// let plan: FaultPlan = "delay=50us~20us,loss=1%".parse()?;
/// assert_eq!(plan.loss.parts(), 10_000_000);
/// assert_eq!(plan.to_string(), "loss=1%,delay=50us~20us");
/// # Ok::<(), tbrdma_proto::fault::FaultPlanError>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct FaultPlan {
    /// Each packet is lost with this chance, whatever became of others.
    pub loss: Chance,
    /// Losses in runs.
    pub burst: Option<Burst>,
    /// Time on the way.
    pub delay: Duration,
    /// How much more or less `delay` may be; what would overtake its predecessor comes right behind it.
    pub jitter: Duration,
    /// How the times within `jitter` are spread.
    pub spread: Spread,
    /// Packets that others overtake.
    pub reorder: Option<Reorder>,
    /// Packets that come twice.
    pub duplicate: Option<Duplicate>,
    /// One bit of a packet is flipped with this chance.
    pub corrupt: Chance,
    /// Bits per second at which packets leave; unlimited if `None`.
    pub rate: Option<u64>,
    /// Packets that may wait for their turn where there is a rate; unlimited if `None`.
    pub queue: Option<u32>,
    /// Whether the link sleeps.
    pub sleep: Option<Sleep>,
    /// When nothing arrives, from the start of the link or of the stage; an end of [`Duration::MAX`] is for ever.
    pub partitions: Vec<Range<Duration>>,
    /// What it becomes later, in the order of time.
    pub stages: Vec<Stage>,
}

impl FaultPlan {
    /// The largest `queue`.
    pub const MAX_QUEUE: u32 = 1 << 20;

    /// The plan that is in force so long after the start of the link, and since when it is.
    pub fn at(&self, age: Duration) -> (Duration, &Self) {
        let stage = self.stages.iter().rev().find(|stage| stage.from <= age);
        stage.map_or((Duration::ZERO, self), |stage| (stage.from, &stage.plan))
    }

    /// Whether every packet arrives once, whole and in order: there may be delays, and nothing else.
    pub fn is_lossless(&self) -> bool {
        self.loss.is_never()
            && self.burst.is_none_or(|burst| burst.chance.is_never())
            && self.reorder.is_none_or(|reorder| reorder.chance.is_never())
            && self.duplicate.is_none_or(|duplicate| duplicate.chance.is_never())
            && self.corrupt.is_never()
            && self.queue.is_none()
            && self.partitions.is_empty()
            && self.stages.iter().all(|stage| stage.plan.is_lossless())
    }
}
