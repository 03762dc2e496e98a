//! What the lab checks.

pub(crate) mod agreement;
pub(crate) mod conformance;
pub(crate) mod faults;
pub(crate) mod operations;
pub(crate) mod own;
pub(crate) mod pci;
pub(crate) mod perftest;
pub(crate) mod pingpong;
pub(crate) mod refusals;
