//! The software NIC allocates nothing per message once everything has been used before.
#![allow(clippy::panic, clippy::unwrap_used, reason = "a test may fail")]

#[path = "fast_path_allocations.rs"]
mod fast_path_allocations;
