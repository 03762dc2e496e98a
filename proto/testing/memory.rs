//! Memory of a simulated node: regions in plain vectors.

use core::ops::Range;

use crate::fault::Random;
use crate::flags::Access;
use crate::region::{PdHandle, Region, RegionError, RegionTable};
use crate::transport::AtomicOp;

/// Bytes in front of and behind each region that nothing may change.
pub const GUARD: usize = 64;

const GUARD_BYTE: u8 = 0xc9;

/// Something that must never happen, in words.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Violation(pub String);

/// A [`Violation`] from a format string.
macro_rules! violation {
    ($($arg:tt)*) => { $crate::testing::Violation(format!($($arg)*)) };
}
pub(crate) use violation;

/// The regions of one node.
///
/// Whoever moves bytes here has asked before whether it may. That answer is not trusted: every access is checked once more, with
/// other arithmetic than [`Region::check`], and what should not be is a [`Violation`].
#[derive(Debug)]
pub struct ToyMemory {
    /// Each with the index of its bytes in `stores`.
    regions: RegionTable<usize>,
    stores: Vec<Vec<u8>>,
    free: Vec<usize>,
    entropy: Random,
    next_iova: u64,
}

impl ToyMemory {
    /// No regions. `seed` makes their keys and addresses.
    pub fn new(seed: u64) -> Self {
        let mut entropy = Random::new(seed);
        let next_iova = 0x1000_0000_0000 + (entropy.next_u64() & 0xffff_f000);
        Self { regions: RegionTable::new(1 << 12), stores: Vec::new(), free: Vec::new(), entropy, next_iova }
    }

    /// Registers so many zero bytes and answers their key and first address.
    ///
    /// # Errors
    /// What [`RegionTable::insert`] says, in words.
    pub fn register(&mut self, pd: PdHandle, access: Access, length: usize) -> Result<(u32, u64), Violation> {
        let store = self.free.pop().unwrap_or(self.stores.len());
        if store == self.stores.len() {
            self.stores.push(Vec::new());
        }
        let iova = if access.contains(Access::ZERO_BASED) { 0 } else { self.next_iova };
        // A hole behind each, so that no address belongs to two.
        self.next_iova += length as u64 + 0x1_0000;
        let key = self
            .regions
            .insert(self.entropy.next_u32(), pd, access, iova, length as u64, store)
            .map_err(|error| violation!("register: {error}"))?;
        let bytes = &mut self.stores[store];
        bytes.clear();
        bytes.resize(length + 2 * GUARD, GUARD_BYTE);
        bytes[GUARD..GUARD + length].fill(0);
        Ok((key, iova))
    }

    /// Withdraws a region; nothing happens if it is gone already.
    ///
    /// # Errors
    /// Its guards were written to.
    pub fn deregister(&mut self, key: u32) -> Result<(), Violation> {
        match self.regions.remove(key) {
            Some((region, store)) => {
                self.free.push(store);
                self.guards(&region, store)
            }
            None => Ok(()),
        }
    }

    /// Whether there is a region with this key.
    pub fn has(&self, key: u32) -> bool {
        self.regions.get(key).is_some()
    }

    /// Bytes of a region, as its owner sees them.
    ///
    /// # Errors
    /// They are not all inside a region.
    pub fn bytes(&self, key: u32, addr: u64, len: usize) -> Result<&[u8], Violation> {
        let (_, store, range) = self.locate(key, addr, len)?;
        Ok(&self.stores[store][range])
    }

    /// The same, to change them.
    ///
    /// # Errors
    /// They are not all inside a region.
    pub fn bytes_mut(&mut self, key: u32, addr: u64, len: usize) -> Result<&mut [u8], Violation> {
        let (_, store, range) = self.locate(key, addr, len)?;
        Ok(&mut self.stores[store][range])
    }

    /// What [`Host::check`](crate::transport::Host::check) answers.
    ///
    /// # Errors
    /// As there.
    pub fn check(
        &self,
        pd: PdHandle,
        key: u32,
        needed: Access,
        addr: u64,
        len: u64,
    ) -> Result<(), RegionError> {
        self.regions.check(key, pd, needed, addr, len).map(|_| ())
    }

    /// What [`Host::invalidate`](crate::transport::Host::invalidate) does.
    ///
    /// # Errors
    /// As there.
    pub fn invalidate(&mut self, pd: PdHandle, key: u32) -> Result<(), RegionError> {
        let (region, _) = self.regions.get(key).ok_or(RegionError::KeyMismatch { key })?;
        if region.pd != pd {
            return Err(RegionError::WrongPd { key, pd, region_pd: region.pd });
        }
        if let Some((_, store)) = self.regions.remove(key) {
            self.free.push(store);
        }
        Ok(())
    }

    /// Writes bytes for a queue pair of domain `pd`.
    ///
    /// # Errors
    /// It may not.
    pub fn place(&mut self, pd: PdHandle, key: u32, addr: u64, bytes: &[u8]) -> Result<(), Violation> {
        let (region, store, range) = self.locate(key, addr, bytes.len())?;
        allowed(&region, pd, Access::LOCAL_WRITE)?;
        self.stores[store][range].copy_from_slice(bytes);
        Ok(())
    }

    /// Reads bytes for a queue pair of domain `pd`; `false` if the region has gone.
    ///
    /// # Errors
    /// It may not.
    pub fn gather(
        &self,
        pd: PdHandle,
        key: u32,
        addr: u64,
        len: usize,
        into: &mut Vec<u8>,
    ) -> Result<bool, Violation> {
        if !self.has(key) {
            return Ok(false);
        }
        let (region, store, range) = self.locate(key, addr, len)?;
        allowed(&region, pd, Access::empty())?;
        into.extend_from_slice(&self.stores[store][range]);
        Ok(true)
    }

    /// Does an atomic for a queue pair of domain `pd` and answers the old value.
    ///
    /// # Errors
    /// It may not.
    pub fn atomic(&mut self, pd: PdHandle, key: u32, addr: u64, op: AtomicOp) -> Result<u64, Violation> {
        let (region, store, range) = self.locate(key, addr, 8)?;
        allowed(&region, pd, Access::REMOTE_ATOMIC)?;
        if !addr.is_multiple_of(8) {
            return Err(violation!("an atomic at {addr:#x}, which is no multiple of 8"));
        }
        let place = &mut self.stores[store][range];
        let mut word = [0; 8];
        word.copy_from_slice(place);
        let old = u64::from_ne_bytes(word);
        let new = match op {
            AtomicOp::CompareSwap { compare, swap } if old == compare => swap,
            AtomicOp::CompareSwap { .. } => old,
            AtomicOp::FetchAdd { add } => old.wrapping_add(add),
        };
        place.copy_from_slice(&new.to_ne_bytes());
        Ok(old)
    }

    /// Looks at the guards of every region.
    ///
    /// # Errors
    /// Something was written there.
    pub fn check_guards(&self) -> Result<(), Violation> {
        self.regions.iter().try_for_each(|(region, &store)| self.guards(region, store))
    }

    fn guards(&self, region: &Region, store: usize) -> Result<(), Violation> {
        let bytes = &self.stores[store];
        let untouched = |part: &[u8]| part.iter().all(|&byte| byte == GUARD_BYTE);
        if untouched(&bytes[..GUARD]) && untouched(&bytes[bytes.len() - GUARD..]) {
            Ok(())
        } else {
            Err(violation!("bytes beside {region:x?} were written"))
        }
    }

    /// Where these bytes are. Zero bytes are nowhere, but the region must exist.
    fn locate(&self, key: u32, addr: u64, len: usize) -> Result<(Region, usize, Range<usize>), Violation> {
        let (region, &store) =
            self.regions.get(key).ok_or_else(|| violation!("no region has key {key:#010x}"))?;
        let start = i128::from(addr) - i128::from(region.iova);
        if start < 0 || start + len as i128 > i128::from(region.length) {
            return Err(violation!("{len} bytes at {addr:#x} are outside {region:x?}"));
        }
        let start = GUARD + start as usize;
        Ok((*region, store, start..start + len))
    }
}

fn allowed(region: &Region, pd: PdHandle, needed: Access) -> Result<(), Violation> {
    if region.pd != pd {
        return Err(violation!("a queue pair of {pd:?} reached into {region:x?}"));
    }
    if !region.access.contains(needed) {
        return Err(violation!("{needed} is not granted by {region:x?}"));
    }
    Ok(())
}
