//! One verbs layer for RDMA over Thunderbolt, PCIe and RoCE, with an emulator so faithful that programs written for RDMA
//! hardware run, fail and get measured on machines that have none.
//!
//! ```
//! use tbrdma::{Access, QpInit};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let ctx = tbrdma::open("shm")?;
//! let pd = ctx.alloc_pd()?;
//! let cq = ctx.create_cq(256)?;
//! let (mut a, mut b) = (pd.create_qp(QpInit::rc(&cq))?, pd.create_qp(QpInit::rc(&cq))?);
//! a.connect(&b.address())?; // usually the peer is another process, and its address came over a socket
//! b.connect(&a.address())?;
//!
//! let mr = pd.alloc(4096, Access::LOCAL_WRITE | Access::REMOTE_WRITE)?;
//! mr.write(0, b"hello");
//! let peer = mr.remote(); // likewise
//! b.post_recv(|rq| { rq.recv(mr.slice(2048..4096)).id(1); })?;
//! a.post(|wr| { // one doorbell when the closure returns
//!     wr.write(mr.slice(0..5), peer.at(1024)).unsignaled();
//!     wr.send_inline(b"done").id(2);
//! })?;
//! let mut wcs = [Default::default(); 4];
//! for wc in cq.poll(&mut wcs) {
//!     println!("{:?} of {} bytes", wc.ok()?.opcode, wc.byte_len);
//! }
//! # Ok(())
//! # }
//! ```
//!
//! The words are those of the InfiniBand specification and of rdma-core's man pages, in Rust case. ARCHITECTURE.md, beside the sources, is the
//! map.

#![deny(unsafe_code)]
#![warn(clippy::unwrap_used, clippy::panic)]
#![cfg_attr(
    not(tbrdma_linux),
    allow(dead_code, unused_imports, reason = "some of it serves devices of Linux's only")
)]

pub(crate) mod sync;

// The rooms that touch the operating system or memory that others change, and only they, hold unsafe code.
#[allow(unsafe_code)]
pub(crate) mod ring;

#[allow(unsafe_code)]
pub(crate) mod bar;

#[cfg(not(loom))]
mod backoff;
#[cfg(not(loom))]
mod device;
#[cfg(not(loom))]
mod error;
#[cfg(not(loom))]
#[cfg_attr(not(tbrdma_linux), path = "portable/floor.rs")]
pub mod floor;
#[cfg(not(loom))]
mod keys;
#[cfg(not(loom))]
mod link;
#[cfg(not(loom))]
#[allow(unsafe_code)]
mod mem;
#[cfg(not(loom))]
#[allow(unsafe_code)]
mod native;
#[cfg(not(loom))]
mod orderly;
#[cfg(not(loom))]
mod profiled;
#[cfg(not(loom))]
#[cfg_attr(not(tbrdma_linux), path = "portable/shm.rs")]
mod shm;
#[cfg(not(loom))]
mod sim;
#[cfg(all(test, not(loom)))]
#[path = "../tests/common/skip.rs"]
mod skip;
#[cfg(not(loom))]
mod slots;
#[cfg(not(loom))]
mod soft;
#[cfg(not(loom))]
#[allow(unsafe_code)]
mod sys;
#[cfg(not(loom))]
mod verbs;

#[cfg(not(loom))]
pub use {
    backoff::relax,
    device::MemoryPath,
    error::{Error, PostError, PostRefusal, Result},
    mem::{ForeignMemory, RawSge},
    profiled::ledger,
    sys::counter::TickCounter,
    tbrdma_proto::*,
    verbs::address::{AddressHandle, ParseQpAddressError, QP_ADDRESS_BYTES, QpAddress},
    verbs::buffer::Buffer,
    verbs::channel::CompletionChannel,
    verbs::clock::{InTurn, Turn},
    verbs::context::{Context, DeviceInfo, devices, open, without_native_devices},
    verbs::cq::CompletionQueue,
    verbs::event::{AsyncEvent, AsyncEvents, EventSource},
    verbs::memory::{MemoryRegion, MrSlice, REMOTE_REGION_BYTES, RemoteRegion},
    verbs::options::OpenOptions,
    verbs::pd::ProtectionDomain,
    verbs::qp::{Connection, QpInit, QueuePair},
    verbs::queues::{QpControl, ReceiveQueue, SendQueue},
    verbs::srq::SharedReceiveQueue,
    verbs::window::MemoryWindow,
    verbs::work::{ReceiveWrBuilder, ReceiveWrs, SendWrBuilder, SendWrs, SgList},
};
