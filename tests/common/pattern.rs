//! Bytes that tell which message they belong to and where in it they are.
#![allow(dead_code, reason = "each test file uses its own part")]

/// The byte at `at` of message `seed`.
fn byte(seed: u64, at: usize) -> u8 {
    let mixed = (seed ^ (at as u64 / 8) << 20).wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (mixed >> (8 * (at % 8))) as u8
}

/// The `len` bytes of message `seed`.
pub(crate) fn pattern(seed: u64, len: usize) -> Vec<u8> {
    (0..len).map(|at| byte(seed, at)).collect()
}

/// The first position where `bytes` is not message `seed`.
pub(crate) fn differs(seed: u64, bytes: &[u8]) -> Option<usize> {
    (0..bytes.len()).find(|&at| bytes[at] != byte(seed, at))
}

/// A small generator of random numbers from a seed (splitmix64).
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ mixed >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ mixed >> 31
    }

    /// A number below `limit`.
    pub(crate) fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }
}
