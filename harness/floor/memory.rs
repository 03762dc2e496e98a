//! The floor of a pingpong over shared memory: how fast these two cores hand such messages to and fro with plain stores and loads.
//!
//! Two processes share one piece of memory. Each stores the message word by word and then a flag on a cache line of its own;
//! the other waits for the flag, loads every word, and answers likewise. No library, no queue, no completion. In place of a window over a bus
//! the last word of the message is the flag, so that 64 bytes are one line.

use std::hint::black_box;
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tbrdma::floor::Shared;

use super::{Miss, pause};
use crate::control::{Account, Channel, FloorOffer, Message};
use crate::error::{Context, Result};
use crate::histogram::Latencies;
use crate::watch::{Spins, Watch};

/// Words between two flags, or a flag and data: two lines, since processors fetch lines in pairs.
const APART: usize = 16;
/// Largest message that is bounced.
pub(super) const MAX_SIZE: usize = 64 << 20;
/// Bounces before the timed ones of a visit.
const WARMUP: u64 = 200;
/// The same for messages that are large.
const WARMUP_LARGE: u64 = 4;
const LARGE: usize = 1 << 18;

/// The initiator's part: bounces a few times for warming up, and `count` times for the record.
pub(super) fn bounce(
    channel: &mut Channel,
    watch: &Watch,
    timeout: Duration,
    size: usize,
    line: bool,
    gap: Duration,
    count: u64,
    latencies: &mut Latencies,
) -> Result<(), Miss> {
    let warmup = if size > LARGE { WARMUP_LARGE } else { WARMUP };
    let count = warmup + count;
    let length = length(size);
    let shared =
        Shared::create(length).map_err(|error| Miss::None(format!("make shared memory: {error}")))?;
    let fd = shared.as_fd().map(|fd| fd.as_raw_fd());
    let fd = fd.ok_or_else(|| Miss::None("the shared memory has no descriptor".into()))?;
    channel.send(&Message::Floor(FloorOffer { pid: std::process::id(), fd, length, size, line, count }))?;
    match channel.receive(timeout)? {
        Message::Ready => {}
        Message::NoFloor { reason } => return Err(Miss::None(reason)),
        other => return Err(channel.unexpected(&other, "`ready` or `no-floor`").into()),
    }
    let lines = Lines::of(shared.words(), size, line)
        .ok_or_else(|| Miss::None("the shared memory is too short".into()))?;
    let clock = crate::clock::chosen();
    for number in 1..=count {
        if number > warmup {
            pause(gap, false, watch)?;
        }
        let before = clock.now();
        lines.say(Side::Ping, number);
        lines.hear(Side::Pong, number, watch)?;
        let after = clock.now();
        if number > warmup {
            latencies.record(clock.between(before, after));
        }
    }
    match channel.receive(timeout)? {
        Message::Done(_) => Ok(()),
        other => Err(channel.unexpected(&other, "`done`").into()),
    }
}

/// The responder's part in a bounce.
///
/// # Errors
/// The peer went away; a floor that cannot be is only reported to the peer.
pub fn respond(offer: FloorOffer, channel: &mut Channel, watch: &Watch) -> Result<()> {
    let refused = |error: String| Message::NoFloor { reason: error };
    if offer.size > MAX_SIZE || offer.length != length(offer.size) {
        return channel.send(&refused("the sizes make no sense".into()));
    }
    let shared = match Shared::open(offer.pid, offer.fd, offer.length) {
        Ok(shared) => shared,
        Err(error) => {
            return channel
                .send(&refused(format!("map the shared memory of process {}: {error}", offer.pid)));
        }
    };
    let Some(lines) = Lines::of(shared.words(), offer.size, offer.line) else {
        return channel.send(&refused("the shared memory is too short".into()));
    };
    channel.send(&Message::Ready)?;
    for number in 1..=offer.count {
        lines.hear(Side::Ping, number, watch)?;
        lines.say(Side::Pong, number);
    }
    channel.send(&Message::Done(Account::default())).context(|| "report the floor".into())
}

#[derive(Clone, Copy)]
enum Side {
    Ping,
    Pong,
}

/// Two flags and two messages.
struct Lines<'a> {
    flags: [&'a AtomicU64; 2],
    messages: [&'a [AtomicU64]; 2],
}

impl<'a> Lines<'a> {
    /// With `within`, the flag is the last word of its message, which has one at least.
    fn of(words: &'a [AtomicU64], size: usize, within: bool) -> Option<Self> {
        let count = size.div_ceil(8);
        let second = 2 * APART + count.next_multiple_of(APART);
        let messages = [words.get(2 * APART..2 * APART + count)?, words.get(second..second + count)?];
        match messages.map(<[_]>::split_last) {
            [Some((ping, first)), Some((pong, second))] if within => {
                Some(Self { flags: [ping, pong], messages: [first, second] })
            }
            _ => Some(Self { flags: [words.first()?, words.get(APART)?], messages }),
        }
    }

    fn flag(&self, side: Side) -> &AtomicU64 {
        match side {
            Side::Ping => self.flags[0],
            Side::Pong => self.flags[1],
        }
    }

    fn message(&self, side: Side) -> &[AtomicU64] {
        match side {
            Side::Ping => self.messages[0],
            Side::Pong => self.messages[1],
        }
    }

    #[inline]
    fn say(&self, side: Side, number: u64) {
        for word in self.message(side) {
            word.store(number, Ordering::Relaxed);
        }
        self.flag(side).store(number, Ordering::Release);
    }

    #[inline]
    fn hear(&self, side: Side, number: u64, watch: &Watch) -> Result<()> {
        let flag = self.flag(side);
        let mut spins = Spins::default();
        while flag.load(Ordering::Acquire) != number {
            std::hint::spin_loop();
            if watch.turn(&mut spins, "bounce of the floor")? {
                // Waiting this long means that the other side has no core.
                std::thread::yield_now();
            }
        }
        let mut sum = 0_u64;
        for word in self.message(side) {
            sum = sum.wrapping_add(word.load(Ordering::Relaxed));
        }
        black_box(sum);
        Ok(())
    }
}

/// Bytes of shared memory for messages of `size` bytes.
fn length(size: usize) -> usize {
    let words = 2 * APART + 2 * size.div_ceil(8).next_multiple_of(APART);
    (words * 8).next_multiple_of(4096)
}

#[cfg(test)]
mod tests {
    use super::{Lines, Side, length};
    use crate::watch::Watch;
    use std::sync::Arc;
    use std::sync::atomic::AtomicU64;
    use std::time::Duration;

    #[test]
    fn every_size_fits_its_memory_and_two_sides_bounce() {
        for (size, within) in
            [0, 1, 8, 63, 64, 65, 4096].into_iter().flat_map(|size| [(size, false), (size, true)])
        {
            let words: Vec<AtomicU64> = (0..length(size) / 8).map(|_| AtomicU64::new(0)).collect();
            let lines = Lines::of(&words, size, within).unwrap();
            let inside = usize::from(within && size > 0);
            assert!(lines.messages.iter().all(|message| (message.len() + inside) * 8 >= size));
            assert!(
                !within || size != 64 || lines.messages[0].len() == 7,
                "64 bytes are one line, flag and all"
            );
            let watch = Watch::new(Arc::default(), Duration::from_secs(60), String::new());
            std::thread::scope(|scope| {
                scope.spawn(|| {
                    for number in 1..=100 {
                        lines.hear(Side::Ping, number, &watch).unwrap();
                        lines.say(Side::Pong, number);
                    }
                });
                for number in 1..=100 {
                    lines.say(Side::Ping, number);
                    lines.hear(Side::Pong, number, &watch).unwrap();
                }
            });
        }
    }

    #[test]
    fn memory_that_is_too_short_is_refused() {
        let words = [const { AtomicU64::new(0) }; 40];
        assert!(Lines::of(&words, 4096, false).is_none());
        assert!(Lines::of(&words[..3], 0, true).is_none());
    }
}
