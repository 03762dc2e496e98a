//! In place of adoption where there is none: memory of the program's own stays where it is, and nobody else maps it.

use super::ForeignMemory;

/// A registration of memory that is not the library's.
#[derive(Debug)]
pub(crate) struct Claim;

impl Claim {
    /// Of memory that stays what it is.
    pub(crate) fn of(_memory: &ForeignMemory) -> Self {
        Self
    }
}
