//! Memory that somebody else may be reading or writing: mapped segments, places in them, the ordered copy, the heap, and the
//! forms in which an application's own bytes enter the library.

#[cfg_attr(not(tbrdma_linux), path = "portable/adopt.rs")]
mod adopt;
#[cfg_attr(not(tbrdma_linux), path = "portable/backing.rs")]
mod backing;
mod bytes;
mod copy;
mod crc;
mod exclusive;
mod foreign;
mod heap;
mod held;
mod local;
mod place;
#[cfg(tbrdma_linux)]
mod process;
mod segment;

pub(crate) use adopt::*;
pub(crate) use bytes::RegionBytes;
pub(crate) use crc::continue_crc;
pub(crate) use exclusive::ExclusiveBytes;
pub use foreign::{ForeignMemory, RawSge};
pub(crate) use heap::{Extents, GRANULE, PAGE, pages};
pub(crate) use held::Held;
pub(crate) use local::{LocalRegion, LocalRegions, RegionEntries, entry_of};
pub(crate) use place::{Copies, Place};
#[cfg(tbrdma_linux)]
pub(crate) use process::{read_from_process, write_bytes_to_process, write_to_process};
pub(crate) use segment::{Segment, Shared};
