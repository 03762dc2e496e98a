//! The bytes of a replay's messages: a pattern and another by turns, with the message's number over its first eight bytes.

use crate::memory::Area;
use crate::pattern::{PING, Pattern, READ};

/// Both patterns, as long as the longest message.
#[derive(Debug)]
pub struct Bytes([Vec<u8>; 2]);

impl Bytes {
    /// Of messages.
    #[must_use]
    pub fn of_messages(longest: usize) -> Self {
        Self::new(PING, longest)
    }

    /// Of memory that is read.
    #[must_use]
    pub fn to_read(longest: usize) -> Self {
        Self::new(READ, longest)
    }

    fn new(salt: u64, longest: usize) -> Self {
        let pattern = Pattern::new(salt, longest, 2);
        Self([0, 1].map(|number| {
            let mut bytes = vec![0; longest];
            pattern.fill(number, &mut bytes);
            bytes
        }))
    }

    /// The bytes of message `number`, but for its stamp.
    #[must_use]
    pub fn plain(&self, number: u64, size: usize) -> &[u8] {
        let [even, odd] = &self.0;
        let all = if number.is_multiple_of(2) { even } else { odd };
        all.get(..size).unwrap_or(all)
    }

    /// Where `got` differs from message `number` of a lane, which is stamped.
    #[must_use]
    pub fn mismatch_of_stamped(&self, lane: usize, number: u64, got: &[u8]) -> Option<usize> {
        let stamp = stamp(lane, number);
        let head = got.len().min(stamp.len());
        let (head, rest) = got.split_at(head);
        let wrong = head.iter().zip(stamp).position(|(got, want)| *got != want);
        wrong.or_else(|| {
            let want = self.plain(number, got.len()).get(head.len()..).unwrap_or_default();
            if rest == want { None } else { Some(head.len() + first_difference(rest, want)) }
        })
    }

    /// Where `got` differs from the pattern.
    #[must_use]
    pub fn mismatch(&self, number: u64, got: &[u8]) -> Option<usize> {
        let want = self.plain(number, got.len());
        if got == want { None } else { Some(first_difference(got, want)) }
    }
}

fn first_difference(got: &[u8], want: &[u8]) -> usize {
    got.iter().zip(want).position(|(got, want)| got != want).unwrap_or(want.len())
}

/// What stands over the first bytes of a message, as many as it has.
#[inline]
#[must_use]
pub fn stamp(lane: usize, number: u64) -> [u8; 8] {
    (number ^ (lane as u64) << 48).to_le_bytes()
}

/// Stamps the message at `offset`.
#[inline]
pub fn put_stamp(area: &Area, offset: u64, size: usize, lane: usize, number: u64) {
    let stamp = stamp(lane, number);
    let head = stamp.get(..size.min(stamp.len())).unwrap_or_default();
    area.write(offset as usize, head);
}
