//! What two processes (or two threads) share without a lock: one file a protocol; its model is in
//! `loom_tests`, its comparison with a naive one in `random_tests`.
//!
//! What processes share is made of 64-bit atomic words (what threads share, also of shorter ones), so the same code runs over a mapped segment and over the model checker's
//! own atomics. Whoever writes a word is named in the file that lays it out. A word that another process may write is never
//! trusted: an index read from it is masked or compared, never used to reach memory.

#![cfg_attr(loom, allow(dead_code, reason = "the model builds this room alone, without those who use it"))]

pub(crate) mod arm;
pub(crate) mod busy;
pub(crate) mod completion;
pub(crate) mod guard;
#[cfg(not(loom))]
pub(crate) mod layout;
pub(crate) mod mailbox;
pub(crate) mod ready;
pub(crate) mod receive;
pub(crate) mod region;
pub(crate) mod shared_receive;

#[cfg(all(test, loom))]
mod loom_tests;
#[cfg(all(test, not(loom)))]
mod random_tests;
