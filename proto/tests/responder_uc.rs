//! Messages on an unreliable connection: whole, once and in order, or not at all.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test may fail")]

mod responder_side;

use responder_side::*;
use tbrdma_proto::wire::PacketOpcode::*;
use tbrdma_proto::*;

const OK: WcStatus = WcStatus::Success;

fn with_receives(count: u64) -> (Side, Mr) {
    let mut side = Side::uc();
    let mr = side.region(ALL, 4000);
    for id in 0..count {
        side.post(id, &[mr.sge(1000 * id, 1000)]);
    }
    (side, mr)
}

#[test]
fn sends_and_writes_arrive_and_nothing_is_said() {
    let (mut side, mr) = with_receives(4);
    let bytes = pattern(1, 600);
    side.request(UcSendFirst).payload(&bytes[..256]).ack().go();
    side.request(UcSendMiddle).payload(&bytes[256..512]).ack().go();
    side.request(UcSendLastWithImm).imm(7).payload(&bytes[512..]).solicited().ack().go();
    side.request(UcWriteFirst).reth(mr, 3000, 300).payload(&bytes[..256]).ack().go();
    side.request(UcWriteLastWithImm).imm(8).payload(&bytes[256..300]).ack().go();
    side.request(UcWriteOnly).reth(mr, 3500, 3).payload(b"abc").ack().go();
    side.request(UcSendOnly).ack().go();
    assert_eq!(side.completions.iter().map(|wc| wc.imm_data).collect::<Vec<_>>(), [7, 8, 0]);
    assert_eq!(side.solicited, [true, false, false]);
    assert_eq!(side.completed(), [(0, OK, 600), (1, OK, 300), (2, OK, 0)]);
    assert_eq!(side.bytes(mr, 0, 600), bytes);
    assert_eq!(side.bytes(mr, 3000, 300), bytes[..300]);
    assert_eq!(side.bytes(mr, 3500, 3), b"abc");
    assert_eq!(side.answers(), []);
}

#[test]
fn a_message_that_lost_a_packet_is_dropped_and_its_receive_used_for_the_next() {
    // Which of the packets 0..4 of a message is lost.
    for lost in 0..4 {
        let (mut side, mr) = with_receives(2);
        let opcodes = [UcSendFirst, UcSendMiddle, UcSendMiddle, UcSendLast];
        for (at, opcode) in opcodes.into_iter().enumerate() {
            if at == lost {
                side.psn = side.psn.next();
            } else {
                side.request(opcode).payload(&[0xbb; 256]).go();
            }
        }
        assert_eq!(side.completed(), [], "{lost}");
        side.request(UcSendOnly).payload(b"next").go();
        assert_eq!(side.completed(), [(0, OK, 4)], "{lost}");
        assert_eq!(side.bytes(mr, 0, 4), b"next");
    }
}

#[test]
fn the_rest_of_a_dropped_message_does_not_continue_another() {
    let (mut side, _) = with_receives(3);
    // The end of one and the beginning of the next are lost together.
    side.request(UcSendFirst).payload(&[1; 256]).go();
    side.psn = side.psn.add(2);
    side.request(UcSendLast).payload(&[2; 5]).go();
    side.request(UcSendMiddle).payload(&[2; 256]).go();
    side.request(UcSendLast).payload(&[2; 5]).go();
    assert_eq!(side.completed(), []);
    // A message that begins where another one has not ended: that one is over.
    side.request(UcSendFirst).payload(&[1; 256]).go();
    side.request(UcSendFirst).payload(&[3; 256]).go();
    side.request(UcSendLast).payload(&[3; 4]).go();
    assert_eq!(side.completed(), [(0, OK, 260)]);
    side.request(UcSendFirst).payload(&[1; 256]).go();
    side.request(UcWriteLast).payload(&[1; 4]).go();
    side.request(UcSendLast).payload(&[1; 4]).go();
    assert_eq!(side.completed(), []);
}

#[test]
fn copies_and_latecomers_are_dropped() {
    let (mut side, _) = with_receives(4);
    side.request(UcSendOnly).payload(b"0").go();
    side.request(UcSendOnly).psn(100).payload(b"0").go();
    // 101 is late.
    side.request(UcSendOnly).psn(102).payload(b"2").go();
    side.request(UcSendOnly).psn(101).payload(b"1").go();
    side.request(UcSendOnly).psn(102).payload(b"2").go();
    side.request(UcSendOnly).psn(103).payload(b"33").go();
    assert_eq!(side.completed(), [(0, OK, 1), (1, OK, 1), (2, OK, 2)]);
    // A copy in the middle of a message does not end it.
    side.request(UcSendFirst).psn(104).payload(&[1; 256]).go();
    side.request(UcSendFirst).psn(104).payload(&[1; 256]).go();
    side.request(UcSendLast).psn(105).payload(&[1; 256]).go();
    assert_eq!(side.completed(), [(3, OK, 512)]);
    assert_eq!(side.qp.counters().duplicate_request, 4);
}

#[test]
fn a_peer_with_another_first_number_is_understood() {
    for first in [99, 0, 101, 100 + (1 << 23), 99 + (1 << 23), 0xff_ffff] {
        let (mut side, _) = with_receives(3);
        side.psn = Psn::masked(first);
        side.request(UcSendOnly).payload(b"0").go();
        side.request(UcSendOnly).payload(b"1").go();
        assert_eq!(side.completed(), [(0, OK, 1), (1, OK, 1)], "{first}");
    }
}

#[test]
fn without_a_receive_a_message_is_dropped() {
    let mut side = Side::uc();
    let mr = side.region(ALL, 1000);
    side.request(UcSendOnly).payload(b"lost").go();
    side.request(UcSendFirst).payload(&[1; 256]).go();
    // Too late for the message that has begun.
    side.post(1, &[mr.sge(0, 1000)]);
    side.request(UcSendLast).payload(b"lost").go();
    assert_eq!(side.completed(), []);
    side.request(UcSendOnly).payload(b"found").go();
    assert_eq!(side.completed(), [(1, OK, 5)]);
    side.request(UcWriteOnlyWithImm).imm(1).reth(mr, 500, 4).payload(b"lost").go();
    assert_eq!(side.bytes(mr, 500, 4), [0; 4]);
    side.post(2, &[]);
    assert_eq!(side.completed(), []);
    side.request(UcWriteOnlyWithImm).imm(2).reth(mr, 500, 5).payload(b"found").go();
    assert_eq!(side.completions[0].imm_data, 2);
    assert_eq!((side.answers(), side.qp.state()), (vec![], QpState::Rts));
}

#[test]
fn what_is_refused_is_dropped_and_everything_goes_on() {
    let bad: [fn(&mut Side, Mr); 11] = [
        |side, mr| side.request(UcWriteOnly).reth(Mr { key: mr.key ^ 1, ..mr }, 0, 1).payload(b"x").go(),
        |side, mr| side.request(UcWriteOnly).reth(mr, 3999, 2).payload(b"xx").go(),
        |side, mr| side.request(UcWriteOnly).reth(Mr { addr: u64::MAX, ..mr }, 0, 2).payload(b"xx").go(),
        |side, mr| side.request(UcWriteOnly).reth(mr, 0, 3).payload(b"xx").go(),
        |side, mr| {
            side.request(UcWriteFirst).reth(mr, 3000, 2000).payload(&[1; 256]).go();
            side.request(UcWriteMiddle).payload(&[1; 256]).go();
        },
        |side, _| side.request(UcSendOnly).payload(&[1; 257]).go(),
        |side, _| side.request(UcSendFirst).payload(&[1; 255]).go(),
        |side, _| side.request(UcSendMiddle).payload(&[1; 256]).go(),
        |side, _| side.request(UcSendLast).go(),
        |side, mr| side.request(UcWriteOnlyWithImm).imm(1).reth(mr, 4000, 1).payload(b"x").go(),
        |side, _| {
            let read_only = side.region(Access::REMOTE_READ, 64);
            side.request(UcWriteOnly).reth(read_only, 0, 1).payload(b"x").go();
        },
    ];
    for (at, bad) in bad.into_iter().enumerate() {
        let (mut side, mr) = with_receives(1);
        bad(&mut side, mr);
        assert_eq!((side.placed, side.completed(), side.answers()), (0, vec![], vec![]), "{at}");
        assert_eq!((side.events.len(), side.qp.state()), (0, QpState::Rts), "{at}");
        side.request(UcSendOnly).payload(b"good").go();
        assert_eq!(side.completed(), [(0, OK, 4)], "{at}");
    }
}

#[test]
fn a_message_longer_than_its_receive_is_dropped_and_leaves_it() {
    let mut side = Side::uc();
    let mr = side.region(ALL, 1000);
    side.post(1, &[mr.sge(0, 300)]);
    side.request(UcSendFirst).payload(&[1; 256]).go();
    side.request(UcSendMiddle).payload(&[1; 256]).go();
    side.request(UcSendLast).payload(&[1; 1]).go();
    assert_eq!(side.completed(), []);
    side.request(UcSendOnly).payload(b"short").go();
    assert_eq!(side.completed(), [(1, OK, 5)]);
    assert_eq!(side.bytes(mr, 0, 5), b"short");
}

#[test]
fn rights_that_the_queue_pair_does_not_grant_are_refused_silently() {
    let mut side = Side::new(Setup { qp_type: QpType::Uc, access: Access::empty(), ..Setup::default() });
    let mr = side.region(ALL, 10);
    side.request(UcWriteOnly).reth(mr, 0, 1).payload(b"x").go();
    assert_eq!((side.placed, side.events.len(), side.qp.state()), (0, 0, QpState::Rts));
}

#[test]
fn a_receive_that_is_wrong_itself_ends_the_queue_pair() {
    let (mut side, mr) = with_receives(0);
    side.post(1, &[Sge { lkey: mr.key ^ 1, ..mr.sge(0, 8) }]);
    side.post(2, &[mr.sge(0, 8)]);
    side.request(UcSendOnly).payload(b"x").go();
    assert_eq!(side.completed(), [(1, WcStatus::LocProtErr, 0), (2, WcStatus::WrFlushErr, 0)]);
    assert_eq!((side.qp.state(), side.answers()), (QpState::Err, vec![]));
}

#[test]
fn the_receive_of_a_message_that_will_not_end_is_flushed() {
    let (mut side, _) = with_receives(2);
    side.request(UcSendFirst).payload(&[1; 256]).go();
    side.enter_error();
    assert_eq!(side.completed(), [(0, WcStatus::WrFlushErr, 0), (1, WcStatus::WrFlushErr, 0)]);
}
