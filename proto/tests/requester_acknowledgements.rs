//! Which acknowledgements count: implied ones, stale ones, ghosts, and what each completes.

mod requester_common;

use requester_common::{Rig, sge, wr};
use tbrdma_proto::transport::{Action, Half};
use tbrdma_proto::wire::{NakCode, PacketOpcode, Syndrome};
use tbrdma_proto::{Opcode, SendFlags, WcOpcode, WcStatus};

const OK: WcStatus = WcStatus::Success;

#[test]
fn one_acknowledgement_stands_for_all_before_it() {
    let mut rig = Rig::rc();
    for wr_id in 0..5 {
        rig.send(wr_id, 2048);
    }
    rig.sent();
    rig.ack(5);
    assert_eq!(rig.completed(), [(0, OK), (1, OK), (2, OK)]);
    rig.ack(6);
    assert!(rig.completed().is_empty(), "half of a message");
    rig.ack(9);
    assert_eq!(rig.completed(), [(3, OK), (4, OK)]);
    assert_eq!(rig.qp.poll_timeout(), None, "nothing is outstanding");
}

#[test]
fn stale_ones_and_ghosts_change_nothing() {
    let mut rig = Rig::rc();
    for wr_id in 0..4 {
        rig.send(wr_id, 8);
    }
    rig.sent();
    rig.ack(1);
    rig.completed();
    let deadline = rig.qp.poll_timeout();
    rig.now = rig.now + core::time::Duration::from_nanos(10);
    // Before what is outstanding, and beyond what was ever sent; near and as far as a PSN can be.
    for index in [1, 0, -1, -5, -8_388_000, 4, 5, 100, 8_388_000] {
        rig.ack(index);
        rig.rnr(index, 1);
        for code in NakCode::ALL {
            rig.nak(index, *code);
        }
        rig.response(index, PacketOpcode::RcReadResponseOnly, 8);
        rig.old_value(index, 1);
    }
    assert!(rig.take_actions().is_empty());
    assert!(rig.sent().is_empty());
    assert_eq!(rig.qp.poll_timeout(), deadline);
    rig.ack(3);
    assert_eq!(rig.completed(), [(2, OK), (3, OK)]);
}

#[test]
fn data_that_was_read_acknowledges_what_is_before_it() {
    let mut rig = Rig::rc();
    rig.send(1, 8);
    rig.send(2, 3000);
    rig.read(3, 8);
    rig.sent();
    rig.response(4, PacketOpcode::RcReadResponseOnly, 8);
    let actions = rig.take_actions();
    assert!(matches!(actions[0], Action::Place { .. }), "the bytes first: {actions:?}");
    let completed: Vec<_> = actions[1..]
        .iter()
        .map(|action| match action {
            Action::Complete { half: Half::Send, wc, solicited: false } => (wc.wr_id, wc.status),
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(completed, [(1, OK), (2, OK), (3, OK)]);
}

#[test]
fn the_old_value_of_an_atomic_does_too() {
    let mut rig = Rig::rc();
    rig.send(1, 8);
    let mut add = wr(2, Opcode::AtomicFetchAndAdd);
    add.compare_add = 5;
    rig.post(&add, &[sge(8)]);
    let sent = rig.sent();
    let eth = sent[1].headers.atomic_eth.unwrap();
    assert_eq!((eth.swap_add, eth.compare), (5, 0));
    rig.old_value(1, 0x1122_3344_5566_7788);
    let actions = rig.take_actions();
    let Action::Write { key, addr, bytes, len } = actions[0] else { panic!("{actions:?}") };
    assert_eq!((key, addr, len), (requester_common::LKEY, 0x1000, 8));
    assert_eq!(bytes[..8], 0x1122_3344_5566_7788u64.to_ne_bytes());
    assert_eq!(actions.len(), 3);
}

#[test]
fn compare_and_swap_carries_both_operands() {
    let mut rig = Rig::rc();
    let mut swap = wr(1, Opcode::AtomicCmpAndSwp);
    (swap.compare_add, swap.swap) = (7, 9);
    rig.post(&swap, &[sge(8)]);
    let eth = rig.sent()[0].headers.atomic_eth.unwrap();
    assert_eq!(
        (eth.compare, eth.swap_add, eth.addr, eth.rkey),
        (7, 9, requester_common::REMOTE, requester_common::RKEY)
    );
    rig.old_value(0, 7);
    let done = rig.completions();
    assert_eq!((done[0].opcode, done[0].byte_len), (WcOpcode::CompSwap, 8));
}

#[test]
fn an_acknowledgement_beyond_unanswered_data_shows_that_the_answer_was_lost() {
    let mut rig = Rig::rc();
    rig.send(1, 8);
    rig.read(2, 3000);
    rig.send(3, 8);
    assert_eq!(rig.sent_psns(), [0, 1, 4]);
    rig.ack(4);
    assert_eq!(rig.completed(), [(1, OK)], "what is before the READ is acknowledged");
    assert_eq!(rig.sent_psns(), [1, 4], "the READ goes again, and all after it");
    rig.response(1, PacketOpcode::RcReadResponseFirst, 1024);
    rig.response(2, PacketOpcode::RcReadResponseMiddle, 1024);
    rig.response(3, PacketOpcode::RcReadResponseLast, 952);
    rig.ack(4);
    assert_eq!(rig.completed(), [(2, OK), (3, OK)]);
}

#[test]
fn a_refusal_acknowledges_what_is_before_it() {
    let mut rig = Rig::rc();
    for wr_id in 0..4 {
        rig.send(wr_id, 8);
    }
    rig.sent();
    rig.nak(2, NakCode::RemoteOperationalError);
    assert_eq!(rig.completed(), [(0, OK), (1, OK), (2, WcStatus::RemOpErr), (3, WcStatus::WrFlushErr)]);
}

#[test]
fn what_was_not_asked_to_be_signaled_completes_in_silence() {
    let mut rig = Rig::rc();
    let mut quiet = wr(1, Opcode::Send);
    quiet.flags = SendFlags::empty();
    rig.post(&quiet, &[sge(8)]);
    rig.send(2, 8);
    rig.post(&quiet, &[sge(8)]);
    rig.sent();
    rig.ack(2);
    let done = rig.completions();
    assert_eq!(done.len(), 1);
    assert_eq!((done[0].wr_id, done[0].wq_index, done[0].byte_len, done[0].qp_num.get()), (2, 1, 8, 0x111));
}

#[test]
fn a_slot_is_free_again_when_its_completion_has_been_taken() {
    let mut rig = requester_common::Setup { depth: 3, ..Default::default() }.rts();
    for round in 0..5 {
        for wr_id in 0..3 {
            rig.send(wr_id, 8);
        }
        let refused = rig.qp.post_send(rig.now, &wr(9, Opcode::Send), &[sge(8)], &[]);
        assert_eq!(refused, Err(tbrdma_proto::transport::PostFault::Full { depth: 3 }));
        rig.sent();
        rig.ack(3 * round + 2);
        assert_eq!(rig.completed().len(), 3);
    }
}

#[test]
fn acknowledgements_are_asked_for_often_enough_within_a_long_message() {
    let mut rig = Rig::rc();
    rig.send(1, 1 << 20);
    let sent = rig.sent();
    assert!((16..1024).contains(&sent.len()), "{} packets at once", sent.len());
    let asked: Vec<_> = (0..sent.len()).filter(|&at| sent[at].headers.bth.ack_req).collect();
    assert!(asked.len() >= 4, "asked after {asked:?}");
    assert_eq!(asked.last(), Some(&(sent.len() - 1)), "what fills the window asks");
    let syndrome = Syndrome::Ack { credits: 31 };
    rig.acknowledge(asked[0] as i32, syndrome);
    assert!(!rig.sent().is_empty(), "the window moves");
}
