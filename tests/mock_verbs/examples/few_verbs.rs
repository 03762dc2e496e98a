//! The same library with no more than the sixteen functions that programs for Macs use, and tables with empty slots.

/// The functions that a library need not have: here they are not.
macro_rules! optional {
    ($($item:item)+) => { $( #[allow(dead_code)] $item )+ };
}

#[path = "../mock.rs"]
mod mock;

/// Whether every function is there, and every slot filled.
pub(crate) const HAS_ALL: bool = false;
