//! READs: their answers, the order of answers, and answers given again.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test may fail")]

mod responder_side;

use responder_side::*;
use tbrdma_proto::transport::{Incoming, Pending};
use tbrdma_proto::wire::PacketOpcode::*;
use tbrdma_proto::wire::{NakCode, PacketOpcode};
use tbrdma_proto::*;

/// A queue pair and a region full of bytes.
fn with_bytes(setup: Setup) -> (Side, Mr, Vec<u8>) {
    let mut side = Side::new(setup);
    let mr = side.region(ALL, 2000);
    let bytes = pattern(9, 2000);
    side.fill(mr, &bytes);
    (side, mr, bytes)
}

fn shape(answers: &[Answer]) -> Vec<(PacketOpcode, u32)> {
    answers.iter().map(|answer| (answer.opcode, answer.psn)).collect()
}

fn payload(answers: &[Answer]) -> Vec<u8> {
    answers.iter().flat_map(|answer| answer.payload.clone()).collect()
}

#[test]
fn a_read_is_answered_packet_by_packet() {
    use PacketOpcode::{
        RcReadResponseFirst as First, RcReadResponseLast as Last, RcReadResponseMiddle as Middle,
        RcReadResponseOnly as Only,
    };
    let expected: [(u32, &[PacketOpcode]); 7] = [
        (0, &[Only]),
        (1, &[Only]),
        (256, &[Only]),
        (257, &[First, Last]),
        (512, &[First, Last]),
        (513, &[First, Middle, Last]),
        (1030, &[First, Middle, Middle, Middle, Last]),
    ];
    for (len, opcodes) in expected {
        let (mut side, mr, bytes) = with_bytes(Setup { rq_psn: 0xff_fffe, ..Setup::default() });
        side.request(RcReadRequest).reth(mr, 3, len).ack().go();
        assert_eq!(side.pending(), Pending::More);
        let answers = side.answers();
        assert_eq!(answers.iter().map(|answer| answer.opcode).collect::<Vec<_>>(), opcodes);
        assert_eq!(payload(&answers), bytes[3..3 + len as usize]);
        for (at, answer) in answers.iter().enumerate() {
            assert_eq!(answer.psn, Psn::masked(0xff_fffe).add(at as u32).get());
            assert!(answer.aeth.is_none_or(|aeth| aeth.msn == 1));
        }
        // The request after it has the PSN after its answer.
        assert_eq!(side.qp.query().rq_psn, Psn::masked(0xff_fffe).add(opcodes.len() as u32));
        side.request(RcWriteOnly).reth(mr, 0, 1).payload(b"x").ack().go();
        assert_eq!(side.only_answer().unwrap().msn(), 2);
        assert_eq!(side.completions, []);
    }
}

#[test]
fn a_read_of_no_bytes_checks_no_key() {
    let mut side = Side::rc();
    side.request(RcReadRequest).reth(Mr { key: 1, addr: u64::MAX }, 0, 0).go();
    assert_eq!(shape(&side.answers()), [(RcReadResponseOnly, 100)]);
    assert_eq!(side.world.checks.get(), 0);
}

#[test]
fn acknowledgements_wait_behind_the_answers_to_reads_before_them() {
    let (mut side, mr, _) = with_bytes(Setup::default());
    side.request(RcWriteOnly).reth(mr, 0, 1).payload(b"x").ack().go(); // 100
    side.request(RcReadRequest).reth(mr, 0, 600).go(); // 101..=103
    side.request(RcWriteOnly).reth(mr, 0, 1).payload(b"x").ack().go(); // 104
    side.request(RcFetchAdd).atomic(mr, 8, 0, 1).go(); // 105
    side.request(RcWriteOnly).reth(mr, 0, 1).payload(b"x").ack().go(); // 106
    side.request(RcWriteOnly).reth(mr, 0, 1).payload(b"x").ack().go(); // 107
    let answers = side.answers();
    assert_eq!(
        shape(&answers),
        [
            (RcAcknowledge, 100),
            (RcReadResponseFirst, 101),
            (RcReadResponseMiddle, 102),
            (RcReadResponseLast, 103),
            (RcAcknowledge, 104),
            (RcAtomicAcknowledge, 105),
            (RcAcknowledge, 107),
        ]
    );
    let msn: Vec<_> = answers.iter().filter_map(|answer| Some(answer.aeth?.msn)).collect();
    assert_eq!(msn, [1, 2, 2, 3, 4, 6]);
}

#[test]
fn a_refusal_waits_behind_the_answers_too() {
    let (mut side, mr, _) = with_bytes(Setup::default());
    side.request(RcReadRequest).reth(mr, 0, 300).go();
    side.request(RcSendOnly).payload(b"x").go();
    let answers = side.answers();
    assert_eq!(
        shape(&answers),
        [(RcReadResponseFirst, 100), (RcReadResponseLast, 101), (RcAcknowledge, 102)]
    );
    assert_eq!(answers[2].rnr(), Some(RNR_TIMER));
    // Even one that ends the connection.
    side.request(RcReadRequest).psn(102).reth(mr, 0, 300).go();
    side.request(RcWriteOnly).reth(mr, 2000, 1).payload(b"x").go();
    assert_eq!(side.qp.state(), QpState::Err);
    let answers = side.answers();
    assert_eq!(
        shape(&answers),
        [(RcReadResponseFirst, 102), (RcReadResponseLast, 103), (RcAcknowledge, 104)]
    );
    assert_eq!(answers[2].nak(), Some(NakCode::RemoteAccessError));
}

#[test]
fn a_read_sees_what_was_written_before_it_and_is_given_again_with_what_is_there_then() {
    let (mut side, mr, _) = with_bytes(Setup::default());
    side.request(RcWriteOnly).reth(mr, 0, 3).payload(b"new").go();
    side.request(RcReadRequest).reth(mr, 0, 3).go();
    assert_eq!(payload(&side.answers()), b"new");
    side.fill(mr, b"now");
    side.request(RcReadRequest).psn(101).reth(mr, 0, 3).again();
    let answers = side.answers();
    assert_eq!(shape(&answers), [(RcReadResponseOnly, 101)]);
    assert_eq!(payload(&answers), b"now");
}

#[test]
fn a_read_is_given_again_from_where_the_requester_says() {
    let (mut side, mr, bytes) = with_bytes(Setup::default());
    side.request(RcReadRequest).reth(mr, 10, 1000).go(); // 100..=103
    assert_eq!(side.answers().len(), 4);
    for skipped in 0..4 {
        let at = 256 * skipped;
        let read = side.request(RcReadRequest).psn(100 + skipped).reth(mr, 10 + u64::from(at), 1000 - at);
        read.again();
        let answers = side.answers();
        assert_eq!(answers.len() as u32, 4 - skipped);
        assert_eq!(answers[0].psn, 100 + skipped);
        assert!(matches!(answers[0].opcode, RcReadResponseFirst | RcReadResponseOnly));
        assert_eq!(payload(&answers), bytes[10 + at as usize..1010]);
    }
    // Less than the rest is a part of it as well.
    side.request(RcReadRequest).psn(101).reth(mr, 266, 10).again();
    assert_eq!(payload(&side.answers()), bytes[266..276]);
}

#[test]
fn what_is_no_part_of_a_read_before_is_dropped() {
    let (mut side, mr, _) = with_bytes(Setup::default());
    let other = Mr { addr: mr.addr, ..side.region(ALL, 2000) };
    side.request(RcWriteOnly).reth(mr, 0, 1).payload(b"x").go(); // 100
    side.request(RcReadRequest).reth(mr, 10, 1000).go(); // 101..=104
    side.answers();
    // Another key, another place, too long, the wrong packet, no bytes, a PSN that was no READ.
    for (psn, mr, at, len) in [
        (101, other, 10, 1000),
        (101, mr, 11, 999),
        (101, mr, 10, 1001),
        (102, mr, 10, 1000),
        (102, mr, 266, 745),
        (101, mr, 10, 0),
        (100, mr, 10, 1000),
    ] {
        side.request(RcReadRequest).psn(psn).reth(mr, at, len).again();
        assert_eq!(side.answers(), [], "{psn} {at} {len}");
    }
    // Nor is a SEND or an atomic in a READ's place.
    side.request(RcSendOnly).psn(102).ack().again();
    side.request(RcFetchAdd).psn(101).atomic(mr, 0, 0, 1).again();
    assert_eq!((side.answers(), side.atomics), (vec![], 0));
    assert_eq!(side.qp.state(), QpState::Rts);
}

#[test]
fn a_read_repeated_while_it_is_answered_starts_where_it_is_asked_to() {
    let (mut side, mr, bytes) = with_bytes(Setup::default());
    side.request(RcReadRequest).reth(mr, 0, 1024).go(); // 100..=103
    side.request(RcWriteOnly).reth(mr, 1500, 1).payload(b"x").ack().go(); // 104
    side.request(RcReadRequest).reth(mr, 1024, 100).go(); // 105
    assert_eq!((side.answer().unwrap().psn, side.answer().unwrap().psn), (100, 101));
    side.request(RcReadRequest).psn(101).reth(mr, 256, 768).again();
    // Once more, as when the wire makes a copy.
    side.request(RcReadRequest).psn(101).reth(mr, 256, 768).again();
    let answers = side.answers();
    assert_eq!(
        shape(&answers),
        [
            (RcReadResponseFirst, 101),
            (RcReadResponseMiddle, 102),
            (RcReadResponseLast, 103),
            (RcAcknowledge, 104),
            (RcReadResponseOnly, 105),
        ]
    );
    assert_eq!(payload(&answers), bytes[256..1124]);
}

#[test]
fn repeated_requests_are_answered_in_the_order_of_their_numbers() {
    let (mut side, mr, _) = with_bytes(Setup::default());
    side.request(RcReadRequest).reth(mr, 0, 100).go(); // 100
    side.request(RcWriteOnly).reth(mr, 0, 1).payload(b"x").ack().go(); // 101
    side.request(RcWriteOnly).reth(mr, 0, 1).payload(b"x").ack().go(); // 102
    side.request(RcFetchAdd).atomic(mr, 0, 0, 1).go(); // 103
    side.request(RcReadRequest).reth(mr, 0, 100).go(); // 104
    let first = side.answers();
    let again = [
        (RcReadResponseOnly, 100),
        (RcAcknowledge, 102),
        (RcAtomicAcknowledge, 103),
        (RcReadResponseOnly, 104),
    ];
    assert_eq!(shape(&first), again);
    for backwards in [false, true] {
        let mut psns = vec![100, 101, 102, 103, 104];
        if backwards {
            psns.reverse();
        }
        for psn in psns {
            match psn {
                103 => side.request(RcFetchAdd).psn(103).atomic(mr, 0, 0, 1).again(),
                100 | 104 => side.request(RcReadRequest).psn(psn).reth(mr, 0, 100).again(),
                _ => side.request(RcWriteOnly).psn(psn).reth(mr, 0, 1).payload(b"x").ack().again(),
            }
        }
        let answers = side.answers();
        // An acknowledgement never says anything of a READ or atomic.
        assert_eq!(shape(&answers), again, "{backwards}");
        assert_eq!(answers.iter().map(Answer::msn).collect::<Vec<_>>(), [1, 3, 4, 5]);
    }
}

#[test]
fn what_is_said_again_of_requests_before_a_read_says_nothing_of_it() {
    let (mut side, mr, _) = with_bytes(Setup::default());
    side.request(RcWriteOnly).reth(mr, 0, 1).payload(b"x").go(); // 100
    side.request(RcReadRequest).reth(mr, 0, 100).go(); // 101
    side.answers();
    side.request(RcWriteOnly).psn(100).reth(mr, 0, 1).payload(b"x").ack().again();
    side.request(RcWriteOnly).reth(mr, 0, 1).payload(b"x").ack().go(); // 102
    let answers = side.answers();
    assert_eq!(shape(&answers), [(RcAcknowledge, 100), (RcAcknowledge, 102)]);
    assert_eq!((answers[0].msn(), answers[1].msn()), (1, 3));
}

#[test]
fn one_read_too_many_is_refused_and_one_answered_makes_room() {
    let (mut side, mr, _) = with_bytes(Setup { reads: 2, ..Setup::default() });
    for _ in 0..5 {
        side.request(RcReadRequest).reth(mr, 0, 300).go();
        side.request(RcFetchAdd).atomic(mr, 0, 0, 1).go();
        assert_eq!(side.answers().len(), 3);
    }
    // What made room for others is not repeated any more.
    side.request(RcReadRequest).psn(100).reth(mr, 0, 300).again();
    assert_eq!(side.answers(), []);
    let psn = side.psn.get();
    for _ in 0..3 {
        side.request(RcReadRequest).reth(mr, 0, 300).go();
    }
    side.expect_refused(NakCode::InvalidRequest, psn + 4, Some(AsyncEventKind::QpReqErr));
}

#[test]
fn repetitions_do_not_take_the_room_of_new_requests() {
    let (mut side, mr, _) = with_bytes(Setup { reads: 1, ..Setup::default() });
    side.request(RcReadRequest).reth(mr, 0, 300).go();
    side.answers();
    side.request(RcReadRequest).psn(100).reth(mr, 0, 300).again();
    side.answer();
    // The requester has got the first answer meanwhile.
    side.request(RcReadRequest).reth(mr, 5, 10).go();
    assert_eq!(shape(&side.answers()), [(RcReadResponseOnly, 102)]);
    assert_eq!(side.qp.state(), QpState::Rts);
}

#[test]
fn fewer_resources_can_be_set_while_some_are_in_use() {
    let (mut side, mr, _) = with_bytes(Setup { reads: 4, ..Setup::default() });
    for _ in 0..3 {
        side.request(RcReadRequest).reth(mr, 0, 300).go();
    }
    side.answer();
    let sqd = QpAttr { qp_state: QpState::Sqd, ..QpAttr::default() };
    side.qp.modify(Time::ZERO, &sqd, QpAttrMask::STATE).unwrap();
    let fewer = QpAttr { max_dest_rd_atomic: 1, ..sqd };
    side.qp.modify(Time::ZERO, &fewer, QpAttrMask::STATE | QpAttrMask::MAX_DEST_RD_ATOMIC).unwrap();
    // All that was promised is kept.
    assert_eq!(side.answers().len(), 5);
    for _ in 0..4 {
        side.request(RcReadRequest).reth(mr, 0, 10).go();
        assert_eq!(side.answers().len(), 1);
    }
    let psn = side.psn.get();
    side.request(RcReadRequest).reth(mr, 0, 10).go();
    side.request(RcReadRequest).reth(mr, 0, 10).go();
    side.expect_refused(NakCode::InvalidRequest, psn + 1, Some(AsyncEventKind::QpReqErr));
}

#[test]
fn without_resources_reads_and_atomics_are_refused() {
    for atomic in [false, true] {
        let (mut side, mr, _) = with_bytes(Setup { reads: 0, ..Setup::default() });
        if atomic {
            side.request(RcFetchAdd).atomic(mr, 0, 0, 1).go();
        } else {
            side.request(RcReadRequest).reth(mr, 0, 1).go();
        }
        side.expect_refused(NakCode::InvalidRequest, 100, Some(AsyncEventKind::QpReqErr));
        assert_eq!(side.atomics, 0);
    }
}

#[test]
fn a_region_that_goes_while_it_is_read_ends_the_answer_with_a_refusal() {
    let (mut side, mr, _) = with_bytes(Setup::default());
    let other = side.region(ALL, 100);
    side.post(1, &[]);
    side.request(RcReadRequest).reth(mr, 0, 1000).go(); // 100..=103
    side.request(RcReadRequest).reth(other, 0, 100).go();
    assert_eq!(
        shape(&[side.answer().unwrap(), side.answer().unwrap()]),
        [(RcReadResponseFirst, 100), (RcReadResponseMiddle, 101)]
    );
    side.world.memory.deregister(mr.key).unwrap();
    side.expect_refused(NakCode::RemoteAccessError, 102, Some(AsyncEventKind::QpAccessErr));
    assert_eq!(side.completed(), [(1, WcStatus::WrFlushErr, 0)]);
}

#[test]
fn a_region_that_has_gone_when_a_read_comes_again_is_refused_too() {
    let (mut side, mr, _) = with_bytes(Setup::default());
    side.request(RcReadRequest).reth(mr, 0, 10).go();
    side.answers();
    side.world.memory.deregister(mr.key).unwrap();
    side.request(RcReadRequest).psn(100).reth(mr, 0, 10).again();
    side.expect_refused(NakCode::RemoteAccessError, 100, Some(AsyncEventKind::QpAccessErr));
}

#[test]
fn a_read_is_not_confused_with_one_of_the_same_number_a_lap_ago() {
    let (mut side, mr, _) = with_bytes(Setup { mtu: Mtu::B256, ..Setup::default() });
    side.request(RcReadRequest).reth(mr, 0, 10).go();
    side.answers();
    // Many packets later, its number is used by a WRITE.
    let mut headers = side.request(RcWriteOnly).reth(Mr { key: 0, addr: 0 }, 0, 0).headers;
    for _ in 1..1 << 24 {
        headers.bth.psn = side.psn;
        let packet = wire::Packet { headers, payload: &[] };
        let incoming = Incoming { packet: &packet, grh: &[0; 40], congestion: false };
        side.qp.handle_packet(Time::ZERO, &incoming, &mut side.world);
        side.psn = side.psn.next();
    }
    assert_eq!((side.psn.get(), side.qp.query().rq_psn.get()), (100, 100));
    side.request(RcWriteOnly).reth(mr, 0, 1).payload(b"x").ack().go();
    side.answers();
    side.request(RcReadRequest).psn(100).reth(mr, 0, 10).again();
    assert_eq!(side.answers(), []);
    side.request(RcWriteOnly).psn(100).reth(mr, 0, 1).payload(b"x").ack().again();
    assert_eq!(shape(&side.answers()), [(RcAcknowledge, 100)]);
}
