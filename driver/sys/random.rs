//! Bytes nobody can guess, from the kernel: keys, tokens, first packet numbers.

use std::io;

/// Fills `bytes` with random ones.
pub(crate) fn fill(bytes: &mut [u8]) -> io::Result<()> {
    getrandom::fill(bytes).map_err(io::Error::other)
}

/// A random number of 64 bits.
pub(crate) fn random_u64() -> io::Result<u64> {
    getrandom::u64().map_err(io::Error::other)
}

/// A random number of 32 bits.
pub(crate) fn random_u32() -> io::Result<u32> {
    getrandom::u32().map_err(io::Error::other)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_differ() {
        assert_ne!(random_u64().unwrap(), random_u64().unwrap());
        let few: std::collections::HashSet<_> = (0..8).map(|_| random_u32().unwrap()).collect();
        assert!(few.len() > 4);
    }

    #[test]
    fn every_byte_is_filled() {
        let mut seen = [0u8; 32];
        for _ in 0..16 {
            let mut bytes = [0; 32];
            fill(&mut bytes).unwrap();
            seen.iter_mut().zip(bytes).for_each(|(seen, byte)| *seen |= byte);
        }
        assert!(seen.iter().all(|&byte| byte != 0));
    }
}
