//! The software NIC over loopback does what every device does: the tests of one behaviour each, once more, with `udp:lo` for a device.
//!
//! Which device a test opens is said by the name of its binary: see `device` in `tests/common/mod.rs`. Left out are the tests of what only
//! shared memory promises: that a message has arrived when the post returns, and that a peer's death is known at once. The tests of datagrams are in
//! `soft_datagrams.rs`.
#![allow(clippy::panic, clippy::unwrap_used, reason = "a test may fail")]
#![allow(clippy::duplicate_mod, reason = "each of the files says for itself what it shares with the others")]

#[path = "access_flags.rs"]
mod access_flags;
#[path = "async_events.rs"]
mod async_events;
#[path = "atomics.rs"]
mod atomics;
#[path = "channel.rs"]
mod channel;
#[path = "flush.rs"]
mod flush;
#[path = "halves.rs"]
mod halves;
#[path = "iova.rs"]
mod iova;
#[path = "loan.rs"]
mod loan;
#[path = "memory_protection.rs"]
mod memory_protection;
#[path = "memory_window.rs"]
mod memory_window;
#[path = "rc_send_recv.rs"]
mod rc_send_recv;
#[path = "rdma_read.rs"]
mod rdma_read;
#[path = "rdma_write.rs"]
mod rdma_write;
#[path = "receive_errors.rs"]
mod receive_errors;
#[path = "refusals.rs"]
mod refusals;
#[path = "rereg.rs"]
mod rereg;
#[path = "resize_cq.rs"]
mod resize_cq;
#[path = "rnr.rs"]
mod rnr;
#[path = "srq.rs"]
mod srq;
#[path = "states.rs"]
mod states;
#[path = "write_lists.rs"]
mod write_lists;
