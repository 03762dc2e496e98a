//! A queue with many senders against a list of receives and who has them.

use super::{any_sge, begin, words};
use crate::ring::receive::{Delivery, ReceiveRing, ReceiveShape};
use crate::ring::shared_receive::{Claimer, SharedReceiveRing};
use crate::sync::{AtomicU64, Ordering};
use proptest::collection::vec;
use proptest::prelude::*;
use std::collections::VecDeque;
use tbrdma_proto::{Sge, WcFlags, WcOpcode, WcStatus};

/// Word of a slot that holds the claim.
const CLAIM: usize = 3;

#[derive(Clone, Debug)]
enum Step {
    Post(Sge),
    Claim(u32),
    /// A sender is killed between its claim and moving the counter.
    DieClaiming(u32),
    /// The claim with this index, of those not ended yet, is ended.
    End {
        index: usize,
        used: bool,
    },
    /// The owner takes back all that it can, oldest first.
    Retire,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum State {
    Posted,
    Claimed(u32),
    Used(u32),
    GivenBack(u32),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => any_sge().prop_map(Step::Post),
        6 => (1..5_u32).prop_map(Step::Claim),
        1 => (1..5_u32).prop_map(Step::DieClaiming),
        6 => (any::<usize>(), any::<bool>()).prop_map(|(index, used)| Step::End { index, used }),
        2 => Just(Step::Retire),
    ]
}

fn case() -> impl Strategy<Value = (u32, u32, Vec<Step>)> {
    (0..4_u32).prop_flat_map(|log| (Just(1 << log), begin(1 << log), vec(step(), 0..150)))
}

fn delivery(who: u32) -> Delivery {
    Delivery {
        status: WcStatus::Success,
        opcode: WcOpcode::Recv,
        flags: WcFlags::empty(),
        byte_len: who + 1,
        imm_data: who + 2,
        src_qp: who + 3,
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    #[test]
    fn claims_are_exclusive_in_order_and_signed((depth, begin, steps) in case()) {
        let shape = ReceiveShape::new(depth, 1);
        let words = words(shape.words());
        let next = AtomicU64::new(u64::from(begin));
        let slots = ReceiveRing::new(&words, shape).unwrap();
        let ring = SharedReceiveRing::new(slots, &next);
        // What is in the ring, oldest first, and the number of the oldest.
        let mut receives: VecDeque<(Sge, State)> = VecDeque::new();
        let mut oldest = begin;
        for step in steps {
            let first = receives.iter().position(|(_, state)| *state == State::Posted);
            match step {
                Step::Post(sge) => {
                    if receives.len() < depth as usize {
                        slots.post(oldest.wrapping_add(receives.len() as u32), std::iter::once(sge));
                        receives.push_back((sge, State::Posted));
                    }
                }
                Step::Claim(who) => {
                    let claimed = ring.claim(Claimer(who));
                    let expected = first.map(|index| (oldest.wrapping_add(index as u32), vec![receives[index].0]));
                    prop_assert_eq!(claimed.map(|(number, posting)| (number, posting.sges().collect())), expected);
                    if let Some(index) = first {
                        receives[index].1 = State::Claimed(who);
                        let until = oldest.wrapping_add(index as u32).wrapping_add(1);
                        prop_assert_eq!(ring.claimed_until(), until);
                    }
                }
                Step::DieClaiming(who) => {
                    if let Some(index) = first {
                        // The counter may lag by one claim: it is moved on before anybody claims again.
                        let number = oldest.wrapping_add(index as u32);
                        if ring.claimed_until() == number {
                            let at = (number % depth) as usize * shape.words() / depth as usize + CLAIM;
                            let word = u64::from(number.wrapping_add(1)) | u64::from(who) << 32;
                            words[at].store(word, Ordering::Release);
                            receives[index].1 = State::Claimed(who);
                        }
                    }
                }
                Step::End { index, used } => {
                    let held: Vec<_> = receives
                        .iter()
                        .enumerate()
                        .filter_map(|(at, (_, state))| if let State::Claimed(who) = state { Some((at, *who)) } else { None })
                        .collect();
                    if let Some(&(at, who)) = held.get(index % held.len().max(1)) {
                        let number = oldest.wrapping_add(at as u32);
                        if used {
                            ring.set_order(number, who + 9);
                            slots.deliver(number, &delivery(who), who);
                            receives[at].1 = State::Used(who);
                        } else {
                            slots.give_back(number);
                            receives[at].1 = State::GivenBack(who);
                        }
                    }
                }
                Step::Retire => {
                    while let Some((_, State::Used(_) | State::GivenBack(_))) = receives.front() {
                        receives.pop_front();
                        oldest = oldest.wrapping_add(1);
                    }
                }
            }
            for (index, (_, state)) in receives.iter().enumerate() {
                let number = oldest.wrapping_add(index as u32);
                let claimer = ring.claimer(number).map(|claimer| claimer.0);
                match *state {
                    State::Posted => prop_assert_eq!(claimer, None),
                    State::Claimed(who) => {
                        prop_assert_eq!(claimer, Some(who));
                        prop_assert!(!slots.is_delivered(number));
                    }
                    State::Used(who) => {
                        prop_assert_eq!(claimer, Some(who));
                        prop_assert_eq!(slots.delivered(number), Some(delivery(who)));
                        prop_assert!(!slots.is_given_back(number));
                        prop_assert_eq!((slots.receiver(number), ring.order(number)), (who, who + 9));
                    }
                    State::GivenBack(who) => {
                        prop_assert_eq!(claimer, Some(who));
                        prop_assert!(slots.is_delivered(number) && slots.is_given_back(number));
                    }
                }
            }
        }
    }
}
