//! Cables: which contexts may meet. One without a cable meets all others without, also itself; the end of a cable meets the other end.

use tbrdma_proto::CableEnd;

/// The end of a cable as two contexts tell each other of it, or none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Cable(pub(crate) u64);

impl Cable {
    /// No cable.
    pub(crate) const NONE: Self = Self(0);

    /// FNV-1a of its name, with the end in the lowest bit: the same in every process.
    pub(crate) fn of(end: &CableEnd) -> Self {
        let hash = end.cable.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
        });
        // Never that of no cable, or of its other end.
        Self(hash | 2).with_end(end.end)
    }

    const fn with_end(self, end: u8) -> Self {
        Self(self.0 & !1 | (end & 1) as u64)
    }

    /// Whether a context here may meet one there.
    pub(crate) const fn leads_to(self, other: Self) -> bool {
        self.0 ^ other.0 == (self.0 != 0) as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ends_meet_each_other_and_nobody_else() {
        let end = |cable: &str, end| Cable::of(&CableEnd { cable: cable.to_owned(), end });
        let (a0, a1, b0, b1) = (end("a", 0), end("a", 1), end("b", 0), end("b", 1));
        for (one, other, may) in [
            (a0, a1, true),
            (a1, a0, true),
            (b0, b1, true),
            (a0, a0, false),
            (a0, b1, false),
            (a0, b0, false),
            (a0, Cable::NONE, false),
            (Cable::NONE, a1, false),
            (Cable::NONE, Cable::NONE, true),
        ] {
            assert_eq!(one.leads_to(other), may, "{one:?} {other:?}");
        }
    }
}
