//! Random numbers that stay the same for ever.

/// A stream of random numbers made from a seed: SplitMix64 (Steele, Lea and Flood, 2014).
///
/// Its values are part of what a seed means, so they never change: the first three of seed 0 are `0xe220a8397b1dcdaf`,
/// `0x6e789e6aa1b965f4` and `0x06c45d188009454f`. It is no source of secrets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Random {
    state: u64,
}

impl Random {
    /// The stream of this seed.
    pub const fn new(seed: u64) -> Self {
        Self { state: seed }
    }

    /// A stream of its own for `purpose`, which neither moves this one nor is moved by it.
    #[must_use]
    pub const fn stream(&self, purpose: u64) -> Self {
        let mut other = Self::new(self.state ^ purpose.wrapping_mul(0xd6e8_feb8_6659_fd93));
        other.state = other.next_u64();
        other
    }

    /// The next 64 bits.
    pub const fn next_u64(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut word = self.state;
        word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        word ^ (word >> 31)
    }

    /// The next 32 bits.
    pub const fn next_u32(&mut self) -> u32 {
        (self.next_u64() >> 32) as u32
    }

    /// A number in `0..bound`; 0 if `bound` is 0. The upper half of a product: the bias is below `bound` in 2^64.
    pub const fn below(&mut self, bound: u64) -> u64 {
        ((self.next_u64() as u128 * bound as u128) >> 64) as u64
    }

    /// A number in `low..=high`; `low` if `high` is less.
    pub const fn within(&mut self, low: u64, high: u64) -> u64 {
        match high.saturating_sub(low).checked_add(1) {
            Some(count) => low + self.below(count),
            None => self.next_u64(),
        }
    }

    /// An index of something with `len` elements; 0 if there are none.
    pub const fn index(&mut self, len: usize) -> usize {
        self.below(len as u64) as usize
    }

    /// True once in `count` times; never if `count` is 0.
    pub const fn one_in(&mut self, count: u64) -> bool {
        count != 0 && self.below(count) == 0
    }
}
