//! Fuzzes plans of what goes wrong, and of mixes.

#![no_main]

#[path = "../bench_checks.rs"]
#[allow(dead_code, reason = "each target runs one of the checks")]
mod bench_checks;

libfuzzer_sys::fuzz_target!(|data: &[u8]| bench_checks::stress_plan(data));
