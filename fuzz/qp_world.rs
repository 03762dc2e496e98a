//! What a fuzzed queue pair lives in: the bytes of a case, and an owner that remembers what it allowed.

use super::Case;
use std::cell::RefCell;

use tbrdma_proto::testing::ToyMemory;
use tbrdma_proto::transport::{Host, Receive, Srq};
use tbrdma_proto::{Access, PdHandle, RegionError, Sge};

/// What the queue pair asks; it is remembered what was allowed since the last packet or call.
pub(super) struct World {
    pub(super) memory: ToyMemory,
    pub(super) srq: Option<Srq>,
    pub(super) allowed: RefCell<Vec<(u32, Access, u64, u64)>>,
    pub(super) keys: Vec<(u32, u64)>,
}

impl Host for World {
    fn check(&self, pd: PdHandle, key: u32, needed: Access, addr: u64, len: u64) -> Result<(), RegionError> {
        self.memory.check(pd, key, needed, addr, len)?;
        self.allowed.borrow_mut().push((key, needed, addr, len));
        Ok(())
    }

    fn invalidate(&mut self, pd: PdHandle, key: u32) -> Result<(), RegionError> {
        self.memory.invalidate(pd, key)
    }

    fn take_shared_receive(&mut self, receive: &mut Receive) -> bool {
        self.srq.as_mut().unwrap().take(receive)
    }
}

impl World {
    /// Panics unless these bytes were allowed to be used so, with one answer, since the last call.
    pub(super) fn must_be_allowed(&self, key: u32, needed: &[Access], addr: u64, len: u64) {
        let covered = self.allowed.borrow().iter().any(|&(at_key, access, at, bytes)| {
            at_key == key && needed.contains(&access) && at <= addr && addr - at + len <= bytes
        });
        assert!(covered, "{len} bytes at {addr:#x} of {key:#x} for {needed:?}: {:?}", self.allowed);
    }

    /// A key and an address: mostly good ones.
    pub(super) fn place(&self, case: &mut Case<'_>) -> (u32, u64) {
        let (key, addr) = case.of(&self.keys);
        let key = if case.one_in(16) { key ^ 1 } else { key };
        match case.byte() {
            0xff => (key, u64::MAX - u64::from(case.byte())),
            0xfe => (key, addr.wrapping_sub(u64::from(case.byte()))),
            high => (key, addr + u64::from(high) * 17),
        }
    }

    pub(super) fn sges(&self, case: &mut Case<'_>) -> Vec<Sge> {
        (0..case.byte() % 4)
            .map(|_| {
                let (lkey, addr) = self.place(case);
                Sge { addr, length: u32::from(case.half() % 1200), lkey }
            })
            .collect()
    }
}
