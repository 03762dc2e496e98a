//! Fuzzes the messages by which two contexts meet.

#![no_main]

#[path = "../case.rs"]
mod case;
#[path = "../checks.rs"]
#[allow(dead_code, reason = "each target runs one of the checks")]
mod checks;

libfuzzer_sys::fuzz_target!(|data: &[u8]| checks::hello_message(data));
