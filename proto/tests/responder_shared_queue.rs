//! A shared receive queue as a value: order, room, and its limit event.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test may fail")]

use tbrdma_proto::transport::{PostFault, Receive, Srq};
use tbrdma_proto::{AsyncEventKind, PdHandle, Sge};

const PD: PdHandle = PdHandle(3);

fn sge(addr: u64) -> Sge {
    Sge { addr, length: 10, lkey: 5 }
}

#[test]
fn receives_come_out_in_order_as_they_were_posted_round_after_round() {
    let mut srq = Srq::new(PD, 3, 2);
    let mut receive = Receive::default();
    assert!(srq.is_empty() && !srq.take(&mut receive));
    let mut number = 0;
    for round in 0..10_u64 {
        let count = 1 + round % 3;
        for at in 0..count {
            let sges = [sge(round), sge(at)];
            assert_eq!(srq.post(round * 10 + at, &sges[..at as usize % 3]), Ok(number + at as u32));
        }
        for at in 0..count {
            assert!(srq.take(&mut receive));
            assert_eq!((receive.wr_id, receive.wq_index, receive.pd), (round * 10 + at, number, PD));
            assert_eq!(receive.sges, [sge(round), sge(at)][..at as usize % 3]);
            number += 1;
        }
        assert!(!srq.take(&mut receive));
    }
}

#[test]
fn a_full_queue_and_a_long_list_are_refused() {
    let mut srq = Srq::new(PD, 2, 1);
    assert_eq!(srq.post(0, &[sge(0), sge(1)]), Err(PostFault::TooManySges { count: 2, max: 1 }));
    assert_eq!((srq.post(0, &[]), srq.post(0, &[])), (Ok(0), Ok(1)));
    assert_eq!(srq.post(0, &[]), Err(PostFault::Full { depth: 2 }));
    assert!(srq.take(&mut Receive::default()));
    assert_eq!((srq.post(0, &[]), srq.len()), (Ok(2), 2));
    assert_eq!(Srq::new(PD, 0, 0).post(0, &[]), Err(PostFault::Full { depth: 0 }));
}

#[test]
fn the_limit_is_reached_once_when_fewer_are_left() {
    let mut srq = Srq::new(PD, 8, 1);
    let mut receive = Receive::default();
    for id in 0..8 {
        srq.post(id, &[]).unwrap();
    }
    srq.set_limit(6);
    for left in [7, 6] {
        assert!(srq.take(&mut receive));
        assert_eq!((srq.len(), srq.poll_event(), srq.limit()), (left, None, 6));
    }
    assert!(srq.take(&mut receive));
    assert_eq!((srq.poll_event(), srq.limit()), (Some(AsyncEventKind::SrqLimitReached), 0));
    assert!(srq.take(&mut receive));
    assert_eq!(srq.poll_event(), None);
    srq.set_limit(100);
    assert_eq!(srq.poll_event(), None);
    assert!(srq.take(&mut receive));
    assert_eq!(srq.poll_event(), Some(AsyncEventKind::SrqLimitReached));
}
