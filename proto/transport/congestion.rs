//! How many packets may be on their way: a small trait, and the window that does it.

use core::time::Duration;

use crate::time::Time;

/// Decides how much may be outstanding. It is told what happens, in the order in which it does, and answers with a
/// window.
pub trait Congestion {
    /// How many packets may be unacknowledged, at least 1. Ask again after each of the other calls.
    fn window(&self) -> u32;

    /// `packets` more were acknowledged; with the time of a round trip, if that measured one.
    fn on_ack(&mut self, packets: u32, round_trip: Option<Duration>);

    /// The packet with number `missing` was lost, which was noticed `after` it was sent, if that is known; `sent` is
    /// the next number that was never used.
    fn on_loss(&mut self, missing: u64, sent: u64, after: Option<Duration>);

    /// Nothing was heard for so long that everything on its way counts as lost.
    fn on_timeout(&mut self, sent: u64);

    /// The last timeout was wrong: what counted as lost has been acknowledged.
    fn on_spurious_timeout(&mut self);

    /// The network says that it is congested.
    fn on_mark(&mut self, now: Time);
}

/// Packets of the first window.
const INITIAL: u32 = 64;
/// The least it shrinks to: enough for a loss to be noticed by what follows, and for a run of losses not to take
/// every attempt.
const FLOOR: u32 = 4;
/// What part of itself it gives up for a loss by chance.
const BY_CHANCE: u64 = 32;
/// What part of itself it grows by in a round trip while the path is not full.
const STEP: u64 = 16;
/// The most packets.
const MAX_PACKETS: u32 = 1024;
/// The most bytes.
const MAX_BYTES: u32 = 2 << 20;
/// How long after a mark of congestion others are taken for the same congestion, if no round trip was measured yet.
const MARK_INTERVAL: Duration = Duration::from_micros(50);

/// A window that grows with acknowledgements and shrinks with losses, at most once in a round trip.
///
/// How far it shrinks depends on the round trip in which the loss was noticed: if that was longer than the shortest,
/// packets wait in a queue, and the window goes down to what the path carries without one, but to no less than a
/// half. If it was not, the loss is taken for chance, and the window hardly changes. So a connection is not starved
/// by a cable that loses one packet in a hundred.
#[derive(Clone, Debug)]
pub struct AdaptiveWindow {
    /// In 1/256 packets, to grow by parts of one.
    window: u64,
    threshold: u64,
    max: u64,
    /// The shortest round trip so far, in nanoseconds.
    shortest: Option<u64>,
    /// The shortest since the last loss: no queue stands if it is as short.
    recent: Option<u64>,
    /// Losses below this number belong to one that has been answered.
    answered: u64,
    /// The window before the last timeout, while that may still prove wrong.
    before_timeout: Option<u64>,
    marked: Option<Time>,
    /// Nobody else is on the way, and nothing is lost for want of room.
    wide: bool,
}

const ONE: u64 = 256;

impl AdaptiveWindow {
    /// A window for packets of `mtu` bytes.
    pub fn new(mtu: u32) -> Self {
        let max = u64::from((MAX_BYTES / mtu.max(1)).clamp(INITIAL, MAX_PACKETS)) * ONE;
        Self {
            window: u64::from(INITIAL) * ONE,
            threshold: max,
            max,
            shortest: None,
            recent: None,
            answered: 0,
            before_timeout: None,
            marked: None,
            wide: false,
        }
    }

    /// A window for a way that loses nothing: as large as any from the beginning. Only a silence makes it smaller, until the next acknowledgements.
    pub fn wide(mtu: u32) -> Self {
        let window = Self::new(mtu);
        Self { window: window.max, wide: true, ..window }
    }

    /// Whether packets have waited since the last loss, even those that waited least.
    fn queue_stands(&self) -> bool {
        match (self.shortest, self.recent) {
            (Some(shortest), Some(recent)) => recent > shortest + shortest / 8,
            _ => true,
        }
    }

    fn shrink(&mut self, after: Option<Duration>) {
        if self.wide {
            return;
        }
        let half = self.window / 2;
        let carried = match (&mut self.shortest, self.recent.take()) {
            (Some(shortest), Some(recent)) => {
                let after = after.map_or(recent, |after| after.as_nanos() as u64);
                let carried = self.window * *shortest / after.max(*shortest);
                // Paths change, and one odd measurement must not count for ever.
                *shortest += recent.saturating_sub(*shortest) / 16;
                carried
            }
            _ => self.window,
        };
        let by_chance = self.window - self.window / BY_CHANCE;
        self.window = carried.clamp(half, by_chance.max(half)).max(u64::from(FLOOR) * ONE);
        self.threshold = self.window;
    }
}

impl Congestion for AdaptiveWindow {
    #[inline]
    fn window(&self) -> u32 {
        (self.window / ONE) as u32
    }

    #[inline]
    fn on_ack(&mut self, packets: u32, round_trip: Option<Duration>) {
        if let Some(round_trip) = round_trip {
            let round_trip = (round_trip.as_nanos() as u64).max(1);
            let least = |before: Option<u64>| before.map_or(round_trip, |before| before.min(round_trip));
            self.shortest = Some(least(self.shortest));
            self.recent = Some(least(self.recent));
        }
        if self.window >= self.max {
            return;
        }
        let packets = u64::from(packets);
        let growth = if self.window < self.threshold {
            packets * ONE
        } else {
            // A round trip acknowledges about a window: one packet more for each, or a part of the window where no
            // queue stands.
            let step = if self.queue_stands() { ONE } else { (self.window / STEP).max(ONE) };
            (packets * ONE * step / self.window.max(1)).max(1)
        };
        self.window = (self.window + growth).min(self.max);
    }

    fn on_loss(&mut self, missing: u64, sent: u64, after: Option<Duration>) {
        self.before_timeout = None;
        if missing >= self.answered {
            self.answered = sent;
            self.shrink(after);
        }
    }

    fn on_timeout(&mut self, sent: u64) {
        if self.before_timeout.is_none() {
            self.before_timeout = Some(self.window);
            self.shrink(None);
        }
        self.answered = sent;
        self.window = u64::from(FLOOR) * ONE;
    }

    fn on_spurious_timeout(&mut self) {
        if let Some(window) = self.before_timeout.take() {
            self.window = window;
            self.threshold = self.threshold.max(window);
        }
    }

    fn on_mark(&mut self, now: Time) {
        let quiet = self.shortest.map_or(MARK_INTERVAL, Duration::from_nanos).max(MARK_INTERVAL);
        if !self.wide && self.marked.is_none_or(|marked| now.since(marked) >= quiet) {
            self.marked = Some(now);
            self.window = (self.window - self.window / 4).max(u64::from(FLOOR) * ONE);
            self.threshold = self.window;
        }
    }
}
