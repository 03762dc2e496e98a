//! The rules of RDMA verbs as plain values: the part of tbrdma that decides and never touches.
//!
//! This crate is a *value*. It opens no socket, reads no clock, starts no thread, keeps no global state and
//! draws no random number: entropy, where keys need it, is an argument. The same calls with the same
//! arguments give the same answers, on every machine and in every run. Whoever owns memory, files and time
//! (the `tbrdma` crate) asks here what is allowed and carries out the answer.
//!
//! # What lives where
//!
//! | module | question it answers |
//! |---|---|
//! | [`ident`] | what is a PSN, a queue pair number, a GID, and how do they compare? |
//! | [`flags`] | which access rights, send flags and completion flags exist? |
//! | [`work`] | what is a work request, and what does its completion say? |
//! | [`region`] | may this protection domain touch these bytes under this key? |
//! | [`qp`] | which state may a queue pair go to, with which attributes? |
//! | [`rules`] | is this work request one that may be posted at all? |
//! | [`stream`] | how do packets pass a stream of bytes, and who is at its other end? |
//! | [`fault`] | what goes wrong on a link, and when? |
//! | [`testing`] | what does all of it do in a simulated network? |
//! | [`event`] | what can go wrong, or change, outside any work request? |
//! | [`limits`] | how large may everything be? |
//! | [`profile`] | which of those limits does a given device pretend to have? |
//! | [`bar_link`] | what lies where in a memory window that a peer writes, and who may write when? |
//! | [`devices`] | which devices is a program given, and how are they cabled? |
//!
//! Every public name is also re-exported at the root of the crate.
//!
//! # Numbers
//!
//! Numeric enums and flag sets have the values of libibverbs' C constants, so a C face can convert with
//! `from_raw` and `raw` and nothing else. Multi-byte fields are in host byte order everywhere; addresses and
//! lengths are `u64` and in bytes.
//!
//! # Panics
//!
//! Nothing here panics, whatever the input.

#![forbid(unsafe_code)]
#![warn(clippy::unwrap_used, clippy::panic)]

mod raw;

pub mod bar_link;
pub mod devices;
pub mod event;
pub mod fault;
pub mod flags;
pub mod ident;
pub mod limits;
#[doc(hidden)]
pub mod planted;
pub mod profile;
pub mod qp;
pub mod region;
pub mod rules;
pub mod stream;
pub mod testing;
pub mod time;
pub mod transport;
pub mod wire;
pub mod work;

pub use devices::*;
pub use event::*;
pub use flags::*;
pub use ident::*;
pub use limits::*;
pub use profile::*;
pub use qp::*;
pub use region::*;
pub use rules::*;
pub use time::*;
pub use work::*;
