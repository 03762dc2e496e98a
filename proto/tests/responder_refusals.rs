//! Requests that are wrong: what the requester is told, what the owner is told, and that nothing is done.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test may fail")]

mod responder_side;

use responder_side::*;
use tbrdma_proto::wire::NakCode::{self, InvalidRequest, RemoteAccessError, RemoteOperationalError};
use tbrdma_proto::wire::PacketOpcode::{self, *};
use tbrdma_proto::*;

/// A packet, with which anything may be wrong.
type Bad = fn(&mut Side, Mr);

/// Asserts that each of these is refused so, with nothing placed and its receive flushed.
fn all_refused(code: NakCode, event: AsyncEventKind, cases: &[(&str, Bad)]) {
    for (what, bad) in cases {
        println!("{what}");
        let mut side = Side::rc();
        let mr = side.region(ALL, 1024);
        side.fill(mr, &[0xaa; 1024]);
        side.post(1, &[mr.sge(0, 1024)]);
        side.post(2, &[mr.sge(0, 1024)]);
        bad(&mut side, mr);
        let psn = side.psn.get() - 1;
        side.expect_refused(code, psn, Some(event));
        assert_eq!((side.placed, side.atomics), (0, 0), "{what}");
        assert_eq!(side.bytes(mr, 0, 1024), [0xaa; 1024], "{what}");
        let flushed = WcStatus::WrFlushErr;
        assert_eq!(side.completed(), [(1, flushed, 0), (2, flushed, 0)], "{what}");
        // From now on there is nobody.
        side.request(RcSendOnly).psn(psn).payload(b"x").ack().go();
        assert_eq!((side.answers(), side.completed(), side.placed), (vec![], vec![], 0), "{what}");
        assert_eq!(side.qp.counters().send_nak_err, 1);
    }
}

#[test]
fn what_a_key_does_not_cover_is_refused() {
    all_refused(
        RemoteAccessError,
        AsyncEventKind::QpAccessErr,
        &[
            ("unknown key", |side, mr| {
                side.request(RcWriteOnly).reth(Mr { key: mr.key ^ 1, ..mr }, 0, 1).payload(b"x").go();
            }),
            ("one byte before", |side, mr| {
                side.request(RcWriteOnly).reth(mr, u64::MAX, 1).payload(b"x").go();
            }),
            ("one byte behind", |side, mr| {
                side.request(RcWriteOnly).reth(mr, 1023, 2).payload(b"xx").go();
            }),
            ("the whole message counts, not its first packet", |side, mr| {
                side.request(RcWriteFirst).reth(mr, 0, 1025).payload(&[1; 256]).go();
            }),
            ("two gigabytes", |side, mr| {
                side.request(RcWriteFirst).reth(mr, 0, 1 << 31).payload(&[1; 256]).go();
            }),
            ("address and length wrap around", |side, mr| {
                let at = Mr { addr: u64::MAX - 3, ..mr };
                side.request(RcWriteOnly).reth(at, 0, 8).payload(&[1; 8]).go();
            }),
            ("the end of the address space", |side, mr| {
                let at = Mr { addr: u64::MAX, ..mr };
                side.request(RcReadRequest).reth(at, 0, 1).go();
            }),
            ("a read beyond the end", |side, mr| side.request(RcReadRequest).reth(mr, 1000, 25).go()),
            ("an atomic beyond the end", |side, mr| side.request(RcFetchAdd).atomic(mr, 1024, 0, 1).go()),
            ("another domain", |side, _| {
                let other = side.region_of(PdHandle(99), ALL, 64);
                side.request(RcWriteOnly).reth(other, 0, 1).payload(b"x").go();
            }),
            ("no right to write", |side, _| {
                let other = side.region(Access::LOCAL_WRITE | Access::REMOTE_READ, 64);
                side.request(RcWriteOnly).reth(other, 0, 1).payload(b"x").go();
            }),
            ("no right to read", |side, _| {
                let other = side.region(Access::LOCAL_WRITE | Access::REMOTE_WRITE, 64);
                side.request(RcReadRequest).reth(other, 0, 1).go();
            }),
            ("no right to atomics", |side, _| {
                let other = side.region(ALL - Access::REMOTE_ATOMIC, 64);
                side.request(RcCompareSwap).atomic(other, 0, 0, 1).go();
            }),
            ("a region that has gone", |side, _| {
                let other = side.region(ALL, 64);
                side.world.memory.deregister(other.key).unwrap();
                side.request(RcWriteOnly).reth(other, 0, 1).payload(b"x").go();
            }),
            ("with immediate", |side, mr| {
                side.request(RcWriteOnlyWithImm).imm(1).reth(mr, 1024, 1).payload(b"x").go();
            }),
            ("a key to invalidate that is none", |side, mr| {
                side.request(RcSendOnlyWithInv).invalidate(mr.key ^ 1).payload(b"x").go();
            }),
            ("a key to invalidate of another domain", |side, _| {
                let other = side.region_of(PdHandle(99), ALL, 64);
                side.request(RcSendOnlyWithInv).invalidate(other.key).payload(b"x").go();
            }),
            ("a key to invalidate that the message itself needs", |side, mr| {
                side.request(RcSendOnlyWithInv).invalidate(mr.key).payload(b"x").go();
            }),
        ],
    );
}

#[test]
fn what_makes_no_sense_is_refused() {
    all_refused(
        InvalidRequest,
        AsyncEventKind::QpReqErr,
        &[
            ("middle of nothing", |side, _| side.request(RcSendMiddle).payload(&[1; 256]).go()),
            ("last of nothing", |side, _| side.request(RcSendLast).payload(&[1; 6]).go()),
            ("write last of nothing", |side, _| side.request(RcWriteLast).payload(&[1; 6]).go()),
            ("longer than the path MTU", |side, _| side.request(RcSendOnly).payload(&[1; 257]).go()),
            ("first that is short", |side, _| side.request(RcSendFirst).payload(&[1; 255]).go()),
            ("first without bytes", |side, _| side.request(RcSendFirst).go()),
            ("write first that is short", |side, mr| {
                side.request(RcWriteFirst).reth(mr, 0, 300).payload(&[1; 200]).go();
            }),
            ("write first that is all", |side, mr| {
                side.request(RcWriteFirst).reth(mr, 0, 256).payload(&[1; 256]).go();
            }),
            ("write only with fewer bytes than it says", |side, mr| {
                side.request(RcWriteOnly).reth(mr, 0, 10).payload(&[1; 9]).go();
            }),
            ("write only with more bytes than it says", |side, mr| {
                side.request(RcWriteOnly).reth(mr, 0, 10).payload(&[1; 11]).go();
            }),
            ("write only with bytes that it says are none", |side, mr| {
                side.request(RcWriteOnly).reth(mr, 0, 0).payload(&[1; 4]).go();
            }),
            ("write only that says more than a packet", |side, mr| {
                side.request(RcWriteOnly).reth(mr, 0, 300).payload(&[1; 256]).go();
            }),
            ("more than two gigabytes", |side, mr| {
                side.request(RcWriteFirst).reth(mr, 0, (1 << 31) + 1).payload(&[1; 256]).go();
            }),
            ("read of more than two gigabytes", |side, mr| {
                let mut request = side.request(RcReadRequest).reth(mr, 0, u32::MAX);
                request.headers.reth.as_mut().unwrap().length = u32::MAX;
                request.again();
                side.psn = side.psn.next();
            }),
            ("read request with bytes", |side, mr| {
                side.request(RcReadRequest).reth(mr, 0, 1).payload(&[1]).go();
            }),
            ("atomic with bytes", |side, mr| {
                side.request(RcFetchAdd).atomic(mr, 0, 0, 1).payload(&[1; 8]).go()
            }),
            ("atomic at an odd place", |side, mr| side.request(RcFetchAdd).atomic(mr, 4, 0, 1).go()),
            ("atomic at an odd place that is not even there", |side, mr| {
                side.request(RcCompareSwap).atomic(Mr { key: 0, ..mr }, 1, 0, 1).go();
            }),
        ],
    );
}

#[test]
fn packets_of_a_message_come_one_after_the_other() {
    let starts: [PacketOpcode; 2] = [RcSendFirst, RcWriteFirst];
    let all = [
        RcSendFirst,
        RcSendMiddle,
        RcSendLast,
        RcSendOnly,
        RcWriteFirst,
        RcWriteMiddle,
        RcWriteLast,
        RcWriteOnly,
        RcReadRequest,
        RcFetchAdd,
        RcCompareSwap,
        RcSendLastWithImm,
        RcSendLastWithInv,
        RcWriteLastWithImm,
        RcSendOnlyWithInv,
    ];
    for start in starts {
        for then in all {
            let mut side = Side::rc();
            let mr = side.region(ALL, 1024);
            let window = side.region(ALL, 8);
            side.post(1, &[mr.sge(0, 1024)]);
            side.request(start).reth(mr, 0, 512).payload(&[1; 256]).go();
            let request = side.request(then).atomic(mr, 0, 0, 1).invalidate(window.key).payload(&[2; 256]);
            let request = if then == RcReadRequest || request.headers.bth.opcode.has_atomic_eth() {
                request.payload(&[])
            } else {
                request
            };
            let fits = !then.is_first() && then.operation() == start.operation();
            request.reth(mr, 512, 256).go();
            // A MIDDLE that leaves nothing to a LAST is wrong as well.
            if fits && then != RcWriteMiddle {
                assert_eq!(side.qp.state(), QpState::Rts, "{start} {then}");
            } else {
                assert_eq!(side.qp.state(), QpState::Err, "{start} {then}");
                assert_eq!(side.answers().last().unwrap().nak(), Some(InvalidRequest), "{start} {then}");
                assert_eq!(side.completed(), [(1, WcStatus::WrFlushErr, 0)]);
                assert_eq!((side.placed, side.atomics), (256, 0), "{start} {then}");
            }
        }
    }
}

#[test]
fn a_write_whose_packets_do_not_add_up_is_refused() {
    for (middle, last) in [(0, 45), (0, 43), (0, 0), (1, 44), (1, 300)] {
        let mut side = Side::rc();
        let mr = side.region(ALL, 1024);
        side.request(RcWriteFirst).reth(mr, 0, 300).payload(&[1; 256]).go();
        for _ in 0..middle {
            side.request(RcWriteMiddle).payload(&[1; 256]).go();
        }
        if middle == 0 {
            side.request(RcWriteLast).payload(&vec![1; last]).go();
        }
        side.expect_refused(InvalidRequest, 101, Some(AsyncEventKind::QpReqErr));
        assert_eq!(side.placed, 256);
    }
}

#[test]
fn a_region_that_goes_in_the_middle_of_a_write_is_not_touched_any_more() {
    let mut side = Side::rc();
    let mr = side.region(ALL, 1024);
    side.request(RcWriteFirst).reth(mr, 0, 600).payload(&[1; 256]).go();
    side.world.memory.deregister(mr.key).unwrap();
    side.request(RcWriteMiddle).payload(&[1; 256]).go();
    side.expect_refused(RemoteAccessError, 101, Some(AsyncEventKind::QpAccessErr));
    assert_eq!(side.placed, 256);
}

#[test]
fn rights_that_the_queue_pair_does_not_grant_are_refused_whatever_the_key_says() {
    let cases: [(Access, Bad); 4] = [
        (Access::REMOTE_WRITE, |side, mr| side.request(RcWriteOnly).reth(mr, 0, 1).payload(b"x").go()),
        (Access::REMOTE_WRITE, |side, mr| side.request(RcWriteOnly).reth(mr, 0, 0).go()),
        (Access::REMOTE_READ, |side, mr| side.request(RcReadRequest).reth(mr, 0, 1).go()),
        (Access::REMOTE_ATOMIC, |side, mr| side.request(RcFetchAdd).atomic(mr, 0, 0, 1).go()),
    ];
    for (right, bad) in cases {
        for granted in [true, false] {
            let access = if granted { right } else { ALL - right };
            let mut side = Side::new(Setup { access, ..Setup::default() });
            let mr = side.region(ALL, 64);
            bad(&mut side, mr);
            if granted {
                assert_eq!((side.qp.state(), side.events.len()), (QpState::Rts, 0));
            } else {
                side.expect_refused(InvalidRequest, 100, Some(AsyncEventKind::QpReqErr));
            }
        }
    }
}

#[test]
fn a_message_longer_than_its_receive_fails_on_both_sides() {
    for (room, packets) in [(0, 1), (255, 1), (256, 2), (511, 2)] {
        let mut side = Side::rc();
        let mr = side.region(ALL, 1024);
        side.post(1, &[mr.sge(0, room / 2), mr.sge(512, room - room / 2)]);
        side.post(2, &[mr.sge(0, 1024)]);
        for at in 0..packets {
            let opcode = match (packets, at) {
                (1, _) => RcSendOnly,
                (_, 0) => RcSendFirst,
                _ => RcSendLast,
            };
            side.request(opcode).payload(&[1; 256]).solicited().go();
        }
        assert_eq!(side.solicited, [true, true]);
        assert_eq!(side.completed(), [(1, WcStatus::LocLenErr, 0), (2, WcStatus::WrFlushErr, 0)]);
        assert_eq!(side.placed, 256 * (packets - 1));
        side.expect_refused(InvalidRequest, 99 + packets as u32, Some(AsyncEventKind::QpReqErr));
    }
}

#[test]
fn messages_are_as_long_as_the_port_says_and_no_longer() {
    for (last, fits) in [(44, true), (45, false)] {
        let start = || {
            let mut side = Side::new(Setup { max_msg: 300, ..Setup::default() });
            let mr = side.region(ALL, 1024);
            side.post(1, &[mr.sge(0, 1024)]);
            (side, mr)
        };
        let judge = |mut side: Side, psn, status| {
            if fits {
                assert_eq!((side.qp.state(), side.events.len()), (QpState::Rts, 0));
            } else {
                assert_eq!(side.completed(), [(1, status, 0)]);
                side.expect_refused(InvalidRequest, psn, Some(AsyncEventKind::QpReqErr));
            }
        };
        let (mut side, _) = start();
        side.request(RcSendFirst).payload(&[1; 256]).go();
        side.request(RcSendLast).payload(&vec![1; last]).go();
        judge(side, 101, WcStatus::LocLenErr);
        let (mut side, mr) = start();
        side.request(RcWriteFirst).reth(mr, 0, 256 + last as u32).payload(&[1; 256]).go();
        judge(side, 100, WcStatus::WrFlushErr);
        let (mut side, mr) = start();
        side.request(RcReadRequest).reth(mr, 0, 256 + last as u32).go();
        judge(side, 100, WcStatus::WrFlushErr);
    }
}

#[test]
fn a_receive_of_memory_that_may_not_be_written_fails_on_both_sides() {
    let bad: [fn(&mut Side, Mr) -> Sge; 6] = [
        |_, mr| Sge { lkey: mr.key ^ 1, ..mr.sge(0, 8) },
        |_, mr| mr.sge(1020, 8),
        |_, mr| mr.sge(u64::MAX - mr.addr - 3, 8),
        |side, _| side.region(Access::REMOTE_READ, 64).sge(0, 8),
        |side, _| side.region_of(PdHandle(99), ALL, 64).sge(0, 8),
        |side, _| {
            let gone = side.region(ALL, 64);
            side.world.memory.deregister(gone.key).unwrap();
            gone.sge(0, 8)
        },
    ];
    for bad in bad {
        for good_first in [false, true] {
            let mut side = Side::rc();
            let mr = side.region(ALL, 1024);
            let bad = bad(&mut side, mr);
            let good = mr.sge(0, 8);
            side.post(1, &if good_first { [good, bad] } else { [bad, good] });
            side.post(2, &[good]);
            side.request(RcSendOnly).payload(&[1; 16]).go();
            assert_eq!(side.completed(), [(1, WcStatus::LocProtErr, 0), (2, WcStatus::WrFlushErr, 0)]);
            assert_eq!(side.placed, 0);
            side.expect_refused(RemoteOperationalError, 100, None);
        }
    }
}

#[test]
fn an_entry_that_wraps_around_the_address_space_reaches_nothing() {
    // A zero-based region, so that what wraps would find memory there.
    let mut side = Side::rc();
    let zero = side.region(ALL | Access::ZERO_BASED, 1024);
    assert_eq!(zero.addr, 0);
    let wraps = Sge { addr: u64::MAX - 255, length: 512, lkey: zero.key };
    side.post(1, &[wraps]);
    side.request(RcSendFirst).payload(&[1; 256]).go();
    assert_eq!(side.placed, 0);
    side.expect_refused(RemoteOperationalError, 100, None);
}

#[test]
fn only_what_is_used_of_a_receive_is_checked() {
    let mut side = Side::rc();
    let mr = side.region(ALL, 64);
    let bad = Sge { lkey: mr.key ^ 1, ..mr.sge(0, 8) };
    side.post(1, &[mr.sge(0, 8), bad]);
    side.post(2, &[bad]);
    side.request(RcSendOnly).payload(&[1; 8]).go();
    side.request(RcSendOnly).go();
    assert_eq!(side.completed(), [(1, WcStatus::Success, 8), (2, WcStatus::Success, 0)]);
}

#[test]
fn packets_of_another_service_are_dropped_and_counted() {
    let mut side = Side::rc();
    side.post(1, &[]);
    for opcode in [UcSendOnly, UcWriteOnly, UdSendOnly] {
        side.request(opcode).again();
    }
    assert_eq!((side.completions.len(), side.answers()), (0, vec![]));
    assert_eq!(side.qp.counters().dropped_pkts, 3);
    side.request(RcSendOnly).go();
    assert_eq!(side.completed().len(), 1);
}
