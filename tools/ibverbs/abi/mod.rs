//! The structures that libibverbs shares with the programs that were compiled against it, as rdma-core 44 lays them out on 64-bit Linux.
//!
//! One file a family. The names are those of `infiniband/verbs.h`, since that is where their meaning is written down. Enumerations of C are
//! plain integers here: what a program passes may be any number. Where C has a union whose arm depends on another field, so has this
//! module; a program need not have initialised the arms that do not count. `layout` holds
//! the places of the fields that programs were compiled with.

#![allow(non_camel_case_types)]
// A pointer to a structure's own kind is written as C writes it.
#![allow(clippy::use_self)]

pub(crate) mod context;
pub(crate) mod cq;
pub(crate) mod device;
pub(crate) mod event;
mod layout;
pub(crate) mod memory;
pub(crate) mod qp;
pub(crate) mod srq;
pub(crate) mod work;

use core::ffi::c_void;

pub(crate) use context::*;
pub(crate) use cq::*;
pub(crate) use device::*;
pub(crate) use event::*;
pub(crate) use memory::*;
pub(crate) use qp::*;
pub(crate) use srq::*;
pub(crate) use work::*;

/// A slot of a table of functions that nobody may call, or that this library never fills.
pub(crate) type Slot = *const c_void;

/// `pthread_mutex_t`, in the structures that have one: programs do not touch it, and neither do we.
pub(crate) type Mutex = libc::pthread_mutex_t;
/// `pthread_cond_t`, likewise.
pub(crate) type Cond = libc::pthread_cond_t;
