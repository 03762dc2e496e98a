//! A reader of a region entry finds one whole registration or none, whatever its owner does meanwhile.

use super::{check, thread};
use crate::ring::region::{Backing, RegionEntry, Registration};
use loom::sync::Arc;
use tbrdma_proto::{Access, PdHandle, Region};

/// What an entry says that holds a registration, but for its number.
fn said(found: Option<&Registration>) -> Option<(Region, Backing)> {
    found.map(|found| (found.region, found.backing))
}

fn registration(key: u32) -> (Region, Backing) {
    let n = u64::from(key);
    let region = Region {
        key,
        pd: PdHandle(10 + key),
        access: if key == 1 { Access::REMOTE_READ } else { Access::LOCAL_WRITE | Access::REMOTE_WRITE },
        iova: 0x1000 * n,
        length: 0x100 * n,
    };
    let backing = match key {
        1 => Backing::Segment(0x40 * n),
        2 => Backing::Partly { address: 0x50 * n, offset: 0x60 * n, front: 7, back: 9 },
        _ => Backing::Process(0x50 * n),
    };
    (region, backing)
}

fn publish(entry: &RegionEntry, key: u32) {
    let (region, backing) = registration(key);
    entry.publish(&region, backing);
}

#[test]
fn a_reader_never_sees_a_mixture_of_two_registrations() {
    check(3, || {
        let entry = Arc::new(RegionEntry::from_words([0; 8]));
        publish(&entry, 1);
        let readers = [1, 2].map(|key| {
            let entry = Arc::clone(&entry);
            thread::spawn(move || {
                if let Some(read) = said(entry.read(key).as_ref()) {
                    assert_eq!(read, registration(key));
                }
            })
        });
        entry.withdraw();
        assert_eq!(entry.read(1), None);
        publish(&entry, 2);
        assert_eq!(said(entry.read(2).as_ref()), Some(registration(2)));
        for reader in readers {
            reader.join().unwrap();
        }
    });
}

#[test]
fn an_entry_published_anew_without_a_withdrawal_is_read_whole_too() {
    check(3, || {
        let entry = Arc::new(RegionEntry::from_words([0; 8]));
        publish(&entry, 1);
        let reader = Arc::clone(&entry);
        let reader = thread::spawn(move || {
            for key in [2, 1] {
                if let Some(read) = said(reader.read(key).as_ref()) {
                    assert_eq!(read, registration(key));
                }
            }
        });
        publish(&entry, 2);
        reader.join().unwrap();
    });
}

#[test]
fn one_who_remembers_a_registration_finds_the_present_one_of_its_key() {
    check(3, || {
        let entry = Arc::new(RegionEntry::from_words([0; 8]));
        publish(&entry, 1);
        let reader = Arc::clone(&entry);
        let reader = thread::spawn(move || {
            let mut known = Registration::default();
            for key in [1, 2, 1] {
                if let Some(found) = said(reader.find(key, &mut known)) {
                    assert_eq!(found, registration(key));
                }
            }
        });
        entry.withdraw();
        publish(&entry, 2);
        reader.join().unwrap();
    });
}
