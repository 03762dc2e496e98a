//! No wake-up is lost, and none is made twice, between those who publish and one who is about to sleep.

use super::{check, thread, words};
use crate::ring::arm::{Arm, TellMe, publish_fence};
use crate::ring::ready::{READY_WORDS, ReadySet};
use crate::sync::{AtomicU64, Ordering};
use loom::sync::Arc;

struct Shared {
    /// Completions of each of two sources.
    published: [AtomicU64; 2],
    arm: AtomicU64,
    tell: AtomicU64,
    ready: Vec<AtomicU64>,
    events: AtomicU64,
}

impl Shared {
    fn new() -> Arc<Self> {
        let word = || AtomicU64::new(0);
        Arc::new(Self {
            published: [word(), word()],
            arm: word(),
            tell: word(),
            ready: words(READY_WORDS),
            events: word(),
        })
    }

    fn ready(&self) -> ReadySet<'_> {
        ReadySet::new(&self.ready).unwrap()
    }

    fn publish(&self, which: usize) {
        self.published[which].store(1, Ordering::Release);
        publish_fence();
    }

    fn is_published(&self, which: usize) -> bool {
        self.published[which].load(Ordering::Acquire) != 0
    }

    fn fire(&self, solicited: bool) {
        if Arm(&self.arm).fire(solicited) {
            self.events.fetch_add(1, Ordering::AcqRel);
        }
    }

    fn events(&self) -> u64 {
        self.events.load(Ordering::Acquire)
    }

    /// What the driver does for every doorbell whose source may be cold.
    fn publish_and_announce(&self, which: usize, solicited: bool) {
        self.publish(which);
        if let Some(bit) = TellMe(&self.tell).wanted() {
            self.ready().insert(bit);
        }
        self.fire(solicited);
    }
}

fn spawn(shared: &Arc<Shared>, work: impl FnOnce(&Shared) + Send + 'static) -> thread::JoinHandle<()> {
    let shared = Arc::clone(shared);
    thread::spawn(move || work(&shared))
}

#[test]
fn an_armed_owner_sees_the_completion_or_is_woken_once() {
    check(3, || {
        let shared = Shared::new();
        let publishers = [0, 1].map(|which| {
            spawn(&shared, move |shared| {
                shared.publish(which);
                shared.fire(false);
            })
        });
        Arm(&shared.arm).arm(false);
        let seen = [0, 1].map(|which| shared.is_published(which));
        for publisher in publishers {
            publisher.join().unwrap();
        }
        assert!(shared.events() == 1 || (seen == [true, true] && shared.events() == 0), "{seen:?}");
    });
}

#[test]
fn one_who_asked_for_solicited_completions_is_woken_by_those_only() {
    check(3, || {
        let shared = Shared::new();
        let publishers = [false, true].map(|solicited| {
            spawn(&shared, move |shared| {
                shared.publish(usize::from(solicited));
                shared.fire(solicited);
            })
        });
        Arm(&shared.arm).arm(true);
        let seen = shared.is_published(1);
        for publisher in publishers {
            publisher.join().unwrap();
        }
        assert!(shared.events() == 1 || (seen && shared.events() == 0));
    });
    check(3, || {
        let shared = Shared::new();
        let publisher = spawn(&shared, |shared| {
            shared.publish(0);
            shared.fire(false);
        });
        Arm(&shared.arm).arm(true);
        publisher.join().unwrap();
        assert_eq!(shared.events(), 0);
        shared.fire(true);
        assert_eq!(shared.events(), 1);
    });
}

#[test]
fn asking_for_solicited_completions_does_not_narrow_an_earlier_wish() {
    check(3, || {
        let shared = Shared::new();
        Arm(&shared.arm).arm(false);
        let publisher = spawn(&shared, |shared| {
            shared.publish(0);
            shared.fire(false);
        });
        Arm(&shared.arm).arm(true);
        publisher.join().unwrap();
        assert_eq!(shared.events(), 1);
    });
}

#[test]
fn a_slow_publisher_does_not_use_up_a_wish_that_was_not_for_it() {
    check(3, || {
        let shared = Shared::new();
        Arm(&shared.arm).arm(false);
        let publishers = [0, 1].map(|which| {
            spawn(&shared, move |shared| {
                shared.publish(which);
                shared.fire(false);
            })
        });
        // Woken once: from here on only for solicited completions, of which there are none.
        if shared.events() == 1 {
            Arm(&shared.arm).arm(true);
        }
        for publisher in publishers {
            publisher.join().unwrap();
        }
        assert_eq!(shared.events(), 1);
    });
}

#[test]
fn one_who_says_tell_me_sees_or_is_told() {
    check(3, || {
        let shared = Shared::new();
        let publisher = spawn(&shared, |shared| shared.publish_and_announce(0, false));
        TellMe(&shared.tell).set(70);
        let seen = shared.is_published(0);
        publisher.join().unwrap();
        let mut told = Vec::new();
        shared.ready().drain(|bit| told.push(bit));
        assert!(seen || told == [70]);
        TellMe(&shared.tell).clear();
        assert_eq!(TellMe(&shared.tell).wanted(), None);
    });
}

#[test]
fn one_who_wants_to_be_told_once_is_told_once() {
    check(3, || {
        let shared = Shared::new();
        let publishers = [0, 1].map(|which| {
            spawn(&shared, move |shared| {
                shared.publish(which);
                if TellMe(&shared.tell).take() {
                    shared.events.fetch_add(1, Ordering::AcqRel);
                }
            })
        });
        TellMe(&shared.tell).set(0);
        let seen = [0, 1].map(|which| shared.is_published(which));
        for publisher in publishers {
            publisher.join().unwrap();
        }
        assert!(shared.events() == 1 || (seen == [true, true] && shared.events() == 0), "{seen:?}");
    });
}

/// A source that is not looked at in every poll: the owner arms and then looks into the ready set only.
#[test]
fn a_cold_source_is_found_in_the_ready_set_or_wakes() {
    check(3, || {
        let shared = Shared::new();
        TellMe(&shared.tell).set(70);
        let publisher = spawn(&shared, |shared| shared.publish_and_announce(0, false));
        Arm(&shared.arm).arm(false);
        let mut found = false;
        shared.ready().drain(|bit| {
            assert_eq!(bit, 70);
            assert!(shared.is_published(0));
            found = true;
        });
        publisher.join().unwrap();
        assert!(found || shared.events() == 1, "asleep with a completion in the queue");
    });
}

/// A source that is made cold while its publisher is at work: told to tell, looked at once more, then the owner arms.
#[test]
fn a_source_that_is_made_cold_is_not_forgotten() {
    check(3, || {
        let shared = Shared::new();
        let publisher = spawn(&shared, |shared| shared.publish_and_announce(0, false));
        TellMe(&shared.tell).set(70);
        let mut found = shared.is_published(0);
        Arm(&shared.arm).arm(false);
        shared.ready().drain(|_| found = true);
        publisher.join().unwrap();
        assert!(found || shared.events() == 1, "asleep with a completion in the queue");
    });
}
