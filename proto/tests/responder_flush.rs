//! The end of a connection as receives see it, and what a new one begins with.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test may fail")]

mod responder_side;

use responder_side::*;
use tbrdma_proto::transport::{Pending, PostFault};
use tbrdma_proto::wire::NakCode;
use tbrdma_proto::wire::PacketOpcode::*;
use tbrdma_proto::*;

const FLUSHED: WcStatus = WcStatus::WrFlushErr;

#[test]
fn receives_are_flushed_in_order_the_one_in_use_first() {
    let mut side = Side::rc();
    let mr = side.region(ALL, 1000);
    for id in 0..4 {
        side.post(id, &[mr.sge(0, 1000)]);
    }
    side.request(RcSendOnly).ack().go();
    side.request(RcSendFirst).payload(&[1; 256]).ack().go();
    side.enter_error();
    let ids = [(0, WcStatus::Success, 0), (1, FLUSHED, 0), (2, FLUSHED, 0), (3, FLUSHED, 0)];
    assert_eq!(side.completions.iter().map(|wc| wc.wq_index).collect::<Vec<_>>(), [0, 1, 2, 3]);
    assert_eq!(side.completed(), ids);
    // What was to be sent is not sent.
    assert_eq!((side.pending(), side.answers()), (Pending::Nothing, vec![]));
    side.request(RcSendLast).payload(&[1; 8]).ack().go();
    assert_eq!((side.completed(), side.answers()), (vec![], vec![]));
}

#[test]
fn a_receive_posted_after_the_end_is_flushed_and_gets_no_old_packet() {
    let mut side = Side::rc();
    let mr = side.region(ALL, 1000);
    side.post(1, &[mr.sge(0, 10)]);
    // The packet that ended it must not be carried out again by receives that come later.
    side.request(RcSendOnly).payload(&[7; 11]).go();
    side.expect_refused(NakCode::InvalidRequest, 100, Some(AsyncEventKind::QpReqErr));
    assert_eq!(side.completed(), [(1, WcStatus::LocLenErr, 0)]);
    for id in 2..6 {
        side.post(id, &[mr.sge(0, 100)]);
        assert_eq!(side.completed(), [(id, FLUSHED, 0)]);
    }
    assert_eq!((side.placed, side.answers(), side.events.len()), (0, vec![], 1));
}

#[test]
fn the_refusal_that_ended_it_still_leaves_and_nothing_after_it() {
    let mut side = Side::rc();
    let mr = side.region(ALL, 100);
    side.request(RcWriteOnly).reth(mr, 0, 1).payload(b"x").ack().go();
    side.request(RcWriteOnly).reth(mr, 100, 1).payload(b"x").ack().go();
    assert_eq!((side.qp.state(), side.pending()), (QpState::Err, Pending::More));
    let answers = side.answers();
    assert_eq!(answers.iter().map(|answer| answer.psn).collect::<Vec<_>>(), [100, 101]);
    assert_eq!(side.pending(), Pending::Nothing);
    // A post in the error state does not bring anything back.
    side.post(1, &[]);
    assert_eq!(side.answers(), []);
}

#[test]
fn a_reset_forgets_receives_answers_and_messages() {
    let mut side = Side::rc();
    let mr = side.region(ALL, 1000);
    side.post(1, &[mr.sge(0, 1000)]);
    side.post(2, &[mr.sge(0, 1000)]);
    side.request(RcReadRequest).reth(mr, 0, 600).go();
    side.request(RcSendFirst).payload(&[1; 256]).ack().go();
    side.request(RcSendOnly).psn(500).again();
    side.reset();
    assert_eq!((side.pending(), side.answers(), side.completed()), (Pending::Nothing, vec![], vec![]));
    side.setup.rq_psn = 7;
    side.connect();
    // It was received by the old connection only.
    side.request(RcSendOnly).psn(6).ack().again();
    assert_eq!(side.answers(), []);
    // Nothing of the old connection is left: not its PSNs, its READs, its message, its receives.
    side.request(RcSendLast).psn(101).payload(&[1; 4]).ack().again();
    assert!(side.only_answer().unwrap().nak() == Some(NakCode::PsnSequenceError));
    side.request(RcReadRequest).psn(100).reth(mr, 0, 600).again();
    side.request(RcSendOnly).psn(7).ack().go();
    let rnr = side.only_answer().unwrap();
    assert_eq!((rnr.rnr(), rnr.psn, rnr.msn()), (Some(RNR_TIMER), 7, 0));
    side.post(3, &[mr.sge(0, 1000)]);
    side.request(RcSendOnly).psn(7).payload(b"new").ack().go();
    assert_eq!(side.completed(), [(3, WcStatus::Success, 3)]);
    assert_eq!(side.only_answer().unwrap().msn(), 1);
}

#[test]
fn a_reset_in_the_error_state_withholds_the_refusal() {
    let mut side = Side::rc();
    side.request(RcSendMiddle).payload(&[1; 256]).go();
    assert_eq!(side.pending(), Pending::More);
    side.reset();
    side.connect();
    assert_eq!((side.pending(), side.answers()), (Pending::Nothing, vec![]));
    // Nor does the next life end as if it had been refused.
    side.post(1, &[]);
    side.request(RcSendOnly).ack().go();
    side.enter_error();
    assert_eq!((side.pending(), side.answers()), (Pending::Nothing, vec![]));
}

#[test]
fn what_cannot_be_posted_says_why() {
    let mut side = Side::rc();
    let mr = side.region(ALL, 100);
    let post = |side: &mut Side, sges: &[Sge]| side.qp.post_recv(Time::ZERO, 1, sges);
    assert_eq!(post(&mut side, &[mr.sge(0, 1); 5]), Err(PostFault::TooManySges { count: 5, max: 4 }));
    for at in 0..8 {
        assert_eq!(post(&mut side, &[mr.sge(0, 1); 4]), Ok(at));
    }
    assert_eq!(post(&mut side, &[]), Err(PostFault::Full { depth: 8 }));
    side.request(RcSendOnly).go();
    assert_eq!(post(&mut side, &[]), Ok(8));
    side.reset();
    assert_eq!(post(&mut side, &[]), Err(PostFault::State { state: QpState::Reset }));
    side.connect();
    // Those that were forgotten had their numbers.
    assert_eq!(post(&mut side, &[]), Ok(9));
    let mut shared = Side::new(Setup { srq: true, ..Setup::default() });
    assert_eq!(post(&mut shared, &[]), Err(PostFault::SharedReceives));
}

#[test]
fn a_member_of_a_shared_queue_says_once_that_it_takes_no_more() {
    let mut side = Side::new(Setup { srq: true, ..Setup::default() });
    let mr = side.region_of(SRQ_PD, ALL, 1000);
    for id in 0..3 {
        side.post(id, &[mr.sge(0, 300)]);
    }
    side.request(RcSendOnly).payload(b"x").go();
    side.request(RcSendFirst).payload(&[1; 256]).go();
    side.enter_error();
    // The one it had taken comes back, the rest is for others.
    assert_eq!(side.completed(), [(0, WcStatus::Success, 1), (1, FLUSHED, 0)]);
    assert_eq!(side.events, [AsyncEventKind::QpLastWqeReached]);
    side.enter_error();
    assert_eq!(side.events.len(), 1);
    assert_eq!(side.world.srq.as_ref().unwrap().len(), 1);
    // In its next life again.
    side.reset();
    side.connect();
    side.enter_error();
    assert_eq!(side.events.len(), 2);
}

#[test]
fn receives_posted_before_the_connection_wait_for_it() {
    let mut side = Side::rc();
    side.reset();
    side.enter_init();
    side.post(1, &[]);
    side.request(RcSendOnly).psn(100).ack().again();
    assert_eq!((side.completed(), side.answers()), (vec![], vec![]));
    side.enter_rtr();
    side.request(RcSendOnly).ack().go();
    assert_eq!(side.completed(), [(1, WcStatus::Success, 0)]);
    assert_eq!(side.only_answer().unwrap().msn(), 1);
}
