//! What to do about packets that were lost: a small trait, and going back to the first of them.

use core::time::Duration;

use crate::time::Time;

/// Decides when what was sent is sent again, from the oldest unacknowledged packet on.
pub trait Recovery {
    /// New acknowledgements came.
    fn on_progress(&mut self);

    /// A round trip took so long, if it was measured.
    fn on_round_trip(&mut self, round_trip: Option<Duration>);

    /// Something shows that packet `missing`, the oldest unacknowledged one, or its answer was lost. Whether to send
    /// again: not if it is an echo of a loss that is being repaired.
    fn on_loss(&mut self, now: Time, missing: u64) -> bool;

    /// The silence has lasted for [`patience_nanos`](Self::patience_nanos), or for the queue pair's timeout;
    /// everything from `missing` on is sent again.
    fn on_silence(&mut self, now: Time, missing: u64);

    /// The last try after a silence was needless: what it sent again had arrived.
    fn on_needless(&mut self);

    /// How long, in nanoseconds, a silence may last before sending again is worth a try. It does not count as a
    /// retry: it only finds out sooner. It becomes longer with each try, up to `limit` if it was shorter; and it is
    /// `limit` while nothing is known.
    fn patience_nanos(&self, limit: u64) -> u64;
}

/// The shortest patience, in nanoseconds.
const SHORTEST_PATIENCE: u64 = 200_000;
/// What the shortest patience grows to with a peer that is slow to answer, because it waits for a processor, say.
const LONGEST_SHORTEST: u64 = 32 * SHORTEST_PATIENCE;
/// How long at least, in nanoseconds, what shows a loss again is taken for its echo.
const SHORTEST_ECHO: u64 = 10_000;
/// How often patience doubles.
const MAX_DOUBLINGS: u32 = 5;

/// Go-back-N: the responder keeps nothing that comes out of order, so everything from the first loss on is sent again.
#[derive(Clone, Debug)]
pub struct GoBackN {
    /// Smoothed round trip and its mean deviation, in nanoseconds; none measured yet if `None`.
    round_trip: Option<(u64, u64)>,
    doublings: u32,
    /// The shortest patience with this peer, in nanoseconds: longer after needless tries, shorter after losses.
    shortest: u64,
    /// The loss being repaired, and when that began.
    repairing: Option<(u64, Time)>,
}

impl Default for GoBackN {
    fn default() -> Self {
        Self { round_trip: None, doublings: 0, shortest: SHORTEST_PATIENCE, repairing: None }
    }
}

impl Recovery for GoBackN {
    #[inline]
    fn on_progress(&mut self) {
        self.doublings = 0;
    }

    #[inline]
    fn on_round_trip(&mut self, round_trip: Option<Duration>) {
        let Some(measured) = round_trip else { return };
        let measured = measured.as_nanos() as u64;
        self.round_trip = Some(match self.round_trip {
            None => (measured, measured / 2),
            Some((mean, deviation)) => {
                (mean - mean / 8 + measured / 8, deviation - deviation / 4 + mean.abs_diff(measured) / 4)
            }
        });
    }

    fn on_loss(&mut self, now: Time, missing: u64) -> bool {
        let echoes = self.round_trip.map_or(SHORTEST_PATIENCE, |(mean, deviation)| {
            mean.saturating_add(deviation.saturating_mul(2)).max(SHORTEST_ECHO)
        });
        if let Some((repaired, since)) = self.repairing
            && repaired == missing
            && now.0.saturating_sub(since.0) < echoes
        {
            return false;
        }
        self.repairing = Some((missing, now));
        self.shortest = (self.shortest / 2).max(SHORTEST_PATIENCE);
        true
    }

    fn on_silence(&mut self, now: Time, missing: u64) {
        self.doublings = (self.doublings + 1).min(MAX_DOUBLINGS);
        self.repairing = Some((missing, now));
    }

    fn on_needless(&mut self) {
        self.shortest = (self.shortest * 2).min(LONGEST_SHORTEST);
    }

    #[inline]
    fn patience_nanos(&self, limit: u64) -> u64 {
        let Some((mean, deviation)) = self.round_trip else { return limit };
        let shortest = mean.saturating_add(deviation.saturating_mul(4).max(mean)).max(self.shortest);
        shortest.saturating_mul(1 << self.doublings).min(limit.max(shortest))
    }
}
