//! The set of sources with something to poll: what was added is found, by whom it may be interrupted.

use super::{Bytes, check, thread, words};
use crate::ring::ready::{READY_WORDS, ReadySet};
use crate::sync::{AtomicU64, Ordering};
use loom::sync::Arc;

struct Set {
    words: Vec<AtomicU64>,
    /// What each of two sources has published.
    published: [Bytes; 2],
}

impl Set {
    fn new() -> Arc<Self> {
        Arc::new(Self { words: words(READY_WORDS), published: [Bytes::new(), Bytes::new()] })
    }

    fn ready(&self) -> ReadySet<'_> {
        ReadySet::new(&self.words).unwrap()
    }

    fn drain(&self) -> Vec<u32> {
        let mut found = Vec::new();
        self.ready().drain(|number| found.push(number));
        found
    }
}

fn two_insert_while_one_drains(numbers: [u32; 2]) {
    check(3, move || {
        let set = Set::new();
        let inserters = [0, 1].map(|which| {
            let set = Arc::clone(&set);
            thread::spawn(move || {
                set.published[which].write(1);
                set.ready().insert(numbers[which]);
            })
        });
        let mut found = set.drain();
        for number in &found {
            // What was published before the addition is there.
            let which = numbers.iter().position(|other| other == number).expect("nobody added it");
            assert_eq!(set.published[which].read(), 1);
        }
        for inserter in inserters {
            inserter.join().unwrap();
        }
        found.extend(set.drain());
        found.sort_unstable();
        let mut added = numbers.to_vec();
        added.sort_unstable();
        assert_eq!(found, added, "each addition is found exactly once");
        assert!(set.ready().is_empty());
    });
}

#[test]
fn two_additions_to_one_leaf_are_found() {
    two_insert_while_one_drains([3, 5]);
}

#[test]
fn two_additions_to_two_leaves_are_found() {
    two_insert_while_one_drains([3, 200]);
}

#[test]
fn half_an_addition_of_a_dead_process_is_found_by_the_next_one() {
    check(3, || {
        let set = Set::new();
        let half = 1 << 3;
        set.words[1].fetch_or(half, Ordering::AcqRel);
        let inserter = Arc::clone(&set);
        // Even the same number again.
        let inserter = thread::spawn(move || inserter.ready().insert(3));
        let mut found = set.drain();
        inserter.join().unwrap();
        found.extend(set.drain());
        assert_eq!(found, [3]);
    });
}
