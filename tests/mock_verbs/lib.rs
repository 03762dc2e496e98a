//! A verbs library with every function that native devices know, which fails as it is told: see `mock.rs`.

/// The functions that a library need not have: here they are.
macro_rules! optional {
    ($($item:item)+) => { $( #[unsafe(no_mangle)] $item )+ };
}

mod mock;

/// Whether every function is there, and every slot filled.
pub(crate) const HAS_ALL: bool = true;
