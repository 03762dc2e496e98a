//! Datagram destinations, by number; and what a queue pair remembers of them, so that posting takes no lock.

use super::device::Core;
use super::fault;
use super::handle::Pd;
use crate::error::Result;
use crate::sync::Ordering;
use core::ptr::NonNull;
use std::sync::{Arc, PoisonError};
use tbrdma_abi::*;
use tbrdma_proto::{AddressVector, PdHandle};

/// Destinations that a queue pair remembers.
const REMEMBERED: usize = 16;

/// A destination.
pub(super) struct Ah {
    pd: Arc<Pd>,
    ah: NonNull<ibv_ah>,
}

// SAFETY: libibverbs lets several threads use a handle; it is not written after it was made.
unsafe impl Send for Ah {}
// SAFETY: as above.
unsafe impl Sync for Ah {}

impl Drop for Ah {
    fn drop(&mut self) {
        if let Some(destroy) = self.pd.handle.library.ibv_destroy_ah {
            // SAFETY: ours, destroyed once.
            unsafe { destroy(self.ah.as_ptr()) };
        }
    }
}

impl Core {
    pub(super) fn create_ah(&self, pd: PdHandle, attr: &AddressVector) -> Result<u32> {
        let call = "create_ah";
        let handle = &self.handle;
        let pd = self.pd(pd)?;
        let create = handle.needs(handle.library.ibv_create_ah, call, "datagram destinations")?;
        handle.needs(handle.library.ibv_destroy_ah, call, "datagram destinations")?;
        super::neighbour::greet(self, attr);
        let mut c = ibv_ah_attr::from(attr);
        // SAFETY: a domain of this context, and an address.
        let ah = unsafe { create(pd.as_ptr(), &raw mut c) };
        let ah = fault::object(call, &handle.name, ah)
            .map_err(|error| super::explain::address(error, self, attr))?;
        // Never the number of one that was: who keeps a number finds nothing.
        let number = self.next_ah.fetch_add(1, Ordering::Relaxed);
        self.ahs.write().unwrap_or_else(PoisonError::into_inner).insert(number, Arc::new(Ah { pd, ah }));
        Ok(number)
    }

    pub(super) fn destroy_ah(&self, number: u32) {
        let gone = self.ahs.write().unwrap_or_else(PoisonError::into_inner).remove(&number);
        // Queue pairs forget what they remember when they see this.
        self.ahs_gone.fetch_add(1, Ordering::Release);
        drop(gone);
    }
}

/// What one send queue remembers.
#[derive(Default)]
pub(super) struct Remembered {
    /// How many had gone.
    gone: u64,
    known: [Option<(u32, Arc<Ah>)>; REMEMBERED],
    /// Those that made room for others in the list that is being posted.
    displaced: Vec<Arc<Ah>>,
}

impl Remembered {
    /// A list begins: what was found for the last one may end.
    pub(super) fn begin(&mut self, core: &Core) {
        self.displaced.clear();
        let gone = core.ahs_gone.load(Ordering::Acquire);
        if gone != self.gone {
            self.gone = gone;
            self.known = Default::default();
        }
    }

    /// The destination with this number. It stays alive until the next list begins, whatever becomes of it meanwhile.
    pub(super) fn find(&mut self, core: &Core, number: u32) -> Option<*mut ibv_ah> {
        let place = self.known.get_mut(number as usize % REMEMBERED)?;
        if let Some((known, ah)) = place
            && *known == number
        {
            return Some(ah.ah.as_ptr());
        }
        let ahs = core.ahs.read().unwrap_or_else(PoisonError::into_inner);
        let ah = Arc::clone(ahs.get(&number)?);
        let found = ah.ah.as_ptr();
        self.displaced.extend(place.replace((number, ah)).map(|(_, displaced)| displaced));
        Some(found)
    }
}
