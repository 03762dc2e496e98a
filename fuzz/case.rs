//! The bytes of a fuzzer's case, as the values that a check takes from them.

#![allow(dead_code, reason = "each check takes values of its own kinds")]

/// The bytes, taken from the front; zeroes once they are used up.
pub(super) struct Case<'a>(pub(super) &'a [u8]);

impl Case<'_> {
    pub(super) fn bytes<const N: usize>(&mut self) -> [u8; N] {
        let mut bytes = [0; N];
        let (front, rest) = self.0.split_at(N.min(self.0.len()));
        bytes[..front.len()].copy_from_slice(front);
        self.0 = rest;
        bytes
    }

    pub(super) fn byte(&mut self) -> u8 {
        self.bytes::<1>()[0]
    }

    pub(super) fn half(&mut self) -> u16 {
        u16::from_le_bytes(self.bytes())
    }

    pub(super) fn word(&mut self) -> u32 {
        u32::from_le_bytes(self.bytes())
    }

    pub(super) fn long(&mut self) -> u64 {
        u64::from_le_bytes(self.bytes())
    }

    pub(super) fn one_in(&mut self, chances: u8) -> bool {
        self.byte() % chances == chances - 1
    }

    pub(super) fn of<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[usize::from(self.byte()) % choices.len()]
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}
