//! The `native` device: an RDMA adapter, or a Mac's Thunderbolt port, through the system's own verbs library, which is loaded when it is first
//! wanted. Nothing is emulated here: what the device does not have is refused with its reason, and what it refuses is explained.
//!
//! Its objects are C structures that the library makes. Each has an owner here that destroys it, and holds what it was made from, so they go in
//! the order that drivers need: queue pairs, shared receive queues, completion queues, memory regions, protection domains, the context.
//!
//! | file | what |
//! |---|---|
//! | `platform.rs` | what differs between Linux and macOS |
//! | `library.rs` | finding the library and its functions |
//! | `fault.rs` | what the library returns, as our errors |
//! | `handle.rs` | an open context: what all objects hold |
//! | `device.rs` | the device as the verbs layer sees it |
//! | `query.rs`, `gid.rs`, `counters.rs` | what it says of itself; its addresses; what it has counted |
//! | `memory.rs`, `window.rs` | regions, windows |
//! | `cq.rs`, `channel.rs`, `events.rs` | completions, and news of them and of other things |
//! | `qp.rs`, `attr.rs`, `srq.rs`, `ah.rs` | queue pairs, their attributes, shared receive queues, destinations |
//! | `direct.rs` | posting plain work, and polling, in few instructions |
//! | `post.rs`, `numbers.rs` | other lists of work in C's form; which work has ended, for who asks |
//! | `neighbour.rs`, `explain.rs` | what is done before a connection, and said when it is refused |

mod ah;
mod attr;
mod channel;
mod counters;
mod cq;
mod device;
mod direct;
mod events;
mod explain;
mod fault;
mod gid;
mod handle;
mod library;
mod memory;
mod neighbour;
mod numbers;
mod platform;
mod post;
mod qp;
mod query;
mod srq;
mod window;

pub(crate) use cq::NativeCq;
pub(crate) use device::NativeDevice;
pub(crate) use direct::Posted;
pub(crate) use library::forbid;
pub(crate) use post::{ReceiveRoom, SendRoom};
pub(crate) use qp::NativeQp;

use crate::verbs::context::DeviceInfo;
use handle::Listed;
use library::Library;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// How the names of these devices begin, where that must be said.
pub(crate) const PREFIX: &str = "native:";

/// The devices that the system's library has; none without a library.
pub(crate) fn devices() -> Vec<DeviceInfo> {
    if !platform::may_have_devices() {
        return Vec::new();
    }
    let Ok(library) = Library::get("get_device_list") else { return Vec::new() };
    let Ok(listed) = Listed::all(&library) else { return Vec::new() };
    let through = library.name();
    let described = |name: String| DeviceInfo {
        description: format!("RDMA device {name} of this system, through {through}"),
        name: format!("{PREFIX}{name}"),
    };
    listed.names().map(described).collect()
}

/// Whether the system has a device of this name.
pub(crate) fn has(name: &str) -> bool {
    devices().iter().any(|device| device.name.strip_prefix(PREFIX) == Some(name))
}

/// Whoever panicked with the lock held has changed the value whole or not at all.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
