//! Send completions between the executing and the polling thread, the ring full at times.

use super::{check, thread, until};
use crate::ring::completion::{CompletionRing, SendCompletion};
use crate::sync::{AtomicU32, Ordering};
use loom::sync::Arc;
use tbrdma_proto::{WcOpcode, WcStatus};

fn completion(number: u32) -> SendCompletion {
    SendCompletion {
        wr_id: 1000 + u64::from(number),
        status: WcStatus::Success,
        opcode: WcOpcode::RdmaWrite,
        byte_len: 50 + number,
        wq_index: number,
    }
}

fn run(depth: u32, completions: u32, preemptions: usize) {
    check(preemptions, move || {
        let ring = Arc::new((CompletionRing::new(depth), AtomicU32::new(0)));
        let pusher = Arc::clone(&ring);
        let pusher = thread::spawn(move || {
            let (ring, retired) = &*pusher;
            for number in 0..completions {
                // As a send queue of that depth does before it takes a work request.
                until(|| (number - retired.load(Ordering::Acquire) < depth).then_some(()));
                ring.push(&completion(number));
            }
        });
        let (ring, retired) = &*ring;
        for number in 0..completions {
            assert_eq!(until(|| ring.pop()), completion(number));
            retired.store(number + 1, Ordering::Release);
        }
        assert_eq!(ring.pop(), None);
        pusher.join().unwrap();
    });
}

#[test]
fn each_completion_is_popped_once_whole_and_in_order() {
    run(1, 3, 3);
    run(2, 4, 3);
}
