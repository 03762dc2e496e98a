//! `libibverbs.so.1`, and `librdma.dylib`: the C face of tbrdma, for programs that were never written for it.
//!
//! A program that was linked with rdma-core's libibverbs finds here the same names with the same versions, structures laid out the same way,
//! and devices that are tbrdma's. Which ones, and what goes wrong with them, is said by `TBRDMA_*` variables, which `tbrdma-run` sets.
//!
//! | file | what |
//! |---|---|
//! | `export.rs`, `object.rs`, `errno.rs` | how calls come in, what pointers become, how failures go out |
//! | `device.rs`, `context.rs`, `query.rs` | devices, open devices, what they say |
//! | `pd.rs`, `mr.rs`, `mw.rs`, `dm.rs`, `ah.rs`, `channel.rs`, `cq.rs`, `srq.rs`, `qp.rs` | an object each |
//! | `post.rs`, `poll.rs`, `wr.rs`, `lock.rs`, `pace.rs` | the data path |
//! | `settings.rs`, `watch/` | what this process was told; traces, reports, and faults in verbs |
//! | `happen.rs`, `queues.rs`, `late.rs`, `clock.rs` | what such faults do: events and removal, messages and receives, completions, later |
//! | `event.rs`, `acks.rs`, `wait.rs` | asynchronous events, acknowledgements, blocking calls |
//! | `names.rs`, `system.rs`, `kernel.rs`, `driver.rs` | the rest that has to be there |
//!
//! Everything is a thin layer over the crate `tbrdma`: it decides nothing about verbs.

#![warn(clippy::unwrap_used, clippy::panic)]

#[cfg(not(target_os = "linux"))]
compile_error!(
    "the drop-in library is for Linux: its versions are ELF's, and of its devices other systems have none. On a Mac use the crate tbrdma on librdma"
);

mod acks;
mod ah;
mod attr;
mod channel;
mod clock;
mod context;
mod cq;
mod device;
mod dm;
mod driver;
mod errno;
mod event;
mod export;
mod fork;
mod happen;
mod kernel;
mod late;
mod lock;
mod log;
mod mr;
mod mw;
mod names;
mod object;
mod pace;
mod pd;
mod poll;
mod post;
mod qp;
mod query;
mod queues;
mod settings;
mod srq;
mod system;
mod wait;
mod watch;
mod wr;

/// The structures of `infiniband/verbs.h`.
use tbrdma_abi as abi;
