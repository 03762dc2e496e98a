//! Fuzzes whole connections: an operation list drives them, with the faults of a seed.

#![no_main]

#[path = "../pair_checks.rs"]
mod pair_checks;

libfuzzer_sys::fuzz_target!(|data: &[u8]| pair_checks::pair(data));
