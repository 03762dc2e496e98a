//! Fuzzes what the two sides of a measurement say to each other.

#![no_main]

#[path = "../bench_checks.rs"]
#[allow(dead_code, reason = "each target runs one of the checks")]
mod bench_checks;

libfuzzer_sys::fuzz_target!(|data: &[u8]| bench_checks::control_message(data));
