//! Memory that somebody else may be reading or writing: mapped segments, places in them, the ordered copy, the heap, and the
//! forms in which an application's own bytes enter the library.

mod adopt;
mod bytes;
mod copy;
mod crc;
mod exclusive;
mod foreign;
mod heap;
mod held;
mod local;
mod place;
mod process;
mod segment;

pub(crate) use adopt::{Adopted, Claim, Room};
pub(crate) use bytes::RegionBytes;
pub(crate) use crc::continue_crc;
pub(crate) use exclusive::ExclusiveBytes;
pub use foreign::{ForeignMemory, RawSge};
pub(crate) use heap::{Extents, GRANULE};
pub(crate) use held::Held;
pub(crate) use local::{LocalRegion, LocalRegions, RegionEntries, entry_of};
pub(crate) use place::{Copies, Place};
pub(crate) use process::{read_from_process, write_bytes_to_process, write_to_process};
pub(crate) use segment::{Segment, Shared};
