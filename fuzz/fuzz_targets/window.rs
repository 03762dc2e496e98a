//! Fuzzes a device on a memory window whose other side does as it likes.

#![no_main]

#[path = "../case.rs"]
mod case;
#[path = "../window_checks.rs"]
mod window_checks;

libfuzzer_sys::fuzz_target!(|data: &[u8]| window_checks::window(data));
