//! Fuzzes descriptions of a peer's region.

#![no_main]

#[path = "../case.rs"]
mod case;
#[path = "../checks.rs"]
#[allow(dead_code, reason = "each target runs one of the checks")]
mod checks;

libfuzzer_sys::fuzz_target!(|data: &[u8]| checks::remote_region(data));
