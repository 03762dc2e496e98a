//! The ready set against a set of the standard library.

use super::words;
use crate::ring::ready::{READY_WORDS, ReadySet, SLOTS};
use crate::sync::Ordering;
use proptest::collection::vec;
use proptest::prelude::*;
use std::collections::BTreeSet;

#[derive(Clone, Debug)]
enum Step {
    Insert(u32),
    /// A process is killed between the two halves of its addition.
    DieInserting(u32),
    Drain,
}

fn number() -> impl Strategy<Value = u32> {
    prop_oneof![0..130_u32, SLOTS - 3..SLOTS + 3, any::<u32>()]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    #[test]
    fn what_is_added_is_taken_once(steps in vec(
        prop_oneof![
            4 => number().prop_map(Step::Insert),
            1 => number().prop_map(Step::DieInserting),
            2 => Just(Step::Drain),
        ],
        0..60,
    )) {
        let words = words(READY_WORDS);
        let set = ReadySet::new(&words).unwrap();
        let mut members = BTreeSet::new();
        // Half-added: found with the next addition to the same 64.
        let mut halves: BTreeSet<u32> = BTreeSet::new();
        let mut told: BTreeSet<u32> = BTreeSet::new();
        for step in steps.into_iter().chain([Step::Drain]) {
            match step {
                Step::Insert(number) => {
                    set.insert(number);
                    members.insert(number % SLOTS);
                    told.insert(number % SLOTS / 64);
                    prop_assert!(!set.is_empty());
                }
                Step::DieInserting(number) => {
                    let slot = number % SLOTS;
                    words[1 + slot as usize / 64].fetch_or(1 << (slot % 64), Ordering::AcqRel);
                    halves.insert(slot);
                }
                Step::Drain => {
                    let (found, still_half): (BTreeSet<u32>, _) =
                        halves.iter().partition(|slot| told.contains(&(**slot / 64)));
                    halves = still_half;
                    members.extend(found);
                    let mut taken = Vec::new();
                    set.drain(|slot| taken.push(slot));
                    let unique: BTreeSet<u32> = taken.iter().copied().collect();
                    prop_assert_eq!(taken.len(), unique.len(), "a member was taken twice");
                    prop_assert_eq!(unique, std::mem::take(&mut members));
                    prop_assert!(set.is_empty());
                    told.clear();
                }
            }
        }
    }
}
