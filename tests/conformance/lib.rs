//! One suite of what verbs promise, for every device.
//!
//! A [case](case::Case) names a statement of the InfiniBand specification or of a man page, and checks it through the crate's public interface on
//! [the device under test](target). What a device cannot do, and where it deviates, is [declared] and shown, not skipped in silence. The
//! cases run in parallel under `cargo test`, or in [the program](runner) `tbrdma-conformance`, which also plays [the far party](far) of a case
//! whose two ends are on two hosts.
#![allow(clippy::panic, clippy::unwrap_used, reason = "a case may fail")]

pub mod case;
mod cases;
#[path = "../common/mod.rs"]
mod common;
pub mod declared;
pub mod far;
pub mod runner;
mod rxe;
pub mod table;
pub mod target;

pub use cases::all;
