//! The ring of send completions against a queue of the standard library.

use crate::ring::completion::{CompletionRing, SendCompletion};
use proptest::collection::vec;
use proptest::prelude::*;
use std::collections::VecDeque;
use tbrdma_proto::{WcOpcode, WcStatus};

fn any_completion() -> impl Strategy<Value = SendCompletion> {
    let statuses: Vec<_> = (0..64).filter_map(WcStatus::from_raw).collect();
    let opcodes: Vec<_> = (0..256).filter_map(WcOpcode::from_raw).collect();
    (any::<(u64, u32, u32)>(), prop::sample::select(statuses), prop::sample::select(opcodes)).prop_map(
        |((wr_id, byte_len, wq_index), status, opcode)| SendCompletion {
            wr_id,
            status,
            opcode,
            byte_len,
            wq_index,
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    #[test]
    fn what_is_pushed_is_popped_in_order(
        capacity in 1..9_u32,
        steps in vec(prop::option::of(any_completion()), 0..200),
    ) {
        let ring = CompletionRing::new(capacity);
        let mut naive = VecDeque::new();
        for step in steps {
            match step {
                Some(completion) if naive.len() < capacity as usize => {
                    ring.push(&completion);
                    naive.push_back(completion);
                }
                _ => prop_assert_eq!(ring.pop(), naive.pop_front()),
            }
        }
        while let Some(expected) = naive.pop_front() {
            prop_assert_eq!(ring.pop(), Some(expected));
        }
        prop_assert_eq!(ring.pop(), None);
    }
}
