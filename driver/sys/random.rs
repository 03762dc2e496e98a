//! Bytes nobody can guess, from the kernel: keys, tokens, first packet numbers.

use std::io;

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
}
