//! The far party as the one who asks: what it does to the near one's memory and receives; and ends of a connection that are not there.

use crate::case::cases;
use crate::common::{Node, all_access, connection, pattern};
use crate::far::{self, FarNode, Shape};
use tbrdma::{Access, AsyncEventKind, Psn, QpAddress, QpState, RemoteAddr, WcFlags, WcOpcode, WcStatus};

cases! {
    Rc by "InfiniBand vol. 1, 9.4" {
        a_peers_send_fills_the_oldest_receive: "A peer's SEND takes the oldest receive, and leaves the others", needs [Rc] as two_party;
        a_peers_immediate_data_arrives_as_it_was_given: "A peer's immediate data arrives as it was given, flagged", needs [Rc] as two_party;
        a_peers_write_is_not_told: "A peer's WRITE places its bytes, and the owner is not told", needs [Rc] as two_party;
        a_peers_read_takes_the_bytes_as_they_are: "A peer's READ gets the bytes as they are, and the owner is not told", needs [Rc] as two_party;
        large_messages_cross_each_other: "Messages of many packets cross each other, whole both ways", needs [Rc] as two_party;
        a_ping_pong_of_many_rounds_keeps_its_numbers: "Messages to and fro, thousands of packets on, arrive once and in order", by "InfiniBand vol. 1, 9.7.1", needs [Rc] as two_party;
        a_connection_can_be_made_again: "Both ends may go to RESET and be connected again", by "InfiniBand vol. 1, 10.3.1", needs [Rc] as two_party;
    }
    Atomics by "InfiniBand vol. 1, 9.4.5" {
        a_peers_addition_changes_the_word: "A peer's FetchAdd changes the word, and gives the peer what was there", needs [Rc, Atomics] as two_party;
    }
    Errors by "InfiniBand vol. 1, 11.6.2 and 11.6.3" {
        a_peers_violation_is_an_event_here: "A peer's violation is an access error there, and the event of one here", needs [Rc] as two_party;
        a_peers_message_that_is_too_long_is_a_length_error_here: "A peer's message longer than the receive is a local length error here", needs [Rc] as two_party;
        a_right_that_our_queue_pair_lacks_is_an_invalid_request_there: "A right that the queue pair lacks is an invalid request for the peer", needs [Rc] as two_party;
        a_peer_in_the_error_state_is_silent: "A peer in ERR acknowledges nothing: the retries end", by "InfiniBand vol. 1, 9.7.6.1.3", needs [Rc] as two_party;
        a_peer_that_is_gone_is_silent: "A queue pair that is no more acknowledges nothing: the retries end", by "InfiniBand vol. 1, 9.7.6.1.3", needs [Rc] as two_party;
        a_peer_that_expects_another_number_is_silent_or_refuses: "A first packet of a number that the responder does not expect takes no effect", by "InfiniBand vol. 1, 9.7.1", needs [Rc] as two_party;
    }
    States by "InfiniBand vol. 1, 9.6.1 and 10.3.1" {
        a_peer_that_gets_ready_in_time_is_reached: "A SEND to a queue pair that is not in RTR yet is sent again", needs [Rc] as two_party;
    }
    Uc by "InfiniBand vol. 1, 9.8.2" {
        sends_and_writes_of_both_arrive: "SENDs and WRITEs arrive on unreliable connections, either way", needs [Uc] as two_party as unacknowledged;
        a_message_that_finds_no_receive_is_dropped: "A message without a receive is dropped, and the next with one arrives", needs [Uc] as two_party as unacknowledged;
        a_write_beyond_the_peers_memory_is_dropped_in_silence: "A WRITE that the peer refuses is dropped, and both go on", needs [Uc] as two_party as unacknowledged;
    }
    Ud by "InfiniBand vol. 1, 9.8.3" {
        a_datagram_reaches_the_far_party: "A datagram arrives behind its route header, with its immediate data", needs [Ud] as two_party as unacknowledged;
        a_datagram_with_a_wrong_qkey_does_not: "A datagram with a wrong Q_Key is dropped", by "InfiniBand vol. 1, 10.2.5", needs [Ud] as two_party as unacknowledged;
    }
}

fn a_peers_send_fills_the_oldest_receive() {
    for (mut a, b) in far::pairs("rc", Shape::default()) {
        a.fill(0..128, 1);
        a.post_recv(1, 0..64);
        a.post_recv(2, 64..128);
        b.write(0, b"from afar");
        b.post_send(3, 0..9);
        let wc = b.expect(3, WcStatus::Success);
        assert_eq!(wc.opcode, WcOpcode::Send);
        let wc = a.expect(1, WcStatus::Success);
        assert_eq!((wc.byte_len, wc.opcode), (9, WcOpcode::Recv));
        assert_eq!(a.bytes(0..10), b"from afar\x01");
        a.expect_nothing();
    }
}

fn a_peers_immediate_data_arrives_as_it_was_given() {
    let (mut a, b) = far::pair("rc");
    a.post_recv(1, 0..64);
    b.post_send_with_imm(2, 0..8, 0x0a0b_0c0d);
    b.expect(2, WcStatus::Success);
    let wc = a.expect(1, WcStatus::Success);
    assert_eq!((wc.imm_data, wc.wc_flags), (0x0a0b_0c0d, WcFlags::WITH_IMM));
}

fn a_peers_write_is_not_told() {
    for (mut a, b) in far::pairs("rc", Shape::default()) {
        let bytes = pattern(2, 9001);
        b.write(5, &bytes);
        a.post_recv(1, 0..8);
        b.post_write(2, 5..9006, a.mr.remote().at(4000));
        b.expect(2, WcStatus::Success);
        assert!(a.bytes(4000..13_001) == bytes);
        assert_eq!((a.bytes(3999..4000), a.bytes(13_001..13_002)), (vec![0], vec![0]));
        a.expect_nothing();
    }
}

fn a_peers_read_takes_the_bytes_as_they_are() {
    let (a, b) = far::pair("rc");
    let bytes = pattern(3, 10_007);
    a.mr.write(77, &bytes);
    b.post_read(1, 100..10_107, a.mr.remote().at(77));
    assert_eq!(b.expect(1, WcStatus::Success).byte_len, 10_007);
    assert!(b.bytes(100..10_107) == bytes);
    a.expect_nothing();
}

fn large_messages_cross_each_other() {
    const LEN: usize = 300_000;
    let (mut a, b) = far::pair("rc");
    let (ours, theirs) = (pattern(4, LEN), pattern(5, LEN));
    a.mr.write(0, &ours);
    b.write(0, &theirs);
    a.post_recv(1, LEN..2 * LEN);
    b.post_recv(2, LEN..2 * LEN);
    a.post_send(3, 0..LEN);
    b.post_send(4, 0..LEN);
    // Whichever of the two completes first.
    let mut near: Vec<_> = a.take(2).iter().map(|wc| (wc.wr_id, wc.status)).collect();
    let mut far = [b.one(), b.one()].iter().map(|wc| (wc.wr_id, wc.status)).collect::<Vec<_>>();
    near.sort_unstable();
    far.sort_unstable();
    assert_eq!(near, [(1, WcStatus::Success), (3, WcStatus::Success)]);
    assert_eq!(far, [(2, WcStatus::Success), (4, WcStatus::Success)]);
    assert!(a.bytes(LEN..2 * LEN) == theirs && b.bytes(LEN..2 * LEN) == ours);
}

fn a_ping_pong_of_many_rounds_keeps_its_numbers() {
    let (mut a, b) = far::pair("rc");
    for round in 0..300_u64 {
        b.post_recv(round, 0..8);
        a.post_recv(round, 0..8);
        a.mr.store_u64(8, round);
        a.post_send(1000 + round, 8..16);
        b.expect(round, WcStatus::Success);
        a.expect(1000 + round, WcStatus::Success);
        b.store_u64(8, b.load_u64(0) + 1);
        b.post_send(2000 + round, 8..16);
        a.expect(round, WcStatus::Success);
        b.expect(2000 + round, WcStatus::Success);
        assert_eq!(a.mr.load_u64(0), round + 1);
    }
}

fn a_connection_can_be_made_again() {
    let (mut a, b) = far::pair("rc");
    for round in 0..3 {
        b.post_recv(round, 0..8);
        a.post_send(round, 0..8);
        a.expect(round, WcStatus::Success);
        b.expect(round, WcStatus::Success);
        a.qp.reset().unwrap();
        b.reset();
        far::join(&mut a, &b, &connection(|_| ()));
    }
    assert_eq!((a.qp.state(), b.state()), (QpState::Rts, QpState::Rts));
}

fn a_peers_addition_changes_the_word() {
    let (a, b) = far::pair("rc");
    a.mr.store_u64(64, 40);
    for (add, before) in [(2, 40), (u64::MAX, 42)] {
        b.post_fetch_and_add(1, 0..8, a.mr.remote().at(64), add);
        assert_eq!(b.expect(1, WcStatus::Success).opcode, WcOpcode::FetchAdd);
        assert_eq!(b.load_u64(0), before);
    }
    assert_eq!(a.mr.load_u64(64), 41);
}

/// The far party's request fails so, and the near one hears this.
#[track_caller]
fn violation(a: &Node, b: &FarNode, status: WcStatus, event: AsyncEventKind) {
    b.expect(1, status);
    b.await_state(QpState::Err);
    a.expect_event(event);
    a.await_state(QpState::Err);
}

fn a_peers_violation_is_an_event_here() {
    let (a, b) = far::pair("rc");
    let read_only = a.pd.alloc(4096, Access::REMOTE_READ).unwrap();
    b.post_write(1, 0..8, read_only.remote().at(0));
    violation(&a, &b, WcStatus::RemAccessErr, AsyncEventKind::QpAccessErr);
    assert_eq!(read_only.load_u64(0), 0);
    let (a, b) = far::pair("rc");
    let mut remote = a.mr.remote().at(0);
    remote.rkey ^= 1;
    b.post_read(1, 0..8, remote);
    violation(&a, &b, WcStatus::RemAccessErr, AsyncEventKind::QpAccessErr);
}

fn a_peers_message_that_is_too_long_is_a_length_error_here() {
    let (mut a, b) = far::pair("rc");
    a.post_recv(9, 0..15);
    b.post_send(1, 0..16);
    violation(&a, &b, WcStatus::RemInvReqErr, AsyncEventKind::QpReqErr);
    a.expect(9, WcStatus::LocLenErr);
    assert_eq!(a.bytes(0..16), [0; 16]);
}

fn a_right_that_our_queue_pair_lacks_is_an_invalid_request_there() {
    let with = connection(|with| with.access = all_access() - Access::REMOTE_WRITE);
    let (a, b) = far::pair_with("rc", Shape::default(), &with);
    b.post_write(1, 0..8, a.mr.remote().at(0));
    violation(&a, &b, WcStatus::RemInvReqErr, AsyncEventKind::QpReqErr);
}

/// Attributes that end retries soon.
fn hasty() -> tbrdma::Connection {
    connection(|with| {
        with.timeout = 12;
        with.retry_cnt = 2;
    })
}

fn a_peer_in_the_error_state_is_silent() {
    let (mut a, b) = far::pair_with("rc", Shape::default(), &hasty());
    b.to_error();
    a.post_send(1, 0..8);
    a.post_send(2, 0..8);
    a.expect(1, WcStatus::RetryExcErr);
    a.expect(2, WcStatus::WrFlushErr);
    b.expect_nothing();
}

fn a_peer_that_is_gone_is_silent() {
    let (mut a, b) = far::pair_with("rc", Shape::default(), &hasty());
    let remote = b.remote().at(0);
    b.destroy();
    let slice = a.mr.slice(0..8);
    a.qp.post(|wr| _ = wr.write(slice, remote).id(1)).unwrap();
    a.expect(1, WcStatus::RetryExcErr);
    assert_eq!(a.qp.state(), QpState::Err);
}

fn a_peer_that_expects_another_number_is_silent_or_refuses() {
    let (mut a, b) = far::ends("rc", Shape::default());
    let address = a.qp.address();
    let wrong = QpAddress { psn: Psn::masked(address.psn.get() + 1), ..address };
    let with = far::fitting(&a, &b, &hasty());
    b.connect(&wrong, &with);
    a.qp.connect_with(&b.address(), &with).unwrap();
    b.post_recv(1, 0..8);
    a.post_send(2, 0..8);
    a.expect(2, WcStatus::RetryExcErr);
    b.expect_nothing();
    assert_eq!(b.state(), QpState::Rts);
}

fn a_peer_that_gets_ready_in_time_is_reached() {
    let (mut a, b) = far::ends("rc", Shape::default());
    let with = far::fitting(&a, &b, &connection(|with| with.timeout = 20));
    a.qp.connect_with(&b.address(), &with).unwrap();
    a.mr.store_u64(0, 7);
    a.post_send(1, 0..8);
    a.expect_nothing();
    b.connect(&a.qp.address(), &with);
    b.post_recv(2, 0..8);
    b.expect(2, WcStatus::Success);
    a.expect(1, WcStatus::Success);
    assert_eq!(b.load_u64(0), 7);
}

fn sends_and_writes_of_both_arrive() {
    let _alone = crate::common::alone();
    let (mut a, b) = far::pair("uc");
    let bytes = pattern(6, 9000);
    a.mr.write(0, &bytes);
    b.post_recv(1, 0..9000);
    a.post_send(2, 0..9000);
    a.expect(2, WcStatus::Success);
    assert_eq!(b.expect(1, WcStatus::Success).byte_len, 9000);
    assert!(b.bytes(0..9000) == bytes);
    b.post_write(3, 0..9000, a.mr.remote().at(20_000));
    b.expect(3, WcStatus::Success);
    crate::common::eventually("the write", || a.bytes(20_000..29_000) == bytes);
}

fn a_message_that_finds_no_receive_is_dropped() {
    let _alone = crate::common::alone();
    let (mut a, b) = far::pair("uc");
    for id in 0..5_u8 {
        a.qp.post(|wr| _ = wr.send_inline(&[id; 8]).id(id.into())).unwrap();
        a.expect(id.into(), WcStatus::Success);
    }
    b.expect_nothing();
    b.post_recv(1, 0..8);
    b.expect_nothing();
    a.qp.post(|wr| _ = wr.send_inline(&[99; 8]).id(99)).unwrap();
    a.expect(99, WcStatus::Success);
    b.expect(1, WcStatus::Success);
    assert_eq!(b.bytes(0..8), [99; 8]);
}

fn a_write_beyond_the_peers_memory_is_dropped_in_silence() {
    let _alone = crate::common::alone();
    let (mut a, b) = far::pair("uc");
    let slice = a.mr.slice(0..8);
    a.fill(0..8, 9);
    let beyond = RemoteAddr { addr: b.remote().addr + b.remote().length - 7, rkey: b.remote().rkey };
    a.qp.post(|wr| _ = wr.write(slice, beyond).id(1)).unwrap();
    a.expect(1, WcStatus::Success);
    b.expect_nothing();
    b.post_recv(2, 0..8);
    a.post_send(3, 0..8);
    a.expect(3, WcStatus::Success);
    b.expect(2, WcStatus::Success);
    let end = b.remote().length as usize;
    assert_eq!(b.bytes(end - 7..end), [0; 7]);
    assert_eq!((a.qp.state(), b.state()), (QpState::Rts, QpState::Rts));
}

fn a_datagram_reaches_the_far_party() {
    let _alone = crate::common::alone();
    let (mut a, b) = far::datagram_ends(0x77);
    let (ah, qpn) = (a.pd.create_ah_to(&b.address()).unwrap(), b.qp_num());
    b.post_recv(1, 0..140);
    let bytes = pattern(8, 100);
    a.mr.write(0, &bytes);
    let slice = a.mr.slice(0..100);
    a.qp.post(|wr| _ = wr.send_with_imm(slice, 0xbeef).to(&ah, qpn, 0x77).id(2)).unwrap();
    a.expect(2, WcStatus::Success);
    let wc = b.expect(1, WcStatus::Success);
    assert_eq!((wc.byte_len, wc.imm_data), (140, 0xbeef));
    assert_eq!(wc.wc_flags, WcFlags::GRH | WcFlags::WITH_IMM);
    assert_eq!(wc.src_qp, a.qp.qp_num());
    assert_eq!(b.bytes(40..140), bytes);
}

fn a_datagram_with_a_wrong_qkey_does_not() {
    let _alone = crate::common::alone();
    let (mut a, b) = far::datagram_ends(0x77);
    let (ah, qpn) = (a.pd.create_ah_to(&b.address()).unwrap(), b.qp_num());
    b.post_recv(1, 0..100);
    for (qkey, id) in [(0x78, 2), (0, 3)] {
        a.qp.post(|wr| _ = wr.send_inline(b"no").to(&ah, qpn, qkey).id(id)).unwrap();
        a.expect(id, WcStatus::Success);
    }
    b.expect_nothing();
    a.qp.post(|wr| _ = wr.send_inline(b"yes").to(&ah, qpn, 0x77).id(4)).unwrap();
    a.expect(4, WcStatus::Success);
    assert_eq!(b.expect(1, WcStatus::Success).byte_len, 43);
    assert_eq!(b.bytes(40..43), b"yes");
}
