//! SQD: what has begun is finished, nothing else begins, and it is said when all is done.

mod requester_common;

use requester_common::{Rig, TIMEOUT, sge, wr};
use tbrdma_proto::transport::PostFault;
use tbrdma_proto::wire::{NakCode, PacketOpcode as P};
use tbrdma_proto::{AsyncEventKind, Opcode, QpAttr, QpAttrMask, QpState, WcStatus};

const OK: WcStatus = WcStatus::Success;

#[test]
fn what_has_begun_is_finished_and_the_rest_waits() {
    let mut rig = Rig::rc();
    rig.send(1, 8);
    rig.send(2, 3000);
    rig.send(3, 8);
    rig.one();
    rig.one();
    rig.modify(QpState::Sqd);
    assert!(rig.qp.query().sq_draining);
    rig.send(4, 8);
    assert_eq!(rig.sent_psns(), [2, 3], "the rest of the message that has begun");
    rig.ack(2);
    assert!(rig.qp.query().sq_draining);
    assert!(rig.events().is_empty());
    rig.ack(3);
    assert!(!rig.qp.query().sq_draining);
    assert_eq!(rig.events(), [AsyncEventKind::SqDrained]);
    assert!(rig.sent().is_empty());
    assert!(!rig.sleep(TIMEOUT * 100));
    rig.modify(QpState::Rts);
    assert_eq!(rig.sent_psns(), [4, 5]);
    rig.ack(5);
    assert_eq!(rig.completed(), [(3, OK), (4, OK)]);
}

#[test]
fn an_idle_queue_is_drained_at_once_and_once() {
    let mut rig = Rig::rc();
    for _ in 0..3 {
        rig.modify(QpState::Sqd);
        assert_eq!(rig.events(), [AsyncEventKind::SqDrained]);
        let attr = QpAttr { qp_state: QpState::Sqd, retry_cnt: 3, ..QpAttr::default() };
        rig.qp.modify(rig.now, &attr, QpAttrMask::STATE | QpAttrMask::RETRY_CNT).unwrap();
        assert!(rig.sent().is_empty());
        assert!(rig.events().is_empty(), "another change in SQD is no other draining");
        rig.modify(QpState::Rts);
    }
}

#[test]
fn what_is_lost_while_draining_is_sent_again() {
    let mut rig = Rig::rc();
    rig.send(1, 4096);
    rig.read(2, 8);
    rig.sent();
    rig.modify(QpState::Sqd);
    rig.nak(1, NakCode::PsnSequenceError);
    assert_eq!(rig.sent_psns(), [1, 2, 3, 4]);
    assert!(rig.sleep(TIMEOUT));
    assert!(!rig.sent().is_empty());
    rig.response(4, P::RcReadResponseOnly, 8);
    assert_eq!(rig.events(), [AsyncEventKind::SqDrained]);
}

#[test]
fn a_failure_while_draining_flushes_what_waited() {
    let mut rig = Rig::rc();
    rig.send(1, 8);
    rig.sent();
    rig.modify(QpState::Sqd);
    rig.send(2, 8);
    rig.nak(0, NakCode::RemoteAccessError);
    assert_eq!(rig.completed(), [(1, WcStatus::RemAccessErr), (2, WcStatus::WrFlushErr)]);
}

#[test]
fn sends_are_taken_only_from_rts_on() {
    for (mut rig, state) in [
        (requester_common::Setup::default().reset(), QpState::Reset),
        (requester_common::Setup::default().rtr(), QpState::Rtr),
    ] {
        let refused = rig.qp.post_send(rig.now, &wr(1, Opcode::Send), &[sge(8)], &[]);
        assert_eq!(refused, Err(PostFault::State { state }));
        assert!(rig.sent().is_empty());
    }
}
