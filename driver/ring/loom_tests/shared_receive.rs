//! A queue with many senders: nobody takes what another has taken, nothing is lost, and the dead leave their name.

use super::{Bytes, check, glance, thread, until, words};
use crate::ring::receive::{Delivery, ReceiveRing, ReceiveShape};
use crate::ring::shared_receive::{Claimer, SharedReceiveRing};
use crate::sync::{AtomicU64, Ordering};
use loom::sync::Arc;
use tbrdma_proto::{Sge, WcFlags, WcOpcode, WcStatus};

struct Queue {
    words: Vec<AtomicU64>,
    next: AtomicU64,
    shape: ReceiveShape,
    buffers: [Bytes; 2],
}

impl Queue {
    fn new(depth: u32) -> Arc<Self> {
        let shape = ReceiveShape::new(depth, 1);
        Arc::new(Self {
            words: words(shape.words()),
            next: AtomicU64::new(0),
            shape,
            buffers: [Bytes::new(), Bytes::new()],
        })
    }

    fn ring(&self) -> SharedReceiveRing<'_> {
        SharedReceiveRing::new(ReceiveRing::new(&self.words, self.shape).unwrap(), &self.next)
    }

    fn post(&self, number: u32) {
        self.ring().ring().post(number, std::iter::once(sge(number)));
    }

    fn buffer(&self, number: u32) -> &Bytes {
        &self.buffers[(number % self.shape.depth) as usize]
    }

    /// A sender that takes one receive, fills it and ends it; its number, if there was one.
    fn send(&self, who: u32) -> Option<u32> {
        let (number, posting) = self.ring().claim(Claimer(who))?;
        assert_eq!(posting.sges().collect::<Vec<_>>(), [sge(number)], "a posting in two halves");
        self.buffer(number).write(u64::from(who));
        self.ring().set_order(number, who + 50);
        self.ring().ring().deliver(number, &delivery(who), who);
        Some(number)
    }

    /// The owner's look at receive `number`: who sent, if somebody has.
    fn receive(&self, number: u32) -> Option<u32> {
        let slots = self.ring().ring();
        let seen = slots.delivered(number)?;
        let who = slots.receiver(number);
        assert_eq!(seen, delivery(who), "a completion in two halves");
        assert_eq!(self.ring().order(number), who + 50);
        assert_eq!(self.ring().claimer(number), Some(Claimer(who)));
        assert_eq!(self.buffer(number).read(), u64::from(who));
        Some(who)
    }
}

fn sge(number: u32) -> Sge {
    Sge { addr: 0x1000 + u64::from(number), length: 10 + number, lkey: 100 + number }
}

fn delivery(who: u32) -> Delivery {
    Delivery {
        status: WcStatus::Success,
        opcode: WcOpcode::Recv,
        flags: WcFlags::empty(),
        byte_len: 20 + who,
        imm_data: 30 + who,
        src_qp: 40 + who,
    }
}

#[test]
fn two_senders_never_take_the_same_receive() {
    check(3, || {
        let queue = Queue::new(2);
        queue.post(0);
        queue.post(1);
        let [one, two] = [1, 2].map(|who| {
            let queue = Arc::clone(&queue);
            thread::spawn(move || queue.send(who).expect("two receives for two senders"))
        });
        let mut taken = [one.join().unwrap(), two.join().unwrap()];
        taken.sort_unstable();
        assert_eq!(taken, [0, 1]);
        assert_eq!([0, 1].map(|number| queue.receive(number).unwrap()).iter().sum::<u32>(), 3);
        assert_eq!(queue.ring().claimed_until(), 2);
        assert!(queue.ring().claim(Claimer(3)).is_none());
    });
}

#[test]
fn one_receive_for_two_senders_goes_to_one() {
    check(3, || {
        let queue = Queue::new(1);
        let [one, two] = [1, 2].map(|who| {
            let queue = Arc::clone(&queue);
            thread::spawn(move || queue.send(who))
        });
        queue.post(0);
        let taken = [one.join().unwrap(), two.join().unwrap()];
        assert!(taken.iter().flatten().count() <= 1, "{taken:?}");
        if taken == [None, None] {
            assert_eq!(queue.send(3), Some(0), "a receive that was posted is lost");
        }
        assert!(queue.receive(0).is_some());
    });
}

#[test]
fn a_slot_goes_round_under_a_slow_sender() {
    check(3, || {
        let queue = Queue::new(1);
        queue.post(0);
        let senders = [1, 2].map(|who| {
            let queue = Arc::clone(&queue);
            thread::spawn(move || queue.send(who))
        });
        let mut received = Vec::new();
        if let Some(who) = glance(2, || queue.receive(0)) {
            received.push(who);
            queue.post(1);
        }
        let taken = senders.map(|sender| sender.join().unwrap());
        // What did not happen side by side happens now.
        if received.is_empty() {
            received.push(queue.receive(0).expect("one sender found a receive"));
            queue.post(1);
        }
        if taken.contains(&None) {
            assert_eq!(queue.send(3), Some(1));
        }
        received.push(queue.receive(1).expect("it has been sent"));
        for (number, who) in received.iter().enumerate().filter(|(_, who)| **who != 3) {
            assert_eq!(taken[*who as usize - 1], Some(number as u32), "{received:?} {taken:?}");
        }
        assert_ne!(received[0], received[1], "each sender is heard once");
    });
}

#[test]
fn a_sender_overtaken_by_a_lap_still_finds_a_receive() {
    check(3, || {
        let queue = Queue::new(2);
        queue.post(0);
        queue.post(1);
        let senders = [1, 2].map(|who| {
            let queue = Arc::clone(&queue);
            thread::spawn(move || queue.send(who))
        });
        if glance(2, || queue.receive(0)).is_some() {
            queue.post(2);
        }
        // There was one for each of them all the time.
        for sender in senders {
            assert!(sender.join().unwrap().is_some());
        }
    });
}

#[test]
fn a_claimer_that_vanishes_leaves_its_name_and_stops_nobody() {
    check(3, || {
        let queue = Queue::new(2);
        queue.post(0);
        queue.post(1);
        // Killed between its claim and moving the counter.
        let claim = |who: u64| 1 | who << 32;
        queue.words[3].store(claim(9), Ordering::Release);
        let [one, two] = [1, 2].map(|who| {
            let queue = Arc::clone(&queue);
            thread::spawn(move || queue.send(who))
        });
        let taken = [one.join().unwrap(), two.join().unwrap()];
        assert!(matches!(taken, [Some(1), None] | [None, Some(1)]), "{taken:?}");
        assert!(queue.receive(1).is_some());
        assert_eq!(queue.ring().claimer(0), Some(Claimer(9)));
        assert!(!queue.ring().ring().is_delivered(0));
        assert_eq!(queue.ring().claimed_until(), 2, "the counter was helped on");
    });
}

#[test]
fn a_receive_given_back_is_known_as_such_and_its_slot_works_again() {
    check(3, || {
        let queue = Queue::new(1);
        queue.post(0);
        let sender = Arc::clone(&queue);
        let sender = thread::spawn(move || {
            let (number, _) = sender.ring().claim(Claimer(1)).unwrap();
            sender.buffer(number).write(7);
            sender.ring().ring().give_back(number);
            until(|| sender.send(2))
        });
        let slots = queue.ring().ring();
        until(|| slots.is_delivered(0).then_some(()));
        assert!(slots.is_given_back(0));
        queue.buffer(0).write(0);
        queue.post(1);
        assert_eq!(until(|| queue.receive(1)), 2);
        assert!(!slots.is_given_back(1));
        assert_eq!(sender.join().unwrap(), 1);
    });
}

#[test]
fn a_number_that_is_left_out_is_passed_by_and_the_next_one_found() {
    check(3, || {
        let queue = Queue::new(2);
        queue.post(0);
        queue.post(1);
        // One sender stands still with the first receive in its hands; the other receive is used up.
        assert!(queue.ring().claim(Claimer(8)).is_some_and(|(number, _)| number == 0));
        assert_eq!(queue.send(9), Some(1));
        let senders = [1, 2].map(|who| {
            let queue = Arc::clone(&queue);
            thread::spawn(move || queue.send(who))
        });
        // So number 2, whose slot is held, is never posted, and 3 is.
        queue.ring().leave_out(2);
        queue.post(3);
        let mut taken: Vec<_> = senders.into_iter().filter_map(|sender| sender.join().unwrap()).collect();
        if taken.is_empty() {
            taken.extend(queue.send(3));
        }
        assert_eq!(taken, [3], "once, and by one of them");
        assert!(queue.receive(3).is_some());
        assert!(queue.ring().claim(Claimer(4)).is_none(), "there was one receive");
        assert_eq!(queue.ring().claimer(0), Some(Claimer(8)), "who stands still has what it had");
        assert_eq!(queue.ring().claimed_until(), 4);
    });
}
