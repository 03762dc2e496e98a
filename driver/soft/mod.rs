//! The `soft` device: a network adapter in software. It speaks RoCEv2 over a [`Link`](crate::link::Link).
//!
//! Every decision is made by `tbrdma_proto::transport::Qp`; here are the memory, the locks, the clock and the system calls.
//!
//! - `core`: an open device: its tables, its clock, its identity
//! - `device`: the device as the verbs layer sees it
//! - `qp`: a queue pair's life; `post`: its doorbells; `ledger`: what of it has been polled
//! - `engine`: one pass over the device: what the network brought, what time brought
//! - `execute`: carrying out what the transport decided; `host`: what it asks
//! - `transmit`: packets into trains; `stalled`: trains that found no room
//! - `timers`: deadlines; `service`: the thread that is there when the application does not poll
//! - `memory`: registered regions; `cq`: completion queues; `srq`: shared receive queues; `path`: where packets go
//!
//! # Who drives
//! Whoever polls a completion queue, if nobody else is at it: the *receive lock* is only ever tried. The service thread does
//! the same when the application has not polled for a millisecond, or waits for an event.
//!
//! # Locks, in the order in which they are taken
//! receive lock, table of queue pairs (shared), one queue pair, then one of: completion queue, shared receive queue, timers, trains that wait. Registered
//! memory is touched only with a queue pair's lock held: to have had each of those locks once is to know that nobody is at it any more.

pub(crate) mod core;
pub(crate) mod cq;
pub(crate) mod device;
pub(crate) mod engine;
pub(crate) mod execute;
pub(crate) mod host;
pub(crate) mod ledger;
pub(crate) mod memory;
mod moderation;
pub(crate) mod path;
pub(crate) mod post;
pub(crate) mod qp;
pub(crate) mod service;
pub(crate) mod signals;
pub(crate) mod srq;
mod stalled;
pub(crate) mod timers;
pub(crate) mod transmit;

#[cfg(test)]
mod tests;
