//! Fuzzes what arrives from a stream.

#![no_main]

#[path = "../stream_checks.rs"]
#[allow(dead_code, reason = "each target runs one of the checks")]
mod stream_checks;

libfuzzer_sys::fuzz_target!(|data: &[u8]| stream_checks::stream(data));
