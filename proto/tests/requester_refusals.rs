//! NAKs that end a connection, and faults of our own: which completion says what, and what follows.

mod requester_common;

use requester_common::{LKEY, Rig, Setup, TIMEOUT, sge, to, wr};
use tbrdma_proto::wire::NakCode;
use tbrdma_proto::{Opcode, QpState, QpType, Sge, WcOpcode, WcStatus};

const OK: WcStatus = WcStatus::Success;
const FLUSHED: WcStatus = WcStatus::WrFlushErr;

#[test]
fn each_nak_has_its_status() {
    let statuses = [
        (NakCode::InvalidRequest, WcStatus::RemInvReqErr),
        (NakCode::RemoteAccessError, WcStatus::RemAccessErr),
        (NakCode::RemoteOperationalError, WcStatus::RemOpErr),
        (NakCode::InvalidRdRequest, WcStatus::RemInvRdReqErr),
    ];
    for (code, status) in statuses {
        let mut rig = Rig::rc();
        rig.send(1, 8);
        rig.post(&wr(2, Opcode::RdmaWrite), &[sge(4096)]);
        rig.send(3, 8);
        rig.sent();
        rig.nak(3, code);
        let done = rig.completions();
        let ended: Vec<_> = done.iter().map(|wc| (wc.wr_id, wc.status)).collect();
        assert_eq!(ended, [(1, OK), (2, status), (3, FLUSHED)]);
        assert_eq!((done[1].opcode, done[1].wq_index, done[1].byte_len), (WcOpcode::RdmaWrite, 1, 0));
        assert_eq!(rig.qp.state(), QpState::Err);
        assert!(rig.sent().is_empty());
        assert_eq!(rig.qp.poll_timeout(), None);
        assert_eq!(rig.qp.counters().rcvd_nak_err, 1);
    }
}

#[test]
fn a_send_posted_in_err_is_flushed_at_once_and_in_order() {
    let mut rig = Rig::rc();
    rig.send(1, 8);
    rig.sent();
    rig.nak(0, NakCode::InvalidRequest);
    rig.send(2, 8);
    rig.send(3, 8);
    let done = rig.completions();
    assert_eq!(done.iter().map(|wc| (wc.wr_id, wc.wq_index)).collect::<Vec<_>>(), [(1, 0), (2, 1), (3, 2)]);
    assert!(done[1..].iter().all(|wc| wc.status == FLUSHED));
    rig.ack(0);
    assert!(rig.take_actions().is_empty());
}

#[test]
fn going_to_err_flushes_everything_and_reset_forgets_it() {
    for state in [QpState::Err, QpState::Reset] {
        let mut rig = Rig::rc();
        for wr_id in 0..5 {
            rig.send(wr_id, 2048);
        }
        rig.one();
        rig.modify(state);
        let ended = rig.completed();
        if state == QpState::Err {
            assert_eq!(ended, [0, 1, 2, 3, 4].map(|wr_id| (wr_id, FLUSHED)));
        } else {
            assert!(ended.is_empty());
        }
        assert!(rig.sent().is_empty());
        assert!(!rig.sleep(TIMEOUT * 100));
    }
}

#[test]
fn a_bad_local_key_fails_before_anything_is_sent_and_after_what_came_before() {
    let mut rig = Rig::rc();
    rig.host.bad.push(0xbad);
    rig.send(1, 8);
    let bad = Sge { addr: 0, length: 8, lkey: 0xbad };
    rig.post(&wr(2, Opcode::Send), &[sge(8), bad]);
    rig.send(3, 8);
    assert_eq!(rig.sent_psns(), [0]);
    assert!(rig.completed().is_empty());
    rig.ack(0);
    assert_eq!(rig.completed(), [(1, OK), (2, WcStatus::LocProtErr), (3, FLUSHED)]);
    assert_eq!(rig.qp.counters().send_err, 1);
}

#[test]
fn a_key_of_an_empty_entry_is_not_looked_at() {
    let mut rig = Rig::rc();
    rig.host.bad.push(0xbad);
    rig.post(&wr(1, Opcode::Send), &[Sge { addr: 0, length: 0, lkey: 0xbad }]);
    rig.sent();
    rig.ack(0);
    assert_eq!(rig.completed(), [(1, OK)]);
}

#[test]
fn a_key_that_goes_while_a_message_is_sent_fails_the_message() {
    let mut rig = Rig::rc();
    rig.send(1, 8);
    rig.send(2, 4096);
    rig.one();
    rig.one();
    rig.host.bad.push(LKEY);
    assert!(rig.sent().is_empty());
    rig.ack(1);
    assert_eq!(rig.completed(), [(1, OK), (2, WcStatus::LocProtErr)]);
}

#[test]
fn an_earlier_failure_comes_before_a_local_one() {
    let mut rig = Rig::rc();
    rig.host.bad.push(0xbad);
    rig.send(1, 8);
    rig.post(&wr(2, Opcode::Send), &[Sge { addr: 0, length: 8, lkey: 0xbad }]);
    rig.sent();
    rig.nak(0, NakCode::RemoteOperationalError);
    assert_eq!(rig.completed(), [(1, WcStatus::RemOpErr), (2, FLUSHED)]);
}

#[test]
fn local_operations_are_carried_out_in_order() {
    let mut rig = Rig::rc();
    let mut invalidate = wr(2, Opcode::LocalInv);
    invalidate.imm_data = 0x55;
    rig.send(1, 8);
    rig.post(&invalidate, &[]);
    rig.send(3, 8);
    assert_eq!(rig.sent_psns(), [0, 1], "it takes no packet");
    assert_eq!(rig.host.invalidated, [0x55]);
    assert!(rig.completed().is_empty());
    rig.sleep(TIMEOUT);
    assert_eq!(rig.sent_psns()[0], 0);
    rig.ack(1);
    assert_eq!(rig.completed(), [(1, OK), (2, OK), (3, OK)]);
    assert_eq!(rig.host.invalidated, [0x55], "once");
    rig.post(&invalidate, &[]);
    assert!(rig.sent().is_empty());
    assert_eq!(rig.completed(), [(2, OK)], "with nothing before it, at once");
}

#[test]
fn local_operations_that_cannot_be_carried_out_fail() {
    for (opcode, status) in [(Opcode::LocalInv, WcStatus::LocQpOpErr), (Opcode::BindMw, WcStatus::MwBindErr)]
    {
        let mut rig = Rig::rc();
        rig.host.bad.push(0xbad);
        let mut request = wr(1, opcode);
        request.imm_data = 0xbad;
        rig.post(&request, &[]);
        rig.sent();
        assert_eq!(rig.completed(), [(1, status)]);
        assert_eq!(rig.qp.state(), QpState::Err);
    }
}

#[test]
fn unreliable_queue_pairs_only_stop_sending() {
    for qp_type in [QpType::Uc, QpType::Ud] {
        let mut rig = Setup::of(qp_type).rts();
        rig.host.bad.push(0xbad);
        let mut request = wr(1, Opcode::Send);
        request.ud = to(1, 9, 0x11);
        rig.post(&request, &[sge(8)]);
        rig.post(&request, &[Sge { addr: 0, length: 8, lkey: 0xbad }]);
        rig.post(&request, &[sge(8)]);
        assert_eq!(rig.sent().len(), 1);
        assert_eq!(rig.completed(), [(1, OK), (1, WcStatus::LocProtErr), (1, FLUSHED)]);
        assert_eq!(rig.qp.state(), QpState::Sqe);
        rig.post(&request, &[sge(8)]);
        assert_eq!(rig.completed(), [(1, FLUSHED)]);
        rig.modify(QpState::Rts);
        rig.post(&request, &[sge(8)]);
        assert_eq!(rig.sent_psns(), [1], "numbers go on");
        assert_eq!(rig.completed(), [(1, OK)]);
    }
}
