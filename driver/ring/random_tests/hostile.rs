//! Memory in which a peer may have written anything: no view panics, reaches outside its words, or loops for ever.

use super::words;
use crate::ring::arm::{Arm, TellMe};
use crate::ring::busy::Busy;
use crate::ring::mailbox::{MAILBOX_WORDS, Mailbox};
use crate::ring::ready::{READY_WORDS, ReadySet, SLOTS};
use crate::ring::receive::{ReceiveRing, ReceiveShape};
use crate::ring::region::{RegionEntry, Registration};
use crate::ring::shared_receive::{Claimer, SharedReceiveRing};
use crate::sync::{AtomicU64, Ordering};
use proptest::collection::vec;
use proptest::prelude::*;
use tbrdma_proto::{Sge, limits};

/// Anything, and what is likely to hurt: small numbers, edges of 32 and of 64 bits.
fn word() -> impl Strategy<Value = u64> {
    prop_oneof![
        any::<u64>(),
        0..20_u64,
        Just(u64::MAX),
        any::<u8>().prop_map(|low| u64::from(u32::MAX) - 2 + u64::from(low % 5)),
        (0..20_u64, 0..20_u64).prop_map(|(low, high)| low | high << 32),
        (0..20_u64).prop_map(|low| low | 1 << 63),
    ]
}

fn number() -> impl Strategy<Value = u32> {
    prop_oneof![0..40_u32, any::<u32>(), Just(u32::MAX)]
}

/// Any shape that a peer can make us believe: the driver refuses others before it makes a view.
fn shape() -> impl Strategy<Value = ReceiveShape> {
    prop_oneof![3 => 0..4_u32, 1 => 0..32_u32]
        .prop_flat_map(|log| (Just(1 << log), prop_oneof![3 => 0..5_u32, 1 => 0..=limits::MAX_SGE]))
        .prop_map(|(depth, max_sge)| ReceiveShape::new(depth, max_sge))
}

fn of(values: &[u64]) -> Vec<AtomicU64> {
    values.iter().map(|value| AtomicU64::new(*value)).collect()
}

/// Enough for a ring of 8 slots with 3 SGEs, or of 2 with 23.
const WORDS: usize = 128;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn a_receive_queue_of_any_words_and_shape(
        shape in shape(),
        values in vec(word(), WORDS),
        numbers in vec(number(), 1..8),
        counter in word(),
    ) {
        let words = of(&values);
        let Some(slots) = ReceiveRing::new(&words, shape) else {
            prop_assert!(shape.words() > WORDS, "{:?} fits and was refused", shape);
            return Ok(());
        };
        let next = AtomicU64::new(counter);
        let ring = SharedReceiveRing::new(slots, &next);
        for number in numbers {
            if let Some(posting) = slots.posted(number) {
                prop_assert!(posting.sges().count() <= shape.max_sge as usize);
            }
            let _ = (slots.is_delivered(number), slots.is_given_back(number), slots.receiver(number));
            if let Some(delivery) = slots.delivered(number) {
                prop_assert!(delivery.src_qp < 1 << 24);
            }
            let _ = (ring.order(number), ring.claimer(number), ring.claimed_until());
            if let Some((claimed, posting)) = ring.claim(Claimer(number)) {
                prop_assert_eq!(ring.claimer(claimed), Some(Claimer(number)));
                prop_assert!(posting.sges().count() <= shape.max_sge as usize);
            }
            slots.give_back(number);
            ring.set_order(number, number);
            // More than fit: the surplus is dropped, not written elsewhere.
            slots.post(number, vec![Sge::default(); 20].into_iter());
        }
        slots.clear();
        // Words beyond the ring are nobody's.
        for (word, value) in words.iter().zip(&values).skip(shape.words()) {
            prop_assert_eq!(word.load(Ordering::Relaxed), *value);
        }
    }

    #[test]
    fn a_ready_set_of_any_words(values in vec(word(), READY_WORDS), added in number()) {
        let words = of(&values);
        let set = ReadySet::new(&words).unwrap();
        set.insert(added);
        let mut visited = 0;
        set.drain(|slot| {
            assert!(slot < SLOTS);
            visited += 1;
        });
        prop_assert!((1..=SLOTS).contains(&visited));
        prop_assert!(set.is_empty());
    }

    #[test]
    fn a_region_entry_of_any_words(values in prop::array::uniform8(word()), key in number()) {
        let entry = RegionEntry::from_words(values);
        for key in [key, values[0] as u32] {
            let read = entry.read(key);
            prop_assert_eq!(read.is_some(), key != 0 && values[0] as u32 == key);
            if let Some(Registration { region, .. }) = read {
                prop_assert_eq!((region.key, region.iova, region.length), (key, values[2], values[3]));
            }
            // What was remembered is what is there, or a region of no bytes that was never there.
            let mut known = Registration::default();
            for _ in 0..2 {
                if let Some(found) = entry.find(key, &mut known) {
                    prop_assert!(read == Some(*found) || found.region.length == 0);
                }
            }
        }
    }

    #[test]
    fn a_mailbox_of_any_words(
        request in prop::array::uniform8(word()),
        reply in prop::array::uniform8(word()),
        number in word(),
    ) {
        let [request, reply]: [[AtomicU64; MAILBOX_WORDS]; 2] = [request, reply].map(|line| line.map(AtomicU64::new));
        let mailbox = Mailbox::new(&request, &reply);
        let _ = (mailbox.answer(number), mailbox.is_serving(number));
        if let Some((number, operands)) = mailbox.take() {
            prop_assert_eq!(operands[0], request[1].load(Ordering::Relaxed));
            mailbox.reply(number, Some(7));
            prop_assert_eq!(mailbox.answer(number), Some(Some(7)));
            prop_assert_eq!(mailbox.take(), None);
        }
        mailbox.withdraw();
        if let Some(asked) = mailbox.ask(&[1; 7]) {
            prop_assert!(asked != 0);
            // The agent takes it, unless an answer with that very number lies there already.
            prop_assert_eq!(mailbox.take().is_some(), mailbox.answer(asked).is_none());
        }
    }

    #[test]
    fn words_that_ask_to_be_woken(value in word(), context in word(), solicited: bool) {
        let word = AtomicU64::new(value);
        prop_assert!(!Arm(&word).fire(solicited) || !Arm(&word).fire(true));
        let word = AtomicU64::new(value);
        prop_assert!(TellMe(&word).wanted().is_none_or(|number| number < u32::MAX));
        prop_assert!(!TellMe(&word).take() || !TellMe(&word).take());
        let _ = Busy(&AtomicU64::new(value)).may_touch(context);
    }
}

/// Every slot says that the receive after it has been claimed: the counter is helped on, but not for ever.
#[test]
fn a_ring_of_claims_does_not_hold_a_sender() {
    let shape = ReceiveShape::new(8, 1);
    let words = words(shape.words());
    for slot in 0..8 {
        words[slot * shape.words() / 8 + 3].store(slot as u64 + 1, Ordering::Relaxed);
    }
    let next = AtomicU64::new(0);
    let ring = SharedReceiveRing::new(ReceiveRing::new(&words, shape).unwrap(), &next);
    assert!(ring.claim(Claimer(1)).is_none());
    assert_eq!(ring.claimed_until(), 8);
}
