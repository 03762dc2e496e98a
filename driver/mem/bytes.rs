//! Where the bytes of a registered region are.

use super::{ForeignMemory, Place, Segment};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Where the bytes of a registered region are.
pub(crate) enum RegionBytes {
    /// In the context's segment.
    Segment { offset: u64 },
    /// In the application, until it gets them back.
    Foreign(Mutex<Option<ForeignMemory>>),
}

impl RegionBytes {
    /// The application's.
    pub(crate) fn foreign(memory: ForeignMemory) -> Self {
        Self::Foreign(Mutex::new(Some(memory)))
    }

    /// Lends the `length` bytes for a moment; not at all once they have been given back.
    pub(crate) fn with_place(&self, segment: &Segment, length: u64, use_place: &mut dyn FnMut(Place<'_>)) {
        match self {
            Self::Segment { offset } => {
                if let Some(place) = segment.place(*offset, length) {
                    use_place(place);
                }
            }
            Self::Foreign(memory) => {
                if let Some(memory) = &*lock(memory) {
                    use_place(memory.place());
                }
            }
        }
    }

    /// The `length` bytes, if they are in the segment.
    pub(crate) fn segment_place<'a>(&self, segment: &'a Segment, length: u64) -> Option<Place<'a>> {
        match self {
            Self::Segment { offset } => segment.place(*offset, length),
            Self::Foreign(_) => None,
        }
    }

    /// Takes the application's memory out, if it is that and nobody has.
    pub(crate) fn take_foreign(&self) -> Option<ForeignMemory> {
        match self {
            Self::Segment { .. } => None,
            Self::Foreign(memory) => lock(memory).take(),
        }
    }
}

/// Whoever panicked with the lock held has only looked.
fn lock(memory: &Mutex<Option<ForeignMemory>>) -> MutexGuard<'_, Option<ForeignMemory>> {
    memory.lock().unwrap_or_else(PoisonError::into_inner)
}
