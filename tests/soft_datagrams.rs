//! Datagrams over the software NIC, as `soft_conformance.rs` has the rest: in a binary of their own, because while the other tests open and close devices at the
//! address, datagrams get lost.
#![allow(clippy::panic, clippy::unwrap_used, reason = "a test may fail")]

#[path = "ud.rs"]
mod ud;
