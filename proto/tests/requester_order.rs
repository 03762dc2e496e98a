//! What may be on its way at once: fences, the depth of reads and atomics, credits.

mod requester_common;

use requester_common::{Rig, Setup, TIMEOUT, aeth, psn, sge, wr};
use tbrdma_proto::wire::{NakCode, PacketOpcode as P, Syndrome};
use tbrdma_proto::{Opcode, SendFlags, WcStatus};

const OK: WcStatus = WcStatus::Success;

fn fenced(wr_id: u64, opcode: Opcode) -> tbrdma_proto::SendWr {
    let mut request = wr(wr_id, opcode);
    request.flags |= SendFlags::FENCE;
    request
}

#[test]
fn a_fence_waits_for_reads_and_atomics_and_for_nothing_else() {
    let mut rig = Rig::rc();
    rig.send(1, 8);
    rig.post(&fenced(2, Opcode::Send), &[sge(8)]);
    assert_eq!(rig.sent_psns(), [0, 1], "sends are no reason to wait");
    rig.read(3, 2000);
    rig.post(&wr(4, Opcode::AtomicFetchAndAdd), &[sge(8)]);
    rig.send(5, 8);
    rig.post(&fenced(6, Opcode::RdmaWrite), &[sge(8)]);
    rig.send(7, 8);
    assert_eq!(rig.sent_psns(), [2, 4, 5]);
    rig.response(2, P::RcReadResponseFirst, 1024);
    rig.response(3, P::RcReadResponseLast, 2000 - 1024);
    assert!(rig.sent().is_empty(), "the atomic is still on its way");
    rig.old_value(4, 0);
    assert_eq!(rig.sent_psns(), [6, 7]);
    rig.ack(7);
    assert_eq!(rig.completed().len(), 7);
}

#[test]
fn a_fence_holds_when_a_read_must_be_repeated() {
    let mut rig = Rig::rc();
    rig.read(1, 8);
    rig.post(&fenced(2, Opcode::Send), &[sge(8)]);
    assert_eq!(rig.sent_psns(), [0]);
    assert!(rig.sleep(TIMEOUT));
    assert_eq!(rig.sent_psns(), [0]);
    rig.response(0, P::RcReadResponseOnly, 8);
    assert_eq!(rig.sent_psns(), [1]);
}

#[test]
fn a_fenced_local_invalidation_waits() {
    let mut rig = Rig::rc();
    rig.read(1, 8);
    let mut invalidate = fenced(2, Opcode::LocalInv);
    invalidate.imm_data = 0x55;
    rig.post(&invalidate, &[]);
    rig.sent();
    assert!(rig.host.invalidated.is_empty());
    rig.response(0, P::RcReadResponseOnly, 8);
    rig.sent();
    assert_eq!(rig.host.invalidated, [0x55]);
    assert_eq!(rig.completed(), [(1, OK), (2, OK)]);
}

#[test]
fn no_more_reads_and_atomics_than_agreed_are_on_their_way() {
    for depth in [1, 2, 5, 16] {
        let mut rig = Setup { max_rd_atomic: depth, ..Setup::default() }.rts();
        let depth = i32::from(depth);
        for wr_id in 0..20 {
            let opcode = if wr_id % 2 == 0 { Opcode::RdmaRead } else { Opcode::AtomicFetchAndAdd };
            rig.post(&wr(wr_id, opcode), &[sge(8)]);
        }
        assert_eq!(rig.sent_psns(), (0..depth).collect::<Vec<_>>());
        for index in 0..20 {
            if index % 2 == 0 {
                rig.response(index, P::RcReadResponseOnly, 8);
            } else {
                rig.old_value(index, 0);
            }
            let next = index + depth;
            assert_eq!(rig.sent_psns(), if next < 20 { vec![next] } else { vec![] });
        }
        assert_eq!(rig.completed().len(), 20);
    }
}

#[test]
fn sends_go_past_nothing_but_are_not_held_by_reads_before_them() {
    let mut rig = Setup { max_rd_atomic: 1, ..Setup::default() }.rts();
    rig.read(1, 8);
    rig.send(2, 8);
    rig.read(3, 8);
    rig.send(4, 8);
    assert_eq!(rig.sent_psns(), [0, 1], "the second READ waits, and what is behind it");
    rig.response(0, P::RcReadResponseOnly, 8);
    assert_eq!(rig.sent_psns(), [2, 3]);
}

#[test]
fn without_any_depth_a_read_fails() {
    let mut rig = Setup { max_rd_atomic: 0, ..Setup::default() }.rts();
    rig.send(1, 8);
    rig.read(2, 8);
    assert_eq!(rig.sent_psns(), [0]);
    rig.ack(0);
    assert_eq!(rig.completed(), [(1, OK), (2, WcStatus::LocQpOpErr)]);
}

/// An acknowledgement of `index` that says that `msn` requests are done and that there are receives by this code.
fn credit(rig: &mut Rig, index: i32, msn: u32, credits: u8) {
    rig.answer(aeth(P::RcAcknowledge, psn(index), Syndrome::Ack { credits }, msn), &[]);
}

#[test]
fn what_needs_a_receive_waits_for_credit_and_a_single_one_goes_to_ask() {
    let mut rig = Rig::rc();
    for wr_id in 0..8 {
        rig.send(wr_id, 8);
    }
    for _ in 0..3 {
        rig.one();
    }
    // Two more than the one done.
    credit(&mut rig, 0, 1, 2);
    assert!(rig.sent().is_empty());
    credit(&mut rig, 1, 2, 2);
    assert_eq!(rig.sent_psns(), [3]);
    credit(&mut rig, 3, 4, 0);
    assert_eq!(rig.sent_psns(), [4], "alone, to find out");
    credit(&mut rig, 4, 5, 31);
    assert_eq!(rig.sent_psns(), [5, 6, 7], "no limit any more");
}

#[test]
fn an_acknowledgement_that_comes_again_can_grant_more() {
    let mut rig = Rig::rc();
    rig.send(1, 8);
    rig.sent();
    credit(&mut rig, 0, 1, 0);
    for wr_id in 0..4 {
        rig.send(wr_id, 8);
    }
    assert_eq!(rig.sent_psns(), [1]);
    credit(&mut rig, 0, 1, 3);
    assert_eq!(rig.sent_psns(), [2, 3]);
}

#[test]
fn credits_count_requests_of_all_kinds_but_hold_only_those_that_take_a_receive() {
    let mut rig = Rig::rc();
    rig.send(1, 8);
    rig.sent();
    credit(&mut rig, 0, 1, 1);
    rig.post(&wr(2, Opcode::RdmaWrite), &[sge(8)]);
    rig.read(3, 8);
    rig.post(&wr(4, Opcode::AtomicFetchAndAdd), &[sge(8)]);
    rig.post(&wr(5, Opcode::RdmaWriteWithImm), &[sge(8)]);
    assert_eq!(rig.sent_psns(), [1, 2, 3], "the WRITE with immediate takes a receive");
    credit(&mut rig, 1, 2, 3);
    assert_eq!(rig.sent_psns(), [4]);
}

#[test]
fn a_message_that_has_begun_is_finished_without_credit() {
    let mut rig = Rig::rc();
    rig.send(1, 8);
    rig.sent();
    credit(&mut rig, 0, 1, 0);
    rig.send(2, 4096);
    assert_eq!(rig.sent_psns(), [1, 2, 3, 4]);
    rig.nak(3, NakCode::PsnSequenceError);
    assert_eq!(rig.sent_psns(), [3, 4]);
}
