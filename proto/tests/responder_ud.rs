//! Datagrams: behind their routing header, or dropped.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test may fail")]

mod responder_side;

use responder_side::*;
use tbrdma_proto::wire::PacketOpcode::*;
use tbrdma_proto::*;

fn header() -> [u8; GRH] {
    pattern(200, GRH).try_into().unwrap()
}

fn receive(side: &mut Side, payload: &[u8]) {
    side.request(UdSendOnly).datagram(QKEY, header()).payload(payload).go();
}

#[test]
fn a_datagram_arrives_behind_its_routing_header() {
    for len in [0, 1, 1000, 4096] {
        let mut side = Side::ud();
        let mr = side.region(ALL, 5000);
        side.post(7, &[mr.sge(0, 5000)]);
        let bytes = pattern(1, len);
        side.request(UdSendOnlyWithImm).datagram(QKEY, header()).imm(99).payload(&bytes).solicited().go();
        let wc = side.completions[0];
        assert_eq!(
            (wc.wr_id, wc.status, wc.byte_len, wc.opcode),
            (7, WcStatus::Success, 40 + len as u32, WcOpcode::Recv)
        );
        assert_eq!((wc.src_qp.get(), wc.wc_flags), (PEER_QPN, WcFlags::GRH | WcFlags::WITH_IMM));
        assert_eq!((wc.imm_data, side.solicited[0]), (99, true));
        assert_eq!(side.bytes(mr, 0, GRH), header());
        assert_eq!(side.bytes(mr, 40, len), bytes);
        assert_eq!(side.bytes(mr, 40 + len as u64, 100), [0; 100]);
        assert_eq!(side.answers(), []);
    }
}

#[test]
fn the_header_may_be_scattered_like_the_rest() {
    // Where the first of three entries ends.
    for cut in 0..=50 {
        let mut side = Side::ud();
        let mr = side.region(ALL, 1000);
        side.post(1, &[mr.sge(0, cut), mr.sge(100, 7), mr.sge(200, 300)]);
        receive(&mut side, b"a message");
        assert_eq!(side.completions[0].byte_len, 49);
        let all = [header().as_slice(), b"a message"].concat();
        let (one, rest) = all.split_at(all.len().min(cut as usize));
        let (two, three) = rest.split_at(rest.len().min(7));
        assert_eq!(side.bytes(mr, 0, one.len()), one);
        assert_eq!(side.bytes(mr, 100, two.len()), two);
        assert_eq!(side.bytes(mr, 200, three.len()), three);
        assert_eq!(side.placed, 49);
    }
}

#[test]
fn sequence_numbers_mean_nothing() {
    let mut side = Side::ud();
    let mr = side.region(ALL, 1000);
    for (id, psn) in [5, 5, 4, 0x80_0000].into_iter().enumerate() {
        side.post(id as u64, &[mr.sge(0, 100)]);
        side.psn = Psn::masked(psn);
        receive(&mut side, b"x");
        assert_eq!(side.completed(), [(id as u64, WcStatus::Success, 41)]);
    }
}

#[test]
fn what_is_not_for_it_is_dropped_and_counted() {
    let mut side = Side::ud();
    let mr = side.region(ALL, 9000);
    receive(&mut side, b"no receive");
    side.post(1, &[mr.sge(0, 9000)]);
    side.request(UdSendOnly).datagram(QKEY ^ 1, header()).payload(b"wrong key").go();
    side.request(UdSendOnly).datagram(QKEY, header()).payload(&[0; 4097]).go();
    side.request(RcSendOnly).payload(b"wrong service").go();
    side.request(UcSendOnly).payload(b"wrong service").go();
    assert_eq!((side.completed(), side.placed), (vec![], 0));
    assert_eq!(side.qp.counters().dropped_pkts, 5);
    receive(&mut side, b"right");
    assert_eq!(side.completed(), [(1, WcStatus::Success, 45)]);
    assert_eq!((side.qp.state(), side.events.len()), (QpState::Rts, 0));
}

#[test]
fn a_receive_that_is_too_small_stays_for_what_fits() {
    for shared in [false, true] {
        let mut side = Side::new(Setup { qp_type: QpType::Ud, srq: shared, ..Setup::default() });
        let mr = side.region_of(if shared { SRQ_PD } else { PD }, ALL, 1000);
        side.post(1, &[mr.sge(0, 49)]);
        side.post(2, &[mr.sge(100, 500)]);
        receive(&mut side, &[1; 10]);
        assert_eq!((side.completed(), side.placed), (vec![], 0));
        receive(&mut side, &[2; 9]);
        receive(&mut side, &[3; 10]);
        assert_eq!(side.completed(), [(1, WcStatus::Success, 49), (2, WcStatus::Success, 50)]);
        assert_eq!(side.bytes(mr, 40, 9), [2; 9]);
    }
}

#[test]
fn a_receive_that_is_wrong_itself_ends_the_queue_pair() {
    let mut side = Side::ud();
    let mr = side.region(ALL, 1000);
    side.post(1, &[mr.sge(0, 44), Sge { lkey: mr.key ^ 1, ..mr.sge(100, 100) }]);
    side.post(2, &[]);
    // What does not reach the bad entry does no harm, were it posted alone.
    receive(&mut side, &[1; 5]);
    assert_eq!(side.placed, 0);
    assert_eq!(side.completed(), [(1, WcStatus::LocProtErr, 0), (2, WcStatus::WrFlushErr, 0)]);
    assert_eq!(side.qp.state(), QpState::Err);
    receive(&mut side, b"x");
    assert_eq!((side.completed(), side.answers()), (vec![], vec![]));
}
