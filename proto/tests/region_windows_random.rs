//! Random bindings, invalidations and ends of regions, windows and queue pairs, against a naive model: what the table has its owner
//! publish is at every moment what is bound, and no region goes while something of it is.

use proptest::prelude::*;
use std::collections::HashMap;
use tbrdma_proto::{
    Access, Binding, MwBind, MwType, PdHandle, Qpn, Region, RegionError, RegionTable, RegionTableError,
};

const REMOTE: Access = Access::REMOTE_WRITE.union(Access::REMOTE_READ).union(Access::REMOTE_ATOMIC);

#[derive(Clone, Copy, Debug)]
struct ModelRegion {
    pd: PdHandle,
    access: Access,
    revoked: bool,
}

#[derive(Clone, Copy, Debug)]
struct ModelWindow {
    key: u32,
    pd: PdHandle,
    mw_type: MwType,
    /// Region, queue pair, first address and length of the part, rights.
    bound: Option<(u32, u32, u64, u64, Access)>,
}

/// The table, the model, and what the owner publishes because the table says so.
struct World {
    table: RegionTable<()>,
    regions: HashMap<u32, ModelRegion>,
    windows: Vec<ModelWindow>,
    published: HashMap<u32, Region>,
}

/// A region's bytes.
const LEN: u64 = 0x1000;
const IOVA: u64 = 0x4000;

#[derive(Clone, Debug)]
enum Op {
    Insert { pd: u32, access: u8, entropy: u32 },
    Alloc { pd: u32, second: bool, entropy: u32 },
    Bind { window: usize, region: usize, pd: u32, qpn: u32, byte: u8, at: u16, len: u16, access: u8 },
    Invalidate { target: usize, of_window: bool, pd: u32, qpn: u32 },
    Change { region: usize, pd: u32, access: u8 },
    Revoke { region: usize },
    Remove { region: usize },
    Free { window: usize },
    EndQueuePair { qpn: u32 },
}

fn op() -> impl Strategy<Value = Op> {
    let (pd, qpn, pick) = (0..2_u32, 2..4_u32, 0..6_usize);
    prop_oneof![
        1 => (pd.clone(), any::<u8>(), any::<u32>()).prop_map(|(pd, access, entropy)| Op::Insert { pd, access, entropy }),
        1 => (pd.clone(), any::<bool>(), any::<u32>()).prop_map(|(pd, second, entropy)| Op::Alloc { pd, second, entropy }),
        4 => (pick.clone(), pick.clone(), pd.clone(), qpn.clone(), any::<u8>(), 0..0x1100_u16, 0..0x1100_u16, any::<u8>())
            .prop_map(|(window, region, pd, qpn, byte, at, len, access)| {
                Op::Bind { window, region, pd, qpn, byte, at, len, access }
            }),
        2 => (pick.clone(), any::<bool>(), pd.clone(), qpn.clone())
            .prop_map(|(target, of_window, pd, qpn)| Op::Invalidate { target, of_window, pd, qpn }),
        1 => (pick.clone(), pd, any::<u8>()).prop_map(|(region, pd, access)| Op::Change { region, pd, access }),
        1 => pick.clone().prop_map(|region| Op::Revoke { region }),
        1 => pick.clone().prop_map(|region| Op::Remove { region }),
        1 => pick.prop_map(|window| Op::Free { window }),
        1 => qpn.prop_map(|qpn| Op::EndQueuePair { qpn }),
    ]
}

/// Rights of a region or a binding: the low bits count.
fn access(bits: u8) -> Access {
    Access::from_bits_truncate(u32::from(bits & 0x3f))
}

impl World {
    fn region_at(&self, pick: usize) -> Option<u32> {
        let mut keys: Vec<_> = self.regions.keys().copied().collect();
        keys.sort_unstable();
        keys.get(pick).copied()
    }

    fn bound_to(&self, region: u32) -> usize {
        self.windows.iter().filter(|window| window.bound.is_some_and(|bound| bound.0 == region)).count()
    }

    fn unbind(&mut self, is_meant: impl Fn(&ModelWindow) -> bool) {
        for window in self.windows.iter_mut().filter(|window| is_meant(window)) {
            window.bound = None;
        }
    }

    fn run(&mut self, op: &Op) {
        match *op {
            Op::Insert { pd, access: bits, entropy } => {
                let (pd, access) = (PdHandle(pd), access(bits));
                let iova = if access.contains(Access::ZERO_BASED) { 0 } else { IOVA };
                let made = self.table.insert(entropy, pd, access, iova, LEN, ());
                if let Ok(key) = made {
                    self.regions.insert(key, ModelRegion { pd, access, revoked: false });
                }
                let writes = access.intersects(Access::REMOTE_WRITE | Access::REMOTE_ATOMIC);
                let full = self.regions.len() + self.windows.len() > 8;
                let refused = full || writes && !access.contains(Access::LOCAL_WRITE);
                assert!(made.is_ok() || refused || self.regions.len() + self.windows.len() == 8);
            }
            Op::Alloc { pd, second, entropy } => {
                let mw_type = if second { MwType::Type2 } else { MwType::Type1 };
                if let Ok(key) = self.table.alloc_window(entropy, PdHandle(pd), mw_type) {
                    self.windows.push(ModelWindow { key, pd: PdHandle(pd), mw_type, bound: None });
                } else {
                    assert_eq!(self.regions.len() + self.windows.len(), 8);
                }
            }
            Op::Bind { window, region, pd, qpn, byte, at, len, access: bits } => {
                let Some(model) = self.windows.get(window).copied() else { return };
                let Some(lkey) = self.region_at(region) else { return };
                let of = self.regions[&lkey];
                let base = if of.access.contains(Access::ZERO_BASED) { 0 } else { IOVA };
                let (addr, length, wanted) = (base + u64::from(at), u64::from(len), access(bits));
                let rkey = model.key & !0xff | u32::from(byte);
                let bind = MwBind { window: model.key, rkey, lkey, addr, length, access: wanted };
                let outcome = self.table.bind(PdHandle(pd), Qpn::masked(qpn), &bind);
                let second = model.mw_type == MwType::Type2;
                let writes = wanted.intersects(Access::REMOTE_WRITE | Access::REMOTE_ATOMIC);
                let may_be_bound = !of.revoked
                    && of.pd == model.pd
                    && of.access.contains(Access::MW_BIND)
                    && !of.access.contains(Access::ZERO_BASED)
                    && (second || !wanted.contains(Access::ZERO_BASED))
                    && (!writes || of.access.contains(Access::LOCAL_WRITE))
                    && u64::from(at) + length <= LEN;
                let allowed = model.pd == PdHandle(pd)
                    && if second { model.bound.is_none() && length > 0 } else { true }
                    && (length == 0 || may_be_bound);
                assert_eq!(outcome.is_ok(), allowed, "{op:?}: {outcome:?} of {model:?} to {of:?}");
                let model = &mut self.windows[window];
                match outcome {
                    Ok(Binding::Part { part, .. }) => {
                        // An entry is known by its index: what was there before is replaced.
                        self.published.remove(&model.key);
                        self.published.insert(part.key, part);
                        model.bound = Some((lkey, qpn, addr, length, wanted & REMOTE));
                        model.key = rkey;
                    }
                    Ok(Binding::Nothing { key }) => {
                        self.published.remove(&key);
                        model.bound = None;
                        model.key = rkey;
                    }
                    Err(_) => {}
                }
            }
            Op::Invalidate { target, of_window, pd, qpn } => {
                let key = if of_window {
                    self.windows.get(target).map(|window| window.key)
                } else {
                    self.region_at(target)
                };
                let Some(key) = key else { return };
                let outcome = self.table.invalidate(PdHandle(pd), Qpn::masked(qpn), key);
                let allowed = if of_window {
                    let window = self.windows[target];
                    window.mw_type == MwType::Type2 && window.bound.is_some_and(|bound| bound.1 == qpn)
                } else {
                    let region = self.regions[&key];
                    region.pd == PdHandle(pd)
                        && !region.revoked
                        && region.access.intersects(REMOTE)
                        && self.bound_to(key) == 0
                };
                assert_eq!(outcome.is_ok(), allowed, "{op:?}: {outcome:?}");
                if allowed && of_window {
                    self.published.remove(&key);
                    self.windows[target].bound = None;
                } else if allowed {
                    self.regions.entry(key).and_modify(|region| region.revoked = true);
                }
            }
            Op::Change { region, pd, access: bits } => {
                let Some(key) = self.region_at(region) else { return };
                let outcome = self.table.change(key, PdHandle(pd), access(bits));
                match outcome {
                    Ok(changed) => {
                        assert_eq!(self.bound_to(key), 0);
                        let model = self.regions.get_mut(&key).unwrap();
                        assert!(!model.revoked);
                        assert_eq!(
                            changed.access.contains(Access::ZERO_BASED),
                            model.access.contains(Access::ZERO_BASED)
                        );
                        (model.pd, model.access) = (changed.pd, changed.access);
                    }
                    Err(RegionTableError::HasWindows { windows, .. }) => {
                        assert_eq!(windows as usize, self.bound_to(key));
                    }
                    Err(RegionTableError::Gone { .. }) => assert!(self.regions[&key].revoked),
                    Err(_) => {}
                }
            }
            Op::Revoke { region } => {
                let Some(key) = self.region_at(region) else { return };
                match self.table.revoke(key) {
                    Ok(()) => {
                        assert_eq!(self.bound_to(key), 0);
                        self.regions.entry(key).and_modify(|region| region.revoked = true);
                    }
                    Err(error) => {
                        let windows = self.bound_to(key) as u32;
                        assert_eq!(error, RegionError::HasWindows { key, windows });
                        assert!(windows > 0);
                    }
                }
            }
            Op::Remove { region } => {
                let Some(key) = self.region_at(region) else { return };
                let published = &mut self.published;
                self.table.unbind_region(key, |key| assert!(published.remove(&key).is_some()));
                assert!(self.table.remove(key).is_some());
                self.regions.remove(&key);
                self.unbind(|window| window.bound.is_some_and(|bound| bound.0 == key));
            }
            Op::Free { window } => {
                if window >= self.windows.len() {
                    return;
                }
                let model = self.windows.swap_remove(window);
                assert!(self.table.free_window(model.key));
                self.published.remove(&model.key);
            }
            Op::EndQueuePair { qpn } => {
                let published = &mut self.published;
                self.table
                    .unbind_queue_pair(Qpn::masked(qpn), |key| assert!(published.remove(&key).is_some()));
                let is_its = |window: &ModelWindow| {
                    window.mw_type == MwType::Type2 && window.bound.is_some_and(|bound| bound.1 == qpn)
                };
                self.unbind(is_its);
            }
        }
    }

    fn check(&self) {
        let bound = self.windows.iter().filter(|window| window.bound.is_some()).count();
        assert_eq!(self.published.len(), bound);
        for window in &self.windows {
            assert_eq!(self.table.window_key(window.key), Some(window.key));
            let Some((_, qpn, addr, length, access)) = window.bound else { continue };
            let part = self.published[&window.key];
            assert_eq!((part.length, part.access), (length, access));
            assert!(part.iova == addr || part.iova == 0);
            for needed in [Access::REMOTE_READ, Access::REMOTE_WRITE] {
                for (pd, number) in [(0, 2), (0, 3), (1, 2), (1, 3)] {
                    let found =
                        part.check_remote(PdHandle(pd), Qpn::masked(number), needed, part.iova, length);
                    let its = match window.mw_type {
                        MwType::Type1 => window.pd == PdHandle(pd),
                        MwType::Type2 => number == qpn,
                    };
                    assert_eq!(found.is_ok(), its && access.contains(needed));
                    assert!(part.check(PdHandle(pd), Access::empty(), part.iova, length).is_err());
                }
            }
        }
        assert_eq!(self.table.len(), self.regions.len() + self.windows.len());
    }
}

proptest! {
    #[test]
    fn what_is_published_is_what_is_bound(ops in proptest::collection::vec(op(), 1..120)) {
        let mut world = World {
            table: RegionTable::new(8),
            regions: HashMap::new(),
            windows: Vec::new(),
            published: HashMap::new(),
        };
        for op in &ops {
            world.run(op);
            world.check();
        }
    }
}
