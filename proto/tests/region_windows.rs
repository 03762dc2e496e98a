//! Memory windows in the region table: their keys, what they are published as, when they count as bound.

use std::collections::HashSet;
use tbrdma_proto::{
    Access, BindError, Binding, MwBind, MwType, PdHandle, Qpn, Region, RegionError, RegionTable,
    RegionTableError, inc_rkey,
};

const PD: PdHandle = PdHandle(7);
const REMOTE: Access = Access::REMOTE_WRITE.union(Access::REMOTE_READ);

fn qpn(number: u32) -> Qpn {
    Qpn::masked(number)
}

/// A table with a region of 4096 bytes at 0x1000, and its key.
fn table() -> (RegionTable<()>, u32) {
    let mut table = RegionTable::new(8);
    let access = Access::LOCAL_WRITE | Access::MW_BIND;
    let lkey = table.insert(0x1234_5678, PD, access, 0x1000, 0x1000, ()).unwrap();
    (table, lkey)
}

fn bind(window: u32, lkey: u32) -> MwBind {
    MwBind { window, rkey: inc_rkey(window), lkey, addr: 0x1800, length: 0x100, access: REMOTE }
}

fn part(binding: Binding) -> Region {
    match binding {
        Binding::Part { part, .. } => part,
        Binding::Nothing { key } => unreachable!("{key}"),
    }
}

#[test]
fn the_consumers_byte_of_a_key_counts_up_and_stays_within_itself() {
    assert_eq!(inc_rkey(0x1234_5678), 0x1234_5679);
    assert_eq!(inc_rkey(0x1234_56ff), 0x1234_5600);
}

#[test]
fn a_part_is_its_domains_or_its_queue_pairs_and_never_for_local_use() {
    for mw_type in [MwType::Type1, MwType::Type2] {
        let (mut table, lkey) = table();
        let key = table.alloc_window(99, PD, mw_type).unwrap();
        let binding = table.bind(PD, qpn(5), &bind(key, lkey)).unwrap();
        assert!(matches!(binding, Binding::Part { of, offset: 0x800, .. } if of == lkey));
        let part = part(binding);
        assert_eq!((part.key, part.iova, part.length, part.access), (inc_rkey(key), 0x1800, 0x100, REMOTE));
        assert!(part.is_window());
        let check = |pd, number, needed, addr, len| part.check_remote(pd, qpn(number), needed, addr, len);
        assert_eq!(check(PD, 5, Access::REMOTE_WRITE, 0x1810, 0xf0), Ok(0x10));
        assert_eq!(check(PD, 6, Access::REMOTE_WRITE, 0x1810, 0xf0).is_ok(), mw_type == MwType::Type1);
        assert!(check(PdHandle(8), 6, Access::REMOTE_WRITE, 0x1810, 8).is_err());
        assert!(check(PD, 5, Access::REMOTE_ATOMIC, 0x1810, 8).is_err());
        assert!(check(PD, 5, Access::REMOTE_READ, 0x1810, 0xf1).is_err());
        assert!(check(PD, 5, Access::empty(), 0x1810, 8).is_err());
        for pd in [PD, part.pd] {
            let local = part.check(pd, Access::LOCAL_WRITE, 0x1810, 8);
            assert!(local.is_err());
        }
        assert!(part.check(PD, Access::empty(), 0x1810, 8).is_err());
    }
}

#[test]
fn a_region_is_held_by_its_windows_until_each_is_gone() {
    let (mut table, lkey) = table();
    let one = table.alloc_window(1, PD, MwType::Type1).unwrap();
    let two = table.alloc_window(2, PD, MwType::Type2).unwrap();
    let ours = part(table.bind(PD, qpn(5), &bind(one, lkey)).unwrap()).key;
    // Bound anew it is still one window.
    let again = part(table.bind(PD, qpn(5), &bind(ours, lkey)).unwrap()).key;
    let theirs = part(table.bind(PD, qpn(6), &bind(two, lkey)).unwrap()).key;
    assert_eq!(table.revoke(lkey), Err(RegionError::HasWindows { key: lkey, windows: 2 }));
    assert_eq!(table.invalidate(PD, qpn(5), theirs), Err(RegionError::KeyMismatch { key: theirs }));
    assert_eq!(table.invalidate(PD, qpn(6), again), Err(RegionError::TypeOneWindow { key: again }));
    table.invalidate(PD, qpn(6), theirs).unwrap();
    assert_eq!(table.invalidate(PD, qpn(6), theirs), Err(RegionError::KeyMismatch { key: theirs }));
    assert_eq!(table.revoke(lkey), Err(RegionError::HasWindows { key: lkey, windows: 1 }));
    let nothing = MwBind { length: 0, ..bind(again, lkey) };
    assert_eq!(table.bind(PD, qpn(5), &nothing), Ok(Binding::Nothing { key: again }));
    table.revoke(lkey).unwrap();
    assert_eq!(table.bind(PD, qpn(6), &bind(two, lkey)), Err(BindError::NoRegion { lkey }));
    assert!(table.get(lkey).is_none());
    assert!(table.remove(lkey).is_some());
}

#[test]
fn the_end_of_a_queue_pair_or_a_region_unbinds() {
    let (mut table, lkey) = table();
    let windows = [1, 2, 3].map(|entropy| table.alloc_window(entropy, PD, MwType::Type2).unwrap());
    let [a, b, c] = [(0, 5), (1, 6), (2, 5)]
        .map(|(at, by)| part(table.bind(PD, qpn(by), &bind(windows[at], lkey)).unwrap()).key);
    let mut gone = Vec::new();
    table.unbind_queue_pair(qpn(5), |key| gone.push(key));
    assert_eq!(gone, [a, c]);
    table.unbind_region(lkey, |key| gone.push(key));
    assert_eq!(gone, [a, c, b]);
    table.revoke(lkey).unwrap();
}

#[test]
fn keys_of_windows_and_regions_share_the_table_and_are_never_the_same() {
    let (mut table, lkey) = table();
    let mut seen = HashSet::from([lkey]);
    for entropy in 0..4000_u32 {
        let entropy = entropy.wrapping_mul(0x9e37_79b9);
        let window = table.alloc_window(entropy, PD, MwType::Type1).unwrap();
        // Whatever byte the consumer chooses, the index' next key is another.
        let mut key = window;
        for _ in 0..3 {
            let wish = MwBind { rkey: key ^ entropy >> 7, ..bind(key, lkey) };
            key = part(table.bind(PD, qpn(5), &wish).unwrap()).key;
            assert_eq!(table.window_key(window), Some(key));
            seen.insert(key);
        }
        assert!(table.free_window(window));
        assert!(!table.free_window(key));
        let region = table.insert(entropy.rotate_left(9), PD, Access::empty(), 0, 8, ()).unwrap();
        assert_ne!(region & !0xff, key & !0xff);
        assert_ne!(region, 0);
        table.remove(region).unwrap();
    }
    for _ in 0..7 {
        table.alloc_window(3, PD, MwType::Type2).unwrap();
    }
    assert_eq!(table.alloc_window(3, PD, MwType::Type2), Err(RegionTableError::Full { capacity: 8 }));
    assert_eq!(table.len(), 8);
}
