//! What becomes of keys once they are given out, the same on both devices: windows are bound, keys invalidated, regions changed and revoked.
//! proto's table decides, and what it has decided is written to the entries that the data path reads, with the table's lock held. A
//! message never takes that lock.

use crate::error::{Error, Result};
use crate::sys::random;
use std::sync::{Mutex, MutexGuard, PoisonError};
use tbrdma_proto::{
    Access, BindError, Binding, MwBind, MwType, PdHandle, Qpn, Region, RegionError, RegionTable,
    RegionTableError, WcStatus,
};

/// A device's tables of regions.
pub(crate) trait Keys {
    /// What decides.
    fn region_table(&self) -> &Mutex<RegionTable<()>>;
    /// Lets the data path find a part of the region with key `of` under its own key; false if there is no such region.
    fn publish_part(&self, of: u32, part: &Region, offset: u64) -> bool;
    /// Lets it find the region with other rights, or of another domain; false if there is no such region.
    fn publish_change(&self, region: &Region) -> bool;
    /// Lets it find nothing under this key any more.
    fn withdraw_key(&self, key: u32);

    /// What new keys are made of.
    fn random_u32(&self) -> std::io::Result<u32> {
        random::random_u32()
    }

    fn regions_locked(&self) -> MutexGuard<'_, RegionTable<()>> {
        self.region_table().lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn alloc_window(&self, pd: PdHandle, mw_type: MwType) -> Result<u32> {
        let entropy = self.random_u32().map_err(Error::os("alloc_mw", "random numbers"))?;
        Ok(self.regions_locked().alloc_window(entropy, pd, mw_type)?)
    }

    fn free_window(&self, key: u32) {
        let mut table = self.regions_locked();
        self.withdraw_key(key);
        table.free_window(key);
    }

    /// The key that the window has now which had this key once.
    fn window_key(&self, key: u32) -> Option<u32> {
        self.regions_locked().window_key(key)
    }

    /// Carries out a BIND_MW of queue pair `qpn`.
    fn bind(&self, pd: PdHandle, qpn: Qpn, bind: &MwBind) -> Result<(), BindError> {
        let mut table = self.regions_locked();
        match table.bind(pd, qpn, bind)? {
            Binding::Part { part, of, offset } => {
                if !self.publish_part(of, &part, offset) {
                    return Err(BindError::NoRegion { lkey: of });
                }
            }
            Binding::Nothing { key } => self.withdraw_key(key),
        }
        Ok(())
    }

    /// Takes a key out of use for a work request of queue pair `qpn`, or of its peer's.
    fn invalidate(&self, pd: PdHandle, qpn: Qpn, key: u32) -> Result<(), RegionError> {
        let mut table = self.regions_locked();
        table.invalidate(pd, qpn, key)?;
        self.withdraw_key(key);
        Ok(())
    }

    /// The queue pair ends, and the windows that it has bound are bound no more.
    fn unbind_queue_pair(&self, qpn: Qpn) {
        self.regions_locked().unbind_queue_pair(qpn, |key| self.withdraw_key(key));
    }

    /// The region ends, whoever has bound windows to it, and nobody binds another one.
    fn end_region(&self, key: u32) {
        let mut table = self.regions_locked();
        table.unbind_region(key, |key| self.withdraw_key(key));
        let revoked = table.revoke(key);
        debug_assert!(revoked.is_ok(), "{revoked:?}");
    }

    /// Gives a region another domain and other rights. Who is using it by the old ones is the caller's to wait for.
    ///
    /// # Errors
    /// The rights make no sense, windows are bound to the region, or it is gone. Nothing has changed.
    fn change_region(&self, key: u32, pd: PdHandle, access: Access) -> Result<()> {
        const CALL: &str = "rereg_mr";
        let mut table = self.regions_locked();
        let changed = table.change(key, pd, access);
        changed
            .and_then(|region| {
                self.publish_change(&region).then_some(()).ok_or(RegionTableError::Gone { key })
            })
            .map_err(|error| Error::InvalidArgument { call: CALL, reason: error.to_string() })
    }

    /// The region is about to end: no window can be bound to it any more.
    ///
    /// # Errors
    /// Windows are bound to it, so it must not end (IBTA volume 1, section 10.6.7.2.6).
    fn revoke_region(&self, call: &'static str, key: u32) -> Result<()> {
        self.regions_locked().revoke(key).map_err(|error| Error::Busy { call, reason: error.to_string() })
    }
}

/// How a LOCAL_INV or BIND_MW ends.
pub(crate) fn local_status<E>(done: Result<(), E>, failure: WcStatus) -> WcStatus {
    done.map_or(failure, |()| WcStatus::Success)
}
