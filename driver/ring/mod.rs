//! What two processes (or two threads) share without a lock: one file a protocol, its model beside it.
//!
//! Everything here is made of 64-bit atomic words, so the same code runs over a mapped segment and over the model checker's
//! own atomics. Whoever writes a word is named in the file that lays it out. A word that another process may write is never
//! trusted: an index read from it is masked or compared, never used to reach memory.

pub(crate) mod arm;
pub(crate) mod busy;
pub(crate) mod completion;
#[cfg(not(loom))]
pub(crate) mod layout;
pub(crate) mod ready;
pub(crate) mod receive;
pub(crate) mod region;
pub(crate) mod shared_receive;

#[cfg(all(test, loom))]
mod loom_tests;
