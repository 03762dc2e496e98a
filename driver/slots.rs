//! A table of numbered objects whose numbers come back last: slot allocation for queue pairs and the like.

use crate::error::{Error, Result};
use std::collections::VecDeque;

/// Objects by slot. A freed slot goes to the end of the queue of free ones, so that a stale number stays wrong for long.
pub(crate) struct Slots<T> {
    entries: Vec<Entry<T>>,
    free: VecDeque<u32>,
    limit: u32,
}

struct Entry<T> {
    object: Option<T>,
    uses: u32,
}

impl<T> Slots<T> {
    /// An empty table of at most `limit` objects.
    pub(crate) const fn new(limit: u32) -> Self {
        Self { entries: Vec::new(), free: VecDeque::new(), limit }
    }

    /// Reserves a slot for `call`: its number, and how often it has been used before.
    ///
    /// # Errors
    /// There are as many of `what` already as there may be.
    pub(crate) fn claim(&mut self, call: &'static str, what: &'static str) -> Result<(u32, u32)> {
        let limit = u64::from(self.limit);
        self.reserve().ok_or(Error::LimitReached { call, what, limit })
    }

    fn reserve(&mut self) -> Option<(u32, u32)> {
        // New slots first: as long as there are any, no number is used twice.
        let slot = if (self.entries.len() as u32) < self.limit {
            self.entries.push(Entry { object: None, uses: 0 });
            self.entries.len() as u32 - 1
        } else {
            self.free.pop_front()?
        };
        let entry = self.entries.get_mut(slot as usize)?;
        let uses = entry.uses;
        entry.uses = entry.uses.wrapping_add(1);
        Some((slot, uses))
    }

    /// Puts the object into its reserved slot.
    pub(crate) fn fill(&mut self, slot: u32, object: T) {
        if let Some(entry) = self.entries.get_mut(slot as usize) {
            entry.object = Some(object);
        }
    }

    /// Gives a slot back.
    pub(crate) fn release(&mut self, slot: u32) -> Option<T> {
        let object = self.entries.get_mut(slot as usize)?.object.take();
        self.free.push_back(slot);
        object
    }

    /// The object in a slot.
    pub(crate) fn get(&self, slot: u32) -> Option<&T> {
        self.entries.get(slot as usize)?.object.as_ref()
    }

    /// All objects.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &T> {
        self.entries.iter().filter_map(|entry| entry.object.as_ref())
    }

    /// Slots ever used: an upper bound of slot numbers.
    pub(crate) fn high_water(&self) -> u32 {
        self.entries.len() as u32
    }
}
