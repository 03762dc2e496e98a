//! Memory windows: keys of their own for parts of regions, given out and taken back by work requests (IBTA volume 1, section 10.6.7).
//!
//! A window lives in the same table as the regions, under an index of its own. While it is bound it is published as a [`Region`] like any
//! other, of the part it covers, but of a domain that only requests of peers belong to: so no lkey ever reaches memory through it, and
//! nothing on the path of a message need know that there are windows. Windows of type 2 are of the kind the specification calls 2B:
//! of one queue pair, the one that bound them.

use super::{PdHandle, Region, RegionError, RegionTable, RegionTableError, Slot};
use crate::flags::Access;
use crate::ident::Qpn;
use crate::limits::MAX_PD;
use crate::raw::raw_enum;
use crate::work::{MwBind, WcStatus};

raw_enum! {
    /// The type of a memory window (`enum ibv_mw_type`).
    u8 pub enum MwType {
        /// Bound by `ibv_bind_mw(3)`, as often as one likes, and open to every queue pair of its domain.
        Type1 = 1,
        /// Bound by a posted BIND_MW, open to the queue pair it was posted to, until a key is invalidated.
        Type2 = 2,
    }
}

/// The key that follows `rkey` when a window is bound anew (`ibv_inc_rkey(3)`): the consumer's byte, the lowest, counts up.
pub const fn inc_rkey(rkey: u32) -> u32 {
    rkey & !CONSUMER | rkey.wrapping_add(1) & CONSUMER
}

/// The bits of a window's key that whoever binds it chooses.
const CONSUMER: u32 = 0xff;
/// Marks a domain of windows.
const WINDOWS: u32 = 1 << 31;
/// Marks one that is a queue pair's.
const OF_QUEUE_PAIR: u32 = 1 << 30;

const _: () = assert!(MAX_PD < OF_QUEUE_PAIR && 1 << 24 <= OF_QUEUE_PAIR);

impl PdHandle {
    /// The domain of windows of this domain, as requests of peers may use them.
    const fn windows(self) -> Self {
        Self(self.0 | WINDOWS)
    }

    /// The domain of windows that are bound to one queue pair.
    const fn windows_of(qpn: Qpn) -> Self {
        Self(WINDOWS | OF_QUEUE_PAIR | qpn.get())
    }
}

impl Region {
    /// [`check`](Self::check) of a peer's request that came by way of queue pair `qpn` of domain `pd`: besides regions there are windows.
    ///
    /// # Errors
    ///
    /// As there.
    #[inline]
    pub fn check_remote(
        &self,
        pd: PdHandle,
        qpn: Qpn,
        needed: Access,
        addr: u64,
        len: u64,
    ) -> Result<u64, RegionError> {
        let refusal = match self.check(pd, needed, addr, len) {
            Err(refusal) if self.is_window() => refusal,
            decided => return decided,
        };
        let domain = if self.pd.0 & OF_QUEUE_PAIR == 0 { pd.windows() } else { PdHandle::windows_of(qpn) };
        // An empty right would be local reading.
        if needed.is_empty() { Err(refusal) } else { self.check(domain, needed, addr, len) }
    }

    /// Whether this is the published part of a window.
    #[inline]
    pub const fn is_window(&self) -> bool {
        self.pd.0 & WINDOWS != 0
    }
}

/// A memory window.
#[derive(Clone, Copy, Debug)]
pub(super) struct Window {
    key: u32,
    pd: PdHandle,
    mw_type: MwType,
    bound: Option<Bound>,
}

#[derive(Clone, Copy, Debug)]
struct Bound {
    /// Key of the region it is a part of.
    region: u32,
    /// The queue pair it belongs to.
    qpn: Option<Qpn>,
}

/// What a BIND_MW changes: see [`RegionTable::bind`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Binding {
    /// The window's key opens this part of a region from now on.
    Part {
        /// The part, under the window's key, to be checked with [`Region::check_remote`].
        part: Region,
        /// Key of the region.
        of: u32,
        /// Where in the region the part begins, in bytes.
        offset: u64,
    },
    /// The window with this key opens nothing any more.
    Nothing {
        /// Its key.
        key: u32,
    },
}

impl<T> RegionTable<T> {
    /// Adds a window that is not bound, and gives it a key; its lowest byte is the caller's to choose at each binding.
    ///
    /// `entropy` is as for [`insert`](Self::insert).
    ///
    /// # Errors
    ///
    /// The table is full.
    pub fn alloc_window(
        &mut self,
        entropy: u32,
        pd: PdHandle,
        mw_type: MwType,
    ) -> Result<u32, RegionTableError> {
        let index = self.free_index()?;
        let full = RegionTableError::Full { capacity: self.capacity };
        let slot = self.slots.get_mut(index).ok_or(full)?;
        slot.tag = slot.fresh_tag(entropy, true);
        slot.was_window = true;
        let key = (index as u32) << 16 | u32::from(slot.tag);
        slot.window = Some(Window { key, pd, mw_type, bound: None });
        self.live += 1;
        Ok(key)
    }

    /// Removes a window, bound or not; from then on its keys are refused. False if there is no such window.
    pub fn free_window(&mut self, key: u32) -> bool {
        if self.window(key).is_none() {
            return false;
        }
        self.unbind(Self::key_index(key));
        if let Some(slot) = self.slots.get_mut(Self::key_index(key)) {
            slot.window = None;
        }
        self.retire(key);
        true
    }

    /// The key of the window that had this key once: bindings change the lowest byte.
    pub fn window_key(&self, key: u32) -> Option<u32> {
        self.window(key).map(|window| window.key)
    }

    /// Carries out a BIND_MW that was posted to queue pair `qpn` of domain `pd`, as far as the table is concerned (IBTA volume 1, section
    /// 10.6.7 and C10-72 to C10-75). A type 1 window is bound anew whatever it was bound to, and by no bytes to nothing.
    ///
    /// # Errors
    ///
    /// The first rule broken; nothing has changed.
    pub fn bind(&mut self, pd: PdHandle, qpn: Qpn, bind: &MwBind) -> Result<Binding, BindError> {
        let key = bind.window & !CONSUMER | bind.rkey & CONSUMER;
        let window = *self.window(bind.window).ok_or(BindError::NoWindow { key: bind.window })?;
        if window.pd != pd {
            return Err(BindError::OtherDomain { key, pd, other: window.pd });
        }
        if window.mw_type == MwType::Type2 && window.bound.is_some() {
            return Err(BindError::StillBound { key: window.key });
        }
        let binding = match (bind.length, window.mw_type) {
            (0, MwType::Type1) => Binding::Nothing { key: window.key },
            (0, MwType::Type2) => return Err(BindError::NoBytes { key }),
            _ => self.part(&window, key, qpn, bind)?,
        };
        self.unbind(Self::key_index(key));
        let bound = match binding {
            Binding::Part { of, .. } => {
                if let Some(region) = self.slots.get_mut(Self::key_index(of)) {
                    region.windows += 1;
                }
                self.bound_windows += 1;
                Some(Bound { region: of, qpn: (window.mw_type == MwType::Type2).then_some(qpn) })
            }
            Binding::Nothing { .. } => None,
        };
        if let Some(slot) = self.slots.get_mut(Self::key_index(key)) {
            slot.window = Some(Window { key, bound, ..window });
        }
        Ok(binding)
    }

    /// The part of a region that a window shall open.
    fn part(&self, window: &Window, key: u32, qpn: Qpn, bind: &MwBind) -> Result<Binding, BindError> {
        let (region, _) = self.get(bind.lkey).ok_or(BindError::NoRegion { lkey: bind.lkey })?;
        let remote = Access::REMOTE_WRITE | Access::REMOTE_READ | Access::REMOTE_ATOMIC;
        let writes = Access::REMOTE_WRITE | Access::REMOTE_ATOMIC;
        let zero_based = bind.access.contains(Access::ZERO_BASED);
        if region.pd != window.pd {
            return Err(BindError::OtherDomain { key: region.key, pd: window.pd, other: region.pd });
        }
        if !region.access.contains(Access::MW_BIND) {
            return Err(BindError::NotBindable { lkey: region.key });
        }
        if region.access.contains(Access::ZERO_BASED) || (zero_based && window.mw_type == MwType::Type1) {
            return Err(BindError::ZeroBased { key });
        }
        if bind.access.intersects(writes) && !region.access.contains(Access::LOCAL_WRITE) {
            return Err(BindError::NeedsLocalWrite { lkey: region.key });
        }
        let offset = region.check(window.pd, Access::empty(), bind.addr, bind.length)?;
        let pd = match window.mw_type {
            MwType::Type1 => window.pd.windows(),
            MwType::Type2 => PdHandle::windows_of(qpn),
        };
        let iova = if zero_based { 0 } else { bind.addr };
        let part = Region { key, pd, access: bind.access & remote, iova, length: bind.length };
        Ok(Binding::Part { part, of: region.key, offset })
    }

    /// Takes a key out of use, because a work request of queue pair `qpn` of domain `pd` says so, or its peer's (IBTA volume 1, section
    /// 10.6.6): that of a window of type 2 bound to the queue pair, which can be bound again, or of a region with remote rights and without
    /// windows. The region keeps its place until it is [removed](Self::remove), but has no use any more.
    ///
    /// # Errors
    ///
    /// Why the key stays; nothing has changed.
    pub fn invalidate(&mut self, pd: PdHandle, qpn: Qpn, key: u32) -> Result<(), RegionError> {
        if let Some(window) = self.window(key).filter(|window| window.key == key) {
            return match window.bound {
                Some(Bound { qpn: Some(bound_to), .. }) if bound_to == qpn => {
                    self.unbind(Self::key_index(key));
                    Ok(())
                }
                Some(Bound { qpn: None, .. }) => Err(RegionError::TypeOneWindow { key }),
                _ => Err(RegionError::KeyMismatch { key }),
            };
        }
        let (&Region { pd: region_pd, access: granted, .. }, _) =
            self.get(key).ok_or(RegionError::KeyMismatch { key })?;
        let needed = Access::REMOTE_WRITE | Access::REMOTE_READ | Access::REMOTE_ATOMIC;
        if region_pd != pd {
            return Err(RegionError::WrongPd { key, pd, region_pd });
        }
        // Only what was given to a peer can be taken back by one.
        if !granted.intersects(needed) {
            return Err(RegionError::AccessDenied { key, needed, granted });
        }
        self.revoke(key)
    }

    /// Takes a region's key out of use; its place stays until it is [removed](Self::remove). Nothing happens if there is none.
    ///
    /// # Errors
    ///
    /// Windows are bound to it; nothing has changed.
    pub fn revoke(&mut self, key: u32) -> Result<(), RegionError> {
        match self.slots.get_mut(Self::key_index(key)) {
            Some(Slot { entry: Some((region, _)), windows, revoked, .. }) if region.key == key => {
                if *windows > 0 {
                    return Err(RegionError::HasWindows { key, windows: *windows });
                }
                *revoked = true;
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// Unbinds the windows that a queue pair has bound, since it ends; `gone` gets the key of each.
    pub fn unbind_queue_pair(&mut self, qpn: Qpn, gone: impl FnMut(u32)) {
        self.unbind_where(|bound| bound.qpn == Some(qpn), gone);
    }

    /// Unbinds the windows of a region, since it ends; `gone` gets the key of each.
    pub fn unbind_region(&mut self, key: u32, gone: impl FnMut(u32)) {
        self.unbind_where(|bound| bound.region == key, gone);
    }

    fn unbind_where(&mut self, is_meant: impl Fn(&Bound) -> bool, mut gone: impl FnMut(u32)) {
        if self.bound_windows == 0 {
            return;
        }
        for index in 0..self.slots.len() {
            let window = self.slots.get(index).and_then(|slot| slot.window);
            if let Some(Window { key, bound: Some(bound), .. }) = window
                && is_meant(&bound)
            {
                self.unbind(index);
                gone(key);
            }
        }
    }

    fn unbind(&mut self, index: usize) {
        let bound = self.slots.get_mut(index).and_then(|slot| slot.window.as_mut()?.bound.take());
        let Some(Bound { region, .. }) = bound else { return };
        self.bound_windows -= 1;
        if let Some(slot) = self.slots.get_mut(Self::key_index(region)) {
            slot.windows -= 1;
        }
    }

    /// The window that has this key, or had it before it was bound anew.
    fn window(&self, key: u32) -> Option<&Window> {
        let window = self.slots.get(Self::key_index(key))?.window.as_ref()?;
        (window.key & !CONSUMER == key & !CONSUMER).then_some(window)
    }
}

/// Why a window is not bound.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BindError {
    /// There is no such window.
    #[error("key {key:#010x} names no memory window: it was never allocated, or has been deallocated")]
    NoWindow {
        /// The key given.
        key: u32,
    },
    /// There is no such region.
    #[error(
        "lkey {lkey:#010x} names no registered region: register the memory before a window is bound to it"
    )]
    NoRegion {
        /// The key given.
        lkey: u32,
    },
    /// Window, region and queue pair must be of one protection domain.
    #[error("key {key:#010x} is of protection domain {}, and not of {}: make all of one domain", .other.0, .pd.0)]
    OtherDomain {
        /// Key of the window or region.
        key: u32,
        /// The domain it should be of.
        pd: PdHandle,
        /// The domain it is of.
        other: PdHandle,
    },
    /// The region was registered without the right to bind windows to it.
    #[error("region {lkey:#010x} takes no windows: register it with MW_BIND")]
    NotBindable {
        /// Key of the region.
        lkey: u32,
    },
    /// A zero-based window of type 1, or a window of a zero-based region.
    #[error(
        "window {key:#010x}: only a window of type 2 can be zero based, and no window of a zero-based region"
    )]
    ZeroBased {
        /// Key of the window.
        key: u32,
    },
    /// A peer would write what our own device may not.
    #[error(
        "region {lkey:#010x} may not be written locally, so not by way of a window: register it with LOCAL_WRITE"
    )]
    NeedsLocalWrite {
        /// Key of the region.
        lkey: u32,
    },
    /// A window of type 2 is bound once.
    #[error("window {key:#010x} of type 2 is bound: invalidate its key first")]
    StillBound {
        /// Key of the window.
        key: u32,
    },
    /// A window of type 2 is not unbound by binding.
    #[error("window {key:#010x} of type 2 cannot be bound to no bytes: invalidate its key instead")]
    NoBytes {
        /// Key of the window.
        key: u32,
    },
    /// The bytes are not all in the region.
    #[error(transparent)]
    Region(#[from] RegionError),
    /// The device has no windows.
    #[error("this device has no memory windows")]
    Unsupported,
}

impl BindError {
    /// The completion status of the BIND_MW.
    pub const fn status(&self) -> WcStatus {
        WcStatus::MwBindErr
    }
}
