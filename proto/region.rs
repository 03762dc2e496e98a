//! The one rulebook for memory access: regions, their keys, and the check every access goes through.
//!
//! Nothing in tbrdma touches registered memory before [`Region::check`] has said where. Keys are
//! `index << 16 | tag`: the index finds the region at once, the tag makes the key hard to guess and a retired
//! key worthless. Memory windows, whose keys are in the same table, are in [`window`].

pub mod window;

pub use window::{BindError, Binding, MwType, inc_rkey};

use std::collections::VecDeque;

use crate::flags::{Access, AccessFlagsError};
use crate::planted::{self, Bug};
use crate::work::WcStatus;

/// How many other registrations pass before the index of a retired key is used again, as long as the table
/// has that many free indices. See [`RegionTable`].
pub const QUARANTINE: usize = 64;

/// The number of a protection domain within its device.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PdHandle(pub u32);

/// A registered memory region: who may do what to which addresses.
///
/// One key serves as lkey and rkey.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Region {
    /// The key under which it is known.
    pub key: u32,
    /// The protection domain it belongs to.
    pub pd: PdHandle,
    /// What is allowed.
    pub access: Access,
    /// The address work requests use for its first byte; 0 if the region is `ZERO_BASED`.
    pub iova: u64,
    /// Its size in bytes.
    pub length: u64,
}

impl Region {
    /// Whether a work queue of domain `pd` may use `len` bytes at `addr` in the way `needed` says; if so, the
    /// offset of `addr` from the start of the region (IBTA volume 1, sections 10.6.3 and 9.7.4.1.6).
    ///
    /// Local reading needs no right: pass [`Access::empty`]. `addr + len` never wraps: an access that reaches
    /// the last address of a 64-bit space or beyond is refused, whatever the region claims.
    ///
    /// An access of no bytes is checked like any other here: domain and rights must fit, and
    /// `iova <= addr <= iova + length`. On the wire, an RDMA operation of length 0 carries a key that is
    /// *not* checked (IBTA volume 1, C9-88); whoever handles one does not call this at all.
    ///
    /// # Errors
    ///
    /// The first rule broken, in this order: domain, rights, bounds.
    #[inline(always)]
    pub fn check(&self, pd: PdHandle, needed: Access, addr: u64, len: u64) -> Result<u64, RegionError> {
        let length = self.length + u64::from(planted::is(Bug::BoundOffByOne));
        // No wrap anywhere: `iova <= addr <= end` where all three hold.
        let (end, beyond) = addr.overflowing_add(len);
        let allowed = self.pd == pd
            && self.access.contains(needed)
            && !beyond
            && addr >= self.iova
            && end.wrapping_sub(self.iova) <= length;
        if allowed { Ok(addr.wrapping_sub(self.iova)) } else { Err(self.refusal(pd, needed, addr, len)) }
    }

    /// Says why [`check`](Self::check) refused; apart from it, so that the path that allows stays short.
    #[cold]
    const fn refusal(&self, pd: PdHandle, needed: Access, addr: u64, len: u64) -> RegionError {
        let Self { key, pd: region_pd, access: granted, iova, length } = *self;
        if region_pd.0 != pd.0 {
            RegionError::WrongPd { key, pd, region_pd }
        } else if !granted.contains(needed) {
            RegionError::AccessDenied { key, needed, granted }
        } else {
            RegionError::OutOfBounds { key, addr, len, iova, length }
        }
    }
}

/// An access to memory that is not allowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RegionError {
    /// No live region has the key.
    #[error(
        "key {key:#010x} names no registered region: it was never registered on this device, or has been \
         deregistered; exchange keys again after registering"
    )]
    KeyMismatch {
        /// The key given.
        key: u32,
    },
    /// The region belongs to another protection domain than the queue pair.
    #[error(
        "region {key:#010x} belongs to protection domain {}, the queue pair to {}: \
         register the memory in the domain of the queue pair that uses it", .region_pd.0, .pd.0
    )]
    WrongPd {
        /// The region's key.
        key: u32,
        /// The domain that wanted access.
        pd: PdHandle,
        /// The domain the region belongs to.
        region_pd: PdHandle,
    },
    /// The region does not grant the right.
    #[error(
        "region {key:#010x} grants {granted} but the operation needs {needed}: \
         register the memory with that right too"
    )]
    AccessDenied {
        /// The region's key.
        key: u32,
        /// The rights the operation needs.
        needed: Access,
        /// The rights the region grants.
        granted: Access,
    },
    /// Some byte lies outside the region.
    #[error(
        "{len} bytes at {addr:#x} are not inside region {key:#010x}, which is {length} bytes at {iova:#x}: \
         check the address, and that it is {}", base_hint(*.iova)
    )]
    OutOfBounds {
        /// The region's key.
        key: u32,
        /// First address of the access.
        addr: u64,
        /// Bytes of the access.
        len: u64,
        /// First address of the region.
        iova: u64,
        /// Bytes of the region.
        length: u64,
    },
    /// Windows are bound to the region, so it cannot be invalidated.
    #[error("{windows} memory windows are bound to region {key:#010x}: invalidate or deallocate them first")]
    HasWindows {
        /// The region's key.
        key: u32,
        /// How many.
        windows: u32,
    },
    /// Windows of type 1 are not invalidated by their key.
    #[error(
        "key {key:#010x} is that of a type 1 memory window: bind it to no bytes instead of invalidating it"
    )]
    TypeOneWindow {
        /// The window's key.
        key: u32,
    },
}

/// What kind of address a region expects, in the words of [`RegionError::OutOfBounds`].
fn base_hint(iova: u64) -> &'static str {
    if iova == 0 { "an offset, since this region is zero based" } else { "an address and not an offset" }
}

impl RegionError {
    /// The completion status when the refused access was to our own memory, named by an lkey.
    #[inline]
    pub const fn local_status(&self) -> WcStatus {
        WcStatus::LocProtErr
    }

    /// The completion status at the requester when the refused access was to a peer's memory, named by an
    /// rkey. The responder raises [`QpAccessErr`](crate::AsyncEventKind::QpAccessErr) on its own side.
    #[inline]
    pub const fn remote_status(&self) -> WcStatus {
        WcStatus::RemAccessErr
    }
}

/// A region that cannot be put in a [`RegionTable`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RegionTableError {
    /// Every index is taken.
    #[error(
        "all {capacity} memory regions of this device are in use: \
         deregister some, or register fewer, larger ones"
    )]
    Full {
        /// Regions the table can hold.
        capacity: usize,
    },
    /// Rights that no region can have.
    #[error(transparent)]
    Access(#[from] AccessFlagsError),
    /// The region would reach the end of the 64-bit address space, or beyond.
    #[error(
        "a region of {length} bytes at {iova:#x} reaches the end of the 64-bit address space: \
         choose a lower iova or a smaller length"
    )]
    AddressOverflow {
        /// First address asked for.
        iova: u64,
        /// Bytes asked for.
        length: u64,
    },
    /// A zero-based region with a base.
    #[error(
        "a ZERO_BASED region starts at address 0, but iova {iova:#x} was given: pass 0, or drop ZERO_BASED"
    )]
    ZeroBasedIova {
        /// First address asked for.
        iova: u64,
    },
    /// There is no such region any more.
    #[error("region {key:#010x} has been deregistered or invalidated: register the memory again")]
    Gone {
        /// The key given.
        key: u32,
    },
    /// The region cannot change while windows are bound to it.
    #[error("{windows} memory windows are bound to region {key:#010x}: invalidate or deallocate them first")]
    HasWindows {
        /// The region's key.
        key: u32,
        /// How many.
        windows: u32,
    },
}

/// All memory regions of one device, on the side that owns the memory, each with the owner's `T` (the
/// mapping, say).
///
/// - Keys are `index << 16 | tag`. The tag is 16 bits of the entropy given to [`insert`](Self::insert); it is
///   never 0, so no key is 0, and never the tag the index had last.
/// - An index that was never used comes before one that was; retired ones queue up first in, first out. So
///   an index returns only after all other free ones were used: after at least [`QUARANTINE`] other
///   registrations, unless fewer indices than that are free.
/// - Memory grows with the largest number of indices ever used, up to the capacity.
#[derive(Debug)]
pub struct RegionTable<T> {
    slots: Vec<Slot<T>>,
    retired: VecDeque<u16>,
    capacity: usize,
    live: usize,
    /// Windows that are bound.
    bound_windows: usize,
}

#[derive(Debug)]
struct Slot<T> {
    /// The tag of the current or, if none, the last region or window.
    tag: u16,
    entry: Option<(Region, T)>,
    /// The region's key has been invalidated, and serves its removal only.
    revoked: bool,
    /// Windows bound to the region.
    windows: u32,
    /// A window in place of a region.
    window: Option<window::Window>,
    /// The last one here was a window, whose tags had any lower byte.
    was_window: bool,
}

impl<T> Slot<T> {
    const VACANT: Self =
        Self { tag: 0, entry: None, revoked: false, windows: 0, window: None, was_window: false };

    /// A tag that nothing here had last. Whoever binds a window chooses the lower byte of its tag, so then the upper ones differ.
    const fn fresh_tag(&self, entropy: u32, of_window: bool) -> u16 {
        if !of_window && !self.was_window {
            return fresh_tag(entropy, self.tag);
        }
        let upper = 1 + (entropy >> 8) as u16 % 0xff;
        let upper = if upper == self.tag >> 8 { upper % 0xff + 1 } else { upper };
        upper << 8 | entropy as u16 & 0xff
    }
}

impl<T> RegionTable<T> {
    /// The most a table can hold: an index is 16 bits.
    pub const MAX_CAPACITY: usize = 1 << 16;

    /// An empty table for up to `capacity` regions; more than [`Self::MAX_CAPACITY`] counts as that many.
    pub fn new(capacity: usize) -> Self {
        Self {
            slots: Vec::new(),
            retired: VecDeque::new(),
            capacity: capacity.min(Self::MAX_CAPACITY),
            live: 0,
            bound_windows: 0,
        }
    }

    /// Adds a region and gives it a key.
    ///
    /// `entropy` must come from a source peers cannot predict, anew for every call: it is all that makes keys
    /// hard to guess. A length of 0 is allowed; no byte can be reached through such a region.
    ///
    /// # Errors
    ///
    /// Rights that make no sense, addresses that overflow, or a full table. Then `backing` is dropped.
    pub fn insert(
        &mut self,
        entropy: u32,
        pd: PdHandle,
        access: Access,
        iova: u64,
        length: u64,
        backing: T,
    ) -> Result<u32, RegionTableError> {
        access.validate()?;
        if access.contains(Access::ZERO_BASED) && iova != 0 {
            return Err(RegionTableError::ZeroBasedIova { iova });
        }
        if iova.checked_add(length).is_none() {
            return Err(RegionTableError::AddressOverflow { iova, length });
        }
        let index = self.free_index()?;
        let full = RegionTableError::Full { capacity: self.capacity };
        let slot = self.slots.get_mut(index).ok_or(full)?;
        slot.tag = slot.fresh_tag(entropy, false);
        // `index` is below `MAX_CAPACITY`, so nothing is shifted out.
        let key = (index as u32) << 16 | u32::from(slot.tag);
        slot.was_window = false;
        slot.entry = Some((Region { key, pd, access, iova, length }, backing));
        self.live += 1;
        Ok(key)
    }

    /// Gives a region another domain and other rights; key and addresses stay. Whether it is zero based does not change either.
    ///
    /// # Errors
    ///
    /// Rights that make no sense, or windows are bound to it; nothing has changed. [`RegionTableError::Gone`] if no region has the key.
    pub fn change(&mut self, key: u32, pd: PdHandle, access: Access) -> Result<Region, RegionTableError> {
        access.validate()?;
        match self.slots.get_mut(Self::key_index(key)) {
            Some(Slot { windows: windows @ 1.., .. }) => {
                Err(RegionTableError::HasWindows { key, windows: *windows })
            }
            Some(Slot { entry: Some((region, _)), revoked: false, .. }) if region.key == key => {
                let zero_based = region.access & Access::ZERO_BASED;
                region.pd = pd;
                region.access = (access - Access::ZERO_BASED) | zero_based;
                Ok(*region)
            }
            _ => Err(RegionTableError::Gone { key }),
        }
    }

    /// An index for a new entry.
    fn free_index(&mut self) -> Result<usize, RegionTableError> {
        if self.slots.len() < self.capacity {
            self.slots.push(Slot::VACANT);
            return Ok(self.slots.len() - 1);
        }
        let full = RegionTableError::Full { capacity: self.capacity };
        self.retired.pop_front().map(usize::from).ok_or(full)
    }

    /// Removes the region with this key; from then on the key is refused. `None` if no region has it. Windows bound to it are unbound: the
    /// caller that publishes them has asked [`unbind_region`](Self::unbind_region) before.
    pub fn remove(&mut self, key: u32) -> Option<(Region, T)> {
        let slot = self.slots.get_mut(Self::key_index(key))?;
        let removed = slot.entry.take_if(|(region, _)| region.key == key)?;
        slot.revoked = false;
        self.unbind_region(key, drop);
        self.retire(key);
        Some(removed)
    }

    /// The index of this key may be used again.
    fn retire(&mut self, key: u32) {
        self.retired.push_back((key >> 16) as u16);
        self.live -= 1;
    }

    /// The region with this key. `None` if there is none, however close the key is to a live one.
    #[inline]
    pub fn get(&self, key: u32) -> Option<(&Region, &T)> {
        match self.slots.get(Self::key_index(key))? {
            Slot { entry: Some((region, backing)), revoked: false, .. } if region.key == key => {
                Some((region, backing))
            }
            _ => None,
        }
    }

    /// [`get`](Self::get) and [`Region::check`] in one: the region, its backing, and the offset of `addr`.
    ///
    /// # Errors
    ///
    /// [`RegionError::KeyMismatch`] if no region has the key, otherwise what [`Region::check`] says.
    #[inline]
    pub fn check(
        &self,
        key: u32,
        pd: PdHandle,
        needed: Access,
        addr: u64,
        len: u64,
    ) -> Result<(&Region, &T, u64), RegionError> {
        let (region, backing) = self.get(key).ok_or(RegionError::KeyMismatch { key })?;
        let offset = region.check(pd, needed, addr, len)?;
        Ok((region, backing, offset))
    }

    /// All regions, by ascending index.
    pub fn iter(&self) -> impl Iterator<Item = (&Region, &T)> {
        self.slots.iter().filter_map(|slot| slot.entry.as_ref().map(|(region, backing)| (region, backing)))
    }

    /// How many regions and windows there are.
    pub const fn len(&self) -> usize {
        self.live
    }

    /// Whether there are none.
    pub const fn is_empty(&self) -> bool {
        self.live == 0
    }

    /// How many regions and windows there can be.
    pub const fn capacity(&self) -> usize {
        self.capacity
    }

    /// The index part of a key, in `0..65536`.
    #[inline]
    pub const fn key_index(key: u32) -> usize {
        (key >> 16) as usize
    }
}

/// A tag in `1..=0xffff` other than `last`, each as likely as the next. `last` is 0 for an index never used.
const fn fresh_tag(entropy: u32, last: u16) -> u16 {
    if last == 0 {
        return 1 + (entropy % 0xffff) as u16;
    }
    let tag = 1 + (entropy % 0xfffe) as u16;
    // Step over `last`: 0xfffe candidates spread over 0xffff places with a hole.
    if tag >= last { tag + 1 } else { tag }
}
