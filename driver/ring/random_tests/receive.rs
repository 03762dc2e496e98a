//! A connected queue against two queues of the standard library.

use super::{any_sge, begin, words};
use crate::ring::receive::{Delivery, ReceiveRing, ReceiveShape};
use proptest::collection::vec;
use proptest::prelude::*;
use std::collections::VecDeque;
use tbrdma_proto::{Sge, WcFlags, WcOpcode, WcStatus};

#[derive(Clone, Debug)]
enum Step {
    Post(Vec<Sge>),
    Deliver(Delivery, u32),
    GiveBack,
    Poll,
    Clear,
}

fn any_delivery() -> impl Strategy<Value = Delivery> {
    let status = prop::sample::select(vec![WcStatus::Success, WcStatus::LocLenErr, WcStatus::LocProtErr]);
    let opcode = prop::sample::select(vec![WcOpcode::Recv, WcOpcode::RecvRdmaWithImm]);
    (status, opcode, any::<bool>(), any::<(u32, u32)>(), 0..1_u32 << 24).prop_map(
        |(status, opcode, imm, (byte_len, imm_data), src_qp)| {
            let flags = if imm { WcFlags::WITH_IMM } else { WcFlags::GRH };
            Delivery { status, opcode, flags, byte_len, imm_data, src_qp }
        },
    )
}

fn step(max_sge: usize) -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => vec(any_sge(), 0..=max_sge).prop_map(Step::Post),
        8 => (any_delivery(), 0..1_u32 << 24).prop_map(|(delivery, qpn)| Step::Deliver(delivery, qpn)),
        1 => Just(Step::GiveBack),
        8 => Just(Step::Poll),
        1 => Just(Step::Clear),
    ]
}

fn case() -> impl Strategy<Value = (ReceiveShape, u32, Vec<Step>)> {
    (0..4_u32, 1..=9_u32).prop_flat_map(|(log, max_sge)| {
        let shape = ReceiveShape::new(1 << log, max_sge);
        (Just(shape), begin(shape.depth), vec(step(max_sge as usize), 0..120))
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    #[test]
    fn receives_come_and_messages_go_in_order((shape, begin, steps) in case()) {
        let words = words(shape.words());
        let ring = ReceiveRing::new(&words, shape).unwrap();
        let mut posted: VecDeque<Vec<Sge>> = VecDeque::new();
        let mut ended: VecDeque<Option<(Delivery, u32)>> = VecDeque::new();
        // Numbers of the next receive to post, to end, to poll.
        let [mut post, mut end, mut poll] = [begin; 3];
        for step in steps {
            match step {
                Step::Post(sges) => {
                    if post.wrapping_sub(poll) < shape.depth {
                        ring.post(post, sges.iter().copied());
                        posted.push_back(sges);
                        post = post.wrapping_add(1);
                    }
                }
                Step::Deliver(..) | Step::GiveBack => {
                    let found = ring.posted(end).map(|posting| posting.sges().collect::<Vec<_>>());
                    prop_assert_eq!(found.as_ref(), posted.front());
                    if posted.pop_front().is_none() {
                        continue;
                    }
                    match step {
                        Step::Deliver(delivery, qpn) => {
                            ring.deliver(end, &delivery, qpn);
                            ended.push_back(Some((delivery, qpn)));
                        }
                        _ => {
                            ring.give_back(end);
                            ended.push_back(None);
                        }
                    }
                    end = end.wrapping_add(1);
                }
                Step::Poll => {
                    prop_assert_eq!(ring.is_delivered(poll), !ended.is_empty());
                    prop_assert_eq!(ring.delivered(poll).is_some(), !ended.is_empty());
                    let Some(expected) = ended.pop_front() else { continue };
                    prop_assert_eq!(ring.is_given_back(poll), expected.is_none());
                    if let Some((delivery, qpn)) = expected {
                        prop_assert_eq!(ring.delivered(poll), Some(delivery));
                        prop_assert_eq!(ring.receiver(poll), qpn);
                    }
                    poll = poll.wrapping_add(1);
                }
                Step::Clear => {
                    ring.clear();
                    posted.clear();
                    ended.clear();
                    [post, end, poll] = [0; 3];
                }
            }
            // Never one that is not there yet.
            prop_assert!(ring.posted(post).is_none());
            prop_assert!(!ring.is_delivered(end));
        }
    }
}
