//! When the service thread sleeps by the clock, and not until the network wakes it.
//!
//! To wake a thread costs the sender, in whose time the kernel delivers over loopback, a twentieth of what a long train costs, and the receiver
//! more than the train. Adapters have the same trouble with interrupts, and the same remedy: while much comes, look once in a while. How much
//! must come is found out by trying. Where a nap has gathered several trains, the sender does not wait for us, and another nap follows;
//! where it has not, somebody may have waited for our answer: then the next one is tried much later, so that this costs next to nothing.

use std::time::Duration;
use tbrdma_proto::Time;

/// How long a nap is: what comes in meanwhile, at the speed of memory, is still in the caches.
pub(super) const NAP: Duration = Duration::from_micros(30);
/// Packets that a nap must gather to be worth it: more than two trains.
const WORTH: usize = 36;
/// Packets that come at once where a nap is tried: about half a train.
const MANY: usize = 8;
/// So often in a row.
const OFTEN: u32 = 8;
/// How long no nap is tried after one that was not worth it.
const PAUSE: Duration = Duration::from_millis(10);

/// What came of late.
#[derive(Debug, Default)]
pub(super) struct Moderation {
    /// Packets since the thread last slept.
    packets: usize,
    /// Times in a row that these were [`MANY`].
    in_a_row: u32,
    /// The last sleep was a nap.
    napped: bool,
    not_before: Time,
}

impl Moderation {
    /// So many packets came.
    pub(super) fn took(&mut self, packets: usize) {
        self.packets += packets;
    }

    /// Nothing is left to do, and the thread may sleep: is it to nap?
    pub(super) fn naps(&mut self, now: Time) -> bool {
        let packets = std::mem::take(&mut self.packets);
        if self.napped {
            self.napped = packets >= WORTH;
            if !self.napped {
                self.not_before = now + PAUSE;
            }
            return self.napped;
        }
        self.in_a_row = if packets >= MANY { self.in_a_row + 1 } else { 0 };
        if self.in_a_row >= OFTEN && now >= self.not_before {
            self.in_a_row = 0;
            self.napped = true;
        }
        self.napped
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(microseconds: u64) -> Time {
        Time::ZERO + Duration::from_micros(microseconds)
    }

    /// Trains of 15 packets, one a wake.
    fn stream(moderation: &mut Moderation, from: u64) -> bool {
        (0..u64::from(OFTEN)).any(|number| {
            moderation.took(15);
            moderation.naps(at(from + 9 * number))
        })
    }

    #[test]
    fn naps_go_on_while_they_gather_much() {
        let mut moderation = Moderation::default();
        assert!(stream(&mut moderation, 0));
        for nap in 0..100 {
            moderation.took(15);
            moderation.took(45);
            assert!(moderation.naps(at(100 + 40 * nap)));
        }
        moderation.took(15);
        assert!(!moderation.naps(at(5000)), "the stream has ended, or waits for us");
    }

    #[test]
    fn one_that_gathered_little_is_not_tried_again_soon() {
        let mut moderation = Moderation::default();
        assert!(stream(&mut moderation, 0));
        moderation.took(16);
        assert!(!moderation.naps(at(110)));
        for from in (200..10_000).step_by(200) {
            assert!(!stream(&mut moderation, from), "{from} us");
        }
        assert!(stream(&mut moderation, 10_200));
    }

    #[test]
    fn few_packets_are_waited_for() {
        let mut moderation = Moderation::default();
        for wake in 0..1000 {
            moderation.took(MANY - 1);
            assert!(!moderation.naps(at(5 * wake)));
        }
    }
}
