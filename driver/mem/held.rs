//! Parts of a segment, found once and held: what the data path looks at for every message without working out its address again.

use super::{Segment, Shared};
use std::ops::Deref;
use std::sync::Arc;

/// Values in a segment, with the segment kept mapped.
#[derive(Debug)]
pub(crate) struct Held<T: ?Sized> {
    /// Points into `segment`.
    value: *const T,
    segment: Arc<Segment>,
}

// SAFETY: a `Held` is a shared reference to memory that lives as long as it does, like `Arc<T>` without the last one's drop.
unsafe impl<T: ?Sized + Sync> Send for Held<T> {}
// SAFETY: as above.
unsafe impl<T: ?Sized + Sync> Sync for Held<T> {}

impl<T: Shared> Held<T> {
    /// The value at `offset`, when it is inside and aligned.
    pub(crate) fn one(segment: &Arc<Segment>, offset: u64) -> Option<Self> {
        Some(Self { value: segment.get::<T>(offset)?, segment: Arc::clone(segment) })
    }
}

impl<T: Shared> Held<[T]> {
    /// The `count` values from `offset` on, when all are inside and aligned.
    pub(crate) fn many(segment: &Arc<Segment>, offset: u64, count: usize) -> Option<Self> {
        Some(Self { value: segment.array::<T>(offset, count)?, segment: Arc::clone(segment) })
    }
}

impl<T: ?Sized> Clone for Held<T> {
    fn clone(&self) -> Self {
        Self { value: self.value, segment: Arc::clone(&self.segment) }
    }
}

impl<T: ?Sized> Deref for Held<T> {
    type Target = T;

    #[inline(always)]
    fn deref(&self) -> &T {
        // SAFETY: made from a reference into the segment, which stays mapped, at the same place, for as long as we hold it.
        unsafe { &*self.value }
    }
}
