//! The bytes of every message: a pure function of its sequence number, so that the receiver can check all of them.
//!
//! A message is a run of 8-byte words, `base + i * STEP`, where `base` mixes the sequence number with a salt (one salt a
//! direction). Its last eight bytes are another mix of the same number, so two messages never end alike: a target that polls
//! its memory waits for exactly these. Messages shorter than eight bytes end in a lap marker instead, which differs from the
//! one which the slot held before.

/// Salt of messages from initiator to responder.
pub const PING: u64 = u64::from_be_bytes(*b"-> ping.");
/// Salt of messages from responder to initiator.
pub const PONG: u64 = u64::from_be_bytes(*b"<- pong.");
/// Salt of memory which one side reads and the other has filled.
pub const READ: u64 = u64::from_be_bytes(*b"to read.");

const STEP: u64 = 0x9e37_79b9_7f4a_7c15;
const TAIL: u64 = u64::from_be_bytes(*b"the end.");

/// A bijection of 64-bit numbers that leaves no bit where it was.
const fn mix(mut value: u64) -> u64 {
    value ^= value >> 30;
    value = value.wrapping_mul(0xbf58_476d_1ce4_e5b9);
    value ^= value >> 27;
    value = value.wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

/// The rule of the bytes for one direction.
#[derive(Debug, Clone, Copy)]
pub struct Pattern {
    salt: u64,
    size: usize,
    slots: u64,
}

impl Pattern {
    /// Messages of `size` bytes that go round `slots` slots.
    #[must_use]
    pub fn new(salt: u64, size: usize, slots: usize) -> Self {
        Self { salt, size, slots: (slots as u64).max(1) }
    }

    fn base(&self, sequence: u64) -> u64 {
        mix(sequence.wrapping_add(self.salt.wrapping_mul(STEP)))
    }

    /// The last eight bytes of message `sequence`, as a native word; only messages of eight bytes or more have it.
    #[must_use]
    pub fn last_word(&self, sequence: u64) -> u64 {
        let word = mix(self.base(sequence) ^ TAIL);
        if word == 0 { 1 } else { word }
    }

    /// The last byte of a message shorter than eight bytes: 1 to 255, another one each lap round the slots.
    #[must_use]
    pub fn last_byte(&self, sequence: u64) -> u8 {
        ((sequence / self.slots) % 255) as u8 + 1
    }

    /// Writes the bytes of message `sequence` over `message`, which must be of the pattern's size.
    pub fn fill(&self, sequence: u64, message: &mut [u8]) {
        let mut word = self.base(sequence);
        let mut chunks = message.chunks_exact_mut(8);
        for chunk in &mut chunks {
            chunk.copy_from_slice(&word.to_ne_bytes());
            word = word.wrapping_add(STEP);
        }
        let rest = chunks.into_remainder();
        let bytes = word.to_ne_bytes();
        for (to, from) in rest.iter_mut().zip(bytes) {
            *to = from;
        }
        if let Some(tail) = message.last_chunk_mut::<8>() {
            *tail = self.last_word(sequence).to_ne_bytes();
        } else if let Some(last) = message.last_mut() {
            *last = self.last_byte(sequence);
        }
    }

    /// The position of the first byte of `message` which is not what `sequence` demands.
    #[must_use]
    pub fn mismatch(&self, sequence: u64, message: &[u8]) -> Option<usize> {
        if message.len() != self.size {
            return Some(message.len().min(self.size));
        }
        let body_end = if self.size >= 8 { self.size - 8 } else { self.size.saturating_sub(1) };
        let (body, tail) = message.split_at(body_end);
        let mut word = self.base(sequence);
        let mut different = 0;
        let chunks = body.chunks_exact(8);
        let rest = chunks.remainder();
        for chunk in chunks {
            let mut bytes = [0; 8];
            bytes.copy_from_slice(chunk);
            different |= u64::from_ne_bytes(bytes) ^ word;
            word = word.wrapping_add(STEP);
        }
        let tail_good = match tail.first_chunk::<8>() {
            Some(bytes) => u64::from_ne_bytes(*bytes) == self.last_word(sequence),
            None => tail.first().is_none_or(|byte| *byte == self.last_byte(sequence)),
        };
        if different == 0 && tail_good && rest.iter().zip(word.to_ne_bytes()).all(|(got, want)| *got == want)
        {
            return None;
        }
        let mut want = vec![0; self.size];
        self.fill(sequence, &mut want);
        message.iter().zip(&want).position(|(got, want)| got != want)
    }
}

#[cfg(test)]
mod tests {
    use super::{PING, PONG, Pattern};

    #[test]
    fn every_size_checks_itself_and_finds_every_flipped_byte() {
        for size in 0..200 {
            let pattern = Pattern::new(PING, size, 4);
            let mut message = vec![0; size];
            for sequence in [0, 1, 7, u64::MAX] {
                pattern.fill(sequence, &mut message);
                assert_eq!(pattern.mismatch(sequence, &message), None, "size {size} sequence {sequence}");
                for at in 0..size {
                    message[at] ^= 0x10;
                    assert_eq!(pattern.mismatch(sequence, &message), Some(at), "size {size}");
                    message[at] ^= 0x10;
                }
            }
        }
    }

    #[test]
    fn another_length_another_number_and_another_direction_are_mismatches() {
        let ping = Pattern::new(PING, 64, 4);
        let mut message = [0; 64];
        ping.fill(5, &mut message);
        assert_eq!(ping.mismatch(5, &message[..63]), Some(63));
        assert_eq!(ping.mismatch(6, &message), Some(0));
        assert!(Pattern::new(PONG, 64, 4).mismatch(5, &message).is_some());
    }

    #[test]
    fn a_slot_never_ends_as_it_did_a_lap_before() {
        for size in 1..=16 {
            let pattern = Pattern::new(PING, size, 4);
            let mut before = vec![0; size];
            for lap in 0..600 {
                let mut now = vec![0; size];
                pattern.fill(lap * 4 + 1, &mut now);
                let tail = size.saturating_sub(8);
                assert_ne!(before[tail..], now[tail..], "size {size} lap {lap}");
                before = now;
            }
        }
    }

    #[test]
    fn the_polled_word_is_the_end_of_the_message() {
        for size in [8, 11, 64] {
            let pattern = Pattern::new(PONG, size, 2);
            let mut message = vec![0; size];
            pattern.fill(9, &mut message);
            let tail: [u8; 8] = *message.last_chunk().unwrap();
            assert_eq!(u64::from_ne_bytes(tail), pattern.last_word(9));
        }
    }
}
