//! Unreliable connections: what arrives is whole and in order, what does not is nobody's error.

use crate::case::cases;
use crate::common;
use crate::common::{MEMORY, connection, pair, pair_with, pairs, pattern};
use tbrdma::{Access, QpAttr, QpAttrMask, QpState, WcFlags, WcOpcode, WcStatus};

cases! {
    Uc by "InfiniBand vol. 1, 9.8.2" {
        sends_and_writes_arrive: "SENDs and WRITEs arrive, with their immediate data", needs [Uc] as unacknowledged;
        a_message_without_a_receive_is_dropped: "A message without a receive is dropped; the sender sees success", needs [Uc] as unacknowledged;
        a_write_with_immediate_without_a_receive_is_dropped: "So is a WRITE with immediate", needs [Uc] as unacknowledged;
        what_the_peer_refuses_is_dropped_and_both_go_on: "What the peer's memory or receive refuses is dropped, and both go on", needs [Uc] as unacknowledged;
        rights_that_the_queue_pair_does_not_grant_are_refused_silently: "A right that the queue pair lacks is refused in silence", needs [Uc] as unacknowledged;
        a_peer_that_is_not_ready_loses_messages: "A peer in ERR or RESET loses messages, and the sender does not learn it", needs [Uc] as unacknowledged;
        an_error_of_ones_own_stops_the_send_queue_alone:
            "A local error brings the send queue to SQE, from where RTS goes on", by "InfiniBand vol. 1, 10.3.1", needs [Uc] as unacknowledged;
        what_arrives_is_in_order_even_if_much_is_lost: "What arrives is whole, once, and in order", needs [Uc] as unacknowledged;
    }
}

fn sends_and_writes_arrive() {
    let _alone = common::alone();
    for (mut a, mut b) in pairs("uc", |init| init) {
        b.post_recv(1, 0..64);
        b.post_recv(2, 64..128);
        b.qp.post_recv(|rq| _ = rq.recv_nothing().id(3)).unwrap();
        let bytes = pattern(1, 50);
        a.mr.write(0, &bytes);
        let (slice, remote) = (a.mr.slice(0..50), b.mr.remote());
        a.qp.post(|wr| {
            wr.send(slice).id(11);
            wr.send_with_imm(slice, 0xabcd).id(12);
            wr.write(slice, remote.at(1000)).id(13);
            wr.write_with_imm(slice, remote.at(2000), 0x1234).id(14);
        })
        .unwrap();
        for id in [11, 12, 13, 14] {
            a.expect(id, WcStatus::Success);
        }
        assert_eq!(b.expect(1, WcStatus::Success).byte_len, 50);
        let wc = b.expect(2, WcStatus::Success);
        assert_eq!((wc.imm_data, wc.wc_flags), (0xabcd, WcFlags::WITH_IMM));
        let wc = b.expect(3, WcStatus::Success);
        assert_eq!((wc.imm_data, wc.opcode, wc.byte_len), (0x1234, WcOpcode::RecvRdmaWithImm, 50));
        for at in [0, 64, 1000, 2000] {
            assert_eq!(b.bytes(at..at + 50), bytes);
        }
    }
}

fn a_message_without_a_receive_is_dropped() {
    let _alone = common::alone();
    let (mut a, mut b) = pair("uc");
    for id in 0..10 {
        a.qp.post(|wr| _ = wr.send_inline(&[id; 8]).id(u64::from(id))).unwrap();
        a.expect(u64::from(id), WcStatus::Success);
    }
    b.expect_nothing();
    b.post_recv(1, 0..8);
    b.expect_nothing();
    a.qp.post(|wr| _ = wr.send_inline(&[99; 8]).id(99)).unwrap();
    a.expect(99, WcStatus::Success);
    b.expect(1, WcStatus::Success);
    assert_eq!(b.bytes(0..8), [99; 8]);
}

fn a_write_with_immediate_without_a_receive_is_dropped() {
    let _alone = common::alone();
    let (mut a, mut b) = pair("uc");
    a.fill(0..8, 1);
    let (slice, remote) = (a.mr.slice(0..8), b.mr.remote());
    a.qp.post(|wr| _ = wr.write_with_imm(slice, remote.at(0), 5).id(1)).unwrap();
    a.expect(1, WcStatus::Success);
    b.expect_nothing();
    b.qp.post_recv(|rq| _ = rq.recv_nothing().id(2)).unwrap();
    b.expect_nothing();
    a.qp.post(|wr| _ = wr.write_with_imm(slice, remote.at(8), 6).id(2)).unwrap();
    a.expect(2, WcStatus::Success);
    assert_eq!(b.expect(2, WcStatus::Success).imm_data, 6);
}

fn what_the_peer_refuses_is_dropped_and_both_go_on() {
    let _alone = common::alone();
    let (mut a, mut b) = pair("uc");
    let region = b.pd.alloc(4096, Access::REMOTE_READ).unwrap();
    let slice = a.mr.slice(0..8);
    a.fill(0..16, 3);
    let good = b.mr.remote();
    let mut wrong_key = good.at(0);
    wrong_key.rkey ^= 1;
    for remote in [wrong_key, good.at(MEMORY as u64 - 7), region.remote().at(0), good.at(u64::MAX)] {
        a.qp.post(|wr| _ = wr.write(slice, remote).id(1)).unwrap();
        a.expect(1, WcStatus::Success);
    }
    // A message longer than its receive.
    b.post_recv(2, 0..7);
    a.post_send(3, 0..8);
    a.expect(3, WcStatus::Success);
    b.expect_nothing();
    assert_eq!((b.bytes(0..8), region.load_u64(0)), (vec![0; 8], 0));
    b.expect_no_event();
    assert_eq!((a.qp.state(), b.qp.state()), (QpState::Rts, QpState::Rts));
    // The receive is still there.
    a.post_send(4, 0..7);
    a.expect(4, WcStatus::Success);
    b.expect(2, WcStatus::Success);
    assert_eq!(b.bytes(0..8), [3, 3, 3, 3, 3, 3, 3, 0]);
}

fn rights_that_the_queue_pair_does_not_grant_are_refused_silently() {
    let _alone = common::alone();
    let (mut a, b) = pair_with("uc", |init| init, &connection(|with| with.access = Access::empty()));
    a.fill(0..8, 1);
    let (slice, remote) = (a.mr.slice(0..8), b.mr.remote().at(0));
    a.qp.post(|wr| _ = wr.write(slice, remote).id(1)).unwrap();
    a.expect(1, WcStatus::Success);
    b.expect_nothing();
    assert_eq!(b.mr.load_u64(0), 0);
    b.expect_no_event();
}

fn a_peer_that_is_not_ready_loses_messages() {
    let _alone = common::alone();
    let (mut a, mut b) = pair("uc");
    b.post_recv(1, 0..8);
    b.qp.to_error().unwrap();
    b.expect(1, WcStatus::WrFlushErr);
    a.post_send(2, 0..8);
    a.expect(2, WcStatus::Success);
    b.expect_nothing();
    b.qp.reset().unwrap();
    a.post_send(3, 0..8);
    a.expect(3, WcStatus::Success);
    b.expect_nothing();
    assert_eq!(a.qp.state(), QpState::Rts);
    b.qp.connect_with(&a.qp.address(), &common::patient()).unwrap();
    b.post_recv(4, 0..8);
    b.expect_nothing();
    a.post_send(5, 0..8);
    a.expect(5, WcStatus::Success);
    b.expect(4, WcStatus::Success);
    drop(b.qp);
    a.post_send(6, 0..8);
    a.expect(6, WcStatus::Success);
}

fn an_error_of_ones_own_stops_the_send_queue_alone() {
    let _alone = common::alone();
    let (mut a, mut b) = pair("uc");
    let beyond = a.mr.slice(MEMORY..MEMORY + 8);
    let good = a.mr.slice(0..8);
    a.post_recv(9, 0..8);
    b.post_recv(1, 0..8);
    a.qp.post(|wr| {
        wr.send(beyond).id(2);
        wr.send(good).id(3);
    })
    .unwrap();
    a.expect(2, WcStatus::LocProtErr);
    a.expect(3, WcStatus::WrFlushErr);
    assert_eq!(a.qp.state(), QpState::Sqe);
    a.post_send(4, 0..8);
    a.expect(4, WcStatus::WrFlushErr);
    b.expect_nothing();
    // Receiving goes on, and so does sending once the program says so.
    b.post_send(5, 0..8);
    b.expect(5, WcStatus::Success);
    a.expect(9, WcStatus::Success);
    let attr = QpAttr { qp_state: QpState::Rts, ..QpAttr::default() };
    a.qp.modify(&attr, QpAttrMask::STATE).unwrap();
    a.post_send(6, 0..8);
    a.expect(6, WcStatus::Success);
    b.expect(1, WcStatus::Success);
    a.expect_no_event();
}

fn what_arrives_is_in_order_even_if_much_is_lost() {
    let _alone = common::alone();
    let (mut a, mut b) = pair("uc");
    let mut rng = common::Rng(7);
    let (mut next, mut seen, mut posted, mut arrived) = (0_u64, None, 0, 0);
    while next < 20_000 {
        if rng.below(3) == 0 && posted < arrived + 4 {
            b.post_recv(posted, 8 * (posted as usize % 8)..8 * (posted as usize % 8) + 8);
            posted += 1;
        }
        a.qp.post(|wr| _ = wr.send_inline(&next.to_ne_bytes()).id(next)).unwrap();
        a.expect(next, WcStatus::Success);
        next += 1;
        let mut wcs = [tbrdma::WorkCompletion::default(); 4];
        for wc in b.cq.poll(&mut wcs) {
            assert_eq!((wc.wr_id, wc.status), (arrived, WcStatus::Success));
            let value = b.mr.load_u64(8 * (arrived as usize % 8));
            assert!(seen.is_none_or(|seen| seen < value), "{value} after {seen:?}");
            seen = Some(value);
            arrived += 1;
        }
    }
    assert!(arrived > 1000, "only {arrived} of {next} messages arrived");
}
