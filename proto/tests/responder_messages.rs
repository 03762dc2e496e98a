//! What SENDs and WRITEs do that arrive as they should.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test may fail")]

mod responder_side;

use responder_side::*;
use tbrdma_proto::wire::PacketOpcode::*;
use tbrdma_proto::*;

#[test]
fn a_send_of_one_packet_fills_its_receive_and_is_acknowledged() {
    for len in [0, 1, 2, 3, 4, 255, 256] {
        let mut side = Side::rc();
        let mr = side.region(Access::LOCAL_WRITE, 1000);
        side.post(9, &[mr.sge(10, 500)]);
        let bytes = pattern(1, len);
        side.request(RcSendOnly).payload(&bytes).ack().go();
        assert_eq!(side.completed(), [(9, WcStatus::Success, len as u32)]);
        assert_eq!(side.bytes(mr, 10, len), bytes);
        assert_eq!(side.bytes(mr, 10 + len as u64, 100), [0; 100]);
        assert_eq!(side.pending(), transport::Pending::AckOnly);
        let ack = side.only_answer().unwrap();
        assert!(ack.is_ack());
        assert_eq!((ack.psn, ack.msn()), (100, 1));
        assert_eq!(side.pending(), transport::Pending::Nothing);
        assert_eq!(side.events, []);
    }
}

#[test]
fn a_send_of_many_packets_is_one_message_over_the_whole_scatter_list() {
    let mut side = Side::rc();
    let (one, two) = (side.region(ALL, 400), side.region(ALL, 1000));
    // Entries end within packets, at their ends, and have no bytes at all.
    side.post(1, &[one.sge(0, 100), one.sge(100, 0), one.sge(200, 156), two.sge(0, 1000)]);
    let bytes = pattern(2, 700);
    side.request(RcSendFirst).payload(&bytes[..256]).go();
    side.request(RcSendMiddle).payload(&bytes[256..512]).go();
    assert_eq!(side.completed(), []);
    assert_eq!(side.answers(), []);
    side.request(RcSendLast).payload(&bytes[512..]).ack().go();
    assert_eq!(side.completed(), [(1, WcStatus::Success, 700)]);
    assert_eq!(side.bytes(one, 0, 100), bytes[..100]);
    assert_eq!(side.bytes(one, 100, 100), [0; 100]);
    assert_eq!(side.bytes(one, 200, 156), bytes[100..256]);
    assert_eq!(side.bytes(two, 0, 444), bytes[256..]);
    let ack = side.only_answer().unwrap();
    assert_eq!((ack.psn, ack.msn()), (102, 1));
}

#[test]
fn a_write_goes_where_its_header_says_and_nobody_is_told() {
    let mut side = Side::rc();
    let mr = side.region(ALL, 1000);
    side.post(1, &[]);
    let bytes = pattern(3, 600);
    side.request(RcWriteFirst).reth(mr, 7, 600).payload(&bytes[..256]).go();
    side.request(RcWriteMiddle).payload(&bytes[256..512]).go();
    side.request(RcWriteLast).payload(&bytes[512..]).ack().go();
    side.request(RcWriteOnly).reth(mr, 999, 1).payload(&[0xee]).ack().go();
    assert_eq!(side.bytes(mr, 7, 600), bytes);
    assert_eq!(side.bytes(mr, 999, 1), [0xee]);
    assert_eq!(side.completed(), []);
    let ack = side.only_answer().unwrap();
    assert_eq!((ack.psn, ack.msn()), (103, 2));
}

#[test]
fn a_write_taken_apart_is_refused_before_its_first_byte_if_it_runs_out() {
    let bytes = pattern(4, 256);
    let mut side = Side::rc();
    side.qp.write_apart(true);
    let mr = side.region(ALL, 600);
    side.request(RcWriteOnly).reth(mr, 0, 600).payload(&bytes).go();
    side.request(RcWriteOnly).reth(mr, 256, 344).payload(&bytes).go();
    side.request(RcWriteOnly).reth(mr, 512, 88).payload(&bytes[..88]).ack().go();
    assert_eq!(side.bytes(mr, 0, 600), [&bytes[..], &bytes, &bytes[..88]].concat());
    side.request(RcWriteOnly).reth(mr, 1, 600).payload(&[0xee; 256]).go();
    side.expect_refused(
        wire::NakCode::RemoteAccessError,
        side.psn.get() - 1,
        Some(AsyncEventKind::QpAccessErr),
    );
    assert_eq!(side.bytes(mr, 1, 10), bytes[1..11]);
    // Who was not told so takes a length that is not the payload's for a fault.
    let mut side = Side::rc();
    let mr = side.region(ALL, 600);
    side.request(RcWriteOnly).reth(mr, 0, 600).payload(&bytes).go();
    side.expect_refused(wire::NakCode::InvalidRequest, side.psn.get() - 1, Some(AsyncEventKind::QpReqErr));
    assert_eq!(side.bytes(mr, 0, 10), [0; 10]);
}

#[test]
fn immediate_data_and_the_wish_to_be_woken_come_with_the_completion() {
    let mut side = Side::rc();
    let mr = side.region(ALL, 1000);
    for id in 0..6 {
        side.post(id, &[mr.sge(0, 600)]);
    }
    side.request(RcSendOnlyWithImm).imm(0xdead_beef).payload(b"abc").solicited().go();
    side.request(RcSendFirst).payload(&pattern(0, 256)).solicited().go();
    side.request(RcSendLastWithImm).imm(2).payload(b"abcd").go();
    side.request(RcWriteOnlyWithImm).imm(3).reth(mr, 0, 5).payload(b"abcde").solicited().go();
    side.request(RcWriteFirst).reth(mr, 0, 300).payload(&pattern(0, 256)).go();
    side.request(RcWriteLastWithImm).imm(4).payload(&pattern(0, 44)).go();
    side.request(RcWriteOnlyWithImm).imm(5).reth(Mr { key: 0, addr: 0 }, 0, 0).go();
    side.request(RcSendOnly).payload(b"").go();
    assert_eq!(side.solicited, [true, false, true, false, false, false]);
    let seen: Vec<_> =
        side.completions.iter().map(|wc| (wc.opcode, wc.wc_flags, wc.imm_data, wc.byte_len)).collect();
    let imm = WcFlags::WITH_IMM;
    assert_eq!(
        seen,
        [
            (WcOpcode::Recv, imm, 0xdead_beef, 3),
            (WcOpcode::Recv, imm, 2, 260),
            (WcOpcode::RecvRdmaWithImm, imm, 3, 5),
            (WcOpcode::RecvRdmaWithImm, imm, 4, 300),
            (WcOpcode::RecvRdmaWithImm, imm, 5, 0),
            (WcOpcode::Recv, WcFlags::empty(), 0, 0),
        ]
    );
    assert_eq!(Vec::from_iter(side.completions.iter().map(|wc| wc.wq_index)), [0, 1, 2, 3, 4, 5]);
}

#[test]
fn a_send_may_withdraw_a_key_before_it_completes() {
    for multi in [false, true] {
        let mut side = Side::rc();
        let (mr, window) = (side.region(ALL, 1000), side.region(ALL, 1000));
        side.post(1, &[mr.sge(0, 600)]);
        if multi {
            side.request(RcSendFirst).payload(&pattern(0, 256)).go();
            assert!(side.world.memory.has(window.key));
            side.request(RcSendLastWithInv).invalidate(window.key).payload(b"x").go();
        } else {
            side.request(RcSendOnlyWithInv).invalidate(window.key).payload(b"x").go();
        }
        assert!(!side.world.memory.has(window.key));
        let wc = side.completions[0];
        assert_eq!((wc.status, wc.wc_flags, wc.imm_data), (WcStatus::Success, WcFlags::WITH_INV, window.key));
        // It is of no use any more.
        side.request(RcWriteOnly).reth(window, 0, 1).payload(b"y").go();
        side.expect_refused(
            wire::NakCode::RemoteAccessError,
            side.psn.get() - 1,
            Some(AsyncEventKind::QpAccessErr),
        );
    }
}

#[test]
fn sequence_numbers_wrap_within_and_between_messages() {
    let mut side = Side::new(Setup { rq_psn: 0xff_fffe, ..Setup::default() });
    let mr = side.region(ALL, 1024);
    side.post(1, &[mr.sge(0, 1024)]);
    let bytes = pattern(5, 1000);
    side.request(RcSendFirst).payload(&bytes[..256]).go();
    side.request(RcSendMiddle).payload(&bytes[256..512]).go();
    side.request(RcSendMiddle).payload(&bytes[512..768]).go();
    side.request(RcSendLast).payload(&bytes[768..]).ack().go();
    assert_eq!(side.completed(), [(1, WcStatus::Success, 1000)]);
    assert_eq!(side.bytes(mr, 0, 1000), bytes);
    assert_eq!(side.only_answer().unwrap().psn, 1);
    assert_eq!(side.qp.query().rq_psn.get(), 2);
}

#[test]
fn acknowledgements_are_only_given_where_wanted_and_the_newest_stands_for_all() {
    let mut side = Side::rc();
    let mr = side.region(ALL, 64);
    for _ in 0..3 {
        side.request(RcWriteOnly).reth(mr, 0, 1).payload(b"x").go();
    }
    assert_eq!(side.answers(), []);
    for _ in 0..3 {
        side.request(RcWriteOnly).reth(mr, 0, 1).payload(b"x").ack().go();
    }
    // One that does not ask for it is covered all the same.
    side.request(RcWriteOnly).reth(mr, 0, 1).payload(b"x").go();
    let ack = side.only_answer().unwrap();
    assert_eq!((ack.psn, ack.msn()), (106, 7));
    assert_eq!(side.qp.counters().ack_deferred, 2);
}

#[test]
fn acknowledgements_say_how_many_receives_there_are() {
    let credits = |side: &mut Side| match side.only_answer().unwrap().aeth.unwrap().syndrome {
        wire::Syndrome::Ack { credits } => wire::credit_count(credits),
        other => panic!("{other:?}"),
    };
    let mut side = Side::rc();
    for id in 0..4 {
        side.post(id, &[]);
    }
    for left in (0..4).rev() {
        side.request(RcSendOnly).ack().go();
        assert_eq!(credits(&mut side), Some(left));
    }
    // Who was told that there are none learns when there are some again.
    assert_eq!(side.answers(), []);
    side.post(5, &[]);
    assert_eq!(credits(&mut side), Some(1));
    side.post(6, &[]);
    assert_eq!(side.answers(), []);
    // The answer to a READ says it as well, and no acknowledgement may say that the READ is done.
    let mr = side.region(ALL, 8);
    for _ in 0..2 {
        side.request(RcSendOnly).go();
    }
    side.request(RcReadRequest).reth(mr, 0, 8).go();
    assert_eq!(credits(&mut side), Some(0));
    side.post(7, &[]);
    assert_eq!(side.answers(), []);
    // Of a queue that others take from, nobody can say.
    let mut side = Side::new(Setup { srq: true, ..Setup::default() });
    side.post(1, &[]);
    side.request(RcSendOnly).ack().go();
    assert_eq!(credits(&mut side), None);
}

#[test]
fn the_first_packet_before_rts_is_an_event_once() {
    let mut side = Side::new(Setup { rts: false, ..Setup::default() });
    for _ in 0..2 {
        side.request(RcWriteOnly).reth(Mr { key: 0, addr: 0 }, 0, 0).ack().go();
    }
    assert_eq!(side.events, [AsyncEventKind::CommEst]);
    assert_eq!(side.only_answer().unwrap().psn, 101);
}
