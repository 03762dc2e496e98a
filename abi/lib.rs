//! The structures that libibverbs shares with the programs that were compiled against it, as rdma-core 44 lays them out on 64-bit Linux, and
//! Apple's librdma on a Mac. Our own libibverbs (tools/ibverbs) gives them to programs; the `native` device (driver/native) gets them from the
//! system's.
//!
//! One file a family, and `convert.rs`, which makes proto's values of them and back. The names are those of `infiniband/verbs.h`, since that is
//! where their meaning is written down. Enumerations of C are plain integers here: what a program passes may be any number. Where C has a union whose
//! arm depends on another field, so has this crate; a program need not have initialised the arms that do not count. `linux` and `macos` hold the places
//! of the fields that programs were compiled with.

#![allow(non_camel_case_types)]
// A pointer to a structure's own kind is written as C writes it.
#![allow(clippy::use_self)]
// What a field means is said by libibverbs' man pages; said here is only where C's header leaves something out.
#![allow(missing_docs)]

/// Holds sizes and offsets, by structure and field.
#[allow(unused_macros, reason = "not every machine has a table")]
macro_rules! holds {
    ($( $name:ident $size:literal { $($($field:ident).+ $offset:literal),* } )+) => { $(
        const _: () = assert!(size_of::<$name>() == $size, stringify!($name));
        $( const _: () = assert!(offset_of!($name, $($field).+) == $offset, stringify!($name $($field).+)); )*
    )+ };
}

mod context;
mod convert;
mod cq;
mod device;
mod event;
mod linux;
mod macos;
mod memory;
mod qp;
mod srq;
mod work;

use core::ffi::c_void;

pub use context::*;
pub use convert::{text_from_c, text_to_c};
pub use cq::*;
pub use device::*;
pub use event::*;
pub use memory::*;
pub use qp::*;
pub use srq::*;
pub use work::*;

/// A slot of a table of functions that nobody may call, or that this library never fills.
pub type Slot = *const c_void;

/// `pthread_mutex_t`, in the structures that have one: programs do not touch it, and neither do we.
pub type Mutex = libc::pthread_mutex_t;
/// `pthread_cond_t`, likewise.
pub type Cond = libc::pthread_cond_t;
