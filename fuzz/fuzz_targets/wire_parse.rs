//! Fuzzes the parser of packets.

#![no_main]

#[path = "../wire_checks.rs"]
#[allow(dead_code, reason = "each target runs one of the checks")]
mod wire_checks;

libfuzzer_sys::fuzz_target!(|data: &[u8]| wire_checks::wire_parse(data));
