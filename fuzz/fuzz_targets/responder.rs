//! Fuzzes the responder half of a queue pair.

#![no_main]

#[path = "../case.rs"]
mod case;
#[path = "../qp_checks.rs"]
#[allow(dead_code, reason = "each target runs one of the checks")]
mod qp_checks;

libfuzzer_sys::fuzz_target!(|data: &[u8]| qp_checks::responder(data));
