//! Keys are never 0, never guessable from the last one, and not used again at once.

use std::collections::{HashMap, HashSet};

use proptest::prelude::*;
use tbrdma_proto::{Access, PdHandle, QUARANTINE, RegionError, RegionTable, RegionTableError};

const PD: PdHandle = PdHandle(1);

fn add(table: &mut RegionTable<u64>, entropy: u32) -> Result<u32, RegionTableError> {
    table.insert(entropy, PD, Access::LOCAL_WRITE, 0x1000, 64, u64::from(entropy))
}

#[test]
fn a_region_lives_from_insert_to_remove() {
    let mut table = RegionTable::new(4);
    let key = add(&mut table, 9).unwrap();
    let (region, backing) = table.get(key).unwrap();
    assert_eq!((region.key, region.pd, region.iova, region.length, *backing), (key, PD, 0x1000, 64, 9));
    assert_eq!(table.check(key, PD, Access::LOCAL_WRITE, 0x1010, 8).map(|(_, _, offset)| offset), Ok(0x10));
    assert_eq!((table.len(), table.is_empty(), table.capacity()), (1, false, 4));
    assert_eq!(table.remove(key).map(|(region, backing)| (region.key, backing)), Some((key, 9)));
    assert!(table.is_empty() && table.get(key).is_none() && table.remove(key).is_none());
    let stale = table.check(key, PD, Access::empty(), 0x1010, 8).map(|_| ());
    assert_eq!(stale, Err(RegionError::KeyMismatch { key }));
}

#[test]
fn only_the_exact_key_opens() {
    let mut table = RegionTable::new(4);
    let key = add(&mut table, 0x1234).unwrap();
    for bit in 0..32 {
        assert!(table.get(key ^ (1 << bit)).is_none(), "bit {bit}");
        assert!(table.remove(key ^ (1 << bit)).is_none(), "bit {bit}");
    }
    assert!(table.get(key).is_some());
}

#[test]
fn a_full_table_says_so_and_recovers() {
    let mut table = RegionTable::new(2);
    let keys = [1, 2].map(|entropy| add(&mut table, entropy).unwrap());
    assert_eq!(add(&mut table, 3), Err(RegionTableError::Full { capacity: 2 }));
    table.remove(keys[0]).unwrap();
    let again = add(&mut table, 1).unwrap();
    assert_eq!(RegionTable::<u64>::key_index(again), RegionTable::<u64>::key_index(keys[0]));
    assert_ne!(again, keys[0], "the tag of an index changes even if the entropy does not");
    assert_eq!(add(&mut RegionTable::new(0), 3), Err(RegionTableError::Full { capacity: 0 }));
}

#[test]
fn the_largest_table_fills_and_has_a_key_for_each() {
    let mut table = RegionTable::new(usize::MAX);
    assert_eq!(table.capacity(), 65_536);
    let keys: HashSet<u32> = (0..65_536).map(|_| add(&mut table, 0).unwrap()).collect();
    assert_eq!(keys.len(), 65_536);
    assert!(!keys.contains(&0));
    assert!(add(&mut table, 0).is_err());
    assert_eq!(table.iter().count(), 65_536);
}

#[test]
fn retired_indices_rest_while_others_are_free() {
    // With exactly QUARANTINE other free indices, an index rests for QUARANTINE registrations.
    let mut table = RegionTable::new(QUARANTINE + 1);
    let mut last_used = HashMap::new();
    for time in 0..10_000_usize {
        let key = add(&mut table, 77).unwrap();
        let index = RegionTable::<u64>::key_index(key);
        if let Some(before) = last_used.insert(index, time) {
            assert!(time - before > QUARANTINE, "index {index} came back after {}", time - before);
        }
        table.remove(key).unwrap();
    }
}

#[test]
fn impossible_regions_are_refused() {
    let mut table = RegionTable::new(8);
    let insert =
        |table: &mut RegionTable<()>, access, iova, length| table.insert(1, PD, access, iova, length, ());
    let remote = insert(&mut table, Access::REMOTE_WRITE, 0, 8);
    assert!(matches!(remote, Err(RegionTableError::Access(_))));
    let based = insert(&mut table, Access::ZERO_BASED, 8, 8);
    assert_eq!(based, Err(RegionTableError::ZeroBasedIova { iova: 8 }));
    let wraps = insert(&mut table, Access::empty(), u64::MAX - 7, 8);
    assert_eq!(wraps, Err(RegionTableError::AddressOverflow { iova: u64::MAX - 7, length: 8 }));
    assert!(table.is_empty());
    assert!(insert(&mut table, Access::ZERO_BASED, 0, u64::MAX).is_ok());
    assert!(insert(&mut table, Access::empty(), 5, 0).is_ok(), "a region of no bytes");
    for error in [remote, based, wraps] {
        assert!(error.unwrap_err().to_string().len() > 40);
    }
}

#[test]
fn tags_use_all_their_bits() {
    let mut table = RegionTable::new(1);
    let mut seen = HashSet::new();
    for entropy in (0..200_000u32).map(|n| n.wrapping_mul(0x9e37_79b9)) {
        let key = add(&mut table, entropy).unwrap();
        seen.insert(key);
        table.remove(key);
    }
    assert!(seen.len() > 60_000, "{} of 65535 tags", seen.len());
}

proptest! {
    /// Random registering and deregistering against a plain map.
    #[test]
    fn the_table_behaves_like_a_map(
        capacity in 1usize..100, steps in prop::collection::vec((any::<u32>(), 0usize..3), 0..400),
    ) {
        let mut table = RegionTable::new(capacity);
        let mut model: Vec<u32> = Vec::new();
        let mut last_tag: HashMap<usize, u32> = HashMap::new();
        for (entropy, choice) in steps {
            if choice == 0 && !model.is_empty() {
                let key = model.swap_remove(entropy as usize % model.len());
                prop_assert!(table.remove(key).is_some());
                prop_assert!(table.get(key).is_none());
            } else if model.len() == capacity {
                prop_assert_eq!(add(&mut table, entropy), Err(RegionTableError::Full { capacity }));
            } else {
                let key = add(&mut table, entropy).unwrap();
                let index = RegionTable::<u64>::key_index(key);
                prop_assert!(key != 0 && index < capacity && !model.contains(&key));
                prop_assert_ne!(last_tag.insert(index, key & 0xffff), Some(key & 0xffff));
                model.push(key);
            }
            prop_assert_eq!(table.len(), model.len());
            prop_assert_eq!(table.iter().count(), model.len());
        }
        for key in model {
            prop_assert_eq!(table.get(key).map(|(region, _)| region.key), Some(key));
        }
    }

    #[test]
    fn any_key_may_be_looked_up(entropy: u32, key: u32) {
        let mut table = RegionTable::new(3);
        let real = add(&mut table, entropy).unwrap();
        prop_assert_eq!(table.get(key).is_some(), key == real);
    }
}
